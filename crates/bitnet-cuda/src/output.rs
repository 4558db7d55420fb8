//! What comes back from a pass: logits, or the largest of them.

use bitnet_model::{Draw, ExecError, RowWants, TokenSet, TopLogits, TopWant};
use bytemuck::{bytes_of, cast_slice_mut};

use crate::CudaError;
use crate::args::{DeliverArgs, DrawArgs, FetchArgs, ScanArgs, SelectArgs};
use crate::forward::Pass;
use crate::gpu::Address;
use crate::kv::KvLayout;
use crate::mailbox::{self, Post};
use crate::memory::Memory;
use crate::model::Model;
use crate::scratch::{CHUNK, LOGIT_ROWS, RowDraw, Scratch, Sizes, found_bytes};

/// Room for what is found of a row, at least and at most. If more is found, all logits of the row are computed.
const CAPACITY: [usize; 2] = [1024, 8192];
/// Most blocks of threads that compute what was found of a row.
const RESCORE_BLOCKS: usize = 64;

/// What a row wants that wants its largest logits only, or what is drawn from them.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Top<'a> {
    pub(crate) want: TopWant<'a>,
    pub(crate) draw: Option<Draw>,
}

/// What those of so many rows want that want their largest logits only.
pub(crate) fn tops(wants: RowWants<'_>, rows: usize) -> Vec<Top<'_>> {
    let top = |row| {
        let row = wants.row(row);
        row.top().map(|want| Top { want, draw: row.draw().filter(|draw| draw.k <= Draw::FEW) })
    };
    (0..rows).filter_map(top).collect()
}

/// The order in which rows are computed: those that want their largest logits first.
pub(crate) fn order(wants: RowWants<'_>, rows: usize) -> Vec<usize> {
    let mut order: Vec<usize> = (0..rows).collect();
    order.sort_by_key(|&row| wants.row(row).top().is_none());
    order
}

/// Room for what is found of each row.
pub(crate) fn capacity(tops: &[Top<'_>]) -> usize {
    let most = tops.iter().map(|top| top.want.k).max().unwrap_or(0);
    most.saturating_mul(16).clamp(CAPACITY[0], CAPACITY[1]).next_power_of_two()
}

/// Words of the sets of tokens.
pub(crate) fn mask_words(tops: &[Top<'_>]) -> usize {
    tops.iter().filter_map(|top| top.want.allowed).map(TokenSet::words).sum()
}

impl Pass<'_> {
    /// The kernels that find the largest logits of `count` of the rows that want them, from `first` on.
    ///
    /// # Errors
    /// If the device refuses a launch.
    pub(crate) fn select(&mut self, first: usize, count: usize) -> Result<(), CudaError> {
        let places = self.scratch.places;
        let (vocab, table, image) = (self.spec().vocab_size, self.model.output, self.model.image);
        let chunks = vocab.div_ceil(CHUNK);
        let at = |place: usize, bytes: usize| self.scratch.at(place) + (first * bytes) as u64;
        let h = at(places.hidden, 4 * table.pitch);
        let parts = at(places.parts, 256 * image.groups);
        let hidden = at(places.hidden_images, 16);
        let near = self.scratch.at(places.logits);
        let args = SelectArgs {
            near,
            images: image.rows,
            hidden,
            h,
            table: table.address,
            counts: at(places.top_counts, 4),
            masks: self.scratch.at(places.masks),
            mask_at: at(places.mask_at, 4),
            mask_len: at(places.mask_len, 4),
            maxima: at(places.maxima, 8 * chunks),
            found: at(places.found, found_bytes(self.sizes.capacity)),
            flags: self.scratch.at(places.flags),
            vocab: vocab as u32,
            chunks: chunks as u32,
            capacity: self.sizes.capacity as u32,
            pitch: table.pitch as u32,
            dtype: table.type_code(),
            rounding: dot_rounding(table.pitch),
        };
        self.scan(&args, parts, count)?;
        self.launch("collect", [count, 1, 1], 512, 0, bytes_of(&args))?;
        let blocks = RESCORE_BLOCKS.min(self.gpu.facts().multiprocessors as usize);
        self.launch("rescore", [blocks, count, 1], 256, 0, bytes_of(&args))?;
        if !self.sizes.draws {
            return Ok(());
        }
        let (draws, capacity) = (at(places.draws, size_of::<RowDraw>()), self.sizes.capacity as u32);
        let args = DrawArgs { draws, found: args.found, capacity, pad: 0 };
        self.launch("draw", [count, 1, 1], 256, 0, bytes_of(&args))
    }

    /// All kernels up to the first rows of logits.
    ///
    /// # Errors
    /// If the device refuses a launch.
    pub(crate) fn all(&mut self) -> Result<(), CudaError> {
        let Sizes { top, picked, logits, .. } = self.sizes;
        self.hidden()?;
        if top > 0 {
            self.select(0, top.min(LOGIT_ROWS))
        } else if logits && picked > 0 {
            self.logits(0, picked.min(LOGIT_ROWS))
        } else {
            Ok(())
        }
    }

    /// The same for a step whose inputs come from the mailbox, and whose results go there.
    ///
    /// # Errors
    /// If the device refuses a launch.
    pub(crate) fn delivered(&mut self, post: Post) -> Result<(), CudaError> {
        let Post { mail, inputs, results, number } = post;
        let places = self.scratch.places;
        let (to, pieces) = (self.scratch.at(0), (places.found / 16) as u32);
        let fetch = FetchArgs { mail, inputs, to, number, pieces, pad: 0 };
        self.launch("fetch", [1, 1, 1], 512, 0, bytes_of(&fetch))?;
        self.all()?;
        let deliver = DeliverArgs {
            mail,
            results,
            flags: self.scratch.at(places.flags),
            found: self.scratch.at(places.found),
            number,
            rows: self.sizes.top as u32,
            capacity: self.sizes.capacity as u32,
            room: mailbox::room(self.sizes.capacity) as u32,
            pad: 0,
        };
        self.launch("deliver", [1, 1, 1], 512, 0, bytes_of(&deliver))
    }

    fn scan(&mut self, select: &SelectArgs, parts: Address, rows: usize) -> Result<(), CudaError> {
        let image = self.model.image;
        let args = ScanArgs {
            codes: image.codes,
            images: image.rows,
            parts,
            hidden: select.hidden,
            near: select.near,
            masks: select.masks,
            mask_at: select.mask_at,
            mask_len: select.mask_len,
            maxima: select.maxima,
            rows: rows as u32,
            vocab: select.vocab,
            groups: image.groups as u32,
            row_blocks: image.row_blocks as u32,
            chunks: select.chunks,
            rounding: select.rounding,
        };
        let blocks = image.row_blocks.div_ceil(8);
        if !self.gpu.facts().tensor_cores {
            return self.launch("scan_dot", [blocks, rows, 1], 256, 256 * args.groups, bytes_of(&args));
        }
        let (kernel, tiles) = match rows {
            0..=4 => ("scan_4", 1),
            5..=16 => ("scan_16", 4),
            _ => ("scan_64", 16),
        };
        let shared = 3 * 1024 * tiles as u32;
        self.launch(kernel, [blocks, rows.div_ceil(4 * tiles), 1], 256, shared, bytes_of(&args))
    }
}

/// What a dot product in sixteen chains is off by at most, in parts of the product of the lengths of its factors: each of
/// `pitch / 16` steps and of the four that fold the chains rounds once. Twice that, since the bound's own terms round too.
fn dot_rounding(pitch: usize) -> f32 {
    (pitch / 16 + 16) as f32 * f32::EPSILON
}

/// Takes the `k` largest of what was found of a row, and their equals: it has a count, nothing, and pairs of a token and its
/// logit in any order, which are all numbers. Many more than `k` may have been found, and to sort them would take long.
fn take_pairs(top: &mut TopLogits, found: &mut [u32], k: usize) {
    let (count, k) = (found[0] as usize, k.max(1));
    let pairs: &mut [[u32; 2]] = found[2..][..2 * count].as_chunks_mut().0;
    let logit = |pair: &[u32; 2]| f32::from_bits(pair[1]);
    let mut kept = count;
    if k < count {
        let largest_first = |a: &[u32; 2], b: &[u32; 2]| logit(b).total_cmp(&logit(a));
        let (_, least, rest) = pairs.select_nth_unstable_by(k - 1, largest_first);
        let least = logit(least);
        let mut equals = 0;
        for i in 0..rest.len() {
            // Zeros are equal whatever their sign.
            if logit(&rest[i]) >= least {
                rest.swap(i, equals);
                equals += 1;
            }
        }
        kept = k + equals;
    }
    let pairs = &mut pairs[..kept];
    pairs.sort_unstable_by_key(|pair| pair[0]);
    top.ids.clear();
    top.ids.extend(pairs.iter().map(|pair| pair[0]));
    top.logits.clear();
    top.logits.extend(pairs.iter().map(logit));
}

/// Takes results from the device.
pub(crate) struct Results<'a, 'w> {
    pub(crate) memory: &'a mut Memory,
    pub(crate) model: &'a Model,
    pub(crate) kv: KvLayout,
    pub(crate) scratch: &'a Scratch,
    pub(crate) sizes: Sizes,
    pub(crate) counters: Address,
    pub(crate) tops: &'a [Top<'w>],
}

impl Results<'_, '_> {
    fn pass(&mut self) -> Pass<'_> {
        Pass {
            model: self.model,
            kv: self.kv,
            scratch: self.scratch,
            sizes: self.sizes,
            counters: self.counters,
            gpu: &mut *self.memory.gpu,
        }
    }

    /// Takes everything, computing what the pass itself did not: it ended with the first [`LOGIT_ROWS`] rows that want their
    /// largest logits, or if there are none of those that want all.
    ///
    /// # Errors
    /// [`ExecError::NotFinite`], or if the device failed.
    pub(crate) fn take(&mut self, logits: &mut [f32], top: &mut [TopLogits]) -> Result<(), ExecError> {
        // With the first results comes word of whether all is well so far; often nothing is left then.
        let mut unsure = !logits.is_empty() || top.len() > LOGIT_ROWS;
        for (chunk, top) in top.chunks_mut(LOGIT_ROWS).enumerate() {
            let first = chunk * LOGIT_ROWS;
            if chunk > 0 {
                self.pass().select(first, top.len())?;
            }
            unsure |= self.take_tops(first, top)?;
        }
        let vocab = self.model.spec.vocab_size;
        for (chunk, logits) in logits.chunks_mut(LOGIT_ROWS * vocab).enumerate() {
            let first = self.sizes.top + chunk * LOGIT_ROWS;
            if chunk > 0 || self.sizes.top > 0 {
                self.pass().logits(first, logits.len() / vocab)?;
            }
            self.memory.download(self.scratch.at(self.scratch.places.logits), cast_slice_mut(logits))?;
        }
        if unsure { self.check_finite() } else { Ok(()) }
    }

    /// Takes what the mailbox has; whether that is all that was found.
    ///
    /// # Errors
    /// [`ExecError::NotFinite`].
    pub(crate) fn take_delivered(&mut self, top: &mut [TopLogits]) -> Result<bool, ExecError> {
        let Some(mailbox) = self.memory.delivered() else { return Ok(false) };
        if !mailbox.is_finite() {
            return Err(ExecError::NotFinite);
        }
        let room = mailbox::room(self.sizes.capacity);
        let mut found = Vec::new();
        for (row, (top, wanted)) in top.iter_mut().zip(self.tops).enumerate() {
            mailbox.take_row(row, room, &mut found);
            if found[0] as usize > room {
                return Ok(false);
            }
            take_pairs(top, &mut found, wanted.want.k);
        }
        Ok(true)
    }

    fn check_finite(&mut self) -> Result<(), ExecError> {
        let mut flags = [0u8; 4];
        self.memory.download(self.scratch.at(self.scratch.places.flags), &mut flags)?;
        if flags == [0; 4] { Ok(()) } else { Err(ExecError::NotFinite) }
    }

    /// Takes the largest logits of rows from `first` on; whether more was computed for them.
    fn take_tops(&mut self, first: usize, top: &mut [TopLogits]) -> Result<bool, ExecError> {
        let (places, capacity) = (self.scratch.places, self.sizes.capacity);
        let entry = found_bytes(capacity);
        // Flags stand before what is found.
        let head = places.found - places.flags;
        let skipped = head + first * entry;
        let mut bytes = vec![0u32; (skipped + top.len() * entry) / 4];
        self.memory.download(self.scratch.at(places.flags), cast_slice_mut(&mut bytes))?;
        if bytes[0] != 0 {
            return Err(ExecError::NotFinite);
        }
        let (found, mut more) = (&mut bytes[skipped / 4..], false);
        for ((index, top), found) in top.iter_mut().enumerate().zip(found.chunks_exact_mut(entry / 4)) {
            if found[0] as usize > capacity {
                self.whole_row(first + index, top)?;
                more = true;
            } else {
                take_pairs(top, found, self.tops[first + index].want.k);
            }
        }
        Ok(more)
    }

    /// All logits that count of a row of which too many were found.
    fn whole_row(&mut self, row: usize, top: &mut TopLogits) -> Result<(), CudaError> {
        self.pass().logits(row, 1)?;
        let mut all = vec![0.0; self.model.spec.vocab_size];
        self.memory.download(self.scratch.at(self.scratch.places.logits), cast_slice_mut(&mut all))?;
        let want = self.tops[row].want;
        top.ids.clear();
        top.logits.clear();
        top.ids.extend((0..all.len() as u32).filter(|&token| want.allows(token)));
        top.logits.extend(top.ids.iter().map(|&token| all[token as usize]));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_largest_and_their_equals_are_kept_in_the_order_of_tokens() {
        let row = |pairs: &[(u32, f32)]| {
            let pairs = pairs.iter().flat_map(|&(token, logit)| [token, logit.to_bits()]);
            [pairs.clone().count() as u32 / 2, 0].into_iter().chain(pairs).collect::<Vec<u32>>()
        };
        let pairs = [(7, 1.0), (3, -2.0), (9, 4.0), (1, 0.0), (5, -0.0), (2, 1.0)];
        let mut top = TopLogits::default();
        for (k, ids) in
            [(1, vec![9]), (2, vec![2, 7, 9]), (4, vec![1, 2, 5, 7, 9]), (6, vec![1, 2, 3, 5, 7, 9])]
        {
            take_pairs(&mut top, &mut row(&pairs), k);
            assert_eq!(top.ids, ids, "{k}");
            let logit = |id: &u32| pairs.iter().find(|pair| pair.0 == *id).unwrap().1;
            assert_eq!(top.logits, ids.iter().map(logit).collect::<Vec<f32>>(), "{k}");
        }
        take_pairs(&mut top, &mut row(&[]), 3);
        assert!(top.ids.is_empty());
    }
}
