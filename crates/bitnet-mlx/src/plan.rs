//! What the host tells the device for a pass: which rows there are, where their keys and values lie, what they attend to.
//!
//! A call is cut into passes of limited size, each one graph. In a pass, sequences with the same number of new tokens and
//! contexts of similar length are one *group*, whose attention is one set of products. Positions that a group attends to
//! begin at a multiple of [`STEP`] and are padded to one, with weights of zero: so sums over positions take the same steps
//! whatever else is in the pass.

use std::ops::Range;

use bitnet_model::{Batch, LogitRows, ModelSpec, reference};

use crate::kv::BLOCK_SIZE;

/// Positions are counted in these: more than MLX's vectors are long, and whole blocks of int8 weights.
const STEP: usize = 64;
/// Scores that a pass may make of one sequence, over all heads: a quarter of a gigabyte.
const MAX_SCORES: usize = 64 << 20;
/// The fewest tokens that a long context makes a pass of.
const MIN_TOKENS: usize = 8;

/// New tokens of one sequence in a pass.
#[derive(Debug, Clone)]
pub(crate) struct Piece<'a> {
    /// The tokens; they count rows only where rows are given.
    pub(crate) tokens: &'a [u32],
    /// Position of the first.
    pub(crate) position: usize,
    /// The block table of the sequence.
    pub(crate) blocks: &'a [u32],
    /// Tokens of the piece that give results.
    pub(crate) wanted: Range<usize>,
    /// Number of the first token among those of the call.
    pub(crate) first: usize,
}

/// Positions that the sequences of a group attend to in layers of one kind.
#[derive(Debug, PartialEq)]
pub(crate) struct View {
    /// For each sequence.
    pub(crate) positions: usize,
    /// Rows of the cache, `[sequences, positions]`.
    pub(crate) rows: Vec<i32>,
    /// What is added to scores: zero, or negative infinity where a token does not look, `[sequences, tokens, positions]`.
    pub(crate) mask: Vec<f32>,
}

/// Sequences whose attention is computed together.
#[derive(Debug)]
pub(crate) struct Group {
    /// Rows of the pass.
    pub(crate) rows: Range<usize>,
    pub(crate) sequences: usize,
    /// New tokens of each.
    pub(crate) tokens: usize,
    /// In layers without and with a sliding window, if there are such.
    pub(crate) views: [Option<View>; 2],
}

/// A pass: its rows are those of its pieces in order.
#[derive(Debug)]
pub(crate) struct Pass<'a> {
    pub(crate) pieces: Vec<Piece<'a>>,
    pub(crate) groups: Vec<Group>,
    /// Rows that give results, in the order of the call.
    pub(crate) wanted: Vec<i32>,
}

/// A slot of the cache.
fn slot(blocks: &[u32], position: usize) -> i32 {
    (blocks[position / BLOCK_SIZE] as usize * BLOCK_SIZE + position % BLOCK_SIZE) as i32
}

/// Cuts a call into passes of at most so many rows, in order.
pub(crate) fn cut<'a>(spec: &ModelSpec, batch: &Batch<'a>, max_rows: usize) -> Vec<Vec<Piece<'a>>> {
    let (mut passes, mut pass, mut room, mut first) = (Vec::new(), Vec::new(), max_rows, 0);
    for s in batch.sequences {
        let mut done = 0;
        while done < s.tokens.len() {
            if room == 0 {
                passes.push(std::mem::take(&mut pass));
                room = max_rows;
            }
            let context = (s.position + done + MIN_TOKENS) * spec.num_heads;
            let fitting = (MAX_SCORES / context).max(MIN_TOKENS).min(room);
            let end = s.tokens.len().min(done + fitting);
            let (position, len) = (s.position + done, end - done);
            let wanted = match s.logits {
                LogitRows::None => 0..0,
                LogitRows::Last if end < s.tokens.len() => 0..0,
                LogitRows::Last => len - 1..len,
                LogitRows::All => 0..len,
            };
            pass.push(Piece { tokens: &s.tokens[done..end], position, blocks: s.blocks, wanted, first });
            // A sequence goes on in the next pass, when its earlier positions are stored.
            room = if end < s.tokens.len() { 0 } else { room - len };
            (done, first) = (end, first + len);
        }
    }
    if !pass.is_empty() {
        passes.push(pass);
    }
    passes
}

impl<'a> Pass<'a> {
    /// Puts pieces into groups.
    pub(crate) fn new(spec: &ModelSpec, pieces: &[Piece<'a>]) -> Self {
        let key = |piece: &Piece<'_>| {
            let end = piece.position + piece.tokens.len();
            (piece.tokens.len(), end.div_ceil(STEP).next_power_of_two())
        };
        let mut order: Vec<usize> = (0..pieces.len()).collect();
        order.sort_by_key(|&i| key(&pieces[i]));
        let mut starts = vec![0; pieces.len()];
        let mut rows = 0;
        for &i in &order {
            starts[i] = rows;
            rows += pieces[i].tokens.len();
        }
        let wanted = pieces.iter().zip(&starts);
        let wanted = wanted
            .flat_map(|(piece, &start)| piece.wanted.clone().map(move |t| (start + t) as i32))
            .collect();
        let pieces: Vec<Piece<'a>> = order.into_iter().map(|i| pieces[i].clone()).collect();
        let mut groups = Vec::new();
        let mut row = 0;
        for members in pieces.chunk_by(|a, b| key(a) == key(b)) {
            let tokens = members[0].tokens.len();
            let rows = row..row + members.len() * tokens;
            row = rows.end;
            let views = [false, true].map(|sliding| View::new(spec, sliding, members));
            groups.push(Group { rows, sequences: members.len(), tokens, views });
        }
        Self { pieces, groups, wanted }
    }

    /// Rows of the pass.
    pub(crate) fn rows(&self) -> usize {
        self.pieces.iter().map(|piece| piece.tokens.len()).sum()
    }

    /// Where keys and values of each row are stored.
    pub(crate) fn slots(&self) -> Vec<i32> {
        let of = |piece: &Piece<'a>| {
            let (blocks, positions) = (piece.blocks, piece.position..piece.position + piece.tokens.len());
            positions.map(move |position| slot(blocks, position))
        };
        self.pieces.iter().flat_map(of).collect()
    }

    /// The rotation of each row, `[rows, 1, 2, head_dim / 2]` twice: cosines for both halves, then what the halves the other
    /// way round are multiplied by, minus and plus the sine.
    pub(crate) fn rotation(&self, spec: &ModelSpec, sliding: bool) -> [Vec<f32>; 2] {
        let half = spec.head_dim / 2;
        let (mut cos, mut sin) = (vec![0.0; half], vec![0.0; half]);
        let [mut straight, mut crossed] = [(); 2].map(|()| Vec::with_capacity(self.rows() * 2 * half));
        for piece in &self.pieces {
            for position in piece.position..piece.position + piece.tokens.len() {
                reference::rope_angles(spec, sliding, position, &mut cos, &mut sin);
                straight.extend(cos.iter().chain(&cos));
                crossed.extend(sin.iter().map(|s| -s).chain(sin.iter().copied()));
            }
        }
        [straight, crossed]
    }
}

/// Whether a model has layers of a kind.
pub(crate) fn has_layers(spec: &ModelSpec, sliding: bool) -> bool {
    (0..spec.num_layers).any(|layer| spec.is_sliding(layer) == sliding)
}

impl View {
    fn new(spec: &ModelSpec, sliding: bool, members: &[Piece<'_>]) -> Option<Self> {
        let layer = (0..spec.num_layers).find(|&layer| spec.is_sliding(layer) == sliding)?;
        let start = |piece: &Piece<'_>| spec.first_position(layer, piece.position) / STEP * STEP;
        let end = |piece: &Piece<'_>| piece.position + piece.tokens.len();
        let longest = members.iter().map(|piece| end(piece) - start(piece)).max()?;
        let positions = longest.next_multiple_of(STEP);
        let (mut rows, mut mask) = (Vec::new(), Vec::new());
        for piece in members {
            let (start, end) = (start(piece), end(piece));
            // What stands behind the last token is not looked at, but must be a number: the last token again.
            rows.extend((start..start + positions).map(|p| slot(piece.blocks, p.min(end - 1))));
            for position in piece.position..end {
                let seen = spec.first_position(layer, position)..position + 1;
                let value = |p: usize| if seen.contains(&p) { 0.0 } else { f32::NEG_INFINITY };
                mask.extend((start..start + positions).map(value));
            }
        }
        Some(Self { positions, rows, mask })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bitnet_model::conformance::samples;
    use bitnet_model::{Sequence, SlidingWindow};

    fn spec() -> ModelSpec {
        samples().swap_remove(0).spec
    }

    #[test]
    fn calls_are_cut_and_results_keep_their_order() {
        let (spec, tokens, blocks) = (spec(), vec![7; 20], [3, 1]);
        let s = |count: usize, logits| Sequence {
            tokens: &tokens[..count],
            position: 10,
            blocks: &blocks,
            logits,
        };
        let sequences =
            [s(3, LogitRows::All), s(20, LogitRows::Last), s(1, LogitRows::Last), s(3, LogitRows::All)];
        let batch = Batch { sequences: &sequences };
        let passes = cut(&spec, &batch, 16);
        let sizes: Vec<Vec<usize>> =
            passes.iter().map(|pass| pass.iter().map(|piece| piece.tokens.len()).collect()).collect();
        assert_eq!(sizes, [vec![3, 13], vec![7, 1, 3]]);
        assert_eq!((passes[1][0].position, passes[1][0].wanted.clone(), passes[1][0].first), (23, 6..7, 16));
        assert!(passes[0][1].wanted.is_empty());
        let pass = Pass::new(&spec, &passes[1]);
        let lens: Vec<usize> = pass.pieces.iter().map(|piece| piece.tokens.len()).collect();
        assert_eq!(lens, [1, 3, 7]);
        assert_eq!(pass.wanted, [10, 0, 1, 2, 3]);
        assert_eq!(pass.slots()[..4], [106, 106, 107, 108]);
        let [one, three, seven] = &pass.groups[..] else { panic!("{:?}", pass.groups) };
        assert_eq!((one.rows.clone(), three.rows.clone(), seven.rows.clone()), (0..1, 1..4, 4..11));
        assert!(one.views[1].is_none());
        let view = one.views[0].as_ref().unwrap();
        assert_eq!((view.positions, view.rows[10], view.rows[63]), (64, 106, 106));
        assert_eq!(view.mask.iter().filter(|&&m| m == 0.0).count(), 11);
    }

    #[test]
    fn windows_begin_at_whole_steps() {
        let mut spec = spec();
        spec.extras.sliding = Some(SlidingWindow { window: 5, layers: vec![true, false], rope_theta: 1.0 });
        let blocks: Vec<u32> = (0..10).collect();
        let s = Sequence { tokens: &[1, 2], position: 200, blocks: &blocks, logits: LogitRows::Last };
        let sequences = [s];
        let pass = Pass::new(&spec, &cut(&spec, &Batch { sequences: &sequences }, 16)[0]);
        let [Some(full), Some(window)] = &pass.groups[0].views else { panic!("views are missing") };
        assert_eq!((full.positions, window.positions), (256, 64));
        assert_eq!((window.rows[0], window.rows[9], window.rows[63]), (192, 201, 201));
        let seen: Vec<usize> = (0..128).filter(|&i| window.mask[i] == 0.0).collect();
        assert_eq!(seen, [4, 5, 6, 7, 8, 69, 70, 71, 72, 73]);
    }
}
