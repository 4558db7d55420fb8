//! What the server says of itself, on stderr.

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

pub use crate::common::clock::rfc3339;
use crate::config::{ConfigError, LogFormat, ServerConfig};
use crate::error::ServerError;

/// Keeps what needs an orderly end: traces that are still to be sent.
#[derive(Debug)]
#[must_use = "dropping it ends the sending of traces"]
pub struct Logging {
    #[cfg(feature = "otel")]
    _traces: Option<crate::otel::Traces>,
}

/// Begins to log to stderr as the configuration says, for the whole process. With the feature `otel` and an endpoint, traces
/// are sent there.
///
/// # Errors
/// [`ServerError::Config`] if `log_level` cannot be understood, or an endpoint is set that this build cannot send to.
pub fn init(config: &ServerConfig) -> Result<Logging, ServerError> {
    let wrong = |key, value: &str, allowed| ConfigError::Value { key, value: value.to_owned(), allowed };
    let filter = EnvFilter::try_new(&config.log_level).map_err(|_| {
        let allowed = "error, warn, info, debug, trace, off, or filters such as bitnet_server=debug";
        wrong("log_level", &config.log_level, allowed)
    })?;
    #[cfg(not(feature = "otel"))]
    if let Some(endpoint) = &config.otel_endpoint {
        let allowed = "left out: this program was built without the feature otel";
        return Err(wrong("otel_endpoint", endpoint, allowed).into());
    }
    let registry = tracing_subscriber::registry().with(filter);
    #[cfg(feature = "otel")]
    let (registry, traces) = {
        let traces = config.otel_endpoint.as_deref().map(crate::otel::Traces::new).transpose()?;
        (registry.with(traces.as_ref().map(crate::otel::Traces::layer)), traces)
    };
    let colors = std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
    let text = tracing_subscriber::fmt::layer().with_writer(std::io::stderr);
    let done = match config.log_format {
        LogFormat::Text => registry.with(text.with_ansi(colors).with_target(false)).try_init(),
        LogFormat::Json => registry.with(text.json().flatten_event(true).with_current_span(false)).try_init(),
    };
    if done.is_err() {
        // The program that embeds the server logs in its own way.
        tracing::debug!("logging was set up before");
    }
    Ok(Logging {
        #[cfg(feature = "otel")]
        _traces: traces,
    })
}
