//! The threads that compute: each owns one loaded copy of a model and takes jobs from the model's queue.

use std::{sync::Arc, time::Instant};

use crossbeam_channel::Receiver;
use edge_protocol::{
    Status, limit,
    oip::{Answer, Body, Request},
};

use super::{Job, Statistics, model::Model};
use crate::outcome::Outcome;

/// What a worker needs to know of its model.
#[derive(Clone)]
pub(super) struct Identity {
    pub(super) name: String,
    pub(super) version: String,
}

/// Takes jobs until the queue's other end is gone.
pub(super) fn work(
    mut model: Model,
    identity: &Identity,
    jobs: &Receiver<Job>,
    statistics: &Arc<Statistics>,
) {
    while let Ok(job) = jobs.recv() {
        let outcome = run(&mut model, identity, &job, statistics)
            .unwrap_or_else(|(status, why)| Outcome::failure(status, &why, job.encoding));
        statistics.ended(outcome.status);
        job.reply.send(outcome);
    }
}

fn run(
    model: &mut Model,
    identity: &Identity,
    job: &Job,
    statistics: &Statistics,
) -> Result<Outcome, (Status, String)> {
    let late = || {
        let why = "the deadline passed while the request waited".to_owned();
        (Status::DeadlinePassed, why)
    };
    let started = Instant::now();
    if started >= job.deadline {
        return Err(late());
    }
    let request = Request::decode(&job.body, job.encoding)
        .map_err(|error| (Status::BadRequest, error.to_string()))?;
    let timeout = request.timeout_us.map(std::time::Duration::from_micros);
    if timeout.is_some_and(|timeout| job.arrived.elapsed() >= timeout) {
        return Err(late());
    }
    let before = Instant::now();
    let outputs = model.run(&request).map_err(|error| {
        let status = if error.is_the_requests_fault() {
            Status::BadRequest
        } else {
            Status::RuntimeFailed
        };
        (status, error.to_string())
    })?;
    statistics.ran(started - job.arrived, before.elapsed());
    let answer = Answer {
        model_name: identity.name.clone(),
        model_version: Some(identity.version.clone()),
        id: request.id.clone(),
        outputs,
    };
    let body = answer
        .encode(&request, job.encoding)
        .map_err(|error| (Status::RuntimeFailed, error.to_string()))?;
    sendable(body)
}

/// Refuses a body that no packet can carry: the broker would end the connection at each attempt to send it.
fn sendable(body: Body) -> Result<Outcome, (Status, String)> {
    let bytes = body.bytes.len();
    if bytes > limit::ANSWER_MAX_BYTES {
        let max = limit::ANSWER_MAX_BYTES;
        let why = format!(
            "the answer has {bytes} bytes, at most {max} can be sent; ask for binary outputs or fewer rows"
        );
        return Err((Status::TooLarge, why));
    }
    Ok(Outcome::success(body))
}

#[cfg(test)]
mod tests {
    use edge_protocol::oip::Encoding;

    use super::*;

    #[test]
    fn an_answer_beyond_any_packet_is_refused() {
        let body = |bytes: usize| Body {
            bytes: vec![b' '; bytes].into(),
            encoding: Encoding::Json,
        };
        assert!(sendable(body(limit::ANSWER_MAX_BYTES)).is_ok());
        let (status, why) = sendable(body(limit::ANSWER_MAX_BYTES + 1)).unwrap_err();
        assert_eq!(status, Status::TooLarge);
        assert!(why.contains("fewer rows"), "{why}");
    }
}
