//! The figures that were promised, beside those that were measured. Pure.

use super::{Bound, Section};
use crate::{
    stats::short,
    targets::{BACKEND, FLOOR, NGINX},
};

/// One line of the budget.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Line {
    Cpu16,
    Cpu128,
    Cpu16ToNginx,
    Instructions,
    InstructionsModern,
    OneCore,
    P50Added,
    Cpu64K,
    Instructions64K,
    CpuEvent,
    ManySessions,
    RssIdle,
    RssSession,
    RssStream,
    StartUp,
    BigList,
}

const LINES: &[Line] = &[
    Line::Cpu16,
    Line::Cpu128,
    Line::Cpu16ToNginx,
    Line::Instructions,
    Line::InstructionsModern,
    Line::OneCore,
    Line::P50Added,
    Line::Cpu64K,
    Line::Instructions64K,
    Line::CpuEvent,
    Line::ManySessions,
    Line::RssIdle,
    Line::RssSession,
    Line::RssStream,
    Line::StartUp,
    Line::BigList,
];

impl Line {
    pub const fn what(self) -> &'static str {
        match self {
            Self::Cpu16 => "small call, C=16: CPU, µs",
            Self::Cpu128 => "small call, C=128: CPU, µs",
            Self::Cpu16ToNginx => "small call, C=16: CPU / nginx",
            Self::Instructions => "small call, session: instructions, 1,000",
            Self::InstructionsModern => "small call, stateless: instructions, 1,000",
            Self::OneCore => "small calls a second on one core (of the CPU at C=128)",
            Self::P50Added => "small call, C=1: p50 added, µs",
            Self::Cpu64K => "call of 64 KiB, C=16: CPU, µs",
            Self::Instructions64K => "call of 64 KiB: instructions, 1,000",
            Self::CpuEvent => "SSE event: CPU, µs",
            Self::ManySessions => "CPU at 512 sessions / at 128",
            Self::RssIdle => "resident memory, idle, MiB",
            Self::RssSession => "of an idle session, KiB",
            Self::RssStream => "of an open GET stream, KiB",
            Self::StartUp => "start to the first HTTP answer, ms",
            Self::BigList => "list of 1,000 tools over 10 backends: CPU, ms",
        }
    }

    /// Good, and excellent.
    const fn bounds(self) -> (Bound, Bound) {
        use Bound::{AtLeast, AtMost};
        match self {
            Self::Cpu16 | Self::Cpu128 => (AtMost(30.0), AtMost(22.0)),
            Self::Cpu16ToNginx => (AtMost(2.0), AtMost(1.5)),
            Self::Instructions | Self::InstructionsModern => (AtMost(110.0), AtMost(75.0)),
            Self::OneCore => (AtLeast(33_000.0), AtLeast(45_000.0)),
            Self::P50Added => (AtMost(60.0), AtMost(45.0)),
            Self::Cpu64K => (AtMost(130.0), AtMost(100.0)),
            Self::Instructions64K => (AtMost(800.0), AtMost(420.0)),
            Self::CpuEvent => (AtMost(6.0), AtMost(3.0)),
            Self::ManySessions => (AtMost(1.3), AtMost(1.15)),
            Self::RssIdle => (AtMost(20.0), AtMost(10.0)),
            Self::RssSession => (AtMost(2.0), AtMost(1.0)),
            Self::RssStream => (AtMost(30.0), AtMost(10.0)),
            Self::StartUp => (AtMost(100.0), AtMost(20.0)),
            Self::BigList => (AtMost(1.0), AtMost(0.15)),
        }
    }

    fn verdict(self, value: f64) -> &'static str {
        let (good, excellent) = self.bounds();
        match () {
            () if excellent.holds(value) => "excellent",
            () if good.holds(value) => "good",
            () => "**over**",
        }
    }
}

/// The whole budget; none if nothing of it was measured.
pub fn section(figures: &[(Line, String, f64)], ours: &str) -> Option<Section> {
    let of = |line: Line, target: &str| {
        figures.iter().find(|(l, t, _)| *l == line && t == target).map(|(_, _, value)| *value)
    };
    let mut section = Section::new(
        "Budget",
        &["what", "ours", "backend", "minimal proxy", "nginx", "good", "excellent", "verdict"],
    );
    let mut any = false;
    for &line in LINES {
        let Some(value) = of(line, ours) else { continue };
        any = true;
        let shown = |target| of(line, target).map_or("–".to_owned(), short);
        let (good, excellent) = line.bounds();
        section.row([
            line.what().to_owned(),
            short(value),
            shown(BACKEND),
            shown(FLOOR),
            shown(NGINX),
            good.text(),
            excellent.text(),
            line.verdict(value).to_owned(),
        ]);
    }
    any.then_some(section)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_figure_is_judged_by_its_line() {
        assert_eq!(Line::Cpu16.verdict(21.9), "excellent");
        assert_eq!(Line::Cpu16.verdict(30.0), "good");
        assert_eq!(Line::OneCore.verdict(32_000.0), "**over**");
        assert_eq!(Line::OneCore.verdict(50_000.0), "excellent");
        for &line in LINES {
            let (good, excellent) = line.bounds();
            let bound = match excellent {
                Bound::AtMost(limit) | Bound::AtLeast(limit) => limit,
            };
            assert!(good.holds(bound), "{}", line.what());
        }
    }

    #[test]
    fn only_what_was_measured_is_shown() {
        assert!(section(&[], "node").is_none());
        assert!(section(&[(Line::Cpu16, "nginx".into(), 15.0)], "node").is_none());
        let figures = [(Line::Cpu16, "nginx".into(), 15.0), (Line::Cpu16, "node".into(), 25.0)];
        let section = section(&figures, "node").unwrap();
        assert_eq!(section.rows.len(), 1);
        assert_eq!(section.rows[0][1..5], ["25.0", "–", "–", "15.0"]);
    }
}
