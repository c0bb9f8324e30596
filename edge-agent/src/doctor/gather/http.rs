//! What the region's services answer over HTTP.

use std::{io::Read, path::Path, time::Duration};

use edge_identity::client::{self, Server};
use reqwest::{StatusCode, blocking::Client};
use serde::{Deserialize, de::DeserializeOwned};

use super::{
    super::verdict::{
        is_simulated,
        region::UpdateFacts,
        upstream::{Answer, BoxSeen, Local, RegionSeen},
    },
    Context, chain, machine,
};
use crate::{inference, service_url::ServiceUrl};

/// Most bytes of an answer that are read: a box's metrics are far fewer.
const ANSWER_MAX_BYTES: u64 = 1 << 20;

/// An answer that is no use.
enum Failure {
    Unreachable(String),
    Status(StatusCode),
    Content(String),
}

impl Failure {
    fn into_words(self) -> String {
        match self {
            Self::Unreachable(why) => why,
            Self::Status(status) => format!("it answers with status {}", status.as_u16()),
            Self::Content(why) => format!("it answers with something else: {why}"),
        }
    }
}

fn get<T: DeserializeOwned>(url: &str, limit: Duration) -> Result<T, Failure> {
    let unreachable = |error: reqwest::Error| Failure::Unreachable(chain(&error.without_url()));
    // A proxy for the outside world knows nothing of the region.
    let client = Client::builder()
        .no_proxy()
        .timeout(limit)
        .build()
        .map_err(unreachable)?;
    let answer = client.get(url).send().map_err(unreachable)?;
    if !answer.status().is_success() {
        return Err(Failure::Status(answer.status()));
    }
    let mut body = Vec::new();
    answer
        .take(ANSWER_MAX_BYTES)
        .read_to_end(&mut body)
        .map_err(|error| Failure::Unreachable(chain(&error)))?;
    serde_json::from_slice(&body).map_err(|error| Failure::Content(error.to_string()))
}

/// As [`get`], over TLS as this box.
fn get_secured<T: DeserializeOwned>(
    context: &Context,
    server: &Server,
    path: &str,
    limit: Duration,
) -> Result<T, Failure> {
    let unreachable = |error: &dyn std::error::Error| Failure::Unreachable(chain(error));
    let tls = crate::identity::shown(&context.options).map_err(Failure::Unreachable)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| unreachable(&error))?;
    let asked = async { tokio::time::timeout(limit, client::get(server, tls, path)).await };
    let (status, body) = runtime
        .block_on(asked)
        .map_err(|elapsed| unreachable(&elapsed))?
        .map_err(|error| unreachable(&error))?;
    match StatusCode::from_u16(status) {
        Ok(status) if status.is_success() => {
            serde_json::from_slice(&body).map_err(|error| Failure::Content(error.to_string()))
        }
        Ok(status) => Err(Failure::Status(status)),
        Err(error) => Err(Failure::Content(error.to_string())),
    }
}

/// What the indexer says of its region and of this box.
pub(in super::super) fn indexer(context: &Context) -> Answer {
    let Some(indexer) = &context.options.indexer else {
        return Answer::NotSet;
    };
    let (Some(_), Some(box_id)) = (&context.options.region, &context.options.box_id) else {
        return Answer::Nameless;
    };
    // Two questions share the time.
    let limit = context.limit / 2;
    let (region_path, box_path) = ("api/v1/region", format!("api/v1/boxes/{box_id}"));
    let (region, seen): (Result<RegionSeen, _>, Result<BoxSeen, _>) = match indexer.tls_server() {
        Some(server) => (
            get_secured(context, &server, region_path, limit),
            get_secured(context, &server, &box_path, limit),
        ),
        None => (
            get(&indexer.below(region_path), limit),
            get(&indexer.below(&box_path), limit),
        ),
    };
    let region = match region {
        Ok(region) => region,
        Err(failure) => return Answer::Unreachable(failure.into_words()),
    };
    match seen {
        Ok(seen) => Answer::Reached(region, Some(seen)),
        Err(Failure::Status(StatusCode::NOT_FOUND)) => Answer::Reached(region, None),
        Err(failure) => Answer::Unreachable(failure.into_words()),
    }
}

/// What the box knows of itself.
pub(in super::super) fn local(context: &Context) -> Local {
    let models = inference::scan(&context.models).unwrap_or_default();
    let board = context.board.as_ref().ok();
    Local {
        region: context.settings.region.clone(),
        box_id: context.settings.box_id.clone(),
        agent_runs: machine::agent(&context.data)
            .ok()
            .map(|process| process.is_some()),
        agent_version: env!("CARGO_PKG_VERSION").to_owned(),
        board: board.map(|board| board.name.clone()),
        is_simulated: board.is_some_and(is_simulated),
        models: models
            .into_iter()
            .filter_map(|(name, folder)| Some((name.to_string(), folder.ok()?.newest()?.version)))
            .collect(),
        temperatures: board.map_or_else(Vec::new, |board| temperatures(board, &context.data)),
    }
}

fn temperatures(board: &edge_hal::Board, data: &Path) -> Vec<(String, i32)> {
    let names = board.thermal_zones.iter().map(|zone| zone.name.clone());
    names
        .zip(machine::temperatures(board, data))
        .filter_map(|(name, reading)| Some((name, reading.ok()?)))
        .collect()
}

/// The part of TUF's `timestamp.json` that says whether it is one (TUF specification, sections 4.2 and 4.6).
#[derive(Deserialize)]
struct Timestamp {
    signed: Signed,
}

#[derive(Deserialize)]
struct Signed {
    #[serde(rename = "_type")]
    kind: String,
    version: u64,
    expires: String,
}

pub(in super::super) fn updates(server: Option<&ServiceUrl>, limit: Duration) -> UpdateFacts {
    let Some(server) = server else {
        return UpdateFacts::NotSet;
    };
    if server.tls_server().is_some() {
        // TUF needs no trusted server, and whose certificates a foreign one would show is not known here.
        return UpdateFacts::Unreachable("this version reads updates over http:// only".to_owned());
    }
    match get::<Timestamp>(&server.below("timestamp.json"), limit) {
        Ok(Timestamp { signed }) if signed.kind == "timestamp" => UpdateFacts::Timestamp {
            version: signed.version,
            expires: signed.expires,
        },
        Ok(other) => UpdateFacts::NoTimestamp(format!("it is a {:?}", other.signed.kind)),
        Err(Failure::Unreachable(why)) => UpdateFacts::Unreachable(why),
        Err(Failure::Status(status)) => UpdateFacts::Status(status.as_u16()),
        Err(Failure::Content(why)) => UpdateFacts::NoTimestamp(why),
    }
}
