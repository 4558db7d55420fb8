//! [`Conversation`]: what was said, and how to go on.

use bitnet_inference::{
    ChatMessage, Constraint, EngineError, FinishReason, GenerateRequest, Generation, InferenceEngine, Prompt,
    SamplingOverrides, SamplingParams, Session,
};

use super::command::nearest;
use super::settings;
use crate::args::values::{self, Limit};
use crate::args::{ChatArgs, SamplingArgs};
use crate::commands::constraint::constraint;
use crate::commands::generate::{Sink, generate, max_tokens};
use crate::error::CliError;
use crate::output::{self, EngineFacts, Notes};

/// A chat with a model.
pub(super) struct Conversation<'a> {
    engine: &'a InferenceEngine,
    notes: Notes,
    session: Session,
    system: Option<String>,
    /// User and assistant in turns.
    messages: Vec<ChatMessage>,
    sampling: SamplingOverrides,
    /// The flags, for what `/set` does not change.
    flags: SamplingArgs,
    constraint: Option<Constraint>,
    predict: Option<Limit>,
    stop: Vec<String>,
    always_stats: bool,
    /// How often the last message was answered anew: each time with another seed.
    again: u64,
    last: Option<Generation>,
}

impl<'a> Conversation<'a> {
    /// An empty conversation.
    pub(super) fn new(engine: &'a InferenceEngine, args: &ChatArgs, notes: Notes) -> Result<Self, CliError> {
        if engine.model().chat_template.is_none() {
            let error = EngineError::NoChatTemplate { model: engine.model().name.clone() };
            return Err(CliError::failed(error)
                .hint("name a template with --chat-template FILE, or use `bitnet generate`"));
        }
        engine.tokenizer()?;
        let constraint = constraint(&args.constraint)?;
        if let Some(constraint) = &constraint {
            engine.check_constraint(constraint)?;
        }
        Ok(Self {
            engine,
            notes,
            session: engine.session(),
            system: args.system.clone(),
            messages: Vec::new(),
            sampling: args.sampling.overrides(),
            constraint,
            flags: args.sampling.clone(),
            predict: args.predict,
            stop: args.stop.clone(),
            always_stats: args.stats,
            again: 0,
            last: None,
        })
    }

    /// Says something and writes the answer to stdout. What fails is forgotten.
    pub(super) fn say(&mut self, text: &str) -> Result<(), CliError> {
        self.messages.push(ChatMessage::user(text));
        self.again = 0;
        let answered = self.answer();
        if !matches!(answered, Ok(true)) {
            self.messages.pop();
        }
        answered.map(|_| ())
    }

    /// Answers the last message anew.
    pub(super) fn regenerate(&mut self) -> Result<(), CliError> {
        let Some(old) = self.messages.pop_if(|message| message.role == "assistant") else {
            return Err(CliError::usage("there is no answer yet that could be given anew"));
        };
        self.again += 1;
        let answered = self.answer();
        if !matches!(answered, Ok(true)) {
            self.messages.push(old);
        }
        answered.map(|_| ())
    }

    /// Generates an answer to the messages and adds it to them; false if it was stopped before its first word.
    fn answer(&mut self) -> Result<bool, CliError> {
        let system = self.system.iter().map(ChatMessage::system);
        let prompt = Prompt::Chat(system.chain(self.messages.iter().cloned()).collect());
        let mut sampling = self.sampling;
        sampling.seed = sampling.seed.map(|seed| seed.wrapping_add(self.again));
        let mut request = GenerateRequest {
            max_tokens: max_tokens(self.predict, self.engine),
            sampling,
            stop: self.stop.clone(),
            constraint: self.constraint.clone(),
            ..GenerateRequest::new(prompt)
        };
        self.flags.complete(&mut request);
        let mut sink = Sink::stdout(true);
        let generation = match generate(self.engine, &mut self.session, &request, self.notes, &mut sink) {
            Err(CliError::Failed { message, .. }) if self.is_full(&request.prompt) => {
                return Err(CliError::failed(message).hint("/clear starts the conversation over"));
            }
            result => result?,
        };
        output::result("\n")?;
        self.tell_end(&generation);
        let said = !generation.text.trim().is_empty() || generation.finish != FinishReason::Cancelled;
        if said {
            self.messages.push(ChatMessage::assistant(generation.text.trim()));
        }
        self.last = Some(generation);
        if self.always_stats {
            self.show_stats();
        }
        Ok(said)
    }

    /// Whether the context has no room for an answer to the prompt.
    fn is_full(&self, prompt: &Prompt) -> bool {
        self.engine.encode(prompt).is_ok_and(|tokens| tokens.len() >= self.engine.context())
    }

    fn tell_end(&self, generation: &Generation) {
        match generation.finish {
            FinishReason::ContextFull => self.notes.warn(&format!(
                "the answer was cut: the context of {} tokens is full; /clear starts the conversation over",
                self.engine.context()
            )),
            FinishReason::Cancelled => self.notes.say("(stopped)"),
            FinishReason::Length => self.notes.detail("(reached the limit of tokens for an answer)"),
            FinishReason::Stop | FinishReason::StopString(_) => {}
        }
    }

    /// Whether the last answer was stopped by Ctrl-C.
    pub(super) fn was_interrupted(&self) -> bool {
        self.last.as_ref().is_some_and(|last| last.finish == FinishReason::Cancelled)
    }

    /// Forgets what was said.
    pub(super) fn clear(&mut self) {
        self.messages.clear();
        self.session.clear();
        self.last = None;
        self.notes.say("(the conversation is forgotten)");
    }

    /// Sets or removes the system message.
    pub(super) fn set_system(&mut self, text: &str) {
        self.system = (!text.is_empty()).then(|| text.to_owned());
        self.notes.say(if text.is_empty() { "(no system message)" } else { "(system message set)" });
    }

    /// Prints the statistics of the last answer.
    pub(super) fn show_stats(&self) {
        match &self.last {
            Some(last) => output::print_stats(self.notes, last, &EngineFacts::of(self.engine), true),
            None => self.notes.say("(no answer yet)"),
        }
    }

    /// Changes a setting.
    pub(super) fn set(&mut self, name: &str, value: &str) -> Result<(), CliError> {
        let done = if matches!(name, "predict" | "n") {
            values::limit(value).map(|v| self.predict = Some(v))
        } else {
            settings::set(&mut self.sampling, name, value).ok_or_else(|| {
                let hint = match nearest(name, &settings::NAMES) {
                    Some(near) => format!("did you mean {near}?"),
                    None => format!("there are {}", settings::NAMES.join(", ")),
                };
                CliError::usage(format!("there is no setting {name}")).hint(hint)
            })?
        };
        done.map_err(|why| CliError::usage(format!("/set {name} {value}: {why}")))
    }

    /// Prints all settings as they act now.
    pub(super) fn show_settings(&self) {
        let Ok(p) = SamplingParams::resolve(&self.sampling, self.engine.defaults()) else { return };
        let predict = match self.predict {
            Some(Limit::Tokens(n)) => n.to_string(),
            Some(Limit::None) | None => "-1".to_owned(),
        };
        for (name, value) in settings::rows(&p).into_iter().chain([("predict", predict)]) {
            self.notes.say(&format!("{name:<20}{value}"));
        }
    }
}
