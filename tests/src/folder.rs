//! A folder through which tests look past the gateway: what became of a slow
//! call is noted in it, and files in it are resources that change from outside.
//!
//! A test cannot ask the fixture through the gateway whether something arrived:
//! another process may answer, and the question may be lost with what it is about.
//! Every process with the same folder notes and watches the same.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::path::PathBuf;
use std::time::Duration;

use crate::audience::{Audience, Change};

/// Before the key of a resource in its URI.
pub const URI_PREFIX: &str = "test://watched/";

/// Files that are resources start with it.
const WATCHED: &str = "watched-";
const LOOK_EVERY: Duration = Duration::from_millis(50);

pub struct Folder(Option<PathBuf>);

impl Folder {
    pub fn new(path: Option<PathBuf>) -> Self {
        Self(path)
    }

    pub fn exists(&self) -> bool {
        self.0.is_some()
    }

    /// Adds a line to the file `slow-KEY`.
    pub fn note(&self, key: &str, line: &str) {
        let Some(path) = self.0.as_ref().filter(|_| is_key(key)) else { return };
        let file = OpenOptions::new().create(true).append(true).open(path.join(format!("slow-{key}")));
        let noted = file.and_then(|mut file| file.write_all(format!("{line}\n").as_bytes()));
        if let Err(error) = noted {
            eprintln!("cannot note that call {key} {line}: {error}");
        }
    }

    /// The text of the file `watched-KEY`, for the URI that ends with the key.
    pub fn read(&self, uri: &str) -> Option<String> {
        let key = uri.strip_prefix(URI_PREFIX).filter(|key| is_key(key))?;
        fs::read_to_string(self.0.as_ref()?.join(format!("{WATCHED}{key}"))).ok()
    }

    /// Tells of every file that has grown or is new.
    pub async fn watch(&self, audience: &Audience) -> Infallible {
        let Some(path) = &self.0 else { return std::future::pending().await };
        let mut known = lengths(path);
        loop {
            tokio::time::sleep(LOOK_EVERY).await;
            let now = lengths(path);
            for (key, _) in now.iter().filter(|(key, length)| known.get(*key) != Some(length)) {
                audience.tell(Change::Resource(&format!("{URI_PREFIX}{key}"))).await;
            }
            known = now;
        }
    }
}

/// Nothing that would name a file elsewhere.
fn is_key(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
}

fn lengths(path: &PathBuf) -> BTreeMap<String, u64> {
    let entries = fs::read_dir(path).into_iter().flatten().filter_map(Result::ok);
    let watched = entries.filter_map(|entry| {
        let key = entry.file_name().into_string().ok()?.strip_prefix(WATCHED)?.to_owned();
        Some((key, entry.metadata().ok()?.len()))
    });
    watched.collect()
}
