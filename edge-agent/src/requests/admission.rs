//! Reads what arrived on a request topic: who sent it, where its answer goes, until when, in which encoding.
//! Pure. The body is read on an inference thread; only an envelope is unwrapped here.

use std::time::Duration;

use bytes::Bytes;
use edge_protocol::{
    Id, Status,
    envelope::{self, EnvelopeError, Form},
    limit,
    oip::Encoding,
    property,
    topic::{InferTopic, OpTopic, ReplyRoot, Target},
};
use rumqttc::v5::mqttbytes::{
    QoS,
    v5::{Publish, PublishProperties},
};

/// Bodies up to this are copied out of the packet, in a microsecond.
const COPIED_MAX_BYTES: usize = 32 << 10;

/// Where an answer goes, and in which clothes.
#[derive(Debug, Clone, PartialEq)]
pub struct ReplyTo {
    /// Topic below the sender's reply root.
    pub topic: String,
    /// MQTT 5: the request's correlation data.
    pub correlation: Bytes,
    /// MQTT 3.1.1: the answer is wrapped as the request was.
    pub envelope: Option<Form>,
    /// Quality of service of the request.
    pub qos: QoS,
    /// Encoding of the request's body, which a failure's body follows.
    pub encoding: Encoding,
}

/// What a request asks for.
#[derive(Debug, Clone, PartialEq)]
pub enum Purpose {
    /// Inference with this model.
    Infer(Id),
    /// The operation of this name, which there need not be.
    Operate(Id),
}

/// A request whose frame is in order.
#[derive(Debug, Clone, PartialEq)]
pub struct Request {
    /// What it asks for.
    pub purpose: Purpose,
    /// The sender.
    pub client: Id,
    /// Where the answer goes.
    pub reply: ReplyTo,
    /// Time from arrival until the answer is of no use.
    pub expires_in: Duration,
    /// The body, encoded as `reply.encoding` says.
    pub body: Bytes,
}

/// What an arrival is.
#[derive(Debug, PartialEq)]
pub enum Admission {
    /// A request to run.
    Accept(Request),
    /// A request to refuse with an answer.
    Refuse {
        /// What was asked for.
        purpose: Purpose,
        /// Where the answer goes.
        reply: ReplyTo,
        /// Why, as a code.
        status: Status,
        /// Why, in words.
        message: String,
    },
    /// Something that cannot be answered.
    Drop(DropReason),
}

/// Why an arrival gets no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum DropReason {
    /// The topic is not one of a request to this box.
    Topic,
    /// There is no Response Topic, and the payload is no envelope.
    NoResponseTopic,
    /// The Response Topic is not below the sender's own reply root.
    ForeignResponseTopic,
    /// The Response Topic has a wildcard.
    WildcardResponseTopic,
}

impl DropReason {
    /// All reasons.
    pub const ALL: [Self; 4] = [
        Self::Topic,
        Self::NoResponseTopic,
        Self::ForeignResponseTopic,
        Self::WildcardResponseTopic,
    ];

    /// Name in telemetry and logs.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Topic => "topic",
            Self::NoResponseTopic => "no-response-topic",
            Self::ForeignResponseTopic => "foreign-response-topic",
            Self::WildcardResponseTopic => "wildcard-response-topic",
        }
    }
}

/// Reads what arrived on one of the topics of `box_id` in `region`.
#[must_use]
pub fn read(publish: &Publish, region: &Id, box_id: &Id) -> Admission {
    let Some((purpose, client)) = sender(&publish.topic, region, box_id) else {
        return Admission::Drop(DropReason::Topic);
    };
    let absent = PublishProperties::default();
    let properties = publish.properties.as_ref().unwrap_or(&absent);
    match &properties.response_topic {
        Some(topic) => match check_reply(region, &client, topic) {
            Ok(()) => read_mqtt5(publish, properties, topic, purpose, client),
            Err(reason) => Admission::Drop(reason),
        },
        None => read_envelope(publish, region, purpose, client),
    }
}

fn sender(topic: &[u8], region: &Id, box_id: &Id) -> Option<(Purpose, Id)> {
    let topic = std::str::from_utf8(topic).ok()?;
    if let Ok(topic) = OpTopic::parse(topic) {
        let is_for_us = topic.region == region.as_str() && topic.box_id == box_id.as_str();
        let purpose = Purpose::Operate(Id::new(topic.operation).ok()?);
        return Some((purpose, Id::new(topic.client).ok()?)).filter(|_| is_for_us);
    }
    let topic = InferTopic::parse(topic).ok()?;
    let is_for_us = topic.region == region.as_str()
        && match topic.target {
            Target::Any => true,
            Target::Box(id) => id == box_id.as_str(),
        };
    if is_for_us {
        let purpose = Purpose::Infer(Id::new(topic.model).ok()?);
        Some((purpose, Id::new(topic.client).ok()?))
    } else {
        None
    }
}

fn check_reply(region: &Id, client: &Id, topic: &str) -> Result<(), DropReason> {
    let root = ReplyRoot {
        region: region.as_str(),
        client: client.as_str(),
    };
    root.check(topic).map_err(|error| match error {
        edge_protocol::topic::TopicError::Wildcard => DropReason::WildcardResponseTopic,
        _ => DropReason::ForeignResponseTopic,
    })
}

fn read_mqtt5(
    publish: &Publish,
    properties: &PublishProperties,
    reply_topic: &str,
    purpose: Purpose,
    client: Id,
) -> Admission {
    let header_length = properties
        .user_properties
        .iter()
        .find(|(name, _)| name == property::INFERENCE_HEADER_CONTENT_LENGTH)
        .map(|(_, value)| value.as_str());
    let encoding = match (&purpose, properties.content_type.as_deref()) {
        // Most operations have no body that could be of any type.
        (Purpose::Operate(_), None) => Ok(Encoding::Json),
        (_, content_type) => Encoding::from_properties(content_type, header_length),
    };
    let reply = ReplyTo {
        topic: reply_topic.to_owned(),
        // A copy, since the client library's bytes keep the whole packet in memory.
        correlation: properties
            .correlation_data
            .as_deref()
            .map(Bytes::copy_from_slice)
            .unwrap_or_default(),
        envelope: None,
        qos: publish.qos,
        encoding: *encoding.as_ref().unwrap_or(&Encoding::Json),
    };
    let refuse = |status, message: String| Admission::Refuse {
        purpose: purpose.clone(),
        reply: reply.clone(),
        status,
        message,
    };
    if let Err(error) = encoding {
        return refuse(Status::BadRequest, error.to_string());
    }
    let Some(expiry_s) = properties.message_expiry_interval else {
        return refuse(
            Status::BadRequest,
            "the request needs a message expiry interval".into(),
        );
    };
    let expires_in = Duration::from_secs(expiry_s.into());
    check(Request {
        purpose,
        client,
        reply: reply.clone(),
        expires_in,
        body: own(&publish.payload),
    })
}

/// A short body in memory of its own: the client library's bytes keep a whole buffer of packets, which is much for a body
/// that waits.
fn own(payload: &Bytes) -> Bytes {
    if payload.len() <= COPIED_MAX_BYTES {
        Bytes::copy_from_slice(payload)
    } else {
        payload.clone()
    }
}

fn read_envelope(publish: &Publish, region: &Id, purpose: Purpose, client: Id) -> Admission {
    // Base64 grows by a third, and an envelope that is larger than that cannot hold a request that is not too large.
    if publish.payload.len() > limit::REQUEST_MAX_BYTES / 3 * 4 + 4096 {
        return Admission::Drop(DropReason::NoResponseTopic);
    }
    let envelope = match envelope::Request::decode(&publish.payload) {
        Ok(envelope) => envelope,
        Err(EnvelopeError::Answerable {
            form,
            reply,
            correlation,
            source,
        }) if check_reply(region, &client, &reply).is_ok() => {
            return Admission::Refuse {
                purpose,
                reply: ReplyTo {
                    topic: reply,
                    correlation: correlation.into(),
                    envelope: Some(form),
                    qos: publish.qos,
                    encoding: Encoding::Json,
                },
                status: Status::BadRequest,
                message: source.to_string(),
            };
        }
        Err(EnvelopeError::Answerable { .. }) => {
            return Admission::Drop(DropReason::ForeignResponseTopic);
        }
        Err(_) => return Admission::Drop(DropReason::NoResponseTopic),
    };
    if let Err(reason) = check_reply(region, &client, &envelope.reply) {
        return Admission::Drop(reason);
    }
    check(Request {
        purpose,
        client,
        reply: ReplyTo {
            topic: envelope.reply,
            correlation: envelope.correlation.into(),
            envelope: Some(envelope.form),
            qos: publish.qos,
            encoding: envelope.body.encoding,
        },
        expires_in: Duration::from_millis(envelope.timeout_ms.into()),
        body: envelope.body.bytes,
    })
}

/// The checks that both forms share.
fn check(request: Request) -> Admission {
    let correlation_bytes = request.reply.correlation.len();
    let (status, message) = if correlation_bytes == 0 {
        (
            Status::BadRequest,
            "the request needs correlation data".to_owned(),
        )
    } else if correlation_bytes > limit::CORRELATION_MAX_BYTES {
        (
            Status::BadRequest,
            format!(
                "the correlation data has {correlation_bytes} bytes, at most {} are allowed",
                limit::CORRELATION_MAX_BYTES
            ),
        )
    } else if request.expires_in > Duration::from_secs(limit::EXPIRY_MAX_S.into()) {
        (
            Status::BadRequest,
            format!(
                "the request expires in {} s, at most {} s are allowed",
                request.expires_in.as_secs(),
                limit::EXPIRY_MAX_S
            ),
        )
    } else if request.expires_in.is_zero() {
        (
            Status::DeadlinePassed,
            "the request had expired when it arrived".to_owned(),
        )
    } else if request.body.is_empty() && matches!(request.purpose, Purpose::Infer(_)) {
        (Status::BadRequest, "the request is empty".to_owned())
    } else if request.body.len() > limit::REQUEST_MAX_BYTES {
        (
            Status::TooLarge,
            format!(
                "the request has {} bytes, at most {} are allowed",
                request.body.len(),
                limit::REQUEST_MAX_BYTES
            ),
        )
    } else {
        return Admission::Accept(request);
    };
    Admission::Refuse {
        purpose: request.purpose,
        reply: request.reply,
        status,
        message,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(text: &str) -> Id {
        Id::new(text).unwrap()
    }

    fn publish(change: impl FnOnce(&mut Publish, &mut PublishProperties)) -> Publish {
        let mut properties = PublishProperties {
            response_topic: Some("edge/v1/lab/reply/cam-1/a".into()),
            correlation_data: Some("7".into()),
            message_expiry_interval: Some(10),
            content_type: Some(property::CONTENT_TYPE_JSON.into()),
            ..PublishProperties::default()
        };
        let mut publish = Publish::new(
            "edge/v1/lab/any/infer/digits/cam-1",
            QoS::AtLeastOnce,
            "{}",
            None,
        );
        change(&mut publish, &mut properties);
        publish.properties = Some(properties);
        publish
    }

    fn read_it(publish: &Publish) -> Admission {
        read(publish, &id("lab"), &id("box-1"))
    }

    #[test]
    fn accepts_a_request_in_order() {
        let Admission::Accept(request) = read_it(&publish(|_, _| {})) else {
            panic!("a request in order is accepted")
        };
        assert_eq!(request.purpose, Purpose::Infer(id("digits")));
        assert_eq!(request.client, id("cam-1"));
        assert_eq!(request.expires_in, Duration::from_secs(10));
        assert_eq!(request.reply.encoding, Encoding::Json);
    }

    #[test]
    fn drops_what_it_must_not_answer() {
        let cases: [(&str, DropReason, Publish); 6] = [
            (
                "another region",
                DropReason::Topic,
                publish(|p, _| p.topic = "edge/v1/west/any/infer/digits/cam-1".into()),
            ),
            (
                "another box",
                DropReason::Topic,
                publish(|p, _| p.topic = "edge/v1/lab/box/box-2/infer/digits/cam-1".into()),
            ),
            (
                "no response topic",
                DropReason::NoResponseTopic,
                publish(|_, properties| properties.response_topic = None),
            ),
            (
                "a wildcard",
                DropReason::WildcardResponseTopic,
                publish(|_, p| p.response_topic = Some("edge/v1/lab/reply/cam-1/#".into())),
            ),
            (
                "another client's reply topic",
                DropReason::ForeignResponseTopic,
                publish(|_, p| p.response_topic = Some("edge/v1/lab/reply/cam-2/a".into())),
            ),
            (
                "a command topic",
                DropReason::ForeignResponseTopic,
                publish(|_, p| p.response_topic = Some("edge/v1/lab/box/box-2/op/reboot/x".into())),
            ),
        ];
        for (name, reason, publish) in cases {
            assert_eq!(read_it(&publish), Admission::Drop(reason), "{name}");
        }
    }

    #[test]
    fn refuses_with_the_right_status() {
        let cases: [(&str, Status, Publish); 9] = [
            (
                "no correlation",
                Status::BadRequest,
                publish(|_, p| p.correlation_data = None),
            ),
            (
                "a long correlation",
                Status::BadRequest,
                publish(|_, p| p.correlation_data = Some(vec![0; 65].into())),
            ),
            (
                "no expiry",
                Status::BadRequest,
                publish(|_, p| p.message_expiry_interval = None),
            ),
            (
                "expiry beyond the limit",
                Status::BadRequest,
                publish(|_, p| p.message_expiry_interval = Some(limit::EXPIRY_MAX_S + 1)),
            ),
            (
                "expired on arrival",
                Status::DeadlinePassed,
                publish(|_, p| p.message_expiry_interval = Some(0)),
            ),
            (
                "an unknown content type",
                Status::BadRequest,
                publish(|_, p| p.content_type = Some("text/plain".into())),
            ),
            (
                "binary without header length",
                Status::BadRequest,
                publish(|_, p| p.content_type = Some(property::CONTENT_TYPE_BINARY.into())),
            ),
            (
                "empty",
                Status::BadRequest,
                publish(|p, _| p.payload = Bytes::new()),
            ),
            (
                "too large",
                Status::TooLarge,
                publish(|p, _| p.payload = vec![b' '; limit::REQUEST_MAX_BYTES + 1].into()),
            ),
        ];
        for (name, expected, publish) in cases {
            let Admission::Refuse {
                status, message, ..
            } = read_it(&publish)
            else {
                panic!("{name} is refused")
            };
            assert_eq!(status, expected, "{name}: {message}");
        }
    }

    /// What is kept for the answer must not keep the packet, which may have megabytes.
    #[test]
    fn the_correlation_is_a_copy() {
        let packet = Bytes::from(vec![b'c'; 4096]);
        let publish = publish(|_, p| p.correlation_data = Some(packet.slice(..8)));
        let Admission::Accept(request) = read_it(&publish) else {
            panic!("a request in order is accepted")
        };
        assert_eq!(request.reply.correlation, packet.slice(..8));
        assert!(
            !packet
                .as_ptr_range()
                .contains(&request.reply.correlation.as_ptr())
        );
    }

    #[test]
    fn a_broken_envelope_is_answered_when_it_says_where_to() {
        for (content, expected) in [
            (
                r#""timeout_ms":5,"encoding":"cbor","body":"?""#,
                "not base64",
            ),
            (
                r#""timeout_ms":5,"encoding":"xml","body":1"#,
                "none of json, binary, cbor",
            ),
            (r#""timeout_ms":5,"encoding":"json""#, "no field \"body\""),
            (r#""encoding":"json","body":{}"#, "no field \"timeout_ms\""),
        ] {
            let publish = publish(|p, properties| {
                *properties = PublishProperties::default();
                p.payload = format!(
                    r#"{{"reply":"edge/v1/lab/reply/cam-1/a","correlation":"7",{content}}}"#
                )
                .into();
            });
            let Admission::Refuse {
                status, message, ..
            } = read_it(&publish)
            else {
                panic!("{content} is refused")
            };
            assert_eq!(status, Status::BadRequest);
            assert!(message.contains(expected), "{content}: {message}");
        }
    }

    #[test]
    fn an_envelope_stands_in_for_mqtt_5() {
        let publish = publish(|p, properties| {
            *properties = PublishProperties::default();
            p.payload = r#"{"reply":"edge/v1/lab/reply/cam-1/a","correlation":"7","timeout_ms":500,
                "encoding":"json","body":{"inputs":[]}}"#
                .into();
        });
        let Admission::Accept(request) = read_it(&publish) else {
            panic!("an envelope is accepted")
        };
        assert_eq!(request.expires_in, Duration::from_millis(500));
        assert_eq!(request.reply.envelope, Some(Form::Json));
        assert_eq!(request.body, r#"{"inputs":[]}"#);
    }

    #[test]
    fn an_operation_needs_neither_body_nor_content_type() {
        let topic = |topic: &'static str| {
            publish(move |publish, properties| {
                publish.topic = topic.into();
                publish.payload = Bytes::new();
                properties.content_type = None;
            })
        };
        let own = topic("edge/v1/lab/box/box-1/op/server-live/cam-1");
        let Admission::Accept(request) = read_it(&own) else {
            panic!("accepted")
        };
        assert_eq!(request.purpose, Purpose::Operate(id("server-live")));
        assert_eq!(request.client, id("cam-1"));
        let other = topic("edge/v1/lab/box/box-2/op/server-live/cam-1");
        assert_eq!(read_it(&other), Admission::Drop(DropReason::Topic));
        let foreign = topic("edge/v1/lab/box/box-1/op/server-live/cam-2");
        let refused = Admission::Drop(DropReason::ForeignResponseTopic);
        assert_eq!(read_it(&foreign), refused);
        let infer = topic("edge/v1/lab/box/box-1/infer/digits/cam-1");
        assert!(matches!(
            read_it(&infer),
            Admission::Refuse {
                status: Status::BadRequest,
                ..
            }
        ));
    }
}
