//! The API's description for programs.

use axum::Json;
use utoipa::OpenApi;
use utoipa::openapi;

#[derive(OpenApi)]
#[openapi(
    info(
        title = "Aethir Edge indexer",
        description = "One region of Aethir Edge: its boxes, their telemetry and what happened.",
        license(name = "Apache-2.0", identifier = "Apache-2.0")
    ),
    paths(
        super::boxes,
        super::one_box,
        super::history,
        super::region,
        super::events,
        super::stream::stream,
        super::healthz,
        super::prometheus::metrics,
        document
    )
)]
struct Document;

/// This document.
#[utoipa::path(get, path = "/api/v1/openapi.json", tag = "operation", responses(
    (status = 200, description = "OpenAPI 3.1", content_type = "application/json", body = Object),
))]
pub(super) async fn document() -> Json<openapi::OpenApi> {
    Json(Document::openapi())
}

/// Paths in the document, sorted.
#[cfg(test)]
pub(super) fn paths() -> Vec<String> {
    Document::openapi().paths.paths.into_keys().collect()
}
