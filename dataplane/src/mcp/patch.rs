//! Edits on the members of an object (and one level below), everything else
//! copied as it came.
//!
//! A [`Patch`] is a list of edits that is carried out once, in the order of the
//! bytes. New members go to the front; a member that goes takes one comma along.

use bytes::Bytes;

use crate::mcp::params::{Index, Key};
use crate::mcp::scan::{Limits, ParseError, Reason, Scanner, Span};
use crate::mcp::splice::Raw;
use crate::mcp::text;

/// Edits on one object of which the bytes are known to be valid.
#[derive(Clone, Debug)]
pub struct Patch {
    base: Bytes,
    known: Option<Index>,
    edits: Vec<Edit>,
}

#[derive(Clone, Debug)]
struct Edit {
    parent: Option<Box<str>>,
    key: Box<str>,
    /// `None` removes.
    value: Option<Bytes>,
}

/// A member of an object: where its key and its value are.
#[derive(Clone, Copy, Debug)]
struct Member {
    key: Span,
    value: Span,
}

/// Bytes of the base that make way for others.
struct Cut {
    span: Span,
    text: Vec<u8>,
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

    pub(super) fn of_params(base: Bytes, index: Index) -> Self {
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
        self.edits.push(Edit { parent: parent.map(Into::into), key: key.into(), value });
    }

    /// Where to cut, in the order of the bytes.
    fn cuts(&self) -> Vec<Cut> {
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
                *whole = with_children(whole.as_ref(), &children).or(whole.take());
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
        cuts.sort_by_key(|cut| cut.span.start);
        cuts
    }

    /// Avoids reading the object again where the index knows enough.
    fn edit_top(&self, top: &[(&str, Option<Bytes>)], scanned: &mut Option<Vec<Member>>, cuts: &mut Vec<Cut>) {
        let known = self.known.and_then(|index| {
            let mut replaced = Vec::new();
            let mut added = Vec::new();
            for (key, value) in top {
                let key_known = Key::ALL.iter().find(|known| known.as_str() == *key)?;
                match (index.get(*key_known), value) {
                    (Some(span), Some(value)) => replaced.push(Cut { span, text: value.to_vec() }),
                    (Some(_), None) => return None,
                    (None, Some(value)) => added.push((*key, value.clone())),
                    (None, None) => {}
                }
            }
            replaced.extend(insertion(&added, 0, index.members > 0));
            Some(replaced)
        });
        match known {
            Some(known) => cuts.extend(known),
            None => {
                let members = scanned.get_or_insert_with(|| scan_members(&self.base, 0));
                edit_object(&self.base, 0, members, top, cuts);
            }
        }
    }

    /// The value of a member.
    fn find(&self, key: &str, scanned: &mut Option<Vec<Member>>) -> Option<Span> {
        if let (Some(index), Some(known)) = (&self.known, Key::ALL.iter().find(|known| known.as_str() == key)) {
            return index.get(*known);
        }
        let members = scanned.get_or_insert_with(|| scan_members(&self.base, 0));
        members.iter().find(|member| is_key(&self.base, member.key, key)).map(|member| member.value)
    }
}

impl Raw for Patch {
    fn size(&self) -> usize {
        let edits = self.edits.iter().map(|edit| {
            edit.key.len() + edit.parent.as_ref().map_or(0, |parent| parent.len() + 8) + 8
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

/// `object` (or an empty one) with edits; `None` if that changes nothing.
fn with_children(object: Option<&Bytes>, children: &[(&str, Option<Bytes>)]) -> Option<Bytes> {
    let base = object.filter(|object| object.first() == Some(&b'{')).cloned().unwrap_or(Bytes::from_static(b"{}"));
    if children.iter().all(|(_, value)| value.is_none()) && object.is_none() {
        return None;
    }
    let mut patch = Patch::of(&base).ok()?;
    for (key, value) in children {
        patch.edit(None, key, value.clone());
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
    text::decode(&base[span.range()]).as_deref() == Some(key)
}

/// The cuts that carry out `edits` on the object at `start`.
fn edit_object(base: &[u8], start: u32, members: &[Member], edits: &[(&str, Option<Bytes>)], cuts: &mut Vec<Cut>) {
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
                Some(value) => cuts.push(Cut { span: member.value, text: value.to_vec() }),
                // Removed, or the second of two: only one may be left.
                None => removed[at] = true,
            }
        }
        if adds && !found {
            added.extend(value.map(|value| (*key, value.clone())));
        }
    }
    let survivors = removed.iter().filter(|removed| !**removed).count();
    cuts.extend(removals(members, &removed));
    cuts.extend(insertion(&added, start, survivors > 0));
}

/// Runs of removed members, each with the comma that would be left over.
fn removals(members: &[Member], removed: &[bool]) -> Vec<Cut> {
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
        cuts.push(Cut { span, text: Vec::new() });
    }
    cuts
}

/// New members go to the front, where no scan is needed to find the place.
fn insertion(added: &[(&str, Bytes)], start: u32, followed: bool) -> Option<Cut> {
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
    Some(Cut { span: Span { start: start + 1, end: start + 1 }, text })
}
