//! Durations as people write them: `30s`, `500ms`, `1m30s`.

use prost_types::Duration;

const NANOS_PER_SECOND: u128 = 1_000_000_000;
/// The most that a protobuf duration may be, about 10000 years.
const SECONDS_MAX: i64 = 315_576_000_000;
/// Of one number: enough for every duration, and never too much for a `u128`.
const DIGITS_MAX: usize = 18;

/// What a unit is in nanoseconds.
fn unit_nanos(unit: &str) -> Option<u128> {
    Some(match unit {
        "ns" => 1,
        "us" | "µs" => 1_000,
        "ms" => 1_000_000,
        "s" => NANOS_PER_SECOND,
        "m" => 60 * NANOS_PER_SECOND,
        "h" => 3600 * NANOS_PER_SECOND,
        _ => return None,
    })
}

/// Reads a duration; none, if it is not one or has no unit.
pub fn parse(text: &str) -> Option<Duration> {
    let mut nanos = 0u128;
    let mut rest = text;
    while !rest.is_empty() || text.is_empty() {
        let number_end = rest.find(|c: char| !(c.is_ascii_digit() || c == '.'))?;
        let (number, tail) = rest.split_at(number_end);
        let unit_end = tail.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(tail.len());
        let (unit, tail) = tail.split_at(unit_end);
        let unit = unit_nanos(unit)?;
        let (whole, fraction) = number.split_once('.').unwrap_or((number, "0"));
        if whole.is_empty() || fraction.is_empty() || whole.len() > DIGITS_MAX || fraction.len() > 9 {
            return None;
        }
        let scale = 10u128.pow(u32::try_from(fraction.len()).ok()?);
        nanos += whole.parse::<u128>().ok()? * unit + fraction.parse::<u128>().ok()? * unit / scale;
        rest = tail;
    }
    let seconds = i64::try_from(nanos / NANOS_PER_SECOND).ok().filter(|s| *s <= SECONDS_MAX)?;
    let nanos = i32::try_from(nanos % NANOS_PER_SECOND).ok()?;
    Some(Duration { seconds, nanos })
}

/// Writes a duration so that [`parse`] reads the same.
pub fn write(duration: &Duration) -> String {
    let Duration { seconds, nanos } = *duration;
    match (seconds, nanos) {
        (seconds, 0) => format!("{seconds}s"),
        (seconds, nanos) if nanos % 1_000_000 == 0 => {
            format!("{}ms", i128::from(seconds) * 1000 + i128::from(nanos / 1_000_000))
        }
        (seconds, nanos) => format!("{}ns", i128::from(seconds) * 1_000_000_000 + i128::from(nanos)),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn check(text: &str, expected: Option<(i64, i32)>) {
        assert_eq!(parse(text).map(|d| (d.seconds, d.nanos)), expected, "{text}");
    }

    #[test]
    fn durations_read_as_people_mean_them() {
        check("30s", Some((30, 0)));
        check("500ms", Some((0, 500_000_000)));
        check("1m30s", Some((90, 0)));
        check("1.5s", Some((1, 500_000_000)));
        check("2h", Some((7200, 0)));
        check("0s", Some((0, 0)));
        check("", None);
        check("30", None);
        check("s", None);
        check("-1s", None);
        check("1d", None);
        check("1.s", None);
        check("1.2.3s", None);
        check("30 s", None);
        check(&format!("{}s", "9".repeat(18)), None);
    }

    proptest! {
        #[test]
        fn what_is_written_reads_the_same(seconds in 0i64..=1_000_000_000, nanos in 0i32..1_000_000_000, coarse in any::<bool>()) {
            let nanos = if coarse { nanos / 1_000_000 * 1_000_000 } else { nanos };
            let duration = Duration { seconds, nanos };
            prop_assert_eq!(parse(&write(&duration)), Some(duration));
        }

        #[test]
        fn no_text_makes_the_reader_panic(text in any::<String>(), near in "[0-9.hmsnu]{0,40}") {
            let _ = (parse(&text), parse(&near));
        }
    }
}
