//! The protobuf messages and services, as generated.

/// `magictunnel.*.v1`, by the name of the package's middle part.
macro_rules! package {
    ($($(#[$doc:meta])* $module:ident = $package:literal;)*) => {$(
        $(#[$doc])*
        #[allow(clippy::all, clippy::pedantic, missing_docs, reason = "generated")]
        pub mod $module {
            include!(concat!("gen/", $package, ".rs"));
        }
    )*};
}

pub mod magictunnel {
    //! Our own packages.
    pub mod resource {
        //! The configuration, as users write it.
        package! { /// Version 1.
        v1 = "magictunnel.resource.v1"; }
    }
    pub mod discovery {
        //! What a control plane pushes.
        package! { /// Version 1.
        v1 = "magictunnel.discovery.v1"; }
    }
    pub mod node {
        //! What nodes report.
        package! { /// Version 1.
        v1 = "magictunnel.node.v1"; }
    }
    pub mod control {
        //! What operators call.
        package! { /// Version 1.
        v1 = "magictunnel.control.v1"; }
    }
    pub mod mcp {
        //! What clients call that do not speak MCP.
        package! { /// Version 1.
        v1 = "magictunnel.mcp.v1"; }
    }
}

pub mod envoy {
    //! The subset of Envoy's messages that discovery speaks.
    pub mod config {
        //! Shared messages.
        pub mod core {
            //! The node.
            package! { /// Version 3.
            v3 = "envoy.config.core.v3"; }
        }
    }
    pub mod service {
        //! Services.
        pub mod discovery {
            //! Discovery.
            package! { /// Version 3.
            v3 = "envoy.service.discovery.v3"; }
        }
    }
}

pub mod google {
    //! The subset of Google's messages that discovery speaks.
    package! { /// Errors.
    rpc = "google.rpc"; }
}

pub use envoy::service::discovery::v3 as ads;
pub use magictunnel::control::v1 as control;
pub use magictunnel::discovery::v1 as discovery;
pub use magictunnel::mcp::v1 as mcp;
pub use magictunnel::node::v1 as node;
pub use magictunnel::resource::v1 as resource;

/// Descriptors of everything above and of what it imports, with comments: for
/// gRPC reflection, for reading YAML and for writing JSON.
pub const FILE_DESCRIPTOR_SET: &[u8] = include_bytes!("gen/descriptors.bin");
