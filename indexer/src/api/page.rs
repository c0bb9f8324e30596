//! The page at `/`, built into the program.

use axum::http::header;
use axum::routing::{MethodRouter, get};

use super::Api;

/// Path, content type and content of each file.
pub(super) const PATHS: [(&str, &str, &str); 4] = [
    (
        "/",
        "text/html; charset=utf-8",
        include_str!("../page/index.html"),
    ),
    (
        "/page.css",
        "text/css; charset=utf-8",
        include_str!("../page/page.css"),
    ),
    (
        "/page.js",
        "text/javascript; charset=utf-8",
        include_str!("../page/page.js"),
    ),
    (
        "/favicon.svg",
        "image/svg+xml",
        include_str!("../page/favicon.svg"),
    ),
];

pub(super) fn routes() -> impl Iterator<Item = (&'static str, MethodRouter<Api>)> {
    PATHS.into_iter().map(|(path, content_type, content)| {
        let answer = move || async move { ([(header::CONTENT_TYPE, content_type)], content) };
        (path, get(answer))
    })
}
