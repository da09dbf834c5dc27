//! Messages of types that are known only at run time, on tonic's wire.

use std::sync::Arc;

use bytes::Buf as _;
use prost::Message as _;
use prost_reflect::{DynamicMessage, MessageDescriptor};
use tonic::{
    Status,
    codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder},
};

/// Writes messages of any type and reads those of one.
#[derive(Clone, Debug)]
pub struct DynamicCodec {
    answers: MessageDescriptor,
}

impl DynamicCodec {
    pub fn new(answers: MessageDescriptor) -> Self {
        Self { answers }
    }
}

impl Codec for DynamicCodec {
    type Encode = DynamicMessage;
    type Decode = DynamicMessage;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        self.clone()
    }

    fn decoder(&mut self) -> Self {
        self.clone()
    }
}

impl Encoder for DynamicCodec {
    type Item = DynamicMessage;
    type Error = Status;

    fn encode(&mut self, message: DynamicMessage, out: &mut EncodeBuf<'_>) -> Result<(), Status> {
        message.encode(out).map_err(|error| Status::internal(error.to_string()))
    }
}

impl Decoder for DynamicCodec {
    type Item = DynamicMessage;
    type Error = Status;

    fn decode(&mut self, bytes: &mut DecodeBuf<'_>) -> Result<Option<DynamicMessage>, Status> {
        let whole = bytes.copy_to_bytes(bytes.remaining());
        let message = DynamicMessage::decode(self.answers.clone(), whole).map_err(|error| {
            // With a source it is told apart from what the server says.
            let mut status = Status::internal("the message does not decode");
            status.set_source(Arc::new(error));
            status
        })?;
        Ok(Some(message))
    }
}
