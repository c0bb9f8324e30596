//! Ctrl-C and its relatives, as a message: so that what was started can be ended in order.

use std::future::poll_fn;
use std::io;
use std::sync::mpsc::{self, Receiver};
use std::task::Poll;
use std::thread;

use tokio::runtime;
use tokio::signal::unix::{Signal, SignalKind, signal};

/// Speaks once when the user or the system wants this program to end.
///
/// # Errors
/// When the signals cannot be caught.
pub fn catch() -> io::Result<Receiver<()>> {
    let (sender, receiver) = mpsc::channel();
    let runtime = runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let guard = runtime.enter();
    let kinds = [
        SignalKind::interrupt(),
        SignalKind::terminate(),
        SignalKind::hangup(),
    ];
    let mut signals = kinds
        .into_iter()
        .map(signal)
        .collect::<io::Result<Vec<Signal>>>()?;
    drop(guard);
    thread::spawn(move || {
        runtime.block_on(poll_fn(|context| {
            let came = signals
                .iter_mut()
                .any(|signal| signal.poll_recv(context).is_ready());
            if came { Poll::Ready(()) } else { Poll::Pending }
        }));
        // Nobody listens any more when the work is over.
        let _told = sender.send(());
    });
    Ok(receiver)
}
