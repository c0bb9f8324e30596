//! The requests of one sensor: which is published now, which message answers which, and that each ends once.

use core::{fmt, fmt::Write as _, time::Duration};

use heapless::{String, Vec};

use super::{
    Attempt, Look, Patience, Properties, attempt,
    envelope::{self, EnvelopeError},
};
use crate::{
    Id, Status,
    compact::{self, BufferFull, CompactError},
    limit, property,
    topic::{InferTopic, ReplyRoot, Target},
};

/// Longest topic of a request: `edge/v1/R/box/B/infer/M/C` with names of 63 bytes.
pub const REQUEST_TOPIC_MAX_BYTES: usize = 8 + 63 + 5 + 63 + 7 + 63 + 1 + 63;
/// Longest topic of an answer to this client: `edge/v1/R/reply/C/a`.
pub const REPLY_TOPIC_MAX_BYTES: usize = 8 + 63 + 7 + 63 + 2;
/// Longest correlation: 16 hexadecimal digits, `-`, and 20 decimal digits.
pub const CORRELATION_TEXT_MAX_BYTES: usize = 16 + 1 + 20;

/// A request's mark: which run of the sensor, and which request in it. ASCII on the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Correlation {
    /// Random for each run, so that answers to an earlier run are known as such.
    pub run: u64,
    /// Number of the request in the run.
    pub number: u64,
}

impl Correlation {
    /// Reads a mark; `None` for any other text.
    #[must_use]
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        let (run, number) = core::str::from_utf8(bytes).ok()?.split_once('-')?;
        Some(Self {
            run: u64::from_str_radix(run, 16).ok()?,
            number: number.parse().ok()?,
        })
    }
}

impl fmt::Display for Correlation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}-{}", self.run, self.number)
    }
}

/// To whom a request goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct To<'a> {
    /// The model.
    pub model: &'a Id,
    /// One box; `None` is any box of the region that serves the model.
    pub box_id: Option<&'a Id>,
}

/// A request's content.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Body<'a> {
    /// What [`compact::Request::encode`] wrote.
    Compact(&'a [u8]),
    /// The elements of a one-input model's input, little-endian in row-major order: no copy, no header.
    Raw(&'a [u8]),
}

impl<'a> Body<'a> {
    const fn bytes(self) -> &'a [u8] {
        match self {
            Self::Compact(bytes) | Self::Raw(bytes) => bytes,
        }
    }
}

/// A request that is to be published now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Send {
    /// Its number, the same for every repeat.
    pub number: u64,
    /// How long an answer is still of use.
    pub remaining: Duration,
}

/// What is to be done now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Due {
    /// Publish this request, for the first time or again.
    Send(Send),
    /// This request has expired. It has ended.
    GivenUp {
        /// Its number.
        number: u64,
        /// The last 429 or 503, where a box refused it; else nobody answered.
        status: Option<u16>,
    },
}

/// A request as MQTT 5 publishes it, at quality of service 1.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Publish<'a> {
    /// Topic.
    pub topic: String<REQUEST_TOPIC_MAX_BYTES>,
    /// Response Topic.
    pub response_topic: String<REPLY_TOPIC_MAX_BYTES>,
    /// Correlation Data.
    pub correlation: String<CORRELATION_TEXT_MAX_BYTES>,
    /// Message Expiry Interval, in seconds.
    pub expiry_s: u32,
    /// Content Type.
    pub content_type: &'static str,
    /// The one User Property that this body needs.
    pub user_property: Option<(&'static str, &'static str)>,
    /// Payload.
    pub payload: &'a [u8],
}

/// A request as MQTT 3.1.1 publishes it, at quality of service 1.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Enveloped<'a> {
    /// Topic.
    pub topic: String<REQUEST_TOPIC_MAX_BYTES>,
    /// Payload.
    pub payload: &'a [u8],
}

/// How a request ended.
#[derive(Debug)]
#[allow(
    clippy::large_enum_variant,
    reason = "there is no allocator to box with"
)]
pub enum Outcome<'a> {
    /// With the model's outputs.
    Answered(Answer<'a>),
    /// With a status that a repeat does not change.
    Failed {
        /// HTTP status code, see [`Status`].
        status: u16,
        /// The box's words.
        message: &'a str,
    },
    /// With an answer that cannot be read.
    Unreadable(Unreadable),
}

/// The outputs of a model.
#[derive(Debug)]
#[allow(
    clippy::large_enum_variant,
    reason = "there is no allocator to box with"
)]
pub enum Answer<'a> {
    /// To [`Body::Compact`].
    Compact(compact::Answer<'a>),
    /// To [`Body::Raw`]: the outputs' elements one output after another, little-endian.
    Raw {
        /// Names, types and shapes, as Open Inference Protocol v2's JSON.
        header: &'a [u8],
        /// All outputs' elements.
        data: &'a [u8],
    },
}

/// Why an answer cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum Unreadable {
    /// No status.
    #[error("the answer has no user property \"status\"")]
    NoStatus,
    /// Neither compact nor binary.
    #[error("the answer is neither application/cbor nor application/octet-stream")]
    ContentType,
    /// A header that is longer than the answer, or of unknown length.
    #[error("the answer does not say where its JSON ends")]
    HeaderLength,
    /// Not the compact form.
    #[error(transparent)]
    Compact(#[from] CompactError),
}

/// As many requests wait for their answers as the client has room for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("as many requests wait for their answers as the client has room for")]
pub struct Full;

#[derive(Debug, Clone, Copy)]
struct Open {
    number: u64,
    attempt: Attempt,
    /// The last 429 or 503.
    refusal: Option<u16>,
}

/// A sensor with at most `N` requests that wait for their answers.
#[derive(Debug)]
pub struct Client<const N: usize> {
    region: Id,
    name: Id,
    run: u64,
    patience: Patience,
    next: u64,
    is_link_up: bool,
    open: Vec<Open, N>,
}

impl<const N: usize> Client<N> {
    /// A client without a connection. `run` is a random number for each start of the firmware. Boxes keep a request for
    /// [`limit::EXPIRY_MAX_S`] at most, so `patience` goes no further.
    #[must_use]
    pub fn new(region: Id, name: Id, run: u64, mut patience: Patience) -> Self {
        let longest = Duration::from_secs(u64::from(limit::EXPIRY_MAX_S));
        patience.expiry = patience.expiry.min(longest);
        Self {
            region,
            name,
            run,
            patience,
            next: 0,
            is_link_up: false,
            open: Vec::new(),
        }
    }

    /// What to subscribe to after every connect, at quality of service 1.
    #[must_use]
    pub fn reply_filter(&self) -> String<REPLY_TOPIC_MAX_BYTES> {
        text(format_args!("{}/#", self.reply_root()))
    }

    /// The connection is there and subscribed: what has no answer is published again at once.
    pub fn link_up(&mut self, now: Duration) {
        self.is_link_up = true;
        self.open.iter_mut().for_each(|it| it.attempt.hasten(now));
    }

    /// The connection is lost: nothing is published until it is back, but requests still expire.
    pub fn link_down(&mut self) {
        self.is_link_up = false;
        self.open.iter_mut().for_each(|it| it.attempt.hold());
    }

    /// Begins a request and returns its number; [`Client::take_due`] says when to publish it.
    ///
    /// # Errors
    /// [`Full`] when `N` requests wait.
    pub fn begin(&mut self, now: Duration) -> Result<u64, Full> {
        let number = self.next;
        let mut attempt = Attempt::new(now, &self.patience);
        if !self.is_link_up {
            attempt.hold();
        }
        let open = Open {
            number,
            attempt,
            refusal: None,
        };
        self.open.push(open).map_err(|_| Full)?;
        self.next += 1;
        Ok(number)
    }

    /// What is to be done now; to be called until it returns `None`.
    pub fn take_due(&mut self, now: Duration) -> Option<Due> {
        for index in 0..self.open.len() {
            let open = self.open.get_mut(index)?;
            let number = open.number;
            match open.attempt.look(now, &self.patience) {
                Look::Wait => {}
                Look::Send { remaining } => return Some(Due::Send(Send { number, remaining })),
                Look::GiveUp => {
                    let status = open.refusal;
                    self.open.swap_remove(index);
                    return Some(Due::GivenUp { number, status });
                }
            }
        }
        None
    }

    /// When [`Client::take_due`] has something to do next, if no message comes in before.
    #[must_use]
    pub fn next_due(&self) -> Option<Duration> {
        self.open.iter().map(|it| it.attempt.due()).min()
    }

    /// The message of MQTT 5 for `send`. `body` is the same for every repeat, so the firmware keeps it until the end.
    #[must_use]
    pub fn publish<'a>(&self, send: Send, to: To<'_>, body: Body<'a>) -> Publish<'a> {
        Publish {
            topic: self.request_topic(to),
            response_topic: self.reply_topic(),
            correlation: self.correlation(send),
            expiry_s: attempt::whole_seconds(send.remaining),
            content_type: match body {
                Body::Compact(_) => property::CONTENT_TYPE_CBOR,
                Body::Raw(_) => property::CONTENT_TYPE_BINARY,
            },
            user_property: match body {
                Body::Compact(_) => None,
                Body::Raw(_) => Some((property::INFERENCE_HEADER_CONTENT_LENGTH, "0")),
            },
            payload: body.bytes(),
        }
    }

    /// The message of MQTT 3.1.1 for `send`, written into `buffer`: the body and at most 320 bytes more.
    ///
    /// # Errors
    /// [`BufferFull`] when `buffer` is too small.
    pub fn envelope<'a>(
        &self,
        send: Send,
        to: To<'_>,
        body: Body<'_>,
        buffer: &'a mut [u8],
    ) -> Result<Enveloped<'a>, BufferFull> {
        let (encoding, header_length) = match body {
            Body::Compact(_) => ("cbor", None),
            Body::Raw(_) => ("binary", Some(0)),
        };
        let request = envelope::Request {
            reply: &self.reply_topic(),
            correlation: &self.correlation(send),
            timeout: send.remaining,
            encoding,
            header_length,
            body: body.bytes(),
        };
        let length = request.encode(buffer)?;
        Ok(Enveloped {
            topic: self.request_topic(to),
            payload: buffer.get(..length).ok_or(BufferFull)?,
        })
    }

    /// Takes in a message of MQTT 5 from [`Client::reply_filter`]. Returns how which request ended; `None` for an
    /// answer to a request that has ended before, for one that is none of ours, and for a 429 or 503, after which the
    /// request is published again.
    pub fn receive<'a>(
        &mut self,
        now: Duration,
        correlation: &[u8],
        properties: &Properties<'a>,
        payload: &'a [u8],
    ) -> Option<(u64, Outcome<'a>)> {
        let Correlation { run, number } = Correlation::parse(correlation)?;
        let index = self.open.iter().position(|it| it.number == number)?;
        if run != self.run {
            return None;
        }
        let status = properties.status;
        if let Some(known) = status.and_then(Status::from_code)
            && known.is_retryable()
        {
            let is_link_up = self.is_link_up;
            let open = self.open.get_mut(index)?;
            open.refusal = status;
            open.attempt
                .refuse(now, properties.retry_after, &self.patience);
            if !is_link_up {
                open.attempt.hold();
            }
            return None;
        }
        self.open.swap_remove(index);
        Some((number, outcome(properties, payload)))
    }

    /// Takes in a message of MQTT 3.1.1, as [`Client::receive`] does.
    ///
    /// # Errors
    /// [`EnvelopeError`] for a payload that is no answer of this protocol; no request has ended by it.
    pub fn receive_envelope<'a>(
        &mut self,
        now: Duration,
        payload: &'a [u8],
    ) -> Result<Option<(u64, Outcome<'a>)>, EnvelopeError> {
        let answer = envelope::Answer::decode(payload)?;
        let correlation = answer.correlation.as_bytes();
        Ok(self.receive(now, correlation, &answer.properties, answer.body))
    }

    fn reply_root(&self) -> ReplyRoot<'_> {
        ReplyRoot {
            region: self.region.as_str(),
            client: self.name.as_str(),
        }
    }

    fn reply_topic(&self) -> String<REPLY_TOPIC_MAX_BYTES> {
        text(format_args!("{}/a", self.reply_root()))
    }

    fn request_topic(&self, to: To<'_>) -> String<REQUEST_TOPIC_MAX_BYTES> {
        let topic = InferTopic {
            region: self.region.as_str(),
            target: to.box_id.map_or(Target::Any, |id| Target::Box(id.as_str())),
            model: to.model.as_str(),
            client: self.name.as_str(),
        };
        text(format_args!("{topic}"))
    }

    fn correlation(&self, send: Send) -> String<CORRELATION_TEXT_MAX_BYTES> {
        let correlation = Correlation {
            run: self.run,
            number: send.number,
        };
        text(format_args!("{correlation}"))
    }
}

fn outcome<'a>(properties: &Properties<'a>, payload: &'a [u8]) -> Outcome<'a> {
    match properties.status {
        None => Outcome::Unreadable(Unreadable::NoStatus),
        Some(200) => match read(properties, payload) {
            Ok(answer) => Outcome::Answered(answer),
            Err(error) => Outcome::Unreadable(error),
        },
        Some(status) => Outcome::Failed {
            status,
            message: properties.message,
        },
    }
}

fn read<'a>(properties: &Properties<'a>, payload: &'a [u8]) -> Result<Answer<'a>, Unreadable> {
    match properties.content_type {
        Some(property::CONTENT_TYPE_CBOR) => Ok(Answer::Compact(compact::Answer::decode(payload)?)),
        Some(property::CONTENT_TYPE_BINARY) => properties
            .header_length
            .and_then(|length| payload.split_at_checked(length))
            .map(|(header, data)| Answer::Raw { header, data })
            .ok_or(Unreadable::HeaderLength),
        _ => Err(Unreadable::ContentType),
    }
}

/// A text of our own whose longest form fits: see the constants above.
fn text<const LENGTH: usize>(arguments: fmt::Arguments<'_>) -> String<LENGTH> {
    let mut text = String::new();
    let written = text.write_fmt(arguments);
    debug_assert!(written.is_ok(), "the constants hold the longest form");
    text
}
