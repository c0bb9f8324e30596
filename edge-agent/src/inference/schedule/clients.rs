//! Clients that wait, run or owe: who is served next, and what each may still send. A bounded number of them.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, VecDeque},
    time::{Duration, Instant},
};

use edge_protocol::Id;

use super::{
    Quota,
    queue::{Number, Rank},
    quota::Bucket,
};

/// Clients of one model that are told apart at a time: more than may wait.
pub(super) const CLIENTS_MAX: usize = 1_024;

/// A client that sent something within this time is there, and may send more at any moment.
const PRESENT: Duration = Duration::from_secs(1);

/// Compute time that a client may have left unused and use later: a burst after a pause goes before those who never
/// pause. Bounded, so that they wait no longer for it.
const CREDIT_NS: u64 = 100_000_000;

/// Stands for a client; never used again for another one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct ClientNumber(u64);

/// One client.
#[derive(Debug)]
pub(super) struct Client {
    name: Id,
    /// Compute time that it was served, in nanoseconds.
    pub(super) served_ns: u64,
    /// Its requests that wait, in the order in which they are served.
    pub(super) waiting: BTreeSet<Rank>,
    /// How many of them are read before their turn, or will be at once.
    pub(super) ahead: usize,
    /// Those that are quickly read too, but later.
    pub(super) later: VecDeque<Number>,
    running: usize,
    bucket: Bucket,
    /// When it last sent something.
    seen: Instant,
}

impl Client {
    /// Whether it differs in nothing from one that was never here.
    fn is_as_new(&self, clock_ns: u64, now: Instant) -> bool {
        self.is_idle() && self.served_ns <= clock_ns && self.bucket.is_full(now)
    }

    fn is_idle(&self) -> bool {
        self.waiting.is_empty() && self.running == 0
    }
}

/// All clients of a model.
#[derive(Debug, Default)]
pub(super) struct Clients {
    by_number: BTreeMap<ClientNumber, Client>,
    by_name: HashMap<Id, ClientNumber>,
    next: u64,
    /// Where a new client begins: the least virtual time of those who waited at the last run.
    clock_ns: u64,
}

impl Clients {
    /// The client of this name. `None` when there are too many that wait or run.
    pub(super) fn enter(&mut self, name: &Id, now: Instant) -> Option<ClientNumber> {
        if let Some(number) = self.by_name.get(name) {
            if let Some(client) = self.by_number.get_mut(number) {
                client.seen = now;
            }
            return Some(*number);
        }
        if self.by_number.len() >= CLIENTS_MAX {
            self.make_room(now);
        }
        if self.by_number.len() >= CLIENTS_MAX {
            return None;
        }
        let number = ClientNumber(self.next);
        self.next += 1;
        let client = Client {
            name: name.clone(),
            served_ns: self.clock_ns,
            waiting: BTreeSet::new(),
            ahead: 0,
            later: VecDeque::new(),
            running: 0,
            bucket: Bucket::full(now),
            seen: now,
        };
        self.by_number.insert(number, client);
        self.by_name.insert(name.clone(), number);
        Some(number)
    }

    /// Forgets those who are as new, or else the idle one with the least to remember.
    fn make_room(&mut self, now: Instant) {
        let clock_ns = self.clock_ns;
        let mut forgotten: Vec<ClientNumber> = self
            .by_number
            .iter()
            .filter(|(_, client)| client.is_as_new(clock_ns, now))
            .map(|(number, _)| *number)
            .collect();
        if forgotten.is_empty() {
            let idle = self.by_number.iter().filter(|(_, client)| client.is_idle());
            let least = idle.min_by_key(|(_, client)| client.served_ns);
            forgotten.extend(least.map(|(number, _)| *number));
        }
        for number in forgotten {
            if let Some(client) = self.by_number.remove(&number) {
                self.by_name.remove(&client.name);
            }
        }
    }

    pub(super) fn get_mut(&mut self, number: ClientNumber) -> Option<&mut Client> {
        self.by_number.get_mut(&number)
    }

    pub(super) fn get(&self, number: ClientNumber) -> Option<&Client> {
        self.by_number.get(&number)
    }

    /// Those who have requests that wait.
    pub(super) fn waiting(&self) -> impl Iterator<Item = (ClientNumber, &Client)> {
        self.by_number
            .iter()
            .filter(|(_, client)| !client.waiting.is_empty())
            .map(|(number, client)| (*number, client))
    }

    /// The virtual time of those who use all that they can get.
    pub(super) const fn clock_ns(&self) -> u64 {
        self.clock_ns
    }

    /// How many there are at this time.
    pub(super) fn present(&self, now: Instant) -> usize {
        let clients = self.by_number.values();
        clients
            .filter(|client| now < client.seen + PRESENT || !client.is_idle())
            .count()
    }

    /// Takes one request out of a client's quota.
    ///
    /// # Errors
    /// The time until there is one.
    pub(super) fn take_quota(
        &mut self,
        number: ClientNumber,
        quota: Option<Quota>,
        now: Instant,
    ) -> Result<(), Duration> {
        match (quota, self.by_number.get_mut(&number)) {
            (Some(quota), Some(client)) => client.bucket.take(quota, now),
            _ => Ok(()),
        }
    }

    /// Puts back what a refused request took.
    pub(super) fn give_back_quota(&mut self, number: ClientNumber, quota: Option<Quota>) {
        if let (Some(quota), Some(client)) = (quota, self.by_number.get_mut(&number)) {
            client.bucket.give_back(quota);
        }
    }

    /// A request comes to wait.
    pub(super) fn add(&mut self, number: ClientNumber, rank: Rank) {
        let clock_ns = self.clock_ns;
        if let Some(client) = self.by_number.get_mut(&number) {
            if client.waiting.is_empty() {
                client.served_ns = client.served_ns.max(clock_ns.saturating_sub(CREDIT_NS));
            }
            client.waiting.insert(rank);
        }
    }

    /// A request waits no longer.
    pub(super) fn remove(&mut self, number: ClientNumber, rank: Rank) {
        if let Some(client) = self.by_number.get_mut(&number) {
            client.waiting.remove(&rank);
        }
    }

    /// A run begins: the clock follows those who wait.
    pub(super) fn advance(&mut self) {
        let least = self.waiting().map(|(_, client)| client.served_ns).min();
        self.clock_ns = self.clock_ns.max(least.unwrap_or(0));
    }

    /// A request begins to run, at an expected cost.
    pub(super) fn begin(&mut self, number: ClientNumber, cost_ns: u64) {
        if let Some(client) = self.by_number.get_mut(&number) {
            client.running += 1;
            client.served_ns = client.served_ns.saturating_add(cost_ns);
        }
    }

    /// A request has run: what it cost takes the place of what was expected.
    pub(super) fn end(&mut self, number: ClientNumber, expected_ns: u64, cost_ns: u64) {
        if let Some(client) = self.by_number.get_mut(&number) {
            client.running = client.running.saturating_sub(1);
            client.served_ns = client.served_ns.saturating_sub(expected_ns);
        }
        self.charge(number, cost_ns);
    }

    /// Something was done for a client.
    pub(super) fn charge(&mut self, number: ClientNumber, cost_ns: u64) {
        if let Some(client) = self.by_number.get_mut(&number) {
            client.served_ns = client.served_ns.saturating_add(cost_ns);
        }
    }

    /// The client that has most requests waiting, with the one that would be served last.
    pub(super) fn longest(&self) -> Option<(ClientNumber, usize, Number)> {
        self.waiting()
            .max_by_key(|(number, client)| (client.waiting.len(), *number))
            .and_then(|(number, client)| {
                let (_, last) = client.waiting.last()?;
                Some((number, client.waiting.len(), *last))
            })
    }

    #[cfg(test)]
    pub(super) fn count(&self) -> usize {
        self.by_number.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clients_are_bounded_and_those_who_owe_are_kept() {
        let (mut clients, now) = (Clients::default(), Instant::now());
        let name = |number: usize| Id::new(&format!("c{number}")).unwrap();
        let debtor = clients.enter(&name(0), now).unwrap();
        clients.charge(debtor, 1_000);
        for number in 1..10 * CLIENTS_MAX {
            assert!(clients.enter(&name(number), now).is_some());
            assert!(clients.count() <= CLIENTS_MAX);
        }
        assert_eq!(clients.enter(&name(0), now), Some(debtor));
    }

    #[test]
    fn nobody_is_forgotten_while_it_waits() {
        let (mut clients, now) = (Clients::default(), Instant::now());
        for number in 0..CLIENTS_MAX {
            let name = Id::new(&format!("c{number}")).unwrap();
            let client = clients.enter(&name, now).unwrap();
            clients.add(client, (now, Number::of(number as u64)));
        }
        assert_eq!(clients.enter(&Id::new("late").unwrap(), now), None);
    }
}
