//! `mtctl down`: ends the `mtctl up` of this machine and waits until it has.

use std::{path::Path, time::Duration};

use rustix::process::{Pid, Signal, kill_process};

use super::Context;
use crate::{
    args::DownArgs,
    endpoint::{self, Record},
    output::{Exit, Failure},
};

const POLL: Duration = Duration::from_millis(50);

pub async fn run(context: &Context, args: &DownArgs) -> Result<Exit, Failure> {
    let dir = endpoint::data_dir(&context.global)?;
    // The lock proves that the recorded process lives and is an `mtctl up`.
    let Some(record) = endpoint::running(&dir) else {
        return Err(Failure::new(Exit::No, format!("nothing runs on {}", dir.display()))
            .try_this("mtctl down --data-dir DIR, if it was started with one"));
    };
    stop(&record)?;
    if !ended(&dir, args.wait).await {
        return Err(Failure::new(Exit::Unreachable, format!("process {} has not ended yet", record.pid))
            .cause(format!("it was asked to {} ago", humantime::format_duration(args.wait)))
            .note("it waits for calls that are under way")
            .try_this("mtctl down --wait 5m"));
    }
    context.output.say(format_args!("stopped process {}", record.pid));
    Ok(Exit::Ok)
}

fn stop(record: &Record) -> Result<(), Failure> {
    let failed = || Failure::new(Exit::Failed, format!("cannot stop process {}", record.pid));
    // 0 and 1 are never ours, and a signal to 0 would reach our whole group.
    let pid = i32::try_from(record.pid).ok().filter(|pid| *pid > 1).and_then(Pid::from_raw);
    let pid = pid.ok_or_else(|| failed().cause("the record is damaged"))?;
    match kill_process(pid, Signal::TERM) {
        Ok(()) | Err(rustix::io::Errno::SRCH) => Ok(()),
        Err(error) => Err(failed().cause(error)),
    }
}

async fn ended(dir: &Path, limit: Duration) -> bool {
    let polls = limit.as_millis() / POLL.as_millis();
    for _ in 0..=polls {
        if endpoint::running(dir).is_none() {
            return true;
        }
        tokio::time::sleep(POLL).await;
    }
    false
}
