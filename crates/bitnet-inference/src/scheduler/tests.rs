//! Tests that make the scheduler's steps themselves: what happens in which step, and random mixes of requests against the
//! same requests alone.

use std::path::Path;
use std::sync::OnceLock;

use bitnet_core::MemorySize;
use bitnet_core::bytes::ByteView;
use proptest::prelude::*;

use super::run::{Progress, Runner};
use super::{
    GenerationStream, Scheduler, SchedulerOptions, SchedulerStats, SlotState, Speculation, StreamEvent,
    SubmitOptions,
};
use crate::sampling::{Mirostat, SamplingOverrides};
use crate::{
    Constraint, EngineError, GenerateRequest, Generation, InferenceEngine, KvType, ModelSource, Prompt,
};
use std::sync::Arc;

/// A scheduler without a thread.
struct Driver {
    engine: InferenceEngine,
    scheduler: Scheduler,
    runner: Runner,
}

fn bundled() -> ModelSource {
    let view = |(name, bytes): (&str, &'static [u8])| (name.to_owned(), ByteView::from_static(bytes));
    let files = bitnet_tiny::files().into_iter().map(view).collect();
    ModelSource::Memory { name: bitnet_tiny::NAME.to_owned(), files }
}

/// A model of random weights, without a tokenizer.
fn vector() -> ModelSource {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../testdata/vectors/tiny-bitnet-packed");
    ModelSource::Path(Path::new(folder).to_owned())
}

fn engine(source: ModelSource, options: SchedulerOptions) -> InferenceEngine {
    let builder = InferenceEngine::builder().model(source).threads(1).kv_type(KvType::F16);
    builder.scheduler(options).build().unwrap()
}

impl Driver {
    fn new(source: ModelSource, options: SchedulerOptions) -> Self {
        let engine = engine(source, options);
        let scheduler = Scheduler::new(Arc::clone(engine.core()));
        scheduler.shared.state().started = true;
        let runner = Runner::new(Arc::clone(engine.core()), Arc::clone(&scheduler.shared));
        Self { engine, scheduler, runner }
    }

    fn submit(&self, request: &GenerateRequest) -> GenerationStream {
        self.with(request, SubmitOptions::default())
    }

    fn with(&self, request: &GenerateRequest, options: SubmitOptions) -> GenerationStream {
        self.scheduler.submit(request.clone(), options).unwrap()
    }

    /// One step; behind each, every request runs, waits or is counted among those that ended.
    fn step(&mut self) -> Progress {
        let progress = self.runner.step();
        let stats = self.scheduler.stats();
        if stats.running == 0 && stats.queued == 0 && stats.slots.is_empty() {
            let ended = stats.finished + stats.cancelled + stats.failed;
            assert_eq!(ended, stats.requests_total, "{stats:?}");
        }
        progress
    }

    fn steps(&mut self, count: usize) {
        for _ in 0..count {
            assert_eq!(self.step(), Progress::Worked);
        }
    }

    /// Steps until nothing is left to do.
    fn finish(&mut self) {
        for _ in 0..20_000 {
            match self.step() {
                Progress::Worked => {}
                Progress::Idle => return,
                other => panic!("{other:?}: {:?}", self.scheduler.stats()),
            }
        }
        panic!("no end: {:?}", self.scheduler.stats());
    }

    /// State and computed tokens of each slot.
    fn slots(&self) -> Vec<(u64, SlotState)> {
        self.scheduler.stats().slots.iter().map(|slot| (slot.id, slot.state)).collect()
    }

    fn assert_whole(&self) {
        let stats = self.scheduler.stats();
        assert_eq!((stats.blocks_in_use, stats.running, stats.queued), (0, 0, 0), "{stats:?}");
        assert_eq!(stats.finished + stats.cancelled + stats.failed, stats.requests_total, "{stats:?}");
    }
}

fn tokens(count: usize, seed: u32) -> Vec<u32> {
    (0..count as u32).map(|i| 100 + (i * 7 + seed * 31) % 60).collect()
}

fn of_tokens(prompt: Vec<u32>, count: usize) -> GenerateRequest {
    GenerateRequest {
        ignore_eos: true,
        ..GenerateRequest::new(Prompt::Tokens(prompt)).seed(1).max_tokens(count)
    }
}

/// The events that are there.
fn events(stream: &mut GenerationStream) -> Vec<StreamEvent> {
    let mut context = std::task::Context::from_waker(std::task::Waker::noop());
    let mut out = Vec::new();
    while let std::task::Poll::Ready(Some(event)) =
        futures_core::Stream::poll_next(std::pin::Pin::new(&mut *stream), &mut context)
    {
        out.push(event.unwrap());
    }
    out
}

fn drawn(stream: &mut GenerationStream) -> usize {
    events(stream).iter().filter(|event| matches!(event, StreamEvent::Token { .. })).count()
}

#[test]
fn who_gives_up_within_a_step_is_not_lost_sight_of() {
    let options = SchedulerOptions { max_running: 2, ..SchedulerOptions::default() };
    let mut driver = Driver::new(bundled(), options);
    for round in 0..20 {
        let mut request = of_tokens(tokens(5, round), 100);
        request.n = 6;
        let stream = driver.submit(&request);
        driver.steps(2);
        std::thread::scope(|scope| {
            // At some moment of the steps below, most often while one is computed.
            scope.spawn(move || drop(stream));
            driver.finish();
        });
        driver.assert_whole();
    }
    assert_eq!(driver.scheduler.stats().cancelled, 20);
}

#[test]
fn a_long_prompt_stalls_nobody_and_a_short_one_overtakes_it() {
    let options = SchedulerOptions { prefill_chunk: Some(8), ..SchedulerOptions::default() };
    let mut driver = Driver::new(bundled(), options);
    let mut talker = driver.submit(&of_tokens(tokens(5, 1), 200));
    driver.steps(1);
    assert_eq!(drawn(&mut talker), 1);
    let mut long = driver.submit(&of_tokens(tokens(200, 2), 3));
    let mut short = driver.submit(&of_tokens(tokens(16, 3), 3));
    let (mut short_at, mut long_at) = (None, None);
    for step in 0..40 {
        driver.steps(1);
        assert_eq!(drawn(&mut talker), 1, "step {step}");
        let (s, l) = (drawn(&mut short), drawn(&mut long));
        short_at = short_at.or((s > 0).then_some(step));
        long_at = long_at.or((l > 0).then_some(step));
    }
    // Sixteen tokens in halves of eight, then the rest of two hundred in eights.
    assert_eq!(short_at, Some(3));
    assert_eq!(long_at, Some(26));
    driver.finish();
    driver.assert_whole();
}

#[test]
fn whoever_is_more_important_takes_the_place_of_others() {
    let options = SchedulerOptions { max_running: 2, prefill_chunk: Some(64), ..SchedulerOptions::default() };
    let mut driver = Driver::new(bundled(), options);
    let requests: Vec<_> = (0..4).map(|i| of_tokens(tokens(20, i), 12)).collect();
    let priority = |priority| SubmitOptions { priority, ..SubmitOptions::default() };
    let mut streams = vec![driver.with(&requests[0], priority(0)), driver.with(&requests[1], priority(1))];
    driver.steps(4);
    streams.push(driver.with(&requests[2], priority(1)));
    driver.steps(1);
    assert_eq!(
        driver.slots(),
        [(1, SlotState::Decode), (2, SlotState::Decode), (0, SlotState::Preempted)],
        "the one of the lowest priority waits"
    );
    streams.push(driver.with(&requests[3], priority(0)));
    driver.steps(1);
    assert_eq!(driver.scheduler.stats().preemptions, 1, "equals do not push each other out");
    driver.finish();
    for (request, stream) in requests.iter().zip(streams) {
        let got = stream.blocking_finish().unwrap().remove(0);
        assert_eq!(got.tokens, driver.engine.generate_blocking(request).unwrap().tokens);
    }
    driver.assert_whole();
}

#[test]
fn when_blocks_run_out_the_newest_waits_and_is_first_again() {
    let block = engine(bundled(), SchedulerOptions::default()).info().block_bytes.as_bytes();
    let options =
        SchedulerOptions { kv_budget: Some(MemorySize::bytes(7 * block)), ..SchedulerOptions::default() };
    let mut driver = Driver::new(bundled(), options);
    let requests: Vec<_> = (0..4).map(|i| of_tokens(tokens(40, i), 100)).collect();
    let streams: Vec<_> = requests.iter().map(|request| driver.submit(request)).collect();
    driver.steps(1);
    assert_eq!(driver.slots().len(), 3, "two blocks each and one to spare");
    while driver.scheduler.stats().preemptions == 0 {
        driver.steps(1);
    }
    let preempted: Vec<u64> =
        driver.slots().into_iter().filter(|slot| slot.1 == SlotState::Preempted).map(|slot| slot.0).collect();
    assert_eq!(preempted, [2]);
    while driver.slots().iter().any(|slot| slot == &(2, SlotState::Preempted)) {
        assert!(
            !driver.slots().iter().any(|slot| slot.0 == 3),
            "who was interrupted comes before who is new"
        );
        driver.steps(1);
    }
    driver.finish();
    for (request, stream) in requests.iter().zip(streams) {
        let got = stream.blocking_finish().unwrap().remove(0);
        assert_eq!(got.tokens, driver.engine.generate_blocking(request).unwrap().tokens);
    }
    driver.assert_whole();
}

#[test]
fn a_prompt_that_needs_every_block_runs_again_and_again() {
    let block = engine(bundled(), SchedulerOptions::default()).info().block_bytes.as_bytes();
    let options =
        SchedulerOptions { kv_budget: Some(MemorySize::bytes(3 * block)), ..SchedulerOptions::default() };
    let mut driver = Driver::new(bundled(), options);
    // The second finds all but a part of its last block, for a copy of which there is no block.
    for (length, cached) in [(95, 0), (90, 89), (95, 89)] {
        let stream = driver.submit(&of_tokens(tokens(length, 1), 1));
        driver.finish();
        let got = stream.blocking_finish().unwrap().remove(0);
        assert!(got.stats.cached_tokens >= cached, "{:?}", got.stats);
    }
    driver.assert_whole();
}

#[test]
fn further_completions_leave_room_for_others() {
    let options = SchedulerOptions { max_running: 2, ..SchedulerOptions::default() };
    let mut driver = Driver::new(bundled(), options);
    let many = driver.submit(&of_tokens(tokens(30, 1), 8).n(12));
    let mut other = driver.submit(&of_tokens(tokens(30, 2), 2));
    driver.steps(14);
    assert!(drawn(&mut other) > 0, "{:?}", driver.scheduler.stats());
    driver.finish();
    let got = many.blocking_finish().unwrap();
    assert_eq!(got.len(), 12);
    let hits = driver.scheduler.stats().prefix_hit_tokens;
    assert_eq!(hits, 11 * 29, "each but the first computes the last token of the prompt only");
    driver.assert_whole();
}

/// The text of a request that has a scheduler for itself, and what that did.
fn alone(request: &GenerateRequest, speculation: Speculation) -> (Generation, SchedulerStats) {
    let mut driver = Driver::new(bundled(), SchedulerOptions { speculation, ..SchedulerOptions::default() });
    let stream = driver.submit(request);
    driver.finish();
    driver.assert_whole();
    (stream.blocking_finish().unwrap().remove(0), driver.scheduler.stats())
}

#[test]
fn what_a_constraint_demands_is_computed_together() {
    let regex = "[a-z]{3} went to the big dark forest, and there the [a-z]{2,4} sat on the mat\\.";
    let request = GenerateRequest::new(Prompt::text("The cat was sad. The")).max_tokens(60).seed(3);
    let request = GenerateRequest { constraint: Some(Constraint::Regex(regex.to_owned())), ..request };
    let run = |speculation| alone(&request, speculation);
    let (plain, without) = run(Speculation::Off);
    assert_eq!(without.drafted, 0);
    let (guessed, with) = run(Speculation::Always(8));
    assert_eq!((&guessed.tokens, &guessed.text), (&plain.tokens, &plain.text));
    assert!(with.accepted > 8, "{with:?}");
    assert_eq!(with.steps + with.accepted, without.steps, "each right guess saves a step");
}

#[test]
fn guesses_save_steps_and_change_nothing() {
    let text = "The cat sat on the mat. The dog sat on the mat. The cat sat on the mat. The dog sat on";
    let request = GenerateRequest::new(Prompt::text(text)).max_tokens(60);
    let request = GenerateRequest { ignore_eos: true, ..request.sampling(SamplingOverrides::greedy()) };
    let run = |speculation| alone(&request, speculation);
    let (plain, without) = run(Speculation::Off);
    assert_eq!((without.drafted, plain.stats.drafted), (0, 0));
    for most in [1, 4, 40] {
        let (guessed, with) = run(Speculation::Always(most));
        assert_eq!(guessed.tokens, plain.tokens);
        assert_eq!(guessed.text, plain.text);
        assert!(with.accepted > 0 && with.accepted <= with.drafted, "{with:?}");
        assert_eq!(with.steps + with.accepted, without.steps, "each right guess saves a step");
        assert_eq!(
            (guessed.stats.drafted as u64, guessed.stats.accepted as u64),
            (with.drafted, with.accepted)
        );
    }
}

/// Requests of all kinds, and what they give alone.
struct Menu {
    source: fn() -> ModelSource,
    block_bytes: u64,
    requests: Vec<(GenerateRequest, Vec<Generation>)>,
}

fn menu(source: fn() -> ModelSource, text: bool) -> Menu {
    let hot =
        SamplingOverrides { temperature: Some(1.2), top_k: Some(0), seed: Some(3), ..Default::default() };
    let all = SamplingOverrides {
        repeat_penalty: Some(1.2),
        dry_multiplier: Some(0.8),
        xtc_probability: Some(0.5),
        typical_p: Some(0.9),
        ..hot
    };
    let mirostat = SamplingOverrides { mirostat: Mirostat::V2.into(), seed: Some(8), ..Default::default() };
    let greedy = |request: GenerateRequest| {
        request.sampling(SamplingOverrides { seed: Some(0), ..SamplingOverrides::greedy() })
    };
    let repeating = [tokens(9, 4), tokens(9, 4), tokens(9, 4)].concat();
    let mut menu = vec![
        of_tokens(tokens(3, 1), 40),
        greedy(of_tokens(tokens(70, 2), 25)),
        greedy(of_tokens(repeating.clone(), 45)),
        of_tokens(tokens(150, 3), 12).seed(11),
        of_tokens(tokens(33, 5), 30).sampling(hot),
        of_tokens(tokens(31, 6), 30).sampling(all),
        of_tokens(repeating, 30).sampling(mirostat),
        of_tokens(tokens(12, 7), 20).seed(5).logprobs(2),
        of_tokens(tokens(40, 8), 14).seed(6).n(3),
        of_tokens(tokens(64, 9), 1),
    ];
    if text {
        let story = |seed| {
            GenerateRequest::new(Prompt::text("Once upon a time, a small fox")).seed(seed).max_tokens(40)
        };
        menu.extend([
            story(1).stop("e").stop("qq"),
            story(2).ban("the").ban(" a"),
            story(3).ban("s").stop("and"),
            greedy(story(4)).ban("was").logprobs(0),
            story(5).n(2).stop("."),
            story(7).constraint(Constraint::Regex("[a-z ]{5,60}".to_owned())),
            greedy(story(8)).constraint(Constraint::Regex("([a-z]+ ){3,9}end".to_owned())).ban("the"),
            GenerateRequest { best_of: Some(3), ..story(6) },
        ]);
    }
    let engine = engine(source(), SchedulerOptions { prefix_cache: false, ..SchedulerOptions::default() });
    let alone = |request: &GenerateRequest| {
        let go_on = &mut |_, _: crate::Event<'_>| std::ops::ControlFlow::Continue(());
        engine.generate_n(&mut engine.session(), request, go_on).unwrap()
    };
    let requests = menu.into_iter().map(|request| (request.clone(), alone(&request))).collect();
    Menu { source, block_bytes: engine.info().block_bytes.as_bytes(), requests }
}

/// Which requests come when and which are given up when, under which options.
#[derive(Debug, Clone)]
struct Mix {
    /// Number of the request in the menu, the step in which it comes, the steps after which it is dropped.
    requests: Vec<(usize, usize, Option<usize>)>,
    options: SchedulerOptions,
    /// Most blocks for keys and values.
    blocks: u64,
}

fn mixes() -> impl Strategy<Value = Mix> {
    let request = (0..64_usize, 0..30_usize, proptest::option::weighted(0.2, 0..40_usize));
    let speculation = prop_oneof![
        Just(Speculation::Off),
        Just(Speculation::Auto),
        (1..9_usize).prop_map(Speculation::Always),
    ];
    let options = (1..9_usize, proptest::option::of(1..60_usize), any::<bool>(), speculation);
    (proptest::collection::vec(request, 1..10), options, 8..40_u64).prop_map(|(requests, options, blocks)| {
        let (max_running, prefill_chunk, prefix_cache, speculation) = options;
        let options = SchedulerOptions {
            max_running,
            prefill_chunk,
            prefix_cache,
            speculation,
            ..SchedulerOptions::default()
        };
        Mix { requests, options, blocks }
    })
}

/// Runs a mix; every request that is not given up has the text that it has alone.
fn check(menu: &Menu, mix: &Mix) {
    let kv_budget = Some(MemorySize::bytes(mix.blocks * menu.block_bytes));
    let mut driver = Driver::new((menu.source)(), SchedulerOptions { kv_budget, ..mix.options.clone() });
    let menu = &menu.requests;
    let mut streams: Vec<(usize, GenerationStream, Option<usize>)> = Vec::new();
    let last = mix.requests.iter().map(|r| r.1).max().unwrap_or(0);
    let mut given_up = 0;
    for step in 0..=last + 40 {
        for &(number, at, leaves) in &mix.requests {
            if at == step {
                let number = number % menu.len();
                match driver.scheduler.submit(menu[number].0.clone(), SubmitOptions::default()) {
                    Ok(stream) => streams.push((number, stream, leaves.map(|after| step + after))),
                    Err(EngineError::PromptTooLong { .. }) => {}
                    Err(error) => panic!("{error}"),
                }
            }
        }
        let before = streams.len();
        streams.retain(|(_, _, leaves)| *leaves != Some(step));
        given_up += before - streams.len();
        driver.step();
    }
    driver.finish();
    driver.assert_whole();
    assert!(driver.scheduler.stats().cancelled <= given_up as u64);
    for (number, stream, _) in streams {
        let (request, want) = &menu[number];
        let got = stream.blocking_finish().unwrap();
        assert_eq!(got.len(), want.len());
        for (got, want) in got.iter().zip(want) {
            // A small budget is a smaller context.
            let cut = got.finish == crate::FinishReason::ContextFull && want.tokens.starts_with(&got.tokens);
            assert!(cut || got.tokens == want.tokens, "{request:?}: {got:?} instead of {want:?}");
            if !cut {
                assert_eq!(
                    (&got.text, &got.finish, &got.logprobs),
                    (&want.text, &want.finish, &want.logprobs)
                );
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 8, ..ProptestConfig::default() })]

    #[test]
    fn any_mix_gives_the_texts_of_its_requests_alone(mix in mixes()) {
        static MENU: OnceLock<Menu> = OnceLock::new();
        check(MENU.get_or_init(|| menu(bundled, true)), &mix);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 32, ..ProptestConfig::default() })]

    #[test]
    fn any_mix_of_a_model_of_random_weights_does(mix in mixes()) {
        static MENU: OnceLock<Menu> = OnceLock::new();
        check(MENU.get_or_init(|| menu(vector, false)), &mix);
    }
}
