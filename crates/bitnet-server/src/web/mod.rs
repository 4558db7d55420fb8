//! The chat page at `/`: its files as bytes in the program, and the routes that serve them.
//!
//! The page is plain HTML, CSS and ES modules (`assets/`), served as they were written: no build step, no framework,
//! nothing from elsewhere. A strict Content-Security-Policy holds the browser to that. The page uses the public API like
//! any other client; these routes need no state and no API key.
//!
//! What the page does is tested in a browser: `cargo xtask web`, `tests/web/`.

use std::sync::LazyLock;

use axum::Router;
use axum::extract::Path;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;

/// What the page may do: run and show its own files, and talk to this server.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; \
                      connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// One file of the page.
struct Asset {
    name: &'static str,
    content_type: &'static str,
    bytes: &'static [u8],
}

const HTML: &str = "text/html; charset=utf-8";
const CSS: &str = "text/css; charset=utf-8";
const SCRIPT: &str = "text/javascript; charset=utf-8";
const SVG: &str = "image/svg+xml";

macro_rules! asset {
    ($name:literal, $content_type:expr) => {
        Asset { name: $name, content_type: $content_type, bytes: include_bytes!(concat!("assets/", $name)) }
    };
}

const INDEX: Asset = asset!("index.html", HTML);
const ICON: Asset = asset!("icon.svg", SVG);

/// Everything but the page itself, under `/web/`.
const ASSETS: [Asset; 20] = [
    ICON,
    asset!("style.css", CSS),
    asset!("messages.css", CSS),
    asset!("theme.js", SCRIPT),
    asset!("app.js", SCRIPT),
    asset!("api.js", SCRIPT),
    asset!("composer.js", SCRIPT),
    asset!("conversation.js", SCRIPT),
    asset!("dom.js", SCRIPT),
    asset!("highlight.js", SCRIPT),
    asset!("inline.js", SCRIPT),
    asset!("log.js", SCRIPT),
    asset!("markdown.js", SCRIPT),
    asset!("render.js", SCRIPT),
    asset!("runs.js", SCRIPT),
    asset!("settings.js", SCRIPT),
    asset!("sidebar.js", SCRIPT),
    asset!("sse.js", SCRIPT),
    asset!("store.js", SCRIPT),
    INDEX,
];

/// Entity tags, in the order of [`ASSETS`]: the beginning of each file's SHA-256.
static TAGS: LazyLock<[String; ASSETS.len()]> = LazyLock::new(|| ASSETS.each_ref().map(tag));

fn tag(asset: &Asset) -> String {
    let digest = ring::digest::digest(&ring::digest::SHA256, asset.bytes);
    let hex: String = digest.as_ref().iter().take(12).map(|byte| format!("{byte:02x}")).collect();
    format!("\"{hex}\"")
}

/// `GET` and `HEAD` of `/`, `/web/{file}` and `/favicon.ico`, for a router with any state.
pub fn routes<S: Clone + Send + Sync + 'static>() -> Router<S> {
    Router::new()
        .route("/", get(|headers: HeaderMap| async move { serve(INDEX.name, &headers) }))
        .route("/favicon.ico", get(|headers: HeaderMap| async move { serve(ICON.name, &headers) }))
        .route(
            "/web/{file}",
            get(|Path(file): Path<String>, headers: HeaderMap| async move { serve(&file, &headers) }),
        )
}

/// A file with its headers, 304 where the browser has this very file, 404 where there is none.
fn serve(name: &str, request: &HeaderMap) -> Response {
    let Some(index) = ASSETS.iter().position(|asset| asset.name == name) else {
        return (StatusCode::NOT_FOUND, "there is no such file of the chat page\n").into_response();
    };
    let (asset, tag) = (&ASSETS[index], &TAGS[index]);
    let known = request.get(header::IF_NONE_MATCH).and_then(|value| value.to_str().ok());
    let mut response = if known.is_some_and(|known| is_among(tag, known)) {
        StatusCode::NOT_MODIFIED.into_response()
    } else {
        ([(header::CONTENT_TYPE, asset.content_type)], asset.bytes).into_response()
    };
    let headers = response.headers_mut();
    if let Ok(tag) = HeaderValue::from_str(tag) {
        headers.insert(header::ETAG, tag);
    }
    for (name, value) in fixed_headers() {
        headers.insert(name, HeaderValue::from_static(value));
    }
    response
}

/// What every answer carries. `no-cache` means: keep it, but ask whether it changed; a new program has new files.
fn fixed_headers() -> [(HeaderName, &'static str); 5] {
    [
        (header::CACHE_CONTROL, "no-cache"),
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "no-referrer"),
        (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
    ]
}

/// Whether an entity tag is among those of an `If-None-Match` header.
fn is_among(tag: &str, header: &str) -> bool {
    header.split(',').map(str::trim).any(|known| known == "*" || known.trim_start_matches("W/") == tag)
}

#[cfg(test)]
mod tests;
