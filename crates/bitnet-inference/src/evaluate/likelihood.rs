//! [`LogLikelihood`]: how probable continuations are. What texts have in common at the beginning is computed once.

use bitnet_model::LogitRows;
use bitnet_text::EncodeOptions;

use super::rows::{LogSoftmax, rows_at_once};
use crate::engine::InferenceEngine;
use crate::error::{EngineError, ParameterError};
use crate::kv::Session;

/// A text whose tokens from some place on are scored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ScoredText {
    /// All tokens: those that are given and those that are scored.
    pub tokens: Vec<u32>,
    /// The first scored token, 1 or more: nothing predicts the first of a text.
    pub from: usize,
}

/// How probable the scored tokens of a text are.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LogLikelihood {
    /// Logarithm of the probability of all of them, in their order.
    pub sum: f64,
    /// How many there are.
    pub tokens: usize,
    /// Whether each is the most probable one where it stands: whether greedy sampling writes them.
    pub greedy: bool,
}

impl LogLikelihood {
    /// That of one token, on average.
    pub fn per_token(&self) -> f64 {
        self.sum / self.tokens.max(1) as f64
    }
}

/// The log-likelihoods of some texts, and what they took.
#[derive(Debug, Clone, PartialEq)]
pub struct LogLikelihoods {
    /// One for each text.
    pub texts: Vec<LogLikelihood>,
    /// Tokens that were computed.
    pub computed: usize,
    /// Tokens that texts have in common with each other, or with texts of before, and that were not computed again.
    pub reused: usize,
}

/// A text that is being scored.
#[derive(Debug)]
struct Scoring<'a> {
    text: &'a ScoredText,
    result: LogLikelihood,
}

impl Scoring<'_> {
    /// Tokens to be computed beyond those that all texts have in common.
    fn own(&self, shared: usize) -> usize {
        self.text.tokens.len() - 1 - shared
    }

    /// Reads the row behind the token at `position`.
    fn read(&mut self, position: usize, row: &LogSoftmax<'_>) {
        if position + 1 >= self.text.from
            && let Some(&token) = self.text.tokens.get(position + 1)
        {
            self.result.sum += row.of(token as usize);
            self.result.greedy &= row.is_best(token as usize);
        }
    }
}

impl InferenceEngine {
    /// The tokens of a prompt followed by each of some continuations, the latter to be scored. White space at the end of the
    /// prompt counts as the beginning of the continuations, as tokenizers have it. Where a token reaches over the border, it
    /// is given, not scored.
    ///
    /// # Errors
    /// [`EngineError`]: no tokenizer; an empty prompt, and no token that begins a text; an empty continuation.
    pub fn continuations<T: AsRef<str>>(
        &self,
        prompt: &str,
        continuations: &[T],
    ) -> Result<Vec<ScoredText>, EngineError> {
        let tokenizer = self.tokenizer()?;
        let given = tokenizer.encode(prompt.trim_end(), EncodeOptions::PROMPT)?.len();
        if given == 0 {
            return Err(EngineError::EmptyPrompt);
        }
        let text = |(index, continuation): (usize, &T)| {
            let whole = [prompt, continuation.as_ref()].concat();
            let tokens = tokenizer.encode(&whole, EncodeOptions::PROMPT)?;
            if continuation.as_ref().is_empty() || tokens.len() < 2 {
                return Err(EngineError::EmptyText { index });
            }
            let from = given.min(tokens.len() - 1);
            Ok(ScoredText { tokens, from })
        };
        continuations.iter().enumerate().map(text).collect()
    }

    /// How probable the scored tokens of some texts are. The beginning that all texts have in common is computed once, and
    /// not at all as far as the engine knows it from before; then all that is their own, together.
    ///
    /// # Errors
    /// [`EngineError`]: a text without scored tokens, longer than the context, or with tokens outside the vocabulary; a
    /// failing executor.
    pub fn log_likelihoods(&self, texts: &[ScoredText]) -> Result<LogLikelihoods, EngineError> {
        for (index, text) in texts.iter().enumerate() {
            self.check_scored(index, text)?;
        }
        let mut out = LogLikelihoods { texts: Vec::with_capacity(texts.len()), computed: 0, reused: 0 };
        if common(texts) > 0 {
            self.score_family(texts, &mut out)?;
        } else {
            // Texts that begin differently have nothing to share.
            texts.iter().try_for_each(|text| self.score_family(std::slice::from_ref(text), &mut out))?;
        }
        Ok(out)
    }

    fn check_scored(&self, index: usize, text: &ScoredText) -> Result<(), EngineError> {
        let (tokens, context, vocab_size) = (text.tokens.len(), self.context(), self.spec().vocab_size);
        if text.from == 0 || text.from >= tokens {
            let allowed = "at least 1 and less than the tokens of the text";
            return Err(ParameterError { name: "from", value: text.from.to_string(), allowed }.into());
        }
        // Nothing is computed of the last token.
        if tokens - 1 > context {
            return Err(EngineError::TextTooLong { index, tokens, context });
        }
        match text.tokens.iter().find(|&&token| token as usize >= vocab_size) {
            Some(&token) => Err(EngineError::BadToken { token, vocab_size }),
            None => Ok(()),
        }
    }

    /// Scores texts that begin alike.
    fn score_family(&self, texts: &[ScoredText], out: &mut LogLikelihoods) -> Result<(), EngineError> {
        let start = |text| {
            let tokens = ScoredText::scored(text);
            Scoring { text, result: LogLikelihood { sum: 0.0, tokens, greedy: true } }
        };
        let mut all: Vec<Scoring<'_>> = texts.iter().map(start).collect();
        let shared = common(texts);
        let (mut session, reused) = self.score_shared(&mut all, shared)?;
        let own: usize = texts.iter().map(|text| text.tokens.len() - 1 - shared).sum();
        out.computed += shared - reused + own;
        out.reused += reused + shared * (texts.len() - 1);
        self.score_own(&mut all, &mut session, shared)?;
        out.texts.extend(all.into_iter().map(|scoring| scoring.result));
        Ok(())
    }

    /// Computes what all texts have in common, and reads the row behind it. Returns the session, and how many tokens were known.
    fn score_shared(&self, all: &mut [Scoring<'_>], shared: usize) -> Result<(Session, usize), EngineError> {
        let mut session = self.session();
        let reused = session.extend(&all[0].text.tokens[..shared]);
        let chunk = self.info().max_batch_tokens.max(1);
        self.core().prefill_to(&mut session, shared.saturating_sub(chunk))?;
        let mut row = vec![0.0; self.spec().vocab_size];
        let mut one = [(session, LogitRows::Last)];
        self.score_together(&mut one, &mut row)?;
        let row = LogSoftmax::new(&row);
        all.iter_mut().for_each(|scoring| scoring.read(shared - 1, &row));
        let [(session, _)] = one;
        Ok((session, reused))
    }

    /// Computes what each text has alone, as many at a time as rows fit.
    fn score_own(
        &self,
        all: &mut [Scoring<'_>],
        session: &mut Session,
        shared: usize,
    ) -> Result<(), EngineError> {
        let most = rows_at_once(self);
        let mut logits = Vec::new();
        let mut rest = all;
        while let Some(first) = rest.first() {
            let mut rows = first.own(shared);
            let fits = |scoring: &&Scoring<'_>| {
                rows += scoring.own(shared);
                rows <= most
            };
            let count = 1 + rest[1..].iter().take_while(fits).count();
            let (group, others) = rest.split_at_mut(count);
            rest = others;
            if group[0].own(shared) > most {
                self.score_long(&mut group[0], session.fork(), most)?;
            } else {
                self.score_group(group, session, shared, &mut logits)?;
            }
        }
        Ok(())
    }

    /// Computes what each text of a group has alone, in one call.
    fn score_group(
        &self,
        group: &mut [Scoring<'_>],
        session: &mut Session,
        shared: usize,
        logits: &mut Vec<f32>,
    ) -> Result<(), EngineError> {
        let vocab_size = self.spec().vocab_size;
        let mut longer: Vec<&mut Scoring<'_>> = group.iter_mut().filter(|s| s.own(shared) > 0).collect();
        if longer.is_empty() {
            return Ok(());
        }
        let fork = |scoring: &&mut Scoring<'_>| {
            let mut fork = session.fork();
            scoring.text.tokens[shared..][..scoring.own(shared)].iter().for_each(|&token| fork.push(token));
            (fork, LogitRows::All)
        };
        let mut sessions: Vec<(Session, LogitRows)> = longer.iter().map(fork).collect();
        logits.resize(longer.iter().map(|s| s.own(shared)).sum::<usize>() * vocab_size, 0.0);
        self.score_together(&mut sessions, logits)?;
        let mut rows = logits.chunks_exact(vocab_size);
        for scoring in &mut longer {
            for (at, row) in rows.by_ref().take(scoring.own(shared)).enumerate() {
                scoring.read(shared + at, &LogSoftmax::new(row));
            }
        }
        Ok(())
    }

    /// Computes what one text has alone, in several calls.
    fn score_long(
        &self,
        scoring: &mut Scoring<'_>,
        mut session: Session,
        most: usize,
    ) -> Result<(), EngineError> {
        let (vocab_size, end) = (self.spec().vocab_size, scoring.text.tokens.len() - 1);
        let start = session.tokens().len();
        scoring.text.tokens[start..end].iter().for_each(|&token| session.push(token));
        let mut logits = Vec::new();
        while session.computed() < end {
            let start = session.computed();
            let next = (start + most).min(end);
            logits.resize((next - start) * vocab_size, 0.0);
            self.score(&mut session, next, &mut logits)?;
            for (at, row) in logits.chunks_exact(vocab_size).enumerate() {
                scoring.read(start + at, &LogSoftmax::new(row));
            }
        }
        Ok(())
    }
}

impl ScoredText {
    /// How many tokens are scored.
    pub fn scored(&self) -> usize {
        self.tokens.len().saturating_sub(self.from)
    }
}

/// How many tokens, from the first, all texts have in common; of those that are given in each.
fn common(texts: &[ScoredText]) -> usize {
    let Some((first, others)) = texts.split_first() else { return 0 };
    let given = texts.iter().map(|text| text.from).min().unwrap_or(0);
    let alike =
        |other: &ScoredText| other.tokens.iter().zip(&first.tokens).take_while(|(a, b)| a == b).count();
    others.iter().map(alike).fold(given, usize::min)
}
