//! [`Gpu`]: a device with its queue, what it can do, and how its errors become ours.
//!
//! Errors reach us in three ways: from error scopes around what creates something, through a callback from everything else,
//! and through another when the device is lost. What callbacks say is kept and found by the next [`Gpu::check`].

use std::sync::{Arc, Mutex, PoisonError};

use bitnet_core::MemorySize;

use crate::adapter::{AdapterKind, Chosen, WgpuAdapter};
use crate::error::WgpuError;
use crate::options::WgpuOptions;

/// Bytes of uploads after which the device gets a chance to take them in, so that staging memory stays small.
const UPLOAD_STEP: u64 = 32 << 20;

/// What went wrong without anybody waiting for it; the first message counts.
#[derive(Debug, Default)]
struct Faults {
    lost: Mutex<Option<String>>,
    error: Mutex<Option<String>>,
}

fn remember(place: &Mutex<Option<String>>, message: String) {
    place.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(message);
}

/// A device.
pub(crate) struct Gpu {
    pub(crate) device: wgpu::Device,
    pub(crate) queue: wgpu::Queue,
    pub(crate) about: WgpuAdapter,
    pub(crate) limits: wgpu::Limits,
    /// Lanes that a kernel may take for granted to hold whole subgroups, if subgroup operations are used.
    pub(crate) subgroup_lanes: Option<u32>,
    /// Whether packed dot products are used.
    pub(crate) packed_dot: bool,
    /// Largest weight buffer.
    pub(crate) max_binding: u64,
    faults: Arc<Faults>,
    pending: u64,
}

impl Gpu {
    /// Opens the device of an adapter, with all its limits and those of its features that kernels use.
    ///
    /// # Errors
    /// [`WgpuError::Device`].
    pub(crate) fn open(chosen: &Chosen, options: &WgpuOptions) -> Result<Self, WgpuError> {
        let Chosen { adapter, about } = chosen;
        let mut features = wgpu::Features::empty();
        let subgroup_lanes = subgroup_lanes(about).filter(|_| !options.no_subgroups);
        if subgroup_lanes.is_some() {
            features |= wgpu::Features::SUBGROUP;
        }
        if options.profile && about.timestamps {
            features |= wgpu::Features::TIMESTAMP_QUERY;
        }
        let limits = adapter.limits();
        let request = adapter.request_device(&wgpu::DeviceDescriptor {
            label: Some("bitnet"),
            required_features: features,
            required_limits: limits.clone(),
            experimental_features: wgpu::ExperimentalFeatures::disabled(),
            memory_hints: match about.kind {
                AdapterKind::Software => wgpu::MemoryHints::MemoryUsage,
                _ => wgpu::MemoryHints::Performance,
            },
            trace: wgpu::Trace::Off,
        });
        let opened = pollster::block_on(request).map_err(|e| WgpuError::Device(e.to_string()))?;
        let (device, queue) = opened;
        let faults = Arc::new(Faults::default());
        let sink = Arc::clone(&faults);
        device.on_uncaptured_error(Arc::new(move |e: wgpu::Error| remember(&sink.error, e.to_string())));
        let sink = Arc::clone(&faults);
        device.set_device_lost_callback(move |reason, message| {
            remember(&sink.lost, format!("the device is lost ({reason:?}): {message}"));
        });
        let allowed = limits.max_storage_buffer_binding_size.min(limits.max_buffer_size);
        Ok(Self {
            max_binding: options.max_binding.map_or(allowed, |most| most.clamp(4, allowed)) / 4 * 4,
            about: about.clone(),
            packed_dot: !options.no_packed_dot,
            device,
            queue,
            limits,
            subgroup_lanes,
            faults,
            pending: 0,
        })
    }

    /// The name of the interface, for errors.
    pub(crate) fn backend(&self) -> &'static str {
        self.about.backend.name()
    }

    /// Runs what creates something of `bytes` on the device, and gives its errors.
    ///
    /// # Errors
    /// [`WgpuError::OutOfMemory`], [`WgpuError::Device`].
    pub(crate) fn checked<T>(&self, bytes: u64, create: impl FnOnce() -> T) -> Result<T, WgpuError> {
        let scopes =
            [wgpu::ErrorFilter::Internal, wgpu::ErrorFilter::Validation, wgpu::ErrorFilter::OutOfMemory]
                .map(|filter| self.device.push_error_scope(filter));
        let created = create();
        let [internal, validation, memory] = scopes;
        let memory = pollster::block_on(memory.pop());
        let validation = pollster::block_on(validation.pop());
        let internal = pollster::block_on(internal.pop());
        if memory.is_some() {
            return Err(WgpuError::OutOfMemory { needed: MemorySize::bytes(bytes), free: None });
        }
        match validation.or(internal) {
            Some(error) => Err(WgpuError::Device(error.to_string())),
            None => self.alive().map(|()| created),
        }
    }

    fn alive(&self) -> Result<(), WgpuError> {
        match &*self.faults.lost.lock().unwrap_or_else(PoisonError::into_inner) {
            Some(message) => Err(WgpuError::Device(message.clone())),
            None => Ok(()),
        }
    }

    /// Gives what callbacks reported since the last call; a device that is lost stays so.
    ///
    /// # Errors
    /// [`WgpuError::Device`].
    pub(crate) fn check(&self) -> Result<(), WgpuError> {
        self.alive()?;
        match self.faults.error.lock().unwrap_or_else(PoisonError::into_inner).take() {
            Some(message) => Err(WgpuError::Device(message)),
            None => Ok(()),
        }
    }

    /// Waits until the device has done all that was submitted.
    ///
    /// # Errors
    /// [`WgpuError::Device`].
    pub(crate) fn wait(&self) -> Result<(), WgpuError> {
        let polled = self.device.poll(wgpu::PollType::wait_indefinitely());
        self.check()?;
        polled.map(|_| ()).map_err(|e| WgpuError::Device(e.to_string()))
    }

    /// Writes to a buffer; now and then waits for the device to take in what was written.
    ///
    /// # Errors
    /// [`WgpuError::Device`].
    pub(crate) fn upload(
        &mut self,
        buffer: &wgpu::Buffer,
        offset: u64,
        bytes: &[u8],
    ) -> Result<(), WgpuError> {
        for (i, part) in bytes.chunks(UPLOAD_STEP as usize).enumerate() {
            self.queue.write_buffer(buffer, offset + i as u64 * UPLOAD_STEP, part);
            self.pending += part.len() as u64;
            if self.pending >= UPLOAD_STEP {
                self.flush()?;
            }
        }
        Ok(())
    }

    /// Waits for all uploads.
    ///
    /// # Errors
    /// [`WgpuError::Device`].
    pub(crate) fn flush(&mut self) -> Result<(), WgpuError> {
        self.pending = 0;
        self.queue.submit([]);
        self.wait()
    }

    /// Waits for what was submitted and gives `read` the first bytes of a buffer that was copied to.
    ///
    /// # Errors
    /// [`WgpuError::Device`].
    pub(crate) fn read<T>(
        &self,
        buffer: &wgpu::Buffer,
        bytes: u64,
        read: impl FnOnce(&[u8]) -> T,
    ) -> Result<T, WgpuError> {
        let outcome = Arc::new(Mutex::new(None));
        let sink = Arc::clone(&outcome);
        buffer.map_async(wgpu::MapMode::Read, 0..bytes, move |result| {
            *sink.lock().unwrap_or_else(PoisonError::into_inner) = Some(result);
        });
        let waited = self.wait();
        let mapped = outcome.lock().unwrap_or_else(PoisonError::into_inner).take();
        let mapped = matches!(mapped, Some(Ok(())));
        let result = match (waited, mapped) {
            (Err(error), _) => Err(error),
            (Ok(()), false) => Err(WgpuError::Device("results could not be read back".to_owned())),
            (Ok(()), true) => match buffer.get_mapped_range(0..bytes) {
                Ok(view) => Ok(read(&view)),
                Err(error) => Err(WgpuError::Device(error.to_string())),
            },
        };
        if mapped {
            buffer.unmap();
        }
        result
    }
}

/// Lanes that hold whole subgroups; `None` where kernels cannot use subgroups. From 32 on, so that what they read lies side by
/// side, but in software, where it does not matter and each reduction costs.
fn subgroup_lanes(about: &WgpuAdapter) -> Option<u32> {
    let (_, most) = about.subgroup?;
    let lanes = most.max(if about.kind == AdapterKind::Software { 8 } else { 32 });
    (lanes.is_power_of_two() && lanes <= 128).then_some(lanes)
}

impl std::fmt::Debug for Gpu {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Gpu({})", self.about)
    }
}
