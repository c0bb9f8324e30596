//! A client that tries the matrix on a broker beside the indexer.
#![allow(
    dead_code,
    unreachable_pub,
    reason = "each test file is a crate and uses its part"
)]

use edge_identity::access::Action;
use edge_identity::subject::Role;
use rumqttc::v5::mqttbytes::QoS;
use rumqttc::v5::mqttbytes::v5::PubAckReason;
use rumqttc::v5::{AsyncClient, ConnectionError, Event, EventLoop, Incoming, MqttOptions};

use crate::matrix::{CASES, Case, topic_for};
use crate::support::DEADLINE;

/// Where the test tells a client that nothing more comes.
pub const MARK: &str = "test/mark";
/// Who may do everything, for the test alone.
pub const TESTER: &str = "tester";

/// A client of a broker beside the indexer.
pub struct Client {
    client: AsyncClient,
    connection: EventLoop,
}

impl Client {
    pub async fn connect(options: MqttOptions) -> Result<Self, ConnectionError> {
        let (client, connection) = AsyncClient::new(options, 8);
        let mut connected = Self { client, connection };
        connected
            .next(|event| match event {
                Ok(Event::Incoming(Incoming::ConnAck(_))) => Some(Ok(())),
                Ok(_) => None,
                Err(error) => Some(Err(error)),
            })
            .await?;
        Ok(connected)
    }

    async fn next<T>(
        &mut self,
        mut wanted: impl FnMut(Result<Event, ConnectionError>) -> Option<T>,
    ) -> T {
        let polling = async {
            loop {
                if let Some(found) = wanted(self.connection.poll().await) {
                    return found;
                }
            }
        };
        tokio::time::timeout(DEADLINE, polling).await.unwrap()
    }

    async fn publish(&mut self, topic: &str) -> bool {
        self.client
            .publish(topic, QoS::AtLeastOnce, false, "x")
            .await
            .unwrap();
        self.next(|event| match event {
            Ok(Event::Incoming(Incoming::PubAck(ack))) => {
                Some(ack.reason != PubAckReason::NotAuthorized)
            }
            Ok(_) => None,
            Err(error) => panic!("{error}"),
        })
        .await
    }

    /// Whether a message that the filter matches reaches this client. Some brokers take every subscription, and hold
    /// back what may not be read.
    async fn hears(&mut self, filter: &str, tester: &mut Client) -> bool {
        self.client
            .subscribe(filter, QoS::AtLeastOnce)
            .await
            .unwrap();
        self.next(|event| match event {
            Ok(Event::Incoming(Incoming::SubAck(_))) => Some(()),
            Ok(_) => None,
            Err(error) => panic!("{error}"),
        })
        .await;
        let topic = match filter.strip_prefix("$share/") {
            Some(shared) => shared.split_once('/').unwrap().1,
            None => filter,
        };
        let topic = topic.replace(['+', '#'], "x");
        if !topic.starts_with('$') {
            assert!(tester.publish(&topic).await, "{topic}");
        }
        assert!(tester.publish(MARK).await);
        let mut has_heard = false;
        self.next(|event| match event {
            Ok(Event::Incoming(Incoming::Publish(publish))) => {
                let heard = String::from_utf8_lossy(&publish.topic).into_owned();
                has_heard |= heard == topic;
                (heard == MARK).then_some(())
            }
            Ok(_) => None,
            Err(error) => panic!("{error}"),
        })
        .await;
        self.client.unsubscribe(filter).await.unwrap();
        self.next(|event| match event {
            Ok(Event::Incoming(Incoming::UnsubAck(_))) => Some(()),
            Ok(_) => None,
            Err(error) => panic!("{error}"),
        })
        .await;
        has_heard
    }

    /// What this client may, and the matrix says that it may not, or the other way round.
    pub async fn differs_from_matrix(
        &mut self,
        role: Role,
        name: &str,
        tester: &mut Client,
    ) -> Vec<String> {
        self.client.subscribe(MARK, QoS::AtLeastOnce).await.unwrap();
        let mut wrong = Vec::new();
        for case in CASES {
            let topic = topic_for(case, name);
            let allowed = match case.action {
                Action::Publish => self.publish(&topic).await,
                Action::Subscribe => self.hears(&topic, tester).await,
            };
            if allowed != (case.roles.contains(&role) || is_known_gap(role, case)) {
                wrong.push(format!("{role} {:?} {topic}: {allowed}", case.action));
            }
        }
        wrong
    }
}

/// What lists of brokers beside the indexer cannot say: that requests to any box are read as a member of the shared subscription only.
fn is_known_gap(role: Role, case: &Case) -> bool {
    role == Role::Box && case.action == Action::Subscribe && case.topic.contains("/any/infer/")
}
