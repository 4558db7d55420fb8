//! The tensors of a synthetic model, and their bytes in each format, made row by row on all cores.

use std::ops::Range;

use bitnet_core::DType;
use bitnet_formats::{StoredType, TensorPlan};
use bitnet_quant::I2sLayout;
use bitnet_quant::codec::{pack_hf, pack_i2s};

use super::config::Kind;
use super::preset::FIRST_BITNET;
use super::random::Stream;
use super::{Result, SynthFormat};
use crate::ModelSpec;
use crate::load::naming::Naming;

/// Bytes that are made before they are written.
const BLOCK_BYTES: usize = 8 << 20;

/// Amplitude of what masters deviate from their trit, in units of the largest: small enough that absmean gives the trit.
const NOISE: f32 = 0.2;

/// Mean of the absolute masters in the same units: two thirds are about one, one third is noise.
const MASTER_MEAN: f32 = 2.0 / 3.0 + NOISE / 6.0;

/// A tensor to write.
#[derive(Debug)]
pub(super) struct Item {
    /// Name, type and shape.
    pub(super) plan: TensorPlan,
    content: Content,
}

/// What a tensor holds. Rows are those of the file.
#[derive(Debug, Clone, Copy)]
enum Content {
    /// A norm, the same number everywhere.
    Constant { value: f32, len: usize, dtype: DType },
    /// One number.
    Scale { scale: f32, dtype: DType },
    /// Embedding or output layer.
    Table { stream: Stream, rows: usize, cols: usize, dtype: DType },
    /// Ternary weights as transformers packs them.
    Packed { stream: Stream, rows: usize, cols: usize },
    /// Masters of ternary weights.
    Masters { stream: Stream, rows: usize, cols: usize, scale: f32, dtype: DType },
    /// Ternary weights as I2_S, with the width of a head if its rotary halves are interleaved.
    I2s { stream: Stream, rows: usize, cols: usize, scale: f32, interleaved: Option<usize> },
}

/// The scale of a projection: keeps the size of its input, and is a bf16 number.
fn weight_scale(cols: usize) -> f32 {
    let mut scale = [0.0];
    DType::BF16.decode(&DType::BF16.encode(&[(1.5 / cols as f32).sqrt()]), &mut scale);
    scale[0]
}

/// All tensors of a model in the order in which they are written.
pub(super) fn items(spec: &ModelSpec, format: SynthFormat, seed: u64) -> Vec<Item> {
    let gguf = format == SynthFormat::GgufI2s;
    let naming = naming(spec, gguf);
    let mut list = List { gguf, format, kind: Kind::of(spec), from_one: naming.from_one, items: Vec::new() };
    let (hidden, ffn, q, kv) = (spec.hidden_size, spec.intermediate_size, spec.q_size(), spec.kv_size());
    list.table(&naming.embedding, spec.vocab_size, hidden, Stream::new(seed, 1));
    if !spec.tied_output {
        list.table(naming.output, spec.vocab_size, hidden, Stream::new(seed, 2));
    }
    list.norm(naming.final_norm.clone(), hidden, true);
    let shapes =
        [(q, hidden), (kv, hidden), (kv, hidden), (hidden, q), (ffn, hidden), (ffn, hidden), (hidden, ffn)];
    for layer in 0..spec.num_layers {
        let parts = &naming.parts;
        list.norm(naming.weight(layer, parts.attn_norm), hidden, true);
        list.norm(naming.weight(layer, parts.ffn_norm), hidden, true);
        if spec.sub_norms {
            list.norm(naming.weight(layer, parts.attn_sub_norm), q, false);
            list.norm(naming.weight(layer, parts.ffn_sub_norm), ffn, false);
        }
        let (extras, head) = (&spec.extras, spec.head_dim);
        for (there, names, len, native) in [
            (extras.head_norms, &parts.head_norms[..], head, true),
            (extras.projection_norms, &parts.projection_norms[..], hidden, false),
            (extras.post_norms, &parts.post_norms[..], hidden, true),
        ] {
            for name in names.iter().filter(|_| there) {
                list.norm(naming.weight(layer, name), len, native);
            }
        }
        for (i, (part, (rows, cols))) in parts.projections.iter().zip(shapes).enumerate() {
            let stream = Stream::new(seed, 16 + 8 * layer as u64 + i as u64);
            // Only llama-architecture GGUF files have their query and key rows permuted.
            let interleaved = (gguf && !spec.sub_norms && i < 2).then_some(spec.head_dim);
            list.projection(&naming.part(layer, part), [rows, cols], stream, interleaved);
        }
    }
    list.items
}

/// What the tensors of a model are called.
fn naming(spec: &ModelSpec, gguf: bool) -> Naming {
    // Embedding models come without the prefix.
    let prefix = if spec.extras.projection_norms { "" } else { "model." };
    let plain = match (gguf, spec.extras.post_norms) {
        (true, _) => Naming::gguf(),
        (false, false) if spec.architecture == FIRST_BITNET => Naming::first_bitnet(prefix),
        (false, true) => Naming::gemma3(prefix),
        (false, false) => Naming::hugging_face(prefix),
    };
    if spec.extras.projection_norms { plain.with_projection_norms() } else { plain }
}

/// Collects the tensors of one format.
struct List {
    gguf: bool,
    format: SynthFormat,
    kind: Kind,
    /// Whether norms of the architecture itself are stored without their one.
    from_one: bool,
    items: Vec<Item>,
}

impl List {
    fn push(&mut self, name: String, stored: StoredType, shape: &[usize], content: Content) {
        let shape: Vec<u64> = shape.iter().map(|&n| n as u64).collect();
        self.items.push(Item { plan: TensorPlan::new(name, stored, shape), content });
    }

    /// A norm that changes nothing; `native` if it is the architecture's own and not one before a projection.
    fn norm(&mut self, name: String, len: usize, native: bool) {
        let (stored, dtype) = match (self.gguf, self.kind) {
            // As the converter of the embedding models writes them.
            (true, Kind::Embedding) => (StoredType::F16, DType::F16),
            (true, _) => (StoredType::F32, DType::F32),
            (false, _) => (StoredType::BF16, DType::BF16),
        };
        let value = if native && self.from_one { 0.0 } else { 1.0 };
        self.push(name, stored, &[len], Content::Constant { value, len, dtype });
    }

    fn table(&mut self, name: &str, rows: usize, cols: usize, stream: Stream) {
        let (stored, dtype) =
            if self.gguf { (StoredType::F16, DType::F16) } else { (StoredType::BF16, DType::BF16) };
        self.push(name.to_owned(), stored, &[rows, cols], Content::Table { stream, rows, cols, dtype });
    }

    fn projection(
        &mut self,
        name: &str,
        [rows, cols]: [usize; 2],
        stream: Stream,
        interleaved: Option<usize>,
    ) {
        let (scale, dtype) = (weight_scale(cols), DType::BF16);
        let weight = format!("{name}.weight");
        match self.format {
            SynthFormat::SafetensorsPacked => {
                self.push(weight, StoredType::U8, &[rows / 4, cols], Content::Packed { stream, rows, cols });
                let scale = if self.kind == Kind::Llama { 1.0 / scale } else { scale };
                let content = Content::Scale { scale, dtype };
                self.push(format!("{name}.weight_scale"), StoredType::BF16, &[1], content);
            }
            SynthFormat::SafetensorsBf16 => {
                let content = Content::Masters { stream, rows, cols, scale, dtype };
                self.push(weight, StoredType::BF16, &[rows, cols], content);
            }
            SynthFormat::GgufI2s => {
                let content = Content::I2s { stream, rows, cols, scale, interleaved };
                self.push(weight, StoredType::I2S, &[rows, cols], content);
            }
        }
    }
}

impl Item {
    /// Bytes of the tensor in the file.
    pub(super) fn byte_len(&self) -> u64 {
        self.plan.stored.byte_len(&self.plan.shape).unwrap_or(0)
    }

    /// Makes the bytes and gives them to `sink` block by block.
    ///
    /// # Errors
    /// Those of `sink`.
    pub(super) fn emit(&self, sink: &mut dyn FnMut(&[u8]) -> Result<()>) -> Result<()> {
        match self.content {
            Content::Constant { value, len, dtype } => sink(&dtype.encode(&vec![value; len])),
            Content::Scale { scale, dtype } => sink(&dtype.encode(&[scale])),
            Content::Table { stream, rows, cols, dtype } => {
                let make = |row: usize, out: &mut [u8]| table_row(stream, row, dtype, cols, out);
                blocks(rows, cols * dtype.size(), &make, sink)
            }
            Content::Packed { stream, rows, cols } => {
                let make = |row: usize, out: &mut [u8]| packed_row(stream, row, rows, cols, out);
                blocks(rows / 4, cols, &make, sink)
            }
            Content::Masters { stream, rows, cols, scale, dtype } => {
                let make = |row: usize, out: &mut [u8]| master_row(stream, row, scale, dtype, cols, out);
                blocks(rows, cols * dtype.size(), &make, sink)
            }
            Content::I2s { stream, rows, cols, scale, interleaved } => {
                let make = |row: usize, out: &mut [u8]| {
                    i2s_row(stream, model_row(row, interleaved), cols, out);
                };
                blocks(rows, cols / 4, &make, sink)?;
                let mut tail = [0u8; 32];
                tail[..4].copy_from_slice(&scale.to_le_bytes());
                sink(&tail)
            }
        }
    }
}

/// The row of the model that stands at row `stored` of a file with interleaved rotary halves.
fn model_row(stored: usize, interleaved: Option<usize>) -> usize {
    let Some(head_dim) = interleaved else { return stored };
    let within = stored % head_dim;
    stored - within + within % 2 * (head_dim / 2) + within / 2
}

fn table_row(stream: Stream, row: usize, dtype: DType, cols: usize, out: &mut [u8]) {
    let mut values = vec![0.0; cols];
    stream.normal(row, &mut values);
    out.copy_from_slice(&dtype.encode(&values));
}

fn i2s_row(stream: Stream, row: usize, cols: usize, out: &mut [u8]) {
    let mut trits = vec![0i8; cols];
    stream.trits(row, &mut trits);
    let bytes = pack_i2s(I2sLayout::Group128, &trits, 1, cols).expect("the shape was checked");
    out.copy_from_slice(&bytes);
}

fn packed_row(stream: Stream, row: usize, rows: usize, cols: usize, out: &mut [u8]) {
    let mut trits = vec![0i8; 4 * cols];
    for (block, trits) in trits.chunks_exact_mut(cols).enumerate() {
        stream.trits(block * (rows / 4) + row, trits);
    }
    out.copy_from_slice(&pack_hf(&trits, 4, cols).expect("four rows can be packed"));
}

/// Masters around their trits; absmean gives the trits back and about `scale`.
fn master_row(stream: Stream, row: usize, scale: f32, dtype: DType, cols: usize, out: &mut [u8]) {
    let mut trits = vec![0i8; cols];
    let mut values = vec![0.0f32; cols];
    stream.trits(row, &mut trits);
    stream.uniform(row, &mut values);
    let unit = scale / MASTER_MEAN;
    for (value, &trit) in values.iter_mut().zip(&trits) {
        *value = unit * (f32::from(trit) + NOISE * *value);
    }
    out.copy_from_slice(&dtype.encode(&values));
}

/// Makes rows of `row_bytes` bytes on all cores, a block at a time.
fn blocks(
    rows: usize,
    row_bytes: usize,
    make: &(dyn Fn(usize, &mut [u8]) + Sync),
    sink: &mut dyn FnMut(&[u8]) -> Result<()>,
) -> Result<()> {
    let per_block = (BLOCK_BYTES / row_bytes.max(1)).clamp(1, rows.max(1));
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let mut buffer = vec![0u8; per_block * row_bytes];
    for first in (0..rows).step_by(per_block) {
        let count = per_block.min(rows - first);
        let block = &mut buffer[..count * row_bytes];
        let share = count.div_ceil(threads);
        let fill = &|range: Range<usize>, out: &mut [u8]| {
            for (row, out) in range.zip(out.chunks_exact_mut(row_bytes)) {
                make(row, out);
            }
        };
        std::thread::scope(|scope| {
            for (i, part) in block.chunks_mut(share * row_bytes).enumerate() {
                let start = first + i * share;
                let range = start..start + part.len() / row_bytes;
                // Small blocks are not worth a thread.
                if count * row_bytes < BLOCK_BYTES / 16 {
                    fill(range, part);
                } else {
                    scope.spawn(move || fill(range, part));
                }
            }
        });
        sink(block)?;
    }
    Ok(())
}
