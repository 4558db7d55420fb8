//! Which [`Form`] is faster on this machine, by a short measurement.
//!
//! Decoding reads all ternary weights once a token. Where memory is the limit, five trits a byte are faster, where
//! instructions are, two bits are; it depends on the processor, on the number of threads and on what else the machine
//! does. So both forms are run over memory that does not fit the caches, with all threads, and the faster in weights a
//! second is taken. Bits of results do not depend on the form, only speed and size do.

use std::time::Instant;

use bitnet_core::MemorySize;
use bitnet_core::buffer::AlignedBuf;
use bitnet_core::pool::ThreadPool;
use bitnet_core::process;
use bitnet_model::{ExecError, Weights};

use super::{Form, STRIP_ROWS, TILE_BYTES};
use crate::kernels::{KernelSet, Product, RowLayout};
use crate::shared::Shared;

/// Fewer ternary weights than this stay in caches or are fast anyway: they take two bits without measurement.
const WORTH_MEASURING: usize = 500_000_000;
/// Memory to read: more than the last-level cache of most machines. It is given back before weights are packed.
const BYTES: usize = 192 << 20;
/// Rounds, each over all of the memory with each form; the best round counts.
const ROUNDS: usize = 3;
/// Two bits are kept unless five trits are faster by this factor: they unpack faster for long prompts.
const MARGIN: f64 = 1.03;
/// Groups of a strip in the measurement: about what a row of 2560 columns has.
const GROUPS: usize = 144;

/// The form in which decoding `weights` is faster.
///
/// # Errors
/// If threads or memory fail.
pub(crate) fn faster(
    kernels: &KernelSet,
    pool: &mut ThreadPool,
    weights: &Weights,
) -> Result<Form, ExecError> {
    let count: usize = weights
        .layers
        .iter()
        .flat_map(|l| [&l.q, &l.k, &l.v, &l.o, &l.gate, &l.up, &l.down])
        .map(|m| m.rows() * m.cols())
        .sum();
    let room = process::available_memory().is_none_or(|m| m > MemorySize::bytes(2 * BYTES as u64));
    if !kernels.measure_forms || count < WORTH_MEASURING || !room {
        return Ok(Form::TwoBit);
    }
    let rates = measure(kernels, pool)?;
    Ok(if rates[1] > MARGIN * rates[0] { Form::FiveTrits } else { Form::TwoBit })
}

/// Weights a second, in two bits and in five trits a byte.
fn measure(kernels: &KernelSet, pool: &mut ThreadPool) -> Result<[f64; 2], ExecError> {
    let strip_bytes = GROUPS * TILE_BYTES;
    let strips = BYTES / strip_bytes;
    let mut data = AlignedBuf::<u8>::zeroed(strips * strip_bytes)?;
    let mut out = AlignedBuf::<f32>::zeroed(strips * STRIP_ROWS)?;
    let (data, out) = (Shared::new(&mut data), Shared::new(&mut out));
    pool.run(|team| {
        let share = team.share(strips);
        // SAFETY: shares are disjoint. Memory that was never written would be one page of zeros, read from cache.
        unsafe { data.get_mut(share.start * strip_bytes..share.end * strip_bytes) }.fill(0x55);
    });
    let mut best = [0.0f64; 2];
    for _ in 0..ROUNDS {
        for (form, best) in [Form::TwoBit, Form::FiveTrits].into_iter().zip(&mut best) {
            let q = vec![1i8; GROUPS * form.group_cols()];
            let start = Instant::now();
            pool.run(|team| {
                let share = team.share(strips);
                // SAFETY: nothing writes to the strips any more, and each thread has its own outputs; the kernel set is
                // available.
                unsafe {
                    let product = Product {
                        form,
                        strips: data.get(share.start * strip_bytes..share.end * strip_bytes),
                        strip_bytes,
                        layout: RowLayout::Single,
                        q: &q,
                        row_sums: &[q.len() as i32],
                        factors: &[1.0],
                        out: out.get_mut(share.start * STRIP_ROWS..share.end * STRIP_ROWS).as_mut_ptr(),
                        stride: 0,
                        accumulate: false,
                    };
                    (kernels.product)(&product, &mut []);
                }
            });
            let count = strips * STRIP_ROWS * GROUPS * form.group_cols();
            *best = best.max(count as f64 / start.elapsed().as_secs_f64());
        }
    }
    Ok(best)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms_are_measured_with_any_number_of_threads() {
        for threads in [1, 3] {
            let mut pool = ThreadPool::new(threads).unwrap();
            let kernels = crate::kernels::choose(None).unwrap();
            let rates = measure(kernels, &mut pool).unwrap();
            assert!(rates.iter().all(|r| r.is_finite() && *r > 0.0), "{rates:?}");
        }
    }
}
