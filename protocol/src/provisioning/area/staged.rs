//! A partition whose changes stay in memory until they are committed, sector by sector, in an order that matters.

use std::{
    collections::{BTreeMap, BTreeSet},
    io::{self, Read, Seek, SeekFrom, Write},
};

/// Bytes that one use of the file system may read and write: a damaged one leads in circles.
const ALLOWANCE_BYTES: u64 = 64 << 20;

/// In which order changed sectors reach the medium. Each one is there before the next is written: they are few.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Order {
    /// The first sector first: allocation tables before the folder before content.
    Ascending,
    /// The last sector first.
    Descending,
}

/// A partition with changes in memory.
pub(super) struct Staged<D> {
    device: D,
    sector: usize,
    size: u64,
    position: u64,
    changed: BTreeMap<u64, Vec<u8>>,
    allowance: u64,
}

impl<D: Read + Write + Seek> Staged<D> {
    pub(super) fn new(mut device: D, sector_bytes: u32) -> io::Result<Self> {
        let size = device.seek(SeekFrom::End(0))?;
        let sector = usize::try_from(sector_bytes).map_err(io::Error::other)?;
        if !matches!(sector, 512 | 4096) || size < 2 * u64::from(sector_bytes) {
            return Err(io::Error::other(
                "it is too small, or has sectors of an unknown size",
            ));
        }
        Ok(Self {
            device,
            sector,
            size,
            position: 0,
            changed: BTreeMap::new(),
            allowance: 0,
        })
    }

    /// Lets the file system be used once more.
    pub(super) fn allow(&mut self) {
        self.allowance = ALLOWANCE_BYTES;
    }

    /// Drops all changes.
    pub(super) fn forget(&mut self) {
        self.changed.clear();
    }

    /// The sectors that differ from the medium.
    pub(super) fn changes(&mut self) -> io::Result<BTreeSet<u64>> {
        let mut changes = BTreeSet::new();
        for (index, bytes) in std::mem::take(&mut self.changed) {
            if self.on_medium(index)? != bytes {
                changes.insert(index);
                self.changed.insert(index, bytes);
            }
        }
        Ok(changes)
    }

    /// Writes what differs from the medium, in ascending order; these sectors stay in memory.
    pub(super) fn commit_but(&mut self, stay: &BTreeSet<u64>) -> io::Result<()> {
        let (staying, going) = std::mem::take(&mut self.changed)
            .into_iter()
            .partition(|(index, _)| stay.contains(index));
        self.changed = going;
        self.commit(Order::Ascending)?;
        self.changed = staying;
        Ok(())
    }

    /// Fills the first sector with zeros, on the medium.
    pub(super) fn erase_first(&mut self) -> io::Result<()> {
        self.forget();
        self.changed.insert(0, vec![0; self.sector]);
        self.commit(Order::Ascending)
    }

    /// Writes what differs from the medium.
    pub(super) fn commit(&mut self, order: Order) -> io::Result<()> {
        let mut changed: Vec<(u64, Vec<u8>)> =
            std::mem::take(&mut self.changed).into_iter().collect();
        if order == Order::Descending {
            changed.reverse();
        }
        for (index, bytes) in changed {
            if self.on_medium(index)? != bytes {
                let start = index * self.sector as u64;
                self.device.seek(SeekFrom::Start(start))?;
                self.device.write_all(&bytes)?;
                self.device.flush()?;
            }
        }
        Ok(())
    }

    fn on_medium(&mut self, index: u64) -> io::Result<Vec<u8>> {
        let start = index * self.sector as u64;
        let left = self.size.saturating_sub(start).min(self.sector as u64);
        let mut bytes = vec![0; usize::try_from(left).map_err(io::Error::other)?];
        self.device.seek(SeekFrom::Start(start))?;
        self.device.read_exact(&mut bytes)?;
        Ok(bytes)
    }

    /// The sector at the position, the place in it, and how many of `wanted` bytes it still has.
    fn here(&mut self, wanted: usize) -> io::Result<Option<(u64, usize, usize)>> {
        if self.position >= self.size {
            return Ok(None);
        }
        let index = self.position / self.sector as u64;
        let within =
            usize::try_from(self.position % self.sector as u64).map_err(io::Error::other)?;
        let left = usize::try_from(self.size - self.position).unwrap_or(usize::MAX);
        let count = wanted.min(self.sector - within).min(left);
        self.allowance = self
            .allowance
            .checked_sub(count as u64)
            .ok_or_else(|| io::Error::other("its structures lead in circles"))?;
        Ok(Some((index, within, count)))
    }
}

impl<D: Read + Write + Seek> Read for Staged<D> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let Some((index, within, count)) = self.here(buffer.len())? else {
            return Ok(0);
        };
        let read;
        let bytes = match self.changed.get(&index) {
            Some(bytes) => bytes,
            None => {
                read = self.on_medium(index)?;
                &read
            }
        };
        let from = bytes.get(within..within + count).unwrap_or_default();
        if let Some(buffer) = buffer.get_mut(..from.len()) {
            buffer.copy_from_slice(from);
        }
        self.position += from.len() as u64;
        Ok(from.len())
    }
}

impl<D: Read + Write + Seek> Write for Staged<D> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let Some((index, within, count)) = self.here(bytes.len())? else {
            return Ok(0);
        };
        if !self.changed.contains_key(&index) {
            let read = self.on_medium(index)?;
            self.changed.insert(index, read);
        }
        let target = self
            .changed
            .get_mut(&index)
            .and_then(|sector| sector.get_mut(within..within + count));
        if let (Some(target), Some(bytes)) = (target, bytes.get(..count)) {
            target.copy_from_slice(bytes);
        }
        self.position += count as u64;
        Ok(count)
    }

    /// Changes reach the medium by [`Staged::commit`].
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<D: Read + Write + Seek> Seek for Staged<D> {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let position = match to {
            SeekFrom::Start(position) => Some(position),
            SeekFrom::End(offset) => self.size.checked_add_signed(offset),
            SeekFrom::Current(offset) => self.position.checked_add_signed(offset),
        };
        self.position = position.ok_or_else(|| {
            io::Error::new(io::ErrorKind::InvalidInput, "a place before the start")
        })?;
        Ok(self.position)
    }
}
