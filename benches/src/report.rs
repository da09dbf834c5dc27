//! What was measured, as tables for people and as JSON for programs.

mod budget;

use serde_json::{Value, json};

pub use self::budget::Line;
use crate::stats::{median, short};

/// A bound that the whole comparison fails by.
#[derive(Clone, Debug)]
pub struct Check {
    what: String,
    value: f64,
    bound: Bound,
}

/// Which side of it is right.
#[derive(Clone, Copy, Debug)]
pub enum Bound {
    AtMost(f64),
    AtLeast(f64),
}

impl Bound {
    pub fn holds(self, value: f64) -> bool {
        match self {
            Self::AtMost(limit) => value <= limit,
            Self::AtLeast(limit) => value >= limit,
        }
    }

    fn text(self) -> String {
        match self {
            Self::AtMost(limit) => format!("≤ {}", short(limit)),
            Self::AtLeast(limit) => format!("≥ {}", short(limit)),
        }
    }
}

/// One table with what belongs to it.
#[derive(Clone, Debug, Default)]
pub struct Section {
    title: String,
    notes: Vec<String>,
    head: Vec<&'static str>,
    rows: Vec<Vec<String>>,
    checks: Vec<Check>,
    figures: Vec<(Line, String, f64)>,
}

impl Section {
    pub fn new(title: impl Into<String>, head: &[&'static str]) -> Self {
        Self { title: title.into(), head: head.to_vec(), ..Self::default() }
    }

    pub fn note(&mut self, text: impl Into<String>) {
        self.notes.push(text.into());
    }

    pub fn row(&mut self, cells: impl IntoIterator<Item = String>) {
        self.rows.push(cells.into_iter().collect());
    }

    /// Something that must hold.
    pub fn check(&mut self, what: impl Into<String>, value: f64, bound: Bound) {
        self.checks.push(Check { what: what.into(), value, bound });
    }

    /// A figure of the budget.
    pub fn figure(&mut self, line: Line, target: &str, value: f64) {
        self.figures.push((line, target.to_owned(), value));
    }

    fn markdown(&self) -> String {
        let mut text = format!("## {}\n\n", self.title);
        for note in &self.notes {
            text += &format!("{note}\n\n");
        }
        if !self.rows.is_empty() {
            text += &table(&self.head, &self.rows);
        }
        for check in &self.checks {
            let verdict = if check.bound.holds(check.value) { "holds" } else { "**FAILS**" };
            text +=
                &format!("\n- {}: {} ({}) {verdict}", check.what, precise(check.value), check.bound.text());
        }
        if !self.checks.is_empty() {
            text.push('\n');
        }
        text
    }

    fn json(&self) -> Value {
        let rows: Vec<Value> = self
            .rows
            .iter()
            .map(|row| {
                self.head.iter().zip(row).map(|(head, cell)| ((*head).to_owned(), json!(cell))).collect()
            })
            .collect();
        let checks: Vec<Value> = self
            .checks
            .iter()
            .map(|check| json!({"what": check.what, "value": check.value, "bound": check.bound.text(), "holds": check.bound.holds(check.value)}))
            .collect();
        let figures: Vec<Value> = self
            .figures
            .iter()
            .map(|(line, target, value)| json!({"line": line.what(), "target": target, "value": value}))
            .collect();
        json!({"title": self.title, "notes": self.notes, "rows": rows, "checks": checks, "figures": figures})
    }
}

/// Ratios near 1 are told apart by their third digit after the point.
fn precise(value: f64) -> String {
    if value < 10.0 { format!("{value:.3}") } else { short(value) }
}

/// A table in Markdown: the first column to the left, all others to the right.
/// Pure.
fn table(head: &[&str], rows: &[Vec<String>]) -> String {
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count());
        cells.chain([head[column].chars().count(), 3]).max().unwrap_or(3)
    };
    let widths: Vec<usize> = (0..head.len()).map(width).collect();
    let line = |cells: &mut dyn Iterator<Item = &str>| {
        let mut text = String::from("|");
        for (column, (cell, width)) in cells.zip(&widths).enumerate() {
            let space = " ".repeat(width.saturating_sub(cell.chars().count()));
            let (before, after) = if column == 0 { ("", space.as_str()) } else { (space.as_str(), "") };
            text += &format!(" {before}{cell}{after} |");
        }
        text + "\n"
    };
    let mut text = line(&mut head.iter().copied());
    text.push('|');
    for (column, width) in widths.iter().enumerate() {
        let dashes = "-".repeat(width - 1);
        text += &if column == 0 { format!(" {dashes}- |") } else { format!(" {dashes}: |") };
    }
    text.push('\n');
    for row in rows {
        text += &line(&mut row.iter().map(String::as_str));
    }
    text
}

/// All that one run has given.
#[derive(Debug, Default)]
pub struct Report {
    pub sections: Vec<Section>,
    /// What was not measured, or not as it should have been, and why.
    pub missing: Vec<String>,
    /// What could not be measured although it should have been.
    pub failed: Vec<String>,
}

impl Report {
    /// The tables of a part, or that there are none.
    pub fn add(&mut self, part: &str, done: anyhow::Result<Vec<Section>>) {
        match done {
            Ok(sections) => self.sections.extend(sections),
            Err(error) => self.failed.push(format!("{part} could not be measured: {error:#}")),
        }
    }

    /// Prints everything on stdout.
    ///
    /// # Errors
    /// If a bound does not hold.
    pub fn print(&self, ours: &str, json: bool) -> anyhow::Result<()> {
        if json {
            let sections: Vec<Value> = self.sections.iter().map(Section::json).collect();
            println!("{}", json!({"sections": sections, "missing": self.missing, "failed": self.failed}));
        } else {
            println!("{}", self.markdown(ours));
        }
        let failed: Vec<&str> = self
            .sections
            .iter()
            .flat_map(|section| &section.checks)
            .filter(|check| !check.bound.holds(check.value))
            .map(|check| check.what.as_str())
            .chain(self.failed.iter().map(String::as_str))
            .collect();
        anyhow::ensure!(failed.is_empty(), "{} did not hold: {}", failed.len(), failed.join("; "));
        Ok(())
    }

    fn markdown(&self, ours: &str) -> String {
        let mut text = String::new();
        for section in &self.sections {
            text += &section.markdown();
            text.push('\n');
        }
        let figures: Vec<_> =
            self.sections.iter().flat_map(|section| section.figures.iter().cloned()).collect();
        if let Some(budget) = budget::section(&figures, ours) {
            text += &budget.markdown();
            text.push('\n');
        }
        for missing in self.missing.iter().chain(&self.failed) {
            text += &format!("- {missing}\n");
        }
        text
    }
}

/// Rows that were measured several times, as medians.
pub fn median_of<T>(rounds: &[T], figure: impl Fn(&T) -> f64) -> f64 {
    median(rounds.iter().map(figure))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_is_aligned_whatever_is_in_it() {
        let rows =
            vec![vec!["a".to_owned(), "1".to_owned()], vec!["längste".to_owned(), "12,345".to_owned()]];
        let text = table(&["case", "µs"], &rows);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(
            lines,
            ["| case    |     µs |", "| ------- | -----: |", "| a       |      1 |", "| längste | 12,345 |"]
        );
    }

    #[test]
    fn a_bound_that_does_not_hold_fails_the_run() {
        let mut section = Section::new("lists", &[]);
        section.check("with 3 hanging", 1.04, Bound::AtMost(1.05));
        section.check("goodput", 0.9, Bound::AtLeast(0.8));
        let mut report = Report { sections: vec![section], ..Report::default() };
        assert!(report.print("node", true).is_ok());
        report.sections[0].check("memory", 1.2, Bound::AtMost(1.1));
        let error = report.print("node", true).unwrap_err().to_string();
        assert_eq!(error, "1 did not hold: memory");
        report.add("idle", Err(anyhow::anyhow!("refused")));
        assert!(report.print("node", true).unwrap_err().to_string().starts_with("2 did not hold"));
        assert!(report.markdown("node").contains("memory: 1.200 (≤ 1.10) **FAILS**"));
    }
}
