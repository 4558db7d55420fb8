//! A [`Gpu`] on the CPU: the crate's kernels, compiled by g++ with `emulate.cpp`.
//!
//! Each buffer is an allocation of its own, so that `-fsanitize=address` (in `BITNET_EMULATOR_FLAGS`) sees what lies
//! outside. Compiling takes seconds; the library is kept in the target folder under a hash of its sources.

use std::collections::HashMap;
use std::collections::hash_map::DefaultHasher;
use std::ffi::c_void;
use std::hash::{Hash, Hasher};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::ptr::NonNull;
use std::sync::{Mutex, OnceLock, PoisonError};

use bitnet_core::MemorySize;
use bitnet_core::buffer::AlignedBuf;
use bitnet_cuda::gpu::{Address, Gpu, GpuFacts, GraphId, Launch, Shared};
use bitnet_cuda::{CudaError, argument_sizes, needs_tensor_cores};

type Kernel = unsafe extern "C" fn(*const c_void);
type Emulate = unsafe extern "C" fn(Kernel, *const u32, u32, u32, u32, *const c_void);

struct Emulated {
    kernels: HashMap<&'static str, (Kernel, usize, u32)>,
    emulate: Emulate,
    /// Kept open: kernels lie in it.
    _library: libloading::Library,
}

/// The library's memory is not made for two launches at a time.
static LAUNCH: Mutex<()> = Mutex::new(());

/// A launch that was recorded.
struct Recorded {
    kernel: &'static str,
    grid: [u32; 3],
    cluster: u32,
    threads: u32,
    shared: u32,
    argument: Vec<u8>,
}

/// A device whose memory is that of this process.
pub(crate) struct Emulator {
    facts: GpuFacts,
    buffers: HashMap<Address, AlignedBuf<u8>>,
    graphs: HashMap<u64, Vec<Recorded>>,
    recording: Option<Vec<Recorded>>,
    next_graph: u64,
    /// Memory that kernels share with the host, and whether there can be such.
    shared: Vec<AlignedBuf<u8>>,
    maps: bool,
    /// Bytes that allocations may take.
    room: u64,
}

impl Emulator {
    /// A small device, with or without tensor cores.
    pub(crate) fn new(tensor_cores: bool) -> Self {
        let kernels = if tensor_cores { "sm_80" } else { "sm_75" };
        // Fewer threads than a GPU has: the results are the same, and each of them costs time here.
        let name = "emulator".to_owned();
        let (row_threads, shared_bytes) = (64, 96 << 10);
        // Attention shares its work differently where there is room for each head.
        let multiprocessors = if tensor_cores { 2 } else { 40 };
        let most_shared_bytes = shared_bytes;
        // That one has clusters, of up to four ranges.
        let clusters =
            std::array::from_fn(|blocks| if !tensor_cores && matches!(blocks, 2..=4) { 10 } else { 0 });
        let facts = GpuFacts {
            name,
            kernels,
            tensor_cores,
            multiprocessors,
            row_threads,
            shared_bytes,
            most_shared_bytes,
            clusters,
        };
        Self {
            facts,
            buffers: HashMap::new(),
            graphs: HashMap::new(),
            recording: None,
            next_graph: 0,
            shared: Vec::new(),
            maps: true,
            room: u64::MAX,
        }
    }

    /// The same without memory that it shares with the host.
    pub(crate) fn apart(self) -> Self {
        Self { maps: false, ..self }
    }

    /// As [`new`](Self::new), with little memory.
    pub(crate) fn small(bytes: u64) -> Self {
        Self { room: bytes, ..Self::new(true) }
    }

    /// Checks that a range lies in one buffer.
    fn check(&self, address: Address, bytes: usize) {
        let inside = |(start, buffer): (&Address, &AlignedBuf<u8>)| {
            address >= *start && address + bytes as u64 <= start + buffer.len() as u64
        };
        assert!(self.buffers.iter().any(inside), "{bytes} bytes at {address:x} are in no buffer");
    }
}

/// Compiles the kernels once, and opens the library.
fn emulated() -> &'static Emulated {
    static EMULATED: OnceLock<Emulated> = OnceLock::new();
    EMULATED.get_or_init(|| {
        // SAFETY: the library has no initialisers beside those of its own data.
        let library = unsafe { libloading::Library::new(compiled()) }.expect("the emulator's library opens");
        let mut kernels = HashMap::new();
        for (name, size) in argument_sizes() {
            // SAFETY: `KERNEL` of emulate.h declares these three for each kernel.
            let (kernel, argument, threads) = unsafe {
                let kernel: Kernel = *library.get(format!("bitnet_kernel_{name}\0").as_bytes()).expect(name);
                let argument: *const u32 =
                    *library.get(format!("bitnet_argument_{name}\0").as_bytes()).expect(name);
                let threads: *const u32 =
                    *library.get(format!("bitnet_threads_{name}\0").as_bytes()).expect(name);
                (kernel, *argument, *threads)
            };
            assert_eq!(argument as usize, size, "bytes of the argument of {name}");
            kernels.insert(name, (kernel, size, threads));
        }
        // SAFETY: as emulate.cpp declares it.
        let emulate = unsafe { *library.get::<Emulate>(b"bitnet_emulate\0").expect("bitnet_emulate") };
        Emulated { kernels, emulate, _library: library }
    })
}

/// Path of the library, which is compiled if it is not there.
fn compiled() -> PathBuf {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"));
    let own = folder.join("tests/suite/emulator");
    let mut files: Vec<PathBuf> = vec![own.join("emulate.h"), own.join("emulate.cpp")];
    let kernels = std::fs::read_dir(folder.join("kernels")).expect("kernels");
    files.extend(kernels.map(|entry| entry.expect("kernels").path()));
    files.sort();
    let flags = std::env::var("BITNET_EMULATOR_FLAGS").unwrap_or_default();
    let mut hash = DefaultHasher::new();
    flags.hash(&mut hash);
    files.iter().for_each(|file| std::fs::read(file).expect("a source").hash(&mut hash));
    let target = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let library = target.join(format!("emulator-{:016x}.so", hash.finish()));
    if !library.exists() {
        let own_copy = target.join(format!("emulator-{}.tmp", std::process::id()));
        let status = Command::new("g++")
            .args(["-std=c++17", "-O3", "-march=native", "-ffp-contract=off", "-fno-strict-aliasing"])
            .args(["-fPIC", "-shared", "-DBITNET_EMULATE", "-Wno-unknown-pragmas", "-o"])
            .arg(&own_copy)
            .arg(format!("-I{}", own.display()))
            .args(flags.split_whitespace())
            .arg(own.join("emulate.cpp"))
            .status()
            .expect("the kernels are tested by way of g++, which must be on the PATH");
        assert!(status.success(), "g++ refused the kernels");
        std::fs::rename(own_copy, &library).expect("the library takes its place");
    }
    library
}

impl Gpu for Emulator {
    fn facts(&self) -> &GpuFacts {
        &self.facts
    }

    fn free_memory(&self) -> Option<MemorySize> {
        Some(MemorySize::bytes(self.room))
    }

    fn allocate(&mut self, bytes: u64) -> Result<Address, CudaError> {
        let needed = MemorySize::bytes(bytes);
        let refused = CudaError::OutOfMemory { needed, free: Some(MemorySize::bytes(self.room)) };
        self.room = self.room.checked_sub(bytes).ok_or(refused)?;
        let buffer = AlignedBuf::zeroed(bytes as usize).expect("memory");
        let address = buffer.as_raw() as Address;
        self.buffers.insert(address, buffer);
        Ok(address)
    }

    fn free(&mut self, address: Address) {
        let buffer = self.buffers.remove(&address).expect("a buffer that is there");
        self.room += buffer.len() as u64;
    }

    fn share(&mut self, bytes: usize) -> Result<Option<Shared>, CudaError> {
        if !self.maps {
            return Ok(None);
        }
        let buffer = AlignedBuf::zeroed(bytes.next_multiple_of(256)).expect("memory");
        let host = NonNull::new(buffer.as_raw()).expect("memory");
        self.shared.push(buffer);
        // SAFETY: the buffer is kept as long as the device, and only kernels use it beside the host.
        Ok(Some(unsafe { Shared::new(host, host.as_ptr() as Address, bytes) }))
    }

    fn upload(&mut self, to: Address, bytes: &[u8]) -> Result<(), CudaError> {
        assert!(self.recording.is_none(), "copies are not recorded");
        self.check(to, bytes.len());
        // SAFETY: inside a buffer of this device.
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), to as *mut u8, bytes.len()) };
        Ok(())
    }

    fn download(&mut self, from: Address, bytes: &mut [u8]) -> Result<(), CudaError> {
        assert!(self.recording.is_none(), "copies are not recorded");
        self.check(from, bytes.len());
        // SAFETY: inside a buffer of this device.
        unsafe { std::ptr::copy_nonoverlapping(from as *const u8, bytes.as_mut_ptr(), bytes.len()) };
        Ok(())
    }

    fn copy(&mut self, from: Address, to: Address, bytes: u64) -> Result<(), CudaError> {
        self.check(from, bytes as usize);
        self.check(to, bytes as usize);
        // SAFETY: both inside buffers of this device.
        unsafe { std::ptr::copy(from as *const u8, to as *mut u8, bytes as usize) };
        Ok(())
    }

    fn launch(&mut self, launch: &Launch<'_>) -> Result<(), CudaError> {
        let &Launch { kernel, grid, cluster, threads, shared, argument } = launch;
        let emulated = emulated();
        let (function, size, most) = emulated.kernels[kernel];
        assert_eq!(argument.len(), size, "argument of {kernel}");
        assert!(threads <= most && threads.is_multiple_of(32), "{kernel} with {threads} threads");
        assert!(grid.iter().all(|&n| n > 0) && grid[1].max(grid[2]) < 1 << 16, "{kernel}: grid {grid:?}");
        let clusters = if cluster == 1 { 1 } else { self.facts.clusters[cluster as usize] };
        assert!(grid[1].is_multiple_of(cluster) && clusters > 0, "{kernel}: clusters of {cluster}");
        let most = self.facts.shared_memory(kernel);
        assert!(shared <= most, "{kernel}: {shared} bytes of shared memory");
        assert!(self.facts.tensor_cores || !needs_tensor_cores(kernel), "{kernel}");
        if let Some(recording) = &mut self.recording {
            recording.push(Recorded { kernel, grid, cluster, threads, shared, argument: argument.to_vec() });
            return Ok(());
        }
        // Arguments are aligned as on the device.
        let mut aligned = AlignedBuf::<u8>::zeroed(argument.len()).expect("memory");
        aligned.copy_from_slice(argument);
        let _one = LAUNCH.lock().unwrap_or_else(PoisonError::into_inner);
        // SAFETY: the argument is the kernel's; its addresses are those of buffers of this process.
        unsafe {
            (emulated.emulate)(function, grid.as_ptr(), cluster, threads, shared, aligned.as_ptr().cast());
        };
        Ok(())
    }

    fn begin_graph(&mut self) -> Result<(), CudaError> {
        assert!(self.recording.is_none(), "one graph at a time");
        self.recording = Some(Vec::new());
        Ok(())
    }

    fn end_graph(&mut self) -> Result<GraphId, CudaError> {
        self.next_graph += 1;
        self.graphs.insert(self.next_graph, self.recording.take().expect("a graph was begun"));
        Ok(GraphId(self.next_graph))
    }

    fn run_graph(&mut self, graph: GraphId) -> Result<(), CudaError> {
        let recorded = self.graphs.remove(&graph.0).expect("a graph that is there");
        for r in &recorded {
            let Recorded { kernel, grid, cluster, threads, shared, .. } = *r;
            self.launch(&Launch { kernel, grid, cluster, threads, shared, argument: &r.argument })?;
        }
        self.graphs.insert(graph.0, recorded);
        Ok(())
    }

    fn drop_graph(&mut self, graph: GraphId) {
        self.graphs.remove(&graph.0).expect("a graph that is there");
    }

    fn is_busy(&mut self) -> Result<bool, CudaError> {
        Ok(false)
    }

    fn synchronize(&mut self) -> Result<(), CudaError> {
        Ok(())
    }

    fn time_graph(&mut self, graph: GraphId, times: u32) -> Result<f64, CudaError> {
        let begin = std::time::Instant::now();
        (0..times).try_for_each(|_| self.run_graph(graph))?;
        Ok(begin.elapsed().as_secs_f64())
    }
}
