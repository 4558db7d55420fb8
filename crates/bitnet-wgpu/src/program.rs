//! [`Program`]: the dispatches of a pass in order, with their bind groups, made once and replayed for every call.

use bitnet_core::DType;
use bitnet_model::{Activation, KvType, ModelSpec};

use crate::device::Gpu;
use crate::error::WgpuError;
use crate::kernels::{Kernels, Site, bind, records};
use crate::kv::KvCache;
use crate::model::{Layer, Matrix, Model, Table};
use crate::scratch::Buffers;
use crate::shader::{Kernel, Source};

/// Most query heads times rows that a work item of attention has: what workgroup memory holds for heads up to
/// [`USUAL_HEAD`], and half as many for wider ones.
const QUERIES: usize = 8;
/// The widest head for which all of [`QUERIES`] fit.
const USUAL_HEAD: usize = 128;
/// Rows of the matrix that a workgroup of gemv.wgsl has: 128 threads by lanes, times four.
const GEMV_THREADS: u32 = 128;
/// Threads of a workgroup of norm.wgsl.
const NORM_THREADS: usize = 256;
/// Rows of the table that a workgroup of output.wgsl has.
const OUTPUT_ROWS: usize = 32;
/// Rows of the matrix that a workgroup of gemm.wgsl has.
const GEMM_COLUMNS: usize = 64;

/// Which kernel multiplies so many rows. All give the same bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Product {
    /// One pass over the matrix for up to so many rows.
    Rows(usize),
    /// Tiles of so many rows.
    Tiles(usize),
}

impl Product {
    /// The kernel for a number of rows.
    pub(crate) fn of(rows: usize) -> Self {
        match rows {
            0..=8 => Product::Rows(rows.max(1).next_power_of_two()),
            9..=48 => Product::Tiles(16),
            _ => Product::Tiles(64),
        }
    }
}

/// How many workgroups a dispatch has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Dims {
    /// Always the same.
    Fixed(u32, u32),
    /// One for each row, times so many.
    Rows(u32),
    /// So many for each row.
    EachRow(u32),
    /// So many for each tile of so many rows.
    Tiles(u32, u32),
    /// Attention: for each work item of a slice so many; layers with a window or not.
    Items(usize, u32),
    /// Merging: for each row of a slice so many.
    SliceRows(usize, u32),
}

/// A dispatch.
#[derive(Debug, Clone)]
pub(crate) struct Step {
    pub(crate) label: &'static str,
    pub(crate) pipeline: wgpu::ComputePipeline,
    pub(crate) group: wgpu::BindGroup,
    pub(crate) dims: Dims,
}

/// Dispatches in order.
#[derive(Debug, Clone, Default)]
pub(crate) struct Program {
    pub(crate) steps: Vec<Step>,
}

/// A step whose parameters are not on the device yet.
#[derive(Clone)]
pub(crate) struct Draft<'a> {
    pub(crate) label: &'static str,
    pub(crate) kernel: Kernel,
    pub(crate) site: Site,
    pub(crate) buffers: Vec<&'a wgpu::Buffer>,
    pub(crate) dims: Dims,
}

/// Shapes of attention's work items.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Grouping {
    /// Query heads of an item, which share a key head.
    pub(crate) heads: usize,
    /// Rows of an item, where texts have several.
    pub(crate) tile: usize,
}

impl Grouping {
    pub(crate) fn new(spec: &ModelSpec) -> Self {
        let group = spec.num_heads / spec.num_kv_heads;
        let most = if spec.head_dim <= USUAL_HEAD { QUERIES } else { QUERIES / 2 };
        let heads = (1..=group.min(most)).rev().find(|heads| group.is_multiple_of(*heads)).unwrap_or(1);
        Self { heads, tile: most / heads }
    }
}

/// Makes programs for the buffers that there are.
pub(crate) struct Builder<'a> {
    pub(crate) gpu: &'a Gpu,
    pub(crate) kernels: &'a mut Kernels,
    pub(crate) model: &'a Model,
    pub(crate) kv: &'a KvCache,
    pub(crate) buffers: &'a Buffers,
}

impl<'a> Builder<'a> {
    /// Rows of the embedding.
    pub(crate) fn embed(&mut self) -> Result<Program, WgpuError> {
        let (model, b) = (self.model, self.buffers);
        let table = &model.embedding;
        let mut drafts = Vec::new();
        for part in &table.parts {
            let site = Site {
                n: model.spec.hidden_size as u32,
                words: table.words as u32,
                first: part.first as u32,
                count: part.rows as u32,
                scale: model.spec.embedding_scale(),
                ..Site::default()
            };
            drafts.push(Draft {
                label: "embedding",
                kernel: of_table(Kernel::new(Source::Embed), table.dtype),
                site,
                buffers: vec![&b.inputs.buffer, &part.storage.buffer, &b.x.buffer],
                dims: Dims::EachRow(table.words.div_ceil(64) as u32),
            });
        }
        self.finish(drafts)
    }

    /// All layers. The last addition to the stream is left to [`hidden`](Self::hidden).
    pub(crate) fn layers(&mut self, product: Product, tiled: bool) -> Result<Program, WgpuError> {
        let mut drafts = Vec::new();
        for (number, layer) in self.model.layers.iter().enumerate() {
            self.attention(number, layer, product, tiled, &mut drafts);
            self.feed_forward(layer, product, &mut drafts);
        }
        self.finish(drafts)
    }

    /// The final norm of the rows that have logits.
    pub(crate) fn hidden(&mut self) -> Result<Program, WgpuError> {
        let (model, b) = (self.model, self.buffers);
        let post = model.layers.last().and_then(|l| l.norms.post).map(|[_, ffn]| ffn);
        let kernel = Kernel::new(Source::Norm).flag("FINAL").flag("NORM1");
        let mut draft = self.norm("final norm", kernel, model.spec.hidden_size, &[model.final_norm]);
        if !model.layers.is_empty() {
            draft = added(draft, post);
        }
        draft.buffers[3] = &b.hidden.buffer;
        self.finish(vec![draft])
    }

    /// Logits of up to `rows` hidden rows: 1, 2, 4 or 8.
    pub(crate) fn output(&mut self, rows: usize) -> Result<Program, WgpuError> {
        let (model, b) = (self.model, self.buffers);
        let table: &Table = model.output_table();
        let mut drafts = Vec::new();
        for part in &table.parts {
            let site = Site {
                n: model.spec.hidden_size as u32,
                words: table.words as u32,
                stride: model.spec.vocab_size as u32,
                offset: part.first as u32,
                count: part.rows as u32,
                ..Site::default()
            };
            let (x, y) = split(part.rows.div_ceil(OUTPUT_ROWS));
            drafts.push(Draft {
                label: "output layer",
                kernel: of_table(Kernel::new(Source::Output), table.dtype).constant("M", rows),
                site,
                buffers: vec![&b.hidden.buffer, &part.storage.buffer, &b.logits.buffer],
                dims: Dims::Fixed(x, y),
            });
        }
        self.finish(drafts)
    }

    fn attention(
        &self,
        number: usize,
        layer: &'a Layer,
        product: Product,
        tiled: bool,
        drafts: &mut Vec<Draft<'a>>,
    ) {
        let (spec, b, norms) = (&self.model.spec, self.buffers, &layer.norms);
        let stride = spec.q_size() + 2 * spec.kv_size();
        for (i, matrix) in layer.qkv.iter().enumerate() {
            let mut places = vec![norms.attention];
            places.extend(norms.projections.map(|p| p[i]));
            let kernel = normed(Kernel::new(Source::Norm), places.len());
            let mut draft = self.norm("norm", kernel, spec.hidden_size, &places);
            if number > 0 && i == 0 {
                let before = &self.model.layers[number - 1].norms;
                draft = added(draft, before.post.map(|[_, ffn]| ffn));
            }
            drafts.push(draft);
            self.product("q, k, v", matrix, product, &b.qkv, stride, drafts);
        }
        let window = match &spec.extras.sliding {
            Some(sliding) if spec.is_sliding(number) => sliding.window as u32,
            _ => 0,
        };
        let kind = usize::from(window > 0);
        let [query_norm, key_norm] = norms.heads.unwrap_or_default();
        let site = Site {
            stride: stride as u32,
            weight: query_norm as u32,
            second: key_norm as u32,
            eps: spec.rms_norm_eps,
            scale: spec.attention_scale(),
            window,
            ..Site::default()
        };
        let grouping = Grouping::new(spec);
        let kv = &self.kv.layers()[number].buffer;
        let heads = spec.num_heads as u32;
        drafts.push(Draft {
            label: "rotary",
            kernel: self.with_heads(Source::Rotary).flag_if(norms.heads.is_some(), "HEAD_NORMS"),
            site,
            buffers: vec![&b.inputs.buffer, &b.qkv.buffer, kv, &self.model.norms.buffer],
            dims: Dims::Rows(heads + 2 * spec.num_kv_heads as u32),
        });
        let tile = if tiled { grouping.tile } else { 1 };
        drafts.push(Draft {
            label: "attention",
            kernel: self
                .with_heads(Source::Attention)
                .constant("G", grouping.heads)
                .constant("TILE", tile)
                .constant("T", tile * grouping.heads),
            site,
            buffers: vec![&b.inputs.buffer, &b.qkv.buffer, kv, &b.partials.buffer],
            dims: Dims::Items(kind, heads / grouping.heads as u32),
        });
        drafts.push(Draft {
            label: "merging",
            kernel: Kernel::new(Source::Combine)
                .constant("HEAD_DIM", spec.head_dim)
                .constant("HEADS", spec.num_heads),
            site,
            buffers: vec![&b.inputs.buffer, &b.partials.buffer, &b.o.buffer],
            dims: Dims::SliceRows(kind, heads),
        });
        let places: Vec<usize> = norms.attention_sub.into_iter().collect();
        let kernel = normed(Kernel::new(Source::Norm), places.len());
        let mut draft = self.norm("norm", kernel, spec.q_size(), &places);
        draft.buffers[0] = &b.o.buffer;
        drafts.push(draft);
        self.product("o", &layer.o, product, &b.y, spec.hidden_size, drafts);
    }

    fn feed_forward(&self, layer: &'a Layer, product: Product, drafts: &mut Vec<Draft<'a>>) {
        let (spec, b, norms) = (&self.model.spec, self.buffers, &layer.norms);
        for (i, matrix) in layer.gate_up.iter().enumerate() {
            let mut places = vec![norms.ffn];
            places.extend(norms.projections.map(|p| p[3 + i]));
            let kernel = normed(Kernel::new(Source::Norm), places.len());
            let mut draft = self.norm("norm", kernel, spec.hidden_size, &places);
            if i == 0 {
                draft = added(draft, norms.post.map(|[attention, _]| attention));
            }
            drafts.push(draft);
            self.product("gate, up", matrix, product, &b.gate_up, 2 * spec.intermediate_size, drafts);
        }
        let places: Vec<usize> = norms.ffn_sub.into_iter().collect();
        let activation = match spec.activation {
            Activation::Relu2 => "ACT_RELU2",
            Activation::Silu => "ACT_SILU",
            Activation::Gelu => "ACT_GELU",
        };
        let kernel = normed(Kernel::new(Source::Norm).flag("ACT").flag(activation), places.len());
        let mut draft = self.norm("norm", kernel, spec.intermediate_size, &places);
        draft.buffers[1] = &b.gate_up.buffer;
        drafts.push(draft);
        self.product("down", &layer.down, product, &b.y, spec.hidden_size, drafts);
    }

    /// Norms and quantisation of rows of the stream, with norms that begin at `places`.
    fn norm(&self, label: &'static str, kernel: Kernel, width: usize, places: &[usize]) -> Draft<'a> {
        let b = self.buffers;
        let quad = |i: usize| places.get(i).map_or(0, |place| (place / 4) as u32);
        let site = Site {
            n: width as u32,
            words: 4 * crate::pack::words_of(width) as u32,
            weight: quad(0),
            second: quad(1),
            eps: self.model.spec.rms_norm_eps,
            ..Site::default()
        };
        let buffers = vec![
            &b.x.buffer,
            &b.y.buffer,
            &self.model.norms.buffer,
            &b.q.buffer,
            &b.info.buffer,
            &b.inputs.buffer,
        ];
        let kernel = kernel.constant("STEPS", (site.words as usize).div_ceil(NORM_THREADS));
        Draft { label, kernel, site, buffers, dims: Dims::Rows(1) }
    }

    fn product(
        &self,
        label: &'static str,
        matrix: &'a Matrix,
        product: Product,
        out: &'a crate::memory::Buffer,
        stride: usize,
        drafts: &mut Vec<Draft<'a>>,
    ) {
        let b = self.buffers;
        for part in &matrix.parts {
            let site = Site {
                n: part.rows as u32,
                words: matrix.words as u32,
                stride: stride as u32,
                offset: part.offset as u32,
                ..Site::default()
            };
            let (kernel, dims) = match product {
                Product::Rows(rows) => {
                    let lanes = self.gpu.subgroup_lanes.unwrap_or(32);
                    let (x, y) = split(part.rows.div_ceil((GEMV_THREADS / lanes * 4) as usize));
                    (Kernel::new(Source::Gemv).constant("M", rows), Dims::Fixed(x, y))
                }
                Product::Tiles(rows) => {
                    let x = part.rows.div_ceil(GEMM_COLUMNS) as u32;
                    (Kernel::new(Source::Gemm).constant("TM", rows), Dims::Tiles(x, rows as u32))
                }
            };
            let buffers =
                vec![&part.weights.buffer, &part.scales.buffer, &b.q.buffer, &b.info.buffer, &out.buffer];
            drafts.push(Draft { label, kernel, site, buffers, dims });
        }
    }

    /// A kernel that knows the heads of the model and the layout of keys and values.
    fn with_heads(&self, source: Source) -> Kernel {
        let spec = &self.model.spec;
        let layout = match self.kv.rows().kv_type {
            KvType::F32 => "KV_F32",
            KvType::F16 => "KV_F16",
            KvType::Int8 => "KV_INT8",
        };
        Kernel::new(source)
            .flag(layout)
            .constant("HEAD_DIM", spec.head_dim)
            .constant("HEADS", spec.num_heads)
            .constant("KV_HEADS", spec.num_kv_heads)
            .constant("GROUP", spec.num_heads / spec.num_kv_heads)
    }

    /// Compiles kernels, uploads parameters, makes bind groups.
    pub(crate) fn finish(&mut self, drafts: Vec<Draft<'a>>) -> Result<Program, WgpuError> {
        let sites: Vec<Site> = drafts.iter().map(|draft| draft.site).collect();
        let mut bytes = Vec::new();
        records(&sites, &mut bytes);
        let parameters = self.parameters(&bytes)?;
        let mut steps = Vec::with_capacity(drafts.len());
        for (i, draft) in drafts.into_iter().enumerate() {
            let compiled = self.kernels.get(self.gpu, draft.kernel)?;
            let resources: Vec<_> = draft.buffers.iter().map(|b| b.as_entire_binding()).collect();
            let calls = &self.buffers.calls.buffer;
            let group = bind(self.gpu, &compiled, calls, (&parameters, i), &resources)?;
            steps.push(Step { label: draft.label, pipeline: compiled.pipeline, group, dims: draft.dims });
        }
        Ok(Program { steps })
    }

    /// A buffer of parameters, which bind groups keep alive.
    fn parameters(&self, bytes: &[u8]) -> Result<wgpu::Buffer, WgpuError> {
        let descriptor = wgpu::BufferDescriptor {
            label: Some("sites"),
            size: bytes.len() as u64,
            usage: wgpu::BufferUsages::UNIFORM | wgpu::BufferUsages::COPY_DST,
            mapped_at_creation: false,
        };
        let size = bytes.len() as u64;
        let buffer = self.gpu.checked(size, || self.gpu.device.create_buffer(&descriptor))?;
        self.gpu.queue.write_buffer(&buffer, 0, bytes);
        Ok(buffer)
    }
}

/// A norm that first adds the branch to the stream, normed by itself where `post` says with what.
fn added(mut draft: Draft<'_>, post: Option<usize>) -> Draft<'_> {
    draft.kernel = draft.kernel.flag("ADD").flag_if(post.is_some(), "POST");
    draft.site.post = post.map_or(0, |place| (place / 4) as u32);
    draft
}

fn normed(kernel: Kernel, norms: usize) -> Kernel {
    kernel.flag_if(norms > 0, "NORM1").flag_if(norms > 1, "NORM2")
}

/// A kernel that reads a table of a type.
pub(crate) fn of_table(kernel: Kernel, dtype: DType) -> Kernel {
    kernel.flag(match dtype {
        DType::F32 => "TABLE_F32",
        DType::F16 => "TABLE_F16",
        DType::BF16 => "TABLE_BF16",
    })
}

/// So many workgroups in two dimensions, each within what devices allow.
pub(crate) fn split(count: usize) -> (u32, u32) {
    const MOST: usize = 65535;
    if count <= MOST { (count as u32, 1) } else { (MOST as u32, count.div_ceil(MOST) as u32) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heads_are_grouped_by_their_keys() {
        let base = bitnet_model::conformance::samples().swap_remove(0).spec;
        let of = |num_heads, num_kv_heads, head_dim| {
            let g = Grouping::new(&ModelSpec { num_heads, num_kv_heads, head_dim, ..base.clone() });
            (g.heads, g.tile)
        };
        assert_eq!((of(20, 5, 128), of(5, 5, 128), of(6, 3, 64)), ((4, 2), (1, 8), (2, 4)));
        assert_eq!((of(8, 1, 16), of(9, 3, 32), of(22, 2, 32)), ((8, 1), (3, 2), (1, 8)));
        assert_eq!((of(8, 1, 256), of(4, 4, 256)), ((4, 1), (1, 4)));
    }

    #[test]
    fn many_workgroups_take_two_dimensions() {
        assert_eq!((split(7), split(65535)), ((7, 1), (65535, 1)));
        let (x, y) = split(200_000);
        assert!(x <= 65535 && u64::from(x) * u64::from(y) >= 200_000);
    }

    #[test]
    fn products_by_rows() {
        let all: Vec<Product> = [1, 3, 8, 9, 64].map(Product::of).to_vec();
        let want =
            [Product::Rows(1), Product::Rows(4), Product::Rows(8), Product::Tiles(16), Product::Tiles(64)];
        assert_eq!(all, want);
    }
}
