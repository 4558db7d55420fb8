//! [`Reply`]: a running request as the parts of an answer: text, calls of functions, and the end.
//!
//! Whether an answer is streamed or collected, it consists of the same parts in the same order, so both tell the same.

use std::collections::VecDeque;
use std::sync::Arc;

use bitnet_inference::scheduler::{OwnedLogprobs, StreamEvent};
use bitnet_inference::{FinishReason, GenerateRequest, Generation};
use bitnet_text::Tokenizer;
use bitnet_text::tools::{ToolEvent, ToolParser};

use super::ids::new_id;
use crate::context::RequestContext;
use crate::error::ApiError;
use crate::models::{ModelHandle, TrackedStream};

/// A part of an answer.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Part {
    /// Text, and what the request asks to know of the tokens since the last part.
    Text {
        /// Never empty, unless there are log probabilities.
        text: String,
        /// One entry a token, if the request asks for them.
        logprobs: Vec<OwnedLogprobs>,
    },
    /// A call of a function begins.
    Call {
        /// Its number, from 0.
        index: usize,
        /// The function.
        name: String,
    },
    /// A part of the arguments of a call, as JSON text; never empty.
    Arguments {
        /// The number of the call.
        index: usize,
        /// The part.
        json: String,
    },
    /// The end, which comes last.
    End(Box<Generation>),
}

/// Makes parts of the events of one completion.
#[derive(Debug, Default)]
pub(crate) struct Parts {
    parser: Option<ToolParser>,
    tokenizer: Option<Arc<Tokenizer>>,
    logprobs: Vec<OwnedLogprobs>,
    ready: VecDeque<Part>,
}

impl Parts {
    /// Looks for calls with `parser`; the tokenizer tells it which tokens are marks.
    pub(crate) fn new(parser: Option<ToolParser>, tokenizer: Option<Arc<Tokenizer>>) -> Self {
        Self { parser, tokenizer, ..Self::default() }
    }

    /// Takes the next event.
    pub(crate) fn push(&mut self, event: StreamEvent) {
        match event {
            StreamEvent::Token { id, text, logprobs, .. } => {
                self.logprobs.extend(logprobs);
                self.text(&text);
                self.special(id);
            }
            StreamEvent::Tail { text, .. } => self.text(&text),
            StreamEvent::Finished { generation, .. } => {
                let rest = self.parser.as_mut().map(ToolParser::finish).unwrap_or_default();
                self.take(rest);
                self.flush_logprobs();
                self.ready.push_back(Part::End(Box::new(generation)));
            }
            _ => {}
        }
    }

    /// The next part that is ready.
    pub(crate) fn pop(&mut self) -> Option<Part> {
        self.ready.pop_front()
    }

    fn text(&mut self, text: &str) {
        let events = match &mut self.parser {
            Some(parser) => parser.push(text),
            None if text.is_empty() => Vec::new(),
            None => vec![ToolEvent::Text(text.to_owned())],
        };
        self.take(events);
    }

    /// Marks of calls may be special tokens, of which the text has nothing.
    fn special(&mut self, id: u32) {
        let (Some(parser), Some(tokenizer)) = (&mut self.parser, &self.tokenizer) else { return };
        if tokenizer.is_special(id) {
            let events = parser.special(tokenizer.token_str(id).unwrap_or_default());
            self.take(events);
        }
    }

    fn take(&mut self, events: Vec<ToolEvent>) {
        for event in events {
            let part = match event {
                ToolEvent::Text(text) => Part::Text { text, logprobs: std::mem::take(&mut self.logprobs) },
                ToolEvent::Call { index, name } => Part::Call { index, name },
                ToolEvent::Arguments { index, json } => Part::Arguments { index, json },
            };
            self.ready.push_back(part);
        }
    }

    /// Tokens without text at the end are told of as well.
    fn flush_logprobs(&mut self) {
        if !self.logprobs.is_empty() {
            let logprobs = std::mem::take(&mut self.logprobs);
            self.ready.push_back(Part::Text { text: String::new(), logprobs });
        }
    }
}

/// A request that runs. Dropping it cancels the request.
#[derive(Debug)]
pub(crate) struct Reply {
    stream: TrackedStream,
    parts: Parts,
    /// Tokens of the prompt.
    pub(crate) prompt_tokens: usize,
    /// Those of them that were computed before.
    pub(crate) cached_tokens: usize,
}

impl Reply {
    /// Submits a request and waits until it leaves the queue, so that whatever is wrong until then is told with a status.
    ///
    /// # Errors
    /// [`ApiError`]: the request is impossible, the queue is full, time is up.
    pub(crate) async fn start(
        model: &ModelHandle,
        request: GenerateRequest,
        context: &RequestContext,
        parser: Option<ToolParser>,
    ) -> Result<Self, ApiError> {
        let mut stream = model.start(request, context).await?;
        let (prompt_tokens, cached_tokens) = stream.started().await?;
        let parts = Parts::new(parser, model.engine().tokenizer().ok().cloned());
        Ok(Self { stream, parts, prompt_tokens, cached_tokens })
    }

    /// The next part; `None` after the end.
    ///
    /// # Errors
    /// What went wrong on the way; nothing follows.
    pub(crate) async fn next(&mut self) -> Result<Option<Part>, ApiError> {
        loop {
            if let Some(part) = self.parts.pop() {
                return match part {
                    Part::End(generation) if generation.finish == FinishReason::Cancelled => Err(cancelled()),
                    part => Ok(Some(part)),
                };
            }
            match self.stream.next().await.transpose()? {
                Some(event) => self.parts.push(event),
                None => return Ok(None),
            }
        }
    }
}

/// What a client is told whose request the server ended.
pub(crate) fn cancelled() -> ApiError {
    ApiError::unavailable("the server is shutting down and has ended this request; send it again later")
}

/// A call that is complete.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct WholeCall {
    /// What its result will refer to.
    pub(crate) id: String,
    /// The function.
    pub(crate) name: String,
    /// Its arguments as JSON text; incomplete if the text was cut off.
    pub(crate) arguments: String,
}

/// A whole answer.
#[derive(Debug, Default)]
pub(crate) struct Collected {
    /// Text and calls in the order in which they came.
    pub(crate) pieces: Vec<Piece>,
    /// One entry a token, if the request asks for them.
    pub(crate) logprobs: Vec<OwnedLogprobs>,
}

/// A run of text, or a call.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Piece {
    /// Text.
    Text(String),
    /// A call.
    Call(WholeCall),
}

impl Collected {
    /// Adds a part. `prefix` begins the ids of calls.
    pub(crate) fn push(&mut self, part: Part, prefix: &str) {
        match part {
            Part::Text { text, logprobs } => {
                self.logprobs.extend(logprobs);
                match self.pieces.last_mut() {
                    _ if text.is_empty() => {}
                    Some(Piece::Text(last)) => last.push_str(&text),
                    _ => self.pieces.push(Piece::Text(text)),
                }
            }
            Part::Call { name, .. } => {
                let call = WholeCall { id: new_id(prefix), name, arguments: String::new() };
                self.pieces.push(Piece::Call(call));
            }
            Part::Arguments { json, .. } => {
                if let Some(Piece::Call(call)) = self.pieces.last_mut() {
                    call.arguments.push_str(&json);
                }
            }
            Part::End(_) => {}
        }
    }

    /// All text.
    pub(crate) fn text(&self) -> String {
        self.pieces
            .iter()
            .filter_map(|piece| if let Piece::Text(text) = piece { Some(text.as_str()) } else { None })
            .collect()
    }

    /// All calls.
    pub(crate) fn calls(&self) -> impl Iterator<Item = &WholeCall> {
        self.pieces.iter().filter_map(|piece| if let Piece::Call(call) = piece { Some(call) } else { None })
    }
}
