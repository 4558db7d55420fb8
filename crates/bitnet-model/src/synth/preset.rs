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
    /// microsoft/bitnet-b1.58-2B-4T.
    B2_4T,
    /// 1bitLLM/bitnet_b1_58-3B. Its feed-forward width does not fit I2_S.
    B3B,
    /// HF1BitLLM/Llama3-8B-1.58.
    B8B,
}

impl ShapePreset {
    /// All presets, smallest first.
    pub const ALL: [Self; 5] = [Self::Tiny, Self::B700M, Self::B2_4T, Self::B3B, Self::B8B];

    /// The name that [`parse`](Self::parse) takes.
    pub const fn name(self) -> &'static str {
        match self {
            ShapePreset::Tiny => "tiny",
            ShapePreset::B700M => "700m",
            ShapePreset::B2_4T => "2b4t",
            ShapePreset::B3B => "3b",
            ShapePreset::B8B => "8b",
        }
    }

    /// Finds a preset by name, in any case and with or without hyphens.
    ///
    /// # Errors
    /// [`SynthError::UnknownShape`] with the names there are.
    pub fn parse(name: &str) -> Result<Self, SynthError> {
        let plain = name.to_ascii_lowercase().replace(['-', '_'], "");
        Self::ALL.into_iter().find(|preset| preset.name() == plain).ok_or_else(|| SynthError::UnknownShape {
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
        };
        let like_2b = matches!(self, ShapePreset::Tiny | ShapePreset::B2_4T);
        let llama = self == ShapePreset::B8B;
        ModelSpec {
            architecture: if llama { "LlamaForCausalLM" } else { "BitNetForCausalLM" }.to_owned(),
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
        assert!(ShapePreset::parse("9b").unwrap_err().to_string().contains("tiny, 700m, 2b4t"));
        assert_eq!(ShapePreset::B2_4T.spec().parameters(), 2_412_820_480);
    }
}
