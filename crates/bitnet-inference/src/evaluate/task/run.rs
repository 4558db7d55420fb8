//! Answers: the most probable choice, or a text.

use bitnet_text::EncodeOptions;

use super::item::{Answer, Item};
use super::prompt::Task;
use crate::error::EngineError;
use crate::evaluate::{LogLikelihood, ScoredText};
use crate::generate::{GenerateRequest, Prompt};
use crate::sampling::SamplingOverrides;

/// One choice behind the prompt.
#[derive(Debug, Clone, PartialEq)]
pub struct ChoiceScore {
    /// As it was scored: its text, or its letter.
    pub text: String,
    /// How probable it is.
    pub likelihood: LogLikelihood,
}

impl ChoiceScore {
    /// Log-likelihood over bytes.
    pub fn per_byte(&self) -> f64 {
        self.likelihood.sum / self.text.len().max(1) as f64
    }
}

/// A choice was made.
#[derive(Debug, Clone, PartialEq)]
pub struct Choosing {
    /// All choices.
    pub scores: Vec<ChoiceScore>,
    /// The right one.
    pub right: usize,
    /// The one of the largest log-likelihood.
    pub by_sum: usize,
    /// The one of the largest log-likelihood over bytes.
    pub by_byte: usize,
    /// The one of the largest log-likelihood over tokens.
    pub by_token: usize,
}

/// A text was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Writing {
    /// The text, without white space around it.
    pub text: String,
    /// Whether it is right.
    pub correct: bool,
}

/// What became of an item.
#[derive(Debug, Clone, PartialEq)]
pub enum Outcome {
    /// One of its choices was taken.
    Chosen(Choosing),
    /// An answer was written.
    Written(Writing),
}

/// The result of an item.
#[derive(Debug, Clone, PartialEq)]
pub struct ItemResult {
    /// Its name.
    pub id: String,
    /// Its category.
    pub category: Option<String>,
    /// Its answer.
    pub outcome: Outcome,
    /// Tokens of its texts: of the prompt with each choice, or of the prompt and what was written. Unlike the next two it is
    /// the same whatever the engine did before.
    pub tokens: usize,
    /// Tokens that were computed.
    pub computed: usize,
    /// Tokens that were known already.
    pub reused: usize,
}

/// An outcome and what it took, as [`ItemResult`] has them.
struct Answered {
    outcome: Outcome,
    tokens: usize,
    computed: usize,
    reused: usize,
}

impl Task {
    /// Answers an item.
    ///
    /// # Errors
    /// [`EngineError`]: an item that gives no prompt, or one that is longer than the context; a failing executor.
    pub fn run(&self, item: &Item) -> Result<ItemResult, EngineError> {
        let prompt = self.prompt(item)?;
        let answered = match &item.answer {
            Answer::Choice { choices, right } => self.choose(&prompt, choices, *right)?,
            Answer::Text(texts) => self.write(prompt, &|text| texts.iter().any(|t| t.trim() == text))?,
            Answer::Pattern(pattern) => self.write(prompt, &|text| pattern.is_match(text))?,
        };
        let Answered { outcome, tokens, computed, reused } = answered;
        let (id, category) = (item.id.clone(), item.category.clone());
        Ok(ItemResult { id, category, outcome, tokens, computed, reused })
    }

    fn choose(&self, prompt: &Prompt, choices: &[String], right: usize) -> Result<Answered, EngineError> {
        let choices = self.choices(choices);
        let texts = self.scored_texts(prompt, &choices)?;
        let scored = self.engine.log_likelihoods(&texts)?;
        let tokens = texts.iter().map(|text| text.tokens.len()).sum();
        let score = |(text, likelihood)| ChoiceScore { text, likelihood };
        let scores: Vec<ChoiceScore> = choices.into_iter().zip(scored.texts).map(score).collect();
        let choosing = Choosing {
            by_sum: best(&scores, |s| s.likelihood.sum),
            by_byte: best(&scores, ChoiceScore::per_byte),
            by_token: best(&scores, |s| s.likelihood.per_token()),
            scores,
            right,
        };
        let (computed, reused) = (scored.computed, scored.reused);
        Ok(Answered { outcome: Outcome::Chosen(choosing), tokens, computed, reused })
    }

    /// The tokens of the prompt with each choice behind it.
    fn scored_texts(&self, prompt: &Prompt, choices: &[String]) -> Result<Vec<ScoredText>, EngineError> {
        let behind = |prompt: &str| -> Vec<String> {
            let delimiter = self.delimiter(prompt);
            choices.iter().map(|choice| format!("{delimiter}{choice}")).collect()
        };
        if let Prompt::Text(text) = prompt {
            return self.engine.continuations(text, &behind(text));
        }
        // Nothing reaches over the border: the turn of the answer begins there.
        let given = self.engine.encode(prompt)?;
        let rendered = self.engine.tokenizer()?.decode(&given, false);
        let text = |continuation: String| {
            let own = self.engine.tokenizer()?.encode(&continuation, EncodeOptions::PLAIN)?;
            Ok(ScoredText { tokens: [&given[..], &own[..]].concat(), from: given.len() })
        };
        behind(&rendered).into_iter().map(text).collect()
    }

    fn write(&self, prompt: Prompt, is_right: &dyn Fn(&str) -> bool) -> Result<Answered, EngineError> {
        let request = GenerateRequest {
            sampling: SamplingOverrides::greedy(),
            stop: self.options.stop.clone(),
            ..GenerateRequest::new(prompt).max_tokens(self.options.max_tokens)
        };
        let written = self.engine.generate_blocking(&request)?;
        let text = written.text.trim().to_owned();
        let stats = &written.stats;
        let computed = stats.prompt_tokens - stats.cached_tokens + stats.decode_steps;
        let outcome = Outcome::Written(Writing { correct: is_right(&text), text });
        let tokens = stats.prompt_tokens + stats.generated_tokens;
        Ok(Answered { outcome, tokens, computed, reused: stats.cached_tokens })
    }
}

/// The first of those with the largest value.
fn best(scores: &[ChoiceScore], value: impl Fn(&ChoiceScore) -> f64) -> usize {
    let mut best = 0;
    for (index, score) in scores.iter().enumerate() {
        if value(score) > value(&scores[best]) {
            best = index;
        }
    }
    best
}
