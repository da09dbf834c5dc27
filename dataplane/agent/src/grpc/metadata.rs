//! What goes along with a call: names that the author wrote, values that are
//! never more than a value.

use base64::{Engine as _, prelude::BASE64_STANDARD};
use mt_proto::resource::{Credential, Grpc, Text};
use tonic::{
    Status,
    metadata::{AsciiMetadataKey, AsciiMetadataValue, BinaryMetadataKey, BinaryMetadataValue, MetadataMap},
};

use super::status;
use crate::{Failure, Reason, Run, hide::Withheld};

/// What servers commonly take, of all entries together.
const METADATA_BYTES_MAX: usize = 8 << 10;

/// The metadata of one call, and what of it must not come back in an error.
pub struct Shown<'a> {
    map: MetadataMap,
    bytes: usize,
    withheld: &'a Withheld,
}

impl<'a> Shown<'a> {
    /// # Errors
    /// If a value is not of printable ASCII (of base64, for names that end in
    /// `-bin`), if all of it is too much, or an argument or a secret is missing.
    pub fn of(config: &Grpc, run: &Run<'a>) -> Result<Self, Failure> {
        let mut shown = Self { map: MetadataMap::new(), bytes: 0, withheld: run.withheld };
        for (name, text) in &config.metadata {
            shown.put(name, run.text(text)?, text)?;
        }
        match &config.auth {
            None => {}
            Some(Credential::Bearer(token)) => {
                let value = shown.credential(run, token)?;
                shown.put("authorization", format!("Bearer {value}"), token)?;
            }
            Some(Credential::Basic { username, password }) => {
                let pair =
                    format!("{}:{}", shown.credential(run, username)?, shown.credential(run, password)?);
                let encoded = BASE64_STANDARD.encode(pair);
                shown.withheld.add(&encoded);
                shown.put("authorization", format!("Basic {encoded}"), password)?;
            }
            Some(Credential::Header { name, value: from }) => {
                let value = shown.credential(run, from)?;
                shown.put(&name.to_ascii_lowercase(), value, from)?;
            }
            // Refused when it was applied.
            Some(Credential::Query { .. }) => {}
        }
        Ok(shown)
    }

    pub fn map(&self) -> &MetadataMap {
        &self.map
    }

    /// What has failed, without what was shown to the server.
    pub fn failure(&self, status: &Status) -> Failure {
        status::failure(status, self.withheld)
    }

    /// A part of a credential. Whatever it comes from, it is not repeated.
    fn credential(&self, run: &Run<'_>, text: &Text) -> Result<String, Failure> {
        let value = run.text(text)?;
        self.withheld.add(&value);
        Ok(value)
    }

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
