//! How large a request may be.

use axum::extract::{Request, State};
use axum::http::header::CONTENT_LENGTH;
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use crate::error::ApiError;
use crate::state::AppState;

pub(super) fn body(state: &AppState) -> usize {
    usize::try_from(state.config().body_limit.as_bytes()).unwrap_or(usize::MAX)
}

/// Refuses a body that is announced to be too large before any of it is read. One that is not announced is cut off by the
/// extractors.
pub(super) async fn limits(State(state): State<AppState>, request: Request, next: Next) -> Response {
    let limit = state.config().body_limit.as_bytes();
    let announced = request.headers().get(CONTENT_LENGTH).and_then(|value| value.to_str().ok());
    if announced.and_then(|length| length.parse::<u64>().ok()).is_some_and(|length| length > limit) {
        return ApiError::too_large(limit).into_response();
    }
    next.run(request).await
}
