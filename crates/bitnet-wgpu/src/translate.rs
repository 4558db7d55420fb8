//! Every variant of every kernel, parsed, validated and translated to what Vulkan, Metal and DX12 take: what no adapter of
//! this machine can run is at least compiled.

use naga::back::{hlsl, msl, spv};
use naga::valid::{Capabilities, ValidationFlags, Validator};

use crate::shader::{Kernel, Source};

/// What kernels ask of naga beside the core: subgroups where they are used, and `unpack2x16float`.
const CAPABILITIES: Capabilities = Capabilities::SUBGROUP.union(Capabilities::SHADER_FLOAT16_IN_FLOAT32);

/// Variants that differ in the switches of their own.
fn variants() -> Vec<Kernel> {
    let new = Kernel::new;
    let select =
        |flags: &[&'static str]| flags.iter().fold(new(Source::Select), |kernel, flag| kernel.flag(flag));
    let mut all = vec![select(&[]), select(&["SCAN"]), select(&["SCAN", "NEAR"])];
    all.extend([select(&["NEAR", "THRESHOLD"]), new(Source::Split), new(Source::Collect)]);
    let norms: [&[&'static str]; 9] = [
        &[],
        &["NORM1"],
        &["NORM1", "NORM2"],
        &["NORM1", "ADD"],
        &["NORM1", "NORM2", "ADD", "POST"],
        &["ACT", "ACT_RELU2", "NORM1"],
        &["ACT", "ACT_SILU"],
        &["ACT", "ACT_GELU", "NORM1"],
        &["FINAL", "NORM1", "ADD", "POST"],
    ];
    all.extend(norms.map(|flags| flags.iter().fold(new(Source::Norm), |kernel, flag| kernel.flag(flag))));
    for lanes in [8, 32, 64, 128] {
        all.extend([1, 2, 4, 8].map(|m| new(Source::Gemv).constant("M", m).constant("LANES", lanes)));
        all.extend([1, 2, 4, 8].map(|m| new(Source::Scan).constant("M", m).constant("LANES", lanes)));
    }
    all.extend([16, 64].map(|tile| new(Source::Gemm).constant("TM", tile)));
    for table in ["TABLE_F32", "TABLE_F16", "TABLE_BF16"] {
        all.push(new(Source::Embed).flag(table));
        all.push(new(Source::Output).flag(table).flag("PICKED").constant("M", 1));
        all.extend([1, 2, 4, 8].map(|m| new(Source::Output).flag(table).constant("M", m)));
    }
    let heads = |kernel: Kernel, dim| {
        let kernel = kernel.constant("HEAD_DIM", dim).constant("HEADS", 20);
        kernel.constant("KV_HEADS", 5).constant("GROUP", 4)
    };
    all.push(new(Source::Combine).constant("HEAD_DIM", 128).constant("HEADS", 20));
    for layout in ["KV_F32", "KV_F16", "KV_INT8"] {
        for dim in [20, 128, 256] {
            let rotary = heads(new(Source::Rotary).flag(layout), dim);
            all.extend([rotary.clone(), rotary.flag("HEAD_NORMS")]);
            let attention = |heads_of_item: usize, tile: usize| {
                let kernel = heads(new(Source::Attention).flag(layout), dim).constant("G", heads_of_item);
                kernel.constant("TILE", tile).constant("T", heads_of_item * tile)
            };
            let tiles = if dim <= 128 { [(4, 1), (4, 2)] } else { [(4, 1), (2, 2)] };
            all.extend(tiles.map(|(heads, tile)| attention(heads, tile)));
        }
    }
    all
}

/// Translates a kernel to all languages.
fn translate(kernel: &Kernel) -> Result<(), String> {
    let text = kernel.wgsl();
    let module = naga::front::wgsl::parse_str(&text).map_err(|e| e.emit_to_string(&text))?;
    let mut validator = Validator::new(ValidationFlags::all(), CAPABILITIES);
    let info = validator.validate(&module).map_err(|e| e.emit_to_string(&text))?;
    let metal = msl::Options { lang_version: (2, 4), ..msl::Options::default() };
    msl::write_string(&module, &info, &metal, &msl::PipelineOptions::default())
        .map_err(|e| format!("Metal: {e}"))?;
    for shader_model in [hlsl::ShaderModel::V6_0, hlsl::ShaderModel::V6_4] {
        let options = hlsl::Options { shader_model, ..hlsl::Options::default() };
        let (mut out, pipeline) = (String::new(), hlsl::PipelineOptions::default());
        let mut writer = hlsl::Writer::new(&mut out, &options, &pipeline);
        writer.write(&module, &info, None).map_err(|e| format!("HLSL {shader_model:?}: {e}"))?;
    }
    let vulkan = spv::Options { lang_version: (1, 3), ..spv::Options::default() };
    spv::write_vec(&module, &info, &vulkan, None).map(|_| ()).map_err(|e| format!("SPIR-V: {e}"))
}

#[test]
fn every_kernel_is_translated_for_every_interface() {
    for kernel in variants() {
        for (subgroups, dot) in [(false, false), (false, true), (true, false), (true, true)] {
            let has_subgroups = subgroups && kernel.source.has_subgroups();
            let kernel = kernel.clone().flag_if(dot, "DOT4").flag_if(has_subgroups, "SUBGROUPS");
            translate(&kernel).unwrap_or_else(|e| panic!("{kernel:?}: {e}"));
        }
    }
}

/// What all devices have: 16 KiB of workgroup memory, eight storage buffers, 256 threads.
#[test]
fn kernels_stay_within_what_all_devices_have() {
    for kernel in variants() {
        let text = kernel.flag("DOT4").wgsl();
        let module = naga::front::wgsl::parse_str(&text).unwrap();
        let mut layouter = naga::proc::Layouter::default();
        layouter.update(module.to_ctx()).unwrap();
        let of = |space: fn(&naga::AddressSpace) -> bool| {
            module.global_variables.iter().filter(move |(_, v)| space(&v.space)).map(|(_, v)| v.ty)
        };
        let workgroup: u32 = of(|s| *s == naga::AddressSpace::WorkGroup).map(|ty| layouter[ty].size).sum();
        let storage = of(|s| matches!(s, naga::AddressSpace::Storage { .. })).count();
        let threads: u32 = module.entry_points[0].workgroup_size.iter().product();
        assert!(
            workgroup <= 16 << 10 && storage <= 8 && threads <= 256,
            "{workgroup} bytes, {storage} buffers, {threads} threads:\n{text}"
        );
    }
}
