//! Edits on the members of an object (and one level below), everything else
//! copied as it came.
//!
//! A [`Patch`] is a list of edits that is carried out once, in the order of the
//! bytes. New members go to the front; a member that goes takes one comma along.

use std::borrow::Cow;

use bytes::Bytes;

use crate::key::{Index, Key};
use crate::raw::Raw;
use crate::scan::{Limits, ParseError, Reason, Scanner, Span};
use crate::text;

/// Edits on one object of which the bytes are known to be valid.
#[derive(Clone, Debug)]
pub struct Patch {
    base: Bytes,
    known: Option<Index>,
    edits: Vec<Edit>,
}

#[derive(Clone, Debug)]
struct Edit {
    parent: Option<Name>,
    key: Name,
    /// `None` removes.
    value: Option<Bytes>,
}

/// What is known here needs no copy.
type Name = Cow<'static, str>;

fn name(key: &str) -> Name {
    Key::parse(key.as_bytes()).map_or_else(|| Cow::Owned(key.to_owned()), |key| Cow::Borrowed(key.as_str()))
}

/// A member of an object: where its key and its value are.
#[derive(Clone, Copy, Debug)]
struct Member {
    key: Span,
    value: Span,
}

/// Bytes of the base that make way for others.
struct Cut<'a> {
    span: Span,
    text: Cow<'a, [u8]>,
}

impl Cut<'_> {
    fn into_owned<'b>(self) -> Cut<'b> {
        Cut { span: self.span, text: Cow::Owned(self.text.into_owned()) }
    }
}

impl Patch {
    /// Edits on an object that stands alone.
    pub fn of(object: &Bytes) -> Result<Self, ParseError> {
        let mut scanner = Scanner::new(object, Limits::BACKEND)?;
        if scanner.peek()? != b'{' {
            return Err(scanner.error(Reason::NotAnObject));
        }
        let span = scanner.value()?;
        scanner.end()?;
        Ok(Self { base: object.slice(span.range()), known: None, edits: Vec::new() })
    }

    pub(crate) fn of_params(base: Bytes, index: Index) -> Self {
        Self { base, known: Some(index), edits: Vec::new() }
    }

    /// Replaces the value of a member, or adds the member. `raw` is valid JSON.
    pub fn set(mut self, key: &str, raw: impl Into<Bytes>) -> Self {
        self.edit(None, key, Some(raw.into()));
        self
    }

    /// The same with a string.
    pub fn set_text(self, key: &str, value: &str) -> Self {
        self.set(key, text::encode(value))
    }

    /// Takes a member out, if it is there (each time that it is there).
    pub fn remove(mut self, key: &str) -> Self {
        self.edit(None, key, None);
        self
    }

    /// Replaces or adds a member of the object that is the member `parent`;
    /// where that is absent or no object, it becomes one. Edits inside a member
    /// come after edits of the member, whatever the order of the calls.
    pub fn set_in(mut self, parent: &str, key: &str, raw: impl Into<Bytes>) -> Self {
        self.edit(Some(parent), key, Some(raw.into()));
        self
    }

    /// Takes a member out of the object that is the member `parent`.
    pub fn remove_in(mut self, parent: &str, key: &str) -> Self {
        self.edit(Some(parent), key, None);
        self
    }

    /// Whether nothing would change.
    pub fn is_empty(&self) -> bool {
        self.edits.is_empty()
    }

    /// The edited object. Without edits it is the same bytes, not a copy.
    pub fn finish(self) -> Bytes {
        if self.edits.is_empty() {
            return self.base;
        }
        let mut out = Vec::with_capacity(self.size());
        self.write(&mut out);
        out.into()
    }

    /// The last word on a key counts.
    fn edit(&mut self, parent: Option<&str>, key: &str, value: Option<Bytes>) {
        self.edits.retain(|edit| edit.parent.as_deref() != parent || &*edit.key != key);
        self.edits.push(Edit { parent: parent.map(name), key: name(key), value });
    }

    /// Where to cut, in the order of the bytes.
    fn cuts(&self) -> Vec<Cut<'_>> {
        if self.edits.iter().all(|edit| edit.parent.is_none())
            && let Some(index) = &self.known
        {
            let edits = self.edits.iter().map(|edit| (&*edit.key, edit.value.as_ref()));
            if let Some(mut cuts) = known_cuts(index, edits) {
                cuts.sort_by_key(|cut| (cut.span.start, cut.span.end));
                return cuts;
            }
        }
        let mut top: Vec<(&str, Option<Bytes>)> = Vec::new();
        let mut cuts = Vec::new();
        let mut parents: Vec<&str> = Vec::new();
        let mut scanned = None;
        for edit in &self.edits {
            match edit.parent.as_deref() {
                None => top.push((&edit.key, edit.value.clone())),
                Some(parent) if !parents.contains(&parent) => parents.push(parent),
                Some(_) => {}
            }
        }
        for parent in parents {
            let children: Vec<_> = self
                .edits
                .iter()
                .filter(|edit| edit.parent.as_deref() == Some(parent))
                .map(|edit| (&*edit.key, edit.value.clone()))
                .collect();
            // A parent that is itself being replaced: the children apply to
            // what replaces it.
            if let Some((_, whole)) = top.iter_mut().find(|(key, _)| *key == parent) {
                *whole = with_children(whole.take(), &children);
                continue;
            }
            match self.find(parent, &mut scanned) {
                Some(span) if self.base[span.start as usize] == b'{' => {
                    let members = scan_members(&self.base, span.start);
                    edit_object(&self.base, span.start, &members, &children, &mut cuts);
                }
                _ => {
                    if let Some(object) = with_children(None, &children) {
                        top.push((parent, Some(object)));
                    }
                }
            }
        }
        if !top.is_empty() {
            self.edit_top(&top, &mut scanned, &mut cuts);
        }
        // What goes in at a place stands before what goes out there.
        cuts.sort_by_key(|cut| (cut.span.start, cut.span.end));
        cuts
    }

    /// Avoids reading the object again where the index knows enough.
    fn edit_top(
        &self,
        top: &[(&str, Option<Bytes>)],
        scanned: &mut Option<Vec<Member>>,
        cuts: &mut Vec<Cut<'_>>,
    ) {
        let edits = top.iter().map(|(key, value)| (*key, value.as_ref()));
        match self.known.as_ref().and_then(|index| known_cuts(index, edits)) {
            Some(known) => cuts.extend(known.into_iter().map(|cut| cut.into_owned())),
            None => {
                let members = scanned.get_or_insert_with(|| scan_members(&self.base, 0));
                edit_object(&self.base, 0, members, top, cuts);
            }
        }
    }

    /// The value of a member.
    fn find(&self, key: &str, scanned: &mut Option<Vec<Member>>) -> Option<Span> {
        if let (Some(index), Some(known)) = (&self.known, Key::parse(key.as_bytes())) {
            return index.get(known);
        }
        let members = scanned.get_or_insert_with(|| scan_members(&self.base, 0));
        members.iter().find(|member| is_key(&self.base, member.key, key)).map(|member| member.value)
    }
}

impl Raw for Patch {
    fn size(&self) -> usize {
        let edits = self.edits.iter().map(|edit| {
            edit.key.len()
                + edit.parent.as_ref().map_or(0, |parent| parent.len() + 8)
                + 8
                + edit.value.as_ref().map_or(0, Bytes::len)
        });
        self.base.len() + edits.sum::<usize>()
    }

    fn write(&self, out: &mut Vec<u8>) {
        let mut copied = 0;
        for cut in self.cuts() {
            out.extend_from_slice(&self.base[copied..cut.span.start as usize]);
            out.extend_from_slice(&cut.text);
            copied = cut.span.end as usize;
        }
        out.extend_from_slice(&self.base[copied..]);
    }
}

/// The cuts for edits of members that the index knows; `None` if it does not
/// know enough, so that the object must be read again.
fn known_cuts<'a>(
    index: &Index,
    edits: impl ExactSizeIterator<Item = (&'a str, Option<&'a Bytes>)>,
) -> Option<Vec<Cut<'a>>> {
    let mut cuts = Vec::with_capacity(edits.len() + 1);
    let mut added = Vec::new();
    for (key, value) in edits {
        match (index.get(Key::parse(key.as_bytes())?), value) {
            (Some(span), Some(value)) => cuts.push(Cut { span, text: Cow::Borrowed(value) }),
            // A comma must go along.
            (Some(_), None) => return None,
            (None, Some(value)) => added.push((key, value)),
            (None, None) => {}
        }
    }
    cuts.extend(insertion(&added, 0, index.members > 0));
    Some(cuts)
}

/// A value with edits on its members. If it is no object, additions make it
/// one, and removals leave it as it is.
fn with_children(value: Option<Bytes>, children: &[(&str, Option<Bytes>)]) -> Option<Bytes> {
    let patch = value.as_ref().and_then(|value| Patch::of(value).ok());
    if patch.is_none() && children.iter().all(|(_, child)| child.is_none()) {
        return value;
    }
    let empty = || Patch { base: Bytes::from_static(b"{}"), known: None, edits: Vec::new() };
    let mut patch = patch.unwrap_or_else(empty);
    for (key, child) in children {
        patch.edit(None, key, child.clone());
    }
    Some(patch.finish())
}

/// The members of the object that starts at `start`. The base is valid.
fn scan_members(base: &[u8], start: u32) -> Vec<Member> {
    let mut members = Vec::new();
    let mut read = || -> Result<(), ParseError> {
        let mut scanner = Scanner::resume(base, start as usize);
        let mut more = scanner.open_object()?;
        while more {
            let key = scanner.key()?.span;
            let value = scanner.value()?;
            members.push(Member { key, value });
            more = scanner.next_member()?;
        }
        Ok(())
    };
    let valid = read();
    debug_assert!(valid.is_ok(), "patched bytes have been scanned before");
    members
}

fn is_key(base: &[u8], span: Span, key: &str) -> bool {
    text::is(&base[span.range()], key)
}

/// The cuts that carry out `edits` on the object at `start`.
fn edit_object(
    base: &[u8],
    start: u32,
    members: &[Member],
    edits: &[(&str, Option<Bytes>)],
    cuts: &mut Vec<Cut<'_>>,
) {
    let mut removed = vec![false; members.len()];
    let mut added = Vec::new();
    for (key, value) in edits {
        let mut value = value.as_ref();
        let adds = value.is_some();
        let mut found = false;
        for (at, member) in members.iter().enumerate() {
            if !is_key(base, member.key, key) {
                continue;
            }
            found = true;
            match value.take() {
                Some(value) => cuts.push(Cut { span: member.value, text: Cow::Owned(value.to_vec()) }),
                // Removed, or the second of two: only one may be left.
                None => removed[at] = true,
            }
        }
        if adds && !found {
            added.extend(value.map(|value| (*key, value)));
        }
    }
    let survivors = removed.iter().filter(|removed| !**removed).count();
    cuts.extend(removals(members, &removed));
    cuts.extend(insertion(&added, start, survivors > 0));
}

/// Runs of removed members, each with the comma that would be left over.
fn removals(members: &[Member], removed: &[bool]) -> Vec<Cut<'static>> {
    let mut cuts = Vec::new();
    let mut at = 0;
    while at < members.len() {
        if !removed[at] {
            at += 1;
            continue;
        }
        let first = at;
        while at < members.len() && removed[at] {
            at += 1;
        }
        let end_of_run = members[at - 1].value.end;
        let span = match (members.get(at), first.checked_sub(1)) {
            (Some(next), _) => Span { start: members[first].key.start, end: next.key.start },
            (None, Some(before)) => Span { start: members[before].value.end, end: end_of_run },
            (None, None) => Span { start: members[first].key.start, end: end_of_run },
        };
        cuts.push(Cut { span, text: Cow::Borrowed(&[]) });
    }
    cuts
}

/// New members go to the front, where no scan is needed to find the place.
fn insertion(added: &[(&str, &Bytes)], start: u32, followed: bool) -> Option<Cut<'static>> {
    if added.is_empty() {
        return None;
    }
    let mut text = Vec::new();
    for (at, (key, value)) in added.iter().enumerate() {
        if at > 0 {
            text.push(b',');
        }
        text::write(key, &mut text);
        text.push(b':');
        text.extend_from_slice(value);
    }
    if followed {
        text.push(b',');
    }
    Some(Cut { span: Span { start: start + 1, end: start + 1 }, text: Cow::Owned(text) })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Map, Value};

    use super::*;
    use crate::params::Params;

    fn check(object: &'static str, edit: impl Fn(Patch) -> Patch, expected: &str) {
        let object = Bytes::from_static(object.as_bytes());
        let found = edit(Patch::of(&object).unwrap()).finish();
        assert_eq!(std::str::from_utf8(&found).unwrap(), expected);
        // What the index of params knows must not change the outcome.
        if let Ok(params) = Params::scan(&object, Limits::CLIENT) {
            assert_eq!(std::str::from_utf8(&edit(params.patch()).finish()).unwrap(), expected);
        }
    }

    #[test]
    fn a_value_is_replaced_and_all_else_stays() {
        check(
            r#" { "a" : 1E2 , "name": "x","b":[ ]} "#,
            |p| p.set_text("name", "y\""),
            r#"{ "a" : 1E2 , "name": "y\"","b":[ ]}"#,
        );
        check(r#"{"n\u0061me":"x"}"#, |p| p.set_text("name", "y"), r#"{"n\u0061me":"y"}"#);
    }

    #[test]
    fn new_members_go_to_the_front() {
        check("{}", |p| p.set("a", "1"), r#"{"a":1}"#);
        check(r#"{ "b":2}"#, |p| p.set("a", "1").set("uri", "3"), r#"{"a":1,"uri":3, "b":2}"#);
        check(r#"{"b":2}"#, |p| p.set("a", "1").remove("b"), r#"{"a":1}"#);
    }

    #[test]
    fn a_member_that_goes_takes_one_comma_along() {
        check(r#"{"a":1,"b":2,"c":3}"#, |p| p.remove("a"), r#"{"b":2,"c":3}"#);
        check(r#"{"a":1,"b":2,"c":3}"#, |p| p.remove("b"), r#"{"a":1,"c":3}"#);
        check(r#"{"a":1,"b":2,"c":3}"#, |p| p.remove("c"), r#"{"a":1,"b":2}"#);
        check(r#"{"a":1,"b":2,"c":3}"#, |p| p.remove("a").remove("c"), r#"{"b":2}"#);
        check(r#"{"a":1,"b":2,"c":3}"#, |p| p.remove("a").remove("b").remove("c"), "{}");
        check(r#"{"a":1}"#, |p| p.remove("z"), r#"{"a":1}"#);
    }

    #[test]
    fn one_level_below_works_the_same() {
        check(
            r#"{"_meta":{"x":1},"a":2}"#,
            |p| p.set_in("_meta", "progressToken", "7"),
            r#"{"_meta":{"progressToken":7,"x":1},"a":2}"#,
        );
        check(
            r#"{"a":2}"#,
            |p| p.set_in("_meta", "t", "7").set_in("_meta", "u", "8"),
            r#"{"_meta":{"t":7,"u":8},"a":2}"#,
        );
        check(r#"{"_meta":null}"#, |p| p.set_in("_meta", "t", "7"), r#"{"_meta":{"t":7}}"#);
        check(r#"{"_meta":{"t":1,"x":2}}"#, |p| p.remove_in("_meta", "t"), r#"{"_meta":{"x":2}}"#);
        check(r#"{"a":1}"#, |p| p.remove_in("_meta", "t"), r#"{"a":1}"#);
        check(
            r#"{"_meta":{"x":2}}"#,
            |p| p.set("_meta", r#"{"y":1}"#).set_in("_meta", "t", "7"),
            r#"{"_meta":{"t":7,"y":1}}"#,
        );
        check(
            r#"{"_meta":{"x":2}}"#,
            |p| p.remove("_meta").set_in("_meta", "t", "7"),
            r#"{"_meta":{"t":7}}"#,
        );
        check(
            r#"{"name":"a","_meta":{"x":2}}"#,
            |p| p.set_in("_meta", "x", "3").set_text("name", "b").remove_in("_meta", "z"),
            r#"{"name":"b","_meta":{"x":3}}"#,
        );
    }

    #[test]
    fn the_last_word_on_a_key_counts_and_one_of_two_is_left() {
        check(r#"{"a":1}"#, |p| p.set("a", "2").remove("a").set("a", "3"), r#"{"a":3}"#);
        check(r#"{"q":1,"b":2,"q":3}"#, |p| p.set("q", "4"), r#"{"q":4,"b":2}"#);
    }

    #[test]
    fn without_edits_nothing_is_copied() {
        let object = Bytes::from_static(b"{\"a\":1}");
        assert_eq!(Patch::of(&object).unwrap().finish().as_ptr(), object.as_ptr());
    }

    #[test]
    fn only_objects_are_edited() {
        for text in ["[]", "1", "{", "{} {}"] {
            assert!(Patch::of(&Bytes::from_static(text.as_bytes())).is_err());
        }
    }

    proptest! {
        #[test]
        fn edits_mean_what_they_mean_on_a_tree(
            members in prop::collection::vec(("[a-d]|name|_meta", "[ \t\n]{0,2}", prop_oneof![
                Just("1E2".to_owned()), Just("{\"a\": [0.10] , \"d\":1}".to_owned()), Just("\"\\u0041,\"".to_owned()), Just("{ }".to_owned()),
            ]), 0..6),
            edits in prop::collection::vec((any::<bool>(), "[a-d]|name|_meta", prop::option::of(0..9_u8)), 0..5),
        ) {
            let mut seen = Vec::new();
            let mut text = String::from("{");
            let mut tree = Map::new();
            for (key, space, raw) in members {
                if seen.contains(&key) {
                    continue;
                }
                if !seen.is_empty() {
                    text.push(',');
                }
                text += &format!("{space}\"{key}\":{space}{raw}{space}");
                tree.insert(key.clone(), serde_json::from_str(&raw).unwrap());
                seen.push(key);
            }
            text.push('}');
            let object = Bytes::from(text);
            let mut patches = [Patch::of(&object).unwrap(), Params::scan(&object, Limits::CLIENT).unwrap().patch()];
            for patch in &mut patches {
                for (below, key, value) in &edits {
                    patch.edit(below.then_some("_meta"), key, value.map(|value| value.to_string().into()));
                }
            }
            let last_words = patches[0].edits.clone();
            let (inner, outer): (Vec<_>, Vec<_>) = last_words.iter().partition(|edit| edit.parent.is_some());
            for edit in outer.into_iter().chain(inner) {
                let (below, key) = (edit.parent.is_some(), edit.key.to_string());
                let value = edit.value.as_ref().map(|raw| serde_json::from_slice::<Value>(raw).unwrap());
                let object = match (below, &value) {
                    (false, _) => &mut tree,
                    (true, None) if !tree.get("_meta").is_some_and(Value::is_object) => continue,
                    (true, _) => {
                        let meta = tree.entry("_meta").or_insert(Value::Null);
                        if !meta.is_object() {
                            *meta = Map::new().into();
                        }
                        meta.as_object_mut().unwrap()
                    }
                };
                match value {
                    Some(value) => _ = object.insert(key, value),
                    None => _ = object.remove(&key),
                }
            }
            let [alone, indexed] = patches.map(Patch::finish);
            prop_assert_eq!(&alone, &indexed);
            prop_assert_eq!(serde_json::from_slice::<Value>(&alone).unwrap(), Value::from(tree), "{:?}", alone);
        }
    }
}
