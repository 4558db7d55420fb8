//! [`Queue`]: a device whose queue of work may hold a step of decoding that waits for its inputs.
//!
//! This is the only way to the device. Every call that queues something cancels what waits, so nothing is ever queued behind a
//! step that might still be given inputs, and a step that is cancelled repeats the one before it before anything else happens:
//! it writes the values that are there already, to where nobody else has written since. Only [`Queue::step`] goes on with it.

use std::time::{Duration, Instant};

use bitnet_core::MemorySize;

use crate::CudaError;
use crate::ahead::{Ahead, Next};
use crate::gpu::{Address, Gpu, GpuFacts, GraphId, Launch, Shared};
use crate::mailbox::{BYTES, End, Mailbox, Post};

/// Bytes of what kernels note for themselves.
const TURN: u64 = 256;
/// Looks into the mailbox between looks at the clock.
const LOOKS: u32 = 64;
/// How often the device is asked whether it is still at work.
const ASK: Duration = Duration::from_micros(200);
/// When looking ends and the host sleeps until the device is done.
const SLEEP: Duration = Duration::from_millis(20);

/// A device, with a mailbox if it has memory for one.
pub(crate) struct Queue {
    gpu: Box<dyn Gpu>,
    mailbox: Option<Mailbox>,
    ahead: Ahead,
}

impl Queue {
    /// # Errors
    /// If the device has no room for a few bytes.
    pub(crate) fn new(mut gpu: Box<dyn Gpu>) -> Result<Self, CudaError> {
        let mailbox = match gpu.share(BYTES)? {
            Some(shared) => Some(Mailbox::new(shared, gpu.allocate(TURN)?)),
            None => None,
        };
        Ok(Self { gpu, mailbox, ahead: Ahead::new() })
    }

    /// Where kernels find the mailbox.
    pub(crate) fn post(&self) -> Option<Post> {
        self.mailbox.as_ref().map(Mailbox::post)
    }

    /// Steps that were launched ahead, and those of them that came to nothing.
    pub(crate) fn ahead(&self) -> [u64; 2] {
        self.ahead.counts
    }

    /// What the last [`step`](Self::step) delivered; see [`Mailbox::results`].
    pub(crate) fn results(&self) -> &[u32] {
        self.mailbox.as_ref().map_or(&[], Mailbox::results)
    }

    /// Runs a graph that begins with `fetch` and ends with `deliver`, with these inputs, and waits for its results.
    ///
    /// # Errors
    /// If the driver, or any work queued before, failed.
    pub(crate) fn step(&mut self, graph: GraphId, inputs: &[u8]) -> Result<(), CudaError> {
        if self.ahead.hinders(graph) {
            self.cancel();
        }
        loop {
            let next = self.ahead.next(graph);
            let (Next::Inputs(number) | Next::Launch(number)) = next;
            if let Some(mailbox) = &mut self.mailbox {
                mailbox.give(number, inputs);
            }
            if matches!(next, Next::Launch(_)) {
                self.gpu.run_graph(graph)?;
            }
            self.ahead.begun(graph, next);
            if self.end(number) == Some(End::GaveUp) {
                self.ahead.gave_up();
                continue;
            }
            // A step that cannot be launched ahead is launched again when it is wanted, and tells why it fails then.
            if self.ahead.pays() && self.gpu.facts().runs_ahead && self.gpu.run_graph(graph).is_ok() {
                self.ahead.launched_ahead();
            }
            match self.wait(number)? {
                End::Delivered => return Ok(()),
                End::GaveUp => self.ahead.gave_up(),
            }
        }
    }

    /// Waits for the end of a step.
    fn wait(&mut self, number: u64) -> Result<End, CudaError> {
        let begin = Instant::now();
        let mut asked = begin;
        loop {
            for _ in 0..LOOKS {
                if let Some(end) = self.end(number) {
                    return Ok(end);
                }
                std::hint::spin_loop();
            }
            let now = Instant::now();
            if now - begin > SLEEP {
                self.ahead.slow();
                // What was launched ahead is not cancelled: this step may still have to look for its own number. It gives up.
                self.gpu.synchronize()?;
                return self.end(number).ok_or_else(lost);
            }
            if now - asked > ASK {
                asked = now;
                if !self.gpu.is_busy()? {
                    return self.end(number).ok_or_else(lost);
                }
            }
        }
    }

    fn end(&self, number: u64) -> Option<End> {
        self.mailbox.as_ref().and_then(|mailbox| mailbox.end(number))
    }

    /// Tells a step that waits that it shall not be.
    fn cancel(&mut self) {
        if let (Some(number), Some(mailbox)) = (self.ahead.cancel(), &mut self.mailbox) {
            mailbox.skip(number);
        }
    }
}

/// The device is done and has no error, but nothing came.
fn lost() -> CudaError {
    CudaError::Driver { call: "deliver", what: "a step ended without results".to_owned() }
}

impl Gpu for Queue {
    fn facts(&self) -> &GpuFacts {
        self.gpu.facts()
    }

    fn free_memory(&self) -> Option<MemorySize> {
        self.gpu.free_memory()
    }

    fn allocate(&mut self, bytes: u64) -> Result<Address, CudaError> {
        self.cancel();
        self.gpu.allocate(bytes)
    }

    fn share(&mut self, bytes: usize) -> Result<Option<Shared>, CudaError> {
        self.cancel();
        self.gpu.share(bytes)
    }

    fn free(&mut self, address: Address) {
        self.cancel();
        self.gpu.free(address);
    }

    fn upload(&mut self, to: Address, bytes: &[u8]) -> Result<(), CudaError> {
        self.cancel();
        self.gpu.upload(to, bytes)
    }

    fn download(&mut self, from: Address, bytes: &mut [u8]) -> Result<(), CudaError> {
        self.cancel();
        self.gpu.download(from, bytes)
    }

    fn copy(&mut self, from: Address, to: Address, bytes: u64) -> Result<(), CudaError> {
        self.cancel();
        self.gpu.copy(from, to, bytes)
    }

    fn launch(&mut self, launch: &Launch<'_>) -> Result<(), CudaError> {
        self.cancel();
        self.gpu.launch(launch)
    }

    fn begin_graph(&mut self) -> Result<(), CudaError> {
        self.cancel();
        self.gpu.begin_graph()
    }

    fn end_graph(&mut self) -> Result<GraphId, CudaError> {
        self.gpu.end_graph()
    }

    fn run_graph(&mut self, graph: GraphId) -> Result<(), CudaError> {
        self.cancel();
        self.gpu.run_graph(graph)
    }

    fn drop_graph(&mut self, graph: GraphId) {
        self.cancel();
        self.gpu.drop_graph(graph);
    }

    fn is_busy(&mut self) -> Result<bool, CudaError> {
        self.cancel();
        self.gpu.is_busy()
    }

    fn synchronize(&mut self) -> Result<(), CudaError> {
        self.cancel();
        self.gpu.synchronize()
    }

    fn time_graph(&mut self, graph: GraphId, times: u32) -> Result<f64, CudaError> {
        self.cancel();
        self.gpu.time_graph(graph, times)
    }
}

impl Drop for Queue {
    fn drop(&mut self) {
        self.cancel();
    }
}
