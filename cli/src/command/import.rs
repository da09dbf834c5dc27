//! placeholder
use super::Context;
use crate::{
    args::ImportArgs,
    output::{Exit, Failure},
};
pub async fn run(_context: &Context, _args: &ImportArgs) -> Result<Exit, Failure> {
    Ok(Exit::Ok)
}
