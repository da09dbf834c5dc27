//! What goes along with a call: names that the author wrote, values that are
//! never more than a value.

use base64::{Engine as _, prelude::BASE64_STANDARD};
use mt_proto::resource::{Credential, Grpc, Text};
use tonic::metadata::{
    AsciiMetadataKey, AsciiMetadataValue, BinaryMetadataKey, BinaryMetadataValue, MetadataMap,
};

use crate::{Failure, Reason, Run};

/// What servers commonly take, of all entries together.
const METADATA_BYTES_MAX: usize = 8 << 10;

/// The metadata of one call.
///
/// # Errors
/// If a value is not of printable ASCII (of base64, for names that end in
/// `-bin`), if all of it is too much, or an argument or a secret is missing.
pub fn metadata(config: &Grpc, run: &Run<'_>) -> Result<MetadataMap, Failure> {
    let mut all = Filling { map: MetadataMap::new(), bytes: 0 };
    for (name, text) in &config.metadata {
        all.put(name, run.text(text)?, text)?;
    }
    match &config.auth {
        None => {}
        Some(Credential::Bearer(token)) => {
            all.put("authorization", format!("Bearer {}", run.text(token)?), token)?;
        }
        Some(Credential::Basic { username, password }) => {
            let pair = format!("{}:{}", run.text(username)?, run.text(password)?);
            all.put("authorization", format!("Basic {}", BASE64_STANDARD.encode(pair)), password)?;
        }
        Some(Credential::Header { name, value }) => {
            all.put(&name.to_ascii_lowercase(), run.text(value)?, value)?;
        }
        // Refused when it was applied.
        Some(Credential::Query { .. }) => {}
    }
    Ok(all.map)
}

struct Filling {
    map: MetadataMap,
    bytes: usize,
}

impl Filling {
    fn put(&mut self, name: &str, value: String, from: &Text) -> Result<(), Failure> {
        let wrong = |what: &str| {
            let reason = match from {
                Text::Secret(_) => Reason::Misconfigured,
                Text::Template(_) => Reason::InvalidArguments,
            };
            Failure::new(reason, format!("the value of {name:?} {what}"))
        };
        self.bytes += name.len() + value.len();
        if self.bytes > METADATA_BYTES_MAX {
            return Err(wrong(&format!("makes more than {METADATA_BYTES_MAX} bytes of metadata")));
        }
        if name.ends_with("-bin") {
            let decoded = BASE64_STANDARD.decode(value.trim()).map_err(|_| wrong("is not base64"))?;
            let key: BinaryMetadataKey = name.parse().map_err(|_| wrong("has no legal name"))?;
            self.map.append_bin(key, BinaryMetadataValue::from_bytes(&decoded));
            return Ok(());
        }
        if !value.bytes().all(|byte| (b' '..=b'~').contains(&byte)) {
            return Err(wrong("holds something else than printable ASCII"));
        }
        let key: AsciiMetadataKey = name.parse().map_err(|_| wrong("has no legal name"))?;
        let mut value: AsciiMetadataValue = value.parse().map_err(|_| wrong("cannot be sent"))?;
        value.set_sensitive(true);
        self.map.append(key, value);
        Ok(())
    }
}
