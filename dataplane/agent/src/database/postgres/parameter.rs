//! Values of a call as PostgreSQL wants them: the server has said the types, and
//! a value that is not of its type is refused before anything is run.

use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use chrono::{DateTime, NaiveDate, NaiveDateTime, NaiveTime, Timelike as _};
use serde_json::Value;
use sqlx::{
    Arguments as _, Encode, Postgres, Type, TypeInfo as _,
    encode::IsNull,
    error::BoxDynError,
    postgres::{PgArgumentBuffer, PgArguments, PgTypeInfo, PgTypeKind},
};
use uuid::Uuid;

use super::decimal::Decimal;
use crate::{Failure, Reason};

/// What can be written here; the rest is sent as text and cast.
const KNOWN: [&str; 24] = [
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
    "TIMESTAMP",
    "TIMESTAMPTZ",
    "JSON",
    "JSONB",
];
const DIMENSIONS_MAX: usize = 6;
const EXCERPT_CHARS_MAX: usize = 80;

pub fn is_known(kind: &PgTypeInfo) -> bool {
    // Of a type that could not be looked up nothing more may be asked.
    if kind.name() == "?" {
        return false;
    }
    match kind.kind() {
        PgTypeKind::Array(element) => element.oid().is_some() && is_known(element),
        PgTypeKind::Domain(base) => is_known(base),
        PgTypeKind::Enum(_) => true,
        PgTypeKind::Simple | PgTypeKind::Pseudo => KNOWN.contains(&kind.name()),
        PgTypeKind::Composite(_) | PgTypeKind::Range(_) => false,
    }
}

/// # Errors
/// For the first value that is not of its type.
pub fn bind(types: &[PgTypeInfo], values: &[Value]) -> Result<PgArguments, Failure> {
    let mut arguments = PgArguments::default();
    for (at, (kind, value)) in types.iter().zip(values).enumerate() {
        let wrong = || {
            let shown: String = value.to_string().chars().take(EXCERPT_CHARS_MAX).collect();
            let name = kind.name().to_lowercase();
            let message = format!("value {} of the query must be {name}, and is {shown}", at + 1);
            Failure::new(Reason::InvalidArguments, message)
        };
        let bytes = match value {
            Value::Null => None,
            value => Some(write(kind, value).ok_or_else(wrong)?),
        };
        let parameter = Parameter { kind: kind.clone(), bytes };
        arguments.add(parameter).map_err(|error| wrong().detail(error))?;
    }
    Ok(arguments)
}

/// A value in the bytes of its type.
struct Parameter {
    kind: PgTypeInfo,
    /// None: NULL.
    bytes: Option<Vec<u8>>,
}

impl Type<Postgres> for Parameter {
    fn type_info() -> PgTypeInfo {
        // Each says its own.
        <str as Type<Postgres>>::type_info()
    }

    fn compatible(_: &PgTypeInfo) -> bool {
        true
    }
}

impl Encode<'_, Postgres> for Parameter {
    fn encode_by_ref(&self, buffer: &mut PgArgumentBuffer) -> Result<IsNull, BoxDynError> {
        let Some(bytes) = &self.bytes else { return Ok(IsNull::Yes) };
        buffer.extend_from_slice(bytes);
        Ok(IsNull::No)
    }

    fn produces(&self) -> Option<PgTypeInfo> {
        Some(self.kind.clone())
    }
}

/// A value that is not null. None: it is not of this type.
fn write(kind: &PgTypeInfo, value: &Value) -> Option<Vec<u8>> {
    match kind.kind() {
        PgTypeKind::Domain(base) => return write(base, value),
        PgTypeKind::Array(element) => return array(element, value),
        PgTypeKind::Enum(_) => return value.as_str().map(Vec::from),
        _ => {}
    }
    Some(match kind.name() {
        "BOOL" => vec![u8::from(truth(value)?)],
        "INT2" => i16::try_from(whole(value)?).ok()?.to_be_bytes().into(),
        "INT4" => i32::try_from(whole(value)?).ok()?.to_be_bytes().into(),
        "INT8" => whole(value)?.to_be_bytes().into(),
        "OID" => u32::try_from(whole(value)?).ok()?.to_be_bytes().into(),
        #[expect(clippy::cast_possible_truncation, reason = "a single is what the column holds")]
        "FLOAT4" => (double(value)? as f32).to_be_bytes().into(),
        "FLOAT8" => double(value)?.to_be_bytes().into(),
        "NUMERIC" => match value {
            Value::Number(number) => Decimal::parse(&number.to_string())?.write(),
            Value::String(text) => Decimal::parse(text)?.write(),
            _ => return None,
        },
        "BYTEA" => BASE64.decode(value.as_str()?).ok()?,
        "UUID" => value.as_str()?.parse::<Uuid>().ok()?.as_bytes().to_vec(),
        "DATE" => {
            let days = value.as_str()?.trim().parse::<NaiveDate>().ok()? - epoch().date();
            i32::try_from(days.num_days()).ok()?.to_be_bytes().into()
        }
        "TIME" => {
            let time: NaiveTime = value.as_str()?.trim().parse().ok()?;
            let micros = i64::from(time.num_seconds_from_midnight()) * 1_000_000;
            (micros + i64::from(time.nanosecond() / 1_000)).to_be_bytes().into()
        }
        "TIMESTAMP" | "TIMESTAMPTZ" => {
            (timestamp(value.as_str()?.trim())? - epoch()).num_microseconds()?.to_be_bytes().into()
        }
        "JSON" => value.to_string().into_bytes(),
        // Its first byte is a version.
        "JSONB" => [&[1], value.to_string().as_bytes()].concat(),
        _ => match value {
            // The server would take it for the end.
            Value::String(text) if text.contains('\0') => return None,
            Value::String(text) => text.clone().into_bytes(),
            other => other.to_string().into_bytes(),
        },
    })
}

fn truth(value: &Value) -> Option<bool> {
    match value {
        Value::Bool(truth) => Some(*truth),
        Value::String(text) => text.trim().to_ascii_lowercase().parse().ok(),
        _ => None,
    }
}

fn whole(value: &Value) -> Option<i64> {
    match value {
        Value::Number(number) => number.as_i64().or_else(|| {
            // JSON does not tell 5.0 from 5.
            let double = number.as_f64().filter(|double| double.fract() == 0.0 && double.abs() < 9e15)?;
            #[expect(clippy::cast_possible_truncation, reason = "it is whole and in range")]
            Some(double as i64)
        }),
        Value::String(text) => text.trim().parse().ok(),
        _ => None,
    }
}

fn double(value: &Value) -> Option<f64> {
    match value {
        Value::Number(number) => number.as_f64(),
        Value::String(text) => text.trim().parse().ok(),
        _ => None,
    }
}

/// Where PostgreSQL's time begins.
fn epoch() -> NaiveDateTime {
    DateTime::from_timestamp(946_684_800, 0).unwrap_or_default().naive_utc()
}

/// RFC 3339, also without a zone, which is UTC, or without a time.
fn timestamp(text: &str) -> Option<NaiveDateTime> {
    if let Ok(zoned) = DateTime::parse_from_rfc3339(text) {
        return Some(zoned.naive_utc());
    }
    let plain = ["%Y-%m-%dT%H:%M:%S%.f", "%Y-%m-%d %H:%M:%S%.f"];
    let plain = plain.iter().find_map(|format| NaiveDateTime::parse_from_str(text, format).ok());
    plain.or_else(|| text.parse::<NaiveDate>().ok()?.and_hms_opt(0, 0, 0))
}

/// As `value.rs` reads them.
fn array(element: &PgTypeInfo, value: &Value) -> Option<Vec<u8>> {
    let mut lengths = Vec::new();
    let mut inner = value;
    while let Value::Array(items) = inner {
        // Elements of a JSON type may be lists themselves.
        if lengths.len() == DIMENSIONS_MAX || (!lengths.is_empty() && element.name().starts_with("JSON")) {
            break;
        }
        lengths.push(items.len());
        match items.first() {
            Some(first) => inner = first,
            None => break,
        }
    }
    if lengths.is_empty() {
        return None;
    }
    let oid = element.oid()?.0;
    let number = |length: usize| i32::try_from(length).ok().map(i32::to_be_bytes);
    let mut bytes = Vec::new();
    if lengths.contains(&0) {
        bytes.extend([0u8; 8]);
        bytes.extend(oid.to_be_bytes());
        return Some(bytes);
    }
    bytes.extend(number(lengths.len())?);
    bytes.extend(1i32.to_be_bytes());
    bytes.extend(oid.to_be_bytes());
    for length in &lengths {
        bytes.extend(number(*length)?);
        bytes.extend(1i32.to_be_bytes());
    }
    elements(element, &lengths, value, &mut bytes)?;
    Some(bytes)
}

fn elements(element: &PgTypeInfo, lengths: &[usize], value: &Value, bytes: &mut Vec<u8>) -> Option<()> {
    let Some((length, inner)) = lengths.split_first() else {
        match value {
            Value::Null => bytes.extend((-1i32).to_be_bytes()),
            value => {
                let written = write(element, value)?;
                bytes.extend(i32::try_from(written.len()).ok()?.to_be_bytes());
                bytes.extend(written);
            }
        }
        return Some(());
    };
    let items = value.as_array().filter(|items| items.len() == *length)?;
    items.iter().try_for_each(|item| elements(element, inner, item, bytes))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn is_taken(kind: &PgTypeInfo, value: &Value) -> bool {
        write(kind, value).is_some()
    }

    #[test]
    fn a_value_of_another_type_is_refused() {
        let kind = <i32 as Type<Postgres>>::type_info();
        for (value, taken) in [
            (json!(7), true),
            (json!(7.0), true),
            (json!("7"), true),
            (json!(7.5), false),
            (json!(1e12), false),
            (json!("7; DROP TABLE users"), false),
            (json!([7]), false),
            (json!(true), false),
        ] {
            assert_eq!(is_taken(&kind, &value), taken, "{value}");
        }
        let list = <Vec<i32> as Type<Postgres>>::type_info();
        for (value, taken) in [
            (json!([]), true),
            (json!([1, null]), true),
            (json!([[1, 2], [3, 4]]), true),
            (json!([[1, 2], [3]]), false),
            (json!(["x"]), false),
            (json!(1), false),
        ] {
            assert_eq!(is_taken(&list, &value), taken, "{value}");
        }
        let text = <str as Type<Postgres>>::type_info();
        assert!(!is_taken(&text, &json!("a\0b")));
        assert!(is_taken(&text, &json!("' OR 1=1 --")));
    }

    #[test]
    fn times_without_a_zone_are_utc() {
        let at = timestamp("2026-11-21T07:30:00+02:00").unwrap();
        for same in ["2026-11-21T05:30:00Z", "2026-11-21T05:30:00", "2026-11-21 05:30:00.000"] {
            assert_eq!(timestamp(same), Some(at), "{same}");
        }
        assert_eq!(timestamp("yesterday"), None);
    }
}
