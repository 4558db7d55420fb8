//! [`ShapePreset`]: the shapes of published models.

use super::SynthError;
use crate::{Activation, ModelSpec};

/// A shape of a published model, or a tiny one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ShapePreset {
    /// A shape for tests: 4 layers of 256, vocabulary 1024, otherwise as 2B-4T.
    Tiny,
    /// 1bitLLM/bitnet_b1_58-large.
    B700M,
    /// 1bitLLM/bitnet_b1_58-xl. Its feed-forward width does not fit I2_S.
    B1_3B,
    /// microsoft/bitnet-b1.58-2B-4T.
    B2_4T,
    /// 1bitLLM/bitnet_b1_58-3B. Its feed-forward width does not fit I2_S.
    B3B,
    /// HF1BitLLM/Llama3-8B-1.58.
    B8B,
    /// A shape like that of 1bitLLM's models for tests: 2 layers, heads of 100, rows of 540.
    TinyFirst,
}

/// The class of the first reproductions (1bitLLM), whose files have names of their own.
pub(super) const FIRST_BITNET: &str = "BitnetForCausalLM";

/// Other names of presets.
const ALIASES: [(&str, ShapePreset); 3] = [
    ("1bitllmlarge", ShapePreset::B700M),
    ("1bitllmxl", ShapePreset::B1_3B),
    ("1bitllm3b", ShapePreset::B3B),
];

impl ShapePreset {
    /// All presets.
    pub const ALL: [Self; 7] =
        [Self::Tiny, Self::B700M, Self::B2_4T, Self::B3B, Self::B8B, Self::B1_3B, Self::TinyFirst];

    /// The name that [`parse`](Self::parse) takes.
    pub const fn name(self) -> &'static str {
        match self {
            ShapePreset::Tiny => "tiny",
            ShapePreset::B700M => "700m",
            ShapePreset::B2_4T => "2b4t",
            ShapePreset::B3B => "3b",
            ShapePreset::B8B => "8b",
            ShapePreset::B1_3B => "1.3b",
            ShapePreset::TinyFirst => "tiny-1bitllm",
        }
    }

    /// Finds a preset by name, in any case and with or without hyphens.
    ///
    /// # Errors
    /// [`SynthError::UnknownShape`] with the names there are.
    pub fn parse(name: &str) -> Result<Self, SynthError> {
        let plain = name.to_ascii_lowercase().replace(['-', '_'], "");
        let alias = ALIASES.iter().find(|(alias, _)| *alias == plain).map(|&(_, preset)| preset);
        let named = || Self::ALL.into_iter().find(|preset| preset.name().replace('-', "") == plain);
        alias.or_else(named).ok_or_else(|| SynthError::UnknownShape {
            name: name.to_owned(),
            known: Self::ALL.map(Self::name).join(", "),
        })
    }

    /// The architecture.
    pub fn spec(self) -> ModelSpec {
        let [layers, hidden, ffn, heads, kv_heads, vocab, context] = match self {
            ShapePreset::Tiny => [4, 256, 512, 4, 2, 1024, 512],
            ShapePreset::B700M => [24, 1536, 4096, 16, 16, 32_002, 2048],
            ShapePreset::B2_4T => [30, 2560, 6912, 20, 5, 128_256, 4096],
            ShapePreset::B3B => [26, 3200, 8640, 32, 32, 32_002, 2048],
            ShapePreset::B8B => [32, 4096, 14_336, 32, 8, 128_256, 8192],
            ShapePreset::B1_3B => [24, 2048, 5460, 32, 32, 32_002, 2048],
            ShapePreset::TinyFirst => [2, 400, 540, 4, 4, 1024, 512],
        };
        let like_2b = matches!(self, ShapePreset::Tiny | ShapePreset::B2_4T);
        let llama = self == ShapePreset::B8B;
        ModelSpec {
            architecture: match (llama, like_2b) {
                (true, _) => "LlamaForCausalLM",
                (false, true) => "BitNetForCausalLM",
                (false, false) => FIRST_BITNET,
            }
            .to_owned(),
            vocab_size: vocab,
            hidden_size: hidden,
            intermediate_size: ffn,
            num_layers: layers,
            num_heads: heads,
            num_kv_heads: kv_heads,
            head_dim: hidden / heads,
            activation: if like_2b { Activation::Relu2 } else { Activation::Silu },
            sub_norms: !llama,
            rms_norm_eps: 1e-5,
            rope_theta: if like_2b || llama { 500_000.0 } else { 10_000.0 },
            context_length: context,
            tied_output: !llama,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn presets_are_sound_and_found_by_name() {
        for preset in ShapePreset::ALL {
            preset.spec().validate().unwrap();
            assert_eq!(ShapePreset::parse(preset.name()).unwrap(), preset);
        }
        assert_eq!(ShapePreset::parse("2B-4T").unwrap(), ShapePreset::B2_4T);
        assert_eq!(ShapePreset::parse("1bitllm-3b").unwrap().spec().head_dim, 100);
        assert_eq!(ShapePreset::parse("1bitLLM-large").unwrap().spec().head_dim, 96);
        assert_eq!(ShapePreset::parse("1bitllm_xl").unwrap().spec().intermediate_size, 5460);
        assert!(ShapePreset::parse("9b").unwrap_err().to_string().contains("tiny, 700m, 2b4t"));
        assert_eq!(ShapePreset::B2_4T.spec().parameters(), 2_412_820_480);
    }
}
