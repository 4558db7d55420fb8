//! Errors in the shape of the API that a path belongs to.

use axum::extract::Request;
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use crate::error::ApiError;
use crate::{anthropic, ollama};

/// Puts errors, whoever found them, into the shape that the clients of this path read.
pub(crate) async fn in_shape(request: Request, next: Next) -> Response {
    let path = request.uri().path().to_owned();
    let mut response = next.run(request).await;
    match response.extensions_mut().remove::<ApiError>() {
        Some(error) => shaped(&path, error),
        None => response,
    }
}

/// The response for an error at `path`.
fn shaped(path: &str, error: ApiError) -> Response {
    let body = if path.starts_with("/v1/messages") {
        anthropic::error_body(&error)
    } else if path.starts_with("/api/") {
        ollama::error_body(&error)
    } else {
        return error.into_response();
    };
    let mut response = error.response_with(&body);
    // For the log.
    response.extensions_mut().insert(error);
    response
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[tokio::test]
    async fn each_api_has_its_shape() {
        for (path, body) in [
            (
                "/v1/messages/count_tokens",
                json!({"type": "error", "error": {"type": "api_error", "message": "x"}}),
            ),
            ("/api/chat", json!({"error": "x"})),
            ("/completion", ApiError::internal("x").openai_body()),
        ] {
            let response = shaped(path, ApiError::internal("x"));
            assert_eq!(response.status().as_u16(), 500);
            assert!(response.extensions().get::<ApiError>().is_some());
            let bytes = axum::body::to_bytes(response.into_body(), 1000).await.unwrap();
            assert_eq!(serde_json::from_slice::<Value>(&bytes).unwrap(), body);
        }
    }
}
