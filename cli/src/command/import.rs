//! `mtctl import`: the MCP servers of another program's configuration, shown
//! first with the very commands that will be run.

mod plan;

use std::{collections::BTreeSet, path::Path, time::Duration};

use serde_json::json;

use mt_proto::{
    pb::{control as pb, node::BackendState, resource::Resource},
    resource::{Kind, ResourceSet},
};

use self::plan::{Fate, Plan};
use super::{
    Context, changes,
    status::{is_settled, word, worst},
};
use crate::{
    args::ImportArgs,
    client::{self, Client},
    manifests,
    output::{BAD, DIM, Exit, Failure, Format, GOOD, WARN, count, escape, shorten},
};

const POLL: Duration = Duration::from_millis(100);
const REASON_CHARS_MAX: usize = 90;

pub async fn run(context: &Context, args: &ImportArgs) -> Result<Exit, Failure> {
    client::check_name(&args.gateway)?;
    if args.dry_run {
        return dry_run(context, args).await;
    }
    let mut client = context.client().await?;
    bring_in(context, &mut client, args).await
}

/// Imports a file, as `mtctl import` and `mtctl up --import` do.
///
/// # Errors
/// When the file cannot be read, or is not taken.
pub async fn bring_in(context: &Context, client: &mut Client, args: &ImportArgs) -> Result<Exit, Failure> {
    let import = read(&args.file)?;
    let (stored, generation) = client.list(None, &[], 0).await?;
    let plan = Plan::new(import, &set(stored), &args.gateway);
    show(context, &plan, false)?;
    let resources = plan.to_apply(args.replace);
    if resources.is_empty() {
        context.output.say("nothing to do");
        return Ok(plan.exit(args.replace));
    }
    // Without a terminal the command line has said it already.
    if !args.yes && !context.output.confirm(&question(&resources), true) {
        return Err(Failure::new(Exit::No, "nothing was imported"));
    }
    let imported = backends(&resources);
    let request = pb::ApplyRequest {
        resources,
        // What was shown is what is done.
        expected_generation: generation,
        author: client::author(),
        message: format!("import of {}", args.file.display()),
        ..Default::default()
    };
    let answer = client.config.apply(request).await;
    let answer = answer.map_err(|status| client.failure("nothing was imported", &status))?.into_inner();
    match context.format() {
        Format::Table => {
            let changes = count(answer.changes.len(), "change");
            context.output.say(format_args!("{GOOD}generation {}{GOOD:#}: {changes}", answer.generation));
        }
        _ => changes::print(context, answer.generation, &answer.changes, false)?,
    }
    if !args.wait.is_zero() {
        wait(context, client, &imported, args.wait).await?;
    }
    Ok(plan.exit(args.replace))
}

async fn dry_run(context: &Context, args: &ImportArgs) -> Result<Exit, Failure> {
    let import = read(&args.file)?;
    let stored = match context.client().await {
        Ok(mut client) => client.list(None, &[], 0).await?.0,
        Err(failure) => {
            let words = format!("{WARN}note:{WARN:#} {}; compared with nothing", escape(&failure.message));
            context.output.say(words);
            Vec::new()
        }
    };
    let plan = Plan::new(import, &set(stored), &args.gateway);
    show(context, &plan, true)?;
    context.output.say("nothing was changed");
    Ok(Exit::Ok)
}

fn set(stored: Vec<pb::StoredResource>) -> ResourceSet {
    ResourceSet::gather(stored.into_iter().filter_map(|stored| stored.resource)).0
}

fn read(file: &Path) -> Result<mt_capabilities::Import, Failure> {
    let (name, text) = if file.as_os_str() == "-" {
        ("<stdin>".to_owned(), manifests::stdin()?)
    } else {
        (file.display().to_string(), manifests::text(file)?)
    };
    mt_capabilities::import(&name, &text).map_err(|diagnostics| {
        manifests::report(&diagnostics, "nothing was imported")
            .try_this("mtctl apply -f FILE, if these are resources of MagicTunnel")
    })
}

fn show(context: &Context, plan: &Plan, dry_run: bool) -> Result<(), Failure> {
    let output = &context.output;
    match context.format() {
        Format::Json | Format::Yaml if dry_run => output.value(&json!(plan.to_value()))?,
        Format::Name if dry_run => {
            output.data(&plan.rows().map(|row| format!("{}\n", row.name())).collect::<String>())?;
        }
        Format::Table if dry_run && plan.rows().next().is_some() => output.data(&plan.table())?,
        Format::Table if plan.rows().next().is_none() => {}
        _ => output.say(plan.table().trim_end()),
    }
    for note in plan.notes() {
        output.say(format_args!("{DIM}note:{DIM:#} {}", escape(&note)));
    }
    if plan.rows().any(|row| row.fate == Fate::Conflict) {
        output.say(format_args!(
            "{WARN}CONFLICT{WARN:#}: something else has that name and is kept; --replace takes the file's"
        ));
    }
    Ok(())
}

fn question(resources: &[Resource]) -> String {
    let commands = resources.iter().filter(|resource| plan::runs_a_command(resource)).count();
    match commands {
        0 => format!("Import {}?", count(resources.len(), "resource")),
        commands => format!(
            "Import {}? {} will be run on the nodes.",
            count(resources.len(), "resource"),
            count(commands, "command")
        ),
    }
}

fn backends(resources: &[Resource]) -> BTreeSet<String> {
    let refs = resources.iter().filter_map(client::reference_of);
    refs.filter(|reference| Kind::from_pb(reference.kind()) == Some(Kind::Backend)).map(|r| r.name).collect()
}

/// Waits until the imported backends have shown their tools or their trouble.
async fn wait(
    context: &Context,
    client: &mut Client,
    names: &BTreeSet<String>,
    limit: Duration,
) -> Result<(), Failure> {
    let polls = limit.as_millis() / POLL.as_millis();
    let mut poll = 0;
    let seen = loop {
        let mut seen = client.backends().await?;
        seen.retain(|backend| names.contains(&backend.backend));
        if poll >= polls || (seen.len() == names.len() && seen.iter().all(is_settled)) {
            break seen;
        }
        poll += 1;
        tokio::time::sleep(POLL).await;
    };
    let output = &context.output;
    for name in names {
        let Some(backend) = seen.iter().find(|backend| backend.backend == *name) else {
            output.say(format_args!("{WARN}{name}{WARN:#}: no node serves it yet"));
            continue;
        };
        let (state, reason) = worst(backend);
        let tools = count(usize::try_from(backend.tools).unwrap_or(usize::MAX), "tool");
        match state {
            BackendState::Ready if backend.tools > 0 => {
                output.say(format_args!("{GOOD}{name}{GOOD:#}: {tools}"))
            }
            BackendState::Unavailable | BackendState::NeedsAuth | BackendState::Degraded => {
                let reason = shorten(reason, REASON_CHARS_MAX);
                output.say(format_args!("{BAD}{name} {}{BAD:#}: {reason}", word(state)));
            }
            _ => output.say(format_args!("{WARN}{name} {}{WARN:#}: {tools} so far", word(state))),
        }
    }
    let tools: u64 = seen.iter().map(|backend| u64::from(backend.tools)).sum();
    let tools = usize::try_from(tools).unwrap_or(usize::MAX);
    output.say(format_args!(
        "{} from {}; see them: mtctl tools list",
        count(tools, "tool"),
        count(names.len(), "server")
    ));
    Ok(())
}
