//! The pipeline: from a call to its answer.

pub mod call;
