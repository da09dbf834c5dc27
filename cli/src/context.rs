//! What every command works with.

use crate::{
    args::Global,
    client::Client,
    endpoint,
    output::{Failure, Format, Output},
};

/// The arguments that every command has, and where it prints.
#[derive(Clone, Debug)]
pub struct Context {
    pub global: Global,
    pub output: Output,
}

impl Context {
    /// Connects to the control plane.
    ///
    /// # Errors
    /// When it cannot be reached.
    pub async fn client(&self) -> Result<Client, Failure> {
        Client::connect(endpoint::server(&self.global)).await
    }

    pub fn format(&self) -> Format {
        self.output.format
    }
}
