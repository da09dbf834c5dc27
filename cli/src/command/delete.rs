//! `mtctl delete`: resources go, as one generation.

use std::collections::BTreeSet;

use mt_proto::pb::control as pb;

use super::{Context, changes, settle};
use crate::{
    args::DeleteArgs,
    client::{self, reference, reference_of},
    manifests,
    output::{Exit, Failure, count},
};

/// Above this many a person at a terminal is asked first.
const UNASKED_MAX: usize = 10;

pub async fn run(context: &Context, args: &DeleteArgs) -> Result<Exit, Failure> {
    let refs = references(args)?;
    let mut client = context.client().await?;
    if refs.len() > UNASKED_MAX && !args.dry_run {
        let question = format!("Delete {}?", count(refs.len(), "resource"));
        if !context.output.confirm(&question, true) {
            return Err(Failure::new(Exit::No, "nothing was deleted"));
        }
    }
    let request = pb::DeleteRequest {
        refs,
        expected_generation: args.if_generation.unwrap_or(0),
        dry_run: args.dry_run,
        author: client::author(),
        message: args.message.clone(),
    };
    let answer = client.config.delete(request).await;
    let answer = answer.map_err(|status| client.failure("nothing was deleted", &status))?.into_inner();
    changes::print(context, answer.generation, &answer.changes, args.dry_run)?;
    if !args.dry_run {
        settle::settle(context, &mut client, answer.generation).await;
    }
    Ok(Exit::Ok)
}

fn references(args: &DeleteArgs) -> Result<Vec<pb::ResourceRef>, Failure> {
    if let Some(kind) = args.kind {
        let Some(kind) = kind.kind() else {
            return Err(Failure::new(Exit::Usage, "everything of every kind is not deleted at once")
                .try_this("mtctl delete KIND NAME…"));
        };
        for name in &args.names {
            client::check_name(name)?;
        }
        // Naming one twice is harmless.
        let names: BTreeSet<&String> = args.names.iter().collect();
        return Ok(names.into_iter().map(|name| reference(kind, name)).collect());
    }
    let manifests = manifests::load(&args.filename)?;
    if manifests.is_broken() {
        return Err(manifests::report(&manifests.own_diagnostics(), "nothing was deleted"));
    }
    Ok(manifests.resources().iter().filter_map(reference_of).collect())
}
