//! The smallest responder that the transport allows: same client library, same broker, no work. What it takes is
//! the floor of every request over MQTT.

use rumqttc::v5::mqttbytes::QoS;
use rumqttc::v5::mqttbytes::v5::{Packet, PublishProperties};
use rumqttc::v5::{AsyncClient, Event};

use super::BenchError;
use super::load::options;

/// The model name that stands for the echo in topics.
pub const NAME: &str = "echo";

/// Answers every request on the echo's topic with `answer_bytes` bytes until it is killed.
///
/// # Errors
/// When the connection ends.
pub async fn respond(port: u16, answer_bytes: usize) -> Result<(), BenchError> {
    let (client, mut eventloop) = AsyncClient::new(options("echo", port), 4096);
    let filter = format!("edge/v1/bench/any/infer/{NAME}/+");
    // The queue is empty, so this cannot fail.
    let _queued = client.try_subscribe(filter, QoS::AtLeastOnce);
    let answer = vec![0_u8; answer_bytes];
    loop {
        if let Event::Incoming(Packet::Publish(publish)) = eventloop.poll().await? {
            let request = publish.properties.unwrap_or_default();
            let properties = PublishProperties {
                correlation_data: request.correlation_data,
                user_properties: vec![("status".into(), "200".into())],
                ..PublishProperties::default()
            };
            let topic = request.response_topic.unwrap_or_default();
            // The client keeps far fewer in flight than the queue holds.
            let _queued = client.try_publish_with_properties(
                topic,
                publish.qos,
                false,
                answer.clone(),
                properties,
            );
        }
    }
}
