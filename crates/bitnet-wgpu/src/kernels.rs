//! [`Kernels`]: compiled pipelines, made when they are first needed and kept; and [`Binder`], which makes bind groups.

use std::collections::HashMap;

use bytemuck::{Pod, Zeroable};

use crate::device::Gpu;
use crate::error::WgpuError;
use crate::shader::{Kernel, Source};

/// Distance of parameter records in a buffer: the largest alignment that any device asks for.
pub(crate) const RECORD: u64 = 256;

/// `Call` of common.wgsl.
#[derive(Debug, Clone, Copy, Default, Pod, Zeroable)]
#[repr(C)]
pub(crate) struct Call {
    pub(crate) rows: u32,
    pub(crate) rows_at: u32,
    pub(crate) logit_at: u32,
    pub(crate) rope_full: u32,
    pub(crate) rope_sliding: u32,
    pub(crate) work_at: u32,
    pub(crate) slice_row: u32,
    pub(crate) out_first: u32,
    pub(crate) out_rows: u32,
    pub(crate) out_to: u32,
    pub(crate) top_at: u32,
    pub(crate) top_k: u32,
}

/// `Site` of common.wgsl.
#[derive(Debug, Clone, Copy, Default, PartialEq, Pod, Zeroable)]
#[repr(C)]
pub(crate) struct Site {
    pub(crate) n: u32,
    pub(crate) words: u32,
    pub(crate) stride: u32,
    pub(crate) offset: u32,
    pub(crate) first: u32,
    pub(crate) count: u32,
    pub(crate) window: u32,
    pub(crate) weight: u32,
    pub(crate) second: u32,
    pub(crate) post: u32,
    pub(crate) eps: f32,
    pub(crate) scale: f32,
}

/// A pipeline.
#[derive(Debug, Clone)]
pub(crate) struct Compiled {
    pub(crate) pipeline: wgpu::ComputePipeline,
    pub(crate) layout: wgpu::BindGroupLayout,
}

/// All pipelines of a device.
#[derive(Debug, Default)]
pub(crate) struct Kernels {
    compiled: HashMap<Kernel, Compiled>,
    layouts: HashMap<&'static str, wgpu::BindGroupLayout>,
}

impl Kernels {
    /// The pipeline of a kernel.
    ///
    /// # Errors
    /// [`WgpuError::Device`] if the driver refuses it.
    pub(crate) fn get(&mut self, gpu: &Gpu, kernel: Kernel) -> Result<Compiled, WgpuError> {
        let kernel = completed(gpu, kernel);
        if let Some(known) = self.compiled.get(&kernel) {
            return Ok(known.clone());
        }
        let layout = self.layout(gpu, kernel.bindings())?;
        let pipeline = gpu.checked(0, || compile(gpu, &kernel, &layout))?;
        let compiled = Compiled { pipeline, layout };
        self.compiled.insert(kernel, compiled.clone());
        Ok(compiled)
    }

    fn layout(&mut self, gpu: &Gpu, bindings: &'static str) -> Result<wgpu::BindGroupLayout, WgpuError> {
        if let Some(known) = self.layouts.get(bindings) {
            return Ok(known.clone());
        }
        let mut entries = vec![
            entry(0, wgpu::BufferBindingType::Uniform, true),
            entry(1, wgpu::BufferBindingType::Uniform, false),
        ];
        entries.extend(bindings.chars().zip(2..).map(|(kind, binding)| {
            entry(binding, wgpu::BufferBindingType::Storage { read_only: kind == 'r' }, false)
        }));
        let descriptor = wgpu::BindGroupLayoutDescriptor { label: Some(bindings), entries: &entries };
        let layout = gpu.checked(0, || gpu.device.create_bind_group_layout(&descriptor))?;
        self.layouts.insert(bindings, layout.clone());
        Ok(layout)
    }
}

/// The switches and constants that the device decides.
fn completed(gpu: &Gpu, kernel: Kernel) -> Kernel {
    let lanes = gpu.subgroup_lanes.unwrap_or(32);
    let has_subgroups = kernel.source.has_subgroups() && gpu.subgroup_lanes.is_some();
    let kernel = kernel.flag_if(gpu.packed_dot, "DOT4").flag_if(has_subgroups, "SUBGROUPS");
    let has_lanes = matches!(kernel.source, Source::Gemv | Source::Scan);
    if has_lanes { kernel.constant("LANES", lanes as usize) } else { kernel }
}

fn entry(binding: u32, ty: wgpu::BufferBindingType, has_dynamic_offset: bool) -> wgpu::BindGroupLayoutEntry {
    let ty = wgpu::BindingType::Buffer { ty, has_dynamic_offset, min_binding_size: None };
    wgpu::BindGroupLayoutEntry { binding, visibility: wgpu::ShaderStages::COMPUTE, ty, count: None }
}

/// Kernels neither count the turns of their loops, so that drivers unroll them, nor compare each index with the length of its
/// array: on an H200 prompts of 512 tokens go from 7,560 to 12,660 tokens/s by that, and one text from 259 to 325.
fn unchecked() -> wgpu::ShaderRuntimeChecks {
    wgpu::ShaderRuntimeChecks { bounds_checks: false, force_loop_bounding: false, ..Default::default() }
}

#[expect(unsafe_code, reason = "the only way to kernels without checks of every index")]
fn compile(gpu: &Gpu, kernel: &Kernel, layout: &wgpu::BindGroupLayout) -> wgpu::ComputePipeline {
    let label = format!("{:?}", kernel.source);
    let label = Some(label.as_str());
    let descriptor =
        wgpu::ShaderModuleDescriptor { label, source: wgpu::ShaderSource::Wgsl(kernel.wgsl().into()) };
    // SAFETY: the kernels are this crate's, not a user's: their loops end, and what they index are buffers of the sizes of the
    // plan, from tokens, positions and blocks that were checked before.
    let module = unsafe { gpu.device.create_shader_module_trusted(descriptor, unchecked()) };
    let pipeline_layout = gpu.device.create_pipeline_layout(&wgpu::PipelineLayoutDescriptor {
        label,
        bind_group_layouts: &[Some(layout)],
        immediate_size: 0,
    });
    gpu.device.create_compute_pipeline(&wgpu::ComputePipelineDescriptor {
        label,
        layout: Some(&pipeline_layout),
        module: &module,
        entry_point: Some("main"),
        compilation_options: wgpu::PipelineCompilationOptions {
            zero_initialize_workgroup_memory: kernel.source.needs_zeros(),
            ..wgpu::PipelineCompilationOptions::default()
        },
        cache: None,
    })
}

/// A bind group of a kernel at a place: parameters of calls, of the place, and buffers.
///
/// # Errors
/// [`WgpuError::Device`].
pub(crate) fn bind(
    gpu: &Gpu,
    compiled: &Compiled,
    call: &wgpu::Buffer,
    (sites, site): (&wgpu::Buffer, usize),
    buffers: &[wgpu::BindingResource<'_>],
) -> Result<wgpu::BindGroup, WgpuError> {
    let record = |buffer, offset, size: usize| {
        let size = wgpu::BufferSize::new(size as u64);
        wgpu::BindingResource::Buffer(wgpu::BufferBinding { buffer, offset, size })
    };
    let mut entries = vec![
        wgpu::BindGroupEntry { binding: 0, resource: record(call, 0, size_of::<Call>()) },
        wgpu::BindGroupEntry { binding: 1, resource: record(sites, site as u64 * RECORD, size_of::<Site>()) },
    ];
    entries.extend(
        buffers
            .iter()
            .zip(2..)
            .map(|(resource, binding)| wgpu::BindGroupEntry { binding, resource: resource.clone() }),
    );
    let descriptor = wgpu::BindGroupDescriptor { label: None, layout: &compiled.layout, entries: &entries };
    gpu.checked(0, || gpu.device.create_bind_group(&descriptor))
}

/// Records at their distance, as bytes of a buffer.
pub(crate) fn records<T: Pod>(all: &[T], out: &mut Vec<u8>) {
    out.clear();
    for record in all {
        out.extend_from_slice(bytemuck::bytes_of(record));
        out.resize(out.len().next_multiple_of(RECORD as usize), 0);
    }
}
