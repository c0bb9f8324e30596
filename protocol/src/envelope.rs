//! Requests from sensors that speak only MQTT 3.1.1, which has no Response Topic, correlation, expiry or content type:
//! all of that stands in the payload, as JSON or as CBOR with the same names.
//!
//! ```text
//! request = { reply, correlation, timeout_ms, encoding: "json"|"binary"|"cbor", ? header_length, body }
//! answer  = { correlation, status, ? message, ? retry_after_ms, encoding, ? header_length, body }
//! ```
//!
//! In JSON, `body` is the body itself for `json` and base64 for the others; in CBOR it is bytes.

use base64::{Engine, engine::general_purpose::STANDARD};
use bytes::Bytes;
use minicbor::{Decoder, Encoder};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::{Status, oip::Body, oip::Encoding};

/// How the envelope itself is encoded; an answer follows its request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// JSON.
    Json,
    /// CBOR.
    Cbor,
}

/// A request in an envelope.
#[derive(Debug, Clone, PartialEq)]
pub struct Request {
    /// How the envelope was encoded.
    pub form: Form,
    /// Topic for the answer.
    pub reply: String,
    /// The sender's mark, returned in the answer.
    pub correlation: String,
    /// Time until the answer is of no use, in milliseconds after arrival.
    pub timeout_ms: u32,
    /// The inference request.
    pub body: Body,
}

/// Why a payload is not a request in an envelope.
#[derive(Debug, thiserror::Error)]
pub enum EnvelopeError {
    /// Neither a JSON object nor a CBOR map.
    #[error("neither a JSON object nor a CBOR map")]
    Unknown,
    /// JSON that is not an envelope.
    #[error("not an envelope: {0}")]
    Json(#[from] serde_json::Error),
    /// CBOR that is not an envelope.
    #[error("not an envelope: {0}")]
    Cbor(#[from] minicbor::decode::Error),
    /// A field that an envelope needs.
    #[error("the envelope has no field {0:?}")]
    Missing(&'static str),
    /// An encoding that the envelope cannot name.
    #[error("encoding {0:?} is none of json, binary, cbor")]
    Encoding(String),
    /// A body that is not base64.
    #[error("the body is not base64: {0}")]
    Base64(#[from] base64::DecodeError),
    /// An envelope whose sender can be told what is wrong with it.
    #[error("{source}")]
    Answerable {
        /// How the envelope was encoded.
        form: Form,
        /// Topic for the answer.
        reply: String,
        /// The sender's mark.
        correlation: String,
        /// What is wrong.
        source: Box<EnvelopeError>,
    },
}

#[derive(Deserialize)]
struct WireRequest<'a> {
    reply: String,
    correlation: String,
    timeout_ms: Option<u32>,
    encoding: Option<String>,
    header_length: Option<usize>,
    #[serde(borrow)]
    body: Option<&'a RawValue>,
}

#[derive(Serialize)]
struct WireAnswer<'a> {
    correlation: &'a str,
    status: u16,
    #[serde(skip_serializing_if = "Option::is_none")]
    message: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    retry_after_ms: Option<u64>,
    encoding: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    header_length: Option<usize>,
    body: &'a RawValue,
}

/// An answer for an envelope.
#[derive(Debug, Clone, Copy)]
pub struct Answer<'a> {
    /// The request's mark.
    pub correlation: &'a str,
    /// What became of the request.
    pub status: Status,
    /// What was wrong.
    pub message: Option<&'a str>,
    /// When to try again.
    pub retry_after_ms: Option<u64>,
    /// The answer's body.
    pub body: &'a Body,
}

impl Request {
    /// Reads an envelope.
    ///
    /// # Errors
    /// [`EnvelopeError`] for whatever is not a whole envelope.
    pub fn decode(payload: &Bytes) -> Result<Self, EnvelopeError> {
        match payload.first() {
            Some(b'{') => decode_json(payload),
            // Major type 5: a map (RFC 8949, section 3.1).
            Some(0xa0..=0xbf) => decode_cbor(payload),
            _ => Err(EnvelopeError::Unknown),
        }
    }
}

impl Answer<'_> {
    /// Writes the answer in the form of its request.
    #[must_use]
    pub fn encode(&self, form: Form) -> Bytes {
        match form {
            Form::Json => self.encode_json().into(),
            Form::Cbor => self.encode_cbor().into(),
        }
    }

    #[allow(
        clippy::expect_used,
        reason = "texts, numbers and valid JSON always serialise to memory"
    )]
    fn encode_json(&self) -> Vec<u8> {
        let json = match self.body.encoding {
            Encoding::Json => String::from_utf8_lossy(&self.body.bytes).into_owned(),
            Encoding::Binary { .. } | Encoding::Cbor => {
                format!("\"{}\"", STANDARD.encode(&self.body.bytes))
            }
        };
        let body = RawValue::from_string(json).expect("a JSON body or base64 is valid JSON");
        let (encoding, header_length) = name(self.body.encoding);
        serde_json::to_vec(&WireAnswer {
            correlation: self.correlation,
            status: self.status.code(),
            message: self.message,
            retry_after_ms: self.retry_after_ms,
            encoding,
            header_length,
            body: &body,
        })
        .expect("plain values serialise")
    }

    fn encode_cbor(&self) -> Vec<u8> {
        let (encoding, header_length) = name(self.body.encoding);
        let mut bytes = Vec::with_capacity(128 + self.body.bytes.len());
        let mut e = Encoder::new(&mut bytes);
        let fields = 4
            + u64::from(self.message.is_some())
            + u64::from(self.retry_after_ms.is_some())
            + u64::from(header_length.is_some());
        let written = (|| {
            e.map(fields)?
                .str("correlation")?
                .str(self.correlation)?
                .str("status")?
                .u16(self.status.code())?;
            if let Some(message) = self.message {
                e.str("message")?.str(message)?;
            }
            if let Some(retry_after_ms) = self.retry_after_ms {
                e.str("retry_after_ms")?.u64(retry_after_ms)?;
            }
            e.str("encoding")?.str(encoding)?;
            if let Some(header_length) = header_length {
                e.str("header_length")?.u64(header_length as u64)?;
            }
            e.str("body")?.bytes(&self.body.bytes)?;
            Ok::<_, minicbor::encode::Error<std::convert::Infallible>>(())
        })();
        debug_assert!(written.is_ok(), "a vector takes all");
        bytes
    }
}

fn name(encoding: Encoding) -> (&'static str, Option<usize>) {
    match encoding {
        Encoding::Json => ("json", None),
        Encoding::Binary { header_length } => ("binary", Some(header_length)),
        Encoding::Cbor => ("cbor", None),
    }
}

fn encoding(name: &str, header_length: Option<usize>) -> Result<Encoding, EnvelopeError> {
    match name {
        "json" => Ok(Encoding::Json),
        "binary" => Ok(Encoding::Binary {
            header_length: header_length.ok_or(EnvelopeError::Missing("header_length"))?,
        }),
        "cbor" => Ok(Encoding::Cbor),
        other => Err(EnvelopeError::Encoding(other.chars().take(64).collect())),
    }
}

fn decode_json(payload: &[u8]) -> Result<Request, EnvelopeError> {
    let wire: WireRequest<'_> = serde_json::from_slice(payload)?;
    let missing = EnvelopeError::Missing;
    let content = || {
        let raw = wire.body.ok_or(missing("body"))?.get();
        let name = wire.encoding.as_deref().ok_or(missing("encoding"))?;
        let encoding = encoding(name, wire.header_length)?;
        let bytes = match encoding {
            Encoding::Json => Bytes::copy_from_slice(raw.as_bytes()),
            Encoding::Binary { .. } | Encoding::Cbor => {
                let text: String = serde_json::from_str(raw)?;
                STANDARD.decode(text)?.into()
            }
        };
        let timeout_ms = wire.timeout_ms.ok_or(missing("timeout_ms"))?;
        Ok((timeout_ms, Body { bytes, encoding }))
    };
    let content = content();
    request(Form::Json, wire.reply, wire.correlation, content)
}

fn decode_cbor(payload: &Bytes) -> Result<Request, EnvelopeError> {
    let mut d = Decoder::new(payload);
    let (mut reply, mut correlation, mut timeout_ms) = (None, None, None);
    let (mut encoding_name, mut header_length, mut body) = (None, None, None);
    let fields = d
        .map()?
        .ok_or_else(|| minicbor::decode::Error::message("indefinite lengths are not allowed"))?;
    for _ in 0..fields {
        match d.str()? {
            "reply" => reply = Some(d.str()?),
            "correlation" => correlation = Some(d.str()?),
            "timeout_ms" => timeout_ms = Some(d.u32()?),
            "encoding" => encoding_name = Some(d.str()?),
            "header_length" => header_length = Some(d.u32()?),
            "body" => body = Some(d.bytes()?),
            _ => d.skip()?,
        }
    }
    let missing = EnvelopeError::Missing;
    let content = || {
        let header_length = header_length.and_then(|length| usize::try_from(length).ok());
        let name = encoding_name.ok_or(missing("encoding"))?;
        let body = Body {
            bytes: payload.slice_ref(body.ok_or(missing("body"))?),
            encoding: encoding(name, header_length)?,
        };
        Ok((timeout_ms.ok_or(missing("timeout_ms"))?, body))
    };
    request(
        Form::Cbor,
        reply.ok_or(missing("reply"))?.to_owned(),
        correlation.ok_or(missing("correlation"))?.to_owned(),
        content(),
    )
}

/// The request, or what is wrong with its content together with who can be told.
fn request(
    form: Form,
    reply: String,
    correlation: String,
    content: Result<(u32, Body), EnvelopeError>,
) -> Result<Request, EnvelopeError> {
    match content {
        Ok((timeout_ms, body)) => Ok(Request {
            form,
            reply,
            correlation,
            timeout_ms,
            body,
        }),
        Err(source) => Err(EnvelopeError::Answerable {
            form,
            reply,
            correlation,
            source: Box::new(source),
        }),
    }
}
