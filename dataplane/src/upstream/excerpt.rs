//! A few words of what a backend wrote, fit for a message to people.

/// The longest excerpt, in bytes.
pub const EXCERPT_BYTES_MAX: usize = 200;

/// The beginning of `bytes` on one line, without control characters and
/// without the color codes that terminals understand.
pub fn excerpt(bytes: &[u8]) -> String {
    shorten(bytes, EXCERPT_BYTES_MAX)
}

/// The same with another limit.
pub fn shorten(bytes: &[u8], bytes_max: usize) -> String {
    let read = &bytes[..bytes.len().min(bytes_max * 4)];
    let text = String::from_utf8_lossy(read);
    let mut out = String::new();
    let mut chars = text.trim().chars().peekable();
    while let Some(c) = chars.next() {
        if c == '\u{1b}' && chars.peek() == Some(&'[') {
            chars.next();
            while chars.next_if(|c| !c.is_ascii_alphabetic()).is_some() {}
            chars.next();
            continue;
        }
        let c = if c.is_whitespace() { ' ' } else { c };
        if c.is_control() || (c == ' ' && out.ends_with(' ')) {
            continue;
        }
        if out.len() + c.len_utf8() > bytes_max {
            out.push('…');
            break;
        }
        out.push(c);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_excerpt_is_one_short_clean_line() {
        assert_eq!(excerpt(b"\x1b[31mfatal:\x1b[0m no\r\n\tsuch\0 file\n"), "fatal: no such file");
        assert_eq!(excerpt("ü".repeat(300).as_bytes()).chars().count(), 101);
        assert_eq!(excerpt(b"\xff\xfe"), "\u{fffd}\u{fffd}");
        assert_eq!(excerpt(b""), "");
        assert_eq!(excerpt(b"cut in a code \x1b["), "cut in a code ");
    }
}
