//! Changes that files make: how they are read, sent and printed, by every
//! command that makes or shows some.

use std::path::PathBuf;

use serde_json::{Value, json};

use mt_proto::{pb::control as pb, resource::ResourceSet};

use super::Context;
use crate::{
    client::{self, Client},
    manifests::{self, Manifests},
    output::{BAD, Failure, Format, GOOD, WARN, count},
};

/// Reads files that are meant for the control plane, and connects to it.
///
/// # Errors
/// When the files have mistakes: then with all of them, those that show only
/// beside what is in the store too. `doing` says what did not happen.
pub async fn read(context: &Context, paths: &[PathBuf], doing: &str) -> Result<(Manifests, Client), Failure> {
    let manifests = manifests::load(paths)?;
    let connected = context.client().await;
    if !manifests.is_broken() {
        return Ok((manifests, connected?));
    }
    let stored = match connected {
        Ok(mut client) => client.list(None, &[], 0).await.ok(),
        Err(_) => None,
    };
    let diagnostics = match stored {
        Some((stored, _)) => {
            let (base, _) = ResourceSet::gather(stored.into_iter().filter_map(|stored| stored.resource));
            manifests.diagnostics_onto(&base)
        }
        // Without the store, what refers to it cannot be judged.
        None => manifests.own_diagnostics(),
    };
    Err(manifests::report(&diagnostics, doing))
}

/// Applies what was read from files.
///
/// # Errors
/// With the places in the files, where the control plane has found something.
pub async fn send(
    client: &mut Client,
    manifests: &Manifests,
    request: pb::ApplyRequest,
) -> Result<pb::ApplyResponse, Failure> {
    match client.config.apply(request).await {
        Ok(answer) => Ok(answer.into_inner()),
        Err(status) => Err(manifests.locate(client.failure("nothing was applied", &status), &status)),
    }
}

/// Prints what a change has done, or would do.
///
/// # Errors
/// When stdout cannot be written.
pub fn print(
    context: &Context,
    generation: u64,
    changes: &[pb::Change],
    dry_run: bool,
) -> Result<(), Failure> {
    match context.format() {
        Format::Json | Format::Yaml => {
            context.output.value(&json!({
                "generation": generation,
                "dry_run": dry_run,
                "changes": changes.iter().map(to_value).collect::<Vec<_>>(),
            }))?;
        }
        Format::Name => context.output.data(&changes.iter().map(|c| name(c) + "\n").collect::<String>())?,
        Format::Table => {
            context.output.data(&changes.iter().map(line).collect::<String>())?;
        }
    }
    let words = match (changes.len(), dry_run) {
        (0, _) => format!("nothing changes; generation {generation} stays"),
        (changes, true) => format!("would make {}; nothing was changed", count(changes, "change")),
        (changes, false) => format!("{GOOD}generation {generation}{GOOD:#}: {}", count(changes, "change")),
    };
    context.output.say(words);
    Ok(())
}

/// `backend/time`.
pub fn name(change: &pb::Change) -> String {
    change.r#ref.as_ref().map(client::display).unwrap_or_default()
}

/// What happens to a resource, in one word.
pub fn action(change: &pb::Change) -> &'static str {
    match (&change.before, &change.after) {
        (None, _) => "created",
        (Some(_), Some(_)) => "changed",
        (Some(_), None) => "deleted",
    }
}

fn line(change: &pb::Change) -> String {
    let action = action(change);
    let style = match action {
        "created" => GOOD,
        "changed" => WARN,
        _ => BAD,
    };
    format!("{} {style}{action}{style:#}\n", crate::output::escape(&name(change)))
}

fn to_value(change: &pb::Change) -> Value {
    json!({"resource": name(change), "action": action(change)})
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_change_has_a_word() {
        let resource = Some(mt_proto::pb::resource::Resource::default());
        let reference = Some(client::reference(mt_proto::resource::Kind::Backend, "t"));
        let change = |before, after| pb::Change { r#ref: reference.clone(), before, after };
        assert_eq!(action(&change(None, resource.clone())), "created");
        assert_eq!(action(&change(resource.clone(), resource.clone())), "changed");
        assert_eq!(action(&change(resource, None)), "deleted");
        assert_eq!(name(&change(None, None)), "backend/t");
    }
}
