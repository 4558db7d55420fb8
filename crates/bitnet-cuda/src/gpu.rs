//! [`Gpu`]: the few operations that the executor needs of a device.
//!
//! There are two: the driver's, and an emulator on the CPU in this crate's tests, which runs the same kernel sources.
//! Everything happens in one order, that of the calls; only [`Gpu::download`] and [`Gpu::synchronize`] wait.

use bitnet_core::MemorySize;

use crate::CudaError;

pub use crate::driver::Shared;

/// Most blocks of a cluster: the ranges that `kernels/merge.cuh` merges together.
pub const MOST_CLUSTER: usize = 16;

/// An address in the device's memory.
pub type Address = u64;

/// A kernel over a grid.
#[derive(Debug, Clone, Copy)]
pub struct Launch<'a> {
    /// Name of the kernel.
    pub kernel: &'static str,
    /// Blocks of threads in each direction; at least one.
    pub grid: [u32; 3],
    /// Blocks, one behind the other in the second direction, that are a cluster; 1 without clusters.
    pub cluster: u32,
    /// Threads of a block, a multiple of 32.
    pub threads: u32,
    /// Bytes of dynamic shared memory of a block.
    pub shared: u32,
    /// The kernel's argument: one structure.
    pub argument: &'a [u8],
}

/// A recorded sequence of launches.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct GraphId(pub u64);

/// Facts about a device.
#[derive(Debug, Clone, PartialEq)]
pub struct GpuFacts {
    /// Name of the device, for people.
    pub name: String,
    /// Name of the kernels in use: `sm_80`.
    pub kernels: &'static str,
    /// Whether the kernels that use tensor cores are there.
    pub tensor_cores: bool,
    /// Multiprocessors.
    pub multiprocessors: u32,
    /// Threads of a block that norms and quantises a row of usual length: a multiple of 32, at most 256.
    pub row_threads: u32,
    /// Bytes of shared memory of a block of threads of which two fit a multiprocessor; at least 48 KiB.
    pub shared_bytes: u32,
    /// The same of a block that has a multiprocessor to itself.
    pub most_shared_bytes: u32,
    /// How many clusters of so many blocks of attention run at a time if each of these blocks has a multiprocessor to itself; 0
    /// where there cannot be such clusters.
    pub clusters: [u32; MOST_CLUSTER + 1],
}

impl GpuFacts {
    /// Most bytes of dynamic shared memory that a kernel is launched with.
    pub fn shared_memory(&self, kernel: &str) -> u32 {
        const USUAL: u32 = 48 << 10;
        let several = kernel.starts_with("wave_") || kernel.starts_with("attention_");
        let tiles = kernel.starts_with("gemm_") && kernel != "gemm_dot";
        if several {
            self.shared_bytes
        } else if tiles {
            self.most_shared_bytes
        } else {
            USUAL
        }
    }
}

/// A device with memory and one queue of work.
pub trait Gpu: Send {
    /// Facts about it.
    fn facts(&self) -> &GpuFacts;

    /// Free memory, if it is known.
    fn free_memory(&self) -> Option<MemorySize>;

    /// Zeroed memory, aligned to 256 bytes.
    ///
    /// # Errors
    /// [`CudaError::OutOfMemory`].
    fn allocate(&mut self, bytes: u64) -> Result<Address, CudaError>;

    /// Gives memory back, behind all work that was queued.
    fn free(&mut self, address: Address);

    /// Zeroed memory of the host that kernels reach as well, for as long as the device is open; `None` if there is no such.
    ///
    /// # Errors
    /// If the system refuses.
    fn share(&mut self, bytes: usize) -> Result<Option<Shared>, CudaError>;

    /// Copies bytes to the device. They may change as soon as this returns.
    ///
    /// # Errors
    /// If the driver fails.
    fn upload(&mut self, to: Address, bytes: &[u8]) -> Result<(), CudaError>;

    /// Copies bytes from the device, behind all work that was queued.
    ///
    /// # Errors
    /// If the driver, or any work queued before, failed.
    fn download(&mut self, from: Address, bytes: &mut [u8]) -> Result<(), CudaError>;

    /// Copies memory of the device.
    ///
    /// # Errors
    /// If the driver fails.
    fn copy(&mut self, from: Address, to: Address, bytes: u64) -> Result<(), CudaError>;

    /// Queues a kernel, or records it between [`Gpu::begin_graph`] and [`Gpu::end_graph`].
    ///
    /// # Errors
    /// If there is no such kernel or the driver fails.
    fn launch(&mut self, launch: &Launch<'_>) -> Result<(), CudaError>;

    /// From here on launches are recorded instead of run. Nothing but launches may be called until the end.
    ///
    /// # Errors
    /// If the driver fails.
    fn begin_graph(&mut self) -> Result<(), CudaError>;

    /// Ends recording.
    ///
    /// # Errors
    /// If the driver fails; nothing is recorded any more then.
    fn end_graph(&mut self) -> Result<GraphId, CudaError>;

    /// Queues what was recorded.
    ///
    /// # Errors
    /// If the driver fails.
    fn run_graph(&mut self, graph: GraphId) -> Result<(), CudaError>;

    /// Forgets what was recorded.
    fn drop_graph(&mut self, graph: GraphId);

    /// Whether work that was queued is still to be done.
    ///
    /// # Errors
    /// If the driver, or any work queued before, failed.
    fn is_busy(&mut self) -> Result<bool, CudaError>;

    /// Waits for all work.
    ///
    /// # Errors
    /// If the driver, or any work queued before, failed.
    fn synchronize(&mut self) -> Result<(), CudaError>;

    /// Seconds that `times` runs of what was recorded take on the device, measured by its own events.
    ///
    /// # Errors
    /// If the driver fails.
    fn time_graph(&mut self, graph: GraphId, times: u32) -> Result<f64, CudaError>;
}
