//! A sensor's firmware on a Cortex-M4, without an allocator: it asks a box which digits it sees, once with raw tensors
//! and once in the compact form, and ends with exit code 0 when at least nine of ten are right.
//!
//! `edge_protocol::sensor` decides what to send and when; `rust-mqtt` speaks MQTT 5 over the serial line. A firmware for
//! other hardware replaces `uart.rs`, `clock.rs` and `memory.x`.
#![no_std]
#![no_main]

mod clock;
mod images;
mod stack;
mod uart;

use core::{panic::PanicInfo, time::Duration};

use cortex_m::Peripherals;
use cortex_m_rt::entry;
use cortex_m_semihosting::{debug, hprintln};
use edge_protocol::{
    Datatype, Id,
    compact::{self, Shape},
    sensor::{Answer, Body, Client, Due, Outcome, Patience, Properties, Send, To},
};
use embassy_futures::{
    block_on,
    select::{Either, select},
};
use rust_mqtt::{
    Bytes,
    buffer::BumpBuffer,
    client::{
        Client as Mqtt,
        event::{Event, Publish, Suback},
        options::{ConnectOptions, PublicationOptions, SubscriptionOptions, TopicReference},
    },
    types::{MqttBinary, MqttString, MqttStringPair, TopicFilter, TopicName},
};

use crate::{images::PIXELS, uart::Uart};

/// Where this sensor is, and who.
const REGION: &str = "lab";
const NAME: &str = "probe-7";
const MODEL: &str = "digits";
/// An answer of the digits model has less than 300 bytes, its properties less than 400.
const RECEIVE_BYTES: usize = 1_024;
const REQUEST_BYTES: usize = 4 * PIXELS + 32;

/// One subscription, three messages to and from us that wait for their acknowledgement, eight user properties.
type Link<'a> = Mqtt<'a, 'a, Uart, BumpBuffer<'a>, 1, 3, 3, 0, 8, 0, 0>;

/// What went wrong, in words: this firmware's answer to a lost link is to start again.
struct Failed(&'static str);

#[entry]
fn main() -> ! {
    let exit = match block_on(run()) {
        Ok((right, asked)) => {
            hprintln!("{} of {} right", right, asked);
            hprintln!("{} bytes of stack", stack::used_bytes());
            right * 10 >= asked * 9
        }
        Err(Failed(what)) => {
            hprintln!("failed: {}", what);
            false
        }
    };
    debug::exit(if exit {
        debug::EXIT_SUCCESS
    } else {
        debug::EXIT_FAILURE
    });
    loop {
        cortex_m::asm::wfi();
    }
}

async fn run() -> Result<(usize, usize), Failed> {
    let peripherals = Peripherals::take().ok_or(Failed("the peripherals are taken"))?;
    clock::start(peripherals.SYST);
    // SAFETY: this is the only call.
    let uart = unsafe { Uart::start() };

    let id = |name| Id::new(name).map_err(|_| Failed("a name that is none"));
    let (region, name, model) = (id(REGION)?, id(NAME)?, id(MODEL)?);
    let to = To { model: &model, box_id: None };
    // On a board with a random number generator this number comes from it.
    let start = 1;
    let patience = Patience::until(Duration::from_secs(10));
    let mut sensor = Client::<1>::new(region, name, start, patience);

    let mut memory = [0; RECEIVE_BYTES];
    let mut memory = BumpBuffer::new(&mut memory);
    let mut mqtt = Link::new(&mut memory);
    connect(&mut mqtt, uart, &sensor).await?;
    sensor.link_up(clock::now());

    let (mut right, mut asked) = (0, 0);
    for (expected, pixels) in images::all() {
        let mut buffer = [0; REQUEST_BYTES];
        let length = compact_request(&pixels, &mut buffer)?;
        let compact = buffer.get(..length).unwrap_or_default();
        for body in [Body::Raw(&pixels), Body::Compact(compact)] {
            let digit = ask(&mut mqtt, &mut sensor, to, body).await?;
            asked += 1;
            right += usize::from(digit == expected);
        }
    }
    Ok((right, asked))
}

/// Connects and subscribes to the answers.
async fn connect(mqtt: &mut Link<'_>, uart: Uart, sensor: &Client<1>) -> Result<(), Failed> {
    let options = ConnectOptions::new().clean_start();
    let connected = mqtt.connect(uart, &options, Some(text(NAME)?)).await;
    connected.map_err(|_| Failed("could not connect"))?;
    forget(mqtt);

    let filter = sensor.reply_filter();
    let filter = TopicFilter::new(text(&filter)?).ok_or(Failed("a filter that is none"))?;
    let options = SubscriptionOptions::new().at_least_once();
    let asked = mqtt.subscribe(filter, &options).await;
    asked.map_err(|_| Failed("could not subscribe"))?;
    match mqtt.poll().await {
        Ok(Event::Suback(Suback { reason_code, .. })) if reason_code.is_success() => {}
        _ => return Err(Failed("the broker did not take the subscription")),
    }
    forget(mqtt);
    Ok(())
}

/// One request, to its end.
async fn ask(
    mqtt: &mut Link<'_>,
    sensor: &mut Client<1>,
    to: To<'_>,
    body: Body<'_>,
) -> Result<i64, Failed> {
    let full = |_| Failed("a request waits already");
    let number = sensor.begin(clock::now()).map_err(full)?;
    loop {
        while let Some(due) = sensor.take_due(clock::now()) {
            match due {
                Due::Send(send) => publish(mqtt, sensor, send, to, body).await?,
                Due::GivenUp { .. } => return Err(Failed("nobody answered")),
            }
        }
        let next = sensor.next_due().unwrap_or(Duration::MAX);
        let header = match select(mqtt.poll_header(), clock::at(next)).await {
            Either::First(header) => header.map_err(|_| Failed("the link broke"))?,
            Either::Second(()) => continue,
        };
        let event = mqtt.poll_body(header).await;
        let event = event.map_err(|_| Failed("the link broke"))?;
        let digit = match &event {
            Event::Publish(message) => read(sensor, number, message)?,
            _ => None,
        };
        drop(event);
        forget(mqtt);
        if let Some(digit) = digit {
            return Ok(digit);
        }
    }
}

async fn publish(
    mqtt: &mut Link<'_>,
    sensor: &Client<1>,
    send: Send,
    to: To<'_>,
    body: Body<'_>,
) -> Result<(), Failed> {
    let message = sensor.publish(send, to, body);
    let topic = TopicName::new(text(&message.topic)?).ok_or(Failed("a topic that is none"))?;
    let reply = TopicName::new(text(&message.response_topic)?);
    let correlation = MqttBinary::from_slice(message.correlation.as_bytes());
    let mut user_properties = [const { None }; 1];
    if let Some((name, value)) = message.user_property {
        user_properties = [Some(MqttStringPair::new(text(name)?, text(value)?))];
    }
    let mut options = PublicationOptions::new(TopicReference::Name(topic))
        .at_least_once()
        .message_expiry_interval(message.expiry_s)
        .response_topic(reply.ok_or(Failed("a topic that is none"))?)
        .correlation_data(correlation.map_err(|_| Failed("a correlation that is too long"))?)
        .content_type(text(message.content_type)?);
    let pairs: heapless::Vec<_, 1> = user_properties.into_iter().flatten().collect();
    options = options.user_properties(&pairs);
    let sent = mqtt.publish(&options, Bytes::from(message.payload)).await;
    sent.map_err(|_| Failed("could not publish"))?;
    Ok(())
}

/// The digit, once the request has ended well; `None` while it has not ended.
fn read(
    sensor: &mut Client<1>,
    number: u64,
    message: &Publish<'_, 0, 8>,
) -> Result<Option<i64>, Failed> {
    let Some(correlation) = &message.correlation_data else {
        return Ok(None);
    };
    let pairs = message.user_properties.iter();
    let properties = Properties::new(
        message.content_type.as_ref().map(MqttString::as_str),
        pairs.map(|pair| (pair.name.as_str(), pair.value.as_str())),
    );
    let answer = sensor.receive(
        clock::now(),
        correlation.as_bytes(),
        &properties,
        &message.message,
    );
    match answer {
        Some((ended, Outcome::Answered(answer))) if ended == number => {
            label(&answer).map(Some).ok_or(Failed("an answer without label"))
        }
        Some((_, Outcome::Failed { status, message })) => {
            hprintln!("status {}: {}", status, message);
            Err(Failed("the box refused"))
        }
        Some((_, Outcome::Unreadable(error))) => {
            hprintln!("{}", error);
            Err(Failed("the answer cannot be read"))
        }
        _ => Ok(None),
    }
}

/// The model's output `label`, one INT64; of raw outputs it comes first.
fn label(answer: &Answer<'_>) -> Option<i64> {
    let data = match answer {
        Answer::Raw { data, .. } => data,
        Answer::Compact(compact::Answer::Outputs { outputs, .. }) => {
            outputs.iter().find(|output| output.name == "label")?.data
        }
        Answer::Compact(compact::Answer::Failure(_)) => return None,
    };
    Some(i64::from_le_bytes(*data.first_chunk()?))
}

fn compact_request(pixels: &[u8], buffer: &mut [u8]) -> Result<usize, Failed> {
    let shape = Shape::from_slice(&[1, PIXELS as u32]).map_err(|_| Failed("too many dimensions"))?;
    let mut request = compact::Request::default();
    let input = compact::Tensor {
        name: "pixels",
        datatype: Datatype::Fp32,
        shape,
        data: pixels,
    };
    request.inputs.push(input).map_err(|_| Failed("too many inputs"))?;
    request.encode(buffer).map_err(|_| Failed("the buffer is too small"))
}

/// Gives back the memory of what was received.
fn forget(mqtt: &mut Link<'_>) {
    // SAFETY: everything that was received has been dropped before.
    unsafe { mqtt.buffer_mut().reset() };
}

fn text(text: &str) -> Result<MqttString<'_>, Failed> {
    MqttString::from_str(text).map_err(|_| Failed("a text that MQTT does not take"))
}

#[panic_handler]
fn panic(info: &PanicInfo<'_>) -> ! {
    hprintln!("{}", info);
    debug::exit(debug::EXIT_FAILURE);
    loop {
        cortex_m::asm::wfi();
    }
}
