//! The fields that completions and chat completions share: how to continue, how much to tell, in which form.

use bitnet_inference::{GenerateRequest, Prompt};
use serde_json::{Map, Value};

use crate::common::constraint::constraint;
use crate::common::fields::{self, FieldError, Found, find};
use crate::common::sampling::SamplingFields;
use crate::error::ApiError;

/// A body.
pub(super) type Body = Map<String, Value>;

/// Most stop strings of a request: each is looked for at every character.
const MOST_STOPS: usize = 64;

/// Longest stop string, in bytes.
const LONGEST_STOP: usize = 1024;

/// How an answer is given.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Delivery {
    /// As a stream of events.
    pub(super) stream: bool,
    /// The stream ends with the usage.
    pub(super) include_usage: bool,
    /// Every chunk tells the times so far.
    pub(super) timings_per_token: bool,
    /// The stream tells how much of the prompt is computed.
    pub(super) progress: bool,
}

/// Reads a field that may be absent or null.
pub(super) fn read<'a, T>(
    body: &'a Body,
    name: &'a str,
    with: impl FnOnce(Found<'a>) -> Result<T, FieldError>,
) -> Result<Option<T>, ApiError> {
    Ok(find(body, &[name]).map(with).transpose()?)
}

/// The model that a body names.
pub(super) fn model(body: &Body) -> Result<Option<&str>, ApiError> {
    read(body, "model", fields::text)
}

/// An object.
pub(super) fn object<'a>((field, value): Found<'a>) -> Result<&'a Body, FieldError> {
    value.as_object().ok_or_else(|| FieldError::new(field, value, "an object"))
}

/// A list.
pub(super) fn list<'a>((field, value): Found<'a>) -> Result<&'a [Value], FieldError> {
    value.as_array().map(Vec::as_slice).ok_or_else(|| FieldError::new(field, value, "a list"))
}

/// A number as a person would write it: 0.8, not 0.800000011920929.
pub(super) fn written(number: f32) -> Value {
    number.to_string().parse::<f64>().map_or(Value::Null, Value::from)
}

impl Delivery {
    /// Reads the fields of a body.
    pub(super) fn read(body: &Body) -> Result<Self, ApiError> {
        let truth = |name| read(body, name, fields::truth).map(Option::unwrap_or_default);
        let stream = truth("stream")?;
        let mut include_usage = false;
        if let Some(options) = read(body, "stream_options", object)? {
            if !stream {
                let message = "stream_options is only possible with \"stream\": true";
                return Err(ApiError::bad_param("stream_options", message));
            }
            if let Some((_, value)) = find(options, &["include_usage"]) {
                include_usage = fields::truth(("stream_options.include_usage", value))?;
            }
        }
        Ok(Self {
            stream,
            include_usage,
            timings_per_token: truth("timings_per_token")?,
            progress: truth("return_progress")?,
        })
    }
}

/// A request with the sampling parameters, limits and constraints of a body, for this prompt.
pub(super) fn generate(body: &Body, prompt: Prompt) -> Result<GenerateRequest, ApiError> {
    let mut request = GenerateRequest::new(prompt);
    SamplingFields::from_map(body)?.apply(&mut request);
    if request.stop.len() > MOST_STOPS {
        let message =
            format!("{} stop strings are too many: at most {MOST_STOPS} are possible", request.stop.len());
        return Err(ApiError::bad_param("stop", message));
    }
    if let Some(long) = request.stop.iter().find(|stop| stop.len() > LONGEST_STOP) {
        let message =
            format!("a stop string of {} bytes is too long: at most {LONGEST_STOP} are possible", long.len());
        return Err(ApiError::bad_param("stop", message));
    }
    if let Some(n) = read(body, "n", fields::count)? {
        request.n = n;
    }
    request.constraint = constraint(body)?;
    Ok(request)
}
