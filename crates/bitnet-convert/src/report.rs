//! [`Report`]: what a conversion did, for people and machines.

use serde::Serialize;

/// What a conversion did.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// Name of the model.
    pub model: String,
    /// Where it was.
    pub source: String,
    /// Form it was in.
    pub source_format: String,
    /// Where it is now.
    pub output: String,
    /// Form it is in now.
    pub output_format: String,
    /// Bytes of the output's weight files.
    pub output_bytes: u64,
    /// What the comparison of both found.
    pub verification: Verification,
    /// What people should know: what was corrected, what could not be kept.
    pub notes: Vec<String>,
    /// Seconds until everything was written.
    pub write_seconds: f64,
    /// Seconds that the comparison took.
    pub verify_seconds: f64,
}

/// What a comparison of two models found. Trits and norms are equal, or it would have failed.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Verification {
    /// Ternary matrices compared.
    pub ternary_tensors: u64,
    /// Trits compared, all of them equal.
    pub trits: u64,
    /// Scales of ternary matrices.
    pub scales: Rounding,
    /// Values of norms compared, all of them equal.
    pub norm_values: u64,
    /// Values of embedding and output layer.
    pub tables: Rounding,
    /// Texts, if there is a tokenizer.
    pub texts: Option<TextCheck>,
    /// Whether all of it is equal: logits are the same bits.
    pub lossless: bool,
}

/// How values changed.
#[derive(Debug, Clone, Copy, Default, Serialize)]
pub struct Rounding {
    /// Values compared.
    pub values: u64,
    /// Values that changed.
    pub changed: u64,
    /// Largest difference relative to the value, or to the largest of its row for tables.
    pub max_relative: f64,
}

impl Rounding {
    /// Adds the findings of another part.
    pub(crate) fn add(&mut self, other: Self) {
        self.values += other.values;
        self.changed += other.changed;
        self.max_relative = self.max_relative.max(other.max_relative);
    }
}

/// What was encoded by both tokenizers, with equal tokens.
#[derive(Debug, Clone, Copy, Default, Serialize)]
pub struct TextCheck {
    /// Texts, among them every token by itself.
    pub texts: u64,
    /// Tokens they became.
    pub tokens: u64,
    /// Conversations rendered and encoded.
    pub conversations: u64,
}
