//! The envelope of MQTT 3.1.1 from a sensor's side, as CBOR: see `edge_protocol::envelope` for its form.

use core::time::Duration;

use minicbor::{
    Decoder, Encoder, decode,
    encode::{self, Write, write::Cursor},
};

use super::Properties;
use crate::{compact::BufferFull, property};

/// Why a payload is no answer in an envelope.
#[derive(Debug, thiserror::Error)]
pub enum EnvelopeError {
    /// Not CBOR, or not of the expected types.
    #[error("not an envelope: {0}")]
    Cbor(#[from] decode::Error),
    /// A container of indefinite length.
    #[error("indefinite lengths are not allowed")]
    Indefinite,
    /// A field that an envelope needs.
    #[error("the envelope has no field {0:?}")]
    Missing(&'static str),
}

/// What goes into a request's envelope.
pub(super) struct Request<'a> {
    pub(super) reply: &'a str,
    pub(super) correlation: &'a str,
    pub(super) timeout: Duration,
    /// `cbor`, or `binary` with the length of its header.
    pub(super) encoding: &'static str,
    pub(super) header_length: Option<u32>,
    pub(super) body: &'a [u8],
}

/// What comes out of an answer's envelope.
pub(super) struct Answer<'a> {
    pub(super) correlation: &'a str,
    pub(super) properties: Properties<'a>,
    pub(super) body: &'a [u8],
}

impl Request<'_> {
    pub(super) fn encode(&self, buffer: &mut [u8]) -> Result<usize, BufferFull> {
        let mut e = Encoder::new(Cursor::new(buffer));
        self.write(&mut e).map_err(|_| BufferFull)?;
        Ok(e.into_writer().position())
    }

    fn write<W: Write>(&self, e: &mut Encoder<W>) -> Result<(), encode::Error<W::Error>> {
        let timeout_ms = u32::try_from(self.timeout.as_millis()).unwrap_or(u32::MAX);
        e.map(5 + u64::from(self.header_length.is_some()))?
            .str("reply")?
            .str(self.reply)?
            .str("correlation")?
            .str(self.correlation)?
            .str("timeout_ms")?
            .u32(timeout_ms.max(1))?
            .str("encoding")?
            .str(self.encoding)?;
        if let Some(header_length) = self.header_length {
            e.str("header_length")?.u32(header_length)?;
        }
        e.str("body")?.bytes(self.body)?;
        Ok(())
    }
}

impl<'a> Answer<'a> {
    pub(super) fn decode(payload: &'a [u8]) -> Result<Self, EnvelopeError> {
        let mut d = Decoder::new(payload);
        let (mut correlation, mut encoding, mut body) = (None, None, None);
        let mut properties = Properties::default();
        for _ in 0..d.map()?.ok_or(EnvelopeError::Indefinite)? {
            match d.str()? {
                "correlation" => correlation = Some(d.str()?),
                "status" => properties.status = Some(d.u16()?),
                "message" => properties.message = d.str()?,
                "retry_after_ms" => properties.retry_after = Some(Duration::from_millis(d.u64()?)),
                "encoding" => encoding = Some(d.str()?),
                "header_length" => properties.header_length = usize::try_from(d.u64()?).ok(),
                "body" => body = Some(d.bytes()?),
                _ => d.skip()?,
            }
        }
        let missing = EnvelopeError::Missing;
        properties.content_type = match encoding.ok_or(missing("encoding"))? {
            "json" => Some(property::CONTENT_TYPE_JSON),
            "binary" => Some(property::CONTENT_TYPE_BINARY),
            "cbor" => Some(property::CONTENT_TYPE_CBOR),
            _ => None,
        };
        Ok(Self {
            correlation: correlation.ok_or(missing("correlation"))?,
            properties,
            body: body.ok_or(missing("body"))?,
        })
    }
}
