//! In what order a connection acknowledges: each request after its answer was acknowledged by the broker, and all in
//! the order of arrival (MQTT 5, section 4.6). Pure: it sees packet ids and says which may be acknowledged now.
//!
//! The client library gives a publish its packet id only when it writes it, so answers are matched by order: those
//! handed over and those written are the same sequence. A lost connection voids everything on it: the broker delivers
//! again what was not acknowledged, and the answers come from the cache.

use std::collections::{HashMap, VecDeque};

/// A request's place in the order of one connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ticket {
    connection: u32,
    place: u64,
}

/// The order of one connection, across its losses.
#[derive(Debug, Default)]
pub struct Exchange {
    /// Counts losses: tickets of earlier connections are void.
    connection: u32,
    /// Place of the first request in `arrivals`.
    first_place: u64,
    /// Requests not yet acknowledged, in order: packet id, and whether the answer has been acknowledged.
    arrivals: VecDeque<(u16, bool)>,
    /// Answers handed to the client library and not yet written, in order, with the place each settles.
    handed: VecDeque<Option<u64>>,
    /// Answers written and not yet acknowledged by the broker: packet id to place.
    written: HashMap<u16, Option<u64>>,
}

impl Exchange {
    /// A request with this packet id has arrived.
    pub fn arrived(&mut self, packet_id: u16) -> Ticket {
        let place = self.first_place + self.arrivals.len() as u64;
        self.arrivals.push_back((packet_id, false));
        Ticket {
            connection: self.connection,
            place,
        }
    }

    /// An answer was handed to the client library; call it in the same order as the hand-overs.
    pub fn handed(&mut self, ticket: Option<Ticket>) {
        let place = ticket
            .filter(|ticket| self.is_current(*ticket))
            .map(|ticket| ticket.place);
        self.handed.push_back(place);
    }

    /// The client library has written the next answer, with this packet id (0 at QoS 0, which nobody acknowledges).
    pub fn written(&mut self, packet_id: u16) {
        let Some(place) = self.handed.pop_front() else {
            return;
        };
        if packet_id == 0 {
            self.settle(place);
        } else {
            self.written.insert(packet_id, place);
        }
    }

    /// The broker has acknowledged the answer with this packet id.
    pub fn acknowledged(&mut self, packet_id: u16) {
        if let Some(place) = self.written.remove(&packet_id) {
            self.settle(place);
        }
    }

    /// The request needs no answer.
    pub fn dismissed(&mut self, ticket: Ticket) {
        if ticket.connection == self.connection {
            self.settle(Some(ticket.place));
        }
    }

    fn settle(&mut self, place: Option<u64>) {
        let index =
            place.and_then(|place| usize::try_from(place.checked_sub(self.first_place)?).ok());
        if let Some(arrival) = index.and_then(|index| self.arrivals.get_mut(index)) {
            arrival.1 = true;
        }
    }

    /// The packet id of the next request to acknowledge, if its turn has come.
    #[must_use]
    pub fn next_acknowledgement(&self) -> Option<u16> {
        let (packet_id, is_answered) = *self.arrivals.front()?;
        is_answered.then_some(packet_id)
    }

    /// The acknowledgement of [`Exchange::next_acknowledgement`] is on its way.
    pub fn acknowledgement_sent(&mut self) {
        if self.arrivals.pop_front().is_some() {
            self.first_place += 1;
        }
    }

    /// Whether the request arrived on the connection that stands now.
    #[must_use]
    pub fn is_current(&self, ticket: Ticket) -> bool {
        ticket.connection == self.connection
    }

    /// Answers handed over and not yet written.
    #[must_use]
    pub fn unwritten(&self) -> usize {
        self.handed.len()
    }

    /// The connection is lost: nothing on it will be acknowledged, and what was handed over has been thrown away.
    pub fn lost(&mut self) {
        self.connection = self.connection.wrapping_add(1);
        self.first_place += self.arrivals.len() as u64;
        self.arrivals.clear();
        self.handed.clear();
        self.written.clear();
    }

    /// Whether no request waits for an answer or an acknowledgement.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.arrivals.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn acknowledgements(exchange: &mut Exchange) -> Vec<u16> {
        std::iter::from_fn(|| {
            let packet_id = exchange.next_acknowledgement()?;
            exchange.acknowledgement_sent();
            Some(packet_id)
        })
        .collect()
    }

    #[test]
    fn a_request_waits_for_its_answers_acknowledgement_and_for_its_turn() {
        let mut exchange = Exchange::default();
        let first = exchange.arrived(10);
        let second = exchange.arrived(11);
        exchange.handed(Some(second));
        exchange.written(1);
        exchange.acknowledged(1);
        assert!(
            acknowledgements(&mut exchange).is_empty(),
            "the first is still unanswered"
        );
        exchange.handed(Some(first));
        exchange.written(2);
        assert!(
            acknowledgements(&mut exchange).is_empty(),
            "written is not acknowledged"
        );
        exchange.acknowledged(2);
        assert_eq!(acknowledgements(&mut exchange), [10, 11]);
        assert!(exchange.is_idle());
    }

    #[test]
    fn a_lost_connection_voids_its_tickets() {
        let mut exchange = Exchange::default();
        let old = exchange.arrived(10);
        exchange.lost();
        let new = exchange.arrived(10);
        exchange.handed(Some(old));
        exchange.written(1);
        exchange.acknowledged(1);
        exchange.dismissed(old);
        assert!(
            acknowledgements(&mut exchange).is_empty(),
            "the old ticket settles nothing new"
        );
        exchange.dismissed(new);
        assert_eq!(acknowledgements(&mut exchange), [10]);
    }

    proptest! {
        /// Whatever the order of answers, acknowledgements are those of the arrivals, in order, each once.
        #[test]
        fn acknowledges_all_in_order(order in Just((0_u16..64).collect::<Vec<_>>()).prop_shuffle()) {
            let mut exchange = Exchange::default();
            let tickets: Vec<_> = (0..64).map(|i| exchange.arrived(i + 1)).collect();
            let mut acked = Vec::new();
            for (packet_id, index) in order.iter().enumerate() {
                exchange.handed(Some(tickets[usize::from(*index)]));
                let packet_id = u16::try_from(packet_id).unwrap() + 1;
                exchange.written(packet_id);
                exchange.acknowledged(packet_id);
                acked.extend(acknowledgements(&mut exchange));
                let answered = &order[..usize::from(packet_id)];
                for id in &acked {
                    prop_assert!(answered.contains(&(id - 1)), "acknowledged before it was answered");
                }
            }
            prop_assert_eq!(acked, (1..=64).collect::<Vec<u16>>());
        }
    }
}
