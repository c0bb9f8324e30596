//! Reads bodies of requests, within bounds on each, on all together, and on the time that one takes.

use std::{sync::Arc, time::Duration};

use axum::{
    body::{Body, to_bytes},
    http::{HeaderMap, header},
};
use bytes::Bytes;
use edge_protocol::{Status, limit};
use http_body_util::LengthLimitError;
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::timeout,
};

/// Longest time that a body may take to arrive.
const ARRIVAL: Duration = Duration::from_secs(30);
/// Bytes of all bodies that arrive or wait at once, in [`UNIT`]s: as much as the answers to MQTT may take.
const TOTAL: usize = 64 << 10;
/// What is counted, in bytes.
const UNIT: usize = 1 << 10;

/// What all bodies together may take.
#[derive(Debug, Clone)]
pub(super) struct Room(Arc<Semaphore>);

/// A body with its place in the [`Room`].
#[derive(Debug)]
pub(super) struct Held {
    pub(super) bytes: Bytes,
    _place: OwnedSemaphorePermit,
}

impl Default for Room {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(TOTAL)))
    }
}

impl Room {
    /// Reads a body.
    ///
    /// # Errors
    /// Status and message for who sent it.
    pub(super) async fn read(
        &self,
        headers: &HeaderMap,
        body: Body,
    ) -> Result<Held, (Status, String)> {
        let max = limit::REQUEST_MAX_BYTES;
        let announced = headers
            .get(header::CONTENT_LENGTH)
            .and_then(|length| length.to_str().ok()?.parse::<usize>().ok());
        // A body of unknown length takes the place of the largest.
        let bytes = announced.unwrap_or(max);
        if bytes > max {
            return Err(too_large(bytes));
        }
        let units = u32::try_from(bytes.div_ceil(UNIT)).unwrap_or(u32::MAX);
        let place = self.0.clone().try_acquire_many_owned(units).map_err(|_| {
            let why = "the requests that arrive fill the box's memory for them";
            (Status::Unavailable, why.to_owned())
        })?;
        match timeout(ARRIVAL, to_bytes(body, max)).await {
            Ok(Ok(bytes)) => Ok(Held {
                bytes,
                _place: place,
            }),
            Ok(Err(error)) if announced.is_none() && is_too_large(&error) => {
                Err(too_large(max + 1))
            }
            Ok(Err(error)) => Err((
                Status::BadRequest,
                format!("the body did not arrive: {error}"),
            )),
            Err(_) => Err((
                Status::DeadlinePassed,
                "the body took too long to arrive".to_owned(),
            )),
        }
    }
}

fn is_too_large(error: &axum::Error) -> bool {
    std::error::Error::source(error).is_some_and(<dyn std::error::Error>::is::<LengthLimitError>)
}

fn too_large(bytes: usize) -> (Status, String) {
    let max = limit::REQUEST_MAX_BYTES;
    let why = format!("the request has {bytes} bytes or more, at most {max} are allowed");
    (Status::TooLarge, why)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn announced(bytes: usize) -> HeaderMap {
        let value = bytes.to_string().parse().unwrap();
        [(header::CONTENT_LENGTH, value)].into_iter().collect()
    }

    #[tokio::test]
    async fn bodies_are_bounded_each_and_together() {
        let room = Room::default();
        let (status, _) = room
            .read(&announced(limit::REQUEST_MAX_BYTES + 1), Body::empty())
            .await
            .unwrap_err();
        assert_eq!(status, Status::TooLarge);
        let huge = Body::from(vec![0; limit::REQUEST_MAX_BYTES + 1]);
        let (status, _) = room.read(&HeaderMap::new(), huge).await.unwrap_err();
        assert_eq!(status, Status::TooLarge, "of unknown length");

        let mut held = Vec::new();
        for _ in 0..TOTAL * UNIT / limit::REQUEST_MAX_BYTES {
            let headers = announced(limit::REQUEST_MAX_BYTES);
            held.push(room.read(&headers, Body::from("x")).await.unwrap());
        }
        let (status, _) = room.read(&announced(1), Body::from("x")).await.unwrap_err();
        assert_eq!(status, Status::Unavailable);
        held.pop();
        assert_eq!(
            room.read(&announced(1), Body::from("x"))
                .await
                .unwrap()
                .bytes,
            "x"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_that_does_not_come_is_given_up() {
        let never = Body::from_stream(tokio_stream());
        let (status, _) = Room::default()
            .read(&announced(9), never)
            .await
            .unwrap_err();
        assert_eq!(status, Status::DeadlinePassed);
    }

    fn tokio_stream() -> impl futures_util::Stream<Item = Result<Bytes, std::io::Error>> + Send {
        futures_util::stream::pending()
    }
}
