//! The modes of streams: order, errors, batching, back-pressure and dropping.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{SyncSender, sync_channel};

use futures_util::StreamExt;

use super::*;
use crate::background::Cancel;

fn double(n: &u64) -> Result<u64, EngineError> {
    if *n == 7 { Err(EngineError::EmptyPrompt) } else { Ok(2 * n) }
}

/// Doubles, and notes how many came together.
struct Together(SyncSender<usize>);

impl Process<u64> for Together {
    type Output = u64;

    fn process(&self, input: &u64, cancel: &Cancel) -> Result<u64, EngineError> {
        self.process_batch(&[input], cancel).remove(0)
    }

    fn process_batch(&self, inputs: &[&u64], _: &Cancel) -> Vec<Result<u64, EngineError>> {
        self.0.send(inputs.len()).unwrap();
        inputs.iter().map(|n| double(n)).collect()
    }
}

fn all<O: Send + 'static>(mut stream: InferenceStream<u64, O>) -> Vec<(u64, Option<O>)> {
    std::iter::from_fn(|| stream.next_blocking()).map(|item| (item.index, item.result.ok())).collect()
}

fn expected(count: u64) -> Vec<(u64, Option<u64>)> {
    (0..count).map(|n| (n, double(&n).ok())).collect()
}

#[test]
fn every_mode_gives_every_result_in_order_and_goes_on_after_errors() {
    let small = StreamingConfig { buffer_size: 3, channel_capacity: 2, ..StreamingConfig::default() };
    for config in [StreamingConfig::default(), small] {
        let source = || sources::from_iter(0..40);
        assert_eq!(all(InferenceStream::sequential(double, source(), config).unwrap()), expected(40));
        assert_eq!(all(InferenceStream::timed(double, source(), config).unwrap()), expected(40));
        for workers in [1, 4] {
            assert_eq!(
                all(InferenceStream::parallel(double, source(), workers, config).unwrap()),
                expected(40)
            );
        }
        let loose = StreamingConfig { preserve_order: false, ..config };
        let mut found = all(InferenceStream::parallel(double, source(), 4, loose).unwrap());
        found.sort_unstable();
        assert_eq!(found, expected(40));
    }
    assert!(all(InferenceStream::sequential(double, vec![], small).unwrap()).is_empty());
}

#[test]
fn the_timed_mode_fills_its_batches() {
    // Nobody waits an hour: a batch goes when it is full, or when the source has ended.
    let config = StreamingConfig { buffer_size: 4, max_latency_ms: 3_600_000, ..StreamingConfig::default() };
    let (sender, sizes) = sync_channel(100);
    let stream = InferenceStream::timed(Together(sender), sources::from_iter(0..10), config).unwrap();
    assert_eq!(all(stream), expected(10));
    assert_eq!(sizes.iter().collect::<Vec<_>>(), [4, 4, 2]);
}

#[test]
fn the_timed_mode_does_not_wait_for_ever() {
    let config = StreamingConfig { buffer_size: 100, max_latency_ms: 1, ..StreamingConfig::default() };
    let (inputs, source) = sources::channel(100);
    let mut stream = InferenceStream::timed(double, source, config).unwrap();
    for n in 0..3 {
        inputs.blocking_send(n).unwrap();
    }
    // The source stays open, so only the clock can end the wait.
    for n in 0..3 {
        assert_eq!(stream.next_blocking().unwrap().result.unwrap(), 2 * n);
    }
    drop(inputs);
    assert!(stream.next_blocking().is_none());
}

#[test]
fn inputs_are_read_no_faster_than_results() {
    let read = Arc::new(AtomicU64::new(0));
    let counter = Arc::clone(&read);
    let source = sources::from_iter((0..).inspect(move |_| {
        counter.fetch_add(1, Ordering::Relaxed);
    }));
    let config = StreamingConfig { buffer_size: 2, channel_capacity: 3, ..StreamingConfig::default() };
    let mut stream = InferenceStream::parallel(double, source, 2, config).unwrap();
    for n in 0..100 {
        assert_eq!(stream.next_blocking().unwrap().index, n);
        // Waiting ones, results, one in each worker's hands, one held, and the one just read.
        assert!(read.load(Ordering::Relaxed) <= n + 2 + 3 + 2 + 2);
    }
    assert!(stream.stats().read >= 100);
}

#[test]
fn dropping_a_stream_cancels_and_begins_nothing_more() {
    let (begun, heard) = sync_channel(100);
    let (go, gate) = sync_channel::<()>(0);
    struct Slow(SyncSender<u64>, Mutex<std::sync::mpsc::Receiver<()>>);
    impl Process<u64> for Slow {
        type Output = bool;

        fn process(&self, input: &u64, cancel: &Cancel) -> Result<bool, EngineError> {
            self.0.send(*input).unwrap();
            let _ = self.1.lock().unwrap().recv();
            self.0.send(if cancel.is_cancelled() { 1000 } else { 2000 }).unwrap();
            Ok(true)
        }
    }
    let processor = Slow(begun, Mutex::new(gate));
    let mut stream =
        InferenceStream::sequential(processor, sources::from_iter(0..50), StreamingConfig::default())
            .unwrap();
    let mut context = Context::from_waker(std::task::Waker::noop());
    assert!(stream.poll(&mut context).is_pending());
    assert_eq!(heard.recv().unwrap(), 0);
    drop(stream);
    drop(go);
    assert_eq!(heard.iter().collect::<Vec<_>>(), [1000]);
}

#[test]
fn timers_make_inputs_until_they_end_or_nobody_reads() {
    let mut left = 4u64;
    let timer = sources::interval(Duration::from_millis(1), move || {
        left = left.checked_sub(1)?;
        Some(left)
    });
    let stream = InferenceStream::sequential(double, timer.unwrap(), StreamingConfig::default()).unwrap();
    assert_eq!(all(stream).into_iter().filter_map(|(_, n)| n).collect::<Vec<_>>(), [6, 4, 2, 0]);
    // A timer that would ring in an hour ends with its stream.
    let (alive, ended) = sync_channel::<()>(0);
    let timer = sources::interval(Duration::from_secs(3600), move || {
        let _ = &alive;
        Some(1)
    });
    drop(InferenceStream::sequential(double, timer.unwrap(), StreamingConfig::default()).unwrap());
    assert!(ended.recv().is_err());
}

#[tokio::test]
async fn streams_are_streams() {
    let inputs = futures_util::stream::iter(0..20u64).filter(|n| std::future::ready(n % 2 == 0));
    let source = sources::from_stream(inputs);
    let stream = InferenceStream::parallel(double, source, 2, StreamingConfig::default()).unwrap();
    let values: Vec<u64> = stream.map(|item| item.result.unwrap()).collect().await;
    assert_eq!(values, (0..10).map(|n| 4 * n).collect::<Vec<_>>());
}

#[test]
fn impossible_configurations_are_refused() {
    let config = StreamingConfig::default();
    let refused = |config, workers| InferenceStream::parallel(double, vec![1], workers, config).is_err();
    assert!(refused(StreamingConfig { buffer_size: 0, ..config }, 1));
    assert!(refused(StreamingConfig { channel_capacity: 0, ..config }, 1));
    assert!(refused(config, 0));
}
