//! Browsers: which pages may use the server.
//!
//! The page of this server may. Others must be allowed by `cors_origin`. Without a permission a browser keeps answers from a
//! page, but sends simple requests all the same; those that change or compute something are refused here, so that a page
//! on the web cannot make the server on a person's machine work.

use axum::extract::{Request, State};
use axum::http::header::{HeaderName, HeaderValue, ORIGIN};
use axum::http::{HeaderMap, Method};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use tower_http::cors::{AllowHeaders, AllowOrigin, CorsLayer};

use crate::config::{ConfigError, ServerConfig};
use crate::context::REQUEST_ID;
use crate::error::{ApiError, ServerError};
use crate::state::AppState;

/// The headers by which a browser is told what a page may do; none without `cors_origin`.
pub(super) fn layer(config: &ServerConfig) -> Result<Option<CorsLayer>, ServerError> {
    if config.cors_origin.is_empty() {
        return Ok(None);
    }
    let origins = if allows_all(config) {
        AllowOrigin::any()
    } else {
        let parse = |origin: &String| {
            let allowed = "`*` or an origin such as https://chat.example.org, without a path";
            let wrong = || ConfigError::Value { key: "cors_origin", value: origin.clone(), allowed };
            let rest = origin.split_once("://").map(|(_, rest)| rest).ok_or_else(wrong)?;
            let value = HeaderValue::from_str(origin).map_err(|_| wrong())?;
            if rest.is_empty() || rest.contains('/') { Err(wrong()) } else { Ok(value) }
        };
        AllowOrigin::list(config.cors_origin.iter().map(parse).collect::<Result<Vec<_>, ConfigError>>()?)
    };
    let layer = CorsLayer::new()
        .allow_origin(origins)
        .allow_methods([Method::GET, Method::POST, Method::DELETE])
        .allow_headers(AllowHeaders::mirror_request())
        .expose_headers([HeaderName::from_static(REQUEST_ID)])
        .max_age(std::time::Duration::from_secs(3600));
    Ok(Some(layer))
}

fn allows_all(config: &ServerConfig) -> bool {
    config.cors_origin.iter().any(|origin| origin == "*")
}

/// Refuses what a browser sends for a page of another site that is not allowed.
pub(super) async fn refuse_strangers(
    State(state): State<AppState>,
    request: Request,
    next: Next,
) -> Response {
    match check(state.config(), request.method(), request.headers()) {
        Ok(()) => next.run(request).await,
        Err(error) => error.into_response(),
    }
}

fn check(config: &ServerConfig, method: &Method, headers: &HeaderMap) -> Result<(), ApiError> {
    let header = |name: HeaderName| headers.get(name).and_then(|value| value.to_str().ok());
    let is_read = matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS);
    // Only browsers send this, no page can forge it, and it holds behind proxies that change the host.
    let site = header(HeaderName::from_static("sec-fetch-site"));
    if is_read || allows_all(config) || !matches!(site, Some("cross-site" | "same-site")) {
        return Ok(());
    }
    let origin = header(ORIGIN).unwrap_or("null");
    if config.cors_origin.iter().any(|allowed| allowed == origin) {
        return Ok(());
    }
    let origin: String = origin.chars().take(200).collect();
    let message = format!("pages of {origin} may not use this server; --cors-origin {origin} allows it");
    Err(ApiError::forbidden(message))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(config: &ServerConfig, method: &Method, site: Option<&str>, origin: &str) -> u16 {
        let mut headers = HeaderMap::new();
        headers.insert(ORIGIN, origin.parse().unwrap());
        if let Some(site) = site {
            headers.insert("sec-fetch-site", site.parse().unwrap());
        }
        check(config, method, &headers).map_or_else(|error| error.status.as_u16(), |()| 200)
    }

    #[test]
    fn pages_of_other_sites_cannot_make_the_server_work() {
        let closed = ServerConfig::default();
        let (get, post, evil) = (Method::GET, Method::POST, "https://evil.example");
        assert_eq!(status(&closed, &post, Some("cross-site"), evil), 403);
        assert_eq!(status(&closed, &post, Some("same-site"), evil), 403);
        assert_eq!(status(&closed, &get, Some("cross-site"), evil), 200);
        assert_eq!(status(&closed, &post, Some("same-origin"), "http://localhost:8080"), 200);
        assert_eq!(status(&closed, &post, None, evil), 200, "not a browser");
        let open = ServerConfig { cors_origin: vec![evil.to_owned()], ..ServerConfig::default() };
        assert_eq!(status(&open, &post, Some("cross-site"), evil), 200);
        assert_eq!(status(&open, &post, Some("cross-site"), "https://other.example"), 403);
        let all = ServerConfig { cors_origin: vec!["*".to_owned()], ..ServerConfig::default() };
        assert_eq!(status(&all, &post, Some("cross-site"), evil), 200);
    }

    #[test]
    fn origins_are_checked_at_the_start() {
        let config =
            |origin: &str| ServerConfig { cors_origin: vec![origin.to_owned()], ..ServerConfig::default() };
        for origin in ["https://a.example", "http://localhost:3000", "*"] {
            assert!(layer(&config(origin)).unwrap().is_some(), "{origin}");
        }
        for origin in ["a.example", "https://a.example/path", "https://", "http://\n"] {
            assert!(layer(&config(origin)).is_err(), "{origin}");
        }
        assert!(layer(&ServerConfig::default()).unwrap().is_none());
    }
}
