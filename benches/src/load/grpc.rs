//! A client of the gRPC door.

use anyhow::{Context, bail};
use bytes::Bytes;
use mt_proto::pb::mcp::{self as pb, mcp_service_client::McpServiceClient};
use tonic::transport::{Channel, Endpoint};

use super::{
    Target,
    case::{Asker, What},
};

/// Messages may be so long.
const MESSAGE_BYTES_MAX: usize = 64 << 20;

pub struct Grpc {
    client: McpServiceClient<Channel>,
}

impl Grpc {
    pub async fn connect(target: &Target) -> anyhow::Result<Self> {
        let channel = Endpoint::from_shared(format!("http://{}", target.address))?.connect().await;
        let client = McpServiceClient::new(channel.context("connecting")?)
            .max_decoding_message_size(MESSAGE_BYTES_MAX)
            .max_encoding_message_size(MESSAGE_BYTES_MAX);
        Ok(Self { client })
    }

    pub async fn ask(&mut self, asker: &Asker) -> anyhow::Result<Bytes> {
        let What::Echo(_) = asker.case.what else { bail!("gRPC is measured with calls only") };
        let name = asker.name().context("a call has a name")?;
        let request = pb::CallToolRequest { name, arguments: asker.arguments().into() };
        Ok(self.client.call_tool(request).await?.into_inner().result)
    }
}
