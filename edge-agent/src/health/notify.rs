//! What systemd hears: `sd_notify(3)`, as datagrams to the socket that it names in the environment.
//!
//! Written here, since the crate `sd-notify` (0.5.0) takes the name of an abstract socket (`@...`, as containers use)
//! for a path, and waits where systemd does not read. Nothing here waits: what cannot be sent now is told again.

use std::{
    env, io,
    os::{
        linux::net::SocketAddrExt,
        unix::{
            ffi::OsStrExt,
            net::{SocketAddr, UnixDatagram},
        },
    },
    process,
    time::{Duration, Instant},
};

use tracing::warn;

/// Shortest time between two status lines.
const STATUS_EVERY: Duration = Duration::from_secs(5);

/// The line to systemd; silent where nobody listens.
#[derive(Debug, Default)]
pub struct Notify {
    socket: Option<UnixDatagram>,
    watchdog: Option<Duration>,
    is_ready: bool,
    status: Option<(String, Instant)>,
}

impl Notify {
    /// The line that the environment names.
    #[must_use]
    pub fn from_environment() -> Self {
        let text = |name| env::var(name).ok();
        let socket = env::var_os("NOTIFY_SOCKET");
        let watchdog = watchdog(text("WATCHDOG_USEC"), text("WATCHDOG_PID"), process::id());
        match Self::open(socket.as_deref().map(OsStrExt::as_bytes), watchdog) {
            Ok(notify) => notify,
            Err(error) => {
                let socket = socket.unwrap_or_default();
                warn!(?socket, %error, "systemd cannot be told how the box is");
                Self::default()
            }
        }
    }

    /// The line to `socket`, a path or a name that begins with `@`, whose other end waits for news every `watchdog`.
    ///
    /// # Errors
    /// When nobody listens there.
    pub fn open(socket: Option<&[u8]>, watchdog: Option<Duration>) -> io::Result<Self> {
        let Some(socket) = socket.filter(|name| !name.is_empty()) else {
            return Ok(Self::default());
        };
        let address = match socket.strip_prefix(b"@") {
            Some(name) => SocketAddr::from_abstract_name(name)?,
            None => SocketAddr::from_pathname(std::ffi::OsStr::from_bytes(socket))?,
        };
        let datagrams = UnixDatagram::unbound()?;
        datagrams.connect_addr(&address)?;
        datagrams.set_nonblocking(true)?;
        Ok(Self {
            socket: Some(datagrams),
            watchdog,
            ..Self::default()
        })
    }

    /// Time without news after which systemd ends the agent.
    #[must_use]
    pub const fn watchdog(&self) -> Option<Duration> {
        self.watchdog
    }

    /// The agent serves, or knows that it cannot.
    pub fn ready(&mut self) {
        if !self.is_ready {
            self.is_ready = self.send("READY=1");
        }
    }

    /// All parts make progress.
    pub fn feed(&self) {
        if self.watchdog.is_some() {
            self.send("WATCHDOG=1");
        }
    }

    /// The agent ends in order.
    pub fn stopping(&self) {
        self.send("STOPPING=1\nSTATUS=draining");
    }

    /// A line for people, sent when it has changed and the last one is some seconds old.
    pub fn status(&mut self, line: &str, now: Instant) {
        // A line break would begin another message.
        let line = line.replace(char::is_control, " ");
        let is_due = |(last, at): &(String, Instant)| {
            *last != line && now.saturating_duration_since(*at) >= STATUS_EVERY
        };
        if self.status.as_ref().is_none_or(is_due) && self.send(&format!("STATUS={line}")) {
            self.status = Some((line, now));
        }
    }

    fn send(&self, message: &str) -> bool {
        match &self.socket {
            Some(socket) => socket.send(message.as_bytes()).is_ok(),
            None => true,
        }
    }
}

/// `WATCHDOG_USEC` where it is meant for this process (`sd_watchdog_enabled(3)`).
fn watchdog(usec: Option<String>, pid: Option<String>, own_pid: u32) -> Option<Duration> {
    let is_ours = pid.is_none_or(|pid| pid.parse() == Ok(own_pid));
    let usec: u64 = usec?.parse().ok()?;
    (is_ours && usec > 0).then(|| Duration::from_micros(usec))
}

#[cfg(test)]
mod tests {
    use super::*;

    const NEWS: Option<Duration> = Some(Duration::from_secs(60));

    fn received(socket: &UnixDatagram) -> Vec<String> {
        socket.set_nonblocking(true).unwrap();
        let mut buffer = [0; 512];
        std::iter::from_fn(|| socket.recv(&mut buffer).ok().map(|n| buffer[..n].to_vec()))
            .map(|message| String::from_utf8(message).unwrap())
            .collect()
    }

    fn says_all(mut notify: Notify, socket: &UnixDatagram) {
        let start = Instant::now();
        notify.status("starting", start);
        notify.status("serving\n1 model", start);
        notify.ready();
        notify.ready();
        notify.feed();
        notify.status("serving\n1 model", start + STATUS_EVERY);
        notify.status("serving\n1 model", start + 3 * STATUS_EVERY);
        notify.stopping();
        let wanted = [
            "STATUS=starting",
            "READY=1",
            "WATCHDOG=1",
            "STATUS=serving 1 model",
        ];
        let said = received(socket);
        assert_eq!(said[..4], wanted);
        assert_eq!(said[4..], ["STOPPING=1\nSTATUS=draining"]);
    }

    #[test]
    fn speaks_to_a_socket_with_a_path() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("notify");
        let socket = UnixDatagram::bind(&path).unwrap();
        let name = path.as_os_str().as_bytes();
        says_all(Notify::open(Some(name), NEWS).unwrap(), &socket);
    }

    #[test]
    fn speaks_to_an_abstract_socket() {
        let name = format!("edge-agent-notify-{}", process::id());
        let address = SocketAddr::from_abstract_name(&name).unwrap();
        let socket = UnixDatagram::bind_addr(&address).unwrap();
        let name = format!("@{name}");
        says_all(Notify::open(Some(name.as_bytes()), NEWS).unwrap(), &socket);
    }

    #[test]
    fn a_systemd_that_does_not_read_costs_no_wait() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("notify");
        let _unread = UnixDatagram::bind(&path).unwrap();
        let name = path.as_os_str().as_bytes();
        let mut notify = Notify::open(Some(name), NEWS).unwrap();
        while notify.send("WATCHDOG=1") {}
        notify.ready();
        assert!(!notify.is_ready, "told again later");
        assert!(Notify::open(Some(b"/nowhere/notify"), None).is_err());
    }

    #[test]
    fn silent_where_nobody_listens() {
        let mut notify = Notify::open(None, NEWS).unwrap();
        assert_eq!(notify.watchdog(), None);
        notify.ready();
        notify.feed();
    }

    #[test]
    fn the_watchdog_is_ours_when_the_process_is() {
        let usec = |usec: &str, pid: Option<&str>| {
            watchdog(Some(usec.into()), pid.map(Into::into), 7).map(|time| time.as_secs())
        };
        assert_eq!(usec("60000000", None), Some(60));
        assert_eq!(usec("60000000", Some("7")), Some(60));
        assert_eq!(usec("60000000", Some("8")), None);
        assert_eq!(usec("0", None), None);
        assert_eq!(usec("soon", None), None);
        assert_eq!(watchdog(None, None, 7), None);
    }
}
