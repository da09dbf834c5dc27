//! Streams as they come: lines out of chunks, and events out of lines.

/// Cuts chunks into lines, however the chunks are cut.
#[derive(Default)]
pub struct Lines {
    rest: Vec<u8>,
    /// Of `rest`, what is known to have no end of a line.
    searched: usize,
}

impl Lines {
    pub fn push(&mut self, chunk: &[u8]) {
        self.rest.extend_from_slice(chunk);
    }

    /// The next whole line, without its end.
    pub fn next(&mut self) -> Option<String> {
        let Some(at) = self.rest[self.searched..].iter().position(|byte| *byte == b'\n') else {
            self.searched = self.rest.len();
            return None;
        };
        let end = self.searched + at;
        let line: Vec<u8> = self.rest.drain(..=end).collect();
        self.searched = 0;
        let line = &line[..end];
        Some(String::from_utf8_lossy(line.strip_suffix(b"\r").unwrap_or(line)).into_owned())
    }

    /// What is left when there is no more, if it is anything.
    pub fn last(self) -> Option<String> {
        let text = String::from_utf8_lossy(&self.rest).trim().to_owned();
        (!text.is_empty()).then_some(text)
    }
}

/// Gathers the `data` of server-sent events. Names and ids do not matter: what
/// an event is, its data says too.
#[derive(Default)]
pub struct Events {
    data: Option<String>,
}

impl Events {
    /// The data of an event that this line ends.
    pub fn line(&mut self, line: &str) -> Option<String> {
        if line.is_empty() {
            return self.data.take();
        }
        let more = line.strip_prefix("data:")?;
        let more = more.strip_prefix(' ').unwrap_or(more);
        match &mut self.data {
            None => self.data = Some(more.to_owned()),
            Some(data) => {
                data.push('\n');
                data.push_str(more);
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn events_are_their_data_whatever_else_they_carry() {
        let mut events = Events::default();
        let stream =
            ["event: ping", "data: {\"a\":1}", "", ": comment", "", "data:x", "data: y", "id: 7", ""];
        let found: Vec<String> = stream.iter().filter_map(|line| events.line(line)).collect();
        assert_eq!(found, ["{\"a\":1}", "x\ny"]);
    }

    proptest! {
        #[test]
        fn chunking_never_changes_the_lines(lines in prop::collection::vec("[ -~ü]{0,30}", 1..6), size in 1usize..40, crlf: bool) {
            let end = if crlf { "\r\n" } else { "\n" };
            let wire: String = lines.iter().map(|line| format!("{line}{end}")).collect();
            let mut reader = Lines::default();
            let mut found = Vec::new();
            for chunk in wire.as_bytes().chunks(size) {
                reader.push(chunk);
                found.extend(std::iter::from_fn(|| reader.next()));
            }
            prop_assert_eq!(found, lines);
            prop_assert_eq!(reader.last(), None);
        }
    }
}
