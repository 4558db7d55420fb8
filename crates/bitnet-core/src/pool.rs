//! The fork-join thread pool of the CPU executor.
//!
//! A token of a small model takes a few hundred microseconds and needs dozens of joins, so waking sleeping threads
//! (15 to 20 us with a general-purpose pool) is out of the question. [`ThreadPool::run`] starts one closure on all threads; within
//! it the threads meet at [`Team::barrier`], which spins and costs well under a microsecond. Between calls workers
//! spin for a short while, then sleep, so an idle engine takes no processor time. A thread that waits long for another
//! sleeps as well: when cores are shared with other programs, the one that is awaited can then run in its place.
//!
//! Work is split by fixed rules ([`Team::share`]); no result may depend on which thread computed what.

use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;

use crate::CoreError;

/// Turns of the spin loop before a waiting thread goes to sleep; a turn takes 20 to 50 ns.
const SPIN_TURNS: u32 = 1_500;

type Job = *const (dyn Fn(&Team<'_>) + Sync);

/// What the threads share.
struct Shared {
    threads: usize,
    /// Counts jobs; a worker runs a job when it sees a new value.
    epoch: AtomicUsize,
    job: Mutex<Option<SendJob>>,
    wake: Condvar,
    /// Workers that have not finished the current job.
    running: AtomicUsize,
    /// Threads asleep at a barrier or at the end of a job.
    sleepers: AtomicUsize,
    sleep: Mutex<()>,
    awake: Condvar,
    barrier_arrived: AtomicUsize,
    barrier_generation: AtomicUsize,
    /// A thread panicked in the current job: barriers stop waiting for it.
    poisoned: AtomicBool,
    stop: AtomicBool,
}

#[derive(Clone, Copy)]
struct SendJob(Job);
// SAFETY: the closure is Sync, and `run` keeps it alive until every worker has finished with it.
unsafe impl Send for SendJob {}

/// Threads that run one closure together.
pub struct ThreadPool {
    shared: Arc<Shared>,
    workers: Vec<JoinHandle<()>>,
}

/// One thread's view of the running job.
pub struct Team<'a> {
    shared: &'a Shared,
    index: usize,
}

impl Team<'_> {
    /// Number of this thread, `0..threads`.
    pub fn index(&self) -> usize {
        self.index
    }

    /// Threads in the job.
    pub fn threads(&self) -> usize {
        self.shared.threads
    }

    /// This thread's contiguous share of `0..count`: shares differ by at most one element.
    pub fn share(&self, count: usize) -> Range<usize> {
        share(count, self.index, self.shared.threads)
    }

    /// Waits until every thread of the job has come here. Writes made before are visible to all after.
    ///
    /// # Panics
    /// If another thread of the job panicked, so that no thread waits for ever.
    pub fn barrier(&self) {
        let s = self.shared;
        if s.threads == 1 {
            return;
        }
        let generation = s.barrier_generation.load(Ordering::Relaxed);
        if s.barrier_arrived.fetch_add(1, Ordering::AcqRel) + 1 == s.threads {
            s.barrier_arrived.store(0, Ordering::Relaxed);
            s.barrier_generation.store(generation.wrapping_add(1), Ordering::SeqCst);
            s.wake_sleepers();
            return;
        }
        let passed = || s.barrier_generation.load(Ordering::SeqCst) != generation;
        s.wait_until(|| passed() || s.poisoned.load(Ordering::SeqCst));
        assert!(passed(), "another thread of the pool panicked");
    }
}

impl Shared {
    /// Waits for `done`, which another thread makes true before it calls [`Shared::wake_sleepers`]: spins, then sleeps.
    ///
    /// `done` reads with sequential consistency what the other thread wrote so, and `sleepers` is counted so on both
    /// sides: either the sleeper sees the change, or the other thread sees the sleeper.
    fn wait_until(&self, done: impl Fn() -> bool) {
        for _ in 0..SPIN_TURNS {
            if done() {
                return;
            }
            std::hint::spin_loop();
        }
        let mut guard = self.sleep.lock().unwrap_or_else(PoisonError::into_inner);
        self.sleepers.fetch_add(1, Ordering::SeqCst);
        while !done() {
            guard = self.awake.wait(guard).unwrap_or_else(PoisonError::into_inner);
        }
        self.sleepers.fetch_sub(1, Ordering::SeqCst);
    }

    fn wake_sleepers(&self) {
        if self.sleepers.load(Ordering::SeqCst) > 0 {
            let _guard = self.sleep.lock().unwrap_or_else(PoisonError::into_inner);
            self.awake.notify_all();
        }
    }

    /// Notes that a thread panicked, so that the others stop waiting for it.
    fn poison(&self) {
        self.poisoned.store(true, Ordering::SeqCst);
        self.wake_sleepers();
    }
}

impl std::fmt::Debug for Team<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Team({} of {})", self.index, self.shared.threads)
    }
}

/// Share `index` of `parts` contiguous shares of `0..count`.
pub fn share(count: usize, index: usize, parts: usize) -> Range<usize> {
    count * index / parts..count * (index + 1) / parts
}

impl ThreadPool {
    /// A pool of `threads` threads, of which the caller of [`ThreadPool::run`] is one.
    ///
    /// # Errors
    /// [`CoreError::Thread`] if the system starts no more threads.
    ///
    /// # Panics
    /// If `threads` is 0.
    pub fn new(threads: usize) -> Result<Self, CoreError> {
        assert!(threads > 0, "a pool has at least the calling thread");
        let shared = Arc::new(Shared {
            threads,
            epoch: AtomicUsize::new(0),
            job: Mutex::new(None),
            wake: Condvar::new(),
            running: AtomicUsize::new(0),
            sleepers: AtomicUsize::new(0),
            sleep: Mutex::new(()),
            awake: Condvar::new(),
            barrier_arrived: AtomicUsize::new(0),
            barrier_generation: AtomicUsize::new(0),
            poisoned: AtomicBool::new(false),
            stop: AtomicBool::new(false),
        });
        let mut pool = Self { shared, workers: Vec::with_capacity(threads - 1) };
        for index in 1..threads {
            let shared = Arc::clone(&pool.shared);
            let worker = std::thread::Builder::new()
                .name(format!("bitnet-{index}"))
                .spawn(move || work(&shared, index))
                .map_err(|source| CoreError::Thread { index, source })?;
            pool.workers.push(worker);
        }
        Ok(pool)
    }

    /// Threads, the caller included.
    pub fn threads(&self) -> usize {
        self.shared.threads
    }

    /// Runs `f` once on every thread and returns when all have finished.
    ///
    /// # Panics
    /// If `f` panics on any thread; the pool stays usable.
    pub fn run(&mut self, f: impl Fn(&Team<'_>) + Sync) {
        let s = &*self.shared;
        let leader = Team { shared: s, index: 0 };
        if s.threads == 1 {
            return f(&leader);
        }
        let job: &(dyn Fn(&Team<'_>) + Sync) = &f;
        // SAFETY: only the lifetime is erased. Workers use the job between the epoch's increase and their decrement of
        // `running`, and this function does not return before `running` is 0.
        let job = SendJob(unsafe {
            std::mem::transmute::<*const (dyn Fn(&Team<'_>) + Sync), Job>(std::ptr::from_ref(job))
        });
        s.running.store(s.threads - 1, Ordering::Relaxed);
        {
            let mut slot = s.job.lock().unwrap_or_else(PoisonError::into_inner);
            *slot = Some(job);
            s.epoch.fetch_add(1, Ordering::Release);
        }
        s.wake.notify_all();
        let outcome = catch_unwind(AssertUnwindSafe(|| f(&leader)));
        if outcome.is_err() {
            s.poison();
        }
        s.wait_until(|| s.running.load(Ordering::SeqCst) == 0);
        if s.poisoned.swap(false, Ordering::Relaxed) {
            s.barrier_arrived.store(0, Ordering::Relaxed);
            match outcome {
                Err(payload) => resume_unwind(payload),
                Ok(()) => panic!("a worker thread panicked"),
            }
        }
    }
}

/// The life of a worker: wait for a new epoch, run its job, say so.
fn work(s: &Shared, index: usize) {
    let mut seen = 0;
    while let Some(job) = next_job(s, &mut seen) {
        let team = Team { shared: s, index };
        // SAFETY: `run` keeps the closure alive until `running` is decremented below.
        let f = unsafe { &*job.0 };
        if catch_unwind(AssertUnwindSafe(|| f(&team))).is_err() {
            s.poison();
        }
        if s.running.fetch_sub(1, Ordering::SeqCst) == 1 {
            s.wake_sleepers();
        }
    }
}

fn next_job(s: &Shared, seen: &mut usize) -> Option<SendJob> {
    for _ in 0..SPIN_TURNS {
        if s.epoch.load(Ordering::Acquire) != *seen {
            break;
        }
        std::hint::spin_loop();
    }
    let mut slot = s.job.lock().unwrap_or_else(PoisonError::into_inner);
    loop {
        if s.stop.load(Ordering::Relaxed) {
            return None;
        }
        let epoch = s.epoch.load(Ordering::Relaxed);
        if epoch != *seen {
            *seen = epoch;
            return *slot;
        }
        slot = s.wake.wait(slot).unwrap_or_else(PoisonError::into_inner);
    }
}

impl Drop for ThreadPool {
    fn drop(&mut self) {
        {
            let _slot = self.shared.job.lock().unwrap_or_else(PoisonError::into_inner);
            self.shared.stop.store(true, Ordering::Relaxed);
            self.shared.epoch.fetch_add(1, Ordering::Release);
        }
        self.shared.wake.notify_all();
        for worker in self.workers.drain(..) {
            let _ = worker.join();
        }
    }
}

impl std::fmt::Debug for ThreadPool {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "ThreadPool({} threads)", self.threads())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_thread_takes_part_and_barriers_hold() {
        for threads in [1, 2, 3, 5] {
            let mut pool = ThreadPool::new(threads).unwrap();
            for round in 0..50 {
                let cells: Vec<AtomicUsize> = (0..threads).map(|_| AtomicUsize::new(0)).collect();
                pool.run(|team| {
                    for step in 1..=20 {
                        cells[team.index()].store(step + round, Ordering::Relaxed);
                        team.barrier();
                        for cell in &cells {
                            assert_eq!(cell.load(Ordering::Relaxed), step + round);
                        }
                        team.barrier();
                    }
                });
            }
        }
    }

    #[test]
    fn shares_cover_everything_once() {
        for count in [0, 1, 7, 64] {
            for parts in 1..9 {
                let all: Vec<usize> = (0..parts).flat_map(|i| share(count, i, parts)).collect();
                assert_eq!(all, (0..count).collect::<Vec<_>>());
            }
        }
    }

    #[test]
    fn sleeps_and_wakes() {
        let mut pool = ThreadPool::new(2).unwrap();
        let hits = AtomicUsize::new(0);
        for _ in 0..3 {
            std::thread::sleep(std::time::Duration::from_millis(5));
            pool.run(|_| {
                hits.fetch_add(1, Ordering::Relaxed);
            });
        }
        assert_eq!(hits.load(Ordering::Relaxed), 6);
    }

    #[test]
    fn a_panic_reaches_the_caller_and_the_pool_survives() {
        let mut pool = ThreadPool::new(3).unwrap();
        for bad in 0..3 {
            let result = catch_unwind(AssertUnwindSafe(|| {
                pool.run(|team| {
                    assert_ne!(team.index(), bad, "on purpose");
                    team.barrier();
                });
            }));
            assert!(result.is_err());
            let hits = AtomicUsize::new(0);
            pool.run(|team| {
                team.barrier();
                hits.fetch_add(1, Ordering::Relaxed);
                team.barrier();
            });
            assert_eq!(hits.load(Ordering::Relaxed), 3);
        }
    }
}
