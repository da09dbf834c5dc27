//! The properties of the codec, as the tests of `mt-mcp` have them: fuzzers
//! bring inputs, not questions of their own.

#[path = "../../tests/properties/checks.rs"]
pub mod checks;
#[path = "../../tests/properties/model.rs"]
pub mod model;
