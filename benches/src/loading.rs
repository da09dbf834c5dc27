//! What loading capability files costs, beside a bare parse of the same files;
//! and what one edited file costs, among few files and among many.
//!
//! A bare parse is `serde_saphyr` into a `serde_json::Value`: what anybody would
//! write who only wants the data. Loading is everything up to a set that can be
//! served: places for mistakes, resources, templates, schemas. Both are
//! measured on one core and on all.

mod service;

use std::{
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, ensure};
use mt_capabilities::{Library, Touched, default_gateway, load};
use mt_proto::{
    pb::resource::Resource,
    resource::{Compiled, Key, ResourceSet},
};
use rayon::{ThreadPool, ThreadPoolBuilder, prelude::*};
use tokio::time::Instant;

/// What loading may cost, beside a bare parse.
const RATIO_MAX: f64 = 3.0;
/// In each file of those that are edited.
const TOOLS_IN_EDITED: usize = 10;

#[derive(clap::Args)]
pub struct LoadArgs {
    /// Tools in all.
    #[arg(long, default_value_t = 10_000)]
    tools: usize,
    /// Over how many files, one measurement for each.
    #[arg(long, value_delimiter = ',', default_values_t = [10, 100, 1000])]
    files: Vec<usize>,
    /// Medians of so many rounds are printed.
    #[arg(long, default_value_t = 7)]
    rounds: usize,
    /// The program whose `up` is measured from an edit to its service; none if
    /// left out.
    #[arg(long, value_name = "PATH")]
    mtctl: Option<PathBuf>,
}

/// Measures and prints everything.
///
/// # Errors
/// If something cannot be measured, or loading costs more than is promised.
pub fn run(args: &LoadArgs) -> anyhow::Result<()> {
    let one = ThreadPoolBuilder::new().num_threads(1).build()?;
    let all = ThreadPoolBuilder::new().build()?;
    println!("loading {} tools, medians of {} rounds, ms", args.tools, args.rounds);
    println!("files     KiB  cores   bare parse    load   of it compile   load / bare parse");
    let mut worst = 0.0f64;
    for &files in &args.files {
        let dir = tempfile::tempdir()?;
        let bytes = write_all(dir.path(), args.tools, files)?;
        for pool in [&one, &all] {
            let (bare, loaded, compiled) = whole(pool, dir.path(), args)?;
            let ratio = loaded.as_secs_f64() / bare.as_secs_f64();
            worst = worst.max(ratio);
            println!(
                "{files:>5} {:>7} {:>6} {:>12.1} {:>7.1} {:>15.1} {ratio:>19.2}",
                bytes / 1024,
                pool.current_num_threads(),
                ms(bare),
                ms(loaded),
                ms(compiled),
            );
        }
    }
    println!("\none file of {TOOLS_IN_EDITED} tools is edited, medians of {} rounds, ms", args.rounds);
    println!(
        "files   read again   compile again{}",
        if args.mtctl.is_some() { "   edit to service" } else { "" }
    );
    for &files in &args.files {
        let dir = tempfile::tempdir()?;
        write_all(dir.path(), TOOLS_IN_EDITED * files, files)?;
        let (read, compiled) = edited(dir.path(), args)?;
        print!("{files:>5} {:>12.2} {:>15.2}", ms(read), ms(compiled));
        match &args.mtctl {
            Some(program) => {
                println!(" {:>17.1}", ms(service::edit_to_service(program, dir.path(), args.rounds)?))
            }
            None => println!(),
        }
    }
    ensure!(worst <= RATIO_MAX, "loading costs {worst:.2} times a bare parse, {RATIO_MAX} are promised");
    Ok(())
}

fn ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort();
    times[times.len() / 2]
}

/// A bare parse, loading, and what of that is compiling.
fn whole(pool: &ThreadPool, dir: &Path, args: &LoadArgs) -> anyhow::Result<(Duration, Duration, Duration)> {
    let (mut bare, mut loaded, mut compiled) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..args.rounds {
        let start = Instant::now();
        let mut paths = Vec::new();
        for group in fs::read_dir(dir)? {
            for file in fs::read_dir(group?.path())? {
                paths.push(file?.path());
            }
        }
        let values: anyhow::Result<Vec<serde_json::Value>> = pool.install(|| {
            paths.par_iter().map(|path| Ok(serde_saphyr::from_str(&fs::read_to_string(path)?)?)).collect()
        });
        let values = values?;
        bare.push(start.elapsed());
        drop(values);

        let start = Instant::now();
        let documents = pool.install(|| load(dir))?;
        let mistakes: Vec<_> = documents.iter().flat_map(|document| &document.diagnostics).take(1).collect();
        ensure!(mistakes.is_empty(), "{mistakes:?}");
        let resources = documents.into_iter().flat_map(|d| d.resources).map(|located| located.resource);
        let set = gather(resources)?;
        let middle = Instant::now();
        let result = pool.install(|| compile(&set, &Compiled::default()))?;
        compiled.push(middle.elapsed());
        loaded.push(start.elapsed());
        drop((set, result));
    }
    Ok((median(bare), median(loaded), median(compiled)))
}

fn gather(resources: impl Iterator<Item = Resource>) -> anyhow::Result<ResourceSet> {
    let (set, problems) = ResourceSet::gather(resources.chain([default_gateway()]));
    ensure!(problems.is_empty(), "{problems:?}");
    Ok(set)
}

fn compile(set: &ResourceSet, before: &Compiled) -> anyhow::Result<Compiled> {
    set.compile_after(before).map_err(|problems| anyhow::anyhow!("{:?}", problems.first()))
}

/// Reading what was edited, and compiling what is served after it.
fn edited(dir: &Path, args: &LoadArgs) -> anyhow::Result<(Duration, Duration)> {
    let mut library = Library::open(&[dir.to_owned()])?;
    let mut set = gather(library.resources().into_iter())?;
    let mut served = compile(&set, &Compiled::default())?;
    library.told();
    let file = std::path::absolute(path(dir, 0))?;
    let (mut read, mut compiled) = (Vec::new(), Vec::new());
    for round in 0..args.rounds {
        fs::write(&file, text(0, TOOLS_IN_EDITED, &format!("in round {round}"))?)?;
        let start = Instant::now();
        library.refresh(&Touched::Paths([file.clone()].into()))?;
        let pending = library.pending().map_err(|mistakes| anyhow::anyhow!("{mistakes:?}"))?;
        library.told();
        read.push(start.elapsed());
        ensure!(pending.changed.len() == 1 && pending.removed.is_empty(), "one resource has changed");
        for resource in pending.changed {
            set.insert(Key::of(&resource).context("a resource without a name")?, resource.into());
        }
        let start = Instant::now();
        served = compile(&set, &served)?;
        compiled.push(start.elapsed());
    }
    Ok((median(read), median(compiled)))
}

fn path(dir: &Path, file: usize) -> PathBuf {
    dir.join(format!("group-{}", file % 10)).join(format!("things-{file}.yaml"))
}

fn write_all(dir: &Path, tools: usize, files: usize) -> anyhow::Result<usize> {
    let mut bytes = 0;
    for file in 0..files {
        let text = text(file * tools / files, (file + 1) * tools / files, "and tells what is known")?;
        bytes += text.len();
        let path = path(dir, file);
        fs::create_dir_all(path.parent().context("it is in a folder")?)?;
        fs::write(path, text)?;
    }
    Ok(bytes)
}

/// Tools as people write them: a schema with a few properties, a request with
/// templates.
fn text(from: usize, to: usize, words: &str) -> anyhow::Result<String> {
    let mut text = String::from("metadata:\n  description: Made to be measured\ntools:\n");
    for i in from..to {
        write!(
            text,
            "  - name: get_thing_{i}
    description: Finds things of kind {i} {words}
    inputSchema:
      type: object
      properties:
        id: {{type: string, description: Which one, minLength: 1}}
        limit:
          type: integer
          minimum: 1
          maximum: {}
        verbose:
          type: boolean
          default: false
      required: [id]
    routing:
      type: http
      config:
        url: https://api.example.com/v1/things{i}/{{{{id}}}}
        query: {{limit: '{{{{default limit 10}}}}'}}
",
            10 + i
        )?;
    }
    Ok(text)
}
