//! Columns for people: no borders, no cell that could move the cursor.

use comfy_table::{ContentArrangement, TableStyle, presets};

use super::escape;

/// Rows of escaped text under a header.
pub struct Table {
    inner: comfy_table::Table,
}

impl Table {
    pub fn new<const N: usize>(header: [&str; N]) -> Self {
        let style: TableStyle = presets::NOTHING;
        let mut inner = comfy_table::Table::new();
        // Widths never depend on the terminal: a row stays one line, for `grep` as for people.
        inner.load_style(style).force_no_tty().set_content_arrangement(ContentArrangement::Disabled);
        inner.set_header(header);
        Self { inner }
    }

    /// Adds a row; every cell is escaped and empty ones become `-`.
    pub fn row<const N: usize>(&mut self, cells: [String; N]) {
        self.inner.add_row(
            cells.map(|cell| if cell.is_empty() { "-".to_owned() } else { escape(&cell).into_owned() }),
        );
    }

    pub fn render(&self) -> String {
        let mut text = String::new();
        for line in self.inner.lines() {
            // Columns have a space on either side; the left margin is not wanted.
            text.push_str(line.strip_prefix(' ').unwrap_or(&line).trim_end());
            text.push('\n');
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up_and_lines_do_not_trail() {
        let mut table = Table::new(["NAME", "STATE"]);
        table.row(["time".into(), "ready".into()]);
        table.row(["a\u{1b}[1m".into(), String::new()]);
        insta::assert_snapshot!(table.render(), @r"
        NAME        STATE
        time        ready
        a\u{1b}[1m  -
        ");
    }
}
