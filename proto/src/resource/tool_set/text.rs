//! Texts of agents.

use crate::{resource::ResourceName, template::Template};

/// A template, or a secret that the node reads.
#[derive(Clone, Debug, PartialEq)]
pub enum Text {
    Template(Template),
    Secret(ResourceName),
}
