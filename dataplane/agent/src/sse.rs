//! The SSE agent.

use std::sync::Arc;

use mt_proto::resource::Sse;

use crate::{Failure, Output, Reason, Run};

/// What a tool of this kind keeps between calls.
pub struct Runner {
    config: Arc<Sse>,
}

impl Runner {
    pub fn new(config: &Arc<Sse>) -> Self {
        Self { config: config.clone() }
    }

    pub async fn run(&self, run: &Run<'_>) -> Result<Output, Failure> {
        _ = (&self.config, run);
        Err(Failure::new(Reason::Misconfigured, "this version has no SSE agent"))
    }
}
