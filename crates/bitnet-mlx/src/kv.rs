//! [`KvCache`]: keys and values of all layers, paged: a slot is a row `[key heads * head_dim]` of an array a layer.
//!
//! Arrays of MLX do not change; storing rows makes a new one, which takes the memory of the old one over when it is computed,
//! as nobody else has that. So a computation that fails takes the cache with it: then it is made anew, and
//! [`take_loss`](KvCache::take_loss) tells.

use bitnet_core::MemorySize;
use bitnet_model::kv_rows::{KvPart, KvRows};
use bitnet_model::{KvType, ModelSpec};

use crate::error::MlxError;
use crate::pack::int;
use crate::quantize::Constants;
use crate::sys::{Array, Dtype, Stream, eval};

/// Positions in a block.
pub(crate) const BLOCK_SIZE: usize = 32;

/// Keys or values of a layer: `[slots, heads * head_dim]`, and for int8 the scale of each head's row, `[slots, heads]`.
#[derive(Debug)]
pub(crate) struct Rows {
    pub(crate) elements: Array,
    pub(crate) scales: Option<Array>,
}

/// Keys and values of a layer.
#[derive(Debug)]
pub(crate) struct LayerKv {
    pub(crate) keys: Rows,
    pub(crate) values: Rows,
}

/// Keys and values of all layers.
#[derive(Debug)]
pub(crate) struct KvCache {
    form: KvRows,
    layers: Vec<LayerKv>,
    /// Blocks that may be used, and blocks that there is room for.
    blocks: usize,
    room: usize,
    lost: bool,
}

impl Rows {
    fn zeros(s: &Stream, form: KvRows, slots: i32) -> Result<Self, MlxError> {
        let (heads, width) = (int(form.heads)?, int(form.heads * form.head_dim)?);
        let elements = s.zeros(&[slots, width], dtype(form.kv_type))?;
        let scales = match form.kv_type {
            KvType::Int8 => Some(s.zeros(&[slots, heads], Dtype::F32)?),
            KvType::F32 | KvType::F16 => None,
        };
        Ok(Self { elements, scales })
    }

    fn arrays(&self) -> impl Iterator<Item = &Array> {
        std::iter::once(&self.elements).chain(&self.scales)
    }

    /// Puts other rows into slots: `[slots, width]` each, of the cache's types.
    fn replace(&mut self, s: &Stream, slots: &Array, new: &Rows) -> Result<(), MlxError> {
        replace(s, &mut self.elements, slots, &new.elements)?;
        match (&mut self.scales, &new.scales) {
            (Some(scales), Some(new)) => replace(s, scales, slots, new),
            _ => Ok(()),
        }
    }

    /// The rows of some slots.
    fn take(&self, s: &Stream, slots: &Array) -> Result<Self, MlxError> {
        let scales = self.scales.as_ref().map(|scales| s.take(scales, slots, 0)).transpose()?;
        Ok(Self { elements: s.take(&self.elements, slots, 0)?, scales })
    }
}

fn replace(s: &Stream, all: &mut Array, slots: &Array, new: &Array) -> Result<(), MlxError> {
    let updates = s.reshape(new, &[new.dim(0), 1, new.dim(1)])?;
    *all = s.replace_rows(all, slots, &updates)?;
    Ok(())
}

/// Puts zeros behind the rows, so that there are so many.
fn lengthen(s: &Stream, rows: &mut Array, count: i32, dtype: Dtype) -> Result<(), MlxError> {
    let missing = count - rows.dim(0);
    if missing > 0 {
        let zeros = s.zeros(&[missing, rows.dim(1)], dtype)?;
        let longer = s.concatenate(&[rows, &zeros], 0)?;
        eval(&[&longer])?;
        *rows = longer;
    }
    Ok(())
}

fn dtype(kv_type: KvType) -> Dtype {
    match kv_type {
        KvType::F32 => Dtype::F32,
        KvType::F16 => Dtype::F16,
        KvType::Int8 => Dtype::I8,
    }
}

impl LayerKv {
    fn arrays(&self) -> impl Iterator<Item = &Array> {
        self.keys.arrays().chain(self.values.arrays())
    }

    /// Stores new rows, `[rows, heads, head_dim]` in single precision, in their slots, rounded as the type says.
    ///
    /// # Errors
    /// [`MlxError`].
    pub(crate) fn store(
        &mut self,
        s: &Stream,
        constants: &Constants,
        form: KvRows,
        slots: &Array,
        [keys, values]: [&Array; 2],
    ) -> Result<(), MlxError> {
        for (all, new) in [(&mut self.keys, keys), (&mut self.values, values)] {
            let (rows, heads, width) = (new.dim(0), new.dim(1), new.dim(1) * new.dim(2));
            let (rounded, scales) = match form.kv_type {
                KvType::F32 => (new.clone(), None),
                KvType::F16 => {
                    let [most, least] = &constants.half_range;
                    (s.minimum(&s.maximum(new, least)?, most)?, None)
                }
                KvType::Int8 => {
                    let [q, scale] = constants.int8(s, new)?;
                    (q, Some(s.reshape(&scale, &[rows, heads])?))
                }
            };
            let elements = s.reshape(&s.cast(&rounded, dtype(form.kv_type))?, &[rows, width])?;
            all.replace(s, slots, &Rows { elements, scales })?;
        }
        Ok(())
    }
}

impl KvCache {
    pub(crate) fn new(spec: &ModelSpec, kv_type: KvType) -> Self {
        let form = KvRows::new(spec, kv_type);
        Self { form, layers: Vec::new(), blocks: 0, room: 0, lost: false }
    }

    /// The form of rows outside.
    pub(crate) fn form(&self) -> KvRows {
        self.form
    }

    /// Blocks that may be used.
    pub(crate) fn blocks(&self) -> usize {
        self.blocks
    }

    /// Bytes of a block.
    pub(crate) fn block_bytes(&self) -> u64 {
        (BLOCK_SIZE * self.form.position_bytes()) as u64
    }

    /// Whether all content was lost since this was asked the last time.
    pub(crate) fn take_loss(&mut self) -> bool {
        std::mem::take(&mut self.lost)
    }

    /// A layer.
    pub(crate) fn layer_mut(&mut self, layer: usize) -> Option<&mut LayerKv> {
        self.layers.get_mut(layer)
    }

    /// All arrays, which a call computes with its results.
    pub(crate) fn arrays(&self) -> impl Iterator<Item = &Array> {
        self.layers.iter().flat_map(LayerKv::arrays)
    }

    /// What a computation gave that changed the cache; if it failed, the cache is empty now.
    pub(crate) fn settle<T>(&mut self, s: &Stream, result: Result<T, MlxError>) -> Result<T, MlxError> {
        if result.is_err() {
            self.lost = true;
            self.layers.clear();
            self.fill(s)?;
        }
        result
    }

    /// Zeros in all layers that are missing.
    fn fill(&mut self, s: &Stream) -> Result<(), MlxError> {
        let slots = int(self.room * BLOCK_SIZE)?;
        while self.layers.len() < self.form.layers {
            let layer = LayerKv {
                keys: Rows::zeros(s, self.form, slots)?,
                values: Rows::zeros(s, self.form, slots)?,
            };
            eval(&layer.arrays().collect::<Vec<_>>())?;
            self.layers.push(layer);
        }
        Ok(())
    }

    /// Makes room for so many blocks. Half as many again are taken where `free` allows, so that growing step by step stays
    /// cheap.
    ///
    /// # Errors
    /// [`MlxError::OutOfMemory`] if more than `free` would be needed or there is none; the blocks of before stay.
    pub(crate) fn reserve(
        &mut self,
        s: &Stream,
        count: usize,
        free: Option<MemorySize>,
    ) -> Result<(), MlxError> {
        if count > self.room {
            let more = |room: usize| MemorySize::bytes((room - self.room) as u64 * self.block_bytes());
            let fits = |room: usize| free.is_none_or(|free| more(room) <= free);
            if !fits(count) {
                return Err(MlxError::OutOfMemory { needed: more(count), free });
            }
            let generous = count.max(self.room + self.room / 2);
            self.grow(s, if fits(generous) { generous } else { count })?;
        }
        self.blocks = self.blocks.max(count);
        Ok(())
    }

    fn grow(&mut self, s: &Stream, room: usize) -> Result<(), MlxError> {
        let slots = int(room * BLOCK_SIZE)?;
        let elements = dtype(self.form.kv_type);
        for layer in &mut self.layers {
            for rows in [&mut layer.keys, &mut layer.values] {
                // After a failure some arrays are longer, which harms nobody.
                lengthen(s, &mut rows.elements, slots, elements)?;
                if let Some(scales) = &mut rows.scales {
                    lengthen(s, scales, slots, Dtype::F32)?;
                }
            }
        }
        self.room = room;
        self.fill(s)
    }

    /// Copies a block to another.
    ///
    /// # Errors
    /// [`MlxError`].
    pub(crate) fn copy(&mut self, s: &Stream, from: u32, to: u32) -> Result<(), MlxError> {
        if from == to {
            return Ok(());
        }
        let (from, to) = (slots_of(from, BLOCK_SIZE)?, slots_of(to, BLOCK_SIZE)?);
        let mut copy = || {
            let mut blocks = Vec::new();
            for layer in &self.layers {
                blocks.push([layer.keys.take(s, &from)?, layer.values.take(s, &from)?]);
            }
            // Computed first: while rows are still to be read, the array that they are of would be copied.
            eval(&blocks.iter().flatten().flat_map(Rows::arrays).collect::<Vec<_>>())?;
            for (layer, [keys, values]) in self.layers.iter_mut().zip(&blocks) {
                layer.keys.replace(s, &to, keys)?;
                layer.values.replace(s, &to, values)?;
            }
            eval(&self.layers.iter().flat_map(LayerKv::arrays).collect::<Vec<_>>())
        };
        let result = copy();
        self.settle(s, result)
    }

    /// Gives the first positions of a block, in the form of [`KvRows`].
    ///
    /// # Errors
    /// [`MlxError`].
    pub(crate) fn read(&self, s: &Stream, block: u32, out: &mut [u8]) -> Result<(), MlxError> {
        let form = self.form;
        let (elements, position, row) = (form.element_bytes(), form.position_bytes(), form.row_bytes());
        let slots = slots_of(block, out.len() / position)?;
        let mut at = 0;
        for layer in &self.layers {
            for rows in [&layer.keys, &layer.values] {
                let taken = rows.take(s, &slots)?;
                let values = s.in_rows(&taken.elements)?;
                let scales = taken.scales.as_ref().map(|scales| s.in_rows(scales)).transpose()?;
                let (values, scales) = (values.data()?, scales.as_ref().map(Array::data).transpose()?);
                for (slot, out) in out.chunks_exact_mut(position).enumerate() {
                    for (head, out) in out[at..at + form.heads * row].chunks_exact_mut(row).enumerate() {
                        let index = slot * form.heads + head;
                        out[..elements].copy_from_slice(&values[index * elements..][..elements]);
                        if let Some(scales) = scales {
                            out[elements..].copy_from_slice(&scales[4 * index..][..4]);
                        }
                    }
                }
                at += form.heads * row;
            }
        }
        Ok(())
    }

    /// Takes the first positions of a block.
    ///
    /// # Errors
    /// [`MlxError`].
    pub(crate) fn write(&mut self, s: &Stream, block: u32, bytes: &[u8]) -> Result<(), MlxError> {
        let form = self.form;
        let slots = slots_of(block, bytes.len() / form.position_bytes())?;
        let mut write = || {
            for (number, layer) in self.layers.iter_mut().enumerate() {
                for (part, rows) in [(KvPart::Key, &mut layer.keys), (KvPart::Value, &mut layer.values)] {
                    rows.replace(s, &slots, &unpacked(form, number, part, bytes)?)?;
                }
            }
            eval(&self.layers.iter().flat_map(LayerKv::arrays).collect::<Vec<_>>())
        };
        let result = write();
        self.settle(s, result)
    }
}

/// The rows of a layer's keys or values in bytes of the form of [`KvRows`].
fn unpacked(form: KvRows, layer: usize, part: KvPart, bytes: &[u8]) -> Result<Rows, MlxError> {
    let (elements, row) = (form.element_bytes(), form.row_bytes());
    let first = (2 * layer + usize::from(part == KvPart::Value)) * form.heads * row;
    let (mut values, mut scales) = (Vec::new(), Vec::new());
    for position in bytes.chunks_exact(form.position_bytes()) {
        for row in position[first..first + form.heads * row].chunks_exact(row) {
            values.extend_from_slice(&row[..elements]);
            scales.extend_from_slice(&row[elements..]);
        }
    }
    let positions = int(bytes.len() / form.position_bytes())?;
    let (heads, width) = (int(form.heads)?, int(form.heads * form.head_dim)?);
    let scales = match form.kv_type {
        KvType::Int8 => Some(Array::from_bytes(&scales, &[positions, heads], Dtype::F32)?),
        KvType::F32 | KvType::F16 => None,
    };
    let elements = Array::from_bytes(&values, &[positions, width], dtype(form.kv_type))?;
    Ok(Rows { elements, scales })
}

/// The first slots of a block.
fn slots_of(block: u32, positions: usize) -> Result<Array, MlxError> {
    let first = int(block as usize * BLOCK_SIZE)?;
    let count = int(positions)?;
    Array::from_i32(&(first..first + count).collect::<Vec<_>>(), &[count])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::options::MlxWhere;
    use bitnet_model::conformance::samples;

    #[test]
    fn a_failed_computation_costs_the_content_and_tells() {
        let s = Stream::new(MlxWhere::Cpu).unwrap();
        for kv_type in KvType::ALL {
            let mut cache = KvCache::new(&samples()[0].spec, kv_type);
            cache.reserve(&s, 2, None).unwrap();
            let len = 3 * cache.form().position_bytes();
            let bytes: Vec<u8> = (0..len).map(|i| (i % 100) as u8).collect();
            let content = |cache: &KvCache, block: u32| {
                let mut out = vec![0; len];
                cache.read(&s, block, &mut out).unwrap();
                out
            };
            cache.write(&s, 1, &bytes).unwrap();
            cache.copy(&s, 1, 0).unwrap();
            cache.reserve(&s, 5, None).unwrap();
            cache.copy(&s, 0, 4).unwrap();
            assert_eq!((content(&cache, 1), content(&cache, 4)), (bytes.clone(), bytes));
            assert!(cache.settle(&s, Ok(())).is_ok() && !cache.take_loss());
            let failed: Result<(), MlxError> = Err(MlxError::Device("it failed".to_owned()));
            assert_eq!(cache.settle(&s, failed.clone()), failed);
            assert_eq!(content(&cache, 4), vec![0; len]);
            assert!(cache.take_loss() && !cache.take_loss());
        }
    }
}
