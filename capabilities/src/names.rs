//! Names of ours, made of names of others.

use std::collections::BTreeSet;

use mt_proto::resource::ResourceName;

const NAME_CHARS_MAX: usize = 63;

/// The nearest legal name of a resource; none if no character is left.
pub fn legal_name(text: &str) -> Option<String> {
    let mut name = String::new();
    for c in text.chars() {
        match c.to_ascii_lowercase() {
            c if c.is_ascii_lowercase() || c.is_ascii_digit() => name.push(c),
            _ if name.is_empty() || name.ends_with('-') => {}
            _ => name.push('-'),
        }
        if name.len() == NAME_CHARS_MAX {
            break;
        }
    }
    let name = name.trim_end_matches('-');
    (!name.is_empty()).then(|| name.to_owned())
}

/// Gives out names, each once.
#[derive(Debug, Default)]
pub struct Names(BTreeSet<String>);

impl Names {
    /// A name like `text`: the nearest legal one, with a number if it is taken.
    pub fn take(&mut self, text: &str) -> String {
        let base = legal_name(text).unwrap_or_else(|| "server".into());
        let name = std::iter::once(base.clone())
            .chain((2..).map(|n| {
                let number = format!("-{n}");
                let kept = base.len().min(NAME_CHARS_MAX - number.len());
                format!("{}{number}", base[..kept].trim_end_matches('-'))
            }))
            .find(|name| !self.0.contains(name))
            .expect("numbers do not end");
        debug_assert!(name.parse::<ResourceName>().is_ok());
        self.0.insert(name.clone());
        name
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn names_become_legal_and_stay_different() {
        let mut names = Names::default();
        assert_eq!(names.take("My_Server"), "my-server");
        assert_eq!(names.take("my-server"), "my-server-2");
        assert_eq!(names.take("MY SERVER!"), "my-server-3");
        assert_eq!(names.take("日本"), "server");
        assert_eq!(names.take("@scope/pkg"), "scope-pkg");
        let long = names.take(&"x".repeat(100));
        assert_ne!(long, names.take(&"x".repeat(100)));
    }

    proptest! {
        #[test]
        fn every_text_has_a_legal_name(texts in proptest::collection::vec(any::<String>(), 0..8)) {
            let mut names = Names::default();
            let taken: Vec<String> = texts.iter().map(|text| names.take(text)).collect();
            prop_assert!(taken.iter().all(|name| name.parse::<ResourceName>().is_ok()));
            prop_assert_eq!(taken.iter().collect::<BTreeSet<_>>().len(), taken.len());
        }
    }
}
