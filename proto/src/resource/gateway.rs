//! A gateway, validated.

use std::collections::BTreeMap;

use globset::GlobSet;

use super::ResourceName;

/// An MCP endpoint that clients see.
#[derive(Clone, Debug)]
pub struct Gateway {
    pub name: ResourceName,
    /// In order; selectors are resolved, and no backend is in it twice.
    pub members: Vec<Member>,
    /// Labels a node must have to serve it.
    pub nodes: BTreeMap<String, String>,
    pub title: Option<String>,
    pub instructions: Option<String>,
    /// 1 to 10000.
    pub page_size: usize,
}

/// One backend in a gateway.
#[derive(Clone, Debug)]
pub struct Member {
    pub backend: ResourceName,
    /// None: everything.
    pub include: Option<GlobSet>,
    pub exclude: GlobSet,
    /// From the backend's own name to the name clients see.
    pub rename: BTreeMap<String, String>,
    pub template: NameTemplate,
}

/// How a name for clients is made: a text with `{tool}` in it once, and
/// `{backend}` and `{namespace}` already filled in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NameTemplate {
    pub before: String,
    pub after: String,
}
