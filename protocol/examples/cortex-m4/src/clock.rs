//! Time since the start, from the core's own timer.

use core::{
    future::poll_fn,
    sync::atomic::{AtomicU32, Ordering},
    task::Poll,
    time::Duration,
};

use cortex_m::peripheral::{SYST, syst::SystClkSource};
use cortex_m_rt::exception;

/// Clock of the core on AN386 (Arm DAI 0386, section 3.1.1).
const CORE_HZ: u32 = 25_000_000;

static MILLISECONDS: AtomicU32 = AtomicU32::new(0);

/// Starts the timer: one interrupt a millisecond.
pub fn start(mut timer: SYST) {
    timer.set_clock_source(SystClkSource::Core);
    timer.set_reload(CORE_HZ / 1_000 - 1);
    timer.clear_current();
    timer.enable_counter();
    timer.enable_interrupt();
}

#[exception]
fn SysTick() {
    // One writer, so that no addition is lost on cores without atomic addition either.
    let now = MILLISECONDS.load(Ordering::Relaxed);
    MILLISECONDS.store(now.wrapping_add(1), Ordering::Relaxed);
}

/// Since the start; wraps after 49 days.
pub fn now() -> Duration {
    Duration::from_millis(MILLISECONDS.load(Ordering::Relaxed).into())
}

/// Ready at `moment`.
pub async fn at(moment: Duration) {
    poll_fn(|_| {
        if now() < moment {
            Poll::Pending
        } else {
            Poll::Ready(())
        }
    })
    .await;
}
