//! A simulated medium behind the real trait: it loses power, lies, fills up, fails and vanishes when told.

use std::{io, sync::Mutex};

use edgectl::flash::medium::Medium;
use nix::errno::Errno;

/// What goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// Power goes at this write or sync (counted together, from 0): of what is not synced yet, the sectors that `seed`
    /// chooses are lost, and nothing works any more.
    PowerCut { at: usize, seed: u64 },
    /// From this byte on nothing is kept, and nobody says so: a card that is smaller than it claims.
    Fake { real_bytes: u64 },
    /// One bit of this byte reads back wrong.
    FlipsBit { at: u64 },
    /// Writes from this byte on find no room.
    Full { at: u64 },
    /// The device is pulled out at this write.
    Vanishes { at: usize },
    /// Reads of this byte fail.
    BadSector { at: u64 },
    /// Syncs fail.
    SyncFails,
}

const SECTOR: usize = 512;

struct State {
    /// What a power cut leaves.
    kept: Vec<u8>,
    /// What a reader sees.
    seen: Vec<u8>,
    steps: usize,
    writes: usize,
    written: u64,
    is_dead: bool,
}

/// The medium.
pub struct SimMedium {
    capacity: Option<u64>,
    is_blank: bool,
    fault: Option<Fault>,
    state: Mutex<State>,
}

impl SimMedium {
    /// A device that holds `content`.
    pub fn device(content: Vec<u8>) -> Self {
        let capacity = Some(content.len() as u64);
        Self::with(capacity, content)
    }

    /// A file that holds `content`.
    pub fn file(content: Vec<u8>) -> Self {
        Self::with(None, content)
    }

    fn with(capacity: Option<u64>, content: Vec<u8>) -> Self {
        Self {
            is_blank: capacity.is_none() && content.is_empty(),
            capacity,
            fault: None,
            state: Mutex::new(State {
                kept: content.clone(),
                seen: content,
                steps: 0,
                writes: 0,
                written: 0,
                is_dead: false,
            }),
        }
    }

    pub fn failing(mut self, fault: Fault) -> Self {
        self.fault = Some(fault);
        self
    }

    /// What is on it after power came back.
    pub fn kept(&self) -> Vec<u8> {
        self.state.lock().unwrap().kept.clone()
    }

    /// Writes and syncs so far.
    pub fn steps(&self) -> usize {
        self.state.lock().unwrap().steps
    }

    pub fn written(&self) -> u64 {
        self.state.lock().unwrap().written
    }

    /// Counts a step; an error when it is the last.
    fn step(&self, state: &mut State) -> io::Result<()> {
        if state.is_dead {
            return Err(Errno::EIO.into());
        }
        let step = state.steps;
        state.steps += 1;
        let Some(Fault::PowerCut { at, seed }) = self.fault else {
            return Ok(());
        };
        if step < at {
            return Ok(());
        }
        state.is_dead = true;
        let State { kept, seen, .. } = state;
        kept.resize(seen.len().max(kept.len()), 0);
        for (index, (kept, seen)) in kept.chunks_mut(SECTOR).zip(seen.chunks(SECTOR)).enumerate() {
            let mut lot = seed ^ (index as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
            lot ^= lot >> 29;
            if lot & 1 == 0 {
                kept[..seen.len()].copy_from_slice(seen);
            }
        }
        Err(Errno::EIO.into())
    }
}

impl Medium for SimMedium {
    fn name(&self) -> String {
        "sim".into()
    }

    fn size_bytes(&self) -> Option<u64> {
        self.capacity
    }

    fn is_blank(&self) -> bool {
        self.is_blank
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        let state = self.state.lock().unwrap();
        if state.is_dead {
            return Err(Errno::EIO.into());
        }
        let start = usize::try_from(offset).unwrap().min(state.seen.len());
        let end = (start + buffer.len()).min(state.seen.len());
        buffer[..end - start].copy_from_slice(&state.seen[start..end]);
        match self.fault {
            Some(Fault::BadSector { at }) if (start as u64..end as u64).contains(&at) => {
                Err(Errno::EIO.into())
            }
            Some(Fault::FlipsBit { at }) if (start as u64..end as u64).contains(&at) => {
                buffer[usize::try_from(at).unwrap() - start] ^= 4;
                Ok(end - start)
            }
            _ => Ok(end - start),
        }
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let mut state = self.state.lock().unwrap();
        let writes = state.writes;
        state.writes += 1;
        match self.fault {
            Some(Fault::Full { at }) if offset + bytes.len() as u64 > at => {
                return Err(Errno::ENOSPC.into());
            }
            Some(Fault::Vanishes { at }) if writes >= at => {
                state.is_dead = true;
                return Err(Errno::ENODEV.into());
            }
            _ => {}
        }
        let start = usize::try_from(offset).unwrap();
        if state.seen.len() < start + bytes.len() {
            assert!(self.capacity.is_none(), "a write beyond the device");
            state.seen.resize(start + bytes.len(), 0);
        }
        state.seen[start..start + bytes.len()].copy_from_slice(bytes);
        state.written += bytes.len() as u64;
        if let Some(Fault::Fake { real_bytes }) = self.fault {
            let real = usize::try_from(real_bytes).unwrap();
            state.seen[real..].fill(0);
        }
        // A write that is cut off may have reached the medium in part.
        self.step(&mut state)
    }

    fn sync(&self) -> io::Result<()> {
        let mut state = self.state.lock().unwrap();
        if self.fault == Some(Fault::SyncFails) {
            return Err(Errno::EIO.into());
        }
        self.step(&mut state)?;
        state.kept = state.seen.clone();
        Ok(())
    }

    fn read_back(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        self.read_at(offset, buffer)
    }

    fn set_length(&self, bytes: u64) -> io::Result<()> {
        let mut state = self.state.lock().unwrap();
        if self.capacity.is_none() {
            state.seen.resize(usize::try_from(bytes).unwrap(), 0);
        }
        Ok(())
    }
}
