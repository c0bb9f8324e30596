//! Ctrl-C, as a flag that long work looks at between its steps.

use std::{
    future::poll_fn,
    io,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::Poll,
    thread,
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use tokio::{
    runtime,
    signal::unix::{SignalKind, signal},
};

/// Whether the work shall end. Clones share it.
#[derive(Debug, Clone, Default)]
pub struct Stop(Arc<AtomicBool>);

impl Stop {
    /// Set by the first Ctrl-C, SIGTERM or SIGHUP. The second one ends the process on the spot, for a system that hangs
    /// in a write: whatever is cut off, the next run repairs.
    ///
    /// # Errors
    /// When the signals cannot be caught.
    pub fn on_signals() -> io::Result<Self> {
        let runtime = runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let guard = runtime.enter();
        let mut signals = [
            SignalKind::interrupt(),
            SignalKind::terminate(),
            SignalKind::hangup(),
        ]
        .into_iter()
        .map(signal)
        .collect::<io::Result<Vec<_>>>()?;
        drop(guard);
        let stop = Self::default();
        let flag = stop.clone();
        thread::spawn(move || {
            let mut next = || {
                runtime.block_on(poll_fn(|context| {
                    let came = signals
                        .iter_mut()
                        .any(|signal| signal.poll_recv(context).is_ready());
                    if came { Poll::Ready(()) } else { Poll::Pending }
                }));
            };
            next();
            flag.set();
            next();
            // It cannot fail: a process may always signal itself.
            let _killed = kill(Pid::this(), Signal::SIGKILL);
        });
        Ok(stop)
    }

    /// Asks the work to end.
    pub fn set(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    /// Whether it shall end.
    #[must_use]
    pub fn is_set(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}
