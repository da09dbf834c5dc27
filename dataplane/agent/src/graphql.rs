//! The GraphQL agent.

use std::sync::Arc;

use mt_proto::resource::GraphQl;

use crate::{Failure, Output, Reason, Run};

/// What a tool of this kind keeps between calls.
pub struct Runner {
    config: Arc<GraphQl>,
}

impl Runner {
    pub fn new(config: &Arc<GraphQl>) -> Self {
        Self { config: config.clone() }
    }

    pub async fn run(&self, run: &Run<'_>) -> Result<Output, Failure> {
        _ = (&self.config, run);
        Err(Failure::new(Reason::Misconfigured, "this version has no GraphQL agent"))
    }
}
