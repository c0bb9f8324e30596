//! Network links: whether they carry, how fast, how much.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use heapless::{String, Vec as ShortVec};

use crate::{
    class_folder::Pace,
    kernel_file::{KernelFile, KernelFileError, parse_number},
    kernel_folder::each_entry,
    sim::{SimFault, SimReading},
};

/// Most links that are read; a box has two or three. The first by name count.
pub const MAX_LINKS: usize = 8;

/// Longest name of a link, in bytes (`IFNAMSIZ` less its terminator, `include/uapi/linux/if.h`).
const MAX_NAME_BYTES: usize = 15;

/// The machine's links to networks, without the one to itself.
pub trait Network: Send {
    /// Puts a reading of each link into `links`, after emptying it; a link that goes away meanwhile is left out.
    ///
    /// # Errors
    /// [`NetworkError`] when a link's file is not what the kernel documents. The other links are in `links`.
    fn read(&mut self, links: &mut Vec<Link>) -> Result<(), NetworkError>;
}

/// A link.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Link {
    /// Its name, such as `wlan0`.
    pub name: Arc<str>,
    /// Whether it carries packets.
    pub is_up: bool,
    /// Its speed, in millions of bits a second; none where the driver does not state it, as for radio.
    pub speed_mbit: Option<u32>,
    /// Bytes received since the link was made.
    pub received_bytes: u64,
    /// Bytes sent since the link was made.
    pub sent_bytes: u64,
    /// Packets received broken.
    pub receive_errors: u64,
    /// Packets that could not be sent.
    pub send_errors: u64,
}

/// Why a link is not known.
#[derive(Debug, thiserror::Error)]
pub enum NetworkError {
    /// The kernel's file.
    #[error(transparent)]
    Kernel(#[from] KernelFileError),
    /// The simulation.
    #[error(transparent)]
    Simulated(#[from] SimFault),
}

/// Links in `/sys/class/net` (Documentation/ABI/testing/sysfs-class-net and sysfs-class-net-statistics). New ones are
/// looked for once in a while.
#[derive(Debug)]
pub struct SysfsNetwork {
    class: PathBuf,
    pace: Pace,
    links: Vec<LinkFiles>,
}

#[derive(Debug)]
struct LinkFiles {
    name: Arc<str>,
    state: KernelFile,
    carrier: KernelFile,
    speed: KernelFile,
    received_bytes: KernelFile,
    sent_bytes: KernelFile,
    receive_errors: KernelFile,
    send_errors: KernelFile,
}

impl SysfsNetwork {
    /// Links of the machine below `root`; new ones are looked for every `look_every`.
    #[must_use]
    pub fn new(root: &Path, look_every: Duration) -> Self {
        Self {
            class: root.join("sys/class/net"),
            pace: Pace::new(look_every),
            links: Vec::with_capacity(MAX_LINKS),
        }
    }

    /// Opens links that came, keeps those that are open.
    fn look(&mut self) {
        let names = names(&self.class);
        self.links
            .retain(|link| names.iter().any(|name| *name == *link.name));
        for (place, name) in names.iter().enumerate() {
            if self
                .links
                .get(place)
                .is_none_or(|link| *link.name != **name)
            {
                self.links.insert(place, LinkFiles::new(&self.class, name));
            }
        }
    }
}

/// Names of the first [`MAX_LINKS`] links by name.
fn names(class: &Path) -> ShortVec<String<MAX_NAME_BYTES>, MAX_LINKS> {
    let mut names = ShortVec::<String<MAX_NAME_BYTES>, MAX_LINKS>::new();
    each_entry(class, |entry| {
        // A file, such as `bonding_masters`, is no link.
        if entry.name == "lo" || !entry.has("operstate") {
            return;
        }
        let Ok(name) = String::try_from(entry.name) else {
            return;
        };
        let place = names.partition_point(|known| *known < name);
        if place < MAX_LINKS {
            if names.is_full() {
                names.pop();
            }
            // There is room now.
            let _placed = names.insert(place, name);
        }
    });
    names
}

impl Network for SysfsNetwork {
    fn read(&mut self, links: &mut Vec<Link>) -> Result<(), NetworkError> {
        links.clear();
        if self.pace.is_due() {
            self.look();
        }
        let mut first_error = None;
        self.links.retain_mut(|files| match files.read() {
            Ok(link) => {
                links.push(link);
                true
            }
            // Unplugged: it is found again when it comes back.
            Err(error) if error.is_gone() => false,
            Err(error) => {
                first_error.get_or_insert(error);
                true
            }
        });
        first_error.map_or(Ok(()), |error| Err(error.into()))
    }
}

impl LinkFiles {
    fn new(class: &Path, name: &str) -> Self {
        let file = |file: &str| KernelFile::new(class, &format!("{name}/{file}"));
        Self {
            name: name.into(),
            state: file("operstate"),
            carrier: file("carrier"),
            speed: file("speed"),
            received_bytes: file("statistics/rx_bytes"),
            sent_bytes: file("statistics/tx_bytes"),
            receive_errors: file("statistics/rx_errors"),
            send_errors: file("statistics/tx_errors"),
        }
    }

    fn read(&mut self) -> Result<Link, KernelFileError> {
        let state = self.state.parse("known state of a link", parse_state)?;
        let is_up = match state {
            State::Up => true,
            State::Down => false,
            // The driver does not say, as those of tunnels: then the carrier counts.
            State::Unknown => match self.carrier.parse("0 or 1", parse_carrier) {
                Err(error) if error.is_absent() => false,
                carrier => carrier?,
            },
        };
        // Links that are down or have no fixed speed refuse or say -1.
        let speed_mbit = match is_up.then(|| self.speed.parse("whole number", parse_number::<i64>))
        {
            None => None,
            Some(Err(error)) if error.is_absent() => None,
            Some(speed) => u32::try_from(speed?).ok().filter(|speed| *speed < u32::MAX),
        };
        let count = |file: &mut KernelFile| file.parse("whole number", parse_number::<u64>);
        Ok(Link {
            name: Arc::clone(&self.name),
            is_up,
            speed_mbit,
            received_bytes: count(&mut self.received_bytes)?,
            sent_bytes: count(&mut self.sent_bytes)?,
            receive_errors: count(&mut self.receive_errors)?,
            send_errors: count(&mut self.send_errors)?,
        })
    }
}

/// States of RFC 2863 (Documentation/networking/operstates.rst).
enum State {
    Up,
    Down,
    Unknown,
}

fn parse_state(text: &str) -> Option<State> {
    match text.trim() {
        "up" => Some(State::Up),
        "down" | "lowerlayerdown" | "dormant" | "notpresent" | "testing" => Some(State::Down),
        "unknown" => Some(State::Unknown),
        _ => None,
    }
}

fn parse_carrier(text: &str) -> Option<bool> {
    match text.trim() {
        "0" => Some(false),
        "1" => Some(true),
        _ => None,
    }
}

/// Links that somebody sets.
#[derive(Debug, Clone)]
pub struct SimNetwork(pub SimReading<Vec<Link>>);

impl Network for SimNetwork {
    fn read(&mut self, links: &mut Vec<Link>) -> Result<(), NetworkError> {
        links.clear();
        links.extend(self.0.read()?);
        Ok(())
    }
}
