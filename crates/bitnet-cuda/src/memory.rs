//! [`Memory`]: a device with its pool of buffers and counters of what was copied.

use bitnet_core::device_pool::{Allocator, DevicePool, Lent, TakeError, TransferStats};
use bitnet_core::{MemorySize, MemoryStats};

use crate::CudaError;
use crate::gpu::{Address, Gpu, GraphId};
use crate::mailbox::{BYTES, Mailbox, Post};

/// What an executor's device memory holds and has done.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct DeviceStatistics {
    /// The pool of buffers.
    pub pool: MemoryStats,
    /// Copies between host and device.
    pub transfers: TransferStats,
    /// Sequences of launches that were recorded as graphs, and runs of them.
    pub graphs: [u64; 2],
}

/// A device with its pool.
pub(crate) struct Memory {
    pub(crate) gpu: Box<dyn Gpu>,
    mailbox: Option<Mailbox>,
    pool: DevicePool<Address>,
    pub(crate) transfers: TransferStats,
}

/// The device as the pool sees it.
struct Device<'a>(&'a mut dyn Gpu);

impl Allocator<Address> for Device<'_> {
    type Error = CudaError;

    fn allocate(&mut self, bytes: u64) -> Result<Address, CudaError> {
        self.0.allocate(bytes)
    }

    fn free(&mut self, address: Address) {
        self.0.free(address);
    }
}

impl From<TakeError<CudaError>> for CudaError {
    fn from(error: TakeError<CudaError>) -> Self {
        match error {
            TakeError::Budget { needed, free } => CudaError::OutOfMemory { needed, free: Some(free) },
            TakeError::Device(error) => error,
        }
    }
}

impl Memory {
    /// A device of which `budget` may be used.
    ///
    /// # Errors
    /// If the device has no room for a few bytes.
    pub(crate) fn new(mut gpu: Box<dyn Gpu>, budget: Option<MemorySize>) -> Result<Self, CudaError> {
        let pool = DevicePool::new(budget.unwrap_or(MemorySize::bytes(u64::MAX)));
        let mailbox = match gpu.share(BYTES)? {
            Some(shared) => Some(Mailbox::new(shared, gpu.allocate(size_of::<u64>() as u64)?)),
            None => None,
        };
        Ok(Self { gpu, mailbox, pool, transfers: TransferStats::default() })
    }

    /// A buffer to be given back.
    pub(crate) fn take(&mut self, bytes: usize) -> Result<Lent<Address>, CudaError> {
        Ok(self.pool.take(bytes as u64, &mut Device(&mut *self.gpu))?)
    }

    /// Zeroed memory of exactly so many bytes, to be kept or given back.
    pub(crate) fn take_exact(&mut self, bytes: usize) -> Result<Lent<Address>, CudaError> {
        Ok(self.pool.take_exact(bytes as u64, &mut Device(&mut *self.gpu))?)
    }

    /// Takes a buffer back.
    pub(crate) fn give(&mut self, lent: Lent<Address>) {
        self.pool.give(lent);
    }

    /// As [`Gpu::upload`].
    pub(crate) fn upload(&mut self, to: Address, bytes: &[u8]) -> Result<(), CudaError> {
        let total = self.transfers.uploaded.as_bytes() + bytes.len() as u64;
        self.transfers.uploaded = MemorySize::bytes(total);
        self.gpu.upload(to, bytes)
    }

    /// As [`Gpu::download`].
    pub(crate) fn download(&mut self, from: Address, bytes: &mut [u8]) -> Result<(), CudaError> {
        let total = self.transfers.downloaded.as_bytes() + bytes.len() as u64;
        self.transfers.downloaded = MemorySize::bytes(total);
        self.gpu.download(from, bytes)
    }

    /// Where kernels find the mailbox, if the device has one.
    pub(crate) fn post(&self) -> Option<Post> {
        self.mailbox.as_ref().map(Mailbox::post)
    }

    /// Runs a graph that begins with `fetch` and ends with `deliver`, with these inputs, and waits for its results. That there
    /// is a mailbox is known from [`post`](Self::post).
    ///
    /// # Errors
    /// If the driver, or any work queued before, failed.
    pub(crate) fn step(&mut self, graph: GraphId, inputs: &[u8]) -> Result<(), CudaError> {
        let total = self.transfers.uploaded.as_bytes() + inputs.len() as u64;
        self.transfers.uploaded = MemorySize::bytes(total);
        let Some(mailbox) = &mut self.mailbox else { return Ok(()) };
        mailbox.give(inputs);
        self.gpu.run_graph(graph)?;
        mailbox.wait(&mut *self.gpu)
    }

    /// What the last [`step`](Self::step) delivered.
    pub(crate) fn delivered(&self) -> Option<&Mailbox> {
        self.mailbox.as_ref()
    }

    /// What the pool holds and has done.
    pub(crate) fn stats(&self) -> MemoryStats {
        self.pool.stats()
    }

    /// Notes how fast the device's memory is.
    pub(crate) fn record_bandwidth(&mut self, bytes_per_second: f64) {
        self.pool.record_bandwidth(bytes_per_second);
    }
}
