//! Facts about the machine: clock, key, folders, sensors.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write},
    os::unix::fs::{MetadataExt, OpenOptionsExt},
    path::Path,
    time::{Instant, SystemTime, UNIX_EPOCH},
};

use edge_hal::{
    Board, KernelFile, Readings, Sensors,
    clock::{AdjtimexClock, Clock, ClockTrust},
    controls::Controls,
    identity::KeyPlace,
    sensors::LOOK_EVERY,
    storage::{StatvfsStorage, Storage, StorageBytes},
    storage_health::{BlockHealth, StorageHealth, Wear},
};

use super::{
    super::verdict::{
        machine::IdentityFacts,
        resources::{DataFacts, MemoryFacts},
    },
    Context, chain,
};
use crate::{child, presence};

/// Bytes of the file with which the data folder is tried.
const TRIAL_BYTES: usize = 4_096;

/// Seconds since 1970 by this machine's clock.
pub(in super::super) fn now_s() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |time| time.as_secs())
}

/// What the kernel says of the clock.
pub(in super::super) fn clock_trust() -> Result<ClockTrust, String> {
    AdjtimexClock.read().map_err(|error| chain(&error))
}

/// The box's key. A process of its own opens it, as the user to whom it belongs: root may look at the agent's.
pub(in super::super) fn identity(context: &Context, place: &KeyPlace) -> IdentityFacts {
    let path = place.file();
    let owner = match fs::metadata(&path) {
        Ok(metadata) => metadata.uid(),
        Err(error) if is_absent(&error) => return IdentityFacts::Absent,
        Err(error) => {
            return IdentityFacts::Unusable(format!("cannot read {}: {error}", path.display()));
        }
    };
    if let Ok(Some(process)) = agent(&context.data)
        && let Ok(running) = fs::metadata(format!("/proc/{process}"))
        && running.uid() != owner
    {
        let (user, file) = (running.uid(), path.display());
        return IdentityFacts::Unusable(format!(
            "{file} belongs to user {owner}, but the agent runs as user {user}"
        ));
    }
    let (folder, tpm) = (place.folder.clone(), place.tpm.clone());
    let arguments = ["probe".into(), "identity".into(), folder.into(), tpm.into()];
    match child::ask(arguments, context.limit) {
        Ok(Ok(fingerprint)) => IdentityFacts::Key(fingerprint),
        Ok(Err(why)) => IdentityFacts::Unusable(why),
        Err(error) => IdentityFacts::Unusable(chain(&error)),
    }
}

fn is_absent(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
    )
}

/// Process id of the agent that holds the data folder.
pub(in super::super) fn agent(data: &Path) -> Result<Option<u32>, String> {
    presence::find(data).map_err(|error| chain(&error))
}

/// Room on the file system of the data folder, or of the nearest folder above it that exists.
pub(in super::super) fn room(context: &Context) -> Result<StorageBytes, String> {
    if let Ok(board) = &context.board
        && !matches!(board.storage.source, edge_hal::board::StorageSource::Linux)
    {
        let readings = read(&without_zones(board), &context.data);
        if let (Some(total), Some(available)) = (
            readings.storage_total_bytes,
            readings.storage_available_bytes,
        ) {
            return Ok(StorageBytes { total, available });
        }
    }
    let folder = context
        .data
        .ancestors()
        .find(|folder| folder.is_dir())
        .unwrap_or(Path::new("."));
    StatvfsStorage::new(folder)
        .read()
        .map_err(|error| chain(&error))
}

/// What the storage says of its wear; `None` where nobody asks it.
pub(in super::super) fn wear(board: &Board) -> Option<Result<Wear, String>> {
    let storage = &board.storage;
    let device = storage.device.as_deref()?;
    let root = Path::new("/");
    let mut health = BlockHealth::new(root, device, storage.technology, LOOK_EVERY);
    Some(health.read().map_err(|error| chain(&error)))
}

/// Writes a file as the agent keeps its state (write, force to the disk, rename), reads it back and removes it.
pub(in super::super) fn data(folder: &Path) -> DataFacts {
    match fs::metadata(folder) {
        Ok(found) if found.is_dir() => {}
        Ok(_) => return DataFacts::Failed("keep files", "it is no folder".to_owned()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return DataFacts::Missing,
        Err(error) => return DataFacts::Failed("look", error.to_string()),
    }
    let process = std::process::id();
    let trial = folder.join(format!(".doctor-{process}.new"));
    let kept = folder.join(format!(".doctor-{process}"));
    let started = Instant::now();
    let outcome = write_and_read(folder, &trial, &kept);
    let took = started.elapsed();
    // Either may be there, depending on how far it came.
    let removed = [&trial, &kept].map(|file| match fs::remove_file(file) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    });
    match (outcome, removed.into_iter().collect::<Result<Vec<()>, _>>()) {
        (Err((attempt, error)), _) => DataFacts::Failed(attempt, error.to_string()),
        (Ok(()), Err(error)) => DataFacts::Failed("remove a file", error.to_string()),
        (Ok(()), Ok(_)) => DataFacts::Kept {
            took_us: u64::try_from(took.as_micros()).unwrap_or(u64::MAX),
        },
    }
}

fn write_and_read(
    folder: &Path,
    trial: &Path,
    kept: &Path,
) -> Result<(), (&'static str, io::Error)> {
    let step = |attempt| move |error| (attempt, error);
    let content: Vec<u8> = (0..=u8::MAX).cycle().take(TRIAL_BYTES).collect();
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(trial)
        .map_err(step("make a file"))?;
    file.write_all(&content).map_err(step("write a file"))?;
    file.sync_all().map_err(step("force a file to the disk"))?;
    fs::rename(trial, kept).map_err(step("rename a file"))?;
    File::open(folder)
        .and_then(|folder| folder.sync_all())
        .map_err(step("force the folder to the disk"))?;
    let read = fs::read(kept).map_err(step("read a file back"))?;
    if read == content {
        Ok(())
    } else {
        Err((
            "read back what was written",
            io::Error::other("the content differs"),
        ))
    }
}

/// The zones' readings, as the agent takes them.
pub(in super::super) fn temperatures(board: &Board, data: &Path) -> Vec<Result<i32, String>> {
    let readings = read(board, data);
    let zones = board.thermal_zones.iter();
    zones
        .map(|zone| {
            let reading = readings
                .temperatures
                .iter()
                .find(|(name, _)| **name == *zone.name);
            let sensor = format!("temperature {}", zone.name);
            reading.map(|(_, reading)| *reading).ok_or_else(|| {
                let fault = readings.faults.iter().find(|f| f.sensor == sensor);
                fault.map_or_else(|| "no reading".to_owned(), |f| f.error.clone())
            })
        })
        .collect()
}

/// Parts, other than those that have checks of their own, that cannot be read or driven.
pub(in super::super) fn missing_parts(board: &Board, data: &Path) -> Vec<(String, String)> {
    let readings = read(&without_zones(board), data);
    // Opening the controls changes nothing; a board's watchdog is not started.
    let controls = Controls::open(board, Path::new("/"));
    let read = readings.faults.into_iter().map(|f| (f.sensor, f.error));
    let set = controls.faults.iter().filter_map(|line| {
        let (part, why) = line.split_once(": ")?;
        Some((part.to_owned(), why.to_owned()))
    });
    read.filter(|(part, _)| !matches!(part.as_str(), "memory" | "agent memory" | "storage"))
        .chain(set)
        .collect()
}

fn read(board: &Board, data: &Path) -> Readings {
    let mut readings = Readings::default();
    Sensors::new(board, Path::new("/"), data).sample(&mut readings);
    readings
}

/// The same board, so that a zone that hangs holds up nothing but its own check.
fn without_zones(board: &Board) -> Board {
    Board {
        thermal_zones: Vec::new(),
        ..board.clone()
    }
}

pub(in super::super) fn memory(data: &Path) -> Result<MemoryFacts, String> {
    use edge_hal::memory::{Memory, ProcMemory};
    let root = Path::new("/");
    let machine = ProcMemory::new(root)
        .read()
        .map_err(|error| chain(&error))?;
    let agent = presence::find(data).ok().flatten();
    Ok(MemoryFacts {
        total: machine.total,
        available: machine.available,
        // A kernel without pressure stall information has no such file.
        pressure_percent: KernelFile::new(root, "proc/pressure/memory")
            .parse("share of the last 10 s", parse_pressure)
            .ok(),
        agent_resident: agent.and_then(|process| {
            KernelFile::new(root, &format!("proc/{process}/status"))
                .parse("VmRSS in kB", parse_resident)
                .ok()
        }),
    })
}

/// Reads `some avg10=0.12 avg60=...` (Documentation/accounting/psi.rst).
fn parse_pressure(text: &str) -> Option<f32> {
    let some = text.lines().find_map(|line| line.strip_prefix("some "))?;
    let share = some
        .split_ascii_whitespace()
        .find_map(|field| field.strip_prefix("avg10="))?;
    share.parse().ok()
}

/// Reads `VmRSS:     1234 kB` (proc(5)); the kernel's kB is 1,024 bytes.
fn parse_resident(status: &str) -> Option<u64> {
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))?;
    let number = line.trim().strip_suffix(" kB")?;
    number.trim().parse::<u64>().ok()?.checked_mul(1_024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_that_keeps_files_is_left_as_it_was() {
        let folder = tempfile::tempdir().unwrap();
        assert!(matches!(data(folder.path()), DataFacts::Kept { .. }));
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
    }

    #[test]
    fn folders_that_keep_nothing() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(data(&folder.path().join("none")), DataFacts::Missing);
        let file = folder.path().join("file");
        fs::write(&file, "").unwrap();
        assert!(matches!(data(&file), DataFacts::Failed("keep files", _)));
        // Not even root makes files there.
        assert!(matches!(
            data(Path::new("/sys/kernel")),
            DataFacts::Failed("make a file", _)
        ));
    }

    #[test]
    fn reads_what_the_kernel_says_of_memory() {
        let pressure = "some avg10=1.53 avg60=0.87 avg300=0.22 total=6\nfull avg10=9.00 avg60=0\n";
        assert_eq!(parse_pressure(pressure), Some(1.53));
        assert_eq!(parse_pressure("full avg10=9.00\n"), None);
        let status = "Name:\tedge-agent\nVmPeak:\t  99 kB\nVmRSS:\t    6144 kB\n";
        assert_eq!(parse_resident(status), Some(6_144 * 1_024));
        assert_eq!(parse_resident("VmRSS:\t6144\n"), None);
    }
}
