//! Which adapters there are, and which one is chosen.

use bitnet_core::MemorySize;

use crate::error::{NO_ADAPTER_HELP, WgpuError};
use crate::options::{ADAPTER_VARIABLE, WgpuBackend, WgpuOptions};

/// What kind of device an adapter is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum AdapterKind {
    /// A GPU with memory of its own.
    Discrete,
    /// A GPU that shares the processor's memory.
    Integrated,
    /// A GPU behind a hypervisor.
    Virtual,
    /// Software on the CPU.
    Software,
    /// Something else.
    Other,
}

impl AdapterKind {
    /// Its name for people.
    pub const fn name(self) -> &'static str {
        match self {
            AdapterKind::Discrete => "discrete GPU",
            AdapterKind::Integrated => "integrated GPU",
            AdapterKind::Virtual => "virtual GPU",
            AdapterKind::Software => "software",
            AdapterKind::Other => "other",
        }
    }

    /// Adapters with a smaller rank are chosen first.
    fn rank(self) -> u8 {
        match self {
            AdapterKind::Discrete => 0,
            AdapterKind::Integrated => 1,
            AdapterKind::Virtual => 2,
            AdapterKind::Other => 3,
            AdapterKind::Software => 4,
        }
    }
}

/// An adapter, as its driver describes it.
#[derive(Debug, Clone)]
pub struct WgpuAdapter {
    /// Its number in [`adapters`].
    pub index: usize,
    /// Its name.
    pub name: String,
    /// The interface that it is reached by.
    pub backend: WgpuBackend,
    /// What it is.
    pub kind: AdapterKind,
    /// Driver and its version.
    pub driver: String,
    /// Where it is on the PCI bus, if the driver tells.
    pub pci: Option<String>,
    /// Largest buffer that a kernel can see.
    pub max_binding: MemorySize,
    /// Largest buffer.
    pub max_buffer: MemorySize,
    /// Workgroup memory of a kernel.
    pub workgroup_memory: MemorySize,
    /// Smallest and largest number of lanes of a subgroup, if subgroup operations are there.
    pub subgroup: Option<(u32, u32)>,
    /// Whether the time of kernels can be measured.
    pub timestamps: bool,
    /// Why no model can run on it, if that is so.
    pub lacks: Option<String>,
}

impl std::fmt::Display for WgpuAdapter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {} ({}, {})", self.index, self.name, self.backend, self.kind.name())
    }
}

/// All adapters of Vulkan, Metal and DX12. Without drivers the list is empty: nothing is printed, nothing fails.
///
/// wgpu does not tell how much memory adapters have.
pub fn adapters() -> Vec<WgpuAdapter> {
    described(&found(&instance(None), None))
}

fn backends(backend: Option<WgpuBackend>) -> wgpu::Backends {
    match backend {
        None => wgpu::Backends::VULKAN | wgpu::Backends::METAL | wgpu::Backends::DX12,
        Some(WgpuBackend::Vulkan) => wgpu::Backends::VULKAN,
        Some(WgpuBackend::Metal) => wgpu::Backends::METAL,
        Some(WgpuBackend::Dx12) => wgpu::Backends::DX12,
    }
}

fn instance(backend: Option<WgpuBackend>) -> wgpu::Instance {
    let mut descriptor = wgpu::InstanceDescriptor::new_without_display_handle();
    descriptor.backends = backends(backend);
    // Neither validation layers nor debug marks, whatever the build: errors are found by wgpu itself.
    descriptor.flags = wgpu::InstanceFlags::empty();
    wgpu::Instance::new(descriptor)
}

fn found(instance: &wgpu::Instance, backend: Option<WgpuBackend>) -> Vec<wgpu::Adapter> {
    let mut all = pollster::block_on(instance.enumerate_adapters(backends(backend)));
    all.retain(|adapter| backend_of(&adapter.get_info()).is_some());
    all
}

fn backend_of(info: &wgpu::AdapterInfo) -> Option<WgpuBackend> {
    match info.backend {
        wgpu::Backend::Vulkan => Some(WgpuBackend::Vulkan),
        wgpu::Backend::Metal => Some(WgpuBackend::Metal),
        wgpu::Backend::Dx12 => Some(WgpuBackend::Dx12),
        _ => None,
    }
}

fn described(adapters: &[wgpu::Adapter]) -> Vec<WgpuAdapter> {
    adapters.iter().enumerate().filter_map(|(index, adapter)| describe(index, adapter)).collect()
}

fn describe(index: usize, adapter: &wgpu::Adapter) -> Option<WgpuAdapter> {
    let (info, limits, features) = (adapter.get_info(), adapter.limits(), adapter.features());
    let kind = match info.device_type {
        wgpu::DeviceType::DiscreteGpu => AdapterKind::Discrete,
        wgpu::DeviceType::IntegratedGpu => AdapterKind::Integrated,
        wgpu::DeviceType::VirtualGpu => AdapterKind::Virtual,
        wgpu::DeviceType::Cpu => AdapterKind::Software,
        wgpu::DeviceType::Other => AdapterKind::Other,
    };
    let subgroups = features.contains(wgpu::Features::SUBGROUP);
    Some(WgpuAdapter {
        index,
        backend: backend_of(&info)?,
        kind,
        driver: format!("{} {}", info.driver, info.driver_info).trim().to_owned(),
        pci: Some(info.device_pci_bus_id.clone()).filter(|id| !id.is_empty()),
        max_binding: MemorySize::bytes(limits.max_storage_buffer_binding_size),
        max_buffer: MemorySize::bytes(limits.max_buffer_size),
        workgroup_memory: MemorySize::bytes(u64::from(limits.max_compute_workgroup_storage_size)),
        subgroup: subgroups.then_some((info.subgroup_min_size, info.subgroup_max_size)),
        timestamps: features.contains(wgpu::Features::TIMESTAMP_QUERY),
        lacks: lacks(&limits, adapter.get_downlevel_capabilities().flags),
        name: info.name,
    })
}

/// What an adapter lacks that every model needs.
fn lacks(limits: &wgpu::Limits, flags: wgpu::DownlevelFlags) -> Option<String> {
    let needs = [
        ("storage buffers of a kernel", limits.max_storage_buffers_per_shader_stage, 6),
        ("threads of a workgroup", limits.max_compute_invocations_per_workgroup, 256),
        ("threads of a workgroup in a row", limits.max_compute_workgroup_size_x, 256),
        ("bytes of workgroup memory", limits.max_compute_workgroup_storage_size, 16 << 10),
    ];
    if !flags.contains(wgpu::DownlevelFlags::SHADER_F16_IN_F32) {
        return Some("it does not unpack numbers of half precision".to_owned());
    }
    let missing = needs.iter().find(|(_, given, needed)| given < needed)?;
    Some(format!("{} {}, {} are needed", missing.1, missing.0, missing.2))
}

/// An adapter that was chosen, and what is known of it.
pub(crate) struct Chosen {
    pub(crate) adapter: wgpu::Adapter,
    pub(crate) about: WgpuAdapter,
}

/// Finds the adapter that the options (or the environment) want.
///
/// # Errors
/// [`WgpuError::NoAdapter`] with what there is, [`WgpuError::Unsupported`] if it lacks what kernels need.
pub(crate) fn choose(options: &WgpuOptions) -> Result<Chosen, WgpuError> {
    let named = options.adapter.clone().or_else(|| std::env::var(ADAPTER_VARIABLE).ok());
    let named = named.filter(|name| !name.is_empty());
    let mut all = found(&instance(options.backend), options.backend);
    let about = described(&all);
    let Some(index) = pick(&about, named.as_deref(), options.allow_software) else {
        return Err(not_there(&about, named.as_deref(), options));
    };
    let position = about.iter().position(|a| a.index == index).unwrap_or_default();
    if let Some(lacks) = &about[position].lacks {
        return Err(WgpuError::Unsupported(format!("{}: {lacks}", about[position].name)));
    }
    Ok(Chosen { adapter: all.swap_remove(index), about: about[position].clone() })
}

/// The index of the adapter with this index or name; without a name that of the best kind.
fn pick(all: &[WgpuAdapter], named: Option<&str>, allow_software: bool) -> Option<usize> {
    let Some(named) = named else {
        let usable = all.iter().filter(|a| a.lacks.is_none());
        let usable = usable.filter(|a| allow_software || a.kind != AdapterKind::Software);
        return usable.min_by_key(|a| a.kind.rank()).map(|a| a.index);
    };
    if let Ok(index) = named.parse::<usize>() {
        return all.iter().find(|a| a.index == index).map(|a| a.index);
    }
    let named = named.to_lowercase();
    all.iter().find(|a| a.name.to_lowercase().contains(&named)).map(|a| a.index)
}

fn not_there(all: &[WgpuAdapter], named: Option<&str>, options: &WgpuOptions) -> WgpuError {
    let mut wanted = named.map_or_else(|| "for this".to_owned(), |name| format!("{name:?}"));
    if let Some(backend) = options.backend {
        wanted += &format!(" of {backend}");
    }
    let list: Vec<String> = all.iter().map(ToString::to_string).collect();
    let found = match (list.is_empty(), named) {
        (true, _) => format!("none ({NO_ADAPTER_HELP})"),
        (false, Some(_)) => list.join("; "),
        (false, None) => format!("{}, which must be named to be used", list.join("; ")),
    };
    WgpuError::NoAdapter { wanted, found }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn adapter(index: usize, name: &str, kind: AdapterKind) -> WgpuAdapter {
        WgpuAdapter {
            index,
            name: name.to_owned(),
            backend: WgpuBackend::Vulkan,
            kind,
            driver: String::new(),
            pci: None,
            max_binding: MemorySize::bytes(1 << 27),
            max_buffer: MemorySize::bytes(1 << 30),
            workgroup_memory: MemorySize::bytes(1 << 15),
            subgroup: None,
            timestamps: false,
            lacks: None,
        }
    }

    #[test]
    fn the_best_adapter_is_chosen_and_software_only_by_name() {
        let mut all = vec![
            adapter(0, "llvmpipe", AdapterKind::Software),
            adapter(1, "Small Graphics", AdapterKind::Integrated),
            adapter(2, "Large Graphics", AdapterKind::Discrete),
        ];
        assert_eq!(pick(&all, None, false), Some(2));
        assert_eq!(pick(&all, Some("1"), false), Some(1));
        assert_eq!(pick(&all, Some("small"), false), Some(1));
        assert_eq!(pick(&all, Some("LLVM"), false), Some(0));
        assert_eq!(pick(&all, Some("other"), true), None);
        all[2].lacks = Some("everything".to_owned());
        assert_eq!(pick(&all, None, false), Some(1));
        assert_eq!((pick(&all[..1], None, false), pick(&all[..1], None, true)), (None, Some(0)));
        let error = not_there(&all[..1], None, &WgpuOptions::default()).to_string();
        assert!(error.contains("llvmpipe") && error.contains("must be named"), "{error}");
        let error = not_there(&[], Some("x"), &WgpuOptions::default()).to_string();
        assert!(error.contains("mesa-vulkan-drivers"), "{error}");
    }

    #[test]
    fn what_adapters_lack_is_told() {
        let all = wgpu::DownlevelFlags::all();
        assert_eq!(lacks(&wgpu::Limits::default(), all), None);
        assert!(lacks(&wgpu::Limits::default(), wgpu::DownlevelFlags::empty()).is_some());
        let small = wgpu::Limits { max_compute_invocations_per_workgroup: 64, ..wgpu::Limits::default() };
        assert!(lacks(&small, all).is_some_and(|what| what.contains("64 threads")));
    }
}
