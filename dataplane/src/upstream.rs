//! The backends' side of a node: one [`Upstream`] per backend, whatever its
//! transport and its era.
//!
//! An upstream opens what it needs when a call needs it, keeps it by the
//! call's scope, and closes it when it is idle. It knows nothing of gateways,
//! names for clients, or doors.
