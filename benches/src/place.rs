//! Who runs on which CPU. The load and the backend share one, what is measured
//! has the other for itself, so that neither takes time from the other.
//!
//! A machine of one CPU, or one that forbids it, runs everything unpinned and
//! says so.

use std::{ffi::OsString, os::unix::process::CommandExt as _, path::Path, process::Command, sync::OnceLock};

use anyhow::Context as _;
use rustix::{
    process::{Resource, Rlimit, getrlimit, setrlimit},
    thread::{CpuSet, sched_getaffinity, sched_setaffinity},
};

/// The numbers of the two CPUs.
#[derive(clap::Args, Clone, Copy, Debug)]
pub struct Place {
    /// The CPU of the load generator, the backends and the control plane.
    #[arg(long, global = true, default_value_t = 0)]
    load_cpu: usize,
    /// The CPU of what is measured.
    #[arg(long, global = true, default_value_t = 1)]
    target_cpu: usize,
}

/// None if nothing can be pinned.
static PINNED: OnceLock<Option<Place>> = OnceLock::new();

/// Takes this process to its CPU and lets it open as many files as it may.
/// Children inherit both.
pub fn settle(place: Place) {
    let limit = getrlimit(Resource::Nofile);
    // A limit that cannot be raised shows later, where files run out.
    _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit });
    let allowed = sched_getaffinity(None);
    let both = place.load_cpu != place.target_cpu
        && allowed.is_ok_and(|set| set.is_set(place.load_cpu) && set.is_set(place.target_cpu));
    let pinned = both && pin(place.load_cpu).is_ok();
    if !pinned {
        eprintln!("nothing is pinned: CPUs {} and {} are not both ours", place.load_cpu, place.target_cpu);
    }
    PINNED.get_or_init(|| pinned.then_some(place));
}

/// Whether what is measured has a CPU of its own.
pub fn is_pinned() -> bool {
    cpus().is_some()
}

/// The CPUs that are used; none if they are not known.
pub fn cpus() -> Option<[usize; 2]> {
    PINNED.get().copied().flatten().map(|place| [place.load_cpu, place.target_cpu])
}

fn pin(cpu: usize) -> rustix::io::Result<()> {
    let mut set = CpuSet::new();
    set.set(cpu);
    sched_setaffinity(None, &set)
}

/// A command that runs on the CPU of what is measured.
///
/// # Errors
/// If the path of this program is unknown.
pub fn measured(program: &Path) -> anyhow::Result<Command> {
    let Some([_, cpu]) = cpus() else { return Ok(Command::new(program)) };
    let mut command = Command::new(std::env::current_exe()?);
    command.args(["pinned", "--cpu", &cpu.to_string(), "--"]).arg(program);
    Ok(command)
}

/// Becomes another program on a CPU, with the same process id.
///
/// # Errors
/// If the CPU cannot be had, or the program cannot be started.
pub fn become_pinned(cpu: usize, command: &[OsString]) -> anyhow::Result<()> {
    pin(cpu).with_context(|| format!("pinning to CPU {cpu}"))?;
    let (program, arguments) = command.split_first().context("which program?")?;
    Err(Command::new(program).args(arguments).exec())
        .with_context(|| format!("starting {}", program.display()))
}
