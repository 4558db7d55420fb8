//! Generated tokens as text: whole characters, cut at the first stop string.

use bitnet_text::{Detokenizer, StopStrings};

/// Text reserved for each token: twice what tokens usually have. A text that needs more grows.
const TOKEN_BYTES: usize = 8;
/// Most text reserved, as a limit of tokens that nobody meant to reach should cost little.
const MAX_RESERVED: usize = 1 << 20;

/// Collects the text of a generation and tells what may be shown of it.
#[derive(Debug, Clone)]
pub(super) struct TextStream {
    /// Absent if the model has no tokenizer: then there is no text.
    detokenizer: Option<Detokenizer>,
    /// Absent if the request has no stop strings, so that the usual token takes no detour.
    stop: Option<StopStrings>,
    text: String,
}

impl TextStream {
    /// The text will be appended to `text`.
    pub(super) fn new(detokenizer: Option<Detokenizer>, stop: &[String], text: String) -> Self {
        let stop = (!stop.is_empty()).then(|| StopStrings::new(stop.to_vec()));
        Self { detokenizer, stop, text }
    }

    /// Makes room for the text of up to `tokens` tokens.
    pub(super) fn reserve(&mut self, tokens: usize) {
        if self.detokenizer.is_some() {
            self.text.reserve(tokens.saturating_mul(TOKEN_BYTES).min(MAX_RESERVED));
        }
    }

    /// Takes a token; gives the text that is certain now and the stop string that ended it, if one did.
    pub(super) fn push(&mut self, id: u32) -> (&str, Option<String>) {
        let start = self.text.len();
        let Some(detokenizer) = &mut self.detokenizer else { return ("", None) };
        let matched = append(&mut self.text, &mut self.stop, detokenizer.push(id));
        (&self.text[start..], matched)
    }

    /// Ends the text; gives what was held back, and the stop string that its last character completed, if one did.
    pub(super) fn finish(&mut self) -> (&str, Option<String>) {
        let start = self.text.len();
        let Some(detokenizer) = &mut self.detokenizer else { return ("", None) };
        let matched = append(&mut self.text, &mut self.stop, &detokenizer.finish());
        if let (None, Some(stop)) = (&matched, &mut self.stop) {
            self.text.push_str(&stop.finish());
        }
        (&self.text[start..], matched)
    }

    /// The whole text.
    pub(super) fn into_text(self) -> String {
        self.text
    }
}

/// Appends what is certain of `piece`.
fn append(text: &mut String, stop: &mut Option<StopStrings>, piece: &str) -> Option<String> {
    let Some(stop) = stop else {
        text.push_str(piece);
        return None;
    };
    let outcome = stop.push(piece);
    text.push_str(&outcome.emit);
    outcome.matched
}
