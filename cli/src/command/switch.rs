//! `mtctl enable|disable`: switches backends, tool sets and their tools while
//! everything runs.

use mt_proto::pb::resource::{Resource, ToolSet, resource::Spec};
use serde_json::json;

use super::{Context, edit};
use crate::{
    args::{SwitchArgs, Switchable},
    output::{Exit, Failure, Format},
};

pub async fn run(context: &Context, args: &SwitchArgs, on: bool) -> Result<Exit, Failure> {
    if args.kind == Switchable::Backend && !args.tool.is_empty() {
        let failure = Failure::new(Exit::Usage, "single tools can be switched in a tool set only");
        return Err(failure.try_this("mtctl tools hide NAME, or `exclude` of the gateway's member"));
    }
    let (kind, verb) = (args.kind.kind(), if on { "enable" } else { "disable" });
    let mut generations = Vec::with_capacity(args.names.len());
    for name in &args.names {
        let switched = |before: Option<&Resource>| {
            let mut resource = before.cloned().ok_or_else(|| {
                Failure::new(Exit::NotFound, format!("there is no {kind} {name:?}"))
                    .try_this(format!("mtctl get {}s", kind.slug()))
            })?;
            match &mut resource.spec {
                Some(Spec::Backend(backend)) => backend.disabled = !on,
                Some(Spec::ToolSet(set)) => switch_set(set, name, &args.tool, on)?,
                _ => {}
            }
            Ok(resource)
        };
        let message = format!("{verb} {} {name} {}", kind.slug(), args.tool.join(" ")).trim_end().to_owned();
        generations.push(edit::resource(context, kind, name, &message, switched).await?);
    }
    if matches!(context.format(), Format::Json | Format::Yaml) {
        let changed: Vec<_> = args
            .names
            .iter()
            .zip(&generations)
            .map(|(name, generation)| {
                json!({"kind": kind.slug(), "name": name, "tools": args.tool, "enabled": on, "generation": generation})
            })
            .collect();
        context.output.value(&changed)?;
    }
    let what = match args.tool.as_slice() {
        [] => String::new(),
        tools => format!("{} ", tools.join(", ")),
    };
    for (name, generation) in args.names.iter().zip(generations) {
        context.output.say(format_args!("generation {generation}: {kind} {name}: {what}{verb}d"));
    }
    Ok(Exit::Ok)
}

fn switch_set(set: &mut ToolSet, of: &str, tools: &[String], on: bool) -> Result<(), Failure> {
    if tools.is_empty() {
        set.disabled = !on;
        return Ok(());
    }
    for name in tools {
        let Some(tool) = set.tools.iter_mut().find(|tool| tool.name == *name) else {
            return Err(Failure::new(Exit::NotFound, format!("tool set {of} has no tool {name:?}"))
                .try_this(format!("mtctl get tool-set {of} -o yaml")));
        };
        tool.enabled = Some(on);
    }
    Ok(())
}
