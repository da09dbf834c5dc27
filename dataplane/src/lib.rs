//! A node of the fleet: it holds nothing of its own and serves MCP.

pub mod mcp;
pub mod seal;
