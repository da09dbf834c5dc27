//! What each part of the codec costs, in instructions.
//!
//! Time on a shared machine says little; instructions repeat to a fraction of a
//! percent, so a change that makes a part dearer shows at once. Two ways to call:
//!
//! ```text
//! counts run PART TIMES     carries out one part so often, and nothing else
//! counts compare            counts every part and compares with counts.json
//! ```
//!
//! `compare` runs this program under valgrind with two numbers of times and
//! subtracts, so that neither start-up nor preparation count. It fails if a part
//! costs more than [`RATIO_MAX`] of what counts.json says. Called in any other
//! way, each part is carried out once, so that the tests see that it works.

mod compare;
mod parts;

use std::process::ExitCode;

fn main() -> ExitCode {
    // Cargo adds `--bench`.
    let args: Vec<String> = std::env::args().skip(1).filter(|arg| arg != "--bench").collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    match args[..] {
        ["run", part, times] => {
            let part = parts::all().into_iter().find(|known| known.name == part).expect("a known part");
            let times = times.parse().expect("a number of times");
            (part.prepare)()(times);
            ExitCode::SUCCESS
        }
        ["compare"] => compare::compare(),
        // A test runner asks what tests there are.
        ["--list", ..] => ExitCode::SUCCESS,
        _ => {
            for part in parts::all() {
                (part.prepare)()(1);
            }
            ExitCode::SUCCESS
        }
    }
}
