//! The clock of this machine.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use edge_hal::clock::{AdjtimexClock, Clock};

/// What the kernel counts up to for a clock that nobody holds (NTP_PHASE_LIMIT, kernel/time/ntp.c): 16 s.
const LARGEST_ERROR_US: u64 = 16_000_000;

#[test]
fn the_kernel_answers_consistently() {
    let first = AdjtimexClock.read().unwrap();
    assert!(first.max_error_us <= LARGEST_ERROR_US, "{first:?}");
    let second = AdjtimexClock.read().unwrap();
    assert_eq!(first.is_synchronised, second.is_synchronised);
}
