//! [`ApiError`]: what a client is told when something cannot be, and [`ServerError`]: why a server does not run.

use std::borrow::Cow;

use axum::http::header::{HeaderValue, RETRY_AFTER};
use axum::http::{StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use bitnet_inference::model_cache::CacheError;
use bitnet_inference::{EngineError, GrammarError};
use bitnet_text::TextError;
use serde_json::{Map, Value, json};

use crate::common::fields::FieldError;

/// Why a server could not be started, or ended.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ServerError {
    /// The configuration cannot be.
    #[error(transparent)]
    Config(#[from] crate::config::ConfigError),
    /// The address cannot be listened on.
    #[error("cannot listen on {address}: {source}; choose another with --host and --port")]
    Listen {
        /// Address or path of the socket.
        address: String,
        /// What the system says.
        source: std::io::Error,
    },
    /// Certificate or key cannot be used.
    #[error("{file}: {problem}")]
    Tls {
        /// The file.
        file: String,
        /// What is wrong with it.
        problem: String,
    },
    /// A model that is served from the start cannot be loaded.
    #[error("the model {name} cannot be served: {message}")]
    Model {
        /// Its name.
        name: String,
        /// Why.
        message: String,
    },
    /// The metrics cannot be recorded.
    #[error("metrics cannot be recorded: {0}")]
    Metrics(String),
}

/// An error as HTTP knows it. As a response it has the shape of OpenAI's API; other APIs make their own of its fields.
#[derive(Debug, Clone, PartialEq)]
pub struct ApiError {
    /// The status.
    pub status: StatusCode,
    /// The kind, for programs: `invalid_request_error`, `not_found_error`, ...
    pub kind: &'static str,
    /// A finer kind, such as `model_not_found`. Without one the body tells the status as its code.
    pub code: Option<Cow<'static, str>>,
    /// What is wrong, and what to do.
    pub message: String,
    /// The field of the request that is wrong.
    pub param: Option<String>,
    /// Further members of the error object.
    pub extra: Option<Box<Map<String, Value>>>,
    /// In how many seconds it is worth trying again.
    pub retry_after: Option<u32>,
}

impl ApiError {
    /// An error of this status and kind.
    pub fn new(status: StatusCode, kind: &'static str, message: impl Into<String>) -> Self {
        Self {
            status,
            kind,
            code: None,
            message: message.into(),
            param: None,
            extra: None,
            retry_after: None,
        }
    }

    /// 400: the request cannot be understood, or asks for what cannot be.
    pub fn bad_request(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "invalid_request_error", message)
    }

    /// 400 about a field.
    pub fn bad_param(param: impl Into<String>, message: impl Into<String>) -> Self {
        Self::bad_request(message).param(param)
    }

    /// 401: no key, or a wrong one.
    pub fn unauthorized(message: impl Into<String>) -> Self {
        Self::new(StatusCode::UNAUTHORIZED, "authentication_error", message).code("invalid_api_key")
    }

    /// 403: not from there.
    pub fn forbidden(message: impl Into<String>) -> Self {
        Self::new(StatusCode::FORBIDDEN, "permission_error", message)
    }

    /// 404.
    pub fn not_found(message: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, "not_found_error", message)
    }

    /// 404 for a model; `there` are the models that are.
    pub fn model_not_found(name: &str, there: &[String]) -> Self {
        let name: String = name.chars().take(200).collect();
        let message = format!("there is no model {name:?}; the models are: {}", there.join(", "));
        Self::not_found(message).code("model_not_found").param("model")
    }

    /// 404 for a path that leads nowhere.
    pub fn no_route(uri: &Uri) -> Self {
        let path: String = uri.path().chars().take(200).collect();
        Self::not_found(format!("there is nothing at {path}"))
    }

    /// 408: the request did not come in time.
    pub fn request_timeout(message: impl Into<String>) -> Self {
        Self::new(StatusCode::REQUEST_TIMEOUT, "timeout_error", message)
    }

    /// 409: not now, for what is going on.
    pub fn conflict(message: impl Into<String>) -> Self {
        Self::new(StatusCode::CONFLICT, "invalid_request_error", message)
    }

    /// 413: the body is too large.
    pub fn too_large(limit: u64) -> Self {
        let message = format!(
            "the body of the request is larger than {limit} bytes, which is this server's body_limit"
        );
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, "invalid_request_error", message).code("request_too_large")
    }

    /// 429: too much at a time.
    pub fn too_many(message: impl Into<String>) -> Self {
        Self::new(StatusCode::TOO_MANY_REQUESTS, "rate_limit_error", message).retry_after(1)
    }

    /// 500: our fault.
    pub fn internal(message: impl Into<String>) -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "server_error", message)
    }

    /// 501: known, but not done here.
    pub fn not_supported(message: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_IMPLEMENTED, "not_supported_error", message)
    }

    /// 503: not now, perhaps soon.
    pub fn unavailable(message: impl Into<String>) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "unavailable_error", message).retry_after(1)
    }

    /// 504: the time was up before the answer was complete.
    pub fn deadline(message: impl Into<String>) -> Self {
        Self::new(StatusCode::GATEWAY_TIMEOUT, "timeout_error", message).code("deadline_exceeded")
    }

    /// Names the field of the request that is wrong.
    #[must_use]
    pub fn param(mut self, name: impl Into<String>) -> Self {
        self.param = Some(name.into());
        self
    }

    /// Sets the finer kind.
    #[must_use]
    pub fn code(mut self, code: impl Into<Cow<'static, str>>) -> Self {
        self.code = Some(code.into());
        self
    }

    /// Adds a member to the error object.
    #[must_use]
    pub fn with(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.extra.get_or_insert_default().insert(name.to_owned(), value.into());
        self
    }

    /// Says when it is worth trying again, in seconds.
    #[must_use]
    pub fn retry_after(mut self, seconds: u32) -> Self {
        self.retry_after = Some(seconds);
        self
    }

    /// The body in OpenAI's shape: `{"error":{"code","message","type","param", ..}}`.
    pub fn openai_body(&self) -> Value {
        let code = match &self.code {
            Some(code) => json!(code),
            None => json!(self.status.as_u16()),
        };
        let mut error = Map::new();
        error.insert("code".to_owned(), code);
        error.insert("message".to_owned(), json!(self.message));
        error.insert("type".to_owned(), json!(self.kind));
        error.insert("param".to_owned(), json!(self.param));
        for (name, value) in self.extra.iter().flat_map(|extra| extra.iter()) {
            error.insert(name.clone(), value.clone());
        }
        json!({ "error": error })
    }

    /// A response with this status and body, and the headers that belong to it.
    pub fn response_with(&self, body: &Value) -> Response {
        let mut response = (self.status, axum::Json(body)).into_response();
        if let Some(seconds) = self.retry_after {
            response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(seconds));
        }
        if self.status == StatusCode::UNAUTHORIZED {
            let challenge = HeaderValue::from_static("Bearer");
            response.headers_mut().insert(axum::http::header::WWW_AUTHENTICATE, challenge);
        }
        response
    }
}

impl std::fmt::Display for ApiError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}: {}", self.status.as_u16(), self.kind, self.message)
    }
}

impl std::error::Error for ApiError {}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let body = self.openai_body();
        let mut response = self.response_with(&body);
        // For the log; middleware takes it out again.
        response.extensions_mut().insert(self);
        response
    }
}

impl From<EngineError> for ApiError {
    fn from(error: EngineError) -> Self {
        let message = error.to_string();
        match error {
            EngineError::Parameter(parameter) => Self::bad_param(parameter.name, message),
            EngineError::PromptTooLong { tokens, context, .. }
            | EngineError::TextTooLong { tokens, context, .. } => context_exceeded(tokens, context),
            EngineError::EmptyPrompt
            | EngineError::BadToken { .. }
            | EngineError::EmptyText { .. }
            | EngineError::TextTooShort { .. }
            | EngineError::ContextTooLong { .. } => Self::bad_request(message),
            EngineError::NoChatTemplate { .. } => Self::bad_request(message).code("no_chat_template"),
            EngineError::Grammar(GrammarError::Vocabulary { .. }) => Self::not_supported(message),
            EngineError::Grammar(
                GrammarError::DeadEnd | GrammarError::Refused { .. } | GrammarError::Failed { .. },
            ) => Self::internal(message),
            EngineError::Grammar(_) => Self::bad_request(message).code("invalid_constraint"),
            EngineError::Text(TextError::Unsupported { .. }) => Self::not_supported(message),
            EngineError::Text(_) => Self::bad_request(message),
            EngineError::Sessions(_) | EngineError::QueueFull { .. } | EngineError::ShuttingDown => {
                Self::unavailable(message)
            }
            EngineError::DeadlineExceeded => Self::deadline(message),
            EngineError::RequestPanicked { .. } => {
                // What the code said is for the log, not for strangers.
                tracing::error!("{message}");
                Self::internal("the request failed inside the engine; the server's log says more")
            }
            _ => Self::internal(message),
        }
    }
}

impl From<FieldError> for ApiError {
    fn from(error: FieldError) -> Self {
        Self::bad_param(&error.field, error.to_string())
    }
}

/// A prompt that does not fit. Clients of llama-server look for these words and members.
fn context_exceeded(tokens: usize, context: usize) -> ApiError {
    let message = format!(
        "the request ({tokens} tokens) exceeds the available context size ({context} tokens with the answer); \
         shorten it, or start the server with a larger --ctx-size"
    );
    ApiError::new(StatusCode::BAD_REQUEST, "exceed_context_size_error", message)
        .code("context_length_exceeded")
        .with("n_prompt_tokens", tokens)
        .with("n_ctx", context)
}

impl From<CacheError> for ApiError {
    fn from(error: CacheError) -> Self {
        match &error {
            CacheError::OverBudget { .. } => Self::unavailable(error.to_string()).code("over_memory_budget"),
            _ => Self::internal(error.to_string()).code("model_load_failed"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bodies_have_the_shape_that_clients_read() {
        let body = ApiError::bad_param("top_p", "top_p must be a number").openai_body();
        let expected = json!({"error": {
            "code": 400, "message": "top_p must be a number", "type": "invalid_request_error", "param": "top_p",
        }});
        assert_eq!(body, expected);
        let body = ApiError::not_found("no").openai_body();
        assert_eq!(body["error"]["param"], Value::Null);
        let long = EngineError::PromptTooLong { tokens: 9000, context: 4096, limit: 4096 };
        let body = ApiError::from(long).openai_body();
        assert_eq!(body["error"]["type"], "exceed_context_size_error");
        assert_eq!(
            (&body["error"]["n_prompt_tokens"], &body["error"]["n_ctx"]),
            (&json!(9000), &json!(4096))
        );
        assert!(body["error"]["message"].as_str().unwrap().contains("exceeds the available context size"));
    }

    #[test]
    fn names_of_strangers_are_told_shortened() {
        let error = ApiError::model_not_found(&"x".repeat(1_000_000), &["a".to_owned()]);
        assert!(error.message.len() < 300, "{}", error.message.len());
    }
}
