//! What the gRPC door keeps.

use std::sync::OnceLock;

use tonic::service::Routes;

/// The services, made for the first request: their descriptors take over a MiB
/// and many a node never has a client that speaks gRPC.
#[derive(Default)]
pub struct Services {
    routes: OnceLock<Routes>,
}

impl Services {
    /// The way to all of them.
    pub fn routes(&self, make: impl FnOnce() -> Routes) -> Routes {
        self.routes.get_or_init(make).clone()
    }
}
