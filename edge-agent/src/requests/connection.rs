//! One connection that takes requests: hands answers to the client library and keeps the order of acknowledgements.

use bytes::Bytes;
use edge_protocol::{envelope, property};
use parking_lot::Mutex;
use rumqttc::v5::{
    AsyncClient, EventLoop,
    mqttbytes::{
        QoS,
        v5::{Publish, PublishProperties},
    },
};
use tracing::warn;

use super::{
    admission::ReplyTo,
    exchange::{Exchange, Ticket},
};
use crate::{link, outcome::Outcome};

/// Answers in the queue beyond which those are dropped whose requests have no place in the order: at QoS 0, or from an
/// earlier connection. Receive Maximum does not bound them, and the others must always find room.
const UNPLACED_MAX: usize = 512;

/// A connection that takes requests.
pub(crate) struct Connection {
    client: AsyncClient,
    exchange: Mutex<Exchange>,
}

impl Connection {
    pub(crate) fn new(client: AsyncClient) -> Self {
        Self {
            client,
            exchange: Mutex::default(),
        }
    }

    pub(crate) fn client(&self) -> &AsyncClient {
        &self.client
    }

    /// A request has arrived; at QoS 0 it has no place in the order.
    pub(crate) fn arrived(&self, publish: &Publish) -> Option<Ticket> {
        (publish.qos != QoS::AtMostOnce).then(|| self.exchange.lock().arrived(publish.pkid))
    }

    /// The client library has written an answer.
    pub(crate) fn written(&self, packet_id: u16) {
        let mut exchange = self.exchange.lock();
        exchange.written(packet_id);
        self.acknowledge(&mut exchange);
    }

    /// The broker has acknowledged an answer.
    pub(crate) fn acknowledged(&self, packet_id: u16) {
        let mut exchange = self.exchange.lock();
        exchange.acknowledged(packet_id);
        self.acknowledge(&mut exchange);
    }

    /// A request needs no answer.
    pub(crate) fn dismissed(&self, ticket: Option<Ticket>) {
        if let Some(ticket) = ticket {
            let mut exchange = self.exchange.lock();
            exchange.dismissed(ticket);
            self.acknowledge(&mut exchange);
        }
    }

    /// The connection is lost: throws away what the client library would repeat on the next one. Acknowledgements
    /// would name the wrong requests there, and answers come out of the cache when the broker delivers again.
    pub(crate) fn lost(&self, eventloop: &mut EventLoop) {
        let mut exchange = self.exchange.lock();
        link::forget(eventloop, true);
        exchange.lost();
    }

    /// Whether every request has been answered and acknowledged.
    pub(crate) fn is_idle(&self) -> bool {
        self.exchange.lock().is_idle()
    }

    fn acknowledge(&self, exchange: &mut Exchange) {
        while let Some(packet_id) = exchange.next_acknowledgement() {
            let mut publish = Publish::new("", QoS::AtLeastOnce, Bytes::new(), None);
            publish.pkid = packet_id;
            if self.client.try_ack(&publish).is_err() {
                // Tried again at the next event on the connection.
                warn!(
                    packet_id,
                    "cannot acknowledge a request yet: the queue is full"
                );
                return;
            }
            exchange.acknowledgement_sent();
        }
    }

    /// Sends an answer. It never waits: the queue to the client library holds all that Receive Maximum lets in, and
    /// [`UNPLACED_MAX`] more.
    pub(crate) fn answer(
        &self,
        reply: ReplyTo,
        ticket: Option<Ticket>,
        outcome: &Outcome,
        box_id: &str,
    ) {
        let qos = reply.qos;
        let topic = reply.topic.clone();
        let (payload, properties) = match reply.envelope {
            None => (
                outcome.body.bytes.clone(),
                properties(reply, outcome, box_id),
            ),
            Some(form) => (wrap(&reply, form, outcome), PublishProperties::default()),
        };
        // Under one lock, so that answers are written in the order in which the exchange saw them handed over.
        let mut exchange = self.exchange.lock();
        let has_place = ticket.is_some_and(|ticket| exchange.is_current(ticket));
        let is_sent = (has_place || exchange.unwritten() < UNPLACED_MAX)
            && self
                .client
                .try_publish_with_properties(topic, qos, false, payload, properties)
                .is_ok();
        if is_sent {
            exchange.handed(ticket);
        } else {
            warn!("an answer is dropped: the queue is full; the sender's repeat will get it");
            if let Some(ticket) = ticket {
                exchange.dismissed(ticket);
                self.acknowledge(&mut exchange);
            }
        }
    }
}

fn properties(reply: ReplyTo, outcome: &Outcome, box_id: &str) -> PublishProperties {
    let mut user_properties = Vec::with_capacity(4);
    let mut user = |name: &str, value: String| user_properties.push((name.to_owned(), value));
    user(property::STATUS, outcome.status.to_string());
    user(property::SERVED_BY, box_id.to_owned());
    if !outcome.message.is_empty() {
        user(property::STATUS_MESSAGE, outcome.message.clone());
    }
    if let Some(retry_after_ms) = outcome.retry_after_ms() {
        user(property::RETRY_AFTER_MS, retry_after_ms.to_string());
    }
    if let edge_protocol::oip::Encoding::Binary { header_length } = outcome.body.encoding {
        user(
            property::INFERENCE_HEADER_CONTENT_LENGTH,
            header_length.to_string(),
        );
    }
    PublishProperties {
        correlation_data: Some(reply.correlation).filter(|correlation| !correlation.is_empty()),
        content_type: Some(outcome.body.encoding.content_type().to_owned()),
        user_properties,
        ..PublishProperties::default()
    }
}

fn wrap(reply: &ReplyTo, form: envelope::Form, outcome: &Outcome) -> Bytes {
    envelope::Answer {
        correlation: &String::from_utf8_lossy(&reply.correlation),
        status: outcome.status,
        message: Some(outcome.message.as_str()).filter(|message| !message.is_empty()),
        retry_after_ms: outcome.retry_after_ms(),
        body: &outcome.body,
    }
    .encode(form)
}
