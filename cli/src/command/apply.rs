//! `mtctl apply`: files become a generation.

use mt_proto::pb::control as pb;

use super::{
    Context, changes,
    follow::{self, Source},
    settle,
};
use crate::{
    args::ApplyArgs,
    client,
    output::{Exit, Failure},
};

pub async fn run(context: &Context, args: &ApplyArgs) -> Result<Exit, Failure> {
    if args.watch {
        return watch(context, args).await;
    }
    let (manifests, mut client) = changes::read(context, &args.files.filename, "nothing was applied").await?;
    let request = pb::ApplyRequest {
        resources: manifests.resources(),
        prune_labels: args.prune_label.iter().cloned().collect(),
        expected_generation: args.if_generation.unwrap_or(0),
        dry_run: args.dry_run,
        author: client::author(),
        message: args.message.clone(),
        ..Default::default()
    };
    let answer = changes::send(&mut client, &manifests, request).await?;
    changes::print(context, answer.generation, &answer.changes, args.dry_run)?;
    if !args.dry_run {
        settle::settle(context, &mut client, answer.generation).await;
    }
    Ok(Exit::Ok)
}

async fn watch(context: &Context, args: &ApplyArgs) -> Result<Exit, Failure> {
    let paths = &args.files.filename;
    let missing = || Failure::new(Exit::Usage, "stdin cannot be followed").try_this("-f DIR");
    let followable = !paths.iter().any(|path| path.as_os_str() == "-");
    let source = Source::new(paths)?.filter(|_| followable).ok_or_else(missing)?;
    let library = source.read()?;
    let mut client = context.client().await?;
    let prune = args.prune_label.iter().cloned().collect();
    follow::run(context, &mut client, &source, library, prune, &args.message).await
}
