//! Makes foreign text harmless before it reaches a terminal.
//!
//! Names and descriptions come from backends. Escape sequences could repaint
//! what was printed, and bidirectional controls could show one name for another.

use std::{borrow::Cow, fmt::Write as _};

/// The text on one line, with control, bidirectional and invisible characters
/// written as `\u{…}`, and line feeds as `\n`.
pub fn escape(text: &str) -> Cow<'_, str> {
    escape_except(text, |_| false)
}

/// As [`escape`], but lines and tabs stay: for text that is printed as a block.
pub fn escape_block(text: &str) -> Cow<'_, str> {
    escape_except(text, |c| matches!(c, '\n' | '\t'))
}

fn escape_except(text: &str, keep: impl Fn(char) -> bool) -> Cow<'_, str> {
    if !text.chars().any(|c| is_harmful(c) && !keep(c)) {
        return Cow::Borrowed(text);
    }
    let mut clean = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        match c {
            c if keep(c) || !is_harmful(c) => clean.push(c),
            '\n' => clean.push_str("\\n"),
            '\r' => clean.push_str("\\r"),
            '\t' => clean.push_str("\\t"),
            c => {
                let _ = write!(clean, "\\u{{{:x}}}", u32::from(c));
            }
        }
    }
    Cow::Owned(clean)
}

fn is_harmful(c: char) -> bool {
    c.is_control()
        || matches!(c,
            '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e0fff}')
}

/// The first line of a text, escaped and at most `chars_max` characters long.
pub fn shorten(text: &str, chars_max: usize) -> String {
    let line = text.trim().lines().next().unwrap_or_default();
    let clean = escape(line);
    if clean.chars().count() <= chars_max {
        return clean.into_owned();
    }
    let mut short: String = clean.chars().take(chars_max.saturating_sub(1)).collect();
    short.push('…');
    short
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ordinary_text_is_untouched_and_not_copied() {
        assert!(matches!(escape("grün 🎲 名"), Cow::Borrowed("grün 🎲 名")));
    }

    #[test]
    fn escape_sequences_are_shown_instead_of_obeyed() {
        assert_eq!(escape("\u{1b}[2Jx\u{9b}1m"), "\\u{1b}[2Jx\\u{9b}1m");
        assert_eq!(escape("a\r\nb\tc"), "a\\r\\nb\\tc");
    }

    #[test]
    fn bidirectional_and_invisible_characters_are_shown() {
        assert_eq!(
            escape("a\u{202e}b\u{200b}c\u{2066}\u{e0041}"),
            "a\\u{202e}b\\u{200b}c\\u{2066}\\u{e0041}"
        );
    }

    #[test]
    fn blocks_keep_their_lines() {
        assert_eq!(escape_block("a\n\tb\u{7}"), "a\n\tb\\u{7}");
    }

    #[test]
    fn shortening_keeps_the_first_line_within_the_limit() {
        assert_eq!(shorten("  one two\nthree", 20), "one two");
        assert_eq!(shorten("abcdef", 4), "abc…");
    }
}
