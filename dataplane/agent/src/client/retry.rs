//! Whether a request is sent again, and when: decided here without a clock.

use std::time::Duration;

use chrono::{DateTime, Utc};
use http::{HeaderMap, Method, StatusCode, header};

/// Before the second try; twice that before the third, and so on.
const PAUSE_FIRST: Duration = Duration::from_millis(100);
/// Not longer, unless the service asks for it.
const PAUSE_MAX: Duration = Duration::from_secs(5);

/// What has gone wrong with a try.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trouble {
    /// The service has seen nothing of it.
    Unreachable,
    /// It may have had its effect.
    Broken,
    Status {
        status: StatusCode,
        after: Option<Duration>,
    },
}

/// Whether doing it twice is the same as once (RFC 9110 §9.2.2).
pub fn is_idempotent(method: &Method) -> bool {
    matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS | Method::PUT | Method::DELETE)
}

/// How long to wait before the next try; None: it is no use, not safe, or there
/// is no time left for it. `random` is of 0 to 1.
pub fn pause(
    tries: u32,
    trouble: &Trouble,
    repeatable: bool,
    left: Duration,
    random: f64,
) -> Option<Duration> {
    let asked = match *trouble {
        Trouble::Unreachable => None,
        Trouble::Broken if repeatable => None,
        Trouble::Status { status, after }
            if repeatable && matches!(status.as_u16(), 429 | 502 | 503 | 504) =>
        {
            after
        }
        _ => return None,
    };
    let longest = PAUSE_FIRST.saturating_mul(1_u32.checked_shl(tries).unwrap_or(u32::MAX)).min(PAUSE_MAX);
    let jittered = longest.mul_f64(0.5 + random.clamp(0.0, 1.0) / 2.0);
    let pause = asked.map_or(jittered, |asked| asked.max(jittered));
    (pause < left).then_some(pause)
}

/// What `Retry-After` says: seconds, or a date.
pub fn after(headers: &HeaderMap, now: DateTime<Utc>) -> Option<Duration> {
    let text = headers.get(header::RETRY_AFTER)?.to_str().ok()?.trim();
    match text.parse() {
        Ok(seconds) => Some(Duration::from_secs(seconds)),
        Err(_) => {
            let then = DateTime::parse_from_rfc2822(text).ok()?;
            Some((then.to_utc() - now).to_std().unwrap_or(Duration::ZERO))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEFT: Duration = Duration::from_secs(30);

    fn status(status: u16, after: Option<u64>) -> Trouble {
        Trouble::Status {
            status: StatusCode::from_u16(status).unwrap(),
            after: after.map(Duration::from_secs),
        }
    }

    #[test]
    fn only_what_is_safe_and_of_use_is_tried_again() {
        for (trouble, repeatable, again) in [
            (Trouble::Unreachable, false, true),
            (Trouble::Unreachable, true, true),
            (Trouble::Broken, false, false),
            (Trouble::Broken, true, true),
            (status(503, None), true, true),
            (status(503, None), false, false),
            (status(429, None), true, true),
            (status(500, None), true, false),
            (status(404, None), true, false),
        ] {
            assert_eq!(
                pause(0, &trouble, repeatable, LEFT, 0.5).is_some(),
                again,
                "{trouble:?} {repeatable}"
            );
        }
    }

    #[test]
    fn pauses_double_up_to_a_bound_and_are_spread() {
        let of = |tries, random| pause(tries, &Trouble::Unreachable, true, LEFT, random).unwrap();
        assert_eq!(of(0, 1.0), PAUSE_FIRST);
        assert_eq!(of(0, 0.0), PAUSE_FIRST / 2);
        assert_eq!(of(1, 1.0), PAUSE_FIRST * 2);
        assert_eq!(of(40, 1.0), PAUSE_MAX);
    }

    #[test]
    fn the_service_says_when_but_the_deadline_wins() {
        assert_eq!(pause(0, &status(503, Some(7)), true, LEFT, 1.0), Some(Duration::from_secs(7)));
        assert_eq!(pause(0, &status(429, Some(31)), true, LEFT, 1.0), None);
        assert_eq!(pause(0, &status(429, None), true, Duration::from_millis(20), 1.0), None);
    }

    #[test]
    fn retry_after_is_seconds_or_a_date() {
        let now = DateTime::parse_from_rfc3339("2026-11-21T07:00:00Z").unwrap().to_utc();
        let read =
            |text: &str| after(&HeaderMap::from_iter([(header::RETRY_AFTER, text.parse().unwrap())]), now);
        assert_eq!(read("12"), Some(Duration::from_secs(12)));
        assert_eq!(read("Sat, 21 Nov 2026 07:00:05 GMT"), Some(Duration::from_secs(5)));
        assert_eq!(read("Sat, 21 Nov 2026 06:00:00 GMT"), Some(Duration::ZERO));
        assert_eq!(read("soon"), None);
        assert_eq!(read("-1"), None);
    }
}
