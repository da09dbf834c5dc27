//! Times as people say them.

use std::time::{Duration, SystemTime};

use chrono::{DateTime, Utc};
use prost_types::Timestamp;

/// How long ago: `12s`, `3m`, `2h`, `5d`; empty if it is not known. A clock
/// that runs ahead is taken as now.
pub fn age(time: Option<&Timestamp>, now: SystemTime) -> String {
    let Some(then) = time.and_then(system_time) else { return String::new() };
    let age = now.duration_since(then).unwrap_or_default();
    let seconds = age.as_secs();
    match seconds {
        0..=119 => format!("{seconds}s"),
        120..=7199 => format!("{}m", seconds / 60),
        7200..=172_799 => format!("{}h", seconds / 3600),
        _ => format!("{}d", seconds / 86_400),
    }
}

/// For programs: RFC 3339 in UTC; none if it is not known.
pub fn rfc3339(time: Option<&Timestamp>) -> Option<String> {
    let time = time.and_then(system_time)?;
    Some(DateTime::<Utc>::from(time).to_rfc3339_opts(chrono::SecondsFormat::Millis, true))
}

/// Times before 1970 mean that there is none.
fn system_time(time: &Timestamp) -> Option<SystemTime> {
    let seconds = u64::try_from(time.seconds).ok().filter(|seconds| *seconds > 0)?;
    let nanos = u32::try_from(time.nanos).ok().filter(|nanos| *nanos < 1_000_000_000)?;
    SystemTime::UNIX_EPOCH.checked_add(Duration::new(seconds, nanos))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages_grow_in_units() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000);
        for (ago, text) in [(0, "0s"), (119, "119s"), (120, "2m"), (7200, "2h"), (200_000, "2d"), (-5, "0s")]
        {
            let then = Timestamp { seconds: 1_000_000 - ago, nanos: 0 };
            assert_eq!(age(Some(&then), now), text);
        }
        assert_eq!(age(None, now), "");
    }

    #[test]
    fn programs_get_utc() {
        let time = Timestamp { seconds: 1_700_000_000, nanos: 5_000_000 };
        assert_eq!(rfc3339(Some(&time)).as_deref(), Some("2023-11-14T22:13:20.005Z"));
        assert_eq!(rfc3339(Some(&Timestamp { seconds: -1, nanos: 0 })), None);
    }
}
