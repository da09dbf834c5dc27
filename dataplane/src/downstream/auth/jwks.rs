//! A set of keys (RFC 7517), as an issuer shows it.
//!
//! Each key is bound to the algorithms that its type is for, whatever a token
//! says: that is what keeps a public key from being taken for a shared secret.
//! Keys that are of no use here are left out and spoil nothing.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use jsonwebtoken::{Algorithm, DecodingKey};
use serde::Deserialize;
use serde_json::value::RawValue;

/// Keys of one set that are kept.
const KEYS_MAX: usize = 64;
/// Keys that are tried for a token that names none.
const TRIES_MAX: usize = 8;
/// Bytes of an RSA modulus: 2048 to 8192 bits.
const MODULUS_BYTES: std::ops::RangeInclusive<usize> = 256..=1024;

/// The keys of an issuer.
#[derive(Default)]
pub struct Keys {
    keys: Vec<Key>,
}

/// One of them.
pub struct Key {
    kid: Option<String>,
    algorithms: Vec<Algorithm>,
    pub decoding: DecodingKey,
}

/// The document is no set of keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoKeys {
    #[error("it is not a JSON Web Key Set")]
    Unreadable,
    #[error("it holds no key that can check a signature here")]
    Empty,
}

#[derive(Deserialize)]
struct Document<'a> {
    #[serde(borrow)]
    keys: Vec<&'a RawValue>,
}

#[derive(Deserialize)]
struct Jwk {
    kty: String,
    kid: Option<String>,
    alg: Option<String>,
    r#use: Option<String>,
    key_ops: Option<Vec<String>>,
    crv: Option<String>,
    n: Option<String>,
    e: Option<String>,
    x: Option<String>,
    y: Option<String>,
}

impl Keys {
    /// Reads a document.
    ///
    /// # Errors
    /// If there is nothing of use in it.
    pub fn parse(document: &[u8]) -> Result<Self, NoKeys> {
        let document: Document<'_> = serde_json::from_slice(document).map_err(|_| NoKeys::Unreadable)?;
        let keys = document.keys.iter().filter_map(|raw| Key::of(&serde_json::from_str(raw.get()).ok()?));
        let keys: Vec<Key> = keys.take(KEYS_MAX).collect();
        if keys.is_empty() { Err(NoKeys::Empty) } else { Ok(Self { keys }) }
    }

    /// Those that may have signed a token.
    pub fn candidates(&self, kid: Option<&str>, algorithm: Algorithm) -> impl Iterator<Item = &Key> {
        let named = move |key: &&Key| kid.is_none() || key.kid.as_deref() == kid;
        self.keys.iter().filter(named).filter(move |key| key.allows(algorithm)).take(TRIES_MAX)
    }
}

impl Key {
    fn of(jwk: &Jwk) -> Option<Self> {
        let signs = jwk.r#use.as_deref().is_none_or(|used| used == "sig")
            && jwk.key_ops.as_ref().is_none_or(|ops| ops.iter().any(|op| op == "verify"));
        if !signs {
            return None;
        }
        let bytes =
            |field: &Option<String>| field.as_ref().and_then(|text| URL_SAFE_NO_PAD.decode(text).ok());
        let (mut algorithms, decoding) = match (jwk.kty.as_str(), jwk.crv.as_deref()) {
            ("RSA", _) => {
                let (modulus, exponent) = (bytes(&jwk.n)?, bytes(&jwk.e)?);
                if !MODULUS_BYTES.contains(&modulus.len()) {
                    return None;
                }
                use Algorithm::{PS256, PS384, PS512, RS256, RS384, RS512};
                (
                    vec![RS256, RS384, RS512, PS256, PS384, PS512],
                    DecodingKey::from_rsa_raw_components(&modulus, &exponent),
                )
            }
            ("EC", Some(curve)) => {
                let (algorithm, size) = match curve {
                    "P-256" => (Algorithm::ES256, 32),
                    "P-384" => (Algorithm::ES384, 48),
                    _ => return None,
                };
                let (x, y) = (jwk.x.as_deref()?, jwk.y.as_deref()?);
                if [&jwk.x, &jwk.y].iter().any(|part| bytes(part).is_none_or(|b| b.len() != size)) {
                    return None;
                }
                (vec![algorithm], DecodingKey::from_ec_components(x, y).ok()?)
            }
            ("OKP", Some("Ed25519")) => {
                let point = bytes(&jwk.x).filter(|point| point.len() == 32)?;
                (vec![Algorithm::EdDSA], DecodingKey::from_ed_der(&point))
            }
            _ => return None,
        };
        if let Some(only) = &jwk.alg {
            let only = algorithm(only)?;
            algorithms.retain(|allowed| *allowed == only);
        }
        (!algorithms.is_empty()).then(|| Self { kid: jwk.kid.clone(), algorithms, decoding })
    }

    /// Whether it may check a signature of this algorithm.
    pub fn allows(&self, algorithm: Algorithm) -> bool {
        self.algorithms.contains(&algorithm)
    }
}

/// The algorithm of a name (RFC 7518 §3.1, RFC 8037, RFC 9864).
pub fn algorithm(name: &str) -> Option<Algorithm> {
    Some(match name {
        "RS256" => Algorithm::RS256,
        "RS384" => Algorithm::RS384,
        "RS512" => Algorithm::RS512,
        "PS256" => Algorithm::PS256,
        "PS384" => Algorithm::PS384,
        "PS512" => Algorithm::PS512,
        "ES256" => Algorithm::ES256,
        "ES384" => Algorithm::ES384,
        "EdDSA" | "Ed25519" => Algorithm::EdDSA,
        _ => return None,
    })
}
