//! Steps of decoding and prompts as the engine makes them, for programs that measure executors.

use std::time::Instant;

use bitnet_model::{Batch, ExecError, Executor, LogitRows, Sequence, TopLogits};

/// Steps before those that are measured.
pub(crate) const WARM: usize = 8;

/// Block tables of some texts that have nothing in common; the executor has all of their blocks.
pub(crate) fn tables(
    executor: &mut impl Executor,
    texts: usize,
    positions: usize,
) -> Result<Vec<Vec<u32>>, ExecError> {
    let each = positions.div_ceil(executor.info().block_size) as u32;
    executor.reserve_blocks(texts * each as usize)?;
    Ok((0..texts as u32).map(|text| (text * each..(text + 1) * each).collect()).collect())
}

/// Seconds of a step of some texts from a depth on, each with the token that was the most likely before. `begin` is called
/// ahead of the steps that are measured.
pub(crate) fn decode<E: Executor>(
    executor: &mut E,
    texts: usize,
    depth: usize,
    steps: usize,
    begin: impl Fn(&mut E),
) -> Result<f64, ExecError> {
    let tables = tables(executor, texts, depth + WARM + steps)?;
    let mut top = vec![TopLogits::default(); texts];
    let mut since = Instant::now();
    for step in 0..WARM + steps {
        if step == WARM {
            begin(executor);
            since = Instant::now();
        }
        let tokens: Vec<u32> = top.iter().map(|top| top.ids.first().copied().unwrap_or(1)).collect();
        let sequences: Vec<Sequence<'_>> = tables
            .iter()
            .zip(&tokens)
            .map(|(blocks, token)| Sequence {
                tokens: std::slice::from_ref(token),
                position: depth + step,
                blocks,
                logits: LogitRows::Last,
            })
            .collect();
        executor.forward_top(&Batch { sequences: &sequences }, 1, &mut top)?;
    }
    Ok(since.elapsed().as_secs_f64() / steps as f64)
}

/// Seconds of one prompt, the best of some runs. `begin` is called ahead of each.
pub(crate) fn prefill<E: Executor>(
    executor: &mut E,
    tokens: usize,
    runs: usize,
    begin: impl Fn(&mut E),
) -> Result<f64, ExecError> {
    let table = tables(executor, 1, tokens)?.swap_remove(0);
    let vocab = executor.spec().vocab_size as u32;
    let prompt: Vec<u32> = (0..tokens as u32).map(|i| i * 7919 % vocab).collect();
    let mut top = [TopLogits::default()];
    let mut best = f64::INFINITY;
    for _ in 0..runs {
        begin(executor);
        let s = Sequence { tokens: &prompt, position: 0, blocks: &table, logits: LogitRows::Last };
        let since = Instant::now();
        executor.forward_top(&Batch { sequences: &[s] }, 1, &mut top)?;
        best = best.min(since.elapsed().as_secs_f64());
    }
    Ok(best)
}
