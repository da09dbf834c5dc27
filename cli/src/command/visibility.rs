//! `mtctl tools show|hide`: which tools are listed. What is hidden can still be
//! called by its name.

use mt_proto::{
    pb::resource::{Gateway, Resource, ToolSet, resource::Spec},
    resource::Kind,
};
use serde_json::json;

use super::{Context, edit};
use crate::{
    args::VisibilityArgs,
    output::{Exit, Failure, Format},
};

pub async fn run(context: &Context, args: &VisibilityArgs, hide: bool) -> Result<Exit, Failure> {
    let verb = if hide { "hide" } else { "show" };
    let message = format!("tools {verb} {}", args.names.join(" ")).trim_end().to_owned();
    let (kind, name) = match &args.tool_set {
        Some(set) => (Kind::ToolSet, set.as_str()),
        None => (Kind::Gateway, args.gateway.as_str()),
    };
    let edited = |before: Option<&Resource>| {
        let mut resource = before.cloned().ok_or_else(|| {
            Failure::new(Exit::NotFound, format!("there is no {kind} {name:?}"))
                .try_this(format!("mtctl get {}s", kind.slug()))
        })?;
        match &mut resource.spec {
            Some(Spec::Gateway(gateway)) => in_gateway(gateway, &args.names, hide),
            Some(Spec::ToolSet(set)) => in_set(set, name, &args.names, hide)?,
            _ => {}
        }
        Ok(resource)
    };
    let generation = edit::resource(context, kind, name, &message, edited).await?;
    if matches!(context.format(), Format::Json | Format::Yaml) {
        let what = json!({"kind": kind.slug(), "name": name, "names": args.names, "hidden": hide, "generation": generation});
        context.output.value(&what)?;
    }
    let what = if args.names.is_empty() { "all its tools".to_owned() } else { args.names.join(", ") };
    let how = if hide { "hidden; calls by name still work" } else { "listed" };
    context.output.say(format_args!("generation {generation}: {kind} {name}: {what}: {how}"));
    Ok(Exit::Ok)
}

/// A name is in at most one of the two lists.
fn in_gateway(gateway: &mut Gateway, names: &[String], hide: bool) {
    let (to, from) =
        if hide { (&mut gateway.hide, &mut gateway.show) } else { (&mut gateway.show, &mut gateway.hide) };
    for name in names {
        from.retain(|have| have != name);
        if !to.contains(name) {
            to.push(name.clone());
        }
    }
}

fn in_set(set: &mut ToolSet, of: &str, names: &[String], hide: bool) -> Result<(), Failure> {
    if names.is_empty() {
        set.hidden = hide;
        return Ok(());
    }
    for name in names {
        let tool = set.tools.iter_mut().find(|tool| tool.name == *name).map(|tool| &mut tool.hidden);
        let prompt =
            set.prompts.iter_mut().find(|prompt| prompt.name == *name).map(|prompt| &mut prompt.hidden);
        let Some(hidden) = tool.or(prompt) else {
            return Err(Failure::new(
                Exit::NotFound,
                format!("tool set {of} has no tool or prompt {name:?}"),
            )
            .try_this(format!("mtctl get tool-set {of} -o yaml")));
        };
        *hidden = hide;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use mt_proto::pb::resource::BoundTool;

    use super::*;

    #[test]
    fn what_is_shown_again_is_no_longer_hidden() {
        let mut gateway = Gateway { show: vec!["b".into()], ..Default::default() };
        let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        in_gateway(&mut gateway, &names(&["a*", "b"]), true);
        assert_eq!((gateway.hide.as_slice(), gateway.show.as_slice()), (&names(&["a*", "b"])[..], &[][..]));
        in_gateway(&mut gateway, &names(&["b"]), false);
        assert_eq!((gateway.hide, gateway.show), (names(&["a*"]), names(&["b"])));
    }

    #[test]
    fn a_set_is_hidden_as_a_whole_or_by_its_tools() {
        let tool = BoundTool { name: "ping".into(), ..Default::default() };
        let mut set = ToolSet { tools: vec![tool], ..Default::default() };
        in_set(&mut set, "net", &["ping".to_owned()], true).unwrap();
        assert!(set.tools[0].hidden && !set.hidden);
        in_set(&mut set, "net", &[], true).unwrap();
        assert!(set.hidden);
        assert_eq!(in_set(&mut set, "net", &["pong".to_owned()], true).unwrap_err().exit, Exit::NotFound);
    }
}
