//! Sparkplug B 3.0: topics, payloads and the host application's state.
//!
//! Field numbers are those of `sparkplug_b.proto` (specification, section 6.4.1); data sets, templates, metadata and
//! property sets are skipped when read and never written.

use core::fmt;

use prost::Message;

use crate::{Id, IdError, id, limit};

/// The metric by which a host asks for a new birth (section 6.4.19).
pub const REBIRTH: &str = "Node Control/Rebirth";
/// The metric that pairs a birth with its death (section 6.4.16).
pub const BD_SEQ: &str = "bdSeq";

/// Message types of an edge node (section 4.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum MessageType {
    /// Birth.
    NodeBirth,
    /// Data.
    NodeData,
    /// Death: the will of the connection.
    NodeDeath,
    /// Command to the node.
    NodeCommand,
}

impl MessageType {
    /// All types.
    pub const ALL: [Self; 4] = [
        Self::NodeBirth,
        Self::NodeData,
        Self::NodeDeath,
        Self::NodeCommand,
    ];

    /// Name in a topic.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::NodeBirth => "NBIRTH",
            Self::NodeData => "NDATA",
            Self::NodeDeath => "NDEATH",
            Self::NodeCommand => "NCMD",
        }
    }
}

/// Topic of an edge node: `spBv1.0/{region}/{NBIRTH|NDATA|NDEATH|NCMD}/{box}`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NodeTopic<'a> {
    /// Group id: the region.
    pub region: &'a str,
    /// Message type.
    pub message_type: MessageType,
    /// Edge node id: the box.
    pub box_id: &'a str,
}

/// Why a topic is not one of an edge node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NodeTopicError {
    /// Another kind of topic.
    #[error("not a Sparkplug topic of an edge node")]
    Unknown,
    /// Group or edge node id is not a valid name.
    #[error("group or edge node id is not a valid name")]
    Name(#[source] IdError),
}

impl<'a> NodeTopic<'a> {
    /// Reads a topic.
    ///
    /// # Errors
    /// [`NodeTopicError`] for other topics and bad names.
    pub fn parse(topic: &'a str) -> Result<Self, NodeTopicError> {
        let mut levels = topic.split('/');
        let (Some("spBv1.0"), Some(region), Some(message_type), Some(box_id), None) = (
            levels.next(),
            levels.next(),
            levels.next(),
            levels.next(),
            levels.next(),
        ) else {
            return Err(NodeTopicError::Unknown);
        };
        let message_type = MessageType::ALL
            .into_iter()
            .find(|it| it.name() == message_type)
            .ok_or(NodeTopicError::Unknown)?;
        id::check(region).map_err(NodeTopicError::Name)?;
        id::check(box_id).map_err(NodeTopicError::Name)?;
        Ok(Self {
            region,
            message_type,
            box_id,
        })
    }
}

impl fmt::Display for NodeTopic<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            region,
            message_type,
            box_id,
        } = self;
        write!(f, "spBv1.0/{region}/{}/{box_id}", message_type.name())
    }
}

/// Topic of a host application's state: `spBv1.0/STATE/{host}` (section 4.2).
#[must_use]
pub fn state_topic(host: &Id) -> String {
    format!("spBv1.0/STATE/{host}")
}

/// The host application's state, as JSON in a retained message (section 5.12).
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct HostState {
    /// Whether the host is there.
    pub online: bool,
    /// Milliseconds since 1970; the death carries the birth's.
    pub timestamp: u64,
}

/// A Sparkplug payload.
#[derive(Clone, PartialEq, Message)]
pub struct Payload {
    /// Milliseconds since 1970 when the message was made.
    #[prost(uint64, optional, tag = "1")]
    pub timestamp: Option<u64>,
    /// The metrics.
    #[prost(message, repeated, tag = "2")]
    pub metrics: Vec<Metric>,
    /// Sequence number, 0 to 255, 0 in a birth, absent in a death.
    #[prost(uint64, optional, tag = "3")]
    pub seq: Option<u64>,
}

/// A metric of a [`Payload`].
#[derive(Clone, PartialEq, Message)]
pub struct Metric {
    /// Name; may be absent in data when the birth gave an alias.
    #[prost(string, optional, tag = "1")]
    pub name: Option<String>,
    /// Number that stands for the name, given in the birth.
    #[prost(uint64, optional, tag = "2")]
    pub alias: Option<u64>,
    /// Milliseconds since 1970 when the value was taken.
    #[prost(uint64, optional, tag = "3")]
    pub timestamp: Option<u64>,
    /// Code of the datatype (section 6.4.16, table of data types).
    #[prost(uint32, optional, tag = "4")]
    pub datatype: Option<u32>,
    /// Taken while the host was away and sent later.
    #[prost(bool, optional, tag = "5")]
    pub is_historical: Option<bool>,
    /// Whether the value is absent.
    #[prost(bool, optional, tag = "7")]
    pub is_null: Option<bool>,
    /// The value.
    #[prost(oneof = "WireValue", tags = "10, 11, 12, 13, 14, 15, 16")]
    pub value: Option<WireValue>,
}

/// A value as it crosses the wire; [`Value`] is what it means.
#[derive(Clone, PartialEq, prost::Oneof)]
pub enum WireValue {
    /// Integers of up to 32 bits.
    #[prost(uint32, tag = "10")]
    Int(u32),
    /// Integers of 64 bits and times.
    #[prost(uint64, tag = "11")]
    Long(u64),
    /// Single precision.
    #[prost(float, tag = "12")]
    Float(f32),
    /// Double precision.
    #[prost(double, tag = "13")]
    Double(f64),
    /// Boolean.
    #[prost(bool, tag = "14")]
    Boolean(bool),
    /// Text.
    #[prost(string, tag = "15")]
    Text(String),
    /// Bytes.
    #[prost(bytes = "vec", tag = "16")]
    Bytes(Vec<u8>),
}

/// Value of a metric.
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(untagged)]
pub enum Value {
    /// True or false.
    Bool(bool),
    /// A number without sign.
    UInt(u64),
    /// A number with sign.
    Int(i64),
    /// A floating-point number.
    Double(f64),
    /// Text.
    Text(String),
}

/// Codes of the data types used here (section 6.4.16).
mod code {
    pub(super) const INT8: u32 = 1;
    pub(super) const INT16: u32 = 2;
    pub(super) const INT32: u32 = 3;
    pub(super) const INT64: u32 = 4;
    pub(super) const UINT64: u32 = 8;
    pub(super) const DOUBLE: u32 = 10;
    pub(super) const BOOLEAN: u32 = 11;
    pub(super) const STRING: u32 = 12;
}

impl Metric {
    /// A named metric taken at `timestamp_ms`.
    #[must_use]
    pub fn new(name: impl Into<String>, value: Value, timestamp_ms: u64) -> Self {
        let (datatype, value) = match value {
            Value::Bool(v) => (code::BOOLEAN, WireValue::Boolean(v)),
            Value::UInt(v) => (code::UINT64, WireValue::Long(v)),
            // Two's complement in an unsigned field (section 6.4.16).
            Value::Int(v) => (code::INT64, WireValue::Long(v.cast_unsigned())),
            Value::Double(v) => (code::DOUBLE, WireValue::Double(v)),
            Value::Text(v) => (code::STRING, WireValue::Text(v)),
        };
        Self {
            name: Some(name.into()),
            alias: None,
            timestamp: Some(timestamp_ms),
            datatype: Some(datatype),
            is_historical: None,
            is_null: None,
            value: Some(value),
        }
    }

    /// What the metric's value means under `datatype`: its own, or where it carries none, its birth's.
    /// `None` for an absent value, bytes, and kinds that this protocol does not use.
    #[must_use]
    pub fn meaning(&self, datatype: Option<u32>) -> Option<Value> {
        if self.is_null == Some(true) {
            return None;
        }
        let datatype = self.datatype.or(datatype);
        Some(match (self.value.as_ref()?, datatype) {
            (WireValue::Int(v), Some(code::INT8 | code::INT16 | code::INT32)) => {
                Value::Int(v.cast_signed().into())
            }
            (WireValue::Int(v), _) => Value::UInt((*v).into()),
            (WireValue::Long(v), Some(code::INT64)) => Value::Int(v.cast_signed()),
            (WireValue::Long(v), _) => Value::UInt(*v),
            (WireValue::Float(v), _) => Value::Double((*v).into()),
            (WireValue::Double(v), _) => Value::Double(*v),
            (WireValue::Boolean(v), _) => Value::Bool(*v),
            (WireValue::Text(v), _) => Value::Text(v.clone()),
            (WireValue::Bytes(_), _) => return None,
        })
    }
}

/// Why bytes are not a payload that is accepted.
#[derive(Debug, thiserror::Error)]
pub enum PayloadError {
    /// More bytes than allowed.
    #[error("the payload has {0} bytes, at most {max} are allowed", max = limit::SPARKPLUG_MAX_BYTES)]
    TooLarge(usize),
    /// More metrics than allowed.
    #[error("the payload has {0} metrics, at most {max} are allowed", max = limit::SPARKPLUG_METRICS_MAX)]
    TooManyMetrics(usize),
    /// Not protobuf.
    #[error("not a Sparkplug payload: {0}")]
    Decode(#[from] prost::DecodeError),
}

impl Payload {
    /// Reads a payload.
    ///
    /// # Errors
    /// [`PayloadError`] for what is not one, or is too large.
    pub fn read(bytes: &[u8]) -> Result<Self, PayloadError> {
        if bytes.len() > limit::SPARKPLUG_MAX_BYTES {
            return Err(PayloadError::TooLarge(bytes.len()));
        }
        let payload = Self::decode(bytes)?;
        if payload.metrics.len() > limit::SPARKPLUG_METRICS_MAX {
            return Err(PayloadError::TooManyMetrics(payload.metrics.len()));
        }
        Ok(payload)
    }

    /// The payload's bytes.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        self.encode_to_vec()
    }

    /// The metric of this name.
    #[must_use]
    pub fn metric(&self, name: &str) -> Option<&Metric> {
        self.metrics
            .iter()
            .find(|metric| metric.name.as_deref() == Some(name))
    }
}
