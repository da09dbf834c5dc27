//! `mtctl principal`: who may call, and their API keys.
//!
//! A key is made here, shown once and never sent: the control plane gets its
//! hash.

use std::fmt::Write as _;

use aws_lc_rs::{digest, rand};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use mt_proto::{
    pb::resource::{Metadata, Principal, Resource, resource::Spec},
    resource::Kind,
};
use serde_json::json;

use super::{Context, edit};
use crate::{
    args::{PrincipalCommand, PrincipalCreateArgs, PrincipalRevokeArgs, PrincipalRotateArgs},
    output::{Exit, Failure, Format, count},
};

/// What every key begins with, so that scanners and people know one.
const KEY_PREFIX: &str = "mt_";
/// Random bytes of a key.
const KEY_BYTES: usize = 32;
/// Digits of a key's hash that stand for it where people see it.
const ID_DIGITS: usize = 12;

pub async fn run(context: &Context, command: &PrincipalCommand) -> Result<Exit, Failure> {
    match command {
        PrincipalCommand::Create(args) => create(context, args).await,
        PrincipalCommand::Rotate(args) => rotate(context, args).await,
        PrincipalCommand::Revoke(args) => revoke(context, args).await,
    }
}

async fn create(context: &Context, args: &PrincipalCreateArgs) -> Result<Exit, Failure> {
    let key = Key::random()?;
    let made = |before: Option<&Resource>| match before {
        Some(_) => Err(Failure::new(Exit::Conflict, format!("there is a principal {:?} already", args.name))
            .try_this(format!("mtctl principal rotate {}", args.name))),
        None => {
            let principal = Principal {
                groups: args.group.clone(),
                api_key_sha256: vec![key.hash.clone()],
                display_name: args.display_name.clone().unwrap_or_default(),
            };
            let metadata = Metadata { name: args.name.clone(), ..Default::default() };
            Ok(Resource { metadata: Some(metadata), spec: Some(Spec::Principal(principal)) })
        }
    };
    let generation = change(context, &args.name, "create", made).await?;
    show(context, &args.name, &key, generation)?;
    Ok(Exit::Ok)
}

async fn rotate(context: &Context, args: &PrincipalRotateArgs) -> Result<Exit, Failure> {
    let key = Key::random()?;
    let mut before = Vec::new();
    let rotated = |resource: Option<&Resource>| {
        with_keys(resource, &args.name, |keys| {
            before.clone_from(keys);
            if args.now {
                keys.clear();
            }
            keys.push(key.hash.clone());
            Ok(())
        })
    };
    let generation = change(context, &args.name, "rotate", rotated).await?;
    show(context, &args.name, &key, generation)?;
    if args.now {
        context.output.say("the keys before are refused as soon as the nodes have this generation");
    } else {
        for old in &before {
            let id = id_of(old);
            context.output.say(format_args!(
                "key {id} still works; when nobody uses it any more: mtctl principal revoke {} --key {id}",
                args.name
            ));
        }
    }
    Ok(Exit::Ok)
}

async fn revoke(context: &Context, args: &PrincipalRevokeArgs) -> Result<Exit, Failure> {
    let mut revoked = Vec::new();
    let without = |resource: Option<&Resource>| {
        with_keys(resource, &args.name, |keys| {
            (revoked, *keys) = match &args.key {
                None => (std::mem::take(keys), Vec::new()),
                Some(prefix) => {
                    let hit = chosen(keys, prefix, &args.name)?;
                    keys.iter().cloned().partition(|key| *key == hit)
                }
            };
            Ok(())
        })
    };
    let generation = change(context, &args.name, "revoke", without).await?;
    match context.format() {
        Format::Json | Format::Yaml => context.output.value(&json!({
            "principal": args.name,
            "generation": generation,
            "revoked": revoked.iter().map(|hash| id_of(hash)).collect::<Vec<_>>(),
        }))?,
        Format::Name | Format::Table => {
            let lines = revoked.iter().fold(String::new(), |mut lines, hash| {
                _ = writeln!(lines, "{}", id_of(hash));
                lines
            });
            context.output.data(&lines)?;
        }
    }
    context.output.say(format_args!(
        "generation {generation}: {} revoked; nodes refuse it as soon as they have this generation",
        count(revoked.len(), "key")
    ));
    Ok(Exit::Ok)
}

async fn change(
    context: &Context,
    name: &str,
    verb: &str,
    change: impl FnMut(Option<&Resource>) -> Result<Resource, Failure>,
) -> Result<u64, Failure> {
    edit::resource(context, Kind::Principal, name, &format!("principal {verb} {name}"), change).await
}

fn with_keys(
    resource: Option<&Resource>,
    name: &str,
    change: impl FnOnce(&mut Vec<String>) -> Result<(), Failure>,
) -> Result<Resource, Failure> {
    let mut resource = resource.cloned().ok_or_else(|| {
        Failure::new(Exit::NotFound, format!("there is no principal {name:?}"))
            .try_this("mtctl get principals")
            .try_this(format!("mtctl principal create {name}"))
    })?;
    if let Some(Spec::Principal(principal)) = &mut resource.spec {
        change(&mut principal.api_key_sha256)?;
    }
    Ok(resource)
}

/// The one key that a prefix of its hash names.
fn chosen(keys: &[String], prefix: &str, name: &str) -> Result<String, Failure> {
    if prefix.starts_with(KEY_PREFIX) {
        return Err(Failure::new(Exit::Usage, "a key is not named by itself, but by its id")
            .try_this(format!("mtctl get principal {name} -o yaml, where each key's hash begins with it")));
    }
    let prefix = prefix.to_ascii_lowercase();
    let mut hits = keys.iter().filter(|key| key.starts_with(&prefix));
    match (hits.next(), hits.next()) {
        (Some(hit), None) => Ok(hit.clone()),
        (None, _) => Err(Failure::new(Exit::NotFound, format!("{name} has no key {prefix}"))
            .try_this(format!("mtctl get principal {name} -o yaml"))),
        (Some(_), Some(_)) => {
            Err(Failure::new(Exit::Usage, format!("several keys of {name} begin with {prefix}"))
                .try_this("write more of it"))
        }
    }
}

fn show(context: &Context, name: &str, key: &Key, generation: u64) -> Result<(), Failure> {
    let id = id_of(&key.hash);
    match context.format() {
        Format::Json | Format::Yaml => context
            .output
            .value(&json!({"principal": name, "key": key.text, "id": id, "generation": generation}))?,
        Format::Name | Format::Table => context.output.data(&format!("{}\n", key.text))?,
    }
    context.output.say(format_args!(
        "the key of {name} (id {id}), which is shown only now; clients send it as\n  \
         Authorization: Bearer {KEY_PREFIX}…     or     X-API-Key: {KEY_PREFIX}…\n\
         and mtctl takes it from MT_API_KEY"
    ));
    Ok(())
}

fn id_of(hash: &str) -> &str {
    hash.get(..ID_DIGITS).unwrap_or(hash)
}

/// A new API key. Without `Debug`, so that it cannot be printed by accident.
struct Key {
    text: String,
    hash: String,
}

impl Key {
    fn random() -> Result<Self, Failure> {
        let mut bytes = [0; KEY_BYTES];
        rand::fill(&mut bytes)
            .map_err(|_| Failure::new(Exit::Failed, "this system gives no random numbers"))?;
        Ok(Self::of(&bytes))
    }

    fn of(bytes: &[u8; KEY_BYTES]) -> Self {
        let text = format!("{KEY_PREFIX}{}", URL_SAFE_NO_PAD.encode(bytes));
        let digest = digest::digest(&digest::SHA256, text.as_bytes());
        let hash = digest.as_ref().iter().fold(String::new(), |mut hex, byte| {
            _ = write!(hex, "{byte:02x}");
            hex
        });
        Self { text, hash }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_random_and_kept_as_its_hash() {
        let key = Key::of(&[7; KEY_BYTES]);
        assert_eq!(key.text, "mt_BwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwc");
        assert_eq!(key.hash.len(), 64);
        assert!(key.hash.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b)));
        let (one, other) = (Key::random().unwrap(), Key::random().unwrap());
        assert!(one.text != other.text && one.text.len() == 46);
    }

    #[test]
    fn a_key_is_named_by_the_beginning_of_its_hash() {
        let keys = ["ab12".to_owned(), "ab34".to_owned()];
        assert_eq!(chosen(&keys, "AB1", "ada").unwrap(), "ab12");
        for (prefix, exit) in [("ab", Exit::Usage), ("cd", Exit::NotFound), ("mt_x", Exit::Usage)] {
            assert_eq!(chosen(&keys, prefix, "ada").unwrap_err().exit, exit);
        }
    }
}
