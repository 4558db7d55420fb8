//! Order, back-pressure, faults and endings of the parallel processor. Gates, not clocks, decide who runs when.

use std::collections::BTreeSet;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use super::*;
use crate::background::Cancel;

fn double(n: &u64) -> Result<u64, EngineError> {
    match n {
        7 => Err(EngineError::EmptyPrompt),
        13 => panic!("unlucky"),
        n => Ok(2 * n),
    }
}

/// Lets an input through whenever a token arrives, and tells which it has begun.
struct Gate {
    begun: SyncSender<u64>,
    go: Mutex<Receiver<()>>,
}

impl Process<u64> for Gate {
    type Output = u64;

    fn process(&self, input: &u64, cancel: &Cancel) -> Result<u64, EngineError> {
        let _ = self.begun.send(*input);
        // A closed gate opens for good, so that tests end.
        let _ = self.go.lock().unwrap().recv();
        if cancel.is_cancelled() {
            let _ = self.begun.send(1000 + *input);
        }
        double(input)
    }
}

fn gate() -> (Gate, Receiver<u64>, SyncSender<()>) {
    let ((begun, heard), (go, gate)) = (sync_channel(100), sync_channel(100));
    (Gate { begun, go: Mutex::new(gate) }, heard, go)
}

fn config(workers: usize, queue_capacity: usize, ordered: bool) -> ParallelConfig {
    ParallelConfig { workers, queue_capacity, ordered }
}

#[test]
fn results_come_in_order_and_faults_are_those_of_their_inputs() {
    for workers in [1, 3] {
        let parallel = ParallelInferenceProcessor::new(double, config(workers, 4, true)).unwrap();
        std::thread::scope(|scope| {
            scope.spawn(|| {
                for n in 0..50 {
                    parallel.submit_blocking(n).unwrap();
                }
                parallel.close();
            });
            for n in 0..50 {
                let Completed { id, result } = parallel.next_blocking().unwrap();
                assert_eq!(id, n);
                match n {
                    7 => assert!(matches!(result, Err(EngineError::EmptyPrompt))),
                    13 => assert!(matches!(result, Err(EngineError::RequestPanicked { .. }))),
                    n => assert_eq!(result.unwrap(), 2 * n),
                }
            }
            assert!(parallel.next_blocking().is_none());
        });
        let stats = parallel.stats();
        assert_eq!((stats.submitted, stats.completed, stats.failed, stats.unread), (50, 50, 2, 0));
        assert_eq!(parallel.try_submit(1).unwrap_err(), Rejected { input: 1, reason: RejectReason::Closed });
    }
}

#[test]
fn without_order_a_slow_input_holds_nobody_up() {
    let (begun, heard) = sync_channel(1);
    let (go, gate) = sync_channel::<()>(0);
    let gate = Mutex::new(gate);
    let slow_first = move |n: &u64| {
        if *n == 0 {
            begun.send(()).unwrap();
            let _ = gate.lock().unwrap().recv();
        }
        Ok(*n)
    };
    let parallel = ParallelInferenceProcessor::new(slow_first, config(2, 8, false)).unwrap();
    parallel.submit_blocking(0).unwrap();
    heard.recv().unwrap();
    for n in 1..4 {
        parallel.submit_blocking(n).unwrap();
    }
    let early: BTreeSet<u64> = (0..3).map(|_| parallel.next_blocking().unwrap().id).collect();
    assert_eq!(early, BTreeSet::from([1, 2, 3]));
    drop(go);
    assert_eq!(parallel.next_blocking().unwrap().id, 0);
}

#[test]
fn a_full_queue_gives_inputs_back() {
    let (processor, heard, go) = gate();
    let parallel = ParallelInferenceProcessor::new(processor, config(1, 2, true)).unwrap();
    parallel.try_submit(0).unwrap();
    assert_eq!(heard.recv().unwrap(), 0);
    parallel.try_submit(1).unwrap();
    parallel.try_submit(2).unwrap();
    let refused = parallel.try_submit(3).unwrap_err();
    assert_eq!(refused, Rejected { input: 3, reason: RejectReason::Full { capacity: 2 } });
    assert!(matches!(EngineError::from(refused), EngineError::QueueFull { capacity: 2 }));
    assert!(parallel.try_next().is_none());
    drop(go);
    let report = parallel.shutdown_blocking(ShutdownMode::Finish);
    let values: Vec<u64> = report.results.into_iter().map(|done| done.result.unwrap()).collect();
    assert_eq!(values, [0, 2, 4]);
}

#[test]
fn workers_pause_while_results_are_not_read() {
    let parallel = ParallelInferenceProcessor::new(double, config(2, 3, true)).unwrap();
    let mut submitted = 0;
    // Three results unread, one more from each worker that had begun, three inputs waiting: then there is no room, ever.
    while submitted < 1000 {
        match parallel.try_submit(100) {
            Ok(_) => submitted += 1,
            Err(_) if parallel.stats().unread >= 3 && parallel.stats().running == 0 => break,
            Err(_) => std::thread::yield_now(),
        }
    }
    assert!((6..=8).contains(&submitted), "{submitted}");
    let report = parallel.shutdown_blocking(ShutdownMode::Finish);
    assert_eq!(report.results.len(), submitted);
}

#[test]
fn returning_gives_every_input_or_its_result() {
    let (processor, heard, go) = gate();
    let parallel = ParallelInferenceProcessor::new(processor, config(2, 10, true)).unwrap();
    for n in 0..8 {
        parallel.submit_blocking(n).unwrap();
    }
    let begun = BTreeSet::from([heard.recv().unwrap(), heard.recv().unwrap()]);
    assert_eq!(begun, BTreeSet::from([0, 1]));
    let returned = parallel.queue.abandon();
    drop(go);
    let report = parallel.shutdown_blocking(ShutdownMode::Return);
    assert_eq!(returned, (2..8).map(|n| (n, n)).collect::<Vec<_>>());
    assert_eq!(report.results.iter().map(|done| done.id).collect::<Vec<_>>(), [0, 1]);
    assert!(report.returned.is_empty());
}

#[test]
fn dropping_cancels_what_runs_and_drops_what_waits() {
    let (processor, heard, go) = gate();
    let parallel = ParallelInferenceProcessor::new(processor, config(1, 10, true)).unwrap();
    for n in 0..5 {
        parallel.submit_blocking(n).unwrap();
    }
    assert_eq!(heard.recv().unwrap(), 0);
    drop(parallel);
    drop(go);
    // The running input sees that it was cancelled; the channel then closes, for no other is begun.
    assert_eq!(heard.iter().collect::<Vec<_>>(), [1000]);
}

#[tokio::test]
async fn asynchronous_users_wait_for_room_and_results() {
    let parallel = Arc::new(ParallelInferenceProcessor::new(double, config(2, 2, true)).unwrap());
    let writer = Arc::clone(&parallel);
    let writing = tokio::spawn(async move {
        for n in 20..60 {
            writer.submit(n).await.unwrap();
        }
        writer.close();
    });
    let mut values = Vec::new();
    while let Some(done) = parallel.next().await {
        values.push(done.result.unwrap());
    }
    writing.await.unwrap();
    assert_eq!(values, (20..60).map(|n| 2 * n).collect::<Vec<_>>());
    let parallel = Arc::into_inner(parallel).unwrap();
    assert!(parallel.shutdown(ShutdownMode::Finish).await.unwrap().results.is_empty());
}

#[test]
fn impossible_configurations_are_refused() {
    for (workers, capacity) in [(0, 1), (1025, 1), (1, 0)] {
        assert!(
            ParallelInferenceProcessor::<u64, u64>::new(double, config(workers, capacity, true)).is_err()
        );
    }
}
