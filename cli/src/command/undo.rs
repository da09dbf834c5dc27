//! `mtctl undo`: the reverse of a generation becomes a new one.

use mt_proto::pb::control as pb;

use super::{Context, changes, settle};
use crate::{
    args::UndoArgs,
    client,
    output::{Exit, Failure},
};

pub async fn run(context: &Context, args: &UndoArgs) -> Result<Exit, Failure> {
    let mut client = context.client().await?;
    let request = pb::UndoRequest {
        generation: args.generation.unwrap_or(0),
        expected_generation: 0,
        dry_run: args.dry_run,
        author: client::author(),
        message: args.message.clone(),
    };
    let answer = client.config.undo(request).await;
    let answer = answer.map_err(|status| client.failure("nothing was undone", &status))?.into_inner();
    changes::print(context, answer.generation, &answer.changes, args.dry_run)?;
    if !args.dry_run {
        settle::settle(context, &mut client, answer.generation).await;
    }
    Ok(Exit::Ok)
}
