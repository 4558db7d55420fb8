//! Traces for OpenTelemetry: one span a request, sent by OTLP over gRPC. Behind the feature `otel`.

use opentelemetry::trace::TracerProvider as _;
use opentelemetry_otlp::{SpanExporter, WithExportConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::{SdkTracer, SdkTracerProvider};
use tracing::Subscriber;
use tracing_opentelemetry::OpenTelemetryLayer;
use tracing_subscriber::registry::LookupSpan;

use crate::config::ConfigError;

/// Sends traces as long as it lives; what is left is sent when it goes.
#[derive(Debug)]
pub(crate) struct Traces(SdkTracerProvider);

impl Traces {
    /// Begins to send to this endpoint. Needs a runtime.
    ///
    /// # Errors
    /// [`ConfigError::Value`] if the endpoint is no URL.
    pub(crate) fn new(endpoint: &str) -> Result<Self, ConfigError> {
        let exporter = SpanExporter::builder().with_tonic().with_endpoint(endpoint).build();
        let exporter = exporter.map_err(|_| ConfigError::Value {
            key: "otel_endpoint",
            value: endpoint.to_owned(),
            allowed: "a URL such as http://localhost:4317",
        })?;
        let resource = Resource::builder().with_service_name("bitnet").build();
        let provider =
            SdkTracerProvider::builder().with_batch_exporter(exporter).with_resource(resource).build();
        Ok(Self(provider))
    }

    /// What makes traces of spans.
    pub(crate) fn layer<S: Subscriber + for<'a> LookupSpan<'a>>(&self) -> OpenTelemetryLayer<S, SdkTracer> {
        tracing_opentelemetry::layer().with_tracer(self.0.tracer("bitnet-server"))
    }
}

impl Drop for Traces {
    fn drop(&mut self) {
        // Nobody is left to be told.
        let _ = self.0.shutdown();
    }
}
