//! Where in a value of JSON a part of it is: a JSON Pointer (RFC 6901), or the
//! plain half of JSONPath (RFC 9535): names, indexes and `*`.
//!
//! Filters, slices and `..` are left out on purpose: what they find is of no
//! bounded size, and a tool that needs them wants a program.

use serde_json::Value;

/// Of one path.
const STEPS_MAX: usize = 64;
/// Values that `*` may find.
const FOUND_MAX: usize = 100_000;

/// A path into a value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JsonPath {
    text: String,
    steps: Vec<Step>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Step {
    /// Of an object; or, in a pointer, an index of a list in digits.
    Name(String),
    Index(usize),
    All,
}

impl JsonPath {
    /// Reads `/items/0/name`, `$.items[0].name` or `items[0].name`.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(text: &str) -> Result<Self, String> {
        let steps = match text.strip_prefix('/') {
            Some(pointer) => pointer.split('/').map(pointer_step).collect::<Result<Vec<_>, _>>()?,
            None => dotted(text.strip_prefix('$').unwrap_or(text))?,
        };
        if steps.len() > STEPS_MAX {
            return Err(format!("more than {STEPS_MAX} steps"));
        }
        Ok(Self { text: text.to_owned(), steps })
    }

    /// As it was written.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// What is there. With a `*`, a list of all that is there.
    pub fn find(&self, value: &Value) -> Option<Value> {
        let mut found = vec![value];
        for step in &self.steps {
            let next = found.iter().flat_map(|value| step.of(value)).take(FOUND_MAX);
            found = next.collect();
        }
        if self.steps.contains(&Step::All) {
            return Some(found.into_iter().cloned().collect());
        }
        found.first().map(|value| Value::clone(value))
    }
}

impl Step {
    fn of<'v>(&self, value: &'v Value) -> Vec<&'v Value> {
        match (self, value) {
            (Step::Name(name), Value::Object(entries)) => entries.get(name).into_iter().collect(),
            (Step::Name(name), Value::Array(items)) => {
                name.parse().ok().and_then(|index: usize| items.get(index)).into_iter().collect()
            }
            (Step::Index(index), Value::Array(items)) => items.get(*index).into_iter().collect(),
            (Step::All, Value::Array(items)) => items.iter().collect(),
            (Step::All, Value::Object(entries)) => entries.values().collect(),
            _ => Vec::new(),
        }
    }
}

fn pointer_step(text: &str) -> Result<Step, String> {
    let mut name = String::with_capacity(text.len());
    let mut rest = text.chars();
    while let Some(c) = rest.next() {
        name.push(match c {
            '~' => match rest.next() {
                Some('0') => '~',
                Some('1') => '/',
                _ => return Err("`~` is followed by `0` or `1` in a pointer".to_owned()),
            },
            other => other,
        });
    }
    Ok(Step::Name(name))
}

fn dotted(text: &str) -> Result<Vec<Step>, String> {
    let mut steps = Vec::new();
    let mut rest = text;
    while !rest.is_empty() {
        let step;
        (step, rest) = match rest.strip_prefix('[') {
            Some(inside) => bracket(inside)?,
            None => {
                let name = match rest.strip_prefix('.') {
                    Some(name) => name,
                    None if steps.is_empty() => rest,
                    None => return Err(format!("a `.` or `[` is missing before {rest:?}")),
                };
                let end = name.find(['.', '[']).unwrap_or(name.len());
                match &name[..end] {
                    "" => return Err("a name is missing; `..` is not supported".to_owned()),
                    "*" => (Step::All, &name[end..]),
                    word => (Step::Name(word.to_owned()), &name[end..]),
                }
            }
        };
        steps.push(step);
    }
    Ok(steps)
}

/// What follows a `[`, and the rest after its `]`.
fn bracket(inside: &str) -> Result<(Step, &str), String> {
    for quote in ['\'', '"'] {
        if let Some(text) = inside.strip_prefix(quote) {
            let end = text.find(quote).ok_or("a quote is not closed")?;
            let rest = text[end + 1..].strip_prefix(']').ok_or("a `]` is missing")?;
            return Ok((Step::Name(text[..end].to_owned()), rest));
        }
    }
    let (inside, rest) = inside.split_once(']').ok_or("a `]` is missing")?;
    match inside.trim() {
        "*" => Ok((Step::All, rest)),
        index => match index.parse() {
            Ok(index) => Ok((Step::Index(index), rest)),
            Err(_) => Err(format!("{index:?} is no index: there are numbers, names in quotes, and `*`")),
        },
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn check(path: &str, expected: Option<Value>) {
        let value = json!({
            "items": [{"name": "a", "tags": ["x", "y"]}, {"name": "b", "tags": []}, {"other": 1}],
            "a/b": {"m~n": 1}, "a.b": 2, "0": "zero", "": "empty",
        });
        assert_eq!(JsonPath::parse(path).unwrap().find(&value), expected, "{path}");
    }

    #[test]
    fn pointers_find_what_rfc_6901_says() {
        check("/items/0/name", Some(json!("a")));
        check("/items/1/tags", Some(json!([])));
        check("/a~1b/m~0n", Some(json!(1)));
        check("/0", Some(json!("zero")));
        check("/", Some(json!("empty")));
        check("/items/9", None);
        check("/items/name", None);
    }

    #[test]
    fn dotted_paths_find_names_indexes_and_all() {
        check("$.items[0].name", Some(json!("a")));
        check("items[0].tags[1]", Some(json!("y")));
        check("$['a.b']", Some(json!(2)));
        check("$[\"a/b\"]", Some(json!({"m~n": 1})));
        check("$.items[*].name", Some(json!(["a", "b"])));
        check("$.items[*].tags[*]", Some(json!(["x", "y"])));
        check("$.nothing[*]", Some(json!([])));
        check("$.items[7].name", None);
    }

    #[test]
    fn the_whole_is_a_path_too() {
        let value = json!([1]);
        for path in ["", "$"] {
            assert_eq!(JsonPath::parse(path).unwrap().find(&value), Some(value.clone()));
        }
    }

    #[test]
    fn what_is_not_supported_is_said() {
        for path in ["$..a", "$.a[", "$.a[?(@.b)]", "$.a[1:2]", "$.a['b]", "$.a['b'", "/~2", "$.a]b["] {
            assert!(JsonPath::parse(path).is_err(), "{path}");
        }
    }
}
