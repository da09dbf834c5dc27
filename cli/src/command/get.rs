//! `mtctl get`: resources as they stand, or as they stood at a generation.

use mt_proto::pb::{
    control as pb,
    resource::{Resource, backend::Transport, policy::Rule, resource::Spec, secret::Source},
};

use super::Context;
use crate::{
    args::{GetArgs, KindArg},
    client, manifests,
    output::{Exit, Failure, Format, Table, count, shorten},
};

/// What a resource says, in at most so many characters.
const SUMMARY_CHARS_MAX: usize = 60;

pub async fn run(context: &Context, args: &GetArgs) -> Result<Exit, Failure> {
    let Some(name) = &args.name else {
        let (resources, _) =
            context.client().await?.list(args.kind.kind(), &args.labels, args.generation).await?;
        print(context, &resources, args.kind == KindArg::All)?;
        if resources.is_empty() {
            context.output.say("nothing found");
        }
        return Ok(Exit::Ok);
    };
    let resource = one(context, args.kind, name, args.generation).await?;
    match (context.format(), &resource.resource) {
        (Format::Json, Some(resource)) => context.output.value(&manifests::to_value(resource))?,
        _ => print(context, &[resource], false)?,
    }
    Ok(Exit::Ok)
}

/// Reads one resource that must be there.
///
/// # Errors
/// Also when it is not there: then with the names that are near.
pub async fn one(
    context: &Context,
    kind: KindArg,
    name: &str,
    generation: u64,
) -> Result<pb::StoredResource, Failure> {
    let Some(kind) = kind.kind() else {
        return Err(Failure::new(Exit::Usage, "a name needs a kind").try_this("mtctl get backend NAME"));
    };
    client::check_name(name)?;
    let mut client = context.client().await?;
    if let Some(found) = client.find(kind, name, generation).await? {
        return Ok(found);
    }
    let (all, _) = client.list(Some(kind), &[], 0).await?;
    let names =
        all.iter().filter_map(|stored| Some(stored.resource.as_ref()?.metadata.as_ref()?.name.as_str()));
    let mut failure = Failure::new(Exit::NotFound, format!("there is no {kind} named {name:?}"));
    if let Some(near) = near(name, names) {
        failure = failure.try_this(format!("mtctl get {kind} {near}"));
    }
    Err(failure.try_this(format!("mtctl get {kind}")))
}

/// The name that was probably meant.
pub fn near<'a>(typed: &str, names: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let scored =
        names.map(|name| (strsim::jaro_winkler(typed, name), name)).filter(|(score, _)| *score > 0.8);
    scored.max_by(|a, b| a.0.total_cmp(&b.0)).map(|(_, name)| name)
}

fn print(context: &Context, resources: &[pb::StoredResource], with_kind: bool) -> Result<(), Failure> {
    let inner = resources.iter().filter_map(|stored| stored.resource.as_ref());
    match context.format() {
        Format::Json => context.output.value(&inner.map(manifests::to_value).collect::<Vec<_>>()),
        Format::Yaml => context.output.data(&inner.map(manifests::to_yaml).collect::<Vec<_>>().join("---\n")),
        Format::Name => {
            let names =
                inner.filter_map(client::reference_of).map(|reference| client::display(&reference) + "\n");
            context.output.data(&names.collect::<String>())
        }
        Format::Table if resources.is_empty() => Ok(()),
        Format::Table => context.output.data(&table(resources, with_kind)),
    }
}

fn table(resources: &[pb::StoredResource], with_kind: bool) -> String {
    let mut table = Table::new(["NAME", "WHAT", "GENERATION", "LABELS"]);
    for stored in resources {
        let Some(resource) = &stored.resource else { continue };
        let Some(reference) = client::reference_of(resource) else { continue };
        let name = if with_kind { client::display(&reference) } else { reference.name };
        let labels = resource.metadata.iter().flat_map(|metadata| &metadata.labels);
        let labels: Vec<String> = labels.map(|(key, value)| format!("{key}={value}")).collect();
        table.row([name, summary(resource), stored.generation.to_string(), labels.join(",")]);
    }
    table.render()
}

/// What a resource says, on one line of bounded length.
fn summary(resource: &Resource) -> String {
    shorten(&exact(resource), SUMMARY_CHARS_MAX)
}

/// What a resource says or runs, whole.
pub fn exact(resource: &Resource) -> String {
    match &resource.spec {
        Some(Spec::Gateway(gateway)) => count(gateway.members.len(), "member"),
        Some(Spec::Backend(backend)) => {
            let off = if backend.disabled { "(disabled) " } else { "" };
            match &backend.transport {
                Some(Transport::Http(http) | Transport::Sse(http) | Transport::Websocket(http)) => {
                    format!("{off}{}", http.url)
                }
                Some(Transport::Stdio(stdio)) => {
                    let words = std::iter::once(&stdio.command).chain(&stdio.args);
                    format!("{off}{}", words.map(|word| shell_word(word)).collect::<Vec<_>>().join(" "))
                }
                None => off.to_owned(),
            }
        }
        Some(Spec::ToolSet(set)) => count(set.tools.len(), "tool"),
        Some(Spec::Route(route)) => count(route.backends.len(), "backend"),
        Some(Spec::Policy(policy)) => match &policy.rule {
            Some(Rule::Timeout(_)) => "timeout".to_owned(),
            Some(Rule::Authn(_)) => "authn".to_owned(),
            None => String::new(),
        },
        Some(Spec::Secret(secret)) => match &secret.source {
            Some(Source::Env(name)) => format!("env {name}"),
            Some(Source::File(path)) => format!("file {path}"),
            None => String::new(),
        },
        Some(Spec::Principal(principal)) => {
            let keys = count(principal.api_key_sha256.len(), "key");
            let groups = Some(principal.groups.join(",")).filter(|groups| !groups.is_empty());
            let name = Some(principal.display_name.clone()).filter(|name| !name.is_empty());
            [Some(keys), groups, name].into_iter().flatten().collect::<Vec<_>>().join("; ")
        }
        None => String::new(),
    }
}

/// A word as it would have to be typed in a shell.
pub fn shell_word(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "@%+=:,./-_".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        return word.to_owned();
    }
    format!("'{}'", word.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_quoted_only_when_needed() {
        assert_eq!(shell_word("@scope/pkg@1.0"), "@scope/pkg@1.0");
        assert_eq!(shell_word("a b"), "'a b'");
        assert_eq!(shell_word("it's"), r"'it'\''s'");
        assert_eq!(shell_word(""), "''");
    }

    #[test]
    fn the_near_name_is_found_and_a_far_one_is_not() {
        assert_eq!(near("tme", ["time", "fetch"].into_iter()), Some("time"));
        assert_eq!(near("xyz", ["time", "fetch"].into_iter()), None);
    }

    #[test]
    fn a_table_shows_what_a_backend_runs() {
        let backend = mt_proto::pb::resource::Backend {
            transport: Some(Transport::Stdio(mt_proto::pb::resource::StdioTransport {
                command: "npx".into(),
                args: vec!["-y".into(), "a b".into()],
                ..Default::default()
            })),
            ..Default::default()
        };
        let resource = Resource {
            metadata: Some(mt_proto::pb::resource::Metadata { name: "t".into(), ..Default::default() }),
            spec: Some(Spec::Backend(backend)),
        };
        let stored = pb::StoredResource { resource: Some(resource), generation: 3, etag: String::new() };
        insta::assert_snapshot!(table(&[stored], true), @r"
        NAME       WHAT          GENERATION  LABELS
        backend/t  npx -y 'a b'  3           -
        ");
    }
}
