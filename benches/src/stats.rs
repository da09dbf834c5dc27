//! What many measured values come to. Pure.

use std::time::Duration;

/// Times of answers, in the order of their lengths.
#[derive(Clone, Debug, Default)]
pub struct Times(Vec<Duration>);

impl Times {
    pub fn new(mut times: Vec<Duration>) -> Self {
        times.sort_unstable();
        Self(times)
    }

    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// The smallest time that so many of a thousand do not exceed; nothing is
    /// interpolated. Zero if there are none.
    pub fn per_mille(&self, quantile: u32) -> Duration {
        let rank = (self.0.len() * quantile as usize).div_ceil(1000).max(1);
        self.0.get(rank - 1).copied().unwrap_or_default()
    }
}

/// The middle value, the upper one of two. Zero if there are none.
pub fn median(values: impl IntoIterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.into_iter().collect();
    values.sort_unstable_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(0.0)
}

/// How often the second goes into the first; zero if the second is zero.
pub fn ratio(of: f64, to: f64) -> f64 {
    if to > 0.0 { of / to } else { 0.0 }
}

/// Microseconds, as a number that tables show.
pub fn micros(time: Duration) -> f64 {
    time.as_secs_f64() * 1e6
}

/// With as many digits as can be told apart: three, or all before the point.
pub fn short(value: f64) -> String {
    match value.abs() {
        0.0 => "0".to_owned(),
        v if v >= 99.95 => with_commas(value.round()),
        v if v >= 9.995 => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}

fn with_commas(value: f64) -> String {
    let digits = format!("{:.0}", value.abs());
    let mut text = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place) % 3 == 0 {
            text.push(',');
        }
        text.push(digit);
    }
    if value < 0.0 { format!("-{text}") } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quantile_is_a_time_that_was_measured() {
        let times = Times::new((1..=1000).rev().map(Duration::from_micros).collect());
        assert_eq!(times.per_mille(500), Duration::from_micros(500));
        assert_eq!(times.per_mille(990), Duration::from_micros(990));
        assert_eq!(times.per_mille(999), Duration::from_micros(999));
        let one = Times::new(vec![Duration::from_micros(3)]);
        assert_eq!((one.per_mille(1), one.per_mille(1000)), (one.per_mille(500), one.per_mille(500)));
        assert_eq!(Times::default().per_mille(500), Duration::ZERO);
    }

    #[test]
    fn the_median_of_two_is_the_larger() {
        assert_eq!(median([3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median([1.0, 2.0]), 2.0);
        assert_eq!(median([]), 0.0);
    }

    #[test]
    fn figures_keep_three_digits() {
        let shown = [0.0, 0.123, 9.99, 12.34, 99.96, 1234.4, 1_234_567.0, -1234.0].map(short);
        assert_eq!(shown, ["0", "0.12", "9.99", "12.3", "100", "1,234", "1,234,567", "-1,234"]);
    }
}
