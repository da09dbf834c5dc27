//! `mtctl history`: what was changed, when and by whom.

use std::time::SystemTime;

use serde_json::{Value, json};

use mt_proto::pb::control as pb;

use super::Context;
use crate::{
    args::HistoryArgs,
    client::display,
    output::{
        Exit, Failure, Format, Table,
        age::{age, rfc3339},
        shorten,
    },
};

const MESSAGE_CHARS_MAX: usize = 60;
/// So many changed resources are named on a line.
const NAMED_MAX: usize = 3;

pub async fn run(context: &Context, args: &HistoryArgs) -> Result<Exit, Failure> {
    let limit = usize::try_from(args.limit).unwrap_or(usize::MAX);
    let generations = context.client().await?.history(limit).await?;
    match context.format() {
        Format::Table => context.output.data(&table(&generations, SystemTime::now()))?,
        Format::Name => {
            let numbers = generations.iter().map(|generation| format!("{}\n", generation.number));
            context.output.data(&numbers.collect::<String>())?;
        }
        Format::Json | Format::Yaml => {
            context.output.value(&generations.iter().map(to_value).collect::<Vec<_>>())?;
        }
    }
    Ok(Exit::Ok)
}

fn table(generations: &[pb::Generation], now: SystemTime) -> String {
    let mut table = Table::new(["GENERATION", "AGE", "AUTHOR", "CHANGED", "MESSAGE"]);
    for generation in generations {
        let mut changed: Vec<String> = generation.changed.iter().take(NAMED_MAX).map(display).collect();
        if generation.changed.len() > NAMED_MAX {
            changed.push(format!("+{}", generation.changed.len() - NAMED_MAX));
        }
        table.row([
            generation.number.to_string(),
            age(generation.commit_time.as_ref(), now),
            generation.author.clone(),
            changed.join(" "),
            shorten(&generation.message, MESSAGE_CHARS_MAX),
        ]);
    }
    table.render()
}

fn to_value(generation: &pb::Generation) -> Value {
    json!({
        "generation": generation.number,
        "time": rfc3339(generation.commit_time.as_ref()),
        "author": generation.author,
        "message": generation.message,
        "changed": generation.changed.iter().map(display).collect::<Vec<_>>(),
    })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use mt_proto::resource::Kind;

    use super::*;
    use crate::client::reference;

    #[test]
    fn a_generation_is_one_line() {
        let generation = pb::Generation {
            number: 7,
            commit_time: Some(prost_types::Timestamp { seconds: 1000, nanos: 0 }),
            author: "a@b".into(),
            message: "why\nmore".into(),
            changed: ["w", "x", "y", "z"].map(|name| reference(Kind::Backend, name)).to_vec(),
        };
        insta::assert_snapshot!(table(&[generation], SystemTime::UNIX_EPOCH + Duration::from_secs(1060)), @r"
        GENERATION  AGE  AUTHOR  CHANGED                           MESSAGE
        7           60s  a@b     backend/w backend/x backend/y +1  why
        ");
    }
}
