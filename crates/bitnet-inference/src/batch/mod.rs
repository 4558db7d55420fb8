//! [`BatchProcessor`]: many inputs, in batches whose size follows free memory and measured throughput.
//!
//! ```
//! use bitnet_inference::{BatchConfig, BatchProcessor, InferRequest};
//! # use bitnet_inference::{InferenceEngine, EngineError};
//!
//! # fn main() -> Result<(), EngineError> {
//! # let engine = InferenceEngine::bundled().threads(1).build()?;
//! let processor = BatchProcessor::new(engine, BatchConfig { max_batch_size: 16, ..BatchConfig::default() })?;
//! let texts = ["The cat sat", "", "Once upon a time"];
//! let requests: Vec<InferRequest> = texts.map(|text| InferRequest::new(text).embedding()).into();
//! let results = processor.process_blocking(&requests);
//! assert!(results.iter().all(Result::is_ok));
//! assert_eq!(processor.stats().items, 3);
//! # Ok(())
//! # }
//! ```

mod tuner;

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bitnet_core::MemorySize;

use self::tuner::Tuner;
use crate::background::{self, Cancel};
use crate::error::{EngineError, ParameterError};
use crate::process::{self, Process};

/// How a [`BatchProcessor`] works.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct BatchConfig {
    /// Most inputs of one batch; 64 by default.
    pub max_batch_size: usize,
    /// The share of free memory that the batches being processed may take together, above 0 to 1; 0.8 by default.
    pub memory_threshold: f64,
    /// Batches that are processed at the same time; 1 by default. More hide what happens beside the model (tokenizers,
    /// sampling); forward calls of one engine take turns.
    pub parallel_workers: usize,
}

impl Default for BatchConfig {
    fn default() -> Self {
        Self { max_batch_size: 64, memory_threshold: 0.8, parallel_workers: 1 }
    }
}

impl BatchConfig {
    fn check(&self) -> Result<(), ParameterError> {
        let refuse = |name, value: String, allowed| Err(ParameterError { name, value, allowed });
        if self.max_batch_size == 0 {
            return refuse("max_batch_size", "0".to_owned(), "1 or more");
        }
        if !(1..=1024).contains(&self.parallel_workers) {
            return refuse("parallel_workers", self.parallel_workers.to_string(), "from 1 to 1024");
        }
        if !(self.memory_threshold > 0.0 && self.memory_threshold <= 1.0) {
            return refuse("memory_threshold", self.memory_threshold.to_string(), "above 0, and at most 1");
        }
        Ok(())
    }
}

/// What a [`BatchProcessor`] has done.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct BatchStats {
    /// Inputs processed.
    pub items: u64,
    /// Those of them that failed.
    pub failed: u64,
    /// Batches processed.
    pub batches: u64,
    /// Batches that were smaller than wanted because memory was short, or that had to be cut after they failed.
    pub splits: u64,
    /// Inputs of the largest batch.
    pub largest_batch: usize,
    /// The size that the next batch is to have.
    pub batch_size: usize,
    /// Inputs a second at that size, once measured.
    pub items_per_second: Option<f64>,
    /// Time spent in batches, of all workers together.
    pub busy: Duration,
}

/// Processes many inputs in batches. Clones share what was learnt. See the [module's example](self).
#[derive(Debug)]
pub struct BatchProcessor<P> {
    inner: Arc<Inner<P>>,
}

impl<P> Clone for BatchProcessor<P> {
    fn clone(&self) -> Self {
        Self { inner: Arc::clone(&self.inner) }
    }
}

#[derive(Debug)]
struct Inner<P> {
    processor: P,
    config: BatchConfig,
    state: Mutex<(Tuner, BatchStats)>,
}

impl<P> BatchProcessor<P> {
    /// A processor that hands batches to `processor`.
    ///
    /// # Errors
    /// [`EngineError::Parameter`] if the configuration is not possible.
    pub fn new(processor: P, config: BatchConfig) -> Result<Self, EngineError> {
        config.check()?;
        let state = Mutex::new((Tuner::new(config.max_batch_size), BatchStats::default()));
        Ok(Self { inner: Arc::new(Inner { processor, config, state }) })
    }

    /// What it has done so far.
    pub fn stats(&self) -> BatchStats {
        let state = self.inner.lock();
        BatchStats { batch_size: state.0.size(), items_per_second: state.0.speed(), ..state.1 }
    }

    /// What it hands its batches to.
    pub fn processor(&self) -> &P {
        &self.inner.processor
    }

    /// Processes `inputs`; one result each, in their order. Blocks until all are done.
    pub fn process_blocking<I: Sync>(&self, inputs: &[I]) -> Vec<Result<P::Output, EngineError>>
    where
        P: Process<I>,
    {
        self.inner.process(inputs, &Cancel::new())
    }

    /// Processes `inputs` on threads of its own; one result each, in their order. Dropping the future ends it after the
    /// batches that are being processed.
    ///
    /// # Errors
    /// If the system starts no thread.
    pub async fn process<I: Send + Sync + 'static>(
        &self,
        inputs: Vec<I>,
    ) -> Result<Vec<Result<P::Output, EngineError>>, EngineError>
    where
        P: Process<I>,
    {
        let inner = Arc::clone(&self.inner);
        background::run(move |cancel| Ok(inner.process(&inputs, cancel))).await
    }
}

/// The inputs of one call that wait, and the results so far.
struct Work<O> {
    waiting: VecDeque<usize>,
    results: Vec<Option<Result<O, EngineError>>>,
    /// Batches may have no more inputs than this: a larger one did not fit.
    limit: usize,
    /// Batches that are being processed.
    running: usize,
}

impl<P> Inner<P> {
    /// Nothing panics between two changes.
    fn lock(&self) -> MutexGuard<'_, (Tuner, BatchStats)> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn process<I: Sync>(&self, inputs: &[I], cancel: &Cancel) -> Vec<Result<P::Output, EngineError>>
    where
        P: Process<I>,
    {
        let work = Mutex::new(Work {
            waiting: (0..inputs.len()).collect(),
            results: inputs.iter().map(|_| None).collect(),
            limit: usize::MAX,
            running: 0,
        });
        let workers = self.config.parallel_workers.min(inputs.len());
        if workers <= 1 {
            self.work(inputs, &work, cancel);
        } else {
            std::thread::scope(|scope| {
                for _ in 0..workers {
                    scope.spawn(|| self.work(inputs, &work, cancel));
                }
            });
        }
        let results = work.into_inner().unwrap_or_else(PoisonError::into_inner).results;
        results.into_iter().map(|result| result.unwrap_or(Err(EngineError::Cancelled))).collect()
    }

    /// Takes batch after batch until none is left.
    fn work<I>(&self, inputs: &[I], work: &Mutex<Work<P::Output>>, cancel: &Cancel)
    where
        P: Process<I>,
    {
        let lock = || work.lock().unwrap_or_else(PoisonError::into_inner);
        while !cancel.is_cancelled() {
            let batch = self.take(inputs, &mut lock());
            if batch.is_empty() {
                break;
            }
            let chosen: Vec<&I> = batch.iter().map(|&index| &inputs[index]).collect();
            let start = Instant::now();
            let results = process::run(&self.processor, &chosen, cancel);
            let took = start.elapsed();
            self.note(&batch, results, took, &mut lock());
        }
    }

    /// The next batch: as large as is wanted and as memory allows, at least one input if any waits.
    fn take<I>(&self, inputs: &[I], work: &mut Work<P::Output>) -> Vec<usize>
    where
        P: Process<I>,
    {
        let wanted = self.lock().0.size().min(work.limit).min(work.waiting.len());
        // What runs already has taken its part, or will.
        let share =
            self.config.memory_threshold / (self.config.parallel_workers.max(work.running + 1)) as f64;
        let free = self.processor.free_memory().map(MemorySize::as_bytes);
        let allowed = free.map_or(u64::MAX, |free| (free as f64 * share) as u64);
        let (mut count, mut bytes) = (0, 0u64);
        for &index in work.waiting.iter().take(wanted) {
            bytes = bytes.saturating_add(self.processor.memory_of(&inputs[index]).as_bytes());
            if count > 0 && bytes > allowed {
                self.lock().1.splits += 1;
                break;
            }
            count += 1;
        }
        work.running += usize::from(count > 0);
        work.waiting.drain(..count).collect()
    }

    /// Notes the results of a batch. Inputs that failed for want of memory beside others wait again, for a smaller batch.
    fn note<O>(
        &self,
        batch: &[usize],
        results: Vec<Result<O, EngineError>>,
        took: Duration,
        work: &mut Work<O>,
    ) {
        let mut state = self.lock();
        let (tuner, stats) = &mut *state;
        let mut again = Vec::new();
        for (&index, result) in batch.iter().zip(results) {
            match &result {
                Err(error) if batch.len() > 1 && process::is_short_of_memory(error) => again.push(index),
                _ => {
                    stats.items += 1;
                    stats.failed += u64::from(result.is_err());
                    work.results[index] = Some(result);
                }
            }
        }
        work.running -= 1;
        stats.batches += 1;
        stats.largest_batch = stats.largest_batch.max(batch.len());
        stats.busy += took;
        if again.is_empty() {
            tuner.observe(batch.len(), took.as_secs_f64());
            return;
        }
        stats.splits += 1;
        work.limit = (batch.len() / 2).max(1);
        tuner.does_not_fit(batch.len());
        for index in again.into_iter().rev() {
            work.waiting.push_front(index);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bitnet_core::memory_pool::MemoryPool;

    /// Doubles numbers in memory of a pool: an input `n` takes `n` KiB while its batch is processed.
    struct Doubler {
        pool: MemoryPool,
        /// Whether it tells how much memory an input takes.
        tells: bool,
        batches: Mutex<Vec<usize>>,
    }

    impl Doubler {
        fn new(budget: MemorySize, tells: bool) -> Self {
            Self { pool: MemoryPool::new(budget), tells, batches: Mutex::default() }
        }
    }

    impl Process<u64> for Doubler {
        type Output = u64;

        fn process(&self, input: &u64, cancel: &Cancel) -> Result<u64, EngineError> {
            self.process_batch(&[input], cancel).remove(0)
        }

        fn process_batch(&self, inputs: &[&u64], cancel: &Cancel) -> Vec<Result<u64, EngineError>> {
            self.batches.lock().unwrap().push(inputs.len());
            let mut held = Vec::new();
            let mut one = |&&n: &&u64| {
                assert!(n != 13, "unlucky");
                let taken = self.pool.take::<u8>((n as usize) << 10);
                held.push(taken.map_err(|error| EngineError::from(bitnet_model::ExecError::from(error)))?);
                if n == 99 {
                    cancel.cancel();
                }
                Ok(2 * n)
            };
            inputs.iter().map(&mut one).collect()
        }

        fn memory_of(&self, input: &u64) -> MemorySize {
            if self.tells { MemorySize::KB(*input) } else { MemorySize::bytes(0) }
        }

        fn free_memory(&self) -> Option<MemorySize> {
            Some(self.pool.stats().free())
        }
    }

    fn values(results: Vec<Result<u64, EngineError>>) -> Vec<u64> {
        results.into_iter().map(|result| result.unwrap()).collect()
    }

    #[test]
    fn order_is_kept_by_any_number_of_workers() {
        let inputs: Vec<u64> = (0..200).map(|i| i % 11).collect();
        let want: Vec<u64> = inputs.iter().map(|i| 2 * i).collect();
        for parallel_workers in [1, 2, 5] {
            let config = BatchConfig { parallel_workers, ..BatchConfig::default() };
            let batches = BatchProcessor::new(Doubler::new(MemorySize::MB(64), true), config).unwrap();
            assert_eq!(values(batches.process_blocking(&inputs)), want);
            let stats = batches.stats();
            assert_eq!((stats.items, stats.failed), (200, 0));
        }
    }

    #[test]
    fn batches_stay_within_the_memory_that_is_free() {
        let config = BatchConfig { memory_threshold: 0.5, ..BatchConfig::default() };
        let batches = BatchProcessor::new(Doubler::new(MemorySize::KB(64), true), config).unwrap();
        assert_eq!(values(batches.process_blocking(&[8; 50])), [16; 50]);
        let stats = batches.stats();
        assert!(stats.largest_batch <= 4 && stats.splits > 0, "{stats:?}");
        assert!(batches.processor().pool.stats().peak <= MemorySize::KB(32));
    }

    #[test]
    fn what_does_not_fit_is_cut_and_only_what_never_fits_fails() {
        let batches =
            BatchProcessor::new(Doubler::new(MemorySize::KB(64), false), BatchConfig::default()).unwrap();
        let mut inputs = vec![30u64; 20];
        inputs[7] = 65;
        let results = batches.process_blocking(&inputs);
        for (index, result) in results.iter().enumerate() {
            match index {
                7 => assert!(process::is_short_of_memory(result.as_ref().unwrap_err())),
                _ => assert_eq!(*result.as_ref().unwrap(), 60),
            }
        }
        assert!(batches.stats().splits > 0);
    }

    #[test]
    fn a_panic_is_the_error_of_one_input() {
        let batches =
            BatchProcessor::new(Doubler::new(MemorySize::MB(64), true), BatchConfig::default()).unwrap();
        let results = batches.process_blocking(&[1, 2, 13, 4, 5, 6]);
        let failed: Vec<usize> = (0..6).filter(|&i| results[i].is_err()).collect();
        assert_eq!(failed, [2]);
        let error = results[2].as_ref().unwrap_err();
        assert!(
            matches!(error, EngineError::RequestPanicked { message } if message.contains("unlucky")),
            "{error}"
        );
        assert_eq!(batches.stats().failed, 1);
    }

    #[test]
    fn cancelling_ends_it_after_the_present_batch() {
        let config = BatchConfig { max_batch_size: 1, ..BatchConfig::default() };
        let batches = BatchProcessor::new(Doubler::new(MemorySize::MB(64), true), config).unwrap();
        let results = batches.process_blocking(&[1, 99, 3]);
        assert_eq!(results.iter().filter(|result| result.is_ok()).count(), 2);
        assert!(matches!(results[2], Err(EngineError::Cancelled)));
    }

    #[test]
    fn impossible_configurations_are_refused() {
        let refused = |config| BatchProcessor::new(|n: &u64| Ok::<_, EngineError>(*n), config).is_err();
        assert!(refused(BatchConfig { max_batch_size: 0, ..BatchConfig::default() }));
        assert!(refused(BatchConfig { parallel_workers: 0, ..BatchConfig::default() }));
        for memory_threshold in [0.0, -1.0, 1.5, f64::NAN] {
            assert!(refused(BatchConfig { memory_threshold, ..BatchConfig::default() }));
        }
    }
}
