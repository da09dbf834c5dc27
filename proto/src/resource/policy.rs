//! A policy, validated.

use std::{collections::BTreeMap, time::Duration};

use globset::GlobSet;

use super::ResourceName;

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
}
