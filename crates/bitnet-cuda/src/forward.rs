//! [`Pass`]: the launches of one forward pass.
//!
//! Which kernels compute a product depends on the number of tokens; all give the same bits.

use bitnet_model::{Activation, ModelSpec};
use bytemuck::bytes_of;

use crate::CudaError;
use crate::args::{
    ActivateArgs, EmbedArgs, Epilogue, GemmArgs, HeadsArgs, KvTarget, LogitsArgs, NormArgs, Product,
    QuantizeArgs,
};
use crate::gpu::{Address, Gpu, Launch};
use crate::kv::KvLayout;
use crate::layout::GROUP;
use crate::model::{Layer, Matrix, Model};
use crate::scratch::{SHARED, Scratch, Sizes, is_long};
use crate::wave::Row;

/// Most columns that 256 threads norm; longer rows get 512.
const SHORT_ROW: usize = 4096;
/// One pass: where everything is.
pub(crate) struct Pass<'a> {
    pub(crate) model: &'a Model,
    pub(crate) kv: KvLayout,
    pub(crate) scratch: &'a Scratch,
    pub(crate) sizes: Sizes,
    pub(crate) counters: Address,
    pub(crate) gpu: &'a mut dyn Gpu,
}

/// Parts of a layer, in their order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Part {
    Qkv,
    Attention,
    AttentionOutput,
    GateUp,
    Down,
}

impl Part {
    pub(crate) const ALL: [Part; 5] =
        [Part::Qkv, Part::Attention, Part::AttentionOutput, Part::GateUp, Part::Down];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Part::Qkv => "q, k, v",
            Part::Attention => "attention",
            Part::AttentionOutput => "o",
            Part::GateUp => "gate, up",
            Part::Down => "down",
        }
    }
}

/// A row that is read: where it is, and what is done to it before it is multiplied.
#[derive(Clone, Copy)]
struct Input {
    x: Address,
    norm: Address,
    len: usize,
    /// Whether attention, which fills some multiprocessors and others not, is what runs before.
    behind_attention: bool,
}

/// Where a product goes.
#[derive(Clone, Copy)]
struct Output {
    out: Address,
    stride: usize,
    epilogue: Epilogue,
}

impl Pass<'_> {
    pub(crate) fn spec(&self) -> &ModelSpec {
        &self.model.spec
    }

    /// All kernels from the embedding to the hidden states behind the final norm.
    ///
    /// # Errors
    /// If the device refuses a launch.
    pub(crate) fn hidden(&mut self) -> Result<(), CudaError> {
        self.embed()?;
        for number in 0..self.model.layers.len() {
            Part::ALL.into_iter().try_for_each(|part| self.part(part, number))?;
        }
        if self.sizes.picked == 0 {
            return Ok(());
        }
        let places = self.scratch.places;
        let pitch = self.model.output.pitch;
        let norm = NormArgs {
            picked: self.scratch.at(places.picked),
            out: self.scratch.at(places.hidden),
            flags: self.scratch.at(places.flags),
            parts: self.scratch.at(places.parts),
            images: self.scratch.at(places.hidden_images),
            split: self.sizes.top as u32,
            groups: self.model.image.groups as u32,
            out_stride: pitch as u32,
            add: 0,
            ..self.norm_args(self.scratch.at(places.x), self.model.final_norm)
        };
        self.norm_rows(&norm, self.sizes.picked)
    }

    fn norm_args(&self, x: Address, weight: Address) -> NormArgs {
        let hidden = self.spec().hidden_size as u32;
        NormArgs {
            x,
            weight,
            picked: 0,
            out: self.scratch.at(self.scratch.places.x),
            rows: 0,
            flags: 0,
            parts: 0,
            images: 0,
            split: 0,
            groups: 0,
            len: hidden,
            stride: hidden,
            out_stride: hidden,
            add: 1,
            eps: self.spec().rms_norm_eps,
            pad: 0,
        }
    }

    fn norm_rows(&mut self, args: &NormArgs, rows: usize) -> Result<(), CudaError> {
        let (shared, threads) = (4 * args.len, self.row_threads(args.len as usize));
        self.launch("norm_rows", [rows, 1, 1], threads, shared, bytes_of(args))
    }

    fn embed(&mut self) -> Result<(), CudaError> {
        let (places, spec) = (self.scratch.places, self.spec());
        let table = self.model.embedding;
        let from_rows = self.sizes.from_rows;
        let args = EmbedArgs {
            table: if from_rows { self.scratch.at(places.input_rows) } else { table.address },
            tokens: if from_rows { 0 } else { self.scratch.at(places.tokens) },
            x: self.scratch.at(places.x),
            hidden: spec.hidden_size as u32,
            pitch: if from_rows { spec.hidden_size } else { table.pitch } as u32,
            dtype: if from_rows { 0 } else { table.type_code() },
            scale: spec.embedding_scale(),
        };
        self.launch("embed", [self.sizes.rows, 1, 1], self.row_threads(0), 0, bytes_of(&args))
    }

    /// One part of a layer.
    ///
    /// # Errors
    /// If the device refuses a launch.
    pub(crate) fn part(&mut self, part: Part, number: usize) -> Result<(), CudaError> {
        let layer = &self.model.layers[number];
        let (places, spec) = (self.scratch.places, self.spec());
        let (hidden, q_size, ffn) = (spec.hidden_size, spec.q_size(), spec.intermediate_size);
        let [x, qkv, attended, activated] =
            [places.x, places.qkv, places.attention, places.ffn].map(|place| self.scratch.at(place));
        match part {
            Part::Qkv => {
                let input = Input { x, norm: layer.attn_norm, len: hidden, behind_attention: false };
                self.queries_keys_values(layer, input, qkv, self.kv_target(number))
            }
            Part::Attention => self.attention(number, qkv, attended),
            Part::AttentionOutput => {
                let input =
                    Input { x: attended, norm: layer.attn_sub_norm, len: q_size, behind_attention: true };
                self.add_to_stream(&layer.o, input, layer.post_norms[0])
            }
            Part::GateUp => self.gate_and_up(
                layer,
                Input { x, norm: layer.ffn_norm, len: hidden, behind_attention: false },
                activated,
            ),
            Part::Down => {
                let input =
                    Input { x: activated, norm: layer.ffn_sub_norm, len: ffn, behind_attention: false };
                self.add_to_stream(&layer.down, input, layer.post_norms[1])
            }
        }
    }

    fn kv_target(&self, layer: usize) -> KvTarget {
        let [cosines, sines] = self.model.rope(layer);
        KvTarget {
            cosines,
            sines,
            positions: self.scratch.at(self.scratch.places.positions),
            blocks: self.scratch.at(self.scratch.places.slots),
            layer_offset: (layer * self.kv.layer_bytes()) as u64,
            piece_bytes: self.kv.piece_bytes() as u32,
            key_bytes: self.kv.key_bytes() as u32,
            head_dim: self.kv.head_dim as u32,
            padded_dim: self.kv.padded_dim() as u32,
            kv_type: self.kv.type_code(),
            pad: 0,
        }
    }

    /// Numbers between rows of the buffer of queries, keys and values.
    pub(crate) fn qkv_stride(&self) -> usize {
        let keys_values = if self.model.rotates_in_product { 0 } else { 2 * self.spec().kv_size() };
        self.spec().q_size() + keys_values
    }

    fn queries_keys_values(
        &mut self,
        layer: &Layer,
        input: Input,
        qkv: Address,
        kv: KvTarget,
    ) -> Result<(), CudaError> {
        let stride = self.qkv_stride();
        if self.model.rotates_in_product {
            let output = Output { out: qkv, stride, epilogue: Epilogue::Qkv };
            return self.multiply(&layer.qkv[0], input, output, kv);
        }
        let (q, k) = (self.spec().q_size() as u64, self.spec().kv_size() as u64);
        for (matrix, at) in layer.qkv.iter().zip([0, q, q + k]) {
            let output = Output { out: qkv + 4 * at, stride, epilogue: Epilogue::Store };
            self.multiply(matrix, input, output, kv)?;
        }
        let [query_norm, key_norm] = layer.head_norms;
        let spec = self.spec();
        let (heads, kv_heads) = (spec.num_heads as u32, spec.num_kv_heads as u32);
        let (stride, eps) = (stride as u32, spec.rms_norm_eps);
        let args = HeadsArgs { qkv, query_norm, key_norm, stride, heads, kv_heads, eps, kv };
        let blocks = (heads + 2 * kv_heads) as usize;
        self.launch("place_heads", [blocks, self.sizes.rows, 1], 128, 0, bytes_of(&args))
    }

    /// Multiplies and adds the result to the residual stream, normed before if there is a norm for it.
    fn add_to_stream(&mut self, matrix: &Matrix, input: Input, post_norm: Address) -> Result<(), CudaError> {
        let places = self.scratch.places;
        let stride = self.spec().hidden_size;
        let none = KvTarget::default();
        if post_norm == 0 {
            let output = Output { out: self.scratch.at(places.x), stride, epilogue: Epilogue::Add };
            return self.multiply(matrix, input, output, none);
        }
        let branch = self.scratch.at(places.branch);
        self.multiply(matrix, input, Output { out: branch, stride, epilogue: Epilogue::Store }, none)?;
        self.norm_rows(&self.norm_args(branch, post_norm), self.sizes.rows)
    }

    fn gate_and_up(&mut self, layer: &Layer, input: Input, out: Address) -> Result<(), CudaError> {
        let ffn = self.spec().intermediate_size;
        let none = KvTarget::default();
        let [gate, up] = layer.gate_up[..] else {
            let output = Output { out, stride: ffn, epilogue: Epilogue::Gated };
            return self.multiply(&layer.gate_up[0], input, output, none);
        };
        let gate_up = self.scratch.at(self.scratch.places.gate_up);
        for (matrix, at) in [(gate, 0), (up, 4 * ffn as u64)] {
            let output = Output { out: gate_up + at, stride: 2 * ffn, epilogue: Epilogue::Store };
            self.multiply(&matrix, input, output, none)?;
        }
        let args = ActivateArgs { gate_up, out, len: ffn as u32, activation: self.activation() };
        self.launch("activate_rows", [ffn.div_ceil(256), self.sizes.rows, 1], 256, 0, bytes_of(&args))
    }

    fn activation(&self) -> u32 {
        match self.spec().activation {
            Activation::Relu2 => 0,
            Activation::Silu => 1,
            Activation::Gelu => 2,
        }
    }

    /// Norms and quantises the rows of all tokens and multiplies them with a matrix.
    fn multiply(&mut self, m: &Matrix, input: Input, output: Output, kv: KvTarget) -> Result<(), CudaError> {
        let product = Product {
            weights: m.weights,
            blocks: m.blocks,
            out: output.out,
            row_blocks: m.row_blocks,
            groups: m.groups,
            stride: output.stride as u32,
            epilogue: output.epilogue as u32,
            activation: self.activation(),
            pad: 0,
            kv,
        };
        let padded = m.groups as usize * GROUP;
        // Two norms in turn: that of the layer and that of the matrix, if there are both.
        let (weight, second) = if input.norm == 0 { (m.norm, 0) } else { (input.norm, m.norm) };
        let rows = self.sizes.rows;
        if rows == 1 && second == 0 && self.row_fits_wave(input.len) {
            let row = Row { x: input.x, weight, len: input.len, alone: input.behind_attention };
            return self.wave(&row, product);
        }
        self.quantize(input, weight, second, padded)?;
        let places = self.scratch.places;
        let args = GemmArgs {
            q: self.scratch.at(places.q8),
            scales: self.scratch.at(places.scales),
            sums: self.scratch.at(places.sums),
            tokens: rows as u32,
            pad: 0,
            product,
        };
        self.gemm(&args)
    }

    fn quantize(
        &mut self,
        input: Input,
        weight: Address,
        second: Address,
        padded: usize,
    ) -> Result<(), CudaError> {
        let places = self.scratch.places;
        let long = is_long(input.len);
        let args = QuantizeArgs {
            x: input.x,
            weight,
            second,
            q: self.scratch.at(places.q8),
            scales: self.scratch.at(places.scales),
            sums: self.scratch.at(places.sums),
            rows: if long { self.scratch.at(places.long_rows) } else { 0 },
            len: input.len as u32,
            padded: padded as u32,
            stride: input.len as u32,
            eps: self.spec().rms_norm_eps,
        };
        let shared = if long { 0 } else { 4 * input.len as u32 };
        let grid = [self.sizes.rows, 1, 1];
        self.launch("quantize_rows", grid, self.row_threads(input.len), shared, bytes_of(&args))
    }

    /// All logits of `rows` of those that give something, from `first` on.
    ///
    /// # Errors
    /// If the device refuses a launch.
    pub(crate) fn logits(&mut self, first: usize, rows: usize) -> Result<(), CudaError> {
        let places = self.scratch.places;
        let table = self.model.output;
        let args = LogitsArgs {
            h: self.scratch.at(places.hidden) + (4 * first * table.pitch) as u64,
            table: table.address,
            logits: self.scratch.at(places.logits),
            flags: self.scratch.at(places.flags),
            rows: rows as u32,
            vocab: self.spec().vocab_size as u32,
            pitch: table.pitch as u32,
            pad: 0,
        };
        let several = rows > 1 && 16 * table.pitch <= SHARED;
        let names = [
            ["logits_f32_1", "logits_f32_4"],
            ["logits_f16_1", "logits_f16_4"],
            ["logits_bf16_1", "logits_bf16_4"],
        ];
        let kernel = names[table.type_code() as usize][usize::from(several)];
        let count = if several { 4 } else { 1 };
        let grid = [self.spec().vocab_size.div_ceil(128), rows.div_ceil(count), 1];
        self.launch(kernel, grid, 256, (4 * count * table.pitch) as u32, bytes_of(&args))
    }

    /// Threads that norm and quantise a row.
    fn row_threads(&self, len: usize) -> u32 {
        let usual = self.gpu.facts().row_threads;
        if len <= SHORT_ROW { usual } else { 2 * usual }
    }

    pub(crate) fn launch(
        &mut self,
        kernel: &'static str,
        grid: [usize; 3],
        threads: u32,
        shared: u32,
        argument: &[u8],
    ) -> Result<(), CudaError> {
        self.launch_clusters(kernel, grid, 1, threads, shared, argument)
    }

    /// The same in clusters of so many blocks of threads.
    pub(crate) fn launch_clusters(
        &mut self,
        kernel: &'static str,
        grid: [usize; 3],
        cluster: usize,
        threads: u32,
        shared: u32,
        argument: &[u8],
    ) -> Result<(), CudaError> {
        let (grid, cluster) = (grid.map(|n| n as u32), cluster as u32);
        self.gpu.launch(&Launch { kernel, grid, cluster, threads, shared, argument })
    }
}
