//! [`GenerateRequest`]: what to continue, and how.

use bitnet_text::{ChatMessage, EncodeOptions};

use crate::engine::InferenceEngine;
use crate::error::{EngineError, ParameterError};
use crate::sampling::SamplingOverrides;

/// What the model is to continue.
#[derive(Debug, Clone, PartialEq)]
pub enum Prompt {
    /// Text, as it is. Names of special tokens in it are ordinary text.
    Text(String),
    /// Tokens, as they are; nothing is put before them.
    Tokens(Vec<u32>),
    /// A conversation, put into the form of the model's chat template with the header of an answer at its end.
    Chat(Vec<ChatMessage>),
}

impl Prompt {
    /// Raw text.
    pub fn text(text: impl Into<String>) -> Self {
        Self::Text(text.into())
    }
}

/// One request to an engine.
#[derive(Debug, Clone, PartialEq)]
pub struct GenerateRequest {
    /// What to continue.
    pub prompt: Prompt,
    /// Most tokens to generate; `None`: the model's default, else until it stops or the context is full.
    pub max_tokens: Option<usize>,
    /// Sampling parameters that differ from the model's defaults.
    pub sampling: SamplingOverrides,
    /// Strings that end the text and are left out of it.
    pub stop: Vec<String>,
    /// Whether the model's stop tokens do not end the text; they show up in the tokens, not in the text.
    pub ignore_eos: bool,
    /// Whether the text begins with that of a [`Prompt::Text`].
    pub echo: bool,
}

impl GenerateRequest {
    /// Continues `prompt` with the model's defaults.
    pub fn new(prompt: Prompt) -> Self {
        let (max_tokens, sampling) = (None, SamplingOverrides::default());
        Self { prompt, max_tokens, sampling, stop: Vec::new(), ignore_eos: false, echo: false }
    }

    /// Sets [`max_tokens`](Self::max_tokens).
    #[must_use]
    pub fn max_tokens(mut self, tokens: usize) -> Self {
        self.max_tokens = Some(tokens);
        self
    }

    /// Sets [`sampling`](Self::sampling), seed included.
    #[must_use]
    pub fn sampling(mut self, sampling: SamplingOverrides) -> Self {
        self.sampling = sampling;
        self
    }

    /// Sets the seed.
    #[must_use]
    pub fn seed(mut self, seed: u64) -> Self {
        self.sampling.seed = Some(seed);
        self
    }

    /// Adds a stop string.
    #[must_use]
    pub fn stop(mut self, text: impl Into<String>) -> Self {
        self.stop.push(text.into());
        self
    }
}

impl InferenceEngine {
    /// The tokens of a prompt, as a request with it would compute them.
    ///
    /// # Errors
    /// [`EngineError`] if the model has no tokenizer or chat template that this prompt needs, if a token is outside the
    /// vocabulary, or if there are no tokens.
    pub fn encode(&self, prompt: &Prompt) -> Result<Vec<u32>, EngineError> {
        let tokens = match prompt {
            Prompt::Text(text) => self.tokenizer()?.encode(text, EncodeOptions::PROMPT)?,
            Prompt::Tokens(tokens) => tokens.clone(),
            Prompt::Chat(messages) => {
                let template = self.model().chat_template.as_ref();
                let template = template
                    .ok_or_else(|| EngineError::NoChatTemplate { model: self.model().name.clone() })?;
                template.encode(self.tokenizer()?, messages, true)?
            }
        };
        let vocab_size = self.spec().vocab_size;
        if let Some(&token) = tokens.iter().find(|&&t| t as usize >= vocab_size) {
            return Err(EngineError::BadToken { token, vocab_size });
        }
        if tokens.is_empty() {
            return Err(EngineError::EmptyPrompt);
        }
        Ok(tokens)
    }

    /// Checks what can be checked without computing anything.
    pub(super) fn check(&self, request: &GenerateRequest) -> Result<(), EngineError> {
        if request.max_tokens == Some(0) {
            return Err(
                ParameterError { name: "max_tokens", value: "0".to_owned(), allowed: "1 or more" }.into()
            );
        }
        if request.stop.iter().any(String::is_empty) {
            let (value, allowed) = ("\"\"".to_owned(), "a text that is not empty");
            return Err(ParameterError { name: "stop", value, allowed }.into());
        }
        Ok(())
    }
}
