//! A connection that takes requests, with its tasks: one polls it, one keeps its subscriptions.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use edge_protocol::{
    Id,
    topic::{BoxInferFilter, OpFilter, SharedInferFilter},
};
use rumqttc::{
    Outgoing,
    v5::{
        AsyncClient, Event, EventLoop,
        mqttbytes::{
            QoS,
            v5::{Filter, Packet},
        },
    },
};
use tokio::{sync::watch, task::JoinHandle, time::timeout};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use super::{connection::Connection, service::Service};
use crate::{health::Vitals, link, settings::Settings};

/// How long the broker keeps requests addressed to this box while it is away.
const SESSION_EXPIRY_S: u32 = 3_600;

/// How long the broker may take for a goodbye.
const GOODBYE: Duration = Duration::from_secs(1);

/// Which requests a connection takes.
#[derive(Debug, Clone)]
pub(crate) enum Share {
    /// Those addressed to this box. The broker keeps them while the box is away.
    Own,
    /// Those for any box that serves one of these models. They go to other boxes while this one is away.
    Shared(watch::Receiver<Vec<Id>>),
}

/// A connection that takes requests.
pub(crate) struct Intake {
    connection: Arc<Connection>,
    share: Share,
    region: Id,
    box_id: Id,
    /// Subscriptions whose end the broker has confirmed.
    unsubscribed: watch::Sender<usize>,
    closed: CancellationToken,
    link: JoinHandle<()>,
    subscriptions: JoinHandle<()>,
}

impl Intake {
    pub(crate) fn start(
        settings: &Settings,
        broker: &link::Broker,
        service: &Arc<Service>,
        share: Share,
        vitals: &Vitals,
    ) -> Self {
        let purpose = match share {
            Share::Own => "own",
            Share::Shared(_) => "shared",
        };
        let mut options = link::options(broker, purpose);
        options.set_manual_acks(true);
        if matches!(share, Share::Own) {
            options
                .set_clean_start(false)
                .set_session_expiry_interval(Some(SESSION_EXPIRY_S));
        }
        let (client, eventloop) = AsyncClient::new(options, link::QUEUE);
        let connection = Arc::new(Connection::new(client.clone()));
        let connected = watch::Sender::new(());
        let unsubscribed = watch::Sender::new(0);
        let closed = CancellationToken::new();
        let subscriptions = keep_subscribed(
            client,
            connected.subscribe(),
            share.clone(),
            settings.region.clone(),
            settings.box_id.clone(),
        );
        let handler = Handler {
            purpose,
            connection: connection.clone(),
            service: service.clone(),
            connected,
            unsubscribed: unsubscribed.clone(),
        };
        Self {
            connection,
            share,
            region: settings.region.clone(),
            box_id: settings.box_id.clone(),
            unsubscribed,
            link: tokio::spawn(link::keep_up(
                eventloop,
                handler,
                purpose,
                vitals.connection(purpose),
                broker.tls.clone(),
                closed.clone(),
            )),
            closed,
            subscriptions: tokio::spawn(subscriptions),
        }
    }

    /// Takes no more shared requests; what arrived before is still answered. Requests addressed to this box stay
    /// with the broker instead, so nothing is unsubscribed there.
    pub(crate) async fn leave(&self) {
        self.subscriptions.abort();
        let filters = match &self.share {
            Share::Own => return,
            share @ Share::Shared(_) => filters(share, &self.region, &self.box_id),
        };
        let unsubscribe = async {
            let mut confirmed = self.unsubscribed.subscribe();
            let wanted = *confirmed.borrow_and_update() + filters.len();
            for filter in filters {
                self.connection.client().unsubscribe(filter).await.ok()?;
            }
            confirmed.wait_for(|count| *count >= wanted).await.ok()?;
            Some(())
        };
        if !matches!(timeout(GOODBYE, unsubscribe).await, Ok(Some(()))) {
            debug!("the broker has not confirmed the end of the subscriptions");
        }
    }

    /// Whether every request has been answered and acknowledged.
    pub(crate) fn is_idle(&self) -> bool {
        self.connection.is_idle()
    }

    /// Ends the connection.
    pub(crate) async fn end(self) {
        self.subscriptions.abort();
        self.closed.cancel();
        let abort = self.link.abort_handle();
        let goodbye = async {
            self.connection.client().disconnect().await.ok();
            self.link.await.ok();
        };
        if timeout(GOODBYE, goodbye).await.is_err() {
            abort.abort();
        }
    }
}

/// Subscribes again at each connection and at each change of the models served, and ends the subscriptions of models
/// that are not served any more: what is asked of any box then goes to others.
async fn keep_subscribed(
    client: AsyncClient,
    mut connected: watch::Receiver<()>,
    mut share: Share,
    region: Id,
    box_id: Id,
) {
    let mut subscribed = BTreeSet::new();
    loop {
        let is_connected = match &mut share {
            Share::Own => connected.changed().await,
            Share::Shared(models) => tokio::select! {
                connected = connected.changed() => connected,
                changed = models.changed() => changed,
            },
        };
        if is_connected.is_err() {
            return;
        }
        let wanted: BTreeSet<String> = filters(&share, &region, &box_id).into_iter().collect();
        for filter in subscribed.difference(&wanted) {
            if client.unsubscribe(filter).await.is_err() {
                return;
            }
        }
        let filters: Vec<Filter> = wanted
            .iter()
            .map(|path| Filter::new(path.clone(), QoS::AtLeastOnce))
            .collect();
        if !filters.is_empty() && client.subscribe_many(filters).await.is_err() {
            return;
        }
        subscribed = wanted;
    }
}

fn filters(share: &Share, region: &Id, box_id: &Id) -> Vec<String> {
    match share {
        Share::Own => vec![
            BoxInferFilter { region, box_id }.to_string(),
            OpFilter { region, box_id }.to_string(),
        ],
        Share::Shared(models) => models
            .borrow()
            .iter()
            .map(|model| SharedInferFilter { region, model }.to_string())
            .collect(),
    }
}

struct Handler {
    purpose: &'static str,
    connection: Arc<Connection>,
    service: Arc<Service>,
    connected: watch::Sender<()>,
    unsubscribed: watch::Sender<usize>,
}

impl link::Handler for Handler {
    fn connected(&mut self, _session_present: bool) {
        // Subscribed in any case: the session may be one of an earlier version with other filters.
        self.connected.send_replace(());
    }

    fn event(&mut self, event: Event) {
        match event {
            Event::Incoming(Packet::Publish(publish)) => {
                self.service.take(&self.connection, &publish);
            }
            Event::Incoming(Packet::PubAck(ack)) => self.connection.acknowledged(ack.pkid),
            Event::Outgoing(Outgoing::Publish(packet_id)) => self.connection.written(packet_id),
            Event::Incoming(Packet::UnsubAck(_)) => {
                self.unsubscribed.send_modify(|count| *count += 1);
            }
            Event::Incoming(Packet::SubAck(ack)) => {
                use rumqttc::v5::mqttbytes::v5::SubscribeReasonCode::Success;
                let purpose = self.purpose;
                for code in ack.return_codes {
                    match code {
                        Success(_) => info!(purpose, "taking requests"),
                        code => warn!(purpose, ?code, "the broker refuses a subscription"),
                    }
                }
            }
            _ => {}
        }
    }

    fn lost(&mut self, eventloop: &mut EventLoop) {
        self.connection.lost(eventloop);
    }
}
