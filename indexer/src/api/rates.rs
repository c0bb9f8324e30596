//! How often one address asks: a bound that no person and no program of the region meets, and a lower one for enrolment,
//! which costs a signature and a write to the disk. Programs on this machine are trusted.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::num::NonZeroU32;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use axum::Extension;
use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use edge_identity::enrolment;
use edge_identity::limits::Quota;

use super::ApiError;
use super::serve::Caller;

/// Requests of one address in a minute.
const REQUESTS: NonZeroU32 = NonZeroU32::MIN.saturating_add(1_199);
/// Enrolments of one address in a minute: a house with a few boxes asks far less.
const ENROLMENTS: NonZeroU32 = NonZeroU32::MIN.saturating_add(59);
/// Addresses that are remembered. With more, those are forgotten that have not asked for a minute, and if that does not
/// help, new ones are refused.
const ADDRESSES_MAX: usize = 16_384;
const MINUTE_MS: u64 = 60_000;

/// What is left for each address.
#[derive(Debug)]
pub(super) struct Rates {
    since: Instant,
    left: Mutex<HashMap<IpAddr, Left>>,
}

#[derive(Debug, Clone, Copy)]
struct Left {
    requests: Quota,
    enrolments: Quota,
    asked_ms: u64,
}

impl Default for Rates {
    fn default() -> Self {
        Self {
            since: Instant::now(),
            left: Mutex::default(),
        }
    }
}

impl Rates {
    fn admit(&self, address: IpAddr, is_enrolment: bool, now_ms: u64) -> bool {
        if address.is_loopback() {
            return true;
        }
        let mut left = self.left.lock().unwrap_or_else(PoisonError::into_inner);
        let network = network(address);
        if left.len() >= ADDRESSES_MAX && !left.contains_key(&network) {
            left.retain(|_, left| now_ms.saturating_sub(left.asked_ms) < MINUTE_MS);
            if left.len() >= ADDRESSES_MAX {
                return false;
            }
        }
        let left = left.entry(network).or_insert(Left {
            requests: Quota::full(REQUESTS, now_ms),
            enrolments: Quota::full(ENROLMENTS, now_ms),
            asked_ms: now_ms,
        });
        left.asked_ms = now_ms;
        left.requests.take(REQUESTS, now_ms)
            && (!is_enrolment || left.enrolments.take(ENROLMENTS, now_ms))
    }
}

/// Who has an IPv6 address has all of its network (RFC 4291, section 2.5.1).
fn network(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(_) => address,
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() >> 64 << 64).into(),
    }
}

/// Answers 429 to an address that asks too often.
pub(super) async fn within_rates(
    State(rates): State<Arc<Rates>>,
    Extension(caller): Extension<Caller>,
    request: Request,
    next: Next,
) -> Response {
    let now_ms = u64::try_from(rates.since.elapsed().as_millis()).unwrap_or(u64::MAX);
    let is_enrolment = request.uri().path().trim_start_matches('/') == enrolment::PATH;
    if rates.admit(caller.address, is_enrolment, now_ms) {
        next.run(request).await
    } else {
        ApiError::TooOften.into_response()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn an_address_that_asks_too_often_waits_and_others_do_not() {
        let rates = Rates::default();
        let (one, other) = (address("2001:db8::1"), address("2001:db8::ffff:1"));
        for _ in 0..REQUESTS.get() {
            assert!(rates.admit(one, false, 0));
        }
        assert!(!rates.admit(one, false, 0));
        assert!(!rates.admit(other, false, 0), "of the same network");
        assert!(rates.admit(address("2001:db8:0:1::1"), false, 0));
        assert!(rates.admit(address("192.0.2.1"), false, 0));
        assert!(rates.admit(one, false, 1_000));
        for _ in 0..2 * REQUESTS.get() {
            assert!(rates.admit(address("127.0.0.1"), true, 0));
        }
    }

    #[test]
    fn enrolment_is_bound_lower() {
        let rates = Rates::default();
        let stranger = address("192.0.2.1");
        for _ in 0..ENROLMENTS.get() {
            assert!(rates.admit(stranger, true, 0));
        }
        assert!(!rates.admit(stranger, true, 0));
        assert!(rates.admit(stranger, false, 0), "reading goes on");
    }

    #[test]
    fn many_addresses_fill_no_memory() {
        let rates = Rates::default();
        for number in 0..u32::try_from(ADDRESSES_MAX).unwrap() {
            assert!(rates.admit(IpAddr::V4(number.into()), false, 0));
        }
        let late = address("203.0.113.9");
        assert!(!rates.admit(late, false, 1));
        assert!(rates.admit(late, false, MINUTE_MS));
        assert_eq!(rates.left.lock().unwrap().len(), 1);
    }
}
