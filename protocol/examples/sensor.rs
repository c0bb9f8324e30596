//! A sensor on a host, in Rust: asks any box of a region which digit each image of a CSV file shows.
//!
//! ```console
//! $ cargo run -p edge-protocol --example sensor -- 127.0.0.1:1883 lab digits probe-7 cross/models/digits-heldout.csv
//! ```

use std::{env, error::Error, fs, time::Duration};

use edge_protocol::{
    Id,
    sensor::{Answer, Body, Client, Due, Outcome, Patience, Properties, Send, To},
};
use rumqttc::v5::{
    AsyncClient, Event, EventLoop, Incoming, MqttOptions,
    mqttbytes::{
        QoS,
        v5::{Publish, PublishProperties},
    },
};
use tokio::time::{Instant, timeout_at};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let [broker, region, model, name, file] = arguments.as_slice() else {
        return Err("usage: sensor HOST:PORT REGION MODEL NAME IMAGES.csv".into());
    };
    let (host, port) = broker.rsplit_once(':').ok_or("the broker is HOST:PORT")?;
    let options = MqttOptions::new(name, host, port.parse()?);
    let (mqtt, mut events) = AsyncClient::new(options, 16);

    // A random number tells this start's answers from those to an earlier one.
    let start = rand::random();
    let patience = Patience::until(Duration::from_secs(30));
    let mut sensor = Client::<1>::new(Id::new(region)?, Id::new(name)?, start, patience);
    let model = Id::new(model)?;
    let clock = Instant::now();

    let images = fs::read_to_string(file)?;
    let (mut right, mut asked) = (0, 0);
    for line in images.lines().skip(1) {
        let (label, pixels) = line.split_once(',').ok_or("a line without label")?;
        let pixels: Result<Vec<f32>, _> = pixels.split(',').map(str::parse).collect();
        let body: Vec<u8> = pixels?.into_iter().flat_map(f32::to_le_bytes).collect();
        let digit = ask(&mut sensor, &model, &body, &mqtt, &mut events, clock).await?;
        asked += 1;
        right += u32::from(digit == label.parse::<i64>()?);
    }
    println!("{right} of {asked} right");
    Ok(())
}

/// One request, to its end: whatever happens to the connection meanwhile.
async fn ask(
    sensor: &mut Client<1>,
    model: &Id,
    body: &[u8],
    mqtt: &AsyncClient,
    events: &mut EventLoop,
    clock: Instant,
) -> Result<i64, Box<dyn Error>> {
    sensor.begin(clock.elapsed())?;
    loop {
        while let Some(due) = sensor.take_due(clock.elapsed()) {
            match due {
                Due::Send(send) => publish(sensor, send, model, body, mqtt)?,
                Due::GivenUp { status, .. } => {
                    return Err(format!("no answer in time, last status {status:?}").into());
                }
            }
        }
        let next = clock + sensor.next_due().ok_or("no request waits")?;
        match timeout_at(next, events.poll()).await {
            Ok(Ok(Event::Incoming(Incoming::ConnAck(_)))) => {
                mqtt.try_subscribe(sensor.reply_filter().as_str(), QoS::AtLeastOnce)?;
            }
            Ok(Ok(Event::Incoming(Incoming::SubAck(_)))) => sensor.link_up(clock.elapsed()),
            Ok(Ok(Event::Incoming(Incoming::Publish(message)))) => {
                if let Some(digit) = read(sensor, &message, clock)? {
                    return Ok(digit);
                }
            }
            Ok(Ok(_)) | Err(_) => {}
            Ok(Err(error)) => {
                eprintln!("connection lost: {error}");
                sensor.link_down();
                tokio::time::sleep(Duration::from_millis(200)).await;
            }
        }
    }
}

fn publish(
    sensor: &Client<1>,
    send: Send,
    model: &Id,
    body: &[u8],
    mqtt: &AsyncClient,
) -> Result<(), Box<dyn Error>> {
    let to = To {
        model,
        box_id: None,
    };
    let message = sensor.publish(send, to, Body::Raw(body));
    let pair = |(name, value): (&str, &str)| (name.to_owned(), value.to_owned());
    let properties = PublishProperties {
        message_expiry_interval: Some(message.expiry_s),
        response_topic: Some(message.response_topic.to_string()),
        correlation_data: Some(message.correlation.to_string().into()),
        content_type: Some(message.content_type.to_owned()),
        user_properties: message.user_property.map(pair).into_iter().collect(),
        ..PublishProperties::default()
    };
    mqtt.try_publish_with_properties(
        message.topic.as_str(),
        QoS::AtLeastOnce,
        false,
        message.payload.to_vec(),
        properties,
    )?;
    Ok(())
}

/// The digit, once the request has ended well; `None` while it has not ended.
fn read(
    sensor: &mut Client<1>,
    message: &Publish,
    clock: Instant,
) -> Result<Option<i64>, Box<dyn Error>> {
    let Some(properties) = &message.properties else {
        return Ok(None);
    };
    let pairs = properties.user_properties.iter();
    let said = Properties::new(
        properties.content_type.as_deref(),
        pairs.map(|(name, value)| (name.as_str(), value.as_str())),
    );
    let correlation = properties.correlation_data.as_deref().unwrap_or_default();
    match sensor.receive(clock.elapsed(), correlation, &said, &message.payload) {
        // The model's first output is the label, one INT64.
        Some((_, Outcome::Answered(Answer::Raw { data, .. }))) => {
            let label = data.first_chunk().ok_or("an answer without label")?;
            Ok(Some(i64::from_le_bytes(*label)))
        }
        Some((_, other)) => Err(format!("the box answered: {other:?}").into()),
        None => Ok(None),
    }
}
