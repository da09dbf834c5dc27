//! placeholder
use super::Context;
use crate::{
    args::UpArgs,
    output::{Exit, Failure},
};
pub fn run(_context: &Context, _args: UpArgs) -> Result<Exit, Failure> {
    Ok(Exit::Ok)
}
