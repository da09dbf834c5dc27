//! What processes have used, from /proc.

use std::{fs, ops::Sub, time::Duration};

use anyhow::Context;

/// Linux counts CPU time in these, whatever the machine (`USER_HZ`).
const TICKS_PER_SECOND: u64 = 100;

/// CPU time.
#[derive(Clone, Copy, Debug, Default)]
pub struct Usage {
    pub user: Duration,
    pub system: Duration,
    /// Of both, what the process itself has used, without those it has started.
    pub own: Duration,
}

impl Usage {
    pub fn all(self) -> Duration {
        self.user + self.system
    }
}

impl Sub for Usage {
    type Output = Self;

    fn sub(self, before: Self) -> Self {
        Self {
            user: self.user.saturating_sub(before.user),
            system: self.system.saturating_sub(before.system),
            own: self.own.saturating_sub(before.own),
        }
    }
}

/// CPU time of a process and of all that it has started, ended ones among them.
///
/// # Errors
/// If the process has ended.
pub fn usage(pid: u32) -> anyhow::Result<Usage> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).context("the process has ended")?;
    let mut sum = times(&stat).context("/proc/PID/stat has another form")?;
    for child in descendants(pid) {
        // One that has ended just now is counted with its parent next time.
        let Ok(stat) = fs::read_to_string(format!("/proc/{child}/stat")) else { continue };
        if let Some(more) = times(&stat) {
            sum.user += more.user;
            sum.system += more.system;
        }
    }
    Ok(sum)
}

/// The times in a line of /proc/PID/stat, with those of children that were
/// waited for.
fn times(stat: &str) -> Option<Usage> {
    // The name is in parentheses and may hold anything.
    let (_, fields) = stat.rsplit_once(')')?;
    let mut ticks = fields.split_whitespace().skip(11).map_while(|t| t.parse::<u64>().ok());
    let mut next = || Some(Duration::from_millis(ticks.next()? * 1000 / TICKS_PER_SECOND));
    let (user, system, child_user, child_system) = (next()?, next()?, next()?, next()?);
    Some(Usage { user: user + child_user, system: system + child_system, own: user + system })
}

fn descendants(pid: u32) -> Vec<u32> {
    let mut found = Vec::new();
    let mut open = vec![pid];
    while let Some(parent) = open.pop() {
        let Ok(threads) = fs::read_dir(format!("/proc/{parent}/task")) else { continue };
        for thread in threads.flatten() {
            let children = fs::read_to_string(thread.path().join("children")).unwrap_or_default();
            let children = children.split_whitespace().filter_map(|child| child.parse::<u32>().ok());
            for child in children {
                found.push(child);
                open.push(child);
            }
        }
    }
    found
}

/// Resident memory of a process and of all that it has started, in KiB.
///
/// # Errors
/// If the process has ended.
pub fn rss_kib(pid: u32) -> anyhow::Result<u64> {
    let own = resident(pid).context("the process has ended")?;
    Ok(own + descendants(pid).into_iter().filter_map(resident).sum::<u64>())
}

fn resident(pid: u32) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find(|line| line.starts_with("VmRSS:"))?;
    line.split_whitespace().nth(1)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_parentheses_does_not_shift_the_times() {
        let stat = "7 (a) b (c)) S 1 7 7 0 -1 4194304 100 0 0 0 150 50 20 10 20 0 1 0 5 1 1";
        let usage = times(stat).unwrap();
        assert_eq!((usage.user.as_millis(), usage.system.as_millis()), (1700, 600));
        assert_eq!(usage.own.as_millis(), 2000);
    }

    #[test]
    fn a_child_counts_towards_its_parent() {
        let own = rss_kib(std::process::id()).unwrap();
        let mut child = std::process::Command::new("sleep").arg("5").spawn().unwrap();
        assert!(descendants(std::process::id()).contains(&child.id()));
        assert!(own > 0);
        child.kill().unwrap();
        child.wait().unwrap();
    }
}
