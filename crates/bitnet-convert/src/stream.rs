//! Rows made on all cores, a block at a time, so that memory does not grow with the tensor.

use std::ops::Range;

use crate::Result;

/// Bytes that are made before they are handed on.
const BLOCK_BYTES: usize = 4 << 20;

/// Fills the bytes of a range of units.
type Make<'a> = &'a (dyn Fn(Range<usize>, &mut [u8]) -> Result<()> + Sync);

/// Makes `count` units of `unit_bytes` bytes each and gives them to `sink` in order, a block at a time. `make` fills the
/// bytes of a range of units; it runs on `threads` threads.
///
/// # Errors
/// Those of `make`, the first in order, and of `sink`.
pub(crate) fn produce(
    count: usize,
    unit_bytes: usize,
    threads: usize,
    make: Make<'_>,
    sink: &mut dyn FnMut(&[u8]) -> Result<()>,
) -> Result<()> {
    if unit_bytes == 0 {
        return Ok(());
    }
    let per_block = (BLOCK_BYTES / unit_bytes).clamp(1, count.max(1));
    let mut buffer = vec![0u8; per_block * unit_bytes];
    for first in (0..count).step_by(per_block) {
        let units = per_block.min(count - first);
        let block = &mut buffer[..units * unit_bytes];
        let share = share(units, units * unit_bytes, threads);
        let results: Vec<Result<()>> = std::thread::scope(|scope| {
            let workers: Vec<_> = block
                .chunks_mut(share * unit_bytes)
                .enumerate()
                .map(|(i, part)| {
                    let start = first + i * share;
                    let range = start..start + part.len() / unit_bytes;
                    scope.spawn(move || make(range, part))
                })
                .collect();
            workers.into_iter().map(join).collect()
        });
        results.into_iter().collect::<Result<()>>()?;
        sink(block)?;
    }
    Ok(())
}

/// Runs `work` on ranges of `0..count` on all threads and gives the results in order. `bytes` are what there is to read.
pub(crate) fn gather<T: Send>(
    count: usize,
    bytes: usize,
    threads: usize,
    work: &(dyn Fn(Range<usize>) -> Result<T> + Sync),
) -> Result<Vec<T>> {
    let share = share(count, bytes, threads);
    let results: Vec<Result<T>> = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..count)
            .step_by(share)
            .map(|start| {
                let range = start..count.min(start + share);
                scope.spawn(move || work(range))
            })
            .collect();
        workers.into_iter().map(join).collect()
    });
    results.into_iter().collect()
}

/// Units for each thread; little work is left to one.
fn share(units: usize, bytes: usize, threads: usize) -> usize {
    const SMALL: usize = 1 << 16;
    let threads = if bytes < SMALL { 1 } else { threads };
    units.div_ceil(threads).max(1)
}

fn join<T>(worker: std::thread::ScopedJoinHandle<'_, T>) -> T {
    worker.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ConvertError;

    #[test]
    fn blocks_come_in_order_and_errors_end_it() {
        for (count, unit, threads) in [(0, 3, 2), (1, 3, 2), (1000, 7, 3), (5, 3 << 20, 2)] {
            let mut out = Vec::new();
            let make = |range: Range<usize>, part: &mut [u8]| {
                range.zip(part.chunks_exact_mut(unit)).for_each(|(i, o)| o.fill(i as u8));
                Ok(())
            };
            produce(count, unit, threads, &make, &mut |block| {
                out.extend_from_slice(block);
                Ok(())
            })
            .unwrap();
            assert!(out.len() == count * unit && out.chunks(unit).enumerate().all(|(i, c)| c[0] == i as u8));
        }
        let fail = |range: Range<usize>, _: &mut [u8]| match range.contains(&900_000) {
            true => Err(ConvertError::Interrupted),
            false => Ok(()),
        };
        assert!(produce(1_000_000, 8, 2, &fail, &mut |_| Ok(())).is_err());
        let sums = gather(10, 1 << 20, 3, &|range| Ok(range.sum::<usize>())).unwrap();
        assert_eq!(sums, [6, 22, 17]);
    }
}
