//! `mtctl keys`: the keys that seal what clients carry.

use serde_json::json;

use super::Context;
use crate::{
    args::KeysCommand,
    output::{Exit, Failure, Format},
};

pub async fn run(context: &Context, command: &KeysCommand) -> Result<Exit, Failure> {
    let KeysCommand::Rotate(args) = command;
    let made = context.client().await?.rotate_keys(args.settle).await?;
    let id = format!("{:x}", made.key_id);
    match context.format() {
        Format::Table => {
            let others = made.keys.saturating_sub(1);
            context.output.data(&format!(
                "Key {id} opens on all nodes now and seals in {} s; {others} before it still open.\n",
                args.settle.as_secs()
            ))?;
        }
        Format::Name => context.output.data(&format!("{id}\n"))?,
        Format::Json | Format::Yaml => context.output.value(&json!({ "key": id, "keys": made.keys }))?,
    }
    Ok(Exit::Ok)
}
