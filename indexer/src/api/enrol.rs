//! `POST /api/v1/enrol`: a key asks for its certificate. Served over TLS only.

use axum::Json;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use edge_identity::decision::Refusal;
use edge_identity::enrolment::{Ask, Granted, Refused, Waiting};
use edge_identity::registry::{Outcome, RegistryError};
use edge_identity::request::Request;

use crate::identity::{AskError, Identity};

pub(super) async fn enrol(State(identity): State<Identity>, body: Bytes) -> Response {
    let asked = serde_json::from_slice::<Ask>(&body)
        .map_err(|error| format!("the body is not what an enrolment asks: {error}"))
        .and_then(|ask| {
            let request = Request::read(&ask.request).map_err(|error| error.to_string())?;
            Ok((request, ask.token))
        });
    let (request, token) = match asked {
        Ok(asked) => asked,
        Err(error) => return refuse(StatusCode::BAD_REQUEST, error),
    };
    let fingerprint = request.key.to_hex();
    match identity.enrol(request, token).await {
        Ok(Outcome::Granted(certificate)) => {
            let (certificate, region_ca) = identity.texts(&certificate);
            Json(Granted {
                certificate,
                region_ca,
            })
            .into_response()
        }
        Ok(Outcome::Waits) => (StatusCode::ACCEPTED, Json(Waiting { fingerprint })).into_response(),
        Ok(Outcome::Refused(why)) => refuse(status(why), why.to_string()),
        Err(error @ (AskError::Busy | AskError::Registry(RegistryError::TooManyWaiting))) => {
            refuse(StatusCode::SERVICE_UNAVAILABLE, error.to_string())
        }
        // What is wrong with the disk is for the log, not for strangers.
        Err(AskError::Registry(_)) => refuse(
            StatusCode::INTERNAL_SERVER_ERROR,
            "the region cannot enrol anybody now; its log says why".to_owned(),
        ),
    }
}

fn status(why: Refusal) -> StatusCode {
    match why {
        Refusal::KeyTaken | Refusal::NameTaken => StatusCode::CONFLICT,
        Refusal::Region
        | Refusal::Role
        | Refusal::Revoked
        | Refusal::UnknownToken
        | Refusal::UsedToken
        | Refusal::ExpiredToken
        | Refusal::OtherToken => StatusCode::FORBIDDEN,
    }
}

fn refuse(status: StatusCode, error: String) -> Response {
    (status, Json(Refused { error })).into_response()
}
