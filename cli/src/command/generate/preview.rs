//! What was made, for people who look before they take.

use std::collections::BTreeMap;

use mt_capabilities::{Outcome, generate::Generated};
use serde_json::{Value, json};

use crate::output::{DIM, Output, STRONG, Table, WARN, count, escape, shorten};

/// Tools and notes that are shown; the rest is counted.
const TOOLS_SHOWN: usize = 40;
const NOTES_SHOWN: usize = 20;
const CALL_CHARS_MAX: usize = 60;
const ARGUMENTS_CHARS_MAX: usize = 60;

/// Says on stderr what the files have in them.
pub fn show(output: &Output, generated: &Generated) {
    output.say(format_args!("{STRONG}{}{STRONG:#}", escape(&generated.title)));
    if !generated.tools.is_empty() {
        output.say(table(generated).trim_end());
    }
    let more = generated.tools.len().saturating_sub(TOOLS_SHOWN);
    if more > 0 {
        output.say(format_args!("{DIM}… and {more} more; -o name lists all{DIM:#}"));
    }
    for line in notes(generated) {
        output.say(line);
    }
    output.say(summary(generated));
}

fn table(generated: &Generated) -> String {
    let mut table = Table::new(["TOOL", "CALL", "ARGUMENTS"]);
    for tool in generated.tools.iter().take(TOOLS_SHOWN) {
        let arguments = shorten(&tool.arguments.join(" "), ARGUMENTS_CHARS_MAX);
        table.row([tool.name.clone(), shorten(&tool.call, CALL_CHARS_MAX), arguments]);
    }
    table.render()
}

/// One line for each thing that is to be said, with how often where it is said
/// of many.
fn notes(generated: &Generated) -> Vec<String> {
    let mut by_text: BTreeMap<(&str, bool), Vec<&str>> = BTreeMap::new();
    for note in &generated.notes {
        by_text.entry((&note.text, note.outcome == Outcome::KeptOut)).or_default().push(&note.entry);
    }
    let mut lines = Vec::new();
    for ((text, kept_out), entries) in &by_text {
        let (word, style) = if *kept_out { ("left out", WARN) } else { ("note", DIM) };
        let who = match entries.as_slice() {
            [""] => String::new(),
            [one] => format!("{one}: "),
            [first, rest @ ..] => format!("{first} and {}: ", more(rest.len())),
            [] => String::new(),
        };
        lines.push(format!("{style}{word}:{style:#} {}", escape(&format!("{who}{text}"))));
    }
    let hidden = lines.len().saturating_sub(NOTES_SHOWN);
    lines.truncate(NOTES_SHOWN);
    if hidden > 0 {
        lines.push(format!("{DIM}… and {hidden} more notes; -o json has all{DIM:#}"));
    }
    lines
}

fn more(number: usize) -> String {
    if number == 1 { "1 other".to_owned() } else { format!("{number} others") }
}

fn summary(generated: &Generated) -> String {
    let left_out = generated.notes.iter().filter(|note| note.outcome == Outcome::KeptOut).count();
    let silent = generated.tools.iter().filter(|tool| !tool.described).count();
    let mut words =
        format!("{} in {}", count(generated.tools.len(), "tool"), count(generated.files.len(), "file"));
    if left_out > 0 {
        words.push_str(&format!(", {left_out} left out"));
    }
    if silent > 0 {
        words.push_str(&format!("; {silent} without a description, which a model can hardly use well"));
    }
    words
}

/// Everything, for programs.
pub fn to_value(generated: &Generated) -> Value {
    let files = generated.files.iter().map(|file| json!({"name": file.stem, "text": file.text}));
    json!({
        "title": generated.title,
        "tools": generated.tools,
        "notes": generated.notes,
        "files": files.collect::<Vec<_>>(),
    })
}

#[cfg(test)]
mod tests {
    use mt_capabilities::{
        Note,
        generate::{File, Made},
    };

    use super::*;

    #[test]
    fn the_preview_counts_and_says_what_is_left_out_once() {
        let made = |name: &str, described| Made {
            name: name.into(),
            call: format!("GET /{name}"),
            arguments: vec!["id".into(), "[page]".into()],
            described,
        };
        let note =
            |entry: &str, outcome, text: &str| Note { entry: entry.into(), outcome, text: text.into() };
        let generated = Generated {
            title: "Shop 1 (OpenAPI 3.1.0)".into(),
            files: vec![File { stem: "shop".into(), text: String::new() }],
            tools: vec![made("a", true), made("b", false)],
            notes: vec![
                note("GET /x", Outcome::KeptOut, "it is deprecated"),
                note("GET /y", Outcome::KeptOut, "it is deprecated"),
                note("", Outcome::Changed, "the secret is a token"),
            ],
        };
        let text = format!("{}{}\n{}", table(&generated), notes(&generated).join("\n"), summary(&generated));
        insta::assert_snapshot!(anstream::adapter::strip_str(&text).to_string(), @r"
        TOOL  CALL    ARGUMENTS
        a     GET /a  id [page]
        b     GET /b  id [page]
        left out: GET /x and 1 other: it is deprecated
        note: the secret is a token
        2 tools in 1 file, 2 left out; 1 without a description, which a model can hardly use well
        ");
    }
}
