//! An executor that draws tokens itself: texts are those that the engine's sampler gives.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bitnet_cpu::{CpuExecutor, CpuOptions};
use bitnet_inference::{
    EngineModel, GenerateRequest, InferenceEngine, LoadOptions, Prompt, SamplingOverrides, SchedulerOptions,
};
use bitnet_model::{Batch, ExecError, Executor, ExecutorInfo, ModelSpec, RowWant, TopLogits};

use crate::support::{engine, source};

/// The CPU's executor, which draws two of three tokens that it is asked to draw, and counts them.
struct Drawing {
    inner: CpuExecutor,
    asked: usize,
    drawn: Arc<AtomicUsize>,
}

impl Executor for Drawing {
    fn spec(&self) -> &ModelSpec {
        self.inner.spec()
    }

    fn info(&self) -> ExecutorInfo {
        self.inner.info()
    }

    fn draws(&self) -> bool {
        true
    }

    fn reserve_blocks(&mut self, count: usize) -> Result<(), ExecError> {
        self.inner.reserve_blocks(count)
    }

    fn forward(&mut self, batch: &Batch<'_>, logits: &mut [f32]) -> Result<(), ExecError> {
        self.inner.forward(batch, logits)
    }

    fn forward_select(
        &mut self,
        batch: &Batch<'_>,
        wants: &[RowWant<'_>],
        logits: &mut [f32],
        top: &mut [TopLogits],
    ) -> Result<(), ExecError> {
        self.inner.forward_select(batch, wants, logits, top)?;
        let wants = wants.iter().filter(|want| want.top().is_some());
        for (top, draw) in top.iter_mut().zip(wants.map(RowWant::draw)) {
            let Some(draw) = draw else { continue };
            self.asked += 1;
            if !self.asked.is_multiple_of(3) {
                let token = draw.token(top).unwrap();
                let place = top.ids.binary_search(&token).unwrap();
                *top = TopLogits { ids: vec![token], logits: vec![top.logits[place]] };
                self.drawn.fetch_add(1, Ordering::Relaxed);
            }
        }
        Ok(())
    }
}

/// An engine whose executor draws, and how often it did.
fn drawing() -> (InferenceEngine, Arc<AtomicUsize>) {
    let loaded = bitnet_model::load::load(&source(), &LoadOptions::default()).unwrap();
    let (spec, weights, model) = EngineModel::split(loaded);
    let options = CpuOptions { threads: Some(1), ..CpuOptions::default() };
    let inner = CpuExecutor::new(spec, &weights, &options, &mut |_, _| {}).unwrap();
    let drawn = Arc::new(AtomicUsize::new(0));
    let executor = Box::new(Drawing { inner, asked: 0, drawn: Arc::clone(&drawn) });
    let options = SchedulerOptions::default();
    (InferenceEngine::from_executor_with(model, executor, None, 4, options).unwrap(), drawn)
}

fn stories(sampling: &SamplingOverrides) -> Vec<GenerateRequest> {
    let story = |(seed, prompt): (usize, &&str)| {
        let request = GenerateRequest::new(Prompt::Text((*prompt).to_owned()));
        request.sampling(*sampling).seed(seed as u64).max_tokens(15 + 7 * seed)
    };
    ["Once upon a time", "The little dog", "Tom and Lily"].iter().enumerate().map(story).collect()
}

#[test]
fn drawn_tokens_are_those_of_the_sampler() {
    let overrides = |repeat_penalty, temperature, min_p, typical_p| SamplingOverrides {
        temperature: Some(temperature),
        top_k: Some(30),
        top_p: Some(0.95),
        min_p: Some(min_p),
        typical_p: Some(typical_p),
        repeat_penalty: Some(repeat_penalty),
        ..SamplingOverrides::default()
    };
    let alone = engine(1);
    for (sampling, draws) in [
        (overrides(1.0, 0.9, 0.05, 1.0), true),
        (overrides(1.2, 0.9, 0.0, 1.0), false),
        (overrides(1.0, 0.9, 0.0, 0.9), false),
        (overrides(1.0, 0.0, 0.0, 1.0), false),
    ] {
        let (engine, drawn) = drawing();
        let requests = stories(&sampling);
        let expected: Vec<String> =
            requests.iter().map(|request| alone.generate_blocking(request).unwrap().text).collect();
        for (request, expected) in requests.iter().zip(&expected) {
            assert_eq!(engine.generate_blocking(request).unwrap().text, *expected, "{sampling:?}");
        }
        let streams: Vec<_> =
            requests.into_iter().map(|request| engine.generate_stream(request).unwrap()).collect();
        for (stream, expected) in streams.into_iter().zip(&expected) {
            assert_eq!(stream.blocking_finish().unwrap()[0].text, *expected);
        }
        assert_eq!(drawn.load(Ordering::Relaxed) > 20, draws, "{sampling:?}");
    }
}
