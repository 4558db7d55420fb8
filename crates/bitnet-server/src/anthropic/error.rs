//! Errors as Anthropic's API writes them: `{"type": "error", "error": {"type", "message"}}`.

use axum::http::StatusCode;
use serde_json::{Value, json};

use crate::error::ApiError;

/// The type of an error.
fn kind(error: &ApiError) -> &'static str {
    match error.status {
        StatusCode::UNAUTHORIZED => "authentication_error",
        StatusCode::FORBIDDEN => "permission_error",
        StatusCode::NOT_FOUND => "not_found_error",
        StatusCode::PAYLOAD_TOO_LARGE => "request_too_large",
        StatusCode::TOO_MANY_REQUESTS => "rate_limit_error",
        StatusCode::SERVICE_UNAVAILABLE => "overloaded_error",
        StatusCode::REQUEST_TIMEOUT | StatusCode::GATEWAY_TIMEOUT => "timeout_error",
        StatusCode::NOT_IMPLEMENTED => "invalid_request_error",
        status if status.is_client_error() => "invalid_request_error",
        _ => "api_error",
    }
}

/// The body of an error.
pub(crate) fn error_body(error: &ApiError) -> Value {
    json!({"type": "error", "error": {"type": kind(error), "message": error.message}})
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_follow_the_status() {
        for (error, kind) in [
            (ApiError::bad_request("x"), "invalid_request_error"),
            (ApiError::unauthorized("x"), "authentication_error"),
            (ApiError::not_found("x"), "not_found_error"),
            (ApiError::too_large(5), "request_too_large"),
            (ApiError::too_many("x"), "rate_limit_error"),
            (ApiError::unavailable("x"), "overloaded_error"),
            (ApiError::internal("x"), "api_error"),
            (ApiError::not_supported("x"), "invalid_request_error"),
        ] {
            let body = error_body(&error);
            assert_eq!(body["type"], "error");
            assert_eq!(
                (&body["error"]["type"], &body["error"]["message"]),
                (&json!(kind), &json!(error.message))
            );
        }
    }
}
