//! A device that fails while the engine works: no request is lost, and no text changes.

use std::ops::ControlFlow;

use bitnet_cpu::{CpuExecutor, CpuOptions};
use bitnet_inference::device::{Reserve, Standby};
use bitnet_inference::scheduler::Shutdown;
use bitnet_inference::{
    EngineError, EngineModel, GenerateRequest, InferenceEngine, LoadOptions, Prompt, SchedulerOptions,
};
use bitnet_model::{Batch, ExecError, Executor, ExecutorInfo, ModelSpec, RowWant, TopLogits, Weights};

use bitnet_text::EncodeOptions;

use crate::support::{engine, source};

/// The CPU's executor as a device that fails at one of its calls.
struct Fragile {
    inner: CpuExecutor,
    calls_left: usize,
}

impl Fragile {
    fn call(&mut self) -> Result<(), ExecError> {
        match self.calls_left.checked_sub(1) {
            Some(left) => {
                self.calls_left = left;
                Ok(())
            }
            None => Err(ExecError::Device { backend: "test", what: "the device is gone".to_owned() }),
        }
    }
}

impl Executor for Fragile {
    fn spec(&self) -> &ModelSpec {
        self.inner.spec()
    }

    fn info(&self) -> ExecutorInfo {
        self.inner.info()
    }

    fn reserve_blocks(&mut self, count: usize) -> Result<(), ExecError> {
        self.inner.reserve_blocks(count)
    }

    fn copy_block(&mut self, from: u32, to: u32) -> Result<(), ExecError> {
        self.call()?;
        self.inner.copy_block(from, to)
    }

    fn read_block(&mut self, block: u32, positions: usize, out: &mut [u8]) -> Result<(), ExecError> {
        self.inner.read_block(block, positions, out)
    }

    fn forward(&mut self, batch: &Batch<'_>, logits: &mut [f32]) -> Result<(), ExecError> {
        self.call()?;
        self.inner.forward(batch, logits)
    }

    fn forward_select(
        &mut self,
        batch: &Batch<'_>,
        wants: &[RowWant<'_>],
        logits: &mut [f32],
        top: &mut [TopLogits],
    ) -> Result<(), ExecError> {
        self.call()?;
        self.inner.forward_select(batch, wants, logits, top)
    }

    fn forward_hidden(&mut self, batch: &Batch<'_>, hidden: &mut [f32]) -> Result<(), ExecError> {
        self.call()?;
        self.inner.forward_hidden(batch, hidden)
    }
}

fn executor(spec: ModelSpec, weights: &Weights) -> CpuExecutor {
    let options = CpuOptions { threads: Some(1), ..CpuOptions::default() };
    CpuExecutor::new(spec, weights, &options, &mut |_, _| {}).unwrap()
}

/// An engine whose device fails after `calls` calls.
fn fragile(calls: usize, options: SchedulerOptions) -> InferenceEngine {
    let loaded = bitnet_model::load::load(&source(), &LoadOptions::default()).unwrap();
    let (spec, weights, model) = EngineModel::split(loaded);
    let inner = executor(spec.clone(), &weights);
    let reserve: Reserve = Box::new(move || Ok(Box::new(executor(spec, &weights))));
    let standby = Standby::new(Box::new(Fragile { inner, calls_left: calls }), reserve);
    InferenceEngine::from_executor_with(model, Box::new(standby), None, 4, options).unwrap()
}

fn stories() -> Vec<GenerateRequest> {
    let prompts = ["Once upon a time", "The little dog", "Once upon a time there was a", "Tom and Lily"];
    let story = |(seed, prompt): (usize, &&str)| {
        let request = GenerateRequest::new(Prompt::Text((*prompt).to_owned()));
        request.seed(seed as u64).max_tokens(20 + 7 * seed)
    };
    prompts.iter().enumerate().map(story).collect()
}

#[test]
fn texts_that_run_together_are_computed_again() {
    let alone = engine(1);
    let expected: Vec<String> =
        stories().iter().map(|request| alone.generate_blocking(request).unwrap().text).collect();
    for calls in [0, 1, 3, 17, 30] {
        let options =
            SchedulerOptions { prefill_chunk: Some(3), max_running: 3, ..SchedulerOptions::default() };
        let engine = fragile(calls, options);
        let streams: Vec<_> =
            stories().into_iter().map(|request| engine.generate_stream(request).unwrap()).collect();
        for (stream, expected) in streams.into_iter().zip(&expected) {
            assert_eq!(&stream.blocking_finish().unwrap()[0].text, expected, "after {calls} calls");
        }
        engine.scheduler().shutdown(Shutdown::Drain);
        let stats = engine.scheduler().stats();
        assert_eq!((stats.failed, stats.finished), (0, 4), "{stats:?}");
        assert!(stats.preemptions > 0, "the device did not fail");
    }
}

#[test]
fn completions_of_one_prompt_are_computed_again() {
    let mut request = stories().remove(2);
    request.n = 3;
    let texts = |engine: &InferenceEngine| -> Vec<String> {
        let stream = engine.generate_stream(request.clone()).unwrap();
        stream.blocking_finish().unwrap().into_iter().map(|generation| generation.text).collect()
    };
    let expected = texts(&engine(1));
    for calls in 1..6 {
        assert_eq!(texts(&fragile(calls, SchedulerOptions::default())), expected, "after {calls} calls");
    }
}

#[test]
fn a_conversation_goes_on() {
    let turns = ["Once upon a time", " Then Tom said", " In the end"];
    let talk = |engine: &InferenceEngine| -> Vec<u32> {
        let tokenizer = engine.tokenizer().unwrap();
        let mut session = engine.session();
        let mut tokens = Vec::new();
        for turn in turns {
            tokens.extend(
                tokenizer
                    .encode(turn, EncodeOptions { add_bos: tokens.is_empty(), ..EncodeOptions::PLAIN })
                    .unwrap(),
            );
            let request = GenerateRequest::new(Prompt::Tokens(tokens.clone())).seed(3).max_tokens(12);
            tokens.extend(
                engine
                    .generate_with(&mut session, &request, &mut |_| ControlFlow::Continue(()))
                    .unwrap()
                    .tokens,
            );
        }
        tokens
    };
    let expected = talk(&engine(1));
    for calls in [2, 13, 14, 15, 29] {
        let engine = fragile(calls, SchedulerOptions::default());
        assert_eq!(talk(&engine), expected, "after {calls} calls");
    }
}

#[test]
fn what_is_in_a_file_is_never_what_was_lost() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a session");
    let engine = fragile(5, SchedulerOptions::default());
    let mut kept = engine.session();
    let request = |seed| stories().remove(0).seed(seed).max_tokens(4);
    let before = engine.generate_with(&mut kept, &request(1), &mut |_| ControlFlow::Continue(())).unwrap();
    // Another text meets the failure.
    engine.generate_blocking(&request(2)).unwrap();
    engine.save_session(&mut kept, &path).unwrap();
    let read = engine.load_session(&path).unwrap();
    assert_eq!(read.computed(), 0);
    assert!(read.tokens().ends_with(&before.tokens));
}

#[test]
fn embeddings_are_computed_again() {
    let texts = ["one text", "and a second text, which is longer", "three"];
    let expected = engine(1).embed(&texts).unwrap();
    for calls in 0..2 {
        assert_eq!(fragile(calls, SchedulerOptions::default()).embed(&texts).unwrap(), expected);
    }
}

#[test]
fn if_nothing_can_take_over_the_error_says_both() {
    let loaded = bitnet_model::load::load(&source(), &LoadOptions::default()).unwrap();
    let (spec, weights, model) = EngineModel::split(loaded);
    let inner = executor(spec, &weights);
    let why = || ExecError::Unsupported { backend: "the second", what: "it is not there".to_owned() };
    let standby = Standby::new(Box::new(Fragile { inner, calls_left: 3 }), Box::new(move || Err(why())));
    let engine = InferenceEngine::from_executor(model, Box::new(standby), None, 4).unwrap();
    for _ in 0..2 {
        let error = engine.generate_blocking(&stories()[0]).unwrap_err();
        assert!(matches!(error, EngineError::Exec(ExecError::Device { .. })), "{error}");
        assert!(error.to_string().contains("the device is gone"), "{error}");
    }
}
