//! Values as PostgreSQL sends them, as JSON.
//!
//! What JSON has, it becomes; dates and times are texts by RFC 3339, bytes are
//! base64, and a decimal that a double cannot hold is a text.

use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use chrono::{DateTime, NaiveDate, NaiveTime, SecondsFormat, TimeDelta};
use serde_json::{Number, Value};
use sqlx::{
    TypeInfo as _,
    postgres::{PgTypeInfo, PgTypeKind},
};
use uuid::Uuid;

use super::decimal::Decimal;

/// What can be read here; the rest the server converts.
const KNOWN: [&str; 26] = [
    "BOOL",
    "INT2",
    "INT4",
    "INT8",
    "OID",
    "FLOAT4",
    "FLOAT8",
    "NUMERIC",
    "TEXT",
    "VARCHAR",
    "CHAR",
    "\"CHAR\"",
    "NAME",
    "UNKNOWN",
    "citext",
    "xml",
    "BYTEA",
    "UUID",
    "DATE",
    "TIME",
    "TIMETZ",
    "TIMESTAMP",
    "TIMESTAMPTZ",
    "JSON",
    "JSONB",
    "VOID",
];
/// Dimensions of an array, as the server has it.
const DIMENSIONS_MAX: usize = 6;
const MICROS_PER_SECOND: i64 = 1_000_000;
/// 2000-01-01, where PostgreSQL's time begins, in that of Unix.
const EPOCH_SECONDS: i64 = 946_684_800;
const EPOCH_DAYS: i64 = EPOCH_SECONDS / 86_400;

pub fn is_known(kind: &PgTypeInfo) -> bool {
    // Of a type that could not be looked up nothing more may be asked.
    if kind.name() == "?" {
        return false;
    }
    match kind.kind() {
        PgTypeKind::Array(element) | PgTypeKind::Domain(element) => is_known(element),
        PgTypeKind::Enum(_) => true,
        PgTypeKind::Simple | PgTypeKind::Pseudo => KNOWN.contains(&kind.name()),
        PgTypeKind::Composite(_) | PgTypeKind::Range(_) => false,
    }
}

/// A value that is there. None: it is not what its type says.
pub fn read(kind: &PgTypeInfo, bytes: &[u8]) -> Option<Value> {
    match kind.kind() {
        PgTypeKind::Domain(base) => return read(base, bytes),
        PgTypeKind::Array(element) => return array(element, bytes),
        PgTypeKind::Enum(_) => return text(bytes),
        _ => {}
    }
    Some(match kind.name() {
        "BOOL" => (*bytes.first()? != 0).into(),
        "INT2" => i16::from_be_bytes(bytes.try_into().ok()?).into(),
        "INT4" => int4(bytes)?.into(),
        "INT8" => int8(bytes)?.into(),
        "OID" => u32::from_be_bytes(bytes.try_into().ok()?).into(),
        "FLOAT4" => single(f32::from_be_bytes(bytes.try_into().ok()?)),
        "FLOAT8" => double(f64::from_be_bytes(bytes.try_into().ok()?)),
        "NUMERIC" => numeric(&Decimal::read(bytes)?),
        "BYTEA" => BASE64.encode(bytes).into(),
        "UUID" => Uuid::from_slice(bytes).ok()?.to_string().into(),
        "DATE" => date(int4(bytes)?)?,
        "TIME" => time(int8(bytes)?)?.into(),
        "TIMETZ" => {
            let (micros, west) = bytes.split_at_checked(8)?;
            format!("{}{}", time(int8(micros)?)?, offset(int4(west)?.checked_neg()?)).into()
        }
        "TIMESTAMP" => timestamp(int8(bytes)?, false)?,
        "TIMESTAMPTZ" => timestamp(int8(bytes)?, true)?,
        "JSON" => serde_json::from_slice(bytes).ok()?,
        // Its first byte is a version.
        "JSONB" => serde_json::from_slice(bytes.get(1..)?).ok()?,
        "VOID" => Value::Null,
        _ => return text(bytes),
    })
}

fn text(bytes: &[u8]) -> Option<Value> {
    Some(String::from_utf8_lossy(bytes).into_owned().into())
}

fn int4(bytes: &[u8]) -> Option<i32> {
    Some(i32::from_be_bytes(bytes.try_into().ok()?))
}

fn int8(bytes: &[u8]) -> Option<i64> {
    Some(i64::from_be_bytes(bytes.try_into().ok()?))
}

fn double(value: f64) -> Value {
    match Number::from_f64(value) {
        Some(number) => number.into(),
        None if value.is_nan() => "NaN".into(),
        None if value > 0.0 => "Infinity".into(),
        None => "-Infinity".into(),
    }
}

/// By its shortest text: as a double, 0.1 would be 0.10000000149011612.
fn single(value: f32) -> Value {
    value.to_string().parse().map_or_else(|_| double(f64::from(value)), double)
}

fn numeric(decimal: &Decimal) -> Value {
    let text = decimal.to_string();
    if let Ok(whole) = text.parse::<i64>() {
        return whole.into();
    }
    // A double holds 15 digits exactly, whichever they are.
    let exact = decimal.significant_digits().is_some_and(|digits| digits <= 15);
    match text.parse::<f64>().ok().and_then(Number::from_f64) {
        Some(number) if exact => number.into(),
        _ => text.into(),
    }
}

fn date(days: i32) -> Option<Value> {
    match days {
        i32::MAX => Some("infinity".into()),
        i32::MIN => Some("-infinity".into()),
        days => {
            let days = TimeDelta::try_days(EPOCH_DAYS + i64::from(days))?;
            let date = NaiveDate::from_ymd_opt(1970, 1, 1)?.checked_add_signed(days)?;
            Some(date.to_string().into())
        }
    }
}

fn time(micros: i64) -> Option<String> {
    let (seconds, micros) = (micros.div_euclid(MICROS_PER_SECOND), micros.rem_euclid(MICROS_PER_SECOND));
    if seconds == 86_400 {
        return Some("24:00:00".to_owned());
    }
    let nanos = u32::try_from(micros).ok()? * 1_000;
    let time = NaiveTime::from_num_seconds_from_midnight_opt(u32::try_from(seconds).ok()?, nanos)?;
    Some(time.format("%H:%M:%S%.f").to_string())
}

fn offset(east_seconds: i32) -> String {
    let (sign, seconds) = (if east_seconds < 0 { '-' } else { '+' }, east_seconds.unsigned_abs());
    format!("{sign}{:02}:{:02}", seconds / 3_600, seconds / 60 % 60)
}

fn timestamp(micros: i64, zoned: bool) -> Option<Value> {
    match micros {
        i64::MAX => return Some("infinity".into()),
        i64::MIN => return Some("-infinity".into()),
        _ => {}
    }
    let at = DateTime::from_timestamp_micros(micros.checked_add(EPOCH_SECONDS * MICROS_PER_SECOND)?)?;
    let text = match zoned {
        true => at.to_rfc3339_opts(SecondsFormat::AutoSi, true),
        false => at.naive_utc().format("%Y-%m-%dT%H:%M:%S%.f").to_string(),
    };
    Some(text.into())
}

/// Number of dimensions, whether there are nulls, the type; length and first
/// index of each; then the elements, each with its length.
fn array(element: &PgTypeInfo, bytes: &[u8]) -> Option<Value> {
    let mut rest = bytes;
    let dimensions = usize::try_from(take(&mut rest)?).ok()?;
    let (_nulls, _kind) = (take(&mut rest)?, take(&mut rest)?);
    if dimensions == 0 {
        return Some(Value::Array(Vec::new()));
    }
    if dimensions > DIMENSIONS_MAX {
        return None;
    }
    let mut lengths = Vec::with_capacity(dimensions);
    for _ in 0..dimensions {
        lengths.push(usize::try_from(take(&mut rest)?).ok()?);
        take(&mut rest)?;
    }
    elements(element, &lengths, &mut rest)
}

fn elements(element: &PgTypeInfo, lengths: &[usize], rest: &mut &[u8]) -> Option<Value> {
    let Some((length, inner)) = lengths.split_first() else {
        let length = take(rest)?;
        if length < 0 {
            return Some(Value::Null);
        }
        let (bytes, after) = rest.split_at_checked(usize::try_from(length).ok()?)?;
        *rest = after;
        return read(element, bytes);
    };
    (0..*length).map(|_| elements(element, inner, rest)).collect::<Option<Vec<_>>>().map(Value::Array)
}

fn take(rest: &mut &[u8]) -> Option<i32> {
    let (head, tail) = rest.split_first_chunk::<4>()?;
    *rest = tail;
    Some(i32::from_be_bytes(*head))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_cut_off_is_no_value() {
        let kind = PgTypeInfo::with_name("INT4");
        assert!(array(&kind, &[0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 23, 0, 0, 0, 9, 0, 0, 0, 1]).is_none());
        assert!(array(&kind, &[0, 0, 0]).is_none());
        assert!(array(&kind, &[0x7f, 0xff, 0xff, 0xff, 0, 0, 0, 0, 0, 0, 0, 23]).is_none());
    }

    #[test]
    fn times_are_those_of_rfc_3339() {
        assert_eq!(timestamp(0, true).unwrap(), "2000-01-01T00:00:00Z");
        assert_eq!(timestamp(-1, false).unwrap(), "1999-12-31T23:59:59.999999");
        assert_eq!(timestamp(i64::MAX, true).unwrap(), "infinity");
        assert_eq!(date(-1).unwrap(), "1999-12-31");
        assert_eq!(time(86_399_500_000).unwrap(), "23:59:59.500");
        assert_eq!(offset(-5_400), "-01:30");
    }
}
