//! Counts each part under valgrind and compares with what was counted before.
//!
//! The file is written by `UPDATE=1`, never by hand, and says by which rustc and
//! valgrind: another compiler makes other instructions.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Command, ExitCode};

use serde::{Deserialize, Serialize};

use crate::parts::{self, Part};

/// What a part may cost, of what it cost when the file was written.
const RATIO_MAX: f64 = 1.05;
/// Below this, the file should be written anew, so that the gain is kept.
const RATIO_GAIN: f64 = 0.95;
/// Valgrind runs at once: it has one thread of its own each.
const RUNS: usize = 2;

const FILE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/benches/counts.json");

#[derive(Serialize, Deserialize)]
struct Counts {
    rustc: String,
    valgrind: String,
    /// Whose it is: the C library chooses its vector code by that.
    processor: String,
    /// Instructions for one time.
    instructions: BTreeMap<String, u64>,
}

pub fn compare() -> ExitCode {
    let found = count_all();
    print_table(&found);
    if std::env::var_os("UPDATE").is_some_and(|update| update == "1") {
        let text = serde_json::to_string_pretty(&found).expect("plain maps are JSON");
        std::fs::write(FILE, text + "\n").expect("counts.json can be written");
        println!("written to {FILE}");
        return ExitCode::SUCCESS;
    }
    if !Path::new(FILE).exists() {
        println!("there is no counts.json yet: run again with UPDATE=1 to write it");
        return ExitCode::FAILURE;
    }
    let text = std::fs::read_to_string(FILE).expect("counts.json can be read");
    let before: Counts = serde_json::from_str(&text).expect("counts.json was written by UPDATE=1");
    let mut comparable = true;
    for (what, before, now) in [
        ("rustc", &before.rustc, &found.rustc),
        ("valgrind", &before.valgrind, &found.valgrind),
        ("processor", &before.processor, &found.processor),
    ] {
        if before != now {
            println!("counts.json was written with {what} {before}, and this is {now}: not compared");
            comparable = false;
        }
    }
    if !comparable {
        return ExitCode::SUCCESS;
    }
    verdict(&before.instructions, &found.instructions)
}

fn verdict(before: &BTreeMap<String, u64>, found: &BTreeMap<String, u64>) -> ExitCode {
    let mut failed = false;
    for (name, now) in found {
        let Some(was) = before.get(name) else {
            println!("FAIL {name} is not in counts.json");
            failed = true;
            continue;
        };
        let ratio = *now as f64 / *was as f64;
        let change = (ratio - 1.0) * 100.0;
        if ratio > RATIO_MAX {
            println!("FAIL {name} takes {now} instructions, {change:+.1} % against {was}");
            failed = true;
        } else if ratio < RATIO_GAIN {
            println!("gain {name} takes {now} instructions, {change:+.1} % against {was}");
        }
    }
    for name in before.keys().filter(|name| !found.contains_key(*name)) {
        println!("FAIL {name} is in counts.json, but is no part");
        failed = true;
    }
    if failed {
        println!(
            "to accept: UPDATE=1 cargo bench -p mt-mcp --bench counts -- compare, and say why in the commit"
        );
        return ExitCode::FAILURE;
    }
    println!("no part takes more than {RATIO_MAX} of what it took");
    ExitCode::SUCCESS
}

fn print_table(counts: &Counts) {
    println!("{:<28} {:>12} {:>8}", "part", "instructions", "a byte");
    for part in parts::all() {
        let count = counts.instructions[part.name];
        let a_byte = (part.bytes > 0).then(|| format!("{:.2}", count as f64 / part.bytes as f64));
        println!("{:<28} {count:>12} {:>8}", part.name, a_byte.unwrap_or_default());
    }
}

fn count_all() -> Counts {
    let share = |first| {
        move || {
            let parts = parts::all().into_iter().skip(first).step_by(RUNS);
            parts.map(|part| (part.name.to_owned(), count(&part))).collect::<Vec<_>>()
        }
    };
    let instructions = std::thread::scope(|scope| {
        let runs: Vec<_> = (0..RUNS).map(|first| scope.spawn(share(first))).collect();
        runs.into_iter().flat_map(|run| run.join().expect("every part can be counted")).collect()
    });
    Counts { rustc: version("rustc"), valgrind: version("valgrind"), processor: processor(), instructions }
}

fn processor() -> String {
    let text = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let vendor = text.lines().find_map(|line| line.strip_prefix("vendor_id")?.split_once(':'));
    vendor.map_or("unknown", |(_, name)| name.trim()).to_owned()
}

/// Instructions for one time: the difference of two runs, divided.
fn count(part: &Part) -> u64 {
    // Few for the long ones; enough of the short ones that what differs from
    // run to run (addresses, hence the allocator) is nothing beside it.
    let times = if part.bytes > 4096 { 20 } else { 2000 };
    let (few, many) = (instructions(part.name, times), instructions(part.name, 3 * times));
    (many - few) / (2 * times)
}

fn instructions(part: &str, times: u64) -> u64 {
    let program = std::env::current_exe().expect("this program has a path");
    let output = Command::new("valgrind")
        .args(["--tool=cachegrind", "--cache-sim=no", "--cachegrind-out-file=/dev/null"])
        .arg(program)
        .args(["run", part, &times.to_string()])
        .output()
        .expect("valgrind is installed (tests/setup.sh does)");
    let log = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{part} failed under valgrind:\n{log}");
    let total = log.lines().find_map(|line| line.split_once("I   refs:").or(line.split_once("I refs:")));
    let total = total.unwrap_or_else(|| panic!("valgrind counts nothing:\n{log}")).1;
    total.replace(',', "").trim().parse().expect("valgrind counts in numbers")
}

/// The number in what `program --version` says.
fn version(program: &str) -> String {
    let output = Command::new(program).arg("--version").output().expect("the program is installed");
    let text = String::from_utf8_lossy(&output.stdout);
    let number = text.split([' ', '-', '\n']).find(|word| word.starts_with(|c: char| c.is_ascii_digit()));
    number.unwrap_or_default().to_owned()
}
