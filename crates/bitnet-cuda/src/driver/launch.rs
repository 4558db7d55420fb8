//! [`Configured`]: a launch as the driver wants to be told of it; and [`clusters`], which asks about launches.

use cudarc::driver::sys;

use crate::gpu::{Launch, MOST_CLUSTER};

/// A grid, and the attributes it points to.
pub(super) struct Configured {
    attributes: [sys::CUlaunchAttribute; 2],
    launch: sys::CUlaunchConfig,
}

impl Configured {
    /// For a stream; with `overlap` the kernel may begin before the one ahead of it has ended.
    pub(super) fn new(launch: &Launch<'_>, stream: sys::CUstream, overlap: bool) -> Self {
        use sys::CUlaunchAttributeID as Id;
        let attribute = |wanted, id, value| sys::CUlaunchAttribute {
            id: if wanted { id } else { Id::CU_LAUNCH_ATTRIBUTE_IGNORE },
            pad: [0; 4],
            value,
        };
        let early = sys::CUlaunchAttributeValue { programmaticStreamSerializationAllowed: 1 };
        let dimensions = sys::CUlaunchAttributeValue_union__bindgen_ty_1 { x: 1, y: launch.cluster, z: 1 };
        let cluster = sys::CUlaunchAttributeValue { clusterDim: dimensions };
        let [x, y, z] = launch.grid;
        Self {
            attributes: [
                attribute(overlap, Id::CU_LAUNCH_ATTRIBUTE_PROGRAMMATIC_STREAM_SERIALIZATION, early),
                attribute(launch.cluster > 1, Id::CU_LAUNCH_ATTRIBUTE_CLUSTER_DIMENSION, cluster),
            ],
            launch: sys::CUlaunchConfig {
                gridDimX: x,
                gridDimY: y,
                gridDimZ: z,
                blockDimX: launch.threads,
                blockDimY: 1,
                blockDimZ: 1,
                sharedMemBytes: launch.shared,
                hStream: stream,
                attrs: std::ptr::null_mut(),
                numAttrs: 2,
            },
        }
    }

    /// What is passed to the driver, good as long as this is where it is.
    pub(super) fn config(&mut self) -> *const sys::CUlaunchConfig {
        self.launch.attrs = self.attributes.as_mut_ptr();
        &raw const self.launch
    }
}

/// How many clusters of each number of blocks of a kernel run at a time, if these have `shared` bytes of dynamic shared memory;
/// 0 for what the device refuses.
pub(super) fn clusters(function: sys::CUfunction, threads: u32, shared: u32) -> [u32; MOST_CLUSTER + 1] {
    // Clusters of more than eight blocks must be allowed; a device that refuses has none of them.
    let large = sys::CUfunction_attribute::CU_FUNC_ATTRIBUTE_NON_PORTABLE_CLUSTER_SIZE_ALLOWED;
    // SAFETY: the function is one of this device.
    let _ = unsafe { cudarc::driver::result::function::set_function_attribute(function, large, 1) };
    std::array::from_fn(|blocks| {
        let cluster = blocks as u32;
        if cluster < 2 {
            return 0;
        }
        let launch = Launch { kernel: "", grid: [1, cluster, 1], cluster, threads, shared, argument: &[] };
        let mut configured = Configured::new(&launch, std::ptr::null_mut(), false);
        let mut count = 0;
        // SAFETY: writes one integer; the configuration outlives the call.
        let asked =
            unsafe { sys::cuOccupancyMaxActiveClusters(&raw mut count, function, configured.config()) };
        if asked.result().is_ok() { count.max(0).unsigned_abs() } else { 0 }
    })
}
