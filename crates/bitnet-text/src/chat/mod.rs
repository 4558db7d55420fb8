//! [`ChatTemplate`]: turns a conversation into a prompt, with the Jinja template that a model comes with.
//!
//! Templates are run as `transformers` runs them ([`filters`] has what it adds to Jinja). When a conversation is
//! encoded, the special tokens of the template become tokens and those that someone wrote into a message stay text
//! ([`guard`]).

mod filters;
mod guard;

#[cfg(test)]
mod tests;

use minijinja::value::Serde;
use minijinja::{Environment, ErrorKind};
use serde::{Deserialize, Serialize};

use crate::error::{Result, TextError};
use crate::tokenizer::{Segment, Tokenizer};
use guard::Guard;

/// One turn of a conversation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChatMessage {
    /// Who speaks: `system`, `user` or `assistant`; templates may know others.
    pub role: String,
    /// What is said.
    pub content: String,
}

impl ChatMessage {
    fn new(role: &str, content: impl Into<String>) -> Self {
        Self { role: role.to_owned(), content: content.into() }
    }

    /// What the person says.
    pub fn user(content: impl Into<String>) -> Self {
        Self::new("user", content)
    }

    /// What the model said.
    pub fn assistant(content: impl Into<String>) -> Self {
        Self::new("assistant", content)
    }

    /// Instructions that stand before the conversation.
    pub fn system(content: impl Into<String>) -> Self {
        Self::new("system", content)
    }
}

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
    tools: (),
    documents: (),
}

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
        let context = Context {
            messages,
            add_generation_prompt,
            bos_token: &self.bos_token,
            eos_token: &self.eos_token,
            tools: (),
            documents: (),
        };
        self.environment
            .get_template(NAME)
            .and_then(|template| template.render(Serde(&context)))
            .map_err(|error| template_error(&self.origin, &error))
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
        let taken = [&self.source, &self.bos_token, &self.eos_token];
        let guard = Guard::new(&specials, messages, &taken.map(String::as_str))?;
        let rendered = self.render(&guard.protect(messages), add_generation_prompt)?;

        let parts: Vec<(bool, String)> = tokenizer
            .split_special(&rendered)
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
}

fn template_error(origin: &str, error: &minijinja::Error) -> TextError {
    let message = match error.kind() {
        ErrorKind::OutOfFuel => "the template takes too long on this conversation".to_owned(),
        kind => match error.detail() {
            Some(detail) if kind == filters::RAISED => detail.to_owned(),
            Some(detail) => format!("{kind}: {detail}"),
            None => kind.to_string(),
        },
    };
    TextError::Template { origin: origin.to_owned(), line: error.line(), message }
}
