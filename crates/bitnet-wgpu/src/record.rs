//! [`Recorder`]: writes programs into a command buffer, and measures kernels if that is wanted.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::device::Gpu;
use crate::error::WgpuError;
use crate::kernels::RECORD;
use crate::memory::{Buffer, Memory};
use crate::plan::Plan;
use crate::program::{Dims, Program, Step};

/// Kernels that can be measured in one submission.
const MOST_TIMED: u32 = 2048;

/// How long the kernels of one place took together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct KernelTime {
    /// All of them.
    pub total: Duration,
    /// How many there were.
    pub count: u64,
}

/// Timestamps of kernels.
pub(crate) struct Times {
    queries: wgpu::QuerySet,
    resolved: Buffer,
    /// Places of the kernels in the submission that is recorded.
    labels: Vec<&'static str>,
    period: f64,
    totals: BTreeMap<&'static str, KernelTime>,
}

impl Times {
    /// `None` if the device cannot tell the time.
    ///
    /// # Errors
    /// [`WgpuError`].
    pub(crate) fn new(gpu: &Gpu, memory: &mut Memory) -> Result<Option<Self>, WgpuError> {
        if !gpu.device.features().contains(wgpu::Features::TIMESTAMP_QUERY) {
            return Ok(None);
        }
        let resolved = memory.take_exact(gpu, 16 * u64::from(MOST_TIMED))?;
        let descriptor = wgpu::QuerySetDescriptor {
            label: Some("times"),
            ty: wgpu::QueryType::Timestamp,
            count: 2 * MOST_TIMED,
        };
        let queries = gpu.checked(0, || gpu.device.create_query_set(&descriptor))?;
        let period = f64::from(gpu.queue.get_timestamp_period());
        Ok(Some(Self { queries, resolved, labels: Vec::new(), period, totals: BTreeMap::new() }))
    }

    /// What was measured since the last call.
    pub(crate) fn take(&mut self) -> Vec<(&'static str, KernelTime)> {
        std::mem::take(&mut self.totals).into_iter().collect()
    }

    /// Reads the times of the submission that was recorded last.
    ///
    /// # Errors
    /// [`WgpuError`].
    fn collect(&mut self, gpu: &Gpu, memory: &mut Memory) -> Result<(), WgpuError> {
        let labels = std::mem::take(&mut self.labels);
        if labels.is_empty() {
            return Ok(());
        }
        let bytes = 16 * labels.len() as u64;
        let target = memory.take_readback(gpu, bytes)?;
        let mut encoder = gpu.device.create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
        encoder.resolve_query_set(&self.queries, 0..2 * labels.len() as u32, &self.resolved.buffer, 0);
        encoder.copy_buffer_to_buffer(&self.resolved.buffer, 0, &target.buffer, 0, bytes);
        gpu.queue.submit([encoder.finish()]);
        let totals = &mut self.totals;
        let period = self.period;
        let read = gpu.read(&target.buffer, bytes, |bytes| {
            let stamps: Vec<u64> = bytes.as_chunks().0.iter().map(|b| u64::from_le_bytes(*b)).collect();
            for (label, pair) in labels.iter().zip(stamps.chunks_exact(2)) {
                let nanoseconds = pair[1].saturating_sub(pair[0]) as f64 * period;
                let total = totals.entry(label).or_default();
                total.total += Duration::from_nanos(nanoseconds as u64);
                total.count += 1;
            }
        });
        memory.give_readback(target);
        read
    }
}

/// A command buffer in the making.
pub(crate) struct Recorder<'a> {
    encoder: wgpu::CommandEncoder,
    times: Option<&'a mut Times>,
}

impl<'a> Recorder<'a> {
    pub(crate) fn new(gpu: &Gpu, times: Option<&'a mut Times>) -> Self {
        let encoder = gpu.device.create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
        Self { encoder, times }
    }

    /// Replays programs for a plan; `rows` is what [`Dims::Rows`] and its like count.
    pub(crate) fn programs(&mut self, programs: &[&Program], plan: &Plan, rows: usize, call: usize) {
        let mut dispatches = Vec::new();
        for program in programs {
            let mut steps = program.steps.iter().peekable();
            while let Some(step) = steps.next() {
                let rows = rows as u32;
                match step.dims {
                    Dims::Fixed(x, y) => dispatches.push((step, call, x, y)),
                    Dims::Rows(y) => dispatches.push((step, call, rows, y)),
                    Dims::EachRow(x) => dispatches.push((step, call, x, rows)),
                    Dims::Tiles(x, tile) => dispatches.push((step, call, x, rows.div_ceil(tile))),
                    Dims::SliceRows(..) => {}
                    // The merging of a slice must come before the next slice, which has its results in the same place.
                    Dims::Items(kind, y) => {
                        let merging = steps.peek().copied();
                        for slice in &plan.slices[kind] {
                            dispatches.push((step, slice.call, slice.items, y));
                            if let Some((merging, Dims::SliceRows(_, y))) = merging.map(|m| (m, m.dims)) {
                                dispatches.push((merging, slice.call, slice.rows, y));
                            }
                        }
                    }
                }
            }
        }
        self.dispatch(&dispatches);
    }

    /// Dispatches: step, record among the calls, workgroups.
    fn dispatch(&mut self, dispatches: &[(&Step, usize, u32, u32)]) {
        let Some(times) = self.times.as_deref_mut() else {
            let mut pass = self.encoder.begin_compute_pass(&wgpu::ComputePassDescriptor::default());
            dispatches.iter().for_each(|dispatch| one(&mut pass, dispatch));
            return;
        };
        for dispatch in dispatches {
            let index = times.labels.len() as u32;
            let timed = index < MOST_TIMED;
            let timestamp_writes = timed.then(|| wgpu::ComputePassTimestampWrites {
                query_set: &times.queries,
                beginning_of_pass_write_index: Some(2 * index),
                end_of_pass_write_index: Some(2 * index + 1),
            });
            let descriptor = wgpu::ComputePassDescriptor { label: None, timestamp_writes };
            one(&mut self.encoder.begin_compute_pass(&descriptor), dispatch);
            if timed {
                times.labels.push(dispatch.0.label);
            }
        }
    }

    /// Copies bytes of a result for the host.
    pub(crate) fn copy(&mut self, from: &wgpu::Buffer, at: u64, to: &wgpu::Buffer, place: u64, bytes: u64) {
        self.encoder.copy_buffer_to_buffer(from, at, to, place, bytes);
    }

    /// Submits, and reads what was measured.
    ///
    /// # Errors
    /// [`WgpuError`].
    pub(crate) fn submit(self, gpu: &Gpu, memory: &mut Memory) -> Result<(), WgpuError> {
        gpu.queue.submit([self.encoder.finish()]);
        match self.times {
            Some(times) => times.collect(gpu, memory),
            None => Ok(()),
        }
    }
}

fn one(pass: &mut wgpu::ComputePass<'_>, &(step, call, x, y): &(&Step, usize, u32, u32)) {
    pass.set_pipeline(&step.pipeline);
    pass.set_bind_group(0, &step.group, &[(call as u64 * RECORD) as u32]);
    pass.dispatch_workgroups(x, y, 1);
}
