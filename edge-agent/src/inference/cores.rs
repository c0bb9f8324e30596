//! The processor cores that run models: a board's fast ones, so that a run does not end up on a slow one.

use std::io;

use nix::{
    sched::{CpuSet, sched_setaffinity},
    unistd::Pid,
};
use tracing::{info, warn};

/// Cores by number; none for all that the system gives.
#[derive(Debug, Clone, Default)]
pub struct Cores(Vec<u16>);

impl Cores {
    /// These cores.
    #[must_use]
    pub const fn new(cores: Vec<u16>) -> Self {
        Self(cores)
    }

    /// Binds this thread and those that it will start, ONNX Runtime's own among them. Where the system refuses, models
    /// run on any core.
    pub(super) fn bind(&self) {
        if self.0.is_empty() {
            return;
        }
        let cores = &self.0;
        match self.set() {
            Ok(()) => info!(?cores, "models run on these cores"),
            Err(error) => warn!(?cores, %error, "models cannot be bound to the board's cores"),
        }
    }

    fn set(&self) -> io::Result<()> {
        let mut set = CpuSet::new();
        for core in &self.0 {
            set.set(usize::from(*core))?;
        }
        // 0 is this thread.
        Ok(sched_setaffinity(Pid::from_raw(0), &set)?)
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use nix::sched::sched_getaffinity;

    use super::*;

    fn allowed() -> Vec<u16> {
        let set = sched_getaffinity(Pid::from_raw(0)).unwrap();
        let cores = 0..u16::try_from(CpuSet::count()).unwrap();
        cores
            .filter(|core| set.is_set(usize::from(*core)).unwrap())
            .collect()
    }

    #[test]
    fn a_thread_and_those_that_it_starts_are_bound() {
        thread::spawn(|| {
            let last = *allowed().last().unwrap();
            Cores::new(vec![last]).bind();
            assert_eq!(allowed(), [last]);
            assert_eq!(thread::spawn(allowed).join().unwrap(), [last]);
        })
        .join()
        .unwrap();
    }

    #[test]
    fn cores_that_are_not_there_change_nothing() {
        let before = allowed();
        Cores::new(vec![1_000]).bind();
        Cores::default().bind();
        assert_eq!(allowed(), before);
    }
}
