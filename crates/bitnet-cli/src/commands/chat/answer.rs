//! One answer of the model: text and calls, as they are heard, and room for them in the context.

use std::ops::ControlFlow;
use std::sync::Arc;

use bitnet_inference::{
    FinishReason, GenerateRequest, Generation, InferenceEngine, Prompt, Session, ToolCall,
};
use bitnet_text::Tokenizer;
use bitnet_text::tools::{ToolEvent, ToolParser};
use serde_json::Value;

use super::screen::Screen;
use super::settings::Settings;
use super::transcript::Transcript;
use crate::args::values::Limit;
use crate::commands::generate::{Receiver, generate, max_tokens};
use crate::error::CliError;
use crate::output::Notes;

/// What the model said.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) text: String,
    pub(super) calls: Vec<ToolCall>,
    /// The last generation of it; one more for each time that the context was full within it.
    pub(super) last: Generation,
}

/// Hears an answer: writes its text, keeps its calls.
struct Heard {
    screen: Screen,
    parser: Option<ToolParser>,
    tokenizer: Option<Arc<Tokenizer>>,
    text: String,
    /// Names, and arguments as JSON text.
    calls: Vec<(String, String)>,
}

impl Heard {
    fn push(&mut self, text: &str) -> ControlFlow<()> {
        match &mut self.parser {
            Some(parser) => {
                let events = parser.push(text);
                self.hear(events)
            }
            None => self.say(text),
        }
    }

    fn hear(&mut self, events: Vec<ToolEvent>) -> ControlFlow<()> {
        for event in events {
            match event {
                ToolEvent::Text(text) => self.say(&text)?,
                ToolEvent::Call { name, .. } => self.calls.push((name, String::new())),
                ToolEvent::Arguments { json, .. } => {
                    if let Some((_, arguments)) = self.calls.last_mut() {
                        arguments.push_str(&json);
                    }
                }
            }
        }
        ControlFlow::Continue(())
    }

    fn say(&mut self, text: &str) -> ControlFlow<()> {
        self.text += text;
        self.screen.write(text)
    }

    /// Ends the answer; gives its text and its calls, each with an id that none before it had.
    fn finish(mut self, earlier: usize) -> Result<(String, Vec<ToolCall>), CliError> {
        let rest = self.parser.as_mut().map(ToolParser::finish).unwrap_or_default();
        // If nobody reads any more, the end tells.
        let _ = self.hear(rest);
        self.screen.finish(self.calls.is_empty())?;
        let call = |(i, (name, json)): (usize, (String, String))| ToolCall {
            id: Some(format!("call_{}", earlier + i + 1)),
            name,
            arguments: serde_json::from_str(&json).unwrap_or(Value::String(json)),
        };
        Ok((self.text.trim().to_owned(), self.calls.into_iter().enumerate().map(call).collect()))
    }
}

impl Receiver for Heard {
    fn take(&mut self, token: Option<u32>, text: &str) -> ControlFlow<()> {
        self.push(text)?;
        // Marks of calls may be special tokens, of which the text has nothing.
        if let (Some(parser), Some(tokenizer), Some(token)) = (&mut self.parser, &self.tokenizer, token)
            && tokenizer.is_special(token)
        {
            let events = parser.special(tokenizer.token_str(token).unwrap_or_default());
            return self.hear(events);
        }
        ControlFlow::Continue(())
    }

    fn failure(&mut self) -> Option<CliError> {
        self.screen.failure()
    }
}

/// Who asks for an answer, and of whom.
pub(super) struct Asking<'a> {
    pub(super) engine: &'a InferenceEngine,
    pub(super) session: &'a mut Session,
    pub(super) settings: &'a Settings,
    pub(super) tools: &'a [Value],
    /// Calls so far in the conversation.
    pub(super) calls: usize,
    /// Added to a fixed seed, so that another answer is another one.
    pub(super) again: u64,
    pub(super) notes: Notes,
}

impl Asking<'_> {
    /// Has the last message answered. Takes the oldest turns out of the model's sight where that is allowed and needed.
    pub(super) fn answer(
        &mut self,
        talk: &mut Transcript,
        parser: Option<ToolParser>,
    ) -> Result<Answer, CliError> {
        let settings = self.settings;
        let screen = Screen::new(settings.looks, settings.constraint.is_none());
        let tokenizer = self.engine.tokenizer().ok().cloned();
        let mut heard = Heard { screen, parser, tokenizer, text: String::new(), calls: Vec::new() };
        // A text that must fit a form is not begun twice, nor one with calls in it.
        let may_go_on = settings.context_shift && settings.constraint.is_none() && heard.parser.is_none();
        let mut partial = String::new();
        let last = loop {
            let prompt = self.fitting(talk, &partial)?;
            let request = self.request(prompt);
            let generation = generate(self.engine, self.session, &request, self.notes, &mut heard)?;
            partial += &generation.text;
            let is_full = generation.finish == FinishReason::ContextFull;
            if !(is_full && may_go_on && !partial.trim().is_empty() && talk.drop_oldest()) {
                break generation;
            }
        };
        let (text, calls) = heard.finish(self.calls)?;
        Ok(Answer { text, calls, last })
    }

    fn request(&self, prompt: Prompt) -> GenerateRequest {
        let settings = self.settings;
        let mut sampling = settings.sampling;
        sampling.seed = sampling.seed.map(|seed| seed.wrapping_add(self.again));
        let mut request = GenerateRequest {
            max_tokens: max_tokens(settings.predict, self.engine),
            sampling,
            stop: settings.stop.clone(),
            constraint: settings.constraint.clone(),
            ..GenerateRequest::new(prompt)
        };
        settings.flags.complete(&mut request);
        request
    }

    /// Room that is kept for an answer when turns go anyway.
    fn reserve(&self) -> usize {
        let quarter = self.engine.context() / 4;
        match self.settings.predict {
            Some(Limit::Tokens(n)) => n.min(quarter),
            Some(Limit::None) | None => quarter,
        }
    }

    /// The prompt, for which the context has room.
    fn fitting(&self, talk: &mut Transcript, partial: &str) -> Result<Prompt, CliError> {
        let (context, before) = (self.engine.context(), talk.dropped_turns());
        loop {
            let prompt = talk.prompt(self.tools, partial);
            let tokens = self.engine.encode(&prompt)?.len();
            let wanted = tokens + if self.settings.context_shift { self.reserve() } else { 1 };
            if wanted > context && self.settings.context_shift && talk.drop_oldest() {
                continue;
            }
            if tokens < context {
                self.tell_dropped(talk.dropped_turns() - before);
                return Ok(prompt);
            }
            return Err(self.full(talk, tokens));
        }
    }

    fn tell_dropped(&self, turns: usize) {
        let what = match turns {
            0 => return,
            1 => "the oldest turn was".to_owned(),
            n => format!("the oldest {n} turns were"),
        };
        self.notes.say(&format!("({what} left out to make room in the context; the system message stays)"));
    }

    /// The error for a conversation that does not fit.
    fn full(&self, talk: &Transcript, tokens: usize) -> CliError {
        let context = self.engine.context();
        let error = CliError::failed(format!(
            "the conversation has {tokens} tokens with this message, but the context holds {context} with the answer"
        ));
        let larger =
            if context < self.engine.spec().context_length { ", a larger --ctx-size holds more" } else { "" };
        if talk.turns() - talk.dropped_turns() > 1 {
            error.hint(format!(
                "/clear starts the conversation over, /set context-shift on lets its oldest turns go{larger}"
            ))
        } else {
            error.hint(format!("shorten the message or the system message{larger}"))
        }
    }
}
