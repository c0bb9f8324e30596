//! Writes an image to a medium: what matches already is left alone, what was written is read back, and the first part,
//! which makes the medium startable, comes last.
//!
//! The order is what makes a cut at any moment survivable:
//! 1. Blocks are compared. Before the first one that differs is written, the head (the first MiB, which holds the
//!    partition table) is wiped and that is made durable: from here on nothing takes the medium for a good one, be it
//!    the old system or the new.
//! 2. All blocks but the head are written, made durable, and read back from the medium.
//! 3. The image itself is checked against its checksum file.
//! 4. Only now the head is written, made durable and read back.
//!
//! A run that is cut short is simply repeated: it finds the blocks that match and goes on. Nothing here knows of
//! partitions, devices or command lines.

use std::{
    io, iter, mem,
    ops::Range,
    sync::{
        atomic::{AtomicU64, Ordering},
        mpsc::{self, Receiver, SyncSender},
    },
    thread,
};

use nix::errno::Errno;
use sha2::{Digest as _, Sha256};
use twox_hash::XxHash3_128;

use super::{
    checksum::Sha256Sum,
    medium::{AlignedBuffer, Medium},
    progress::Progress,
    source::{Compression, Source, SourceError},
    stop::Stop,
};

/// Bytes that go through at a time.
const CHUNK_BYTES: usize = 1 << 20;
/// Bytes that are compared, and left alone, at a time.
const GRAIN_BYTES: usize = 64 << 10;
/// What is written last: more than a partition table of 4,096-byte sectors, or any file system's first block, takes.
pub const HEAD_BYTES: usize = CHUNK_BYTES;
/// Chunks that wait between reading and writing.
const CHUNKS_WAITING: usize = 4;
/// Chunks that are read back at a time.
const READERS: usize = 2;
/// After so many chunks in a row that differ, only every so many are looked at before they are written: looking costs a
/// read, and where so much differs the next will too. One that matches ends that.
const MISSES_BEFORE_TRUST: usize = 8;
/// Bytes after which the system is asked to put them on the medium, meanwhile the next are written. It bounds what the
/// page cache holds, so that progress means something and the end does not wait for minutes.
const SYNC_EVERY_BYTES: u64 = 64 << 20;

/// Why an image was not written.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    /// The image.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// It is larger than the medium.
    #[error("the image ({image} bytes) does not fit on {target}, which has {capacity} bytes")]
    TooLarge {
        /// The medium.
        target: String,
        /// Bytes of the image, or those seen so far.
        image: u64,
        /// Bytes of the medium.
        capacity: u64,
    },
    /// No room for a file.
    #[error(
        "no room left for {target} after {offset} bytes; make room and repeat the command: it goes on from there"
    )]
    Full {
        /// The medium.
        target: String,
        /// Where.
        offset: u64,
    },
    /// The medium went away.
    #[error(
        "{target} went away; plug it in again and repeat the command: it goes on where it stopped"
    )]
    Gone {
        /// The medium.
        target: String,
        /// What the system says.
        #[source]
        source: io::Error,
    },
    /// The medium fails.
    #[error("cannot {operation} {target} at byte {offset}")]
    Medium {
        /// What was attempted.
        operation: &'static str,
        /// The medium.
        target: String,
        /// Where.
        offset: u64,
        /// What the system says.
        #[source]
        source: io::Error,
    },
    /// It reads back differently.
    #[error(
        "{target} returns other bytes than were written, from byte {offset} on: it is failing, or smaller than it says; \
         use another one"
    )]
    ReadBack {
        /// The medium.
        target: String,
        /// Of the first chunk that differs.
        offset: u64,
    },
    /// The image's size is not what its file says.
    #[error(
        "the image ended after {found} bytes instead of {expected}; was its file changed meanwhile?"
    )]
    Length {
        /// What its file says.
        expected: u64,
        /// What came.
        found: u64,
    },
    /// The user stopped it.
    #[error(
        "stopped; {}",
        if *.touched {
            format!("{target} does not start until the command is repeated, which goes on where it stopped")
        } else {
            format!("nothing was written to {target}")
        }
    )]
    Stopped {
        /// The medium.
        target: String,
        /// Whether anything was written.
        touched: bool,
    },
}

/// What was done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Written {
    /// Bytes of the image.
    pub image_bytes: u64,
    /// Bytes that were written to the medium, the wiping of its head included.
    pub written_bytes: u64,
    /// Bytes that the medium held already.
    pub matched_bytes: u64,
    /// Bytes that were read back and compared after they were written.
    pub verified_bytes: u64,
    /// Sum of the image, as it is on the medium.
    pub sha256: Sha256Sum,
}

/// Writes `source` to `medium`.
///
/// # Errors
/// [`WriteError`]. Unless nothing was written yet, the medium is then not startable.
pub fn write(
    source: Source,
    medium: &dyn Medium,
    progress: &Progress,
    stop: &Stop,
) -> Result<Written, WriteError> {
    let image = source.facts().image_bytes;
    if let (Some(image), Some(capacity)) = (image, medium.size_bytes())
        && image > capacity
    {
        return Err(WriteError::TooLarge {
            target: medium.name(),
            image,
            capacity,
        });
    }
    progress.begin("writing", image.unwrap_or(source.facts().stored_bytes));
    let mut writer = Writer::new(medium, progress, stop, image.is_some());
    let (mut source, sha256) = thread::scope(|scope| {
        let (filled, chunks) = mpsc::sync_channel(CHUNKS_WAITING);
        let (spare, empty) = mpsc::channel();
        let (behind, syncs) = mpsc::sync_channel(1);
        let reading = scope.spawn(move || read(source, &filled, &empty));
        let syncing = scope.spawn(move || keep_syncing(medium, &syncs));
        let written = writer.write_all(&chunks, &spare, &behind);
        // Whoever waits for a channel learns that the others are gone.
        drop((chunks, spare, behind));
        let synced = join(syncing);
        let read = join(reading);
        if let Err(Broken::Writing(error)) = written {
            return Err(error);
        }
        synced.map_err(|source| writer.failed("write", writer.offset, source))?;
        Ok::<_, WriteError>(read?)
    })?;
    writer.finish(&mut source, sha256)
}

/// A thread's result; its panic is this one's.
fn join<T>(thread: thread::ScopedJoinHandle<'_, T>) -> T {
    thread
        .join()
        .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

/// A part of the image.
struct Chunk {
    bytes: Vec<u8>,
    length: usize,
    /// How much of the file was read for it and all before.
    stored: u64,
}

impl Chunk {
    fn bytes(&self) -> &[u8] {
        self.bytes.get(..self.length).unwrap_or_default()
    }
}

/// Reads the image to its end, and sums it.
fn read(
    mut source: Source,
    filled: &SyncSender<Chunk>,
    empty: &Receiver<Vec<u8>>,
) -> Result<(Source, Sha256Sum), SourceError> {
    let mut sum = Sha256::new();
    loop {
        let mut bytes = empty.try_recv().unwrap_or_else(|_| vec![0; CHUNK_BYTES]);
        let length = source.fill(&mut bytes)?;
        let stored = source.position();
        let chunk = Chunk {
            bytes,
            length,
            stored,
        };
        sum.update(chunk.bytes());
        // An empty chunk is the end. Whoever does not want more of it has a reason of its own.
        let is_end = length == 0;
        if filled.send(chunk).is_err() || is_end {
            return Ok((source, Sha256Sum(sum.finalize().into())));
        }
    }
}

/// Puts on the medium what was written, each time it is told.
fn keep_syncing(medium: &dyn Medium, syncs: &Receiver<()>) -> io::Result<()> {
    for () in syncs {
        medium.sync()?;
    }
    Ok(())
}

/// Which of the three ended early.
enum Broken {
    Reading,
    Syncing,
    Writing(WriteError),
}

impl From<WriteError> for Broken {
    fn from(error: WriteError) -> Self {
        Self::Writing(error)
    }
}

/// Where a written chunk lies and what it hashes to, to know it again.
struct Mark {
    offset: u64,
    length: u32,
    hash: u128,
}

struct Writer<'a> {
    medium: &'a dyn Medium,
    progress: &'a Progress,
    stop: &'a Stop,
    /// Whether progress counts the image's bytes, or those of its file.
    counts_image: bool,
    offset: u64,
    head: Vec<u8>,
    head_is_safe: bool,
    marks: Vec<Mark>,
    written: u64,
    matched: u64,
    unsynced: u64,
    /// Chunks in a row that differed.
    misses: usize,
    found: Vec<u8>,
}

impl<'a> Writer<'a> {
    fn new(
        medium: &'a dyn Medium,
        progress: &'a Progress,
        stop: &'a Stop,
        counts_image: bool,
    ) -> Self {
        Self {
            medium,
            progress,
            stop,
            counts_image,
            offset: 0,
            head: Vec::new(),
            head_is_safe: false,
            marks: Vec::new(),
            written: 0,
            matched: 0,
            unsynced: 0,
            misses: 0,
            found: vec![0; CHUNK_BYTES],
        }
    }

    /// All but the head.
    fn write_all(
        &mut self,
        chunks: &Receiver<Chunk>,
        spare: &mpsc::Sender<Vec<u8>>,
        behind: &SyncSender<()>,
    ) -> Result<(), Broken> {
        loop {
            let chunk = chunks.recv().map_err(|_| Broken::Reading)?;
            if chunk.length == 0 {
                return Ok(());
            }
            if self.stop.is_set() {
                return Err(self.stopped().into());
            }
            let end = self.offset + chunk.length as u64;
            if let Some(capacity) = self.medium.size_bytes()
                && end > capacity
            {
                return Err(Broken::Writing(WriteError::TooLarge {
                    target: self.medium.name(),
                    image: end,
                    capacity,
                }));
            }
            if self.offset == 0 {
                self.head = chunk.bytes().to_vec();
            } else {
                self.write_chunk(chunk.bytes())?;
            }
            self.offset = end;
            let done = if self.counts_image { end } else { chunk.stored };
            self.progress.at(done);
            // Nobody to take it back is no harm: it is freed.
            let _returned = spare.send(chunk.bytes);
            if self.unsynced >= SYNC_EVERY_BYTES {
                self.unsynced = 0;
                behind.send(()).map_err(|_| Broken::Syncing)?;
            }
        }
    }

    fn write_chunk(&mut self, bytes: &[u8]) -> Result<(), WriteError> {
        let runs = self.differing_runs(self.offset, bytes)?;
        let differing: usize = runs.iter().map(ExactSizeIterator::len).sum();
        self.matched += (bytes.len() - differing) as u64;
        if runs.is_empty() {
            return Ok(());
        }
        self.wipe_head()?;
        for run in runs {
            let offset = self.offset + run.start as u64;
            self.put(offset, bytes.get(run).unwrap_or_default())?;
        }
        self.marks.push(mark(self.offset, bytes));
        Ok(())
    }

    /// As [`Self::look_for_runs`], but does not look at every chunk of a medium that holds something else.
    fn differing_runs(
        &mut self,
        offset: u64,
        bytes: &[u8],
    ) -> Result<Vec<Range<usize>>, WriteError> {
        let is_trusted = self.misses >= MISSES_BEFORE_TRUST
            && !self.misses.is_multiple_of(MISSES_BEFORE_TRUST)
            && !self.medium.is_blank();
        if is_trusted {
            self.misses += 1;
            return Ok(iter::once(0..bytes.len()).collect());
        }
        let runs = self.look_for_runs(offset, bytes)?;
        let all_differs = runs.first().is_some_and(|run| run.len() == bytes.len());
        self.misses = if all_differs { self.misses + 1 } else { 0 };
        Ok(runs)
    }

    /// What of `bytes` the medium does not hold yet. One look at the first grain decides whether the others are looked
    /// at: a medium with something else on it would be read as a whole for nothing.
    fn look_for_runs(
        &mut self,
        offset: u64,
        bytes: &[u8],
    ) -> Result<Vec<Range<usize>>, WriteError> {
        let all = || iter::once(0..bytes.len()).collect();
        if self.medium.is_blank() {
            let is_zero = bytes.iter().all(|byte| *byte == 0);
            return Ok(if is_zero { Vec::new() } else { all() });
        }
        let mut found = mem::take(&mut self.found);
        let first = bytes.len().min(GRAIN_BYTES);
        let runs = (|| {
            let mut held = self.look(offset, &mut found, 0..first)?;
            if found.get(..held) != bytes.get(..first) {
                return Ok(all());
            }
            if first < bytes.len() {
                held += self.look(offset, &mut found, first..bytes.len())?;
            }
            Ok(differing(bytes, found.get(..held).unwrap_or_default()))
        })();
        self.found = found;
        runs
    }

    fn look(
        &self,
        offset: u64,
        found: &mut [u8],
        range: Range<usize>,
    ) -> Result<usize, WriteError> {
        let offset = offset + range.start as u64;
        let buffer = found.get_mut(range).unwrap_or_default();
        let held = self.medium.read_at(offset, buffer);
        held.map_err(|source| self.failed("read", offset, source))
    }

    /// From now on nothing takes the medium for a good one, also after a power cut.
    fn wipe_head(&mut self) -> Result<(), WriteError> {
        if mem::replace(&mut self.head_is_safe, true) || self.medium.is_blank() {
            return Ok(());
        }
        let mut found = vec![0; self.head.len()];
        let held = self.look(0, &mut found, 0..self.head.len())?;
        let found = found.get_mut(..held).unwrap_or_default();
        if found.iter().all(|byte| *byte == 0) {
            return Ok(());
        }
        found.fill(0);
        self.put(0, found)?;
        self.sync()
    }

    fn put(&mut self, offset: u64, bytes: &[u8]) -> Result<(), WriteError> {
        let put = self.medium.write_at(offset, bytes);
        put.map_err(|source| self.failed("write", offset, source))?;
        self.written += bytes.len() as u64;
        self.unsynced += bytes.len() as u64;
        Ok(())
    }

    fn sync(&self) -> Result<(), WriteError> {
        let synced = self.medium.sync();
        synced.map_err(|source| self.failed("write", self.offset, source))
    }

    /// Checks what was written and the image, then writes the head.
    fn finish(mut self, source: &mut Source, sha256: Sha256Sum) -> Result<Written, WriteError> {
        let facts = source.facts();
        let exact = facts.sparse || facts.compression == Compression::None;
        if let Some(expected) = facts.image_bytes.filter(|_| exact)
            && expected != self.offset
        {
            let found = self.offset;
            return Err(WriteError::Length { expected, found });
        }
        if !self.marks.is_empty() {
            self.sync()?;
        }
        let marks = mem::take(&mut self.marks);
        let mut verified = self.read_back(&marks)?;
        source.check(sha256)?;
        let set = self.medium.set_length(self.offset);
        set.map_err(|source| self.failed("write", self.offset, source))?;
        let head = mem::take(&mut self.head);
        let runs = self.look_for_runs(0, &head)?;
        for run in &runs {
            self.put(run.start as u64, head.get(run.clone()).unwrap_or_default())?;
        }
        let differing: usize = runs.iter().map(ExactSizeIterator::len).sum();
        self.matched += (head.len() - differing) as u64;
        self.sync()?;
        if !runs.is_empty() {
            verified += self.read_back(&[mark(0, &head)])?;
        }
        self.progress.end();
        Ok(Written {
            image_bytes: self.offset,
            written_bytes: self.written,
            matched_bytes: self.matched,
            verified_bytes: verified,
            sha256,
        })
    }

    /// Reads back what was written; several at a time, because a medium takes its time to answer.
    fn read_back(&self, marks: &[Mark]) -> Result<u64, WriteError> {
        let total = marks.iter().map(|mark| u64::from(mark.length)).sum();
        self.progress.begin("verifying", total);
        let done = AtomicU64::new(0);
        thread::scope(|scope| {
            let readers: Vec<_> = (0..READERS)
                .map(|first| {
                    scope.spawn({
                        let done = &done;
                        move || self.read_some_back(marks, first, done)
                    })
                })
                .collect();
            readers.into_iter().try_for_each(join)
        })?;
        Ok(total)
    }

    /// Every so manieth, from `first` on.
    fn read_some_back(
        &self,
        marks: &[Mark],
        first: usize,
        done: &AtomicU64,
    ) -> Result<(), WriteError> {
        let mut buffer = AlignedBuffer::new(CHUNK_BYTES);
        for mark in marks.iter().skip(first).step_by(READERS) {
            if self.stop.is_set() {
                return Err(self.stopped());
            }
            let length = usize::try_from(mark.length).unwrap_or(CHUNK_BYTES);
            let whole = buffer.as_mut_slice();
            let held = self.medium.read_back(mark.offset, whole);
            let held = held.map_err(|source| self.failed("read back", mark.offset, source))?;
            let found = whole.get(..length.min(held)).unwrap_or_default();
            if found.len() != length || XxHash3_128::oneshot(found) != mark.hash {
                return Err(WriteError::ReadBack {
                    target: self.medium.name(),
                    offset: mark.offset,
                });
            }
            let length = u64::from(mark.length);
            let before = done.fetch_add(length, Ordering::Relaxed);
            self.progress.at(before + length);
        }
        Ok(())
    }

    fn stopped(&self) -> WriteError {
        WriteError::Stopped {
            target: self.medium.name(),
            touched: self.written > 0,
        }
    }

    fn failed(&self, operation: &'static str, offset: u64, source: io::Error) -> WriteError {
        let target = self.medium.name();
        match source.raw_os_error().map(Errno::from_raw) {
            Some(Errno::ENOSPC | Errno::EDQUOT | Errno::EFBIG) => {
                WriteError::Full { target, offset }
            }
            Some(Errno::ENODEV | Errno::ENXIO | Errno::ENOMEDIUM) => {
                WriteError::Gone { target, source }
            }
            _ => WriteError::Medium {
                operation,
                target,
                offset,
                source,
            },
        }
    }
}

fn mark(offset: u64, bytes: &[u8]) -> Mark {
    Mark {
        offset,
        // A chunk is a MiB at most.
        length: u32::try_from(bytes.len()).unwrap_or(u32::MAX),
        hash: XxHash3_128::oneshot(bytes),
    }
}

/// Runs of whole grains of `bytes` that differ from `found`, which may be shorter.
fn differing(bytes: &[u8], found: &[u8]) -> Vec<Range<usize>> {
    let mut runs: Vec<Range<usize>> = Vec::new();
    for start in (0..bytes.len()).step_by(GRAIN_BYTES) {
        let end = bytes.len().min(start + GRAIN_BYTES);
        if bytes.get(start..end) == found.get(start..end) {
            continue;
        }
        match runs.last_mut() {
            Some(run) if run.end == start => run.end = end,
            _ => runs.push(start..end),
        }
    }
    runs
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_join_and_end_with_the_bytes() {
        let bytes = vec![1; 3 * GRAIN_BYTES + 5];
        let mut found = bytes.clone();
        assert!(differing(&bytes, &found).is_empty());
        found[GRAIN_BYTES] = 0;
        found[2 * GRAIN_BYTES + 1] = 0;
        assert_eq!(
            differing(&bytes, &found),
            vec![GRAIN_BYTES..3 * GRAIN_BYTES]
        );
        found.truncate(3 * GRAIN_BYTES + 4);
        assert_eq!(differing(&bytes, &found), vec![GRAIN_BYTES..bytes.len()]);
        assert_eq!(differing(&bytes, &[]), vec![0..bytes.len()]);
    }
}
