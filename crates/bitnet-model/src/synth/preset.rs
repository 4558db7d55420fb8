//! [`ShapePreset`]: the shapes of published models.

use super::{SynthError, families};
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
    /// A Llama shape for tests.
    TinyLlama,
    /// tiiuae/Falcon3-1B-Instruct-1.58bit.
    Falcon3_1B,
    /// tiiuae/Falcon3-3B-Base-1.58bit.
    Falcon3_3B,
    /// tiiuae/Falcon3-7B-Base-1.58bit.
    Falcon3_7B,
    /// tiiuae/Falcon3-10B-Base-1.58bit.
    Falcon3_10B,
    /// A Falcon3 shape for tests, with heads of 256.
    TinyFalcon3,
    /// BitNet-embedding 0.6B (Qwen3).
    Embedding600M,
    /// BitNet-embedding 270M (Gemma 3).
    Embedding270M,
    /// A shape like [`Self::Embedding600M`] for tests.
    TinyQwen3,
    /// A shape like [`Self::Embedding270M`] for tests.
    TinyGemma3,
}

/// The class of the first reproductions (1bitLLM), whose files have names of their own.
pub(super) const FIRST_BITNET: &str = "BitnetForCausalLM";

/// Other names of presets.
const ALIASES: [(&str, ShapePreset); 4] = [
    ("1bitllmlarge", ShapePreset::B700M),
    ("1bitllmxl", ShapePreset::B1_3B),
    ("1bitllm3b", ShapePreset::B3B),
    ("8b", ShapePreset::B8B),
];

impl ShapePreset {
    /// All presets, family by family.
    pub const ALL: [Self; 17] = [
        Self::Tiny,
        Self::B700M,
        Self::B2_4T,
        Self::B3B,
        Self::B1_3B,
        Self::TinyFirst,
        Self::B8B,
        Self::TinyLlama,
        Self::Falcon3_1B,
        Self::Falcon3_3B,
        Self::Falcon3_7B,
        Self::Falcon3_10B,
        Self::TinyFalcon3,
        Self::Embedding600M,
        Self::Embedding270M,
        Self::TinyQwen3,
        Self::TinyGemma3,
    ];

    /// The name that [`parse`](Self::parse) takes.
    pub const fn name(self) -> &'static str {
        match self {
            ShapePreset::Tiny => "tiny",
            ShapePreset::B700M => "700m",
            ShapePreset::B2_4T => "2b4t",
            ShapePreset::B3B => "3b",
            ShapePreset::B1_3B => "1.3b",
            ShapePreset::TinyFirst => "tiny-1bitllm",
            ShapePreset::B8B => "llama3-8b",
            ShapePreset::TinyLlama => "tiny-llama",
            ShapePreset::Falcon3_1B => "falcon3-1b",
            ShapePreset::Falcon3_3B => "falcon3-3b",
            ShapePreset::Falcon3_7B => "falcon3-7b",
            ShapePreset::Falcon3_10B => "falcon3-10b",
            ShapePreset::TinyFalcon3 => "tiny-falcon3",
            ShapePreset::Embedding600M => "embedding-0.6b",
            ShapePreset::Embedding270M => "embedding-270m",
            ShapePreset::TinyQwen3 => "tiny-qwen3",
            ShapePreset::TinyGemma3 => "tiny-gemma3",
        }
    }

    /// What it is the shape of, for people.
    pub const fn description(self) -> &'static str {
        match self {
            ShapePreset::Tiny => "for tests: 4 layers of 256, otherwise as 2b4t",
            ShapePreset::B700M => "1bitLLM/bitnet_b1_58-large",
            ShapePreset::B2_4T => "microsoft/bitnet-b1.58-2B-4T",
            ShapePreset::B3B => "1bitLLM/bitnet_b1_58-3B",
            ShapePreset::B1_3B => "1bitLLM/bitnet_b1_58-xl",
            ShapePreset::TinyFirst => "for tests, as 1bitLLM's: 2 layers, heads of 100",
            ShapePreset::B8B => "HF1BitLLM/Llama3-8B-1.58-100B-tokens",
            ShapePreset::TinyLlama => "for tests, as llama3-8b",
            ShapePreset::Falcon3_1B => "tiiuae/Falcon3-1B-Instruct-1.58bit",
            ShapePreset::Falcon3_3B => "tiiuae/Falcon3-3B-Base-1.58bit",
            ShapePreset::Falcon3_7B => "tiiuae/Falcon3-7B-Base-1.58bit",
            ShapePreset::Falcon3_10B => "tiiuae/Falcon3-10B-Base-1.58bit",
            ShapePreset::TinyFalcon3 => "for tests, as falcon3: heads of 256",
            ShapePreset::Embedding600M => "BitNet-embedding 0.6B (Qwen3)",
            ShapePreset::Embedding270M => "BitNet-embedding 270M (Gemma 3)",
            ShapePreset::TinyQwen3 => "for tests, as embedding-0.6b",
            ShapePreset::TinyGemma3 => "for tests, as embedding-270m, with a sliding window",
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
            ShapePreset::B1_3B => [24, 2048, 5460, 32, 32, 32_002, 2048],
            ShapePreset::TinyFirst => [2, 400, 540, 4, 4, 1024, 512],
            ShapePreset::B8B => return families::LLAMA3_8B.spec(),
            ShapePreset::TinyLlama => return families::TINY_LLAMA.spec(),
            ShapePreset::Falcon3_1B => return families::FALCON3_1B.spec(),
            ShapePreset::Falcon3_3B => return families::FALCON3_3B.spec(),
            ShapePreset::Falcon3_7B => return families::FALCON3_7B.spec(),
            ShapePreset::Falcon3_10B => return families::FALCON3_10B.spec(),
            ShapePreset::TinyFalcon3 => return families::TINY_FALCON3.spec(),
            ShapePreset::Embedding600M | ShapePreset::TinyQwen3 => {
                return families::qwen3_embedding(self == ShapePreset::TinyQwen3);
            }
            ShapePreset::Embedding270M | ShapePreset::TinyGemma3 => {
                return families::gemma3_embedding(self == ShapePreset::TinyGemma3);
            }
        };
        let like_2b = matches!(self, ShapePreset::Tiny | ShapePreset::B2_4T);
        ModelSpec {
            architecture: if like_2b { "BitNetForCausalLM" } else { FIRST_BITNET }.to_owned(),
            vocab_size: vocab,
            hidden_size: hidden,
            intermediate_size: ffn,
            num_layers: layers,
            num_heads: heads,
            num_kv_heads: kv_heads,
            head_dim: hidden / heads,
            activation: if like_2b { Activation::Relu2 } else { Activation::Silu },
            sub_norms: true,
            rms_norm_eps: 1e-5,
            rope_theta: if like_2b { 500_000.0 } else { 10_000.0 },
            context_length: context,
            tied_output: true,
            extras: crate::Extras::default(),
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
        assert_eq!(ShapePreset::parse("8b").unwrap(), ShapePreset::B8B);
        assert_eq!(ShapePreset::B2_4T.spec().parameters(), 2_412_820_480);
        assert_eq!(ShapePreset::B8B.spec().parameters(), 8_030_261_248);
        // Qwen3-0.6B has 596,049,920; the rest are norms before projections and the head's.
        let extra = 28 * (5 * 1024 + 2048 + 3072);
        assert_eq!(ShapePreset::Embedding600M.spec().parameters(), 596_049_920 + extra);
    }
}
