//! Where in a text its tokens are.

use std::ops::Range;

use super::{EncodeOptions, Tokenizer};

impl Tokenizer {
    /// The bytes of `text` that each of its tokens `ids` stands for; `options` are those it was encoded with, for a
    /// rendered template [`EncodeOptions::TEMPLATE`]. `None` for tokens that were added to the text, and from where on
    /// the tokens do not spell the text: some vocabularies normalise it, or have no token for a character.
    pub fn spans(&self, text: &str, ids: &[u32], options: EncodeOptions) -> Vec<Option<Range<usize>>> {
        let mut rest = text.as_bytes();
        let mut lost = false;
        // Where text begins a vocabulary may have put a space before it.
        let mut begins = true;
        let mut span = |id: u32| {
            let special = self.is_special(id);
            if lost || special && !options.parse_special {
                return None;
            }
            let bytes = self.token_bytes(id).unwrap_or_default();
            let unspaced = bytes.strip_prefix(b" ").filter(|_| begins);
            begins = special;
            // Some added tokens take white space along.
            let trimmed = rest.trim_ascii_start();
            let found = match (rest.strip_prefix(bytes), unspaced.and_then(|bytes| rest.strip_prefix(bytes)))
            {
                (Some(after), _) | (None, Some(after)) => Some((rest.len(), after)),
                (None, None) => trimmed.strip_prefix(bytes).map(|after| (trimmed.len(), after)),
            };
            // A special token that the text does not spell was added to it.
            lost = found.is_none() && !special;
            let (from, after) = found?;
            rest = after;
            Some(text.len() - from..text.len() - after.len())
        };
        ids.iter().map(|&id| span(id)).collect()
    }
}
