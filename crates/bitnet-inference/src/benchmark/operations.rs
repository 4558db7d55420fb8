//! How many products of one BitLinear layer with one row a machine does a second, quantisation included.

use std::hint::black_box;
use std::ops::ControlFlow;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use bitnet_core::DType;
use bitnet_core::bytes::ByteView;
use bitnet_core::pool::ThreadPool;
use bitnet_cpu::BitLinear;
use bitnet_cpu::limits::int8_peak;
use bitnet_model::ExecError;
use bitnet_quant::{RowOrder, TernaryMatrix, TritCodec};

use super::statistics::Summary;
use crate::error::{EngineError, ParameterError};

/// Most weights of a layer.
const MAX_WEIGHTS: usize = 1 << 30;

/// What to measure, and how long.
#[derive(Debug, Clone, PartialEq)]
pub struct OperationsOptions {
    /// Rows of the layer: its outputs.
    pub rows: usize,
    /// Columns of the layer: its inputs.
    pub cols: usize,
    /// Threads, each with a layer of its own.
    pub threads: usize,
    /// Kernel sets by name, measured in turns.
    pub kernels: Vec<String>,
    /// Rounds; the result is their median.
    pub rounds: usize,
    /// How long each set is measured in each round.
    pub time: Duration,
    /// Whether to measure the int8 multiplier between the rounds.
    pub limits: bool,
}

impl Default for OperationsOptions {
    /// 768 x 768, one thread, every available kernel set, 15 rounds of 20 ms, with limits.
    fn default() -> Self {
        let sets = bitnet_cpu::kernel_sets().into_iter().filter(|set| set.available);
        Self {
            rows: 768,
            cols: 768,
            threads: 1,
            kernels: sets.map(|set| set.name.to_owned()).collect(),
            rounds: 15,
            time: Duration::from_millis(20),
            limits: true,
        }
    }
}

/// What one kernel set did.
#[derive(Debug, Clone, PartialEq)]
pub struct OperationsResult {
    /// Name of the set.
    pub kernels: &'static str,
    /// Rows of the layer.
    pub rows: usize,
    /// Columns of the layer.
    pub cols: usize,
    /// Threads that computed.
    pub threads: usize,
    /// Bytes of the packed weights.
    pub weight_bytes: usize,
    /// Operations a second of each round, all threads together.
    pub per_second: Summary,
    /// int8 multiply-adds a second that the machine could do, all threads together.
    pub peak_macs: Option<Summary>,
}

impl OperationsResult {
    /// int8 multiply-adds a second, by the median.
    pub fn macs(&self) -> f64 {
        self.per_second.median * self.rows as f64 * self.cols as f64
    }

    /// Which part of the int8 multiplier was used.
    pub fn of_limit(&self) -> Option<f64> {
        self.peak_macs.map(|peak| self.macs() / peak.median)
    }
}

/// One kernel set under measurement.
struct Contestant {
    kernels: &'static str,
    weight_bytes: usize,
    layers: Vec<Mutex<BitLinear>>,
    per_second: Vec<f64>,
    peaks: Vec<f64>,
}

/// Measures the kernel sets in turns. `on_round` hears how many of how many rounds are done and can break off; the
/// result is what was measured so far, nothing if that was less than one round.
///
/// # Errors
/// [`EngineError`]: an empty or too large layer, a kernel set that is not available, no memory, no threads.
pub fn operations(
    options: &OperationsOptions,
    on_round: &mut dyn FnMut(usize, usize) -> ControlFlow<()>,
) -> Result<Vec<OperationsResult>, EngineError> {
    check(options)?;
    let matrix = random_matrix(options.rows, options.cols)?;
    let mut pool = ThreadPool::new(options.threads).map_err(ExecError::from)?;
    let mut contestants = Vec::with_capacity(options.kernels.len());
    for name in &options.kernels {
        let layers = (0..options.threads).map(|_| BitLinear::new(&matrix, Some(name)));
        let layers = layers.collect::<Result<Vec<_>, _>>()?;
        contestants.push(Contestant {
            kernels: layers[0].kernel_set_name(),
            weight_bytes: layers[0].weight_bytes(),
            layers: layers.into_iter().map(Mutex::new).collect(),
            per_second: Vec::new(),
            peaks: Vec::new(),
        });
    }
    let x: Vec<f32> = (0..options.cols).map(|i| (i as f32 * 0.37).sin()).collect();
    for round in 0..options.rounds {
        for c in &mut contestants {
            if options.limits {
                c.peaks.extend(int8_peak(&mut pool, c.kernels));
            }
            c.per_second.push(rate(&mut pool, &c.layers, &x, options.time));
        }
        if on_round(round + 1, options.rounds).is_break() {
            break;
        }
    }
    let result = |c: Contestant| {
        Some(OperationsResult {
            kernels: c.kernels,
            rows: options.rows,
            cols: options.cols,
            threads: options.threads,
            weight_bytes: c.weight_bytes,
            per_second: Summary::of(c.per_second)?,
            peak_macs: Summary::of(c.peaks),
        })
    };
    Ok(contestants.into_iter().filter_map(result).collect())
}

fn check(options: &OperationsOptions) -> Result<(), ParameterError> {
    let refuse = |name, value: String, allowed| Err(ParameterError { name, value, allowed });
    for (name, value) in [
        ("rows", options.rows),
        ("cols", options.cols),
        ("threads", options.threads),
        ("rounds", options.rounds),
    ] {
        if value == 0 {
            return refuse(name, "0".to_owned(), "1 or more");
        }
    }
    if options.rows.checked_mul(options.cols).is_none_or(|weights| weights > MAX_WEIGHTS) {
        let value = format!("{} x {}", options.rows, options.cols);
        return refuse("rows x cols", value, "at most 2^30 weights");
    }
    Ok(())
}

/// Random trits of any shape.
fn random_matrix(rows: usize, cols: usize) -> Result<TernaryMatrix, EngineError> {
    // -1, 0 and 1 in bf16.
    const CODES: [[u8; 2]; 3] = [[0x80, 0xbf], [0, 0], [0x80, 0x3f]];
    let mut state = 1u64;
    let mut data = Vec::with_capacity(2 * rows * cols);
    for _ in 0..rows * cols {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        data.extend(CODES[(state >> 33) as usize % 3]);
    }
    let codec = TritCodec::Dense { dtype: DType::BF16.into(), inv: 1.0 };
    TernaryMatrix::new(rows, cols, 0.02, codec, RowOrder::Natural, ByteView::from_vec(data))
        .map_err(|source| ExecError::Weights { tensor: "random layer".to_owned(), source }.into())
}

/// Operations a second of all threads together.
fn rate(pool: &mut ThreadPool, layers: &[Mutex<BitLinear>], x: &[f32], time: Duration) -> f64 {
    let total = Mutex::new(0.0);
    pool.run(|team| {
        let mut layer = layers[team.index()].lock().unwrap_or_else(PoisonError::into_inner);
        let start = Instant::now();
        black_box(layer.forward(black_box(x)));
        // About fifty looks at the clock, however large the layer is.
        let once = start.elapsed().as_secs_f64().max(1e-7);
        let turns = ((time.as_secs_f64() / 50.0 / once) as u64).clamp(1, 10_000);
        team.barrier();
        let start = Instant::now();
        let mut done = 0;
        loop {
            for _ in 0..turns {
                black_box(layer.forward(black_box(x)));
            }
            done += turns;
            if start.elapsed() >= time {
                break;
            }
        }
        let rate = done as f64 / start.elapsed().as_secs_f64();
        *total.lock().unwrap_or_else(PoisonError::into_inner) += rate;
    });
    total.into_inner().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn quick(rows: usize, cols: usize, threads: usize) -> OperationsOptions {
        let time = Duration::from_millis(1);
        OperationsOptions { rows, cols, threads, rounds: 2, time, limits: false, ..Default::default() }
    }

    #[test]
    fn every_available_set_is_measured() {
        let mut rounds = Vec::new();
        let results = operations(&quick(33, 50, 2), &mut |done, total| {
            rounds.push((done, total));
            ControlFlow::Continue(())
        });
        let results = results.unwrap();
        assert_eq!(rounds, [(1, 2), (2, 2)]);
        let names: Vec<&str> = results.iter().map(|r| r.kernels).collect();
        assert_eq!(names, OperationsOptions::default().kernels);
        for r in results {
            assert!(r.per_second.count == 2 && r.per_second.median > 0.0, "{r:?}");
            assert_eq!((r.rows, r.cols, r.threads, r.peak_macs), (33, 50, 2, None));
            assert!(r.weight_bytes * 8 >= 33 * 50, "more than a bit a weight: {r:?}");
        }
    }

    #[test]
    fn breaking_off_keeps_what_there_is() {
        let results = operations(&quick(16, 16, 1), &mut |_, _| ControlFlow::Break(())).unwrap();
        assert!(results.iter().all(|r| r.per_second.count == 1));
    }

    #[test]
    fn impossible_layers_are_refused() {
        for (rows, cols, threads) in
            [(0, 8, 1), (8, 0, 1), (8, 8, 0), (usize::MAX, 2, 1), (1 << 20, 1 << 11, 1)]
        {
            let outcome = operations(&quick(rows, cols, threads), &mut |_, _| ControlFlow::Continue(()));
            assert!(matches!(outcome, Err(EngineError::Parameter(_))), "{outcome:?}");
        }
        let unknown = OperationsOptions { kernels: vec!["abacus".to_owned()], ..quick(8, 8, 1) };
        let outcome = operations(&unknown, &mut |_, _| ControlFlow::Continue(()));
        assert!(outcome.unwrap_err().to_string().contains("abacus"));
    }
}
