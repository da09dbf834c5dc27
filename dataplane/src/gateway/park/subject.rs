//! Whose request a parked call is, and for what.

use std::sync::Arc;

use mt_proto::resource::ResourceName;

use crate::{
    gateway::{call::Call, view::GatewayView},
    mcp::{Method, Params},
};

/// A request that may be answered with questions.
#[derive(Clone, Debug)]
pub struct Subject {
    pub principal: Arc<str>,
    pub view: Arc<GatewayView>,
    pub method: Method,
    /// As the client wrote them.
    pub params: Params,
}

impl Subject {
    /// None for a request that may not be answered with questions.
    pub fn of(view: &Arc<GatewayView>, call: &Call) -> Option<Self> {
        call.method.may_ask().then(|| Self {
            principal: call.client.identity.principal.clone(),
            view: view.clone(),
            method: call.method.clone(),
            params: call.params.clone(),
        })
    }

    /// The name of the gateway that was asked.
    pub fn gateway(&self) -> &str {
        self.view.gateway.name.as_str()
    }

    /// The member that serves it.
    pub fn backend(&self) -> Option<ResourceName> {
        Some(match self.method {
            Method::ToolsCall => self.view.tools.get(&*self.params.name()?)?.backend.clone(),
            Method::PromptsGet => self.view.prompts.get(&*self.params.name()?)?.backend.clone(),
            _ => self.view.resource(&self.params.uri()?)?.backend,
        })
    }
}
