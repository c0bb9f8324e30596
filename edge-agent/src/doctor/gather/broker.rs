//! Whether the broker takes this box, over a connection of its own that the agent's do not notice.

use std::{
    io::{self, Read, Write},
    net::{SocketAddr, TcpStream, ToSocketAddrs},
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::BytesMut;
use edge_protocol::{BrokerUrl, Id};
use rumqttc::v5::mqttbytes::{
    self,
    v5::{
        Connect, ConnectProperties, ConnectReturnCode, Disconnect, DisconnectReasonCode, Packet,
        PingReq,
    },
};
use rustls::{ClientConfig, ClientConnection, StreamOwned, pki_types::ServerName};

use super::super::verdict::region::BrokerFacts;

/// No answer to CONNECT or PINGREQ is near this long.
const PACKET_MAX_BYTES: u32 = 16 * 1_024;
/// Seconds; the connection lives shorter.
const KEEP_ALIVE_S: u16 = 20;

/// `tls` is how this box shows who it is; none where the broker is reached without.
pub(in super::super) fn ask(
    broker: &BrokerUrl,
    box_id: Option<&Id>,
    tls: Option<Arc<ClientConfig>>,
    limit: Duration,
) -> BrokerFacts {
    let started = Instant::now();
    let deadline = started + limit;
    let host = broker.host.trim_matches(['[', ']']);
    let addresses: Vec<SocketAddr> = match (host, broker.port).to_socket_addrs() {
        Ok(addresses) => addresses.collect(),
        Err(error) => return BrokerFacts::Unresolved(error.to_string()),
    };
    let stream = match connect(&addresses, deadline) {
        Ok(stream) => stream,
        Err(error) => return BrokerFacts::NoConnection(error.to_string()),
    };
    let stream = match tls {
        None => Stream::Plain(stream),
        Some(tls) => match secured(tls, host, stream) {
            Ok(stream) => stream,
            Err(why) => return BrokerFacts::NoAnswer(why),
        },
    };
    let mut link = Link {
        stream,
        received: BytesMut::new(),
        deadline,
    };
    // The agent's own names are {box}.own, {box}.shared and {box}.telemetry: none of them is pushed out.
    let client_id = box_id.map_or_else(String::new, |id| format!("{id}.doctor"));
    match link.enter(client_id) {
        Ok(ConnectReturnCode::Success) => {}
        Ok(code) => return BrokerFacts::Refused(in_words(code)),
        Err(why) => return BrokerFacts::NoAnswer(why),
    }
    let connect_us = micros(started.elapsed());
    let pinged = Instant::now();
    let answered = link.ping();
    let round_trip_us = micros(pinged.elapsed());
    // The broker notices the end of the connection either way.
    let _left = link.leave();
    match answered {
        Ok(()) => BrokerFacts::Accepted {
            connect_us,
            round_trip_us,
        },
        Err(why) => BrokerFacts::NoAnswer(format!("accepted the box, then: {why}")),
    }
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

/// The first of the addresses that takes a connection; otherwise why the last does not.
fn connect(addresses: &[SocketAddr], deadline: Instant) -> io::Result<TcpStream> {
    let mut result = Err(io::Error::other("the name has no addresses"));
    for address in addresses {
        let stream = remaining(deadline)
            .and_then(|limit| TcpStream::connect_timeout(address, limit))
            .and_then(|stream| stream.set_nodelay(true).map(|()| stream));
        match stream {
            Ok(stream) => return Ok(stream),
            Err(error) => result = Err(error),
        }
    }
    result
}

fn remaining(deadline: Instant) -> io::Result<Duration> {
    let left = deadline.saturating_duration_since(Instant::now());
    if left.is_zero() {
        Err(io::Error::new(io::ErrorKind::TimedOut, "no answer in time"))
    } else {
        Ok(left)
    }
}

/// The handshake itself comes with the first packet.
fn secured(tls: Arc<ClientConfig>, host: &str, stream: TcpStream) -> Result<Stream, String> {
    let name = ServerName::try_from(host.to_owned()).map_err(|error| error.to_string())?;
    let connection = ClientConnection::new(tls, name).map_err(|error| error.to_string())?;
    Ok(Stream::Tls(Box::new(StreamOwned::new(connection, stream))))
}

enum Stream {
    Plain(TcpStream),
    Tls(Box<StreamOwned<ClientConnection, TcpStream>>),
}

impl Stream {
    fn socket(&self) -> &TcpStream {
        match self {
            Self::Plain(stream) => stream,
            Self::Tls(stream) => stream.get_ref(),
        }
    }
}

impl Read for Stream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Plain(stream) => stream.read(buffer),
            Self::Tls(stream) => stream.read(buffer),
        }
    }
}

impl Write for Stream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Plain(stream) => stream.write(bytes),
            Self::Tls(stream) => stream.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Plain(stream) => stream.flush(),
            Self::Tls(stream) => stream.flush(),
        }
    }
}

struct Link {
    stream: Stream,
    received: BytesMut,
    deadline: Instant,
}

impl Link {
    fn enter(&mut self, client_id: String) -> Result<ConnectReturnCode, String> {
        let mut properties = ConnectProperties::new();
        properties.session_expiry_interval = Some(0);
        let connect = Connect {
            keep_alive: KEEP_ALIVE_S,
            client_id,
            clean_start: true,
            properties: Some(properties),
        };
        self.send(&Packet::Connect(connect, None, None))?;
        match self.receive()? {
            Packet::ConnAck(answer) => Ok(answer.code),
            Packet::Disconnect(end) => Err(format!("it disconnects: {:?}", end.reason_code)),
            _ => Err("its first packet is no answer to CONNECT".to_owned()),
        }
    }

    fn ping(&mut self) -> Result<(), String> {
        self.send(&Packet::PingReq(PingReq))?;
        match self.receive()? {
            Packet::PingResp(_) => Ok(()),
            Packet::Disconnect(end) => Err(format!("it disconnects: {:?}", end.reason_code)),
            _ => Err("it answers a ping with something else".to_owned()),
        }
    }

    fn leave(&mut self) -> Result<(), String> {
        let reason = DisconnectReasonCode::NormalDisconnection;
        self.send(&Packet::Disconnect(Disconnect::new(reason)))
    }

    fn send(&mut self, packet: &Packet) -> Result<(), String> {
        let mut bytes = BytesMut::new();
        packet
            .write(&mut bytes, None)
            .map_err(|error| error.to_string())?;
        remaining(self.deadline)
            .and_then(|left| {
                let socket = self.stream.socket();
                // The handshake reads too.
                socket.set_read_timeout(Some(left))?;
                socket.set_write_timeout(Some(left))
            })
            .and_then(|()| self.stream.write_all(&bytes))
            .and_then(|()| self.stream.flush())
            .map_err(|error| said(&error))
    }

    fn receive(&mut self) -> Result<Packet, String> {
        loop {
            match Packet::read(&mut self.received, Some(PACKET_MAX_BYTES)) {
                Ok(packet) => return Ok(packet),
                Err(mqttbytes::Error::InsufficientBytes(_)) => {}
                Err(error) => return Err(format!("its answer is not MQTT 5: {error}")),
            }
            let mut buffer = [0; 1_024];
            let count = remaining(self.deadline)
                .and_then(|left| self.stream.socket().set_read_timeout(Some(left)))
                .and_then(|()| self.stream.read(&mut buffer))
                .map_err(|error| said(&error))?;
            match buffer.get(..count) {
                None | Some([]) => return Err("it ends the connection".to_owned()),
                Some(bytes) => self.received.extend_from_slice(bytes),
            }
        }
    }
}

/// A time-out reads as "resource temporarily unavailable" in the system's words.
fn said(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => "no answer in time".to_owned(),
        _ => error.to_string(),
    }
}

/// The broker's reason (MQTT 5, section 3.2.2.2).
fn in_words(code: ConnectReturnCode) -> String {
    match code {
        ConnectReturnCode::NotAuthorized => "not authorised".to_owned(),
        ConnectReturnCode::BadUserNamePassword => "wrong user name or password".to_owned(),
        ConnectReturnCode::BadClientId | ConnectReturnCode::ClientIdentifierNotValid => {
            "it does not take this box's name".to_owned()
        }
        ConnectReturnCode::Banned => "banned".to_owned(),
        ConnectReturnCode::ServerBusy => "it is busy".to_owned(),
        ConnectReturnCode::ServerUnavailable | ConnectReturnCode::ServiceUnavailable => {
            "it is not available".to_owned()
        }
        ConnectReturnCode::RefusedProtocolVersion
        | ConnectReturnCode::UnsupportedProtocolVersion => "it does not speak MQTT 5".to_owned(),
        ConnectReturnCode::QuotaExceeded => "a quota is used up".to_owned(),
        ConnectReturnCode::ConnectionRateExceeded => "too many connections at once".to_owned(),
        ConnectReturnCode::UseAnotherServer | ConnectReturnCode::ServerMoved => {
            "it has moved: ask for its new address".to_owned()
        }
        other => format!("{other:?}"),
    }
}

#[cfg(test)]
mod tests {
    use std::{net::TcpListener, thread};

    use super::*;

    /// What is found when the other end answers CONNECT with these bytes, then ends the connection.
    fn answered(bytes: &'static [u8]) -> BrokerFacts {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let other_end = thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut request = [0; 256];
            let count = stream.read(&mut request).unwrap();
            stream.write_all(bytes).unwrap();
            request[..count].to_vec()
        });
        let broker = BrokerUrl {
            host: "127.0.0.1".to_owned(),
            port,
            tls: false,
        };
        let id = Id::new("box-1").unwrap();
        let facts = ask(&broker, Some(&id), None, Duration::from_secs(20));
        let request = other_end.join().unwrap();
        assert!(request.windows(12).any(|window| window == b"box-1.doctor"));
        facts
    }

    #[test]
    fn what_brokers_and_others_answer() {
        let no_answer = |facts| matches!(facts, BrokerFacts::NoAnswer(_));
        let refused = |why: &str| BrokerFacts::Refused(why.to_owned());
        assert_eq!(answered(b"\x20\x03\x00\x87\x00"), refused("not authorised"));
        assert_eq!(answered(b"\x20\x03\x00\x8a\x00"), refused("banned"));
        assert!(no_answer(answered(b"")));
        assert!(no_answer(answered(b"HTTP/1.1 400 Bad Request\r\n\r\n")));
        assert!(no_answer(answered(b"\x20\x02\x00\x01")), "MQTT 3.1.1");
        assert!(no_answer(answered(b"\xd0\x00")), "a ping's answer first");
        assert!(no_answer(answered(b"\xff\xff\xff\xff\xff")));
        // Accepted, and then gone.
        let BrokerFacts::NoAnswer(why) = answered(b"\x20\x03\x00\x00\x00") else {
            panic!("no ping is answered");
        };
        assert!(why.starts_with("accepted the box, then: "), "{why}");
        let accepted = answered(b"\x20\x03\x00\x00\x00\xd0\x00");
        assert!(matches!(accepted, BrokerFacts::Accepted { .. }));
    }

    #[test]
    fn nobody_there() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        drop(listener);
        let ask_at = |host: &str| {
            let host = host.to_owned();
            let tls = false;
            ask(
                &BrokerUrl { host, port, tls },
                None,
                None,
                Duration::from_secs(20),
            )
        };
        assert!(matches!(ask_at("127.0.0.1"), BrokerFacts::NoConnection(_)));
        assert!(matches!(ask_at("[::1]"), BrokerFacts::NoConnection(_)));
        assert!(matches!(ask_at("a..b"), BrokerFacts::Unresolved(_)));
    }

    #[test]
    fn one_that_never_answers_is_given_up() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let broker = BrokerUrl {
            host: "127.0.0.1".to_owned(),
            port: listener.local_addr().unwrap().port(),
            tls: false,
        };
        let facts = ask(&broker, None, None, Duration::from_millis(50));
        assert_eq!(facts, BrokerFacts::NoAnswer("no answer in time".to_owned()));
    }
}
