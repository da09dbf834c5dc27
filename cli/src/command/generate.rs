//! `mtctl generate`: capability files for services that describe themselves,
//! shown before anything is written.

mod preview;
mod reflection;
mod source;
mod target;

use mt_capabilities::generate::{self, Filter, GenerateError, Generated, Options};

use self::source::{Asked, Fetch};
use super::Context;
use crate::{
    args::{BackendArgs, Choice, DescribedArgs, GenerateCommand, Target},
    client, manifests,
    output::{Exit, Failure, Format},
};

/// Pages of one backend's tools; a server that has more is going in circles.
const PAGES_MAX: usize = 1_000;

pub async fn run(context: &Context, command: &GenerateCommand) -> Result<Exit, Failure> {
    let (generated, target) = match command {
        GenerateCommand::OpenApi(args) => (openapi(args).await?, &args.target),
        GenerateCommand::GraphQl(args) => (graphql(args).await?, &args.target),
        GenerateCommand::Grpc(args) => (grpc(args).await?, &args.target),
        GenerateCommand::Mcp(args) => (mcp(context, args).await?, &args.target),
    };
    finish(context, &generated, target).await
}

async fn openapi(args: &DescribedArgs) -> Result<Generated, Failure> {
    let options = described(args)?;
    let text = Fetch::new(args)?.text(Asked::Document).await?;
    generate::openapi(&args.source, &text, &options).map_err(|error| refused(&error))
}

async fn graphql(args: &DescribedArgs) -> Result<Generated, Failure> {
    let options = described(args)?;
    let text = Fetch::new(args)?.text(Asked::Introspection).await?;
    generate::graphql(&args.source, &text, &options).map_err(|error| refused(&error))
}

async fn grpc(args: &DescribedArgs) -> Result<Generated, Failure> {
    let options = described(args)?;
    let descriptors = match source::is_address(&args.source) {
        true => reflection::ask(&args.source, &args.header, args.timeout).await?,
        false => Fetch::new(args)?.bytes(Asked::Document).await?,
    };
    generate::grpc(&descriptors, &options).map_err(|error| refused(&error))
}

async fn mcp(context: &Context, args: &BackendArgs) -> Result<Generated, Failure> {
    client::check_name(&args.backend)?;
    let mut options = chosen(&args.choice, &args.target, &format!("{}-tools", args.backend))?;
    options.source = format!("the backend {}", args.backend);
    let mut client = context.client().await?;
    let mut tools = Vec::new();
    let mut revision = None;
    for _ in 0..PAGES_MAX {
        let page = client.list_tools(&args.backend, tools.len()).await?;
        if revision.is_some_and(|revision| revision != page.catalog_revision) {
            tools.clear();
            revision = None;
            continue;
        }
        revision = Some(page.catalog_revision);
        let empty = page.tools.is_empty();
        tools.extend(page.tools.iter().map(|tool| serde_json::from_slice(tool).unwrap_or_default()));
        if empty || tools.len() >= page.total as usize {
            break;
        }
    }
    if tools.is_empty() {
        return Err(Failure::new(
            Exit::NotFound,
            format!("the catalog has no tools of the backend {}", args.backend),
        )
        .note("a backend is listed once it is a member of a gateway that a node serves")
        .try_this(format!("mtctl describe backend {}", args.backend)));
    }
    generate::mcp(&args.backend, &tools, &options).map_err(|error| refused(&error))
}

fn described(args: &DescribedArgs) -> Result<Options, Failure> {
    let mut options = chosen(&args.choice, &args.target, &source::stem(&args.source))?;
    options.source =
        if args.source == "-" { "stdin".to_owned() } else { source::without_secrets(&args.source) };
    options.base_url = args.base_url.clone();
    options.auth = args.auth.clone();
    options.deprecated = args.deprecated;
    Ok(options)
}

fn chosen(choice: &Choice, target: &Target, near: &str) -> Result<Options, Failure> {
    let filter = Filter::new(&choice.include, &choice.exclude)
        .map_err(|error| Failure::new(Exit::Usage, "a pattern cannot be read").cause(error))?;
    let name = match &choice.name {
        Some(name) => {
            client::check_name(name)?;
            name.clone()
        }
        None => {
            let file = target
                .write
                .as_deref()
                .filter(|path| target::is_file(path))
                .and_then(|path| path.file_stem());
            generate::set_name(file.map_or(near.into(), |stem| stem.to_string_lossy()).as_ref())
        }
    };
    Ok(Options {
        name,
        filter,
        prefix: choice.prefix.clone(),
        no_output_schema: choice.no_output_schema,
        ..Options::default()
    })
}

fn refused(error: &GenerateError) -> Failure {
    const NOTHING: &str = "nothing was made";
    match error {
        GenerateError::Unreadable(diagnostics) => manifests::report(diagnostics, NOTHING),
        GenerateError::Unusable { message, hint } => {
            Failure::new(Exit::Failed, NOTHING).cause(message).note(hint.as_str())
        }
        GenerateError::Broken(diagnostics) => {
            manifests::report(diagnostics, "what was made does not compile")
                .note("this is a mistake of mtctl; please report it")
        }
    }
}

async fn finish(context: &Context, generated: &Generated, target: &Target) -> Result<Exit, Failure> {
    preview::show(&context.output, generated);
    if generated.tools.is_empty() {
        return Err(Failure::new(Exit::Failed, "no tools were made").note("the notes above say why"));
    }
    match context.format() {
        Format::Json => context.output.value(&preview::to_value(generated))?,
        Format::Name => {
            let names = generated.tools.iter().map(|tool| format!("{}\n", tool.name));
            context.output.data(&names.collect::<String>())?;
        }
        Format::Table | Format::Yaml if target.write.is_none() && !target.apply => {
            let texts: Vec<&str> = generated.files.iter().map(|file| file.text.as_str()).collect();
            context.output.data(&texts.join("---\n"))?;
        }
        Format::Table | Format::Yaml => {}
    }
    if let Some(path) = &target.write {
        target::write(context, &generated.files, path, target.force)?;
    }
    if target.apply {
        return target::apply(context, generated).await;
    }
    Ok(Exit::Ok)
}
