//! Names and texts as OpenAPI and its readers take them. Pure.

use std::{collections::HashSet, fmt::Write as _};

/// The longest operation id that Custom GPT Actions take.
pub const ID_CHARS_MAX: usize = 64;

/// Names that are taken.
#[derive(Debug, Default)]
pub struct Taken(HashSet<String>);

impl Taken {
    /// A name made from a wish: letters, digits, `_` and `-`, and no two alike.
    pub fn take(&mut self, wish: &str) -> String {
        let mut plain: String = wish
            .chars()
            .map(|c| if c.is_ascii_alphanumeric() || c == '_' || c == '-' { c } else { '_' })
            .collect();
        plain.truncate(ID_CHARS_MAX);
        if plain.is_empty() {
            plain.push('_');
        }
        let mut name = plain.clone();
        // Tools whose names differ in case only would be one to many generators.
        for number in 2.. {
            if self.0.insert(name.to_ascii_lowercase()) {
                break;
            }
            let suffix = format!("_{number}");
            name.clone_from(&plain);
            name.truncate(ID_CHARS_MAX - suffix.len());
            name.push_str(&suffix);
        }
        name
    }
}

/// The text, cut so that it has at most so many characters.
pub fn shortened(text: &str, chars_max: usize) -> String {
    if text.chars().count() <= chars_max {
        return text.to_owned();
    }
    let mut short: String = text.chars().take(chars_max - 1).collect();
    short.truncate(short.trim_end().len());
    short.push('…');
    short
}

/// A name as a part of a path.
pub fn in_path(name: &str) -> String {
    let mut path = String::with_capacity(name.len());
    for byte in name.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => path.push(byte.into()),
            _ => _ = write!(path, "%{byte:02X}"),
        }
    }
    path
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_legal_short_and_all_different() {
        let mut taken = Taken::default();
        assert_eq!(taken.take("get.user/1"), "get_user_1");
        assert_eq!(taken.take("get_user_1"), "get_user_1_2");
        assert_eq!(taken.take("Get_User_1"), "Get_User_1_3");
        assert_eq!(taken.take("ü"), "_");
        let long = "x".repeat(200);
        let names = [taken.take(&long), taken.take(&long), taken.take("")];
        assert!(names[0].len() == 64 && names[1].len() == 64 && names[1].ends_with("_2"), "{names:?}");
    }

    #[test]
    fn texts_are_cut_between_characters() {
        assert_eq!(shortened("äöü", 3), "äöü");
        assert_eq!(shortened("äö üx", 4), "äö…");
        assert_eq!(in_path("a b/{ü}"), "a%20b%2F%7B%C3%BC%7D");
    }
}
