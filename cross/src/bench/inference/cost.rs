//! What a process has used, as the kernel counts it.

use std::{fs, io};

use super::super::BenchError;
use crate::processes::Process;

/// Processor time of all threads of a process that live, in nanoseconds.
pub(super) fn processor_ns(process: &Process) -> Result<u64, BenchError> {
    let failed = |error| BenchError::System("read a process's processor time", error);
    let threads = fs::read_dir(format!("/proc/{}/task", process.id())).map_err(failed)?;
    let mut total = 0;
    for thread in threads {
        let path = thread.map_err(failed)?.path().join("schedstat");
        // A thread may end meanwhile.
        let Ok(text) = fs::read_to_string(path) else {
            continue;
        };
        total += text
            .split(' ')
            .next()
            .and_then(|first| first.parse::<u64>().ok())
            .unwrap_or(0);
    }
    Ok(total)
}

/// Resident memory of a process, in KiB.
pub(super) fn resident_kib(process: &Process) -> Result<u64, BenchError> {
    let status = fs::read_to_string(format!("/proc/{}/status", process.id()));
    let status = status.map_err(|e| BenchError::System("read a process's memory", e))?;
    status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))
        .and_then(|rest| rest.trim().trim_end_matches(" kB").parse().ok())
        .ok_or_else(|| {
            BenchError::System("find VmRSS", io::Error::from(io::ErrorKind::InvalidData))
        })
}

/// Microseconds for each of so many.
#[allow(clippy::cast_precision_loss, reason = "far less than 2^52")]
pub(super) fn each_us(nanoseconds: u64, count: u64) -> f64 {
    nanoseconds as f64 / 1e3 / count.max(1) as f64
}
