//! The roofline: what a test must read and multiply at least, and how long the machine's limits make that take.
//!
//! Counted are the packed ternary weights and the output layer, once a forward call whatever the number of rows, the keys
//! and values of the context, once a sequence, and the multiply-adds of the ternary layers. Attention, norms and the
//! products of the output layer are not counted as multiply-adds: they take time, but a limit must not be set too low.

use bitnet_cpu::limits::Limits;
use bitnet_model::{ExecutorInfo, ModelSpec};

use super::BenchmarkTest;

/// Which limit a phase comes up against.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bound {
    /// The bandwidth of reading memory.
    Memory,
    /// The int8 multiplier.
    Multiplier,
}

impl Bound {
    /// For people.
    pub fn name(self) -> &'static str {
        match self {
            Self::Memory => "memory",
            Self::Multiplier => "int8",
        }
    }
}

/// Work of some forward calls.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Phase {
    /// Bytes to read from memory.
    pub bytes: f64,
    /// int8 multiply-adds of the ternary layers.
    pub macs: f64,
}

impl Phase {
    /// The least time that this takes, and what sets it. Without a measured multiplier, memory does.
    pub fn bound(&self, limits: &Limits) -> (f64, Bound) {
        let memory = self.bytes / limits.read_bytes;
        match limits.macs.map(|peak| self.macs / peak) {
            Some(multiplier) if multiplier > memory => (multiplier, Bound::Multiplier),
            _ => (memory, Bound::Memory),
        }
    }
}

/// Work of one repetition of a test.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Work {
    /// Computing the prompts.
    pub prompt: Phase,
    /// Generating.
    pub generate: Phase,
}

impl Work {
    /// The work of `test`; `all_logits` if the output layer is computed whole.
    pub fn of(test: &BenchmarkTest, spec: &ModelSpec, info: &ExecutorInfo, all_logits: bool) -> Self {
        let traffic = &info.traffic;
        let layers = traffic.layers.as_bytes() as f64;
        let output = if all_logits { traffic.output } else { traffic.output_scan }.as_bytes() as f64;
        let kv = info.block_bytes.as_bytes() as f64 / info.block_size as f64;
        let macs = spec.ternary_parameters() as f64;
        let sequences = test.sequences as f64;

        let mut prompt = Phase { bytes: 0.0, macs: macs * test.prompt as f64 };
        for done in (0..test.prompt).step_by(info.max_batch_tokens.max(1)) {
            prompt.bytes += layers + kv * (test.depth + done) as f64;
        }
        if test.prompt > 0 {
            prompt.bytes += output;
        }
        prompt = Phase { bytes: prompt.bytes * sequences, macs: prompt.macs * sequences };

        let steps = test.generate as f64;
        let first = (test.depth + test.prompt) as f64;
        let context = steps * first + steps * (steps - 1.0) / 2.0;
        let generate = Phase {
            bytes: steps * (layers + output) + sequences * kv * context,
            macs: steps * sequences * macs,
        };
        Self { prompt, generate }
    }

    /// The least seconds that both phases take, and what sets the longer one.
    pub fn bound(&self, limits: &Limits) -> (f64, Bound) {
        let (prompt, generate) = (self.prompt.bound(limits), self.generate.bound(limits));
        (prompt.0 + generate.0, if prompt.0 > generate.0 { prompt.1 } else { generate.1 })
    }

    /// Bytes of both phases.
    pub fn bytes(&self) -> f64 {
        self.prompt.bytes + self.generate.bytes
    }

    /// Multiply-adds of both phases.
    pub fn macs(&self) -> f64 {
        self.prompt.macs + self.generate.macs
    }
}

#[cfg(test)]
mod tests {
    use bitnet_core::MemorySize;
    use bitnet_model::{Activation, Extras, KvType, Traffic};

    use super::*;

    fn spec() -> ModelSpec {
        ModelSpec {
            architecture: "test".to_owned(),
            vocab_size: 100,
            hidden_size: 64,
            intermediate_size: 128,
            num_layers: 2,
            num_heads: 4,
            num_kv_heads: 2,
            head_dim: 16,
            activation: Activation::Relu2,
            sub_norms: true,
            rms_norm_eps: 1e-5,
            rope_theta: 1e4,
            context_length: 64,
            tied_output: true,
            extras: Extras::default(),
        }
    }

    fn info() -> ExecutorInfo {
        ExecutorInfo {
            description: "test".to_owned(),
            weight_bytes: MemorySize::bytes(1500),
            file_bytes: MemorySize::bytes(0),
            block_size: 4,
            block_bytes: MemorySize::bytes(40),
            kv_type: KvType::F16,
            max_batch_tokens: 8,
            kernels: "scalar",
            threads: 1,
            traffic: Traffic {
                layers: MemorySize::bytes(1000),
                output: MemorySize::bytes(500),
                output_scan: MemorySize::bytes(250),
            },
        }
    }

    #[test]
    fn generation_reads_weights_once_and_the_context_of_each_sequence() {
        let test = BenchmarkTest { prompt: 0, generate: 3, depth: 5, sequences: 2 };
        let work = Work::of(&test, &spec(), &info(), false);
        // Positions 5, 6 and 7 of ten bytes each, for two sequences.
        assert_eq!(work.generate.bytes, 3.0 * 1250.0 + 2.0 * 10.0 * 18.0);
        assert_eq!(work.generate.macs, 6.0 * spec().ternary_parameters() as f64);
        assert_eq!(work.prompt, Phase::default());
        let all = Work::of(&test, &spec(), &info(), true);
        assert_eq!(all.generate.bytes - work.generate.bytes, 3.0 * 250.0);
    }

    #[test]
    fn a_prompt_reads_weights_once_a_chunk() {
        let test = BenchmarkTest { prompt: 20, generate: 0, depth: 4, sequences: 1 };
        let work = Work::of(&test, &spec(), &info(), false);
        assert_eq!(work.prompt.bytes, 3.0 * 1000.0 + 10.0 * (4.0 + 12.0 + 20.0) + 250.0);
        assert_eq!(work.prompt.macs, 20.0 * spec().ternary_parameters() as f64);
        assert_eq!(work.generate, Phase::default());
    }

    #[test]
    fn the_slower_limit_counts() {
        let limits = Limits { read_bytes: 100.0, macs: Some(1000.0) };
        let phase = |bytes, macs| Phase { bytes, macs };
        assert_eq!(phase(200.0, 1000.0).bound(&limits), (2.0, Bound::Memory));
        assert_eq!(phase(200.0, 5000.0).bound(&limits), (5.0, Bound::Multiplier));
        let unknown = Limits { macs: None, ..limits };
        assert_eq!(phase(200.0, 5000.0).bound(&unknown), (2.0, Bound::Memory));
        let work = Work { prompt: phase(0.0, 5000.0), generate: phase(200.0, 0.0) };
        assert_eq!(work.bound(&limits), (7.0, Bound::Multiplier));
    }
}
