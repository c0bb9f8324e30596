//! Topics: who publishes what, and where the answer goes. A request topic ends in its sender's id, because MQTT
//! tells a subscriber nothing else about who published; access lists tie that level to the sender's certificate.

use core::fmt;

use crate::{Id, IdError, id, limit, text};

/// Group name of the shared subscription by which the boxes of a region share requests.
pub const SHARE_GROUP: &str = "boxes";

/// Why a topic is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TopicError {
    /// Not one of this protocol's request topics.
    #[error("not a request topic of this protocol version")]
    Unknown,
    /// A level is not a valid name.
    #[error("a topic level is not a valid name")]
    Name(#[source] IdError),
    /// A Response Topic that is not below the sender's own reply topic.
    #[error("the response topic must lie below edge/v1/REGION/reply/CLIENT/ of the sender itself")]
    ForeignReply,
    /// A wildcard in a Response Topic, or a character that makes brokers end the publisher's connection.
    #[error("the response topic has a wildcard or a control character")]
    Wildcard,
    /// A topic longer than [`limit::TOPIC_MAX_BYTES`] or deeper than [`limit::TOPIC_LEVELS_MAX`].
    #[error(
        "the topic has more than {bytes} bytes or {levels} levels",
        bytes = limit::TOPIC_MAX_BYTES,
        levels = limit::TOPIC_LEVELS_MAX
    )]
    TooLong,
}

/// Which box shall run a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Target<'a> {
    /// Any box of the region that serves the model.
    Any,
    /// This box.
    Box(&'a str),
}

/// Topic of an inference request:
/// `edge/v1/{region}/any/infer/{model}/{client}` or `edge/v1/{region}/box/{box}/infer/{model}/{client}`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InferTopic<'a> {
    /// The region.
    pub region: &'a str,
    /// The box, or any.
    pub target: Target<'a>,
    /// The model.
    pub model: &'a str,
    /// The sender.
    pub client: &'a str,
}

impl<'a> InferTopic<'a> {
    /// Reads a topic; every level is checked to be a valid name.
    ///
    /// # Errors
    /// [`TopicError::Unknown`] for another topic, [`TopicError::Name`] for a level that is no name.
    pub fn parse(topic: &'a str) -> Result<Self, TopicError> {
        if topic.len() > limit::TOPIC_MAX_BYTES {
            return Err(TopicError::TooLong);
        }
        let rest = topic.strip_prefix("edge/v1/").ok_or(TopicError::Unknown)?;
        let (region, rest) = rest.split_once('/').ok_or(TopicError::Unknown)?;
        let (target, rest) = match rest.split_once('/') {
            Some(("any", rest)) => (Target::Any, rest),
            Some(("box", rest)) => {
                let (box_id, rest) = rest.split_once('/').ok_or(TopicError::Unknown)?;
                id::check(box_id).map_err(TopicError::Name)?;
                (Target::Box(box_id), rest)
            }
            _ => return Err(TopicError::Unknown),
        };
        let rest = rest.strip_prefix("infer/").ok_or(TopicError::Unknown)?;
        let (model, client) = rest.split_once('/').ok_or(TopicError::Unknown)?;
        for name in [region, model, client] {
            id::check(name).map_err(TopicError::Name)?;
        }
        Ok(Self {
            region,
            target,
            model,
            client,
        })
    }
}

impl fmt::Display for InferTopic<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "edge/v1/{}/", self.region)?;
        match self.target {
            Target::Any => f.write_str("any")?,
            Target::Box(box_id) => write!(f, "box/{box_id}")?,
        }
        write!(f, "/infer/{}/{}", self.model, self.client)
    }
}

/// Filter by which a box takes requests addressed to itself.
#[derive(Debug, Clone, Copy)]
pub struct BoxInferFilter<'a> {
    /// The region.
    pub region: &'a Id,
    /// The box.
    pub box_id: &'a Id,
}

impl fmt::Display for BoxInferFilter<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "edge/v1/{}/box/{}/infer/+/+", self.region, self.box_id)
    }
}

/// Filter by which the boxes of a region share the requests for one model.
#[derive(Debug, Clone, Copy)]
pub struct SharedInferFilter<'a> {
    /// The region.
    pub region: &'a Id,
    /// The model.
    pub model: &'a Id,
}

impl fmt::Display for SharedInferFilter<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { region, model } = self;
        write!(
            f,
            "$share/{SHARE_GROUP}/edge/v1/{region}/any/infer/{model}/+"
        )
    }
}

/// Topic of an operation: `edge/v1/{region}/box/{box}/op/{operation}/{client}`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OpTopic<'a> {
    /// The region.
    pub region: &'a str,
    /// The box.
    pub box_id: &'a str,
    /// The operation.
    pub operation: &'a str,
    /// The sender.
    pub client: &'a str,
}

impl<'a> OpTopic<'a> {
    /// Reads a topic; every level is checked to be a valid name.
    ///
    /// # Errors
    /// [`TopicError::Unknown`] for another topic, [`TopicError::Name`] for a level that is no name.
    pub fn parse(topic: &'a str) -> Result<Self, TopicError> {
        if topic.len() > limit::TOPIC_MAX_BYTES {
            return Err(TopicError::TooLong);
        }
        let mut levels = topic
            .strip_prefix("edge/v1/")
            .ok_or(TopicError::Unknown)?
            .split('/');
        let mut next = || levels.next().ok_or(TopicError::Unknown);
        let (region, a_box, box_id, op, operation, client) =
            (next()?, next()?, next()?, next()?, next()?, next()?);
        if a_box != "box" || op != "op" || next().is_ok() {
            return Err(TopicError::Unknown);
        }
        for name in [region, box_id, operation, client] {
            id::check(name).map_err(TopicError::Name)?;
        }
        Ok(Self {
            region,
            box_id,
            operation,
            client,
        })
    }
}

impl fmt::Display for OpTopic<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            region,
            box_id,
            operation,
            client,
        } = self;
        write!(f, "edge/v1/{region}/box/{box_id}/op/{operation}/{client}")
    }
}

/// Filter by which a box takes operations.
#[derive(Debug, Clone, Copy)]
pub struct OpFilter<'a> {
    /// The region.
    pub region: &'a Id,
    /// The box.
    pub box_id: &'a Id,
}

impl fmt::Display for OpFilter<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "edge/v1/{}/box/{}/op/+/+", self.region, self.box_id)
    }
}

/// Root of the topics on which a client gets its answers: `edge/v1/{region}/reply/{client}`.
#[derive(Debug, Clone, Copy)]
pub struct ReplyRoot<'a> {
    /// The region.
    pub region: &'a str,
    /// The client.
    pub client: &'a str,
}

impl ReplyRoot<'_> {
    /// Checks that `topic` lies below this root, so that a sensor cannot make a box publish elsewhere.
    ///
    /// # Errors
    /// [`TopicError`] when it lies elsewhere, is too long or has a wildcard.
    pub fn check(&self, topic: &str) -> Result<(), TopicError> {
        if topic.len() > limit::TOPIC_MAX_BYTES {
            return Err(TopicError::TooLong);
        }
        if topic.contains(|c: char| matches!(c, '+' | '#') || text::is_forbidden(c)) {
            return Err(TopicError::Wildcard);
        }
        if topic.matches('/').count() >= limit::TOPIC_LEVELS_MAX {
            return Err(TopicError::TooLong);
        }
        topic
            .strip_prefix("edge/v1/")
            .and_then(|rest| rest.strip_prefix(self.region))
            .and_then(|rest| rest.strip_prefix("/reply/"))
            .and_then(|rest| rest.strip_prefix(self.client))
            .and_then(|rest| rest.strip_prefix('/'))
            .filter(|rest| !rest.is_empty())
            .map(|_| ())
            .ok_or(TopicError::ForeignReply)
    }
}

impl fmt::Display for ReplyRoot<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "edge/v1/{}/reply/{}", self.region, self.client)
    }
}
