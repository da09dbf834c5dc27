//! What is asked for of a result: all that can be had without arguments, to a
//! depth.

use super::model::{Field, Kind, Schema, Shape};

/// Objects in each other.
const DEPTH_MAX: usize = 3;
/// Fields in all.
const FIELDS_MAX: usize = 120;
/// Members of one union.
const MEMBERS_MAX: usize = 20;

/// The selection of a type with its braces; empty for what has no fields. None
/// if nothing of it can be asked for.
pub fn of(schema: &Schema, kind: &Kind) -> Option<String> {
    // The deepest that is not too much to ask for.
    for depth_max in (1..=DEPTH_MAX).rev() {
        let mut selector =
            Selector { schema, depth_max, left: FIELDS_MAX, open: Vec::new(), text: String::new() };
        let selected = selector.select(kind.name(), 0)?;
        if selector.left > 0 || depth_max == 1 {
            return Some(if selected { selector.text } else { String::new() });
        }
    }
    None
}

struct Selector<'a> {
    schema: &'a Schema,
    depth_max: usize,
    left: usize,
    open: Vec<&'a str>,
    text: String,
}

impl<'a> Selector<'a> {
    /// Writes a selection; false for what has no fields, none for what cannot be
    /// asked for.
    fn select(&mut self, name: &'a str, depth: usize) -> Option<bool> {
        match self.schema.types.get(name).map(|kind| &kind.shape) {
            Some(Shape::Object(fields)) => {
                let before = self.text.len();
                self.text.push_str(" {");
                self.open.push(name);
                let any = self.fields(fields, depth + 1);
                self.open.pop();
                if !any {
                    self.line(depth + 1, "__typename");
                }
                self.line(depth, "}");
                if depth >= self.depth_max && !any {
                    self.text.truncate(before);
                    return None;
                }
                Some(true)
            }
            Some(Shape::Union(members)) => {
                self.text.push_str(" {");
                self.line(depth + 1, "__typename");
                for member in members.iter().take(MEMBERS_MAX) {
                    let Some(Shape::Object(fields)) = self.schema.types.get(member).map(|kind| &kind.shape)
                    else {
                        continue;
                    };
                    let before = self.text.len();
                    self.line(depth + 1, &format!("... on {member} {{"));
                    self.open.push(member);
                    // Two members may have one name for fields of two types, so
                    // only what is a plain value is asked for under its own name.
                    let any = self.plain(fields, member, depth + 2);
                    self.open.pop();
                    if any {
                        self.line(depth + 1, "}");
                    } else {
                        self.text.truncate(before);
                    }
                }
                self.line(depth, "}");
                Some(true)
            }
            Some(Shape::Input(_)) => None,
            _ => Some(false),
        }
    }

    fn fields(&mut self, fields: &'a [Field], depth: usize) -> bool {
        let mut any = false;
        for field in fields {
            let demands = field.arguments.iter().any(|a| a.kind.is_required() && !a.has_default);
            let name = field.kind.name();
            if demands || field.deprecated || self.left == 0 || self.open.contains(&name) {
                continue;
            }
            let nested = matches!(
                self.schema.types.get(name).map(|t| &t.shape),
                Some(Shape::Object(_) | Shape::Union(_))
            );
            if nested && depth > self.depth_max {
                continue;
            }
            let before = (self.text.len(), self.left);
            self.left -= 1;
            self.line(depth, &field.name);
            match self.select(name, depth) {
                Some(_) => any = true,
                None => {
                    self.text.truncate(before.0);
                    self.left = before.1;
                }
            }
        }
        any
    }

    fn plain(&mut self, fields: &'a [Field], member: &str, depth: usize) -> bool {
        let mut any = false;
        for field in fields {
            let demands = field.arguments.iter().any(|a| a.kind.is_required() && !a.has_default);
            let shape = self.schema.types.get(field.kind.name()).map(|kind| &kind.shape);
            let plain = !matches!(shape, Some(Shape::Object(_) | Shape::Union(_) | Shape::Input(_)));
            if demands || field.deprecated || !plain || self.left == 0 {
                continue;
            }
            self.left -= 1;
            self.line(depth, &format!("{member}_{0}: {0}", field.name));
            any = true;
        }
        any
    }

    fn line(&mut self, depth: usize, text: &str) {
        self.text.push('\n');
        self.text.extend(std::iter::repeat_n("  ", depth + 1));
        self.text.push_str(text);
    }
}
