//! Who may call a gateway, and how they show who they are.
//!
//! The names of principals are one space for the whole fleet: sessions, budgets
//! and rules go by them. So it is checked here that no issuer of tokens can name
//! a Principal, and no two issuers the same caller.

use std::{
    collections::{BTreeMap, HashMap},
    path::PathBuf,
    sync::Arc,
};

use url::Url;

use super::{Policy, Rule};
use crate::{
    pb::resource as pb,
    resource::{
        Gateway, ResourceName,
        check::{Checker, matches, quoted},
    },
};

/// In one policy.
const ISSUERS_MAX: usize = 32;
/// Of one issuer.
const AUDIENCES_MAX: usize = 32;
/// Of an issuer, an audience, a claim's name or a prefix.
const TEXT_CHARS_MAX: usize = 512;

/// What a policy says about who may call.
#[derive(Clone, Debug, PartialEq)]
pub struct Authn {
    pub issuers: Vec<Arc<JwtIssuer>>,
    pub anonymous: Anonymous,
}

/// What becomes of callers who show nothing. From the loosest to the strictest.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Anonymous {
    Allowed,
    #[default]
    Loopback,
    Refused,
}

/// Somebody whose tokens are believed.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct JwtIssuer {
    /// The exact `iss`.
    pub issuer: String,
    /// Never empty.
    pub audiences: Vec<String>,
    pub keys: KeySource,
    pub principal_claim: String,
    pub groups_claim: String,
    /// Never empty, and never the beginning of a resource's name.
    pub principal_prefix: String,
}

/// Where the keys of an issuer are.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum KeySource {
    /// Where the issuer's metadata, at this URL, says.
    Discovered {
        metadata: Url,
    },
    Url(Url),
    /// On the node.
    File(PathBuf),
}

/// All rules that apply to one gateway, as one.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Admission {
    /// In the order of the policies' names, none twice.
    pub issuers: Vec<Arc<JwtIssuer>>,
    pub anonymous: Anonymous,
}

/// The issuer of each prefix that has been seen.
pub type Prefixes<'a> = BTreeMap<String, &'a str>;

pub fn check<'a>(checker: &mut Checker<'_>, rule: &'a pb::AuthnRule, prefixes: &mut Prefixes<'a>) -> Authn {
    use pb::Anonymous as Wire;
    let anonymous = match Wire::try_from(rule.anonymous) {
        Ok(Wire::Unspecified | Wire::Loopback) => Anonymous::Loopback,
        Ok(Wire::Refused) => Anonymous::Refused,
        Ok(Wire::Allowed) => Anonymous::Allowed,
        Err(_) => {
            checker.problem("spec.authn.anonymous", "this version does not know this choice");
            Anonymous::Refused
        }
    };
    if rule.jwt.len() > ISSUERS_MAX {
        let message = format!("{} issuers are too many, at most {ISSUERS_MAX} are kept", rule.jwt.len());
        checker.problem("spec.authn.jwt", message);
        return Authn { issuers: Vec::new(), anonymous };
    }
    let issuers = rule.jwt.iter().enumerate().filter_map(|(i, wire)| {
        issuer(checker, &format!("spec.authn.jwt[{i}]"), wire, prefixes).map(Arc::new)
    });
    Authn { issuers: issuers.collect(), anonymous }
}

fn issuer<'a>(
    checker: &mut Checker<'_>,
    path: &str,
    wire: &'a pb::JwtIssuer,
    prefixes: &mut Prefixes<'a>,
) -> Option<JwtIssuer> {
    text(checker, &format!("{path}.issuer"), &wire.issuer, "an issuer");
    let audiences = format!("{path}.audiences");
    if wire.audiences.is_empty() {
        checker.problem_with_hint(
            &audiences,
            "the audience is missing: any service's token would be taken",
            "for example `audiences: [https://mcp.example.com/mcp]`",
        );
    } else if wire.audiences.len() > AUDIENCES_MAX {
        checker.problem(&audiences, format!("at most {AUDIENCES_MAX} audiences are kept"));
    }
    for (i, audience) in wire.audiences.iter().take(AUDIENCES_MAX).enumerate() {
        text(checker, &format!("{audiences}[{i}]"), audience, "an audience");
    }
    let claim = |checker: &mut Checker<'_>, field: &str, value: &str, default: &str| {
        if value.is_empty() {
            return default.to_owned();
        }
        text(checker, &format!("{path}.{field}"), value, "the name of a claim");
        value.to_owned()
    };
    let principal_claim = claim(checker, "principalClaim", &wire.principal_claim, "sub");
    let groups_claim = claim(checker, "groupsClaim", &wire.groups_claim, "groups");
    let principal_prefix = prefix(checker, path, wire, prefixes);
    Some(JwtIssuer {
        issuer: wire.issuer.clone(),
        audiences: wire.audiences.clone(),
        keys: keys(checker, path, wire)?,
        principal_claim,
        groups_claim,
        principal_prefix,
    })
}

fn text(checker: &mut Checker<'_>, path: &str, text: &str, what: &str) {
    if text.is_empty() || text.chars().count() > TEXT_CHARS_MAX || text.chars().any(char::is_control) {
        let message =
            format!("{} is not {what}: 1 to {TEXT_CHARS_MAX} characters that can be seen", quoted(text));
        checker.problem(path, message);
    }
}

fn keys(checker: &mut Checker<'_>, path: &str, wire: &pb::JwtIssuer) -> Option<KeySource> {
    use pb::jwt_issuer::Keys;
    match &wire.keys {
        Some(Keys::JwksUrl(url)) => checker.secure_url(&format!("{path}.jwksUrl"), url).map(KeySource::Url),
        Some(Keys::JwksFile(file)) => {
            let path = format!("{path}.jwksFile");
            checker.no_nul(&path, file);
            if file.is_empty() {
                checker.problem(&path, "the path is empty");
            }
            Some(KeySource::File(file.into()))
        }
        None => {
            let at = format!("{path}.issuer");
            let issuer = checker.secure_url(&at, &wire.issuer)?;
            if issuer.query().is_some() || issuer.fragment().is_some() {
                checker.problem_with_hint(
                    &at,
                    "an issuer with a query or a fragment has no metadata",
                    "say where its keys are: `jwksUrl` or `jwksFile`",
                );
            }
            let metadata = format!("{}/.well-known/openid-configuration", wire.issuer.trim_end_matches('/'));
            checker.secure_url(&at, &metadata).map(|metadata| KeySource::Discovered { metadata })
        }
    }
}

/// The prefix, when no name that it makes can be anybody else's.
fn prefix<'a>(
    checker: &mut Checker<'_>,
    path: &str,
    wire: &'a pb::JwtIssuer,
    prefixes: &mut Prefixes<'a>,
) -> String {
    let path = format!("{path}.principalPrefix");
    let prefix = match wire.principal_prefix.as_str() {
        "" => format!("{}#", wire.issuer),
        prefix => {
            text(checker, &path, prefix, "a prefix");
            prefix.to_owned()
        }
    };
    if prefix.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-') {
        checker.problem_with_hint(
            &path,
            format!("with {} a token could name a Principal", quoted(&prefix)),
            "end it with a character that no name has, such as `:` or `#`",
        );
        return prefix;
    }
    let shorter = prefix.char_indices().skip(1).filter_map(|(end, _)| prefixes.get(&prefix[..end]));
    let longer = prefixes.range(prefix.clone()..).take_while(|(other, _)| other.starts_with(&prefix));
    let clash =
        shorter.chain(longer.map(|(_, issuer)| issuer)).copied().find(|issuer| *issuer != wire.issuer);
    if let Some(other) = clash {
        let message = format!("tokens of this issuer could name callers of {}", quoted(other));
        checker.problem_with_hint(&path, message, "give each issuer a prefix that begins no other");
    } else {
        prefixes.insert(prefix.clone(), &wire.issuer);
    }
    prefix
}

/// What holds for each gateway.
pub fn admissions(
    gateways: &BTreeMap<ResourceName, Arc<Gateway>>,
    policies: &[Arc<Policy>],
) -> HashMap<ResourceName, Arc<Admission>> {
    let of = |gateway: &Gateway| {
        let mut admission: Option<Admission> = None;
        for policy in policies {
            let Rule::Authn(rule) = &policy.rule else { continue };
            if !matches(&policy.gateways, &gateway.labels) {
                continue;
            }
            let (issuers, strictest) = admission
                .map_or((Vec::new(), rule.anonymous), |a| (a.issuers, a.anonymous.max(rule.anonymous)));
            let mut together = Admission { issuers, anonymous: strictest };
            for issuer in &rule.issuers {
                if !together.issuers.contains(issuer) {
                    together.issuers.push(Arc::clone(issuer));
                }
            }
            admission = Some(together);
        }
        admission.unwrap_or_default()
    };
    gateways.iter().map(|(name, gateway)| (name.clone(), Arc::new(of(gateway)))).collect()
}
