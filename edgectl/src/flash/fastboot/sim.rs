//! A simulated board in fastboot mode, over TCP: to try flashing without a board, and to test what happens when one
//! fails. Partitions are files of a folder. It is itself checked with Debian's `fastboot`.

use std::{
    collections::BTreeMap,
    fs::{File, OpenOptions},
    io::{self, Read as _, Seek as _, Write as _},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    os::unix::fs::FileExt as _,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
};

use parking_lot::Mutex;

use super::{tcp::GREETING, transport::ANSWER_MAX_BYTES};
use crate::flash::pieces::{Content, Layout};

/// Bytes that are written at a time.
const WRITE_BYTES: usize = 1 << 20;

/// What a simulated board is.
#[derive(Debug, Clone)]
pub struct SimBoard {
    /// Its product name.
    pub product: String,
    /// Its serial number.
    pub serial: String,
    /// Its partitions and their sizes in bytes; each is the file `NAME.img` of the folder.
    pub partitions: BTreeMap<String, u64>,
    /// Where their files are.
    pub folder: PathBuf,
    /// Bytes that it takes at a time.
    pub max_download_bytes: u32,
    /// Whether its boot loader lets anybody write.
    pub unlocked: bool,
}

/// What goes wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SimFault {
    /// It never answers.
    Silent,
    /// It refuses.
    Refuses(String),
    /// It answers with these bytes.
    Babbles(Vec<u8>),
    /// The connection ends at once.
    Disconnects,
    /// The connection ends after so many bytes of a download.
    DisconnectsInData(u32),
    /// It loses power after so many bytes of the partition are written.
    TearsWrite(u64),
    /// Another board answers from now on.
    ChangesSerial(String),
}

/// A fault and when it comes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Scripted {
    /// How the command begins.
    pub command: String,
    /// At the how-manieth such command, from 1.
    pub nth: usize,
    /// What happens.
    pub fault: SimFault,
}

/// A running simulated board; it ends with the value.
#[derive(Debug)]
pub struct SimFastboot {
    address: SocketAddr,
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct Shared {
    is_over: AtomicBool,
    commands: Mutex<Vec<String>>,
    /// The connection that is served, to cut it at the end.
    current: Mutex<Option<TcpStream>>,
}

impl SimFastboot {
    /// Makes the partitions and serves one client after the other.
    ///
    /// # Errors
    /// What the system says of the address and the files.
    pub fn start(listen: SocketAddr, board: SimBoard, script: Vec<Scripted>) -> io::Result<Self> {
        for (name, bytes) in &board.partitions {
            let path = file_of(&board.folder, name);
            let file = OpenOptions::new()
                .create(true)
                .truncate(false)
                .write(true)
                .open(path)?;
            file.set_len(*bytes)?;
        }
        let listener = TcpListener::bind(listen)?;
        let address = listener.local_addr()?;
        let shared = Arc::new(Shared::default());
        let mut server = Server {
            board,
            script,
            shared: Arc::clone(&shared),
        };
        let thread = thread::spawn(move || {
            for client in listener.incoming() {
                if server.shared.is_over.load(Ordering::Relaxed) {
                    return;
                }
                // A client that fails costs only its own connection.
                let _ended = client.and_then(|client| server.serve(client));
                *server.shared.current.lock() = None;
            }
        });
        Ok(Self {
            address,
            shared,
            thread: Some(thread),
        })
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The commands that it was given.
    #[must_use]
    pub fn commands(&self) -> Vec<String> {
        self.shared.commands.lock().clone()
    }

    /// Waits until it ends, which it does not do by itself.
    pub fn wait(mut self) {
        if let Some(thread) = self.thread.take() {
            // Its panic was printed already.
            let _ended = thread.join();
        }
    }
}

impl Drop for SimFastboot {
    fn drop(&mut self) {
        let Some(thread) = self.thread.take() else {
            return;
        };
        self.shared.is_over.store(true, Ordering::Relaxed);
        if let Some(current) = self.shared.current.lock().take() {
            let _closed = current.shutdown(Shutdown::Both);
        }
        // Wakes it up where it waits for a client.
        let _woken = TcpStream::connect(self.address);
        let _ended = thread.join();
    }
}

/// The file of a partition.
#[must_use]
pub fn file_of(folder: &Path, partition: &str) -> PathBuf {
    folder.join(format!("{partition}.img"))
}

struct Server {
    board: SimBoard,
    script: Vec<Scripted>,
    shared: Arc<Shared>,
}

/// The connection is to end.
const ENDED: io::ErrorKind = io::ErrorKind::ConnectionAborted;

impl Server {
    fn serve(&mut self, mut client: TcpStream) -> io::Result<()> {
        *self.shared.current.lock() = Some(client.try_clone()?);
        client.set_nodelay(true)?;
        client.write_all(GREETING)?;
        let mut greeting = [0; 4];
        client.read_exact(&mut greeting)?;
        let mut download = tempfile::tempfile()?;
        loop {
            let mut command = vec![0; next_length(&mut client, ANSWER_MAX_BYTES as u64)?];
            client.read_exact(&mut command)?;
            let command = String::from_utf8_lossy(&command).into_owned();
            tracing::info!(command, "from the client");
            self.shared.commands.lock().push(command.clone());
            let fault = self.fault(&command);
            match &fault {
                Some(SimFault::Silent) => {
                    io::copy(&mut client, &mut io::sink())?;
                    return Ok(());
                }
                Some(SimFault::Refuses(reason)) => {
                    answer(&mut client, &format!("FAIL{reason}"))?;
                    continue;
                }
                Some(SimFault::Babbles(bytes)) => {
                    send(&mut client, bytes)?;
                    continue;
                }
                Some(SimFault::Disconnects) => return Ok(()),
                Some(SimFault::ChangesSerial(serial)) => {
                    self.board.serial.clone_from(serial);
                    return Ok(());
                }
                Some(SimFault::DisconnectsInData(_) | SimFault::TearsWrite(_)) | None => {}
            }
            let answered = match command.split_once(':') {
                Some(("getvar", name)) => self.variable(&mut client, name),
                Some(("download", size)) => match u32::from_str_radix(size, 16) {
                    Ok(size) if size <= self.board.max_download_bytes => {
                        receive(&mut client, size, &mut download, fault.as_ref())?;
                        Ok(String::new())
                    }
                    _ => Err(format!("data too large: {size}")),
                },
                Some(("flash", name)) => {
                    let torn = match fault {
                        Some(SimFault::TearsWrite(bytes)) => Some(bytes),
                        _ => None,
                    };
                    answer(&mut client, &format!("INFOwriting {name}"))?;
                    self.flash(name, &mut download, torn)?
                }
                Some(("erase", name)) if self.board.partitions.contains_key(name) => {
                    Ok(String::new())
                }
                Some(("set_active", "a" | "b")) => Ok(String::new()),
                None if command == "reboot" || command == "continue" => {
                    answer(&mut client, "OKAY")?;
                    return Ok(());
                }
                _ => Err("unknown command".to_owned()),
            };
            match answered {
                Ok(value) => answer(&mut client, &format!("OKAY{value}"))?,
                Err(reason) => answer(&mut client, &format!("FAIL{reason}"))?,
            }
        }
    }

    /// What the script has for a command that came.
    fn fault(&mut self, command: &str) -> Option<SimFault> {
        let mut found = None;
        for entry in &mut self.script {
            if entry.nth == 0 || !command.starts_with(&entry.command) {
                continue;
            }
            entry.nth -= 1;
            if entry.nth == 0 {
                found.get_or_insert_with(|| entry.fault.clone());
            }
        }
        found
    }

    fn variables(&self) -> BTreeMap<String, String> {
        let board = &self.board;
        let mut all = BTreeMap::from([
            ("version".to_owned(), "0.4".to_owned()),
            ("product".to_owned(), board.product.clone()),
            ("serialno".to_owned(), board.serial.clone()),
            (
                "unlocked".to_owned(),
                if board.unlocked { "yes" } else { "no" }.to_owned(),
            ),
            ("slot-count".to_owned(), "2".to_owned()),
            ("current-slot".to_owned(), "a".to_owned()),
            (
                "max-download-size".to_owned(),
                format!("{:#x}", board.max_download_bytes),
            ),
        ]);
        for (name, bytes) in &board.partitions {
            all.insert(format!("partition-size:{name}"), format!("{bytes:#x}"));
            all.insert(format!("partition-type:{name}"), "raw".to_owned());
            if let Some(slotted) = name.strip_suffix("_a") {
                all.insert(format!("has-slot:{slotted}"), "yes".to_owned());
            }
        }
        all
    }

    fn variable(&self, client: &mut TcpStream, name: &str) -> Result<String, String> {
        let all = self.variables();
        if name == "all" {
            for (name, value) in &all {
                answer(client, &format!("INFO{name}: {value}"))
                    .map_err(|error| error.to_string())?;
            }
            return Ok(String::new());
        }
        all.get(name)
            .cloned()
            .ok_or_else(|| "GetVar Variable Not found".to_owned())
    }

    /// Writes a download to a partition; only so many bytes, if it loses power meanwhile.
    fn flash(
        &self,
        name: &str,
        download: &mut File,
        torn: Option<u64>,
    ) -> io::Result<Result<String, String>> {
        if !self.board.unlocked {
            return Ok(Err("Flashing is not allowed in Lock State".to_owned()));
        }
        let Some(room) = self.board.partitions.get(name) else {
            return Ok(Err("No such partition".to_owned()));
        };
        let file = OpenOptions::new()
            .write(true)
            .open(file_of(&self.board.folder, name))?;
        match write(download, &file, *room, torn) {
            Ok(()) => Ok(Ok(String::new())),
            Err(WriteError::Refused(reason)) => Ok(Err(reason)),
            Err(WriteError::Gone(error)) => Err(error),
        }
    }
}

/// Bytes of the next message, of which there are at most `most`.
fn next_length(client: &mut TcpStream, most: u64) -> io::Result<usize> {
    let mut length = [0; 8];
    client.read_exact(&mut length)?;
    let length = u64::from_be_bytes(length);
    match usize::try_from(length) {
        Ok(size) if length <= most => Ok(size),
        _ => Err(ENDED.into()),
    }
}

fn send(client: &mut TcpStream, bytes: &[u8]) -> io::Result<()> {
    client.write_all(&[&(bytes.len() as u64).to_be_bytes(), bytes].concat())
}

fn answer(client: &mut TcpStream, text: &str) -> io::Result<()> {
    send(client, text.as_bytes())
}

/// Takes `size` bytes in as many messages as they come.
fn receive(
    client: &mut TcpStream,
    size: u32,
    download: &mut File,
    fault: Option<&SimFault>,
) -> io::Result<()> {
    answer(client, &format!("DATA{size:08x}"))?;
    download.set_len(0)?;
    download.rewind()?;
    let mut left = u64::from(size);
    let mut until_cut = match fault {
        Some(SimFault::DisconnectsInData(bytes)) => u64::from(*bytes),
        _ => u64::MAX,
    };
    while left > 0 {
        let length = next_length(client, left)? as u64;
        let taken = io::copy(&mut client.take(length.min(until_cut)), download)?;
        if taken < length {
            return Err(ENDED.into());
        }
        until_cut -= taken;
        left -= taken;
    }
    Ok(())
}

/// Writes a download to a partition, and leaves the gaps of a sparse one alone.
fn write(download: &mut File, file: &File, room: u64, torn: Option<u64>) -> Result<(), WriteError> {
    let layout = Layout::read(download).map_err(|error| WriteError::Refused(error.to_string()))?;
    if layout.image_bytes > room {
        return Err(WriteError::Refused(
            "image is larger than the partition".to_owned(),
        ));
    }
    let block = u64::from(layout.block_bytes);
    let mut until_cut = torn.unwrap_or(u64::MAX);
    let mut offset = 0;
    for extent in &layout.extents {
        let length = (u64::from(extent.blocks) * block).min(layout.image_bytes - offset);
        let mut done = 0;
        while done < length && extent.content != Content::Skip {
            let mut part = vec![
                0;
                usize::try_from(length - done)
                    .unwrap_or(WRITE_BYTES)
                    .min(WRITE_BYTES)
            ];
            match extent.content {
                Content::File(at) => download.read_exact_at(&mut part, at + done)?,
                // A part is a multiple of a block, as what is filled.
                Content::Fill(fill) => part
                    .iter_mut()
                    .zip(fill.iter().cycle())
                    .for_each(|(byte, fill)| *byte = *fill),
                Content::Skip => {}
            }
            let kept = usize::try_from(until_cut)
                .unwrap_or(usize::MAX)
                .min(part.len());
            file.write_all_at(part.get(..kept).unwrap_or_default(), offset + done)?;
            if kept < part.len() {
                return Err(io::Error::from(ENDED).into());
            }
            until_cut -= kept as u64;
            done += kept as u64;
        }
        offset += length;
    }
    Ok(())
}

/// Why a partition was not written.
enum WriteError {
    /// The board says no.
    Refused(String),
    /// The board is gone.
    Gone(io::Error),
}

impl From<io::Error> for WriteError {
    fn from(error: io::Error) -> Self {
        Self::Gone(error)
    }
}
