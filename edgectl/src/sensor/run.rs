//! One run of a sensor: the loop that asks [`Pace`] and [`Ledger`] what to do, and the [`Link`] to do it.

use std::{
    future::Future,
    time::{Duration, Instant},
};

use rumqttc::v5::mqttbytes::v5::PubAckReason;
use tokio::{select, time};

use super::{
    ledger::{Ledger, Send, Tally},
    link::{Event, Link, LinkError},
    pace::Pace,
    wire::Wire,
};
use edge_protocol::{BrokerUrl, sensor::Patience};

/// A broker that is not reached for so long at the start is a wrong address.
const START_MAX: Duration = Duration::from_secs(10);
/// A broker that is gone for so long later ends the run.
const OUTAGE_MAX: Duration = Duration::from_secs(60);
/// How often progress is shown.
const PROGRESS_INTERVAL: Duration = Duration::from_millis(100);

/// What a run needs besides link and messages.
#[derive(Debug)]
pub struct RunSettings {
    /// The broker, for messages.
    pub broker: BrokerUrl,
    /// When requests are repeated and given up.
    pub patience: Patience,
    /// When requests begin.
    pub pace: Pace,
    /// Requests that wait for their answers at most.
    pub in_flight: usize,
}

/// What came of a run.
#[derive(Debug)]
pub struct Outcome {
    /// The counts.
    pub tally: Tally,
    /// From the first request to the end.
    pub elapsed: Duration,
    /// What the broker said about requests that it passed to nobody.
    pub undelivered: Option<PubAckReason>,
    /// The loss of the broker that ended the run.
    pub lost: Option<LinkError>,
}

/// Sends requests until `settings.pace` is over and each one has ended, or until `stop` is ready.
///
/// # Errors
/// [`LinkError`] when the broker cannot be used from the start. A loss later is part of the [`Outcome`].
pub async fn run(
    mut link: Link,
    wire: &Wire,
    settings: RunSettings,
    mut progress: impl FnMut(&Tally, Duration),
    stop: impl Future<Output = ()>,
) -> Result<Outcome, LinkError> {
    if let Err(error) = wait_until_up(&mut link, &settings.broker).await {
        link.close().await;
        return Err(error);
    }
    let start = Instant::now();
    let mut run = Run {
        ledger: Ledger::new(settings.patience),
        pace: settings.pace,
        in_flight: settings.in_flight,
        down: None,
        undelivered: None,
    };
    let mut stop = std::pin::pin!(stop);
    let mut shown = Duration::ZERO;
    let (lost, why) = loop {
        run.send_what_is_due(&link, wire, start);
        let now = start.elapsed();
        if run.is_over(now) {
            break (None, "");
        }
        if let Some(error) = run.outage(now, &settings.broker) {
            break (Some(error), "the broker was lost");
        }
        if now >= shown + PROGRESS_INTERVAL {
            progress(run.ledger.tally(), now);
            shown = now;
        }
        let wake = run.next_wake(now).min(shown + PROGRESS_INTERVAL);
        select! {
            biased;
            event = link.next() => {
                if let Some(fatal) = run.take_in(event, start) {
                    break (Some(fatal), "the broker was lost");
                }
                // What else is there is counted before anything is sent.
                while let Some(event) = link.try_next() {
                    if let Some(fatal) = run.take_in(Some(event), start) {
                        return Ok(run.end(link, start, Some(fatal), "the broker was lost").await);
                    }
                }
            }
            () = &mut stop => break (None, "the run was interrupted"),
            () = time::sleep_until((start + wake).into()) => {}
        }
    };
    progress(run.ledger.tally(), start.elapsed());
    Ok(run.end(link, start, lost, why).await)
}

async fn wait_until_up(link: &mut Link, broker: &BrokerUrl) -> Result<(), LinkError> {
    let mut last = "no answer".to_owned();
    let up = async {
        loop {
            match link.next().await {
                Some(Event::Up) => return Ok(()),
                Some(Event::Fatal(error)) => return Err(Some(error)),
                Some(Event::Down(why)) => last = why,
                Some(_) => {}
                None => return Err(None),
            }
        }
    };
    match time::timeout(START_MAX, up).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(Some(error))) => Err(error),
        Ok(Err(None)) | Err(_) => Err(unreachable_for(START_MAX, broker, last)),
    }
}

fn unreachable_for(waited: Duration, broker: &BrokerUrl, last: String) -> LinkError {
    LinkError::Unreachable {
        broker: broker.clone(),
        waited_s: waited.as_secs(),
        last,
    }
}

struct Run {
    ledger: Ledger,
    pace: Pace,
    in_flight: usize,
    /// Since when the link is down, and why.
    down: Option<(Duration, String)>,
    undelivered: Option<PubAckReason>,
}

impl Run {
    fn send_what_is_due(&mut self, link: &Link, wire: &Wire, start: Instant) {
        let send = |send: Send| {
            if let Some((body, properties)) = wire.request(send) {
                link.send(wire.topic(), body, properties);
            }
        };
        while let Some(again) = self.ledger.take_due(start.elapsed()) {
            send(again);
        }
        while self.has_room() && self.pace.admit(start.elapsed()).is_some() {
            send(self.ledger.begin(start.elapsed()));
        }
    }

    fn has_room(&self) -> bool {
        self.down.is_none() && self.ledger.open_count() < self.in_flight
    }

    fn is_over(&self, now: Duration) -> bool {
        self.pace.is_over(now) && self.ledger.open_count() == 0
    }

    fn next_wake(&self, now: Duration) -> Duration {
        let may_begin = self.has_room() && !self.pace.is_over(now);
        let begin = may_begin.then(|| self.pace.next());
        let due = self.ledger.next_due();
        begin.into_iter().chain(due).min().unwrap_or(Duration::MAX)
    }

    /// Takes in what happened, and returns the error that ends the run.
    fn take_in(&mut self, event: Option<Event>, start: Instant) -> Option<LinkError> {
        match event? {
            Event::Answer {
                at,
                number,
                verdict,
            } => {
                let at = at.saturating_duration_since(start);
                self.ledger.answer(at, number, verdict);
            }
            Event::NotDelivered(reason) => self.undelivered = Some(reason),
            Event::Up => {
                self.down = None;
                self.ledger.link_up(start.elapsed());
            }
            Event::Down(why) => {
                tracing::debug!(%why, "connection lost");
                self.ledger.link_down();
                let since = self.down.take().map_or(start.elapsed(), |(since, _)| since);
                self.down = Some((since, why));
            }
            Event::Fatal(error) => return Some(error),
        }
        None
    }

    fn outage(&self, now: Duration, broker: &BrokerUrl) -> Option<LinkError> {
        let (since, why) = self.down.as_ref()?;
        let waited = now.saturating_sub(*since);
        (waited >= OUTAGE_MAX).then(|| unreachable_for(waited, broker, why.clone()))
    }

    async fn end(self, link: Link, start: Instant, lost: Option<LinkError>, why: &str) -> Outcome {
        let elapsed = start.elapsed();
        link.close().await;
        Outcome {
            tally: self.ledger.close(why),
            elapsed,
            undelivered: self.undelivered,
            lost,
        }
    }
}
