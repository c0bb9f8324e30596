//! Storage that loses power: after a given number of writes, flushes and file operations everything fails, and of
//! what was not flushed only a part is left.

#![allow(dead_code, reason = "each test that includes this uses a part")]
#![allow(
    clippy::cast_possible_truncation,
    clippy::indexing_slicing,
    reason = "low bits of a random number, and a byte in a table of 256"
)]

use std::{
    collections::HashSet,
    hash::{DefaultHasher, Hash, Hasher},
    io,
    sync::{Arc, Mutex},
};

use edge_hal::slots::{SlotError, block::BlockDevice, state_file::StateFile};

const CRC: [u32; 256] = {
    let mut table = [0; 256];
    let mut byte = 0;
    while byte < 256 {
        let mut crc = byte as u32;
        let mut bit = 0;
        while bit < 8 {
            crc = (crc >> 1) ^ (0xEDB8_8320 * (crc & 1));
            bit += 1;
        }
        table[byte] = crc;
        byte += 1;
    }
    table
};

/// CRC-32 as in zlib, GPT and U-Boot, apart from the code that is tested.
pub(crate) fn crc(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(u32::MAX, |crc, byte| {
        (crc >> 8) ^ CRC[(crc as u8 ^ byte) as usize]
    })
}

/// Lets the power end at every step of `operation` with each loss, and shows what is left. What is there without a cut,
/// and how many steps that took.
pub(crate) fn cut_at_every_step(
    start: &Medium,
    name: &str,
    losses: impl Fn(u64) -> Vec<Loss>,
    operation: impl Fn(&Power) -> Result<(), SlotError>,
    mut look: impl FnMut(&Medium, &str),
) -> (Medium, u64) {
    let power = Power::new(start.clone(), None, Loss::All);
    operation(&power).unwrap();
    let total = power.used();
    for operations in 0..total {
        for loss in losses(operations) {
            let context = format!("{name}, cut after {operations} of {total}, {loss:?}");
            let cut = Power::new(start.clone(), Some(operations), loss);
            assert!(operation(&cut).is_err(), "{context}");
            look(&cut.cut(), &context);
        }
    }
    (power.orderly(), total)
}

/// What is left of unflushed sectors.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Loss {
    /// Nothing.
    All,
    /// All but the second half of the last write.
    Tail,
    /// A seeded subset, sector by sector, as if the device had reordered its writes.
    Some(u64),
}

/// How a file is written.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Kind {
    /// By a rename: old or new.
    Replaced,
    /// Where it lies: may be torn, cut or empty.
    Overwritten,
}

/// What is on the medium.
#[derive(Debug, Clone)]
pub(crate) struct Medium {
    pub(crate) sector: u32,
    pub(crate) disks: Vec<Vec<u8>>,
    pub(crate) files: Vec<Option<Vec<u8>>>,
}

/// States of storage that were looked at already; many cuts leave the same.
#[derive(Default)]
pub(crate) struct Seen(HashSet<u64>);

impl Seen {
    pub(crate) fn is_new(&mut self, medium: &Medium) -> bool {
        let mut hasher = DefaultHasher::new();
        (&medium.disks, &medium.files).hash(&mut hasher);
        self.0.insert(hasher.finish())
    }
}

#[derive(Debug)]
struct State {
    medium: Medium,
    /// What programs see of the disks: the medium and the writes on their way to it.
    seen: Vec<Vec<u8>>,
    pending: Vec<(usize, usize, Vec<u8>)>,
    left: Option<u64>,
    used: u64,
    dead: bool,
    loss: Loss,
    random: u64,
}

/// The power supply of all storage of one box.
#[derive(Debug, Clone)]
pub(crate) struct Power(Arc<Mutex<State>>);

impl Power {
    /// A supply that ends after `operations`; never without.
    pub(crate) fn new(medium: Medium, operations: Option<u64>, loss: Loss) -> Self {
        let seed = match loss {
            Loss::Some(seed) => seed,
            _ => 0,
        };
        Self(Arc::new(Mutex::new(State {
            seen: medium.disks.clone(),
            medium,
            pending: vec![],
            left: operations,
            used: 0,
            dead: false,
            loss,
            random: seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1,
        })))
    }

    /// Cuts the power now, if it is not; what is left.
    pub(crate) fn cut(&self) -> Medium {
        let mut state = self.0.lock().unwrap();
        state.die();
        state.medium.clone()
    }

    /// What is on the medium when nothing is lost.
    pub(crate) fn orderly(&self) -> Medium {
        let mut state = self.0.lock().unwrap();
        state.persist();
        state.medium.clone()
    }

    /// Operations so far.
    pub(crate) fn used(&self) -> u64 {
        self.0.lock().unwrap().used
    }

    pub(crate) fn disk(&self, index: usize) -> CutDisk {
        CutDisk {
            power: self.clone(),
            index,
        }
    }

    pub(crate) fn file(&self, index: usize, kind: Kind) -> CutFile {
        CutFile {
            power: self.clone(),
            index,
            kind,
        }
    }
}

impl State {
    fn next_random(&mut self) -> u64 {
        // xorshift64
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        self.random
    }

    /// Counts an operation; false when the power ends in it.
    fn spend(&mut self) -> bool {
        match &mut self.left {
            Some(0) => false,
            Some(left) => {
                *left -= 1;
                self.used += 1;
                true
            }
            None => {
                self.used += 1;
                true
            }
        }
    }

    fn persist(&mut self) {
        for (disk, offset, bytes) in std::mem::take(&mut self.pending) {
            self.medium.disks[disk][offset..offset + bytes.len()].copy_from_slice(&bytes);
        }
    }

    fn die(&mut self) {
        if self.dead {
            return;
        }
        self.dead = true;
        let pending = std::mem::take(&mut self.pending);
        let last = pending.len().saturating_sub(1);
        let sector = self.medium.sector as usize;
        for (number, (disk, offset, bytes)) in pending.into_iter().enumerate() {
            let sectors = bytes.len().div_ceil(sector);
            for (at, chunk) in bytes.chunks(sector).enumerate() {
                let kept = match self.loss {
                    Loss::All => false,
                    Loss::Tail => number < last || at < sectors / 2,
                    Loss::Some(_) => self.next_random() & 1 == 1,
                };
                if kept {
                    let offset = offset + at * sector;
                    self.medium.disks[disk][offset..offset + chunk.len()].copy_from_slice(chunk);
                }
            }
        }
    }
}

fn no_power() -> io::Error {
    io::Error::other("no power")
}

pub(crate) struct CutDisk {
    power: Power,
    index: usize,
}

impl BlockDevice for CutDisk {
    fn sector_bytes(&self) -> u32 {
        self.power.0.lock().unwrap().medium.sector
    }

    fn size_bytes(&self) -> u64 {
        self.power.0.lock().unwrap().seen[self.index].len() as u64
    }

    fn read_at(&mut self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        let state = self.power.0.lock().unwrap();
        if state.dead {
            return Err(no_power());
        }
        let offset = usize::try_from(offset).unwrap();
        let bytes = state.seen[self.index]
            .get(offset..offset + buffer.len())
            .ok_or(io::ErrorKind::UnexpectedEof)?;
        buffer.copy_from_slice(bytes);
        Ok(())
    }

    fn write_at(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let mut state = self.power.0.lock().unwrap();
        if state.dead {
            return Err(no_power());
        }
        let offset = usize::try_from(offset).unwrap();
        state.pending.push((self.index, offset, bytes.to_vec()));
        if !state.spend() {
            state.die();
            return Err(no_power());
        }
        state.seen[self.index][offset..offset + bytes.len()].copy_from_slice(bytes);
        Ok(())
    }

    fn flush(&mut self) -> io::Result<()> {
        let mut state = self.power.0.lock().unwrap();
        if state.dead {
            return Err(no_power());
        }
        if !state.spend() {
            state.die();
            return Err(no_power());
        }
        // Of this disk only: a flush says nothing of another one.
        let index = self.index;
        let (ours, others) = std::mem::take(&mut state.pending)
            .into_iter()
            .partition(|(disk, _, _)| *disk == index);
        state.pending = ours;
        state.persist();
        state.pending = others;
        Ok(())
    }
}

pub(crate) struct CutFile {
    power: Power,
    index: usize,
    kind: Kind,
}

impl CutFile {
    fn put(&mut self, new: Option<&[u8]>) -> io::Result<()> {
        let mut state = self.power.0.lock().unwrap();
        if state.dead {
            return Err(no_power());
        }
        let old = state.medium.files[self.index].clone();
        if state.spend() {
            state.medium.files[self.index] = new.map(<[u8]>::to_vec);
            return Ok(());
        }
        let choice = match state.loss {
            Loss::All => 0,
            Loss::Tail => 1,
            Loss::Some(_) => state.next_random() % 5,
        };
        let left = match (self.kind, choice, new) {
            (_, 0, _) => old,
            (Kind::Replaced, ..) | (_, _, None) => new.map(<[u8]>::to_vec),
            (Kind::Overwritten, 1, Some(new)) => {
                let mut torn = new.to_vec();
                let half = torn.len() / 2;
                torn.truncate(half);
                torn.extend(old.unwrap_or_default().into_iter().skip(half));
                Some(torn)
            }
            (Kind::Overwritten, 2, Some(_)) => Some(vec![]),
            (Kind::Overwritten, 3, Some(new)) => {
                let at = usize::from(state.next_random() as u16) % new.len();
                Some(new[..at].to_vec())
            }
            (Kind::Overwritten, _, Some(new)) => Some(new.to_vec()),
        };
        state.medium.files[self.index] = left;
        state.die();
        Err(no_power())
    }
}

impl StateFile for CutFile {
    fn read(&mut self) -> io::Result<Option<Vec<u8>>> {
        let state = self.power.0.lock().unwrap();
        if state.dead {
            return Err(no_power());
        }
        Ok(state.medium.files[self.index].clone())
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.put(Some(bytes))
    }

    fn remove(&mut self) -> io::Result<()> {
        if self.read()?.is_none() {
            return Ok(());
        }
        self.put(None)
    }
}
