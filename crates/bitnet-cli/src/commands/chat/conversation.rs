//! [`Conversation`]: what was said, with whom, and how to go on.

use bitnet_inference::{
    ChatMessage, EngineError, FinishReason, Generation, InferenceEngine, Session, SessionFileError,
};

use super::answer::{Answer, Asking};
use super::settings::Settings;
use super::store::{Place, Saved};
use super::tools::{Outcome, Tools};
use super::transcript::Transcript;
use crate::args::{ChatFlags, ModelArgs};
use crate::error::CliError;
use crate::model;
use crate::output::{self, EngineFacts, Notes, Timings, rate};

/// Answers with calls in a row after which the model is not asked again.
const MOST_ROUNDS: usize = 10;

/// What follows an answer on stderr.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::commands) enum Closing {
    /// Nothing.
    Nothing,
    /// One short line.
    Line,
    /// The lines that users of ollama know.
    Timings,
}

/// A chat with a model.
#[derive(Debug)]
pub(super) struct Conversation {
    pub(super) engine: InferenceEngine,
    /// How the model was asked for.
    pub(super) model: ModelArgs,
    session: Session,
    pub(super) talk: Transcript,
    pub(super) settings: Settings,
    pub(super) tools: Tools,
    /// Files that go with the next message, with their names.
    pub(super) files: Vec<(String, String)>,
    /// Where it is saved after each turn.
    pub(super) place: Option<Place>,
    /// Whether keys and values are saved as often; otherwise at the end.
    pub(super) saves_all: bool,
    pub(super) closing: Closing,
    /// How often the last message was answered anew: each time with another seed.
    again: u64,
    pub(super) last: Option<Generation>,
    pub(super) notes: Notes,
}

/// Loads a model that can chat.
pub(super) fn load(args: &ModelArgs, notes: Notes) -> Result<InferenceEngine, CliError> {
    let engine = model::engine(args, notes)?;
    if engine.model().chat_template.is_none() {
        let error = EngineError::NoChatTemplate { model: engine.model().name.clone() };
        return Err(CliError::failed(error)
            .hint("name a template with --chat-template FILE, or use `bitnet generate`"));
    }
    engine.tokenizer()?;
    Ok(engine)
}

impl Conversation {
    /// An empty conversation.
    pub(super) fn new(
        engine: InferenceEngine,
        model: &ModelArgs,
        args: &ChatFlags,
        notes: Notes,
    ) -> Result<Self, CliError> {
        let settings = Settings::new(args)?;
        if let Some(constraint) = &settings.constraint {
            engine.check_constraint(constraint)?;
        }
        Ok(Self {
            session: engine.session(),
            engine,
            model: model.clone(),
            talk: Transcript { system: args.system.clone(), ..Transcript::default() },
            settings,
            tools: Tools::new(&args.tools)?,
            files: Vec::new(),
            place: None,
            saves_all: false,
            closing: Closing::Nothing,
            again: 0,
            last: None,
            notes,
        })
    }

    /// Says something, with the files that wait, and writes the answer to stdout. What fails is forgotten.
    pub(super) fn say(&mut self, text: &str) -> Result<(), CliError> {
        let before = self.talk.messages.len();
        self.talk.messages.push(ChatMessage::user(self.with_files(text)));
        self.again = 0;
        let answered = self.answer();
        if matches!(answered, Ok(true)) {
            self.files.clear();
        } else {
            self.talk.cut(before);
        }
        answered?;
        self.keep(self.saves_all);
        Ok(())
    }

    /// A message behind the files that go with it.
    pub(super) fn with_files(&self, text: &str) -> String {
        let files = self.files.iter().map(|(name, content)| format!("{name}:\n\n{content}\n\n"));
        files.chain([text.to_owned()]).collect()
    }

    /// Answers the last message anew.
    pub(super) fn regenerate(&mut self) -> Result<(), CliError> {
        let old = self.talk.take_answer();
        if old.is_empty() {
            return Err(CliError::usage("there is no answer yet that could be given anew"));
        }
        self.again += 1;
        let before = self.talk.messages.len();
        let answered = self.answer();
        if !matches!(answered, Ok(true)) {
            self.talk.cut(before);
            self.talk.messages.extend(old);
        }
        answered?;
        self.keep(self.saves_all);
        Ok(())
    }

    /// Has the messages answered, runs what is called, until there is an answer in words; false if it was stopped before its
    /// first word.
    fn answer(&mut self) -> Result<bool, CliError> {
        for _ in 0..MOST_ROUNDS {
            let Answer { text, calls, last } = self.ask()?;
            self.tell_end(&last);
            let stopped = last.finish == FinishReason::Cancelled;
            self.last = Some(last);
            self.close();
            if text.is_empty() && calls.is_empty() && stopped {
                return Ok(false);
            }
            let message = ChatMessage { tool_calls: calls, ..ChatMessage::assistant(text) };
            let calls = message.tool_calls.clone();
            self.talk.messages.push(message);
            if calls.is_empty() || stopped {
                return Ok(true);
            }
            for call in &calls {
                let result = match self.tools.run(call, self.notes)? {
                    Outcome::Result(result) => result,
                    Outcome::Stopped => return Ok(true),
                    Outcome::Nobody => {
                        let calls: Vec<_> =
                            calls.iter().map(serde_json::to_value).filter_map(Result::ok).collect();
                        output::json(&serde_json::json!({ "tool_calls": calls }))?;
                        return Ok(true);
                    }
                };
                let id = call.id.clone().unwrap_or_default();
                let name = Some(call.name.clone());
                self.talk.messages.push(ChatMessage { name, ..ChatMessage::tool(id, result) });
            }
        }
        self.notes
            .warn(&format!("the model called tools {MOST_ROUNDS} times in a row; it is not asked again"));
        Ok(true)
    }

    fn ask(&mut self) -> Result<Answer, CliError> {
        let calls = self.talk.messages.iter().map(|message| message.tool_calls.len()).sum();
        let mut asking = Asking {
            engine: &self.engine,
            session: &mut self.session,
            settings: &self.settings,
            tools: &self.tools.definitions,
            calls,
            again: self.again,
            notes: self.notes,
        };
        let parser = self.tools.parser(self.engine.model().chat_template.as_ref());
        asking.answer(&mut self.talk, parser)
    }

    fn tell_end(&self, generation: &Generation) {
        match generation.finish {
            FinishReason::ContextFull => self.notes.warn(&format!(
                "the answer was cut: the context of {} tokens is full; /clear starts the conversation over, /set \
                 context-shift on lets its oldest turns go",
                self.engine.context()
            )),
            FinishReason::Cancelled => self.notes.say("(stopped)"),
            FinishReason::Length => self.notes.detail("(reached the limit of tokens for an answer)"),
            FinishReason::Stop | FinishReason::StopString(_) => {}
        }
    }

    /// What follows an answer.
    fn close(&self) {
        let Some(last) = &self.last else { return };
        if self.settings.stats {
            return self.show_stats();
        }
        match self.closing {
            Closing::Nothing => {}
            Closing::Line => self.notes.say(&format!(
                "({} tokens, {} tok/s; context {} of {})",
                last.stats.generated_tokens,
                rate(last.stats.tokens_per_second()),
                self.session.tokens().len(),
                self.engine.context(),
            )),
            Closing::Timings => {
                let timings = Timings { load: self.engine.load_time(), generation: last };
                self.notes.say(&timings.to_string());
            }
        }
    }

    /// Prints the statistics of the last answer.
    pub(super) fn show_stats(&self) {
        match &self.last {
            Some(last) => output::print_stats(self.notes, last, &EngineFacts::of(&self.engine), true),
            None => self.notes.say("(no answer yet)"),
        }
    }

    /// Whether the last answer was stopped by Ctrl-C.
    pub(super) fn was_interrupted(&self) -> bool {
        self.last.as_ref().is_some_and(|last| last.finish == FinishReason::Cancelled)
    }

    /// Forgets what was said.
    pub(super) fn clear(&mut self) {
        self.talk.cut(0);
        self.session.clear();
        self.files.clear();
        self.last = None;
    }

    /// Goes on with another model. What was said stays, and is computed anew by it.
    pub(super) fn change_model(&mut self, name: &str) -> Result<(), CliError> {
        let is_bundled = name == bitnet_tiny::NAME && !std::path::Path::new(name).exists();
        let args = ModelArgs { model: (!is_bundled).then(|| name.into()), ..self.model.clone() };
        let engine = load(&args, self.notes)?;
        (self.session, self.engine, self.model) = (engine.session(), engine, args);
        Ok(())
    }

    /// Saves the conversation where it belongs, with its keys and values if `all`. That it cannot be saved is no reason to
    /// end it.
    pub(super) fn keep(&mut self, all: bool) {
        if let Some(place) = self.place.clone()
            && let Err(CliError::Failed { message, .. }) = self.save(&place, all)
        {
            self.notes.warn(&message);
        }
    }

    /// Saves the conversation.
    pub(super) fn save(&mut self, place: &Place, all: bool) -> Result<(), CliError> {
        place.save(&Saved {
            talk: self.talk.clone(),
            model: self.model.model.as_ref().map(|path| absolute(path)),
            model_name: self.engine.model().name.clone(),
        })?;
        if all && self.session.computed() > 0 {
            self.engine.save_session(&mut self.session, &place.kv)?;
        }
        Ok(())
    }

    /// Goes on with a conversation that was saved; what was computed of it is not computed again, if that is possible.
    pub(super) fn resume(&mut self, saved: Saved, place: &Place) {
        self.talk = saved.talk;
        self.last = None;
        self.session = match self.engine.load_session(&place.kv) {
            Ok(session) => session,
            Err(error) => {
                let is_missing = |error: &EngineError| {
                    matches!(error, EngineError::SessionFile(SessionFileError::Io { source, .. })
                        if source.kind() == std::io::ErrorKind::NotFound)
                };
                if !is_missing(&error) {
                    self.notes.warn(&format!("{error}; the conversation is computed again"));
                }
                self.engine.session()
            }
        };
        let turns = self.talk.turns();
        let plural = if turns == 1 { "" } else { "s" };
        self.notes.say(&format!(
            "(going on with {}: {turns} turn{plural}, {} tokens of it are computed)",
            place.name,
            self.session.computed()
        ));
    }

    /// Tokens of the conversation as the model sees it.
    pub(super) fn tokens(&self) -> Result<usize, CliError> {
        if self.talk.messages.is_empty() && self.talk.system.is_none() {
            return Ok(0);
        }
        Ok(self.engine.encode(&self.talk.prompt(&self.tools.definitions, ""))?.len())
    }
}

/// A path as it is called from anywhere; other names as they are.
fn absolute(path: &std::path::Path) -> String {
    let found = if path.exists() { path.canonicalize().ok() } else { None };
    found.as_deref().unwrap_or(path).display().to_string()
}
