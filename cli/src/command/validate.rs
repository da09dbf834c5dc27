//! `mtctl validate`: everything that is wrong with files, without a control plane.

use serde_json::json;

use super::Context;
use crate::{
    args::FilesArgs,
    client, manifests,
    output::{DIM, Exit, Failure, Format, GOOD, count},
};

pub fn run(context: &Context, args: &FilesArgs) -> Result<Exit, Failure> {
    let manifests = manifests::load(&args.filename)?;
    let diagnostics = manifests.diagnostics();
    if !diagnostics.is_empty() {
        return Err(manifests::report(&diagnostics, "the files are not valid"));
    }
    let resources = manifests.resources();
    let names: Vec<String> = resources
        .iter()
        .filter_map(client::reference_of)
        .map(|reference| client::display(&reference))
        .collect();
    match context.format() {
        Format::Json | Format::Yaml => context.output.value(&json!({"valid": true, "resources": names}))?,
        Format::Name => {
            context.output.data(&names.iter().map(|name| format!("{name}\n")).collect::<String>())?
        }
        Format::Table => {}
    }
    let absent = manifests.absent();
    if !absent.is_empty() {
        let names: Vec<String> = absent.iter().map(ToString::to_string).collect();
        context.output.say(format_args!(
            "{DIM}note:{DIM:#} not in these files, so taken as being in the store: {}",
            names.join(", ")
        ));
    }
    let files = count(manifests.documents.len(), "file");
    context.output.say(format_args!("{GOOD}valid{GOOD:#}: {} in {files}", count(names.len(), "resource")));
    Ok(Exit::Ok)
}
