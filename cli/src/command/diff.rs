//! `mtctl diff`: what files would change, or what two generations differ in.

use std::fmt::Write as _;

use serde_json::json;

use mt_proto::pb::{control as pb, resource::Resource};

use super::{Context, changes};
use crate::{
    args::DiffArgs,
    client, manifests,
    output::{Exit, Failure, Format, diff::unified},
};

pub async fn run(context: &Context, args: &DiffArgs) -> Result<Exit, Failure> {
    let changes = changes(context, args).await.map_err(|mut failure| {
        // 1 is taken by "different", as with diff(1).
        if failure.exit == Exit::Failed {
            failure.exit = Exit::Usage;
        }
        failure
    })?;
    let (before, after) = match args.from {
        Some(from) => {
            (format!("generation {from}"), args.to.map_or("now".into(), |to| format!("generation {to}")))
        }
        None => ("now".to_owned(), "files".to_owned()),
    };
    match context.format() {
        Format::Table | Format::Yaml => context.output.data(&render(&changes, &before, &after))?,
        Format::Name => {
            context.output.data(&changes.iter().map(|c| changes::name(c) + "\n").collect::<String>())?
        }
        Format::Json => {
            let yaml = |side: &Option<Resource>| side.as_ref().map(manifests::to_value);
            let changes: Vec<_> = changes
                .iter()
                .map(|change| {
                    json!({
                        "resource": changes::name(change),
                        "action": changes::action(change),
                        "before": yaml(&change.before),
                        "after": yaml(&change.after),
                    })
                })
                .collect();
            context.output.value(&changes)?;
        }
    }
    Ok(if changes.is_empty() { Exit::Ok } else { Exit::Failed })
}

async fn changes(context: &Context, args: &DiffArgs) -> Result<Vec<pb::Change>, Failure> {
    if let Some(from) = args.from {
        let mut client = context.client().await?;
        let request = pb::DiffRequest { from_generation: from, to_generation: args.to.unwrap_or(0) };
        let answer = client.config.diff(request).await;
        return match answer {
            Ok(answer) => Ok(answer.into_inner().changes),
            Err(status) => Err(client.failure("cannot compare the generations", &status)),
        };
    }
    let (manifests, mut client) = changes::read(context, &args.filename, "cannot compare").await?;
    let request = pb::ApplyRequest {
        resources: manifests.resources(),
        prune_labels: args.prune_label.iter().cloned().collect(),
        dry_run: true,
        author: client::author(),
        ..Default::default()
    };
    Ok(changes::send(&mut client, &manifests, request).await?.changes)
}

/// All changes as unified diffs of their YAML.
pub fn render(changes: &[pb::Change], before: &str, after: &str) -> String {
    let mut text = String::new();
    for change in changes {
        let name = changes::name(change);
        let yaml = |side: &Option<Resource>| side.as_ref().map(manifests::to_yaml).unwrap_or_default();
        let side = |side: &Option<Resource>, word: &str| match side {
            Some(_) => format!("{name} ({word})"),
            None => "/dev/null".to_owned(),
        };
        let (from, to) = (side(&change.before, before), side(&change.after, after));
        let _ = write!(text, "{}", unified(&from, &yaml(&change.before), &to, &yaml(&change.after)));
    }
    text
}
