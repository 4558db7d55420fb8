//! [`GenerationDefaults`]: how a model wants to be sampled and where it stops.

use bitnet_text::Tokenizer;

use super::error::Result;
use super::json::Section;

/// Sampling defaults of a model. What the model says nothing about is `None`.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct GenerationDefaults {
    /// Whether to sample at all; false means greedy.
    pub do_sample: Option<bool>,
    /// Temperature, at least 0.
    pub temperature: Option<f32>,
    /// Number of candidates; 0 means all.
    pub top_k: Option<u32>,
    /// Probability mass of the candidates, 0 to 1.
    pub top_p: Option<f32>,
    /// Least probability of a candidate relative to the best one, 0 to 1.
    pub min_p: Option<f32>,
    /// Divides the logits of tokens that occurred, more than 0.
    pub repetition_penalty: Option<f32>,
    /// Most tokens to generate.
    pub max_new_tokens: Option<u32>,
    /// Tokens that end a text: the union of what configuration, tokenizer and vocabulary say. Models name only some of
    /// theirs: the configuration of bitnet-b1.58-2B-4T has 128001, but its chat turns end with 128009.
    pub stop_tokens: Vec<u32>,
    /// Begin-of-text token.
    pub bos: Option<u32>,
}

/// Special tokens that end a text in every model that has them.
const STOP_NAMES: [&str; 5] = ["<|eot_id|>", "<|end_of_text|>", "<|im_end|>", "<|endoftext|>", "</s>"];

impl GenerationDefaults {
    /// Reads a `generation_config.json`.
    ///
    /// # Errors
    /// If a field has the wrong type or is out of range.
    pub(super) fn read(root: &Section<'_>) -> Result<Self> {
        let ranged = |name: &str, expected: &str, fits: fn(f64) -> bool| match root.number(name)? {
            Some(value) if !fits(value) => Err(root.wrong(name, expected)),
            value => Ok(value.map(|v| v as f32)),
        };
        let count = |name: &str| match root.count(name)?.map(u32::try_from) {
            Some(Err(_)) => Err(root.wrong(name, "a whole number of at most 4294967295")),
            Some(Ok(value)) => Ok(Some(value)),
            None => Ok(None),
        };
        let share = |v: f64| (0.0..=1.0).contains(&v);
        Ok(Self {
            do_sample: root.flag("do_sample")?,
            temperature: ranged("temperature", "a number from 0 to 100", |v| (0.0..=100.0).contains(&v))?,
            top_k: count("top_k")?,
            top_p: ranged("top_p", "a number from 0 to 1", share)?,
            min_p: ranged("min_p", "a number from 0 to 1", share)?,
            repetition_penalty: ranged("repetition_penalty", "a number above 0, at most 100", |v| {
                v > 0.0 && v <= 100.0
            })?,
            max_new_tokens: count("max_new_tokens")?,
            stop_tokens: root.token_ids("eos_token_id")?,
            bos: root.token_ids("bos_token_id")?.first().copied(),
        })
    }

    /// Adds the stop tokens that the vocabulary names, and drops what is not in the vocabulary at all.
    pub(super) fn finish(
        &mut self,
        vocab_size: usize,
        tokenizer: Option<&Tokenizer>,
        warnings: &mut Vec<String>,
    ) {
        if let Some(tokenizer) = tokenizer {
            let named = STOP_NAMES.iter().filter_map(|name| tokenizer.token_id(name));
            self.stop_tokens.extend(named.filter(|&id| tokenizer.is_special(id)));
            self.bos = self.bos.or(tokenizer.bos());
        }
        let mut kept: Vec<u32> = Vec::new();
        for &id in &self.stop_tokens {
            if id as usize >= vocab_size {
                warnings.push(format!(
                    "the stop token {id} is outside the vocabulary of {vocab_size} and is ignored"
                ));
            } else if !kept.contains(&id) {
                kept.push(id);
            }
        }
        self.stop_tokens = kept;
        if let Some(id) = self.bos.filter(|&id| id as usize >= vocab_size) {
            warnings.push(format!(
                "the begin token {id} is outside the vocabulary of {vocab_size} and is ignored"
            ));
            self.bos = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load::json::JsonFile;

    fn read(text: &str) -> Result<GenerationDefaults> {
        GenerationDefaults::read(&JsonFile::parse(text.as_bytes(), "generation_config.json")?.root())
    }

    #[test]
    fn one_stop_token_or_several() {
        let one = read(r#"{"eos_token_id": 2, "temperature": 0.6, "do_sample": true, "top_k": 50}"#).unwrap();
        assert_eq!((one.stop_tokens.as_slice(), one.temperature, one.top_k), (&[2][..], Some(0.6), Some(50)));
        assert_eq!(read(r#"{"eos_token_id": [128001, 128009]}"#).unwrap().stop_tokens, [128001, 128009]);
        assert_eq!(read("{}").unwrap(), GenerationDefaults::default());
    }

    #[test]
    fn impossible_values_are_named() {
        for (text, field) in [
            (r#"{"temperature": -1}"#, "temperature"),
            (r#"{"top_p": 1.5}"#, "top_p"),
            (r#"{"top_k": -3}"#, "top_k"),
            (r#"{"top_k": 99999999999}"#, "top_k"),
            (r#"{"repetition_penalty": 0}"#, "repetition_penalty"),
            (r#"{"eos_token_id": "</s>"}"#, "eos_token_id"),
            (r#"{"eos_token_id": [1, 2.5]}"#, "eos_token_id"),
        ] {
            let message = read(text).unwrap_err().to_string();
            assert!(message.starts_with("generation_config.json: ") && message.contains(field), "{message}");
        }
    }

    #[test]
    fn tokens_outside_the_vocabulary_are_dropped() {
        let mut g = read(r#"{"eos_token_id": [7, 3, 7], "bos_token_id": 5}"#).unwrap();
        let mut warnings = Vec::new();
        g.finish(5, None, &mut warnings);
        assert_eq!((g.stop_tokens.as_slice(), g.bos, warnings.len()), (&[3][..], None, 3));
    }
}
