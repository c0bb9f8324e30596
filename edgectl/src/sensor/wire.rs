//! Between rows of data and MQTT messages: what a request looks like, and what an answer says.

use bytes::Bytes;
use edge_protocol::{
    Id, Status,
    limit::REQUEST_MAX_BYTES,
    oip::{Answer, Encoding, Inputs, OipError, Request, Tensor, TensorError, WantedOutput},
    property,
    sensor::{Correlation, Properties},
    topic::{InferTopic, ReplyRoot, Target},
};
use rumqttc::v5::mqttbytes::v5::{Publish, PublishProperties};

use super::{
    dataset::Dataset,
    ledger::{BAD_ANSWER, Send, Verdict},
};

/// Longest part of a foreign message that is kept, in characters.
const MESSAGE_MAX_CHARS: usize = 200;

/// To whom requests go, and how they are written.
#[derive(Debug, Clone)]
pub struct Address {
    /// Region of the box and the sensor.
    pub region: Id,
    /// One box, or any that serves the model.
    pub box_id: Option<Id>,
    /// The model.
    pub model: Id,
    /// The sensor's own name.
    pub client: Id,
    /// Name of the model's input.
    pub input: String,
    /// Name of the model's output that is compared with the label.
    pub label_output: String,
    /// Encoding of requests; the header length of the binary one is ignored.
    pub encoding: Encoding,
}

/// Why a row cannot be sent.
#[derive(Debug, thiserror::Error)]
pub enum WireError {
    /// The row makes no tensor.
    #[error("the data makes no input {input:?}")]
    Tensor {
        /// Name of the input.
        input: String,
        /// Why.
        #[source]
        source: TensorError,
    },
    /// The encoding cannot carry it.
    #[error("cannot encode a request")]
    Encode(#[from] OipError),
    /// A box would refuse it.
    #[error(
        "a request with {values} values has {bytes} bytes, more than the {REQUEST_MAX_BYTES} that a box takes; use --encoding binary or smaller rows"
    )]
    TooLarge {
        /// Values of a row.
        values: usize,
        /// Encoded size.
        bytes: usize,
    },
}

/// The messages of one run.
#[derive(Debug)]
pub struct Wire {
    topic: String,
    reply_topic: String,
    reply_filter: String,
    label_output: String,
    /// Tells this run's answers from those to an earlier run of the same client.
    run: u64,
    messages: Vec<Message>,
}

#[derive(Debug)]
struct Message {
    body: Bytes,
    encoding: Encoding,
    label: Option<i64>,
}

impl Wire {
    /// Encodes every row once; `run` is a random number.
    ///
    /// # Errors
    /// [`WireError`] when a row cannot be sent.
    pub fn new(address: &Address, data: &Dataset, run: u64) -> Result<Self, WireError> {
        let Address { region, client, .. } = address;
        let topic = InferTopic {
            region: region.as_str(),
            target: address
                .box_id
                .as_ref()
                .map_or(Target::Any, |id| Target::Box(id.as_str())),
            model: address.model.as_str(),
            client: client.as_str(),
        };
        let reply_root = ReplyRoot {
            region: region.as_str(),
            client: client.as_str(),
        };
        // Without labels nothing is compared, so the model need not have such an output.
        let outputs = if data.is_labelled() {
            vec![WantedOutput {
                name: address.label_output.clone(),
                binary: None,
                classification: None,
            }]
        } else {
            Vec::new()
        };
        let encode = |row: &super::dataset::Row| {
            let shape = vec![1, row.values.len() as u64];
            let tensor =
                Tensor::from_f32(&address.input, shape, &row.values).map_err(|source| {
                    WireError::Tensor {
                        input: address.input.clone(),
                        source,
                    }
                })?;
            let request = Request {
                id: None,
                timeout_us: None,
                priority: None,
                binary_output: matches!(address.encoding, Encoding::Binary { .. }),
                inputs: Inputs::Named(vec![tensor]),
                outputs: outputs.clone(),
            };
            let body = request.encode(address.encoding)?;
            if body.bytes.len() > REQUEST_MAX_BYTES {
                return Err(WireError::TooLarge {
                    values: row.values.len(),
                    bytes: body.bytes.len(),
                });
            }
            Ok(Message {
                body: body.bytes,
                encoding: body.encoding,
                label: row.label,
            })
        };
        Ok(Self {
            topic: topic.to_string(),
            reply_topic: format!("{reply_root}/sense"),
            reply_filter: format!("{reply_root}/#"),
            label_output: address.label_output.clone(),
            run,
            messages: data.rows.iter().map(encode).collect::<Result<_, _>>()?,
        })
    }

    /// Where requests go.
    #[must_use]
    pub fn topic(&self) -> &str {
        &self.topic
    }

    /// What to subscribe to for the answers.
    #[must_use]
    pub fn reply_filter(&self) -> &str {
        &self.reply_filter
    }

    /// Body and properties of a request; `None` without rows.
    #[must_use]
    pub fn request(&self, send: Send) -> Option<(Bytes, PublishProperties)> {
        let message = self.message(send.number)?;
        let user_properties = match message.encoding {
            Encoding::Binary { header_length } => vec![(
                property::INFERENCE_HEADER_CONTENT_LENGTH.to_owned(),
                header_length.to_string(),
            )],
            Encoding::Json | Encoding::Cbor => Vec::new(),
        };
        let properties = PublishProperties {
            message_expiry_interval: Some(send.expiry_s),
            response_topic: Some(self.reply_topic.clone()),
            correlation_data: Some(self.correlation(send.number).to_string().into()),
            content_type: Some(message.encoding.content_type().to_owned()),
            user_properties,
            ..PublishProperties::default()
        };
        Some((message.body.clone(), properties))
    }

    /// Which request an answer is for, and what it says; `None` for what answers no request of this run.
    #[must_use]
    pub fn read(&self, answer: &Publish) -> Option<(u64, Verdict)> {
        let properties = answer.properties.as_ref()?;
        let number = self.number(properties.correlation_data.as_ref()?)?;
        let label = self.message(number)?.label;
        let verdict = self
            .judge(properties, &answer.payload, label)
            .unwrap_or_else(|message| Verdict::Failed {
                reason: BAD_ANSWER.to_owned(),
                message: message.chars().take(MESSAGE_MAX_CHARS).collect(),
            });
        Some((number, verdict))
    }

    fn judge(
        &self,
        properties: &PublishProperties,
        body: &Bytes,
        label: Option<i64>,
    ) -> Result<Verdict, String> {
        let user = properties.user_properties.iter();
        let content_type = properties.content_type.as_deref();
        let said = Properties::new(content_type, user.map(|(k, v)| (k.as_str(), v.as_str())));
        let status = said
            .status
            .ok_or("the answer has no user property \"status\"")?;
        let message = || said.message.chars().take(MESSAGE_MAX_CHARS).collect();
        match Status::from_code(status) {
            Some(Status::Ok) => {
                let encoding = Encoding::of(said.content_type, said.header_length)
                    .map_err(|error| error.to_string())?;
                let answer = Answer::decode(body, encoding).map_err(|error| error.to_string())?;
                let is_correct = label
                    .map(|label| Ok::<_, String>(self.answered_label(&answer)? == label))
                    .transpose()?;
                Ok(Verdict::Answered { is_correct })
            }
            Some(known) if known.is_retryable() => Ok(Verdict::NotNow {
                status,
                retry_after: said.retry_after,
                message: message(),
            }),
            _ => Ok(Verdict::Failed {
                reason: status.to_string(),
                message: message(),
            }),
        }
    }

    fn answered_label(&self, answer: &Answer) -> Result<i64, String> {
        let name = &self.label_output;
        let output = answer.output(name).ok_or_else(|| {
            format!("the answer has no output {name:?}; name the right one with --label-output")
        })?;
        output
            .to_i64()
            .and_then(|values| values.first().copied())
            .ok_or_else(|| format!("output {name:?} holds no whole number"))
    }

    /// Rows are taken in turn, and begun again at the end.
    fn message(&self, number: u64) -> Option<&Message> {
        let rows = u64::try_from(self.messages.len()).ok()?;
        let row = usize::try_from(number.checked_rem(rows)?).ok()?;
        self.messages.get(row)
    }

    fn correlation(&self, number: u64) -> Correlation {
        Correlation {
            run: self.run,
            number,
        }
    }

    fn number(&self, correlation: &[u8]) -> Option<u64> {
        let correlation = Correlation::parse(correlation)?;
        (correlation.run == self.run).then_some(correlation.number)
    }
}

#[cfg(test)]
mod tests {
    use edge_protocol::{Datatype, limit::CORRELATION_MAX_BYTES, oip::Body};
    use rumqttc::v5::mqttbytes::QoS;

    use std::time::Duration;

    use super::*;
    use crate::sensor::dataset::Row;

    fn address(encoding: Encoding) -> Address {
        Address {
            region: Id::new("lab").unwrap(),
            box_id: None,
            model: Id::new("digits").unwrap(),
            client: Id::new("cam-1").unwrap(),
            input: "pixels".to_owned(),
            label_output: "label".to_owned(),
            encoding,
        }
    }

    fn data() -> Dataset {
        let row = |label, value| Row {
            label: Some(label),
            values: vec![value, 0.5],
        };
        Dataset {
            rows: vec![row(3, 1.0), row(4, 2.0)],
            width: 2,
        }
    }

    fn answer_to(
        properties: &PublishProperties,
        body: Body,
        status: &str,
        more: &[(&str, &str)],
    ) -> Publish {
        let mut user: Vec<(String, String)> = more
            .iter()
            .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
            .collect();
        user.push((property::STATUS.to_owned(), status.to_owned()));
        if let Encoding::Binary { header_length } = body.encoding {
            user.push((
                property::INFERENCE_HEADER_CONTENT_LENGTH.to_owned(),
                header_length.to_string(),
            ));
        }
        let answer = PublishProperties {
            correlation_data: properties.correlation_data.clone(),
            content_type: Some(body.encoding.content_type().to_owned()),
            user_properties: user,
            ..PublishProperties::default()
        };
        Publish::new("r", QoS::AtLeastOnce, body.bytes, Some(answer))
    }

    /// What a box answers to the request with these properties and this body.
    fn infer(body: &Bytes, properties: &PublishProperties, label: i64) -> Publish {
        let header_length = properties.user_properties.first().map(|(_, v)| v.as_str());
        let encoding =
            Encoding::from_properties(properties.content_type.as_deref(), header_length).unwrap();
        let request = Request::decode(body, encoding).unwrap();
        let data = Bytes::copy_from_slice(&label.to_le_bytes());
        let answer = Answer {
            model_name: "digits".to_owned(),
            model_version: None,
            id: None,
            outputs: vec![Tensor::new("label".to_owned(), Datatype::Int64, vec![1], data).unwrap()],
        };
        let body = answer.encode(&request, encoding).unwrap();
        answer_to(properties, body, "200", &[])
    }

    #[test]
    fn every_encoding_goes_out_and_comes_back() {
        for encoding in [
            Encoding::Json,
            Encoding::Binary { header_length: 0 },
            Encoding::Cbor,
        ] {
            let wire = Wire::new(&address(encoding), &data(), 5).unwrap();
            assert_eq!(wire.topic(), "edge/v1/lab/any/infer/digits/cam-1");
            // The fourth request carries the second row again.
            let send = Send {
                number: 3,
                expiry_s: 9,
            };
            let (body, properties) = wire.request(send).unwrap();
            assert_eq!(properties.message_expiry_interval, Some(9));
            assert_eq!(
                properties.response_topic.as_deref(),
                Some("edge/v1/lab/reply/cam-1/sense")
            );
            for (label, is_correct) in [(4, Some(true)), (3, Some(false))] {
                let read = wire.read(&infer(&body, &properties, label));
                assert_eq!(read, Some((3, Verdict::Answered { is_correct })));
            }
        }
    }

    #[test]
    fn correlations_are_short_and_of_this_run_only() {
        let wire = Wire::new(&address(Encoding::Json), &data(), u64::MAX).unwrap();
        let send = Send {
            number: u64::MAX,
            expiry_s: 1,
        };
        let correlation = wire.request(send).unwrap().1.correlation_data.unwrap();
        assert!(correlation.len() <= CORRELATION_MAX_BYTES);
        assert_eq!(wire.number(&correlation), Some(u64::MAX));
        let other = Wire::new(&address(Encoding::Json), &data(), 1).unwrap();
        assert_eq!(other.number(&correlation), None);
        for foreign in [&b""[..], b"x", b"-", b"\xff-1", b"ffffffffffffffff--1"] {
            assert_eq!(wire.number(foreign), None);
        }
    }

    #[test]
    fn refusals_and_failures_keep_their_words() {
        let wire = Wire::new(&address(Encoding::Json), &data(), 5).unwrap();
        let send = Send {
            number: 0,
            expiry_s: 1,
        };
        let (_, properties) = wire.request(send).unwrap();
        let error = || Body {
            bytes: "{\"error\":\"x\"}".into(),
            encoding: Encoding::Json,
        };
        let read = |status: &str, more: &[(&str, &str)]| {
            wire.read(&answer_to(&properties, error(), status, more))
                .unwrap()
                .1
        };
        assert_eq!(
            read(
                "503",
                &[("retry-after-ms", "20"), ("status-message", "full")]
            ),
            Verdict::NotNow {
                status: 503,
                retry_after: Some(Duration::from_millis(20)),
                message: "full".to_owned()
            }
        );
        assert_eq!(
            read("400", &[("status-message", "wrong shape")]),
            Verdict::Failed {
                reason: "400".to_owned(),
                message: "wrong shape".to_owned()
            }
        );
        for (status, expected) in [
            ("200", "Open Inference Protocol"),
            ("fine", "no user property"),
        ] {
            let Verdict::Failed { reason, message } = read(status, &[]) else {
                panic!("{status} is no failure");
            };
            assert_eq!(reason, BAD_ANSWER);
            assert!(message.contains(expected), "{message}");
        }
    }
}
