//! [`ChatTemplate`]: turns a conversation into a prompt, with the Jinja template that a model comes with.
//!
//! Templates are run as `transformers` runs them ([`filters`] has what it adds to Jinja). When a conversation is
//! encoded, the special tokens of the template become tokens and those that someone wrote into a message stay text
//! ([`guard`]).

mod abilities;
mod filters;
mod guard;
mod message;
mod rewrite;
mod text;

#[cfg(test)]
mod tests;
#[cfg(test)]
mod tool_tests;

use std::borrow::Cow;
use std::sync::{Arc, OnceLock};

use minijinja::value::Serde;
use minijinja::{Environment, ErrorKind};
use serde::Serialize;
use serde_json::{Map, Value};

use crate::error::{Result, TextError};
use crate::tokenizer::{Segment, Tokenizer};
use abilities::Abilities;
use guard::Guard;
pub use message::{ChatMessage, ChatPrompt, ToolCall};
pub use text::TextTemplate;

/// Name of the template inside its environment; it has no ending that would switch HTML escapes on.
const NAME: &str = "chat_template";

/// Units of work one rendering may take: about one an instruction and one for 64 bytes of text. Ordinary
/// conversations take thousands; the limit ends endless loops within a second.
const FUEL: u64 = 4_000_000;

/// What the chat models of the bitnet-b1.58-2B-4T family are trained on. The file `ggml-model-i2_s.gguf` has another
/// one, which makes them never stop.
const BITNET_2B: &str = concat!(
    "{% for message in messages %}",
    "{{ message['role'] | capitalize + ': ' + message['content'] | trim + '<|eot_id|>' }}",
    "{% endfor %}",
    "{% if add_generation_prompt %}{{ 'Assistant: ' }}{% endif %}"
);

/// A compiled chat template with the tokens that it may name.
#[derive(Clone)]
pub struct ChatTemplate {
    environment: Environment<'static>,
    source: String,
    bos_token: String,
    eos_token: String,
    origin: String,
    /// What it can, found out when it is first asked.
    abilities: Arc<OnceLock<Abilities>>,
}

impl std::fmt::Debug for ChatTemplate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ChatTemplate")
            .field("origin", &self.origin)
            .field("source", &self.source)
            .finish_non_exhaustive()
    }
}

/// What a template sees.
#[derive(Serialize)]
struct Context<'a> {
    messages: &'a [ChatMessage],
    add_generation_prompt: bool,
    bos_token: &'a str,
    eos_token: &'a str,
    tools: Option<&'a [Value]>,
    documents: (),
    #[serde(flatten)]
    kwargs: &'a Map<String, Value>,
}

/// The variables that a request cannot set.
const RESERVED: [&str; 6] =
    ["messages", "add_generation_prompt", "bos_token", "eos_token", "tools", "documents"];

impl ChatTemplate {
    /// Compiles a template. `origin` is where it came from, for messages; the tokens are what the template's
    /// `bos_token` and `eos_token` stand for, empty if there are none.
    ///
    /// # Errors
    /// [`TextError::Template`] with the line that is wrong.
    pub fn new(source: &str, bos_token: &str, eos_token: &str, origin: &str) -> Result<Self> {
        let mut environment = filters::environment();
        environment.set_fuel(Some(FUEL));
        environment
            .add_template_owned(NAME, filters::without_generation_tags(source))
            .map_err(|error| template_error(origin, &error))?;
        Ok(Self {
            environment,
            source: source.to_owned(),
            bos_token: bos_token.to_owned(),
            eos_token: eos_token.to_owned(),
            origin: origin.to_owned(),
            abilities: Arc::default(),
        })
    }

    /// The template of bitnet-b1.58-2B-4T: each turn is `Role: text<|eot_id|>`, the answer begins after
    /// `Assistant: `.
    pub fn bitnet_2b() -> Self {
        Self::new(BITNET_2B, "<|begin_of_text|>", "<|eot_id|>", "the built-in template of bitnet-b1.58-2B-4T")
            .expect("a constant that a test compiles")
    }

    /// The template as it was given.
    pub fn source(&self) -> &str {
        &self.source
    }

    /// Whether this is the template that the converter of the official GGUF files writes into every BitNet model. No
    /// model is trained on it; use [`bitnet_2b`](Self::bitnet_2b) instead.
    pub fn is_known_wrong(source: &str) -> bool {
        source.contains("BITNETAssistant")
    }

    /// The prompt for a conversation; with `add_generation_prompt`, up to where the model's answer begins.
    ///
    /// # Errors
    /// [`TextError::Template`] with what the template raised, or why it cannot be run on these messages, or if it
    /// takes too long.
    pub fn render(&self, messages: &[ChatMessage], add_generation_prompt: bool) -> Result<String> {
        self.run(messages, &[], &Map::new(), add_generation_prompt)
    }

    /// The tokens of a conversation. Special tokens are those that the template writes; text between two of them is
    /// encoded as one piece. The begin-of-text token is put first if the model wants it and the template did not
    /// write it.
    ///
    /// # Errors
    /// Those of [`render`](Self::render) and [`Tokenizer::encode`].
    pub fn encode(
        &self,
        tokenizer: &Tokenizer,
        messages: &[ChatMessage],
        add_generation_prompt: bool,
    ) -> Result<Vec<u32>> {
        let specials: Vec<&str> = tokenizer.special_spellings().collect();
        let prompt = ChatPrompt::new(messages.to_vec());
        let guard = self.guard(&specials, &prompt)?;
        let rendered = self.render(&guard.protect(&prompt).messages, add_generation_prompt)?;
        tokens(tokenizer, &guard, &rendered)
    }

    /// The prompt for a conversation with all that belongs to it, up to where the model goes on. What the template does not
    /// know is put into words that it does: definitions of tools into the system message, calls and results into the text
    /// of turns ([`tools`](crate::tools) has the convention), the system message of a template without one into the
    /// first turn of the user.
    ///
    /// # Errors
    /// Those of [`render`](Self::render), and [`TextError::Template`] for a turn to be continued that is not the model's
    /// or a variable that is the template's own.
    pub fn render_prompt(&self, prompt: &ChatPrompt) -> Result<String> {
        let prompt = self.rewritten(prompt)?;
        let guard = self.guard(&[], &prompt)?;
        let rendered = self.run_guarded(&guard, &prompt)?;
        Ok(guard.release(&rendered))
    }

    /// The tokens of [`render_prompt`](Self::render_prompt), made as those of [`encode`](Self::encode).
    ///
    /// # Errors
    /// Those of [`render_prompt`](Self::render_prompt) and [`Tokenizer::encode`].
    pub fn encode_prompt(&self, tokenizer: &Tokenizer, prompt: &ChatPrompt) -> Result<Vec<u32>> {
        let specials: Vec<&str> = tokenizer.special_spellings().collect();
        let prompt = self.rewritten(prompt)?;
        let guard = self.guard(&specials, &prompt)?;
        let rendered = self.run_guarded(&guard, &prompt)?;
        tokens(tokenizer, &guard, &rendered)
    }

    fn guard<'a>(&self, specials: &'a [&'a str], prompt: &ChatPrompt) -> Result<Guard<'a>> {
        let taken = [&self.source, &self.bos_token, &self.eos_token];
        Guard::new(specials, prompt, &taken.map(String::as_str))
    }

    /// The prompt in words that the template knows.
    fn rewritten<'p>(&self, prompt: &'p ChatPrompt) -> Result<Cow<'p, ChatPrompt>> {
        let refused =
            |message: String| TextError::Template { origin: self.origin.clone(), line: None, message };
        if let Some(name) = prompt.kwargs.keys().find(|name| RESERVED.contains(&name.as_str())) {
            return Err(refused(format!("the variable {name} cannot be set; leave it out")));
        }
        if prompt.continue_final && prompt.messages.last().is_none_or(|last| last.role != "assistant") {
            let why = "a turn can only be continued if it is the assistant's, and the last one";
            return Err(refused(why.to_owned()));
        }
        Ok(rewrite::rewritten(prompt, self))
    }

    /// Runs the template on a guarded prompt, up to where the model goes on.
    fn run_guarded(&self, guard: &Guard<'_>, prompt: &ChatPrompt) -> Result<String> {
        let mut prompt = guard.protect(prompt);
        if self.abilities().arguments_as_text {
            for call in prompt.messages.iter_mut().flat_map(|message| &mut message.tool_calls) {
                call.arguments = Value::String(call.arguments.to_string());
            }
        }
        let goes_on = prompt.continue_final;
        if let Some(last) = prompt.messages.last_mut().filter(|_| goes_on) {
            last.content.push(guard.mark);
        }
        let mut rendered = self.run(&prompt.messages, &prompt.tools, &prompt.kwargs, !goes_on)?;
        if goes_on {
            let end = rendered.rfind(guard.mark).ok_or_else(|| TextError::Template {
                origin: self.origin.clone(),
                line: None,
                message: "the template leaves out the turn that is to be continued".to_owned(),
            })?;
            rendered.truncate(end);
        }
        Ok(rendered)
    }

    fn run(
        &self,
        messages: &[ChatMessage],
        tools: &[Value],
        kwargs: &Map<String, Value>,
        add_generation_prompt: bool,
    ) -> Result<String> {
        let context = Context {
            messages,
            add_generation_prompt,
            bos_token: &self.bos_token,
            eos_token: &self.eos_token,
            tools: Some(tools).filter(|tools| !tools.is_empty()),
            documents: (),
            kwargs,
        };
        self.environment
            .get_template(NAME)
            .and_then(|template| template.render(Serde(&context)))
            .map_err(|error| template_error(&self.origin, &error))
    }
}

/// The tokens of a rendered prompt whose messages were guarded.
fn tokens(tokenizer: &Tokenizer, guard: &Guard<'_>, rendered: &str) -> Result<Vec<u32>> {
    let parts: Vec<(bool, String)> = tokenizer
        .split_special(rendered)
        .map(|segment| match segment {
            Segment::Text(text) => (false, guard.release(text)),
            Segment::Special(spelling) => (true, spelling.to_owned()),
        })
        .collect();
    let segments: Vec<Segment<'_>> = parts
        .iter()
        .map(|(special, text)| if *special { Segment::Special(text) } else { Segment::Text(text) })
        .collect();
    tokenizer.encode_segments(&segments, true)
}

fn template_error(origin: &str, error: &minijinja::Error) -> TextError {
    let message = match error.kind() {
        ErrorKind::OutOfFuel => "the template takes too long".to_owned(),
        kind => match error.detail() {
            Some(detail) if kind == filters::RAISED => detail.to_owned(),
            Some(detail) => format!("{kind}: {detail}"),
            None => kind.to_string(),
        },
    };
    TextError::Template { origin: origin.to_owned(), line: error.line(), message }
}
