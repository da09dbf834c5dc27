//! Decimals of any length, as PostgreSQL has them on the wire: groups of four
//! digits, with where the point is and how many digits are shown behind it.

use std::fmt;

const NEGATIVE: u16 = 0x4000;
const NAN: u16 = 0xC000;
const INFINITE: u16 = 0xD000;
const NEGATIVE_INFINITE: u16 = 0xF000;
/// Digits before and behind the point, each; more the server has not either.
const DIGITS_MAX: usize = 16_000;

/// A number, or one of the things beside the numbers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decimal {
    NaN,
    Infinity {
        negative: bool,
    },
    Finite {
        negative: bool,
        /// Decimal digits before the point, without leading zeros.
        whole: Vec<u8>,
        /// Those behind it, with trailing zeros.
        fraction: Vec<u8>,
    },
}

impl Decimal {
    /// Reads `-12.50`, `1e3` and the like.
    pub fn parse(text: &str) -> Option<Self> {
        let text = text.trim();
        match text.to_ascii_lowercase().as_str() {
            "nan" => return Some(Self::NaN),
            "infinity" | "inf" => return Some(Self::Infinity { negative: false }),
            "-infinity" | "-inf" => return Some(Self::Infinity { negative: true }),
            _ => {}
        }
        let (negative, text) = match text.strip_prefix('-') {
            Some(rest) => (true, rest),
            None => (false, text.strip_prefix('+').unwrap_or(text)),
        };
        let (digits, exponent) = match text.split_once(['e', 'E']) {
            Some((digits, exponent)) => (digits, exponent.parse::<i32>().ok()?),
            None => (text, 0),
        };
        let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
        if whole.is_empty() && fraction.is_empty() {
            return None;
        }
        let digit = |byte: u8| byte.is_ascii_digit().then(|| byte - b'0');
        let mut all = whole.bytes().chain(fraction.bytes()).map(digit).collect::<Option<Vec<u8>>>()?;
        let point = i64::try_from(whole.len()).ok()? + i64::from(exponent);
        let limit = i64::try_from(DIGITS_MAX).ok()?;
        if all.len() > DIGITS_MAX || point.abs() > limit {
            return None;
        }
        if point < 0 {
            all.splice(0..0, std::iter::repeat_n(0, usize::try_from(-point).ok()?));
        }
        let point = usize::try_from(point.max(0)).ok()?;
        if all.len() < point {
            all.resize(point, 0);
        }
        let fraction = all.split_off(point);
        let zeros = all.iter().take_while(|digit| **digit == 0).count();
        Some(Self::Finite { negative, whole: all.split_off(zeros), fraction })
    }

    pub fn read(bytes: &[u8]) -> Option<Self> {
        let fields: Vec<u16> = bytes
            .chunks(2)
            .map(|pair| Some(u16::from_be_bytes(pair.try_into().ok()?)))
            .collect::<Option<_>>()?;
        let [count, weight, sign, shown, groups @ ..] = fields.as_slice() else { return None };
        match *sign {
            NAN => return Some(Self::NaN),
            INFINITE => return Some(Self::Infinity { negative: false }),
            NEGATIVE_INFINITE => return Some(Self::Infinity { negative: true }),
            0 | NEGATIVE => {}
            _ => return None,
        }
        if groups.len() != usize::from(*count) {
            return None;
        }
        // The first group stands for its value times ten thousand to this power.
        let weight = i32::from(weight.cast_signed());
        let group = |at: i32| {
            let index = usize::try_from(weight - at).ok();
            index.and_then(|index| groups.get(index)).copied().unwrap_or(0)
        };
        let digits = |groups: &mut dyn Iterator<Item = u16>| -> Vec<u8> {
            let each = |group: u16| [group / 1_000, group / 100 % 10, group / 10 % 10, group % 10];
            groups.flat_map(each).map(|digit| u8::try_from(digit).unwrap_or(9)).collect()
        };
        let mut whole = digits(&mut (0..=weight).rev().map(group));
        whole.drain(..whole.iter().take_while(|digit| **digit == 0).count());
        let shown = usize::from(*shown);
        let behind = i32::try_from(shown.div_ceil(4)).ok()?;
        let mut fraction = digits(&mut (1..=behind).map(|at| group(-at)));
        fraction.truncate(shown);
        Some(Self::Finite { negative: *sign == NEGATIVE, whole, fraction })
    }

    pub fn write(&self) -> Vec<u8> {
        let (sign, whole, fraction) = match self {
            Self::NaN => (NAN, &[][..], &[][..]),
            Self::Infinity { negative: false } => (INFINITE, &[][..], &[][..]),
            Self::Infinity { negative: true } => (NEGATIVE_INFINITE, &[][..], &[][..]),
            Self::Finite { negative, whole, fraction } => {
                (if *negative { NEGATIVE } else { 0 }, whole.as_slice(), fraction.as_slice())
            }
        };
        let mut digits = vec![0; whole.len().next_multiple_of(4) - whole.len()];
        digits.extend_from_slice(whole);
        let before = digits.len() / 4;
        digits.extend_from_slice(fraction);
        digits.resize(digits.len().next_multiple_of(4), 0);
        let value = |four: &[u8]| four.iter().fold(0u16, |value, digit| value * 10 + u16::from(*digit));
        let mut groups: Vec<u16> = digits.chunks(4).map(value).collect();
        let zeros = groups.iter().take_while(|group| **group == 0).count();
        groups.drain(..zeros);
        let weight = i16::try_from(before).unwrap_or(i16::MAX) - 1 - i16::try_from(zeros).unwrap_or(i16::MAX);
        let count = u16::try_from(groups.len()).unwrap_or(u16::MAX);
        let shown = u16::try_from(fraction.len()).unwrap_or(u16::MAX);
        let weight = if groups.is_empty() { 0 } else { weight.cast_unsigned() };
        let head = [count, weight, sign, shown];
        head.iter().chain(&groups).flat_map(|field| field.to_be_bytes()).collect()
    }

    /// From the first digit that is not 0 to the last. None: it is no number.
    pub fn significant_digits(&self) -> Option<usize> {
        let Self::Finite { whole, fraction, .. } = self else { return None };
        let all: Vec<u8> = whole.iter().chain(fraction).copied().collect();
        let first = all.iter().position(|digit| *digit != 0).unwrap_or(all.len());
        let last = all.iter().rposition(|digit| *digit != 0).map_or(first, |last| last + 1);
        Some(last - first)
    }
}

impl fmt::Display for Decimal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (negative, whole, fraction) = match self {
            Self::NaN => return f.write_str("NaN"),
            Self::Infinity { negative: false } => return f.write_str("Infinity"),
            Self::Infinity { negative: true } => return f.write_str("-Infinity"),
            Self::Finite { negative, whole, fraction } => (negative, whole, fraction),
        };
        let text = |digits: &[u8]| digits.iter().map(|digit| char::from(b'0' + digit)).collect::<String>();
        let sign = if *negative { "-" } else { "" };
        let whole = if whole.is_empty() { "0".to_owned() } else { text(whole) };
        match fraction.is_empty() {
            true => write!(f, "{sign}{whole}"),
            false => write!(f, "{sign}{whole}.{}", text(fraction)),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn decimals_are_read_as_people_write_them() {
        let check = |text: &str, expected: Option<&str>| {
            let read = Decimal::parse(text).map(|decimal| decimal.to_string());
            assert_eq!(read.as_deref(), expected, "{text}");
        };
        check("0", Some("0"));
        check("-12.50", Some("-12.50"));
        check("+007", Some("7"));
        check(".5", Some("0.5"));
        check("1e3", Some("1000"));
        check("12.34e1", Some("123.4"));
        check("15e-3", Some("0.015"));
        check("NaN", Some("NaN"));
        check("-Infinity", Some("-Infinity"));
        for wrong in ["", ".", "-", "1.2.3", "1a", "e5", "0x10", "1e99999999", "1 or 1"] {
            check(wrong, None);
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(text in "-?[1-9][0-9]{0,30}(\\.[0-9]{1,30})?|0\\.0{0,9}[1-9]") {
            let decimal = Decimal::parse(&text).unwrap();
            prop_assert_eq!(decimal.to_string(), text);
            prop_assert_eq!(Decimal::read(&decimal.write()), Some(decimal));
        }

        #[test]
        fn no_bytes_of_a_peer_do_harm(bytes in proptest::collection::vec(any::<u8>(), 0..40)) {
            if let Some(decimal) = Decimal::read(&bytes) {
                _ = decimal.to_string();
            }
        }
    }
}
