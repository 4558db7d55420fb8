//! The dispatches that look for the largest logits: of all logits, or by the int8 image of the output layer.

use crate::error::WgpuError;
use crate::image::Image;
use crate::kernels::Site;
use crate::program::{Builder, Dims, Draft, Program, of_table, split};
use crate::scratch::CHUNK;
use crate::shader::{Kernel, Source};

/// Threads of a workgroup of scan.wgsl; so many by lanes, times four, are its rows.
const SCAN_THREADS: u32 = 128;
/// Workgroups that compute what was found of a row, 32 tokens at a time.
const PICKING: u32 = 32;

impl<'a> Builder<'a> {
    /// The largest logits of all: of chunks, then of rows. Here rows are those that are looked at.
    pub(crate) fn select(&mut self) -> Result<Program, WgpuError> {
        let b = self.buffers;
        let scan = self.selection(&["SCAN"], vec![&b.inputs.buffer, &b.logits.buffer, &b.found.buffer]);
        let pick = self.selection(&[], vec![&b.inputs.buffer, &b.found.buffer, &b.results.buffer]);
        self.finish(vec![scan, pick])
    }

    /// What is near the logits of up to `rows` hidden rows (1, 2, 4 or 8), by the image.
    pub(crate) fn scan(&mut self, image: &'a Image, rows: usize) -> Result<Program, WgpuError> {
        let (spec, b) = (&self.model.spec, self.buffers);
        let words = 4 * image.quads as u32;
        let mut drafts = vec![Draft {
            label: "output layer, scan",
            kernel: Kernel::new(Source::Split),
            site: Site { n: spec.hidden_size as u32, words, ..Site::default() },
            buffers: vec![&b.hidden.buffer, &b.parts.buffer, &b.hidden_images.buffer],
            dims: Dims::Rows(1),
        }];
        let lanes = self.gpu.subgroup_lanes.unwrap_or(32);
        for part in &image.parts {
            let site = Site {
                words: image.quads as u32,
                stride: spec.vocab_size as u32,
                offset: part.first as u32,
                count: part.rows as u32,
                ..Site::default()
            };
            let (x, y) = split(part.rows.div_ceil((SCAN_THREADS / lanes * 4) as usize));
            drafts.push(Draft {
                label: "output layer, scan",
                kernel: Kernel::new(Source::Scan).constant("M", rows),
                site,
                buffers: vec![
                    &part.codes.buffer,
                    &image.rows.buffer,
                    &b.parts.buffer,
                    &b.hidden_images.buffer,
                    &b.logits.buffer,
                ],
                dims: Dims::Fixed(x, y),
            });
        }
        self.finish(drafts)
    }

    /// The logits of the tokens whose intervals reach the k-th largest lower end. Here rows are those that are looked at.
    pub(crate) fn near(&mut self, image: &'a Image) -> Result<Program, WgpuError> {
        let (model, b) = (self.model, self.buffers);
        let known = [&image.rows.buffer, &b.hidden_images.buffer];
        let mut buffers = vec![&b.inputs.buffer, &b.logits.buffer, &b.found.buffer];
        buffers.extend(known);
        let scan = self.selection(&["SCAN", "NEAR"], buffers);
        let buffers = vec![&b.inputs.buffer, &b.found.buffer, &b.results.buffer];
        let threshold = self.selection(&["NEAR", "THRESHOLD"], buffers);
        let mut buffers = vec![&b.inputs.buffer, &b.logits.buffer, &b.results.buffer];
        buffers.extend(known);
        let collect = Draft { kernel: Kernel::new(Source::Collect), buffers, ..scan.clone() };
        let mut drafts = vec![scan, threshold, collect];
        let table = model.output_table();
        for part in &table.parts {
            let site = Site {
                n: model.spec.hidden_size as u32,
                words: table.words as u32,
                offset: part.first as u32,
                count: part.rows as u32,
                ..Site::default()
            };
            drafts.push(Draft {
                label: "output layer, found",
                kernel: of_table(Kernel::new(Source::Output), table.dtype).flag("PICKED").constant("M", 1),
                site,
                buffers: vec![&b.hidden.buffer, &part.storage.buffer, &b.results.buffer, &b.inputs.buffer],
                dims: Dims::EachRow(PICKING),
            });
        }
        self.finish(drafts)
    }

    /// A step of the selection: of each chunk if it scans, else of each row.
    fn selection(&self, flags: &[&'static str], buffers: Vec<&'a wgpu::Buffer>) -> Draft<'a> {
        let vocab = self.model.spec.vocab_size;
        let chunks = vocab.div_ceil(CHUNK) as u32;
        let kernel = flags.iter().fold(Kernel::new(Source::Select), |kernel, flag| kernel.flag(flag));
        Draft {
            label: "selection",
            kernel,
            site: Site { n: vocab as u32, stride: chunks, ..Site::default() },
            buffers,
            dims: Dims::EachRow(if flags.contains(&"SCAN") { chunks } else { 1 }),
        }
    }
}
