//! The ways in which a request can come: MQTT and HTTP; a raw tensor, JSON with binary tensors, CBOR and JSON. One request
//! after the other, to one agent, in turn.

use std::fmt::Write as _;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use rumqttc::v5::mqttbytes::QoS;
use serde::Serialize;

use super::super::BenchError;
use super::super::load::{Load, Message};
use super::super::runtime::{Floor, Runtime, histogram};
use super::{Agent, Plan, REGION, ROUNDS, cost, median, microseconds, say};
use crate::processes;

/// All of this part.
#[derive(Debug, Serialize)]
pub(super) struct Ways(Vec<Row>);

#[derive(Debug, Serialize)]
struct Row {
    model: &'static str,
    way: String,
    request_bytes: usize,
    p50_us: f64,
    p99_us: f64,
    /// The agent's, for each request.
    processor_us: f64,
}

/// How a request is written.
#[derive(Debug, Clone, Copy)]
enum Form {
    Raw,
    Binary,
    Cbor,
    Json,
}

impl Form {
    const fn name(self) -> &'static str {
        match self {
            Self::Raw => "raw",
            Self::Binary => "binary",
            Self::Cbor => "CBOR",
            Self::Json => "JSON",
        }
    }

    /// A request for the model's input, as this form has it.
    fn message(self, model: &Floor) -> Message {
        let (name, shape) = (&model.input, &model.shape);
        // Numbers as pixels have them, so that JSON is as long as usual.
        let values: Vec<f32> = (0_u8..17)
            .map(|value| f32::from(value) / 16.0)
            .cycle()
            .take(model.input_bytes / size_of::<f32>())
            .collect();
        let bytes: Vec<u8> = values
            .iter()
            .flat_map(|value| value.to_le_bytes())
            .collect();
        match self {
            Self::Raw => Message::raw(bytes),
            Self::Binary => {
                let size = bytes.len();
                let header = serde_json::json!({"inputs": [{"name": name, "shape": shape, "datatype": "FP32",
                    "parameters": {"binary_data_size": size}}], "parameters": {"binary_data_output": true}});
                let header = header.to_string().into_bytes();
                Message {
                    header_bytes: Some(header.len()),
                    body: [header, bytes].concat(),
                    content_type: "application/octet-stream",
                }
            }
            Self::Cbor => Message {
                body: compact(name, shape, &bytes),
                content_type: "application/cbor",
                header_bytes: None,
            },
            Self::Json => {
                let body = serde_json::json!({"inputs": [
                    {"name": name, "shape": shape, "datatype": "FP32", "data": values}]});
                Message {
                    body: body.to_string().into_bytes(),
                    content_type: "application/json",
                    header_bytes: None,
                }
            }
        }
    }
}

/// The compact form of `protocol/src/compact.rs`, written by hand as a firmware without our library would.
fn compact(name: &str, shape: &[i64], data: &[u8]) -> Vec<u8> {
    /// The code of FP32.
    const FP32: u64 = 11;
    let mut body = Vec::new();
    // RFC 8949, section 3: three bits of type, then the length in as few bytes as it needs.
    let head = |body: &mut Vec<u8>, kind: u8, length: u64| match (
        u8::try_from(length),
        u16::try_from(length),
    ) {
        (Ok(length @ 0..24), _) => body.push(kind << 5 | length),
        (Ok(length), _) => body.extend([kind << 5 | 24, length]),
        (_, Ok(length)) => {
            body.push(kind << 5 | 25);
            body.extend(length.to_be_bytes());
        }
        _ => {
            body.push(kind << 5 | 27);
            body.extend(length.to_be_bytes());
        }
    };
    let (uint, bytes, text, array, map) = (0, 2, 3, 4, 5);
    head(&mut body, map, 1);
    head(&mut body, uint, 2);
    head(&mut body, array, 1);
    head(&mut body, array, 4);
    head(&mut body, text, name.len() as u64);
    body.extend(name.as_bytes());
    head(&mut body, uint, FP32);
    head(&mut body, array, shape.len() as u64);
    for length in shape {
        head(&mut body, uint, length.unsigned_abs());
    }
    head(&mut body, bytes, data.len() as u64);
    body.extend(data);
    body
}

/// A client of one of the two.
enum Client {
    Mqtt(Box<Load>),
    Http(Http),
}

impl Client {
    /// One request after the other, for `time`.
    fn run(&mut self, time: Duration) -> Result<(Histogram<u64>, u64), BenchError> {
        match self {
            Self::Mqtt(load) => {
                let measured = load.run(1, time)?;
                Ok((measured.nanoseconds, measured.answered))
            }
            Self::Http(http) => http.run(time),
        }
    }
}

/// The least of an HTTP client: one connection that stays, one request after the other.
struct Http {
    stream: BufReader<TcpStream>,
    request: Vec<u8>,
    answer: Vec<u8>,
}

impl Http {
    fn connect(port: u16, model: &str, message: &Message) -> Result<Self, BenchError> {
        let failed = |error| BenchError::System("connect over HTTP", error);
        let stream = TcpStream::connect(("127.0.0.1", port)).map_err(failed)?;
        stream.set_nodelay(true).map_err(failed)?;
        let patience = Some(Duration::from_secs(20));
        stream.set_read_timeout(patience).map_err(failed)?;
        let header = message.header_bytes.map_or_else(String::new, |bytes| {
            format!("inference-header-content-length: {bytes}\r\n")
        });
        let head = format!(
            "POST /v2/models/{model}/infer HTTP/1.1\r\nhost: box\r\ncontent-type: {}\r\n{header}content-length: {}\r\n\r\n",
            message.content_type,
            message.body.len()
        );
        Ok(Self {
            stream: BufReader::new(stream),
            request: [head.as_bytes(), &message.body].concat(),
            answer: Vec::new(),
        })
    }

    fn run(&mut self, time: Duration) -> Result<(Histogram<u64>, u64), BenchError> {
        let (mut nanoseconds, mut answered) = (histogram(), 0);
        let started = Instant::now();
        while answered == 0 || started.elapsed() < time {
            let before = Instant::now();
            let asked = self.ask();
            asked.map_err(|error| BenchError::System("ask over HTTP", error))?;
            let elapsed = u64::try_from(before.elapsed().as_nanos()).unwrap_or(u64::MAX);
            nanoseconds.saturating_record(elapsed);
            answered += 1;
        }
        Ok((nanoseconds, answered))
    }

    fn ask(&mut self) -> std::io::Result<()> {
        self.stream.get_mut().write_all(&self.request)?;
        let mut line = String::new();
        self.stream.read_line(&mut line)?;
        if !line.starts_with("HTTP/1.1 200 ") {
            return Err(std::io::Error::other(line));
        }
        let mut length = 0;
        while line.trim_end() != "" {
            line.clear();
            self.stream.read_line(&mut line)?;
            if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
                length = value.trim().parse().unwrap_or(0);
            }
        }
        self.answer.resize(length, 0);
        self.stream.read_exact(&mut self.answer)
    }
}

/// Measures.
pub(super) fn measure(
    plan: &Plan,
    port: u16,
    folder: &Path,
    runtime: &Runtime,
    all: &Path,
) -> Result<Ways, BenchError> {
    let [http] = processes::free_ports().map_err(|e| BenchError::System("find a port", e))?;
    let more = [format!("--http=127.0.0.1:{http}")];
    let agent = Agent::start_with(plan, "ways", port, all, folder, &more)?;
    let agent = agent.after("serving model", 3)?;
    let mut rows = Vec::new();
    for model in ["digits", "squeezenet"] {
        say(&format!("{model} in each form over MQTT and HTTP"));
        let floor = runtime.floor(&all.join(model).join("1/model.onnx"))?;
        let mut clients = Vec::new();
        for form in [Form::Raw, Form::Binary, Form::Cbor, Form::Json] {
            let message = form.message(&floor);
            let name = form.name();
            let client = format!("{model}-{}", name.to_lowercase());
            let topic = format!("edge/v1/{REGION}/box/ways/infer/{model}/{client}");
            let bytes = message.body.len();
            let mut load = Load::connect_to_send(port, &topic, message.clone(), QoS::AtLeastOnce)?;
            load.first_answer(Duration::from_secs(1))?;
            clients.push((format!("MQTT {name}"), bytes, Client::Mqtt(Box::new(load))));
            if matches!(form, Form::Binary | Form::Json) {
                let client = Client::Http(Http::connect(http, model, &message)?);
                clients.push((format!("HTTP {name}"), bytes, client));
            }
        }
        let mut times: Vec<_> = clients.iter().map(|_| (histogram(), Vec::new())).collect();
        for _ in 0..ROUNDS {
            for ((_, _, client), (all, costs)) in clients.iter_mut().zip(&mut times) {
                let before = cost::processor_ns(&agent.0)?;
                let (nanoseconds, answered) = client.run(plan.round / 2)?;
                let spent = cost::processor_ns(&agent.0)?.saturating_sub(before);
                // Same bounds on both sides, so nothing is out of range.
                let _added = all.add(&nanoseconds);
                costs.push(cost::each_us(spent, answered));
            }
        }
        for ((way, request_bytes, _), (all, costs)) in clients.into_iter().zip(times) {
            rows.push(Row {
                model,
                way,
                request_bytes,
                p50_us: microseconds(&all, 0.5),
                p99_us: microseconds(&all, 0.99),
                processor_us: median(costs),
            });
        }
    }
    Ok(Ways(rows))
}

impl Ways {
    /// For people.
    pub(super) fn table(&self) -> String {
        let mut text = String::from(
            "Ways to ask, one request after the other, microseconds; the ratio is to the first of the model\n\
             model       way           bytes in      p50     p99   ratio   processor of the agent\n",
        );
        for row in &self.0 {
            let first = self.0.iter().find(|it| it.model == row.model);
            let ratio = first.map_or(f64::NAN, |first| row.p50_us / first.p50_us);
            let _infallible = writeln!(
                text,
                "{:<11} {:<12} {:>9} {:>8.0} {:>7.0} {ratio:>7.2} {:>24.0}",
                row.model, row.way, row.request_bytes, row.p50_us, row.p99_us, row.processor_us
            );
        }
        text
    }
}
