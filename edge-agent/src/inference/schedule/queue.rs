//! The queue of a model as a state machine: requests arrive, a worker asks for the next [`Step`] and tells its end.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet, BinaryHeap, btree_set},
    time::{Duration, Instant},
};

use edge_protocol::Id;

use super::{
    Policy,
    clients::{ClientNumber, Clients},
    estimate::{Estimate, nanoseconds},
};

/// Bounds of the time after which a refused client is asked to try again.
const RETRY_MIN: Duration = Duration::from_millis(10);
const RETRY_MAX: Duration = Duration::from_secs(10);

/// Requests of one client that are read before their turn, at least: so many know their priority among each other, and
/// those behind them can be pushed out without having cost anything.
const READ_AHEAD: usize = 16;

/// Stands for a request, in order of arrival.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Number(u64);

#[cfg(test)]
impl Number {
    pub(super) const fn of(number: u64) -> Self {
        Self(number)
    }
}

/// A request's place among those of its client: the time at which it would have arrived at the most urgent level.
pub(super) type Rank = (Instant, Number);

/// Dimensions of a request's inputs without the first, all in a row: requests that agree in it can run together.
pub type Shape = Box<[u64]>;

/// A request that has arrived.
#[derive(Debug)]
pub struct Arrival<T> {
    /// Who sent it.
    pub client: Id,
    /// When its answer is of no use any more.
    pub deadline: Instant,
    /// Whether it takes next to no time to read. Others are read when it is their turn.
    pub is_quickly_read: bool,
    /// The request itself.
    pub job: T,
}

/// What became of an [`Arrival`].
#[derive(Debug)]
pub enum Arrived<T> {
    /// It waits.
    Queued,
    /// It waits, and this one has made room for it.
    InPlaceOf(T, Refusal),
    /// It does not wait.
    Refused(T, Refusal),
}

/// Why a request does not wait.
#[derive(Debug, Clone, PartialEq)]
pub struct Refusal {
    /// Why.
    pub kind: RefusalKind,
    /// When to try again.
    pub retry_after: Duration,
}

/// Why a request does not wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RefusalKind {
    /// Its client has used up its quota.
    Quota,
    /// The queue is full.
    Full,
}

/// What a request says that matters here.
#[derive(Debug, Clone, PartialEq)]
pub struct Reading {
    /// Level of priority, 1 the most urgent.
    pub priority: Option<u32>,
    /// When its answer is of no use any more: no later than at its arrival.
    pub deadline: Instant,
    /// Its rows: the first dimension of its inputs.
    pub rows: usize,
    /// With which others it can run; none for alone.
    pub shape: Option<Shape>,
}

/// What a worker does next.
#[derive(Debug)]
pub enum Step<T> {
    /// Wait until something arrives, or this time comes.
    Wait(Option<Instant>),
    /// Answer that it is too late.
    Late(T),
    /// Read this one, then call [`Schedule::read`] or [`Schedule::remove`].
    Read(Number),
    /// Something can run: get the right to compute, until this time, and ask again.
    Permit(Instant),
    /// Run these together, then call [`Schedule::ran`].
    Run(Batch<T>),
}

/// Requests to run together.
#[derive(Debug)]
pub struct Batch<T> {
    /// The requests, at least one.
    pub jobs: Vec<T>,
    /// To give back when they have run.
    pub receipt: Receipt,
}

/// Whom a run is charged to.
#[derive(Debug)]
#[must_use = "without it the clients are charged what was expected, and never forgotten"]
pub struct Receipt {
    /// Client, rows and expected cost of each request.
    charges: Vec<(ClientNumber, usize, u64)>,
    rows: usize,
}

#[derive(Debug)]
struct Item<T> {
    job: T,
    client: ClientNumber,
    arrived: Instant,
    deadline: Instant,
    rank: Rank,
    is_ahead: bool,
    state: State,
}

#[derive(Debug)]
enum State {
    Unread,
    BeingRead,
    Read {
        behind: Duration,
        rows: usize,
        shape: Option<Shape>,
    },
}

/// The queue of a model.
#[derive(Debug)]
pub struct Schedule<T> {
    policy: Policy,
    items: BTreeMap<Number, Item<T>>,
    /// Those that are read next.
    quickly_read: BTreeSet<Number>,
    deadlines: BTreeSet<(Instant, Number)>,
    /// Rows that wait; an unread request counts as one.
    rows: usize,
    clients: Clients,
    estimate: Estimate,
    next: u64,
}

impl<T> Schedule<T> {
    /// Nothing waits.
    #[must_use]
    pub fn new(policy: Policy) -> Self {
        Self {
            policy,
            items: BTreeMap::new(),
            quickly_read: BTreeSet::new(),
            deadlines: BTreeSet::new(),
            rows: 0,
            clients: Clients::default(),
            estimate: Estimate::default(),
            next: 0,
        }
    }

    /// Requests that wait.
    #[must_use]
    pub fn len(&self) -> usize {
        self.items.len()
    }

    /// Whether none waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    /// From now on every request runs alone.
    pub fn stop_batching(&mut self) {
        self.policy.max_batch_size = 1;
    }

    /// Takes a request in, or refuses it or another one.
    pub fn arrive(&mut self, arrival: Arrival<T>, now: Instant) -> Arrived<T> {
        let Arrival {
            client,
            deadline,
            is_quickly_read,
            job,
        } = arrival;
        let Some(client) = self.clients.enter(&client, now) else {
            return Arrived::Refused(job, self.full());
        };
        if let Err(retry_after) = self.clients.take_quota(client, self.policy.quota, now) {
            let kind = RefusalKind::Quota;
            return Arrived::Refused(job, Refusal { kind, retry_after });
        }
        let mut pushed_out = None;
        if self.items.len() >= self.policy.max_queue_size {
            match self.push_out(client) {
                Some(other) => pushed_out = Some((other, self.full())),
                None => {
                    self.clients.give_back_quota(client, self.policy.quota);
                    return Arrived::Refused(job, self.full());
                }
            }
        }
        let number = Number(self.next);
        self.next += 1;
        let rank = (now + self.policy.behind(None), number);
        let item = Item {
            job,
            client,
            arrived: now,
            deadline,
            rank,
            is_ahead: false,
            state: State::Unread,
        };
        self.items.insert(number, item);
        self.deadlines.insert((deadline, number));
        self.clients.add(client, rank);
        self.rows += 1;
        if is_quickly_read && let Some(client) = self.clients.get_mut(client) {
            client.later.push_back(number);
        }
        self.read_ahead(client);
        match pushed_out {
            Some((other, refusal)) => Arrived::InPlaceOf(other, refusal),
            None => Arrived::Queued,
        }
    }

    /// Takes out a request of the client that has most, where `client` has fewer even with one more.
    fn push_out(&mut self, client: ClientNumber) -> Option<T> {
        let own = self.clients.get(client)?.waiting.len();
        let (longest, most, last) = self.clients.longest()?;
        if longest == client || own + 1 >= most {
            return None;
        }
        self.clients.give_back_quota(longest, self.policy.quota);
        self.remove(last)
    }

    /// The queue is full; it will be empty after what its rows cost.
    fn full(&self) -> Refusal {
        let drained = Duration::from_nanos(self.estimate.cost_ns(self.rows));
        Refusal {
            kind: RefusalKind::Full,
            retry_after: drained.clamp(RETRY_MIN, RETRY_MAX),
        }
    }

    /// What a worker does next; `may_run` once it has the right to compute.
    pub fn step(&mut self, now: Instant, may_run: bool) -> Step<T> {
        if let Some((deadline, number)) = self.deadlines.first().copied()
            && deadline <= now + self.surely_takes(now)
            && let Some(job) = self.remove(number)
        {
            return Step::Late(job);
        }
        if let Some(number) = self.quickly_read.pop_first() {
            return self.begin_to_read(number);
        }
        let Some(leader) = self.leader() else {
            return Step::Wait(self.deadlines.first().map(|(deadline, _)| *deadline));
        };
        if self
            .items
            .get(&leader)
            .is_some_and(|item| matches!(item.state, State::Unread))
        {
            return self.begin_to_read(leader);
        }
        let chosen = self.together(leader, now);
        match self.wait_for_more(&chosen, now) {
            Some(until) => {
                let first = self
                    .deadlines
                    .first()
                    .map_or(until, |(deadline, _)| *deadline);
                Step::Wait(Some(until.min(first)))
            }
            None if may_run => Step::Run(self.begin(&chosen)),
            None => Step::Permit(
                self.deadlines
                    .first()
                    .map_or(now, |(deadline, _)| *deadline),
            ),
        }
    }

    /// What a run takes at least.
    fn surely_takes(&self, now: Instant) -> Duration {
        if self.policy.is_steady {
            self.estimate.at_least(now)
        } else {
            Duration::ZERO
        }
    }

    fn begin_to_read(&mut self, number: Number) -> Step<T> {
        if let Some(item) = self.items.get_mut(&number) {
            item.state = State::BeingRead;
            if !item.is_ahead
                && let Some(client) = self.clients.get_mut(item.client)
            {
                client.later.retain(|other| *other != number);
            }
        }
        Step::Read(number)
    }

    /// Reads the next requests of a client before their turn, up to a number.
    fn read_ahead(&mut self, client: ClientNumber) {
        let most = self.policy.max_batch_size.max(READ_AHEAD);
        let Some(client) = self.clients.get_mut(client) else {
            return;
        };
        while client.ahead < most
            && let Some(number) = client.later.pop_front()
        {
            if let Some(item) = self.items.get_mut(&number) {
                item.is_ahead = true;
                client.ahead += 1;
                self.quickly_read.insert(number);
            }
        }
    }

    /// The request of this number, while it waits.
    pub fn get_mut(&mut self, number: Number) -> Option<&mut T> {
        Some(&mut self.items.get_mut(&number)?.job)
    }

    /// A request was read in `took`, which is charged to its client. It may have been taken out meanwhile.
    pub fn read(&mut self, number: Number, reading: Reading, took: Duration) {
        let Some(item) = self.items.get_mut(&number) else {
            return;
        };
        let behind = self.policy.behind(reading.priority);
        self.deadlines.remove(&(item.deadline, number));
        item.deadline = item.deadline.min(reading.deadline);
        self.deadlines.insert((item.deadline, number));
        self.clients.charge(item.client, nanoseconds(took));
        self.clients.remove(item.client, item.rank);
        item.rank = (item.arrived + behind, number);
        self.clients.add(item.client, item.rank);
        self.rows += reading.rows.saturating_sub(1);
        item.state = State::Read {
            behind,
            rows: reading.rows,
            shape: reading.shape,
        };
    }

    /// Takes a request out that was read in `took`, which is charged to its client, and is not to run.
    pub fn remove_charged(&mut self, number: Number, took: Duration) -> Option<T> {
        let client = self.items.get(&number)?.client;
        self.clients.charge(client, nanoseconds(took));
        self.remove(number)
    }

    /// Takes a request out, wherever it is.
    pub fn remove(&mut self, number: Number) -> Option<T> {
        let item = self.items.remove(&number)?;
        self.quickly_read.remove(&number);
        self.deadlines.remove(&(item.deadline, number));
        self.clients.remove(item.client, item.rank);
        self.rows -= item.rows().max(1);
        if let Some(client) = self.clients.get_mut(item.client) {
            if item.is_ahead {
                client.ahead -= 1;
            } else {
                client.later.retain(|other| *other != number);
            }
        }
        self.read_ahead(item.client);
        Some(item.job)
    }

    /// The request that is next: the first one of the client that is least ahead.
    fn leader(&self) -> Option<Number> {
        let firsts = self.clients.waiting().filter_map(|(number, client)| {
            let (first, item) = client.waiting.iter().find_map(|(_, first)| {
                let item = self.items.get(first)?;
                (!matches!(item.state, State::BeingRead)).then_some((*first, item))
            })?;
            Some((self.turn(client.served_ns, item), number, first))
        });
        firsts.min().map(|(_, _, first)| first)
    }

    /// When it is a request's turn, on the scale of virtual time.
    fn turn(&self, served_ns: u64, item: &Item<T>) -> u64 {
        let behind = match item.state {
            State::Read { behind, .. } => behind,
            State::Unread | State::BeingRead => self.policy.behind(None),
        };
        served_ns.saturating_add(nanoseconds(behind))
    }

    /// The leader and those that run with it, in fair order, as many as fit. A client that has left nothing unused adds
    /// no more than its share of a batch among all clients that are there: their next request would wait for it.
    fn together(&self, leader: Number, now: Instant) -> Vec<Number> {
        let mut chosen = vec![leader];
        let Some((leading, rows, shape)) = self.items.get(&leader).and_then(Item::batchable) else {
            return chosen;
        };
        let max = self.policy.max_batch_size;
        let mut room = max.saturating_sub(rows);
        if room == 0 || self.items.len() == 1 {
            return chosen;
        }
        let share = max.div_ceil(self.clients.present(now).max(1));
        // Each client with its next request that fits, by whose turn it is.
        let mut clients: Vec<Rider<'_>> = Vec::new();
        let mut turns = BinaryHeap::new();
        for (number, client) in self.clients.waiting() {
            let own = if number == leading { rows } else { 0 };
            let mut rider = Rider {
                served_ns: client.served_ns.saturating_add(self.estimate.cost_ns(own)),
                room: match client.served_ns < self.clients.clock_ns() {
                    true => max,
                    false => share.saturating_sub(own),
                },
                ranks: client.waiting.iter(),
            };
            if let Some(next) = self.next_rider(&mut rider, leader, shape, room) {
                turns.push(Reverse((next, clients.len())));
                clients.push(rider);
            }
        }
        while let Some(Reverse(((_, number, rows), index))) = turns.pop() {
            let Some(rider) = clients.get_mut(index) else {
                continue;
            };
            if rows <= room {
                chosen.push(number);
                room -= rows;
                rider.room -= rows;
                rider.served_ns = rider.served_ns.saturating_add(self.estimate.cost_ns(rows));
            }
            if room == 0 {
                break;
            }
            if let Some(next) = self.next_rider(rider, leader, shape, room) {
                turns.push(Reverse((next, index)));
            }
        }
        chosen
    }

    /// The next request of a client that can run with the leader: whose turn it is, which, and its rows.
    fn next_rider(
        &self,
        rider: &mut Rider<'_>,
        leader: Number,
        shape: &Shape,
        room: usize,
    ) -> Option<(u64, Number, usize)> {
        let Rider {
            served_ns,
            room: own,
            ranks,
        } = rider;
        ranks.find_map(|(_, number)| {
            let item = self.items.get(number)?;
            let (_, rows, other) = item.batchable()?;
            let fits = *number != leader && other == shape && rows <= room.min(*own);
            fits.then(|| (self.turn(*served_ns, item), *number, rows))
        })
    }

    /// Until when it is worth waiting for more to run with these; `None` when they run now.
    fn wait_for_more(&self, chosen: &[Number], now: Instant) -> Option<Instant> {
        let delay = self.policy.max_queue_delay;
        if delay.is_zero() {
            return None;
        }
        let (mut rows, mut until) = (0, None);
        for item in chosen.iter().filter_map(|number| self.items.get(number)) {
            let (_, more, _) = item.batchable()?;
            rows += more;
            // What waits must still be answered in time.
            let latest = item
                .deadline
                .checked_sub(2 * self.estimate.run())
                .unwrap_or(now);
            let due = (item.arrived + delay).min(latest);
            until = Some(until.map_or(due, |until: Instant| until.min(due)));
        }
        until.filter(|until| rows < self.policy.max_batch_size && *until > now)
    }

    fn begin(&mut self, chosen: &[Number]) -> Batch<T> {
        self.clients.advance();
        let mut jobs = Vec::with_capacity(chosen.len());
        let mut charges = Vec::with_capacity(chosen.len());
        for number in chosen {
            let Some(item) = self.items.get(number) else {
                continue;
            };
            let (client, rows) = (item.client, item.rows().max(1));
            let cost_ns = self.estimate.cost_ns(rows);
            if let Some(job) = self.remove(*number) {
                self.clients.begin(client, cost_ns);
                jobs.push(job);
                charges.push((client, rows, cost_ns));
            }
        }
        let rows = charges.iter().map(|(_, rows, _)| rows).sum();
        let receipt = Receipt { charges, rows };
        Batch { jobs, receipt }
    }

    /// A batch has run in `took`, or ended otherwise: then its clients are charged what was expected.
    pub fn ran(&mut self, receipt: Receipt, took: Option<Duration>, now: Instant) {
        let Receipt { charges, rows } = receipt;
        let took_ns = took.map(nanoseconds);
        for (client, its_rows, expected_ns) in charges {
            let share = |took_ns| u128::from(took_ns) * its_rows as u128 / (rows as u128).max(1);
            let cost_ns = took_ns.map_or(expected_ns, |took_ns| {
                u64::try_from(share(took_ns)).unwrap_or(u64::MAX)
            });
            self.clients.end(client, expected_ns, cost_ns);
        }
        if let Some(took) = took {
            self.estimate.ran(rows, took, now);
        }
    }

    /// Takes out all that waits, for a model that is no longer served.
    pub fn take_all(&mut self) -> Vec<T> {
        let numbers: Vec<Number> = self.items.keys().copied().collect();
        numbers
            .into_iter()
            .filter_map(|number| self.remove(number))
            .collect()
    }
}

/// A client while a batch is put together.
struct Rider<'a> {
    served_ns: u64,
    /// Rows that it may still add.
    room: usize,
    ranks: btree_set::Iter<'a, Rank>,
}

impl<T> Item<T> {
    /// Its rows, once it was read; one before.
    const fn rows(&self) -> usize {
        match self.state {
            State::Read { rows, .. } => rows,
            State::Unread | State::BeingRead => 1,
        }
    }

    /// Client, rows and shape, where it can run with others.
    const fn batchable(&self) -> Option<(ClientNumber, usize, &Shape)> {
        match &self.state {
            State::Read {
                rows,
                shape: Some(shape),
                ..
            } => Some((self.client, *rows, shape)),
            _ => None,
        }
    }
}
