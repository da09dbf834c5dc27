//! A policy, validated.

mod authn;

use std::{collections::BTreeMap, time::Duration};

use globset::GlobSet;

pub use self::authn::{Admission, Anonymous, Authn, JwtIssuer, KeySource};
pub(super) use self::authn::{Prefixes, admissions};
use super::{ResourceName, check::Checker};
use crate::pb::resource as pb;

const LIMIT_MIN: Duration = Duration::from_millis(1);
const LIMIT_MAX: Duration = Duration::from_secs(300);

/// A rule on calls, and which calls it is for.
#[derive(Clone, Debug)]
pub struct Policy {
    pub name: ResourceName,
    /// Labels of the gateways it applies to; empty is all.
    pub gateways: BTreeMap<String, String>,
    /// Labels of the backends it applies to; empty is all.
    pub backends: BTreeMap<String, String>,
    /// None: all tools.
    pub tools: Option<GlobSet>,
    pub rule: Rule,
}

/// What a policy demands.
#[derive(Clone, Debug, PartialEq)]
pub enum Rule {
    /// The longest a call may take.
    Timeout(Duration),
    /// Who may call. What holds for one gateway is its [`Admission`].
    Authn(Authn),
}

/// `prefixes` has those of the policies before.
pub(super) fn check<'a>(
    checker: &mut Checker<'_>,
    name: &ResourceName,
    policy: &'a pb::Policy,
    prefixes: &mut Prefixes<'a>,
) -> Option<Policy> {
    let gateways = checker.selector("spec.gateways", policy.gateways.as_ref());
    let backends = checker.selector("spec.backends", policy.backends.as_ref());
    let tools = checker.globs_or_all("spec.tools", &policy.tools);
    let rule = match &policy.rule {
        Some(pb::policy::Rule::Timeout(pb::TimeoutRule { limit: Some(limit) })) => Rule::Timeout(
            checker.duration("spec.timeout.limit", Some(limit), LIMIT_MIN..=LIMIT_MAX, LIMIT_MAX),
        ),
        Some(pb::policy::Rule::Timeout(pb::TimeoutRule { limit: None })) => {
            checker.problem_with_hint(
                "spec.timeout.limit",
                "the limit is missing",
                "for example `limit: 10s`",
            );
            return None;
        }
        Some(pb::policy::Rule::Authn(rule)) => {
            if policy.backends.is_some() {
                refuse_selector(checker, "spec.backends");
            }
            if !policy.tools.is_empty() {
                refuse_selector(checker, "spec.tools");
            }
            Rule::Authn(authn::check(checker, rule, prefixes))
        }
        None => {
            checker.problem_with_hint("spec", "the policy has no rule", "add `timeout: {limit: 10s}`");
            return None;
        }
    };
    Some(Policy { name: name.clone(), gateways, backends, tools, rule })
}

/// Who calls is known before what is called.
fn refuse_selector(checker: &mut Checker<'_>, path: &str) {
    checker.problem_with_hint(
        path,
        "who may call is decided for whole gateways",
        "leave it out; `gateways` chooses",
    );
}
