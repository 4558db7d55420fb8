//! Embeddings: one vector a text, from the hidden states behind the final norm.
//!
//! Texts are computed together: their tokens fill batches of the size that the executor likes, long texts are cut. That
//! changes no bit of a result. Any model gives embeddings; those that were made for it give useful ones.

use bitnet_model::load::Pooling;
use bitnet_model::{Batch, LogitRows, Sequence};
use bitnet_text::EncodeOptions;

use crate::engine::{Backend, InferenceEngine};
use crate::error::EngineError;
use crate::kv::Session;

/// How embeddings are made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EmbedOptions {
    /// How states become one vector; `None`: as the model says, else that of the last token.
    pub pooling: Option<Pooling>,
    /// Whether vectors are scaled to length one.
    pub normalize: bool,
    /// A sentence that says what the texts are queries for. They are then embedded as `Instruct: <sentence>`, a line
    /// break, `Query: ` and the text, which instructed embedding models are trained on. Documents go without.
    pub instruct: Option<String>,
    /// Whether texts that are longer than the context are cut; else they are an error.
    pub truncate: bool,
}

impl Default for EmbedOptions {
    fn default() -> Self {
        Self { pooling: None, normalize: true, instruct: None, truncate: false }
    }
}

/// Embeddings of some texts.
#[derive(Debug, Clone, PartialEq)]
pub struct Embeddings {
    /// One vector a text, `[hidden_size]` each.
    pub vectors: Vec<Vec<f32>>,
    /// Tokens of each text, special ones included.
    pub tokens: Vec<usize>,
    /// How states became vectors.
    pub pooling: Pooling,
}

/// One text on its way.
struct Text {
    tokens: Vec<u32>,
    session: Session,
    /// Tokens that were computed or are in the batch that is being filled.
    planned: usize,
    /// The sum of the states so far (mean), or the one that counts.
    state: Vec<f64>,
}

/// A part of a text in a batch.
struct Part {
    text: usize,
    start: usize,
    end: usize,
    rows: LogitRows,
}

impl InferenceEngine {
    /// Embeds texts as the model says, else by the state of the last token; vectors have length one.
    ///
    /// # Errors
    /// [`EngineError`]: no tokenizer, a text that is empty or longer than the context, a failing executor.
    pub fn embed<T: AsRef<str>>(&self, texts: &[T]) -> Result<Vec<Vec<f32>>, EngineError> {
        Ok(self.embed_with(texts, &EmbedOptions::default(), &mut |_, _| {})?.vectors)
    }

    /// As [`embed`](Self::embed), with options. `progress` hears how many of how many texts are done.
    ///
    /// # Errors
    /// As [`embed`](Self::embed).
    pub fn embed_with<T: AsRef<str>>(
        &self,
        texts: &[T],
        options: &EmbedOptions,
        progress: &mut dyn FnMut(usize, usize),
    ) -> Result<Embeddings, EngineError> {
        let mut lists = Vec::with_capacity(texts.len());
        for (index, text) in texts.iter().enumerate() {
            lists.push(self.embedding_tokens(index, text.as_ref(), options)?);
        }
        self.embed_tokens(&lists, options, progress)
    }

    /// As [`embed_with`](Self::embed_with), for texts that are tokens already. Nothing is put before or behind them.
    ///
    /// # Errors
    /// [`EngineError`]: a text that is empty or longer than the context, a token outside the vocabulary, a failing executor.
    pub fn embed_ids(
        &self,
        mut lists: Vec<Vec<u32>>,
        options: &EmbedOptions,
        progress: &mut dyn FnMut(usize, usize),
    ) -> Result<Embeddings, EngineError> {
        let (context, vocab_size) = (self.context(), self.spec().vocab_size);
        for (index, list) in lists.iter_mut().enumerate() {
            if options.truncate {
                list.truncate(context);
            }
            if list.is_empty() {
                return Err(EngineError::EmptyText { index });
            }
            if list.len() > context {
                return Err(EngineError::TextTooLong { index, tokens: list.len(), context });
            }
            if let Some(&token) = list.iter().find(|&&token| token as usize >= vocab_size) {
                return Err(EngineError::BadToken { token, vocab_size });
            }
        }
        self.embed_tokens(&lists, options, progress)
    }

    /// The pooling that an embedding with these options uses.
    pub fn pooling(&self, options: &EmbedOptions) -> Pooling {
        options.pooling.or(self.model().embedding.pooling).unwrap_or_default()
    }

    /// The tokens of text number `index`, with what the model wants before and behind a text.
    pub(crate) fn embedding_tokens(
        &self,
        index: usize,
        text: &str,
        options: &EmbedOptions,
    ) -> Result<Vec<u32>, EngineError> {
        let tokenizer = self.tokenizer()?;
        let whole;
        let text = match &options.instruct {
            Some(task) => {
                whole = format!("Instruct: {task}\nQuery: {text}");
                &whole
            }
            None => text,
        };
        let mut tokens = tokenizer.encode(text, EncodeOptions::PROMPT)?;
        let end = tokenizer.end().filter(|end| tokens.last() != Some(end));
        tokens.extend(end);
        let context = self.context();
        if tokens.len() > context {
            if !options.truncate {
                return Err(EngineError::TextTooLong { index, tokens: tokens.len(), context });
            }
            let last = tokenizer.end();
            tokens.truncate(context);
            if let (Some(end), Some(place)) = (last, tokens.last_mut()) {
                *place = end;
            }
        }
        if tokens.is_empty() {
            return Err(EngineError::EmptyText { index });
        }
        let vocab_size = self.spec().vocab_size;
        match tokens.iter().find(|&&token| token as usize >= vocab_size) {
            Some(&token) => Err(EngineError::BadToken { token, vocab_size }),
            None => Ok(tokens),
        }
    }

    /// Embeds lists of tokens, which stay as they are.
    fn embed_tokens(
        &self,
        lists: &[Vec<u32>],
        options: &EmbedOptions,
        progress: &mut dyn FnMut(usize, usize),
    ) -> Result<Embeddings, EngineError> {
        self.core().again_if_lost(|| self.embed_lists(lists.to_vec(), options, progress))
    }

    fn embed_lists(
        &self,
        lists: Vec<Vec<u32>>,
        options: &EmbedOptions,
        progress: &mut dyn FnMut(usize, usize),
    ) -> Result<Embeddings, EngineError> {
        let pooling = self.pooling(options);
        let total = lists.len();
        let counts = lists.iter().map(Vec::len).collect();
        let mut waiting = lists.into_iter();
        let mut texts: Vec<Text> = Vec::new();
        let mut vectors = Vec::with_capacity(total);
        loop {
            let parts = self.next_batch(&mut texts, &mut waiting, pooling)?;
            if parts.is_empty() {
                break;
            }
            self.run_parts(&mut texts, &parts, pooling)?;
            // Texts are taken in order, so those that are done stand first.
            let done = texts.iter().take_while(|text| text.session.computed() == text.tokens.len()).count();
            vectors.extend(texts.drain(..done).map(|text| text.finish(pooling, options.normalize)));
            progress(vectors.len(), total);
        }
        Ok(Embeddings { vectors, tokens: counts, pooling })
    }

    /// Fills a batch: with what is left of the texts that are begun, then with new ones.
    fn next_batch(
        &self,
        texts: &mut Vec<Text>,
        waiting: &mut dyn Iterator<Item = Vec<u32>>,
        pooling: Pooling,
    ) -> Result<Vec<Part>, EngineError> {
        let mut room = self.info().max_batch_tokens.max(1);
        let mut parts = Vec::new();
        for (index, text) in texts.iter_mut().enumerate() {
            room -= text.take(index, room, pooling, &mut parts)?;
        }
        while room > 0 {
            let Some(tokens) = waiting.next() else { break };
            let mut session = self.scratch_session();
            session.extend(&tokens);
            let state = vec![0.0; self.spec().hidden_size];
            let mut text = Text { tokens, session, planned: 0, state };
            room -= text.take(texts.len(), room, pooling, &mut parts)?;
            texts.push(text);
            // A text that has no blocks yet must wait until others give theirs back.
            if texts.last().is_some_and(|text| text.planned == 0) {
                break;
            }
        }
        Ok(parts)
    }

    fn run_parts(&self, texts: &mut [Text], parts: &[Part], pooling: Pooling) -> Result<(), EngineError> {
        let width = self.spec().hidden_size;
        let sequence = |part: &Part| {
            let text = &texts[part.text];
            let (tokens, blocks) = (&text.tokens[part.start..part.end], text.session.blocks());
            Sequence { tokens, position: part.start, blocks, logits: part.rows }
        };
        let sequences: Vec<Sequence<'_>> = parts.iter().map(sequence).collect();
        let batch = Batch { sequences: &sequences };
        let mut hidden = vec![0.0; batch.logit_rows() * width];
        let backend: &mut Backend = &mut self.backend();
        self.reserve_memory(backend)?;
        backend.executor().forward_hidden(&batch, &mut hidden)?;
        let mut rows = hidden.chunks_exact(width);
        for part in parts {
            let text = &mut texts[part.text];
            text.session.set_computed(part.end);
            let count = match part.rows {
                LogitRows::None => 0,
                LogitRows::Last => 1,
                LogitRows::All => part.end - part.start,
            };
            for (i, row) in rows.by_ref().take(count).enumerate() {
                text.add(part.start + i, row, pooling);
            }
        }
        Ok(())
    }
}

impl Text {
    /// Puts as many of the text's next tokens as there is room for into a batch; returns how many. 0 if there are no KV
    /// blocks for them now.
    fn take(
        &mut self,
        index: usize,
        room: usize,
        pooling: Pooling,
        parts: &mut Vec<Part>,
    ) -> Result<usize, EngineError> {
        let (start, end) = (self.planned, self.tokens.len().min(self.planned + room));
        if start == end {
            return Ok(0);
        }
        match self.session.cover(end) {
            // The first text has all blocks there are: nobody will give any back.
            Err(error) if index == 0 => return Err(error.into()),
            Err(_) => return Ok(0),
            Ok(()) => self.planned = end,
        }
        let rows = match pooling {
            Pooling::Last if end == self.tokens.len() => LogitRows::Last,
            Pooling::Last => LogitRows::None,
            Pooling::Cls if start > 0 => LogitRows::None,
            Pooling::Cls | Pooling::Mean => LogitRows::All,
        };
        parts.push(Part { text: index, start, end, rows });
        Ok(end - start)
    }

    /// Notes the state of the token at `position`.
    fn add(&mut self, position: usize, row: &[f32], pooling: Pooling) {
        if pooling == Pooling::Cls && position > 0 {
            return;
        }
        for (state, &x) in self.state.iter_mut().zip(row) {
            *state += f64::from(x);
        }
    }

    /// The vector of a text whose tokens are all computed.
    fn finish(self, pooling: Pooling, normalize: bool) -> Vec<f32> {
        vector(self.state, self.tokens.len(), pooling, normalize)
    }
}

/// A text's vector from the sum of its states, or from the one that counts.
fn vector(mut state: Vec<f64>, tokens: usize, pooling: Pooling, normalize: bool) -> Vec<f32> {
    if pooling == Pooling::Mean {
        let count = tokens as f64;
        state.iter_mut().for_each(|x| *x /= count);
    }
    let length = state.iter().map(|x| x * x).sum::<f64>().sqrt();
    if normalize && length > 0.0 {
        state.iter_mut().for_each(|x| *x /= length);
    }
    state.into_iter().map(|x| x as f32).collect()
}

/// A vector from the states of all tokens, or of the last one if that is the one that counts.
pub(crate) fn pooled<'a>(
    rows: impl ExactSizeIterator<Item = &'a [f32]>,
    pooling: Pooling,
    normalize: bool,
) -> Vec<f32> {
    let count = rows.len();
    let counting = if pooling == Pooling::Cls { 1 } else { count };
    let mut state = Vec::new();
    for row in rows.take(counting) {
        state.resize(row.len(), 0.0);
        state.iter_mut().zip(row).for_each(|(state, &x)| *state += f64::from(x));
    }
    vector(state, count, pooling, normalize)
}

/// Cosine of the angle between two vectors of the same length; 0 if one of them is nothing but zeros.
///
/// # Panics
/// If the lengths differ.
pub fn cosine_similarity(a: &[f32], b: &[f32]) -> f64 {
    assert_eq!(a.len(), b.len(), "vectors of one model");
    let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(&a, &b)| f64::from(a) * f64::from(b)).sum::<f64>();
    let lengths = (dot(a, a) * dot(b, b)).sqrt();
    if lengths > 0.0 { dot(a, b) / lengths } else { 0.0 }
}

#[cfg(test)]
mod tests {
    use super::cosine_similarity;

    #[test]
    fn cosines() {
        assert!((cosine_similarity(&[3.0, 4.0], &[4.0, 3.0]) - 0.96).abs() < 1e-12);
        assert_eq!(cosine_similarity(&[1.0, 0.0], &[0.0, -2.0]), 0.0);
        assert_eq!(cosine_similarity(&[0.0, 0.0], &[1.0, 1.0]), 0.0);
        assert_eq!(cosine_similarity(&[-2.0], &[5.0]), -1.0);
    }
}
