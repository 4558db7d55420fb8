//! [`Detokenizer`]: text from tokens as they arrive. A token may hold a part of a character only; nothing is given out
//! before the character is whole.

use std::sync::Arc;

use crate::tokenizer::Tokenizer;

/// Bytes reserved for a token, more than nearly all have.
const ROOM: usize = 256;

/// Decodes a sequence of tokens one by one. The pieces together are the text that
/// [`Tokenizer::decode`] gives for the whole sequence.
#[derive(Debug, Clone)]
pub struct Detokenizer {
    tokenizer: Arc<Tokenizer>,
    skip_special: bool,
    /// A space at the very beginning is still to be dropped.
    drop_space: bool,
    /// Bytes that may be the beginning of a character; at most three.
    pending: Vec<u8>,
    complete: String,
}

impl Detokenizer {
    pub(crate) fn new(tokenizer: Arc<Tokenizer>, skip_special: bool, drop_space: bool) -> Self {
        Self {
            tokenizer,
            skip_special,
            drop_space,
            pending: Vec::with_capacity(ROOM),
            complete: String::with_capacity(ROOM),
        }
    }

    /// Takes the next token and returns the text that is now complete, often one word, sometimes nothing. Bytes that
    /// can be part of no character come out as U+FFFD.
    pub fn push(&mut self, id: u32) -> &str {
        self.complete.clear();
        let mut bytes = self.tokenizer.text_bytes(id, self.skip_special);
        if self.drop_space && !bytes.is_empty() {
            self.drop_space = false;
            bytes = bytes.strip_prefix(b" ").unwrap_or(bytes);
        }
        self.pending.extend_from_slice(bytes);
        let mut used = 0;
        for chunk in self.pending.utf8_chunks() {
            self.complete.push_str(chunk.valid());
            used += chunk.valid().len();
            let invalid = chunk.invalid();
            let at_end = used + invalid.len() == self.pending.len();
            if invalid.is_empty() || at_end && can_be_completed(invalid) {
                break;
            }
            self.complete.push(char::REPLACEMENT_CHARACTER);
            used += invalid.len();
        }
        self.pending.drain(..used);
        &self.complete
    }

    /// Ends the text: returns U+FFFD if it breaks off inside a character, else nothing. The next token begins a new
    /// text, without the rule for its first space.
    pub fn finish(&mut self) -> String {
        let rest = String::from_utf8_lossy(&self.pending).into_owned();
        self.pending.clear();
        rest
    }
}

/// Whether more bytes could make a character of these.
fn can_be_completed(bytes: &[u8]) -> bool {
    std::str::from_utf8(bytes).is_err_and(|error| error.valid_up_to() == 0 && error.error_len().is_none())
}
