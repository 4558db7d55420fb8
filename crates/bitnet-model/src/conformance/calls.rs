//! Calls of an executor beside `forward`: hidden states, copies of blocks, logits that each row chooses.

use super::{Random, Sample, Tolerance, compare};
use crate::kv_rows::KvRows;
use crate::reference::ReferenceExecutor;
use crate::{
    Batch, Draw, DrawStep, ExecError, Executor, Give, KvType, LogitRows, RowWant, Sequence, TokenSet,
    TopLogits, TopWant,
};

/// Hidden states of all tokens in one call, of the last alone behind a chunk, and that logits are not disturbed by them.
pub(super) fn check_hidden(
    executor: &mut dyn Executor,
    sample: &Sample,
    kv_type: KvType,
    tolerance: Tolerance,
    text: &[u32],
) -> Result<(), String> {
    let width = sample.spec.hidden_size;
    let rows = |executor: &mut dyn Executor, cuts: &[(usize, LogitRows)]| {
        let blocks: Vec<u32> = (0..text.len().div_ceil(executor.info().block_size) as u32).collect();
        executor.reserve_blocks(blocks.len())?;
        let (mut start, mut all) = (0, Vec::new());
        for &(end, logits) in cuts {
            let s = Sequence { tokens: &text[start..end], position: start, blocks: &blocks, logits };
            let mut hidden = vec![f32::NAN; s.logit_rows() * width];
            executor.forward_hidden(&Batch { sequences: &[s] }, &mut hidden)?;
            all.extend(hidden);
            start = end;
        }
        Ok::<_, ExecError>(all)
    };
    let all = [(text.len(), LogitRows::All)];
    let last = [(text.len() - 3, LogitRows::None), (text.len(), LogitRows::Last)];
    let mut run = || -> Result<_, ExecError> {
        let mut oracle = ReferenceExecutor::new(sample.spec.clone(), &sample.weights, kv_type)?;
        Ok((rows(&mut oracle, &all)?, rows(executor, &all)?, rows(executor, &last)?))
    };
    let (want, whole, end) = run().map_err(|e| format!("{}, hidden states: {e}", sample.name))?;
    let name = format!("{}, hidden states", sample.name);
    compare(&name, tolerance, &whole, &want, width)?;
    compare(&name, tolerance, &end, &want[want.len() - width..], width)?;
    let embedded = from_rows(executor, text).map_err(|e| format!("{}, from rows: {e}", sample.name))?;
    compare(&format!("{}, from rows", sample.name), tolerance, &embedded, &want, width)
}

/// Hidden states of all tokens, computed from their rows of the embedding.
fn from_rows(executor: &mut dyn Executor, text: &[u32]) -> Result<Vec<f32>, ExecError> {
    let width = executor.spec().hidden_size;
    let blocks: Vec<u32> = (0..text.len().div_ceil(executor.info().block_size) as u32).collect();
    let (mut rows, mut hidden) = (vec![f32::NAN; text.len() * width], vec![f32::NAN; text.len() * width]);
    executor.embedding_rows(text, &mut rows)?;
    let nothing = vec![0; text.len()];
    let s = Sequence { tokens: &nothing, position: 0, blocks: &blocks, logits: LogitRows::All };
    executor.forward_rows(&Batch { sequences: &[s] }, &rows, Give::Hidden, &mut hidden)?;
    Ok(hidden)
}

/// A text goes on from copies of blocks that are filled in part, while the blocks themselves are overwritten by another.
pub(super) fn check_copies(
    executor: &mut dyn Executor,
    sample: &Sample,
    tolerance: Tolerance,
    text: &[u32],
    want: &[f32],
) -> Result<(), String> {
    let (vocab, block_size) = (sample.spec.vocab_size, executor.info().block_size);
    let count = text.len().div_ceil(block_size);
    let failed = |e: ExecError| format!("{}, copied blocks: {e}", sample.name);
    executor.reserve_blocks(2 * count).map_err(failed)?;
    let mut table: Vec<u32> = (0..count as u32).collect();
    let mut copies = count as u32..2 * count as u32;
    let mut position = 0;
    while position < text.len() {
        // A little more or less than a block, so that copied blocks hold from one position to all but one.
        let end = text.len().min(position + (block_size + 7) / 2 + position % 3);
        let s = Sequence { tokens: &text[position..end], position, blocks: &table, logits: LogitRows::All };
        let mut logits = vec![0.0; (end - position) * vocab];
        executor.forward(&Batch { sequences: &[s] }, &mut logits).map_err(failed)?;
        let name = format!("{}, behind a copied block, from position {position}", sample.name);
        compare(&name, tolerance, &logits, &want[position * vocab..end * vocab], vocab)?;
        let last = (end - 1) / block_size;
        if let Some(copy) = copies.next().filter(|_| !end.is_multiple_of(block_size)) {
            let old = std::mem::replace(&mut table[last], copy);
            executor.copy_block(old, copy).map_err(failed)?;
            let other: Vec<u32> = text.iter().rev().copied().take(block_size).collect();
            let s = Sequence { tokens: &other, position: 0, blocks: &[old], logits: LogitRows::None };
            executor.forward(&Batch { sequences: &[s] }, &mut []).map_err(failed)?;
        }
        position = end;
    }
    match executor.copy_block(0, u32::MAX) {
        Err(ExecError::NoSuchBlock { block: u32::MAX, .. }) => Ok(()),
        other => Err(format!("{}: a copy to a block that does not exist gave {other:?}", sample.name)),
    }
}

/// A text goes on from blocks whose content was taken out and put into others, and from those of the oracle.
pub(super) fn check_stored(
    executor: &mut dyn Executor,
    sample: &Sample,
    kv_type: KvType,
    tolerance: Tolerance,
    text: &[u32],
    want: &[f32],
) -> Result<(), String> {
    let (vocab, position) = (sample.spec.vocab_size, text.len() - 3);
    let failed = |e: ExecError| format!("{}, stored blocks: {e}", sample.name);
    let mut oracle = ReferenceExecutor::new(sample.spec.clone(), &sample.weights, kv_type).map_err(failed)?;
    let rows = KvRows::new(&sample.spec, kv_type);
    let own = stored(executor, rows, &text[..position]).map_err(failed)?;
    let other = stored(&mut oracle, rows, &text[..position]).map_err(failed)?;
    if tolerance == Tolerance::Bits && own != other {
        return Err(format!("{}: stored keys and values differ from the oracle's", sample.name));
    }
    let block_size = executor.info().block_size;
    let count = text.len().div_ceil(block_size) as u32;
    executor.reserve_blocks(3 * count as usize).map_err(failed)?;
    for (first, bytes, whose) in [(count, own, "its own"), (2 * count, other, "the oracle's")] {
        let blocks: Vec<u32> = (first..first + count).collect();
        for (block, bytes) in blocks.iter().zip(bytes.chunks(block_size * rows.position_bytes())) {
            executor.write_block(*block, bytes.len() / rows.position_bytes(), bytes).map_err(failed)?;
        }
        let tokens = &text[position..];
        let s = Sequence { tokens, position, blocks: &blocks, logits: LogitRows::All };
        let mut logits = vec![f32::NAN; tokens.len() * vocab];
        executor.forward(&Batch { sequences: &[s] }, &mut logits).map_err(failed)?;
        let name = format!("{}, behind stored blocks, {whose}", sample.name);
        compare(&name, tolerance, &logits, &want[position * vocab..], vocab)?;
    }
    let mut row = vec![0; rows.position_bytes()];
    let wrong = [
        executor.read_block(u32::MAX, 1, &mut row),
        executor.write_block(u32::MAX, 1, &row),
        executor.read_block(0, 2, &mut row),
        executor.write_block(0, 2, &row),
        executor.write_block(0, block_size + 1, &vec![0; (block_size + 1) * row.len()]),
    ];
    let refused = |r: &Result<(), ExecError>| {
        matches!(r, Err(ExecError::NoSuchBlock { .. } | ExecError::BlockBytes { .. }))
    };
    match wrong.iter().find(|result| !refused(result)) {
        Some(result) => Err(format!("{}: blocks or sizes that cannot be gave {result:?}", sample.name)),
        None => Ok(()),
    }
}

/// Computes a text and gives its keys and values.
fn stored(executor: &mut dyn Executor, rows: KvRows, text: &[u32]) -> Result<Vec<u8>, ExecError> {
    let block_size = executor.info().block_size;
    let blocks: Vec<u32> = (0..text.len().div_ceil(block_size) as u32).collect();
    executor.reserve_blocks(blocks.len())?;
    let s = Sequence { tokens: text, position: 0, blocks: &blocks, logits: LogitRows::None };
    executor.forward(&Batch { sequences: &[s] }, &mut [])?;
    let mut all = vec![0; text.len() * rows.position_bytes()];
    for (block, bytes) in blocks.iter().zip(all.chunks_mut(block_size * rows.position_bytes())) {
        executor.read_block(*block, bytes.len() / rows.position_bytes(), bytes)?;
    }
    Ok(all)
}

/// Rows of one batch that want different things: what they get has the bits of `forward`, and is all that was asked for.
pub(super) fn check_select(executor: &mut dyn Executor, sample: &Sample, text: &[u32]) -> Result<(), String> {
    let vocab = sample.spec.vocab_size;
    let failed = |e: ExecError| format!("{}, chosen logits: {e}", sample.name);
    let blocks: Vec<u32> = (0..text.len().div_ceil(executor.info().block_size) as u32).collect();
    executor.reserve_blocks(blocks.len()).map_err(failed)?;
    let s = Sequence { tokens: text, position: 0, blocks: &blocks, logits: LogitRows::All };
    let batch = Batch { sequences: &[s] };
    let mut full = vec![0.0; text.len() * vocab];
    executor.forward(&batch, &mut full).map_err(failed)?;
    let mut random = Random::new(11);
    let sets: Vec<Vec<u32>> =
        (0..4).map(|_| (0..vocab.div_ceil(32)).map(|_| random.next_u64() as u32).collect()).collect();
    let mut numbers = Random::new(5);
    let steps = [
        [Some(DrawStep::Temperature(0.7)), Some(DrawStep::TopP(0.8)), Some(DrawStep::MinP(0.1))],
        [None, Some(DrawStep::TopP(0.6)), Some(DrawStep::Temperature(1.5))],
        [Some(DrawStep::MinP(0.3)), None, None],
    ];
    let mut draw = |row: usize| {
        let number = (numbers.next_u64() >> 11) as f64 / (1u64 << 53) as f64;
        RowWant::Draw(Draw { k: [1, 5, 40, 300][row % 4], steps: steps[row % 3], number })
    };
    let want = |row: usize| match row % 7 {
        0 => RowWant::All,
        1 => RowWant::Top(TopWant { k: 1 + row, allowed: None }),
        i @ 2..=4 => RowWant::Top(TopWant { k: row, allowed: Some(TokenSet::new(&sets[i - 2])) }),
        _ => draw(row),
    };
    let wants: Vec<RowWant<'_>> = (0..text.len()).map(want).collect();
    let tops = wants.iter().filter(|want| want.top().is_some()).count();
    let mut logits = vec![0.0; (wants.len() - tops) * vocab];
    let mut top = vec![TopLogits::default(); tops];
    executor.forward_select(&batch, &wants, &mut logits, &mut top).map_err(failed)?;
    let (mut rows, mut tops) = (logits.chunks_exact(vocab), top.iter());
    for (row, (want, full)) in wants.iter().zip(full.chunks_exact(vocab)).enumerate() {
        let name = format!("{}, chosen logits, row {row}", sample.name);
        match want.top() {
            None => compare(&name, Tolerance::Bits, rows.next().unwrap_or_default(), full, vocab)?,
            Some(top) => {
                let draw = want.draw().filter(|draw| executor.draws() && draw.k <= Draw::FEW);
                match draw {
                    Some(draw) => check_draw(&name, tops.next(), draw, full)?,
                    None => check_top(&name, tops.next(), top, full)?,
                }
            }
        }
    }
    match executor.forward_select(&batch, &wants[1..], &mut logits, &mut top) {
        Err(ExecError::OutputSize { .. }) => Ok(()),
        other => Err(format!("{}: too few wants gave {other:?}", sample.name)),
    }
}

/// Checks that `top` is the token alone that is drawn from all logits.
fn check_draw(name: &str, top: Option<&TopLogits>, draw: Draw, full: &[f32]) -> Result<(), String> {
    let all = TopLogits { ids: (0..full.len() as u32).collect(), logits: full.to_vec() };
    let token = draw.token(&all).ok_or_else(|| format!("{name}: no logits"))?;
    match top {
        Some(top) if top.ids == [token] && top.logits == [full[token as usize]] => Ok(()),
        other => Err(format!("{name}: {draw:?} gives token {token}, but {other:?} was given")),
    }
}

/// Checks that `top` has the bits of `full`, only tokens that count, and the `k` best of them.
fn check_top(name: &str, top: Option<&TopLogits>, want: TopWant<'_>, full: &[f32]) -> Result<(), String> {
    let top = top.ok_or_else(|| format!("{name}: nothing given"))?;
    if !top.ids.is_sorted_by(|a, b| a < b) || top.ids.len() != top.logits.len() {
        return Err(format!("{name}: tokens {:?} with {} logits", top.ids, top.logits.len()));
    }
    for (&id, logit) in top.ids.iter().zip(&top.logits) {
        let right = full.get(id as usize).is_some_and(|full| full.to_bits() == logit.to_bits());
        if !right || !want.allows(id) {
            return Err(format!("{name}: token {id} is given with {logit:e}"));
        }
    }
    let mut best: Vec<f32> = (0..full.len()).filter(|&t| want.allows(t as u32)).map(|t| full[t]).collect();
    best.sort_by(|a, b| b.total_cmp(a));
    let last = best.get(want.k.max(1) - 1).copied().unwrap_or(f32::NEG_INFINITY);
    let missing = |&t: &u32| want.allows(t) && full[t as usize] > last && top.ids.binary_search(&t).is_err();
    match (0..full.len() as u32).find(missing) {
        Some(token) => Err(format!("{name}: token {token} is one of the {} best, but missing", want.k)),
        None if top.ids.len() < want.k.min(best.len()) => {
            Err(format!("{name}: only {} tokens", top.ids.len()))
        }
        None => Ok(()),
    }
}
