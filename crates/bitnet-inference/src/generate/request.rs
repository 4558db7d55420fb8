//! [`GenerateRequest`]: what to continue, and how.

use bitnet_text::{ChatMessage, ChatPrompt, ChatTemplate, EncodeOptions};

use crate::engine::{Core, InferenceEngine};
use crate::error::{EngineError, ParameterError};
use crate::grammar::Constraint;
use crate::sampling::{CustomSampler, LogitBias, SamplingOverrides, check_alternatives};

/// What the model is to continue.
#[derive(Debug, Clone, PartialEq)]
pub enum Prompt {
    /// Text, as it is. Names of special tokens in it are ordinary text.
    Text(String),
    /// Tokens, as they are; nothing is put before them.
    Tokens(Vec<u32>),
    /// A conversation, put into the form of the model's chat template with the header of an answer at its end.
    Chat(Vec<ChatMessage>),
    /// A conversation with tools, variables of the template, or a last turn to be continued.
    ChatWith(ChatPrompt),
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
    /// What is added to the logits of tokens.
    pub logit_bias: Vec<LogitBias>,
    /// Strings that the generated text never contains; tokens that begin one are held back until it is decided. A string that
    /// begins in the prompt is not one of the generated text.
    pub banned: Vec<String>,
    /// What the generated text must be, from its first to its last character; at the most tokens it may be cut off.
    pub constraint: Option<Constraint>,
    /// Strings over which the repetitions that DRY looks for do not reach; `None`:
    /// [`DRY_SEQUENCE_BREAKERS`](crate::sampling::DRY_SEQUENCE_BREAKERS).
    pub dry_sequence_breakers: Option<Vec<String>>,
    /// Whether the log probabilities of the tokens are told, and of how many of the most probable alternatives; at most
    /// 100. Needs all logits.
    pub logprobs: Option<usize>,
    /// How many completions [`generate_n`](InferenceEngine::generate_n) gives; 1 to 128.
    pub n: usize,
    /// Out of how many completions `generate_n` takes the `n` best, those of the highest mean log probability of a token;
    /// `None`: out of `n`. `n` to 128.
    pub best_of: Option<usize>,
    /// A function that chooses tokens or changes logits.
    pub custom_sampler: Option<CustomSampler>,
    /// Whether the model's stop tokens do not end the text; they show up in the tokens, not in the text.
    pub ignore_eos: bool,
    /// Whether the text begins with that of a [`Prompt::Text`].
    pub echo: bool,
}

impl GenerateRequest {
    /// Continues `prompt` with the model's defaults.
    pub fn new(prompt: Prompt) -> Self {
        Self {
            prompt,
            max_tokens: None,
            sampling: SamplingOverrides::default(),
            stop: Vec::new(),
            logit_bias: Vec::new(),
            banned: Vec::new(),
            constraint: None,
            dry_sequence_breakers: None,
            logprobs: None,
            n: 1,
            best_of: None,
            custom_sampler: None,
            ignore_eos: false,
            echo: false,
        }
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

    /// Adds a [banned](Self::banned) string.
    #[must_use]
    pub fn ban(mut self, text: impl Into<String>) -> Self {
        self.banned.push(text.into());
        self
    }

    /// Sets the [`constraint`](Self::constraint).
    #[must_use]
    pub fn constraint(mut self, constraint: Constraint) -> Self {
        self.constraint = Some(constraint);
        self
    }

    /// Adds a bias.
    #[must_use]
    pub fn bias(mut self, bias: LogitBias) -> Self {
        self.logit_bias.push(bias);
        self
    }

    /// Sets [`custom_sampler`](Self::custom_sampler).
    #[must_use]
    pub fn custom_sampler(mut self, sampler: CustomSampler) -> Self {
        self.custom_sampler = Some(sampler);
        self
    }

    /// Sets [`logprobs`](Self::logprobs).
    #[must_use]
    pub fn logprobs(mut self, alternatives: usize) -> Self {
        self.logprobs = Some(alternatives);
        self
    }

    /// Sets [`n`](Self::n).
    #[must_use]
    pub fn n(mut self, completions: usize) -> Self {
        self.n = completions;
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
        self.core().encode(prompt)
    }
}

impl Core {
    /// The tokens of a prompt.
    pub(crate) fn encode(&self, prompt: &Prompt) -> Result<Vec<u32>, EngineError> {
        let tokens = match prompt {
            Prompt::Text(text) => self.tokenizer()?.encode(text, EncodeOptions::PROMPT)?,
            Prompt::Tokens(tokens) => tokens.clone(),
            Prompt::Chat(messages) => self.template()?.encode(self.tokenizer()?, messages, true)?,
            Prompt::ChatWith(prompt) => self.template()?.encode_prompt(self.tokenizer()?, prompt)?,
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

    fn template(&self) -> Result<&ChatTemplate, EngineError> {
        let model = self.model();
        model.chat_template.as_ref().ok_or_else(|| EngineError::NoChatTemplate { model: model.name.clone() })
    }
}

impl GenerateRequest {
    /// Checks what can be checked without a model.
    pub(super) fn check(&self) -> Result<(), EngineError> {
        if self.max_tokens == Some(0) {
            return Err(
                ParameterError { name: "max_tokens", value: "0".to_owned(), allowed: "1 or more" }.into()
            );
        }
        for (name, texts) in [("stop", &self.stop), ("banned", &self.banned)] {
            if texts.iter().any(String::is_empty) {
                let (value, allowed) = ("\"\"".to_owned(), "a text that is not empty");
                return Err(ParameterError { name, value, allowed }.into());
            }
        }
        if let Some(alternatives) = self.logprobs {
            check_alternatives(alternatives)?;
        }
        Ok(())
    }
}
