//! Changes one resource: reads it, edits it, and writes it back if nobody has
//! changed anything in between.

use mt_proto::{
    pb::{control::ApplyRequest, resource::Resource},
    resource::Kind,
};
use tonic::Code;

use super::{Context, settle, up::SOURCE_LABEL};
use crate::{
    client::{self, Client},
    output::{Failure, WARN},
};

/// How often a change is tried again that somebody else came before.
const TRIES_MAX: usize = 5;

/// Changes one resource, or makes it: `edit` gets it as it is now. The
/// generation that holds it.
///
/// # Errors
/// What `edit` says, or why it was not taken.
pub async fn resource(
    context: &Context,
    kind: Kind,
    name: &str,
    message: &str,
    mut edit: impl FnMut(Option<&Resource>) -> Result<Resource, Failure>,
) -> Result<u64, Failure> {
    client::check_name(name)?;
    let mut client: Client = context.client().await?;
    let mut tries = 1;
    let generation = loop {
        let (all, head) = client.list(Some(kind), &[], 0).await?;
        let stored = all.iter().filter_map(|stored| stored.resource.as_ref());
        let before = stored.into_iter().find(|r| r.metadata.as_ref().is_some_and(|m| m.name == name));
        let after = edit(before)?;
        if before == Some(&after) {
            return Ok(head);
        }
        if before.is_some_and(comes_from_files) {
            context.output.say(format_args!(
                "{WARN}{kind} {name} comes from the files of `mtctl up`{WARN:#}: when they are read again, this change is lost; make it in the file"
            ));
        }
        let request = ApplyRequest {
            resources: vec![after],
            expected_generation: head,
            author: client::author(),
            message: message.to_owned(),
            ..Default::default()
        };
        match client.config.apply(request).await {
            Ok(answer) => break answer.into_inner().generation,
            Err(status) if status.code() == Code::Aborted && tries < TRIES_MAX => tries += 1,
            Err(status) => return Err(client.failure("nothing was changed", &status)),
        }
    };
    settle::settle(context, &mut client, generation).await;
    Ok(generation)
}

/// Whether `mtctl up` reads it again and again.
fn comes_from_files(resource: &Resource) -> bool {
    let (key, value) = SOURCE_LABEL;
    resource.metadata.as_ref().is_some_and(|metadata| metadata.labels.get(key).is_some_and(|v| v == value))
}
