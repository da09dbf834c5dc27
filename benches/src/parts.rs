//! The parts of the comparison. Each starts what it needs, measures, and gives
//! its tables.

pub mod closed;
pub mod idle;
pub mod instructions;
pub mod lists;
pub mod memory;
pub mod modes;
pub mod open;
pub mod overload;
pub mod payloads;
pub mod startup;
pub mod whole;
