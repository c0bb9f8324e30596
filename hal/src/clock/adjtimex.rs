//! The kernel's own account of its clock's error (adjtimex(2), include/uapi/linux/timex.h).

use std::io;

use super::{Clock, ClockError, ClockTrust};

/// The clock of Linux. It is only read.
#[derive(Debug, Clone, Copy, Default)]
pub struct AdjtimexClock;

impl Clock for AdjtimexClock {
    fn read(&mut self) -> Result<ClockTrust, ClockError> {
        // SAFETY: `timex` is plain numbers, for which all bits 0 are valid, and its `modes` of 0 changes nothing;
        // adjtimex writes to this one value, which lives as long as the call.
        #[allow(unsafe_code, reason = "adjtimex(2) has no safe form")]
        let (state, timex) = unsafe {
            let mut timex: libc::timex = std::mem::zeroed();
            (libc::adjtimex(&raw mut timex), timex)
        };
        if state < 0 {
            return Err(ClockError::Kernel(io::Error::last_os_error()));
        }
        #[allow(
            clippy::useless_conversion,
            reason = "c_long is 32 bits on some targets"
        )]
        let max_error_us = i64::from(timex.maxerror);
        Ok(trust_of(state, timex.status, max_error_us))
    }
}

/// What the kernel's state, status bits and largest error mean.
fn trust_of(state: libc::c_int, status: libc::c_int, max_error_us: i64) -> ClockTrust {
    ClockTrust {
        is_synchronised: state != libc::TIME_ERROR && status & libc::STA_UNSYNC == 0,
        // Negative it never is; then nothing is known of the error.
        max_error_us: u64::try_from(max_error_us).unwrap_or(u64::MAX),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn trusts_only_a_clock_that_somebody_holds() {
        for (state, status, max_error_us, is_synchronised) in [
            (libc::TIME_OK, libc::STA_PLL, 1_500, true),
            // a leap second is announced or under way: the time is right
            (libc::TIME_INS, libc::STA_PLL | libc::STA_INS, 1_500, true),
            (libc::TIME_OOP, libc::STA_PLL, 1_500, true),
            (libc::TIME_ERROR, libc::STA_UNSYNC, 16_000_000, false),
            (libc::TIME_OK, libc::STA_UNSYNC, 16_000_000, false),
            // a clock of hardware has failed
            (libc::TIME_ERROR, libc::STA_CLOCKERR, 1_500, false),
        ] {
            let expected = ClockTrust {
                is_synchronised,
                max_error_us: max_error_us.try_into().unwrap(),
            };
            assert_eq!(trust_of(state, status, max_error_us), expected);
        }
        assert_eq!(trust_of(libc::TIME_OK, 0, -1).max_error_us, u64::MAX);
    }
}
