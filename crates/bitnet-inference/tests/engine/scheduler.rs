//! The scheduler as a user has it, with the bundled model: same texts in company, events, limits, faults.

use std::sync::mpsc;
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use bitnet_core::MemorySize;
use bitnet_inference::sampling::Logprobs;
use bitnet_inference::scheduler::{Shutdown, Speculation};
use bitnet_inference::{
    EngineError, FinishReason, GenerateRequest, Generation, GenerationStream, InferenceEngine, Prompt,
    SamplingOverrides, SchedulerOptions, StreamEvent, SubmitOptions,
};
use bitnet_model::Batch;
use futures_util::StreamExt;

use crate::support::{Watch, builder, engine, spoiled, watched};

fn story(seed: u64, tokens: usize) -> GenerateRequest {
    GenerateRequest::new(Prompt::text("Once upon a time, a small fox")).seed(seed).max_tokens(tokens)
}

/// Requests of many kinds: greedy, with seeds, long prompts, stop strings, banned strings, log probabilities.
fn assorted() -> Vec<GenerateRequest> {
    let long = "The old lighthouse keeper walked along the shore and told the children a story. ";
    let greedy = |text: &str| GenerateRequest::new(Prompt::text(text)).sampling(SamplingOverrides::greedy());
    let hot =
        SamplingOverrides { temperature: Some(1.3), top_k: Some(0), seed: Some(5), ..Default::default() };
    vec![
        story(1, 40),
        story(2, 7),
        greedy("The sun is warm.").max_tokens(50),
        greedy(&long.repeat(9)).max_tokens(30),
        GenerateRequest::new(Prompt::text(long.repeat(3))).seed(9).max_tokens(25),
        story(3, 60).stop("e").stop("no such text"),
        story(4, 40).ban("the").ban("a "),
        story(5, 20).logprobs(3),
        story(6, 30).sampling(hot),
        GenerateRequest { ignore_eos: true, ..story(7, 90) },
        story(8, 1),
    ]
}

/// All but the times.
fn outcome(g: &Generation) -> (&str, &[u32], &FinishReason, Option<&Logprobs>) {
    (&g.text, &g.tokens, &g.finish, g.logprobs.as_ref())
}

/// Runs requests all at once and compares each with itself alone.
fn compare(engine: &InferenceEngine, requests: &[GenerateRequest]) {
    let streams: Vec<GenerationStream> =
        requests.iter().map(|r| engine.generate_stream(r.clone()).unwrap()).collect();
    for (request, stream) in requests.iter().zip(streams) {
        let got = stream.blocking_finish().unwrap();
        let alone = engine.generate_blocking(request).unwrap();
        assert_eq!(outcome(&got[0]), outcome(&alone), "{request:?}");
        assert_eq!(got[0].stats.prompt_tokens, alone.stats.prompt_tokens);
        if let Some(seed) = request.sampling.seed {
            assert_eq!((got[0].stats.seed, alone.stats.seed), (seed, seed));
        }
    }
}

/// The texts of later requests begin with what these have computed.
#[test]
fn later_requests_compute_only_what_is_new() {
    let engine = engine(1);
    let run = |request: &GenerateRequest| {
        engine.generate_stream(request.clone()).unwrap().blocking_finish().unwrap().remove(0)
    };
    let story = "The old lighthouse keeper walked along the shore and told the children a story. ".repeat(4);
    let tokens = engine.encode(&Prompt::text(story)).unwrap();
    let ask = |tokens: &[u32]| GenerateRequest {
        ignore_eos: true,
        ..GenerateRequest::new(Prompt::Tokens(tokens.to_vec())).seed(4).max_tokens(20)
    };
    let first = run(&ask(&tokens));
    assert_eq!(first.stats.cached_tokens, 0);
    let longer = [&tokens[..], &first.tokens, &tokens[..9]].concat();
    let second = run(&ask(&longer));
    assert!(second.stats.cached_tokens + 11 >= longer.len(), "{:?} of {}", second.stats, longer.len());
    let other = builder(1).build().unwrap();
    assert_eq!(second.tokens, other.generate_blocking(&ask(&longer)).unwrap().tokens);
    assert!(engine.scheduler().stats().prefix_hit_tokens as usize >= longer.len() - 11);

    let off = SchedulerOptions { prefix_cache: false, ..SchedulerOptions::default() };
    let engine = builder(1).scheduler(off).build().unwrap();
    for _ in 0..2 {
        let got = engine.generate_stream(ask(&tokens)).unwrap().blocking_finish().unwrap();
        assert_eq!((got[0].stats.cached_tokens, &got[0].tokens), (0, &first.tokens));
    }
}

/// Waits until all blocks are back.
fn assert_whole(engine: &InferenceEngine) {
    engine.scheduler().shutdown(Shutdown::Drain);
    let stats = engine.scheduler().stats();
    assert_eq!((stats.blocks_in_use, stats.running, stats.queued), (0, 0, 0), "{stats:?}");
    assert!(stats.slots.is_empty());
    assert_eq!(stats.finished + stats.cancelled + stats.failed, stats.requests_total, "{stats:?}");
}

#[test]
fn texts_in_company_are_texts_alone() {
    let chunks = [None, Some(1), Some(7), Some(64)];
    for (number, prefill_chunk) in chunks.into_iter().enumerate() {
        let options = SchedulerOptions { prefill_chunk, ..SchedulerOptions::default() };
        let engine = builder(1 + number % 2).scheduler(options).build().unwrap();
        compare(&engine, &assorted());
        let stats = engine.scheduler().stats();
        assert_eq!((stats.finished, stats.failed, stats.cancelled), (11, 0, 0), "{stats:?}");
        assert!(
            stats.generated_tokens_total > 200 && stats.steps < stats.generated_tokens_total,
            "{stats:?}"
        );
        assert_whole(&engine);
    }
}

#[test]
fn few_places_and_few_blocks_change_no_text() {
    let block = engine(1).info().block_bytes.as_bytes();
    for (max_running, blocks) in [(1, 64), (2, 9), (8, 10), (64, 12)] {
        let options = SchedulerOptions {
            max_running,
            kv_budget: Some(MemorySize::bytes(blocks * block)),
            ..SchedulerOptions::default()
        };
        let engine = builder(1).scheduler(options).build().unwrap();
        let mut requests = assorted();
        requests.extend((20..24).map(|seed| GenerateRequest { ignore_eos: true, ..story(seed, 150) }));
        let streams: Vec<_> = requests.iter().map(|r| engine.generate_stream(r.clone()).unwrap()).collect();
        let got: Vec<_> = streams.into_iter().map(|s| s.blocking_finish().unwrap().remove(0)).collect();
        if max_running > 2 {
            assert!(engine.scheduler().stats().preemptions > 0, "so few blocks must run out");
        }
        for (request, got) in requests.iter().zip(&got) {
            assert_eq!(outcome(got), outcome(&engine.generate_blocking(request).unwrap()), "{request:?}");
        }
        assert_whole(&engine);
    }
}

#[test]
fn events_tell_the_whole_text() {
    let engine = engine(2);
    let prompt = Prompt::text("The sun is warm. ".repeat(60));
    let request = GenerateRequest::new(prompt).seed(3).max_tokens(20).logprobs(2).stop("qqqq");
    let mut stream = engine.generate_stream(request).unwrap();
    let (mut text, mut ids, mut started, mut prefills, mut done) = (String::new(), vec![], 0, vec![], None);
    while let Some(event) = stream.blocking_next() {
        match event.unwrap() {
            StreamEvent::Started { prompt_tokens, cached_tokens } => {
                assert!(ids.is_empty() && prefills.is_empty() && cached_tokens == 0);
                started = prompt_tokens;
            }
            StreamEvent::Prefill { done, total } => {
                assert_eq!(total, started);
                prefills.push(done);
            }
            StreamEvent::Token { choice: 0, id, text: piece, logprobs } => {
                let logprobs = logprobs.unwrap();
                assert_eq!((logprobs.chosen.token, logprobs.top.len()), (id, 2));
                ids.push(id);
                text.push_str(&piece);
            }
            StreamEvent::Tail { choice: 0, text: piece } => text.push_str(&piece),
            StreamEvent::Finished { choice: 0, generation } => done = Some(generation),
            other => panic!("{other:?}"),
        }
    }
    let done = done.unwrap();
    assert!(!prefills.is_empty() && prefills.is_sorted() && prefills.iter().all(|&d| d < started));
    assert_eq!((&done.text, &done.tokens), (&text, &ids));
    assert_eq!((done.stats.prompt_tokens, done.stats.generated_tokens), (started, ids.len()));
    assert!(done.stats.time_to_first_token >= done.stats.prefill);
}

#[tokio::test]
async fn async_calls_give_what_blocking_ones_give() {
    let engine = engine(1);
    let got = engine.generate(story(7, 24)).await.unwrap();
    assert_eq!(got.text, engine.generate_blocking(&story(7, 24)).unwrap().text);

    let mut requests: Vec<_> = (0..5).map(|seed| story(seed, 12)).collect();
    requests.insert(2, story(1, 0));
    let batch = engine.generate_batch(requests.clone()).await;
    for (request, result) in requests.iter().zip(&batch) {
        match result {
            Ok(got) => assert_eq!(got.text, engine.generate_blocking(request).unwrap().text),
            Err(EngineError::Parameter(p)) => {
                assert_eq!((p.name, request.max_tokens), ("max_tokens", Some(0)));
            }
            Err(error) => panic!("{error}"),
        }
    }
    assert_eq!(batch.iter().filter(|r| r.is_err()).count(), 1);
    assert!(
        matches!(engine.generate(story(1, 4).n(2)).await, Err(EngineError::Parameter(p)) if p.name == "n")
    );

    let stream = engine.generate_stream(story(7, 24)).unwrap();
    let texts = stream.filter_map(|event| async move {
        match event.unwrap() {
            StreamEvent::Token { text, .. } | StreamEvent::Tail { text, .. } => Some(text),
            _ => None,
        }
    });
    assert_eq!(texts.collect::<String>().await, got.text);
}

#[tokio::test]
async fn a_batch_larger_than_the_queue_waits_for_room() {
    let options = SchedulerOptions { max_running: 2, queue_capacity: 1, ..SchedulerOptions::default() };
    let engine = builder(1).scheduler(options).build().unwrap();
    let requests: Vec<_> = (0..20).map(|seed| story(seed, 5)).collect();
    let batch = engine.generate_batch(requests).await;
    assert!(batch.iter().all(Result::is_ok), "{batch:?}");
    assert_whole(&engine);
}

#[test]
fn several_completions_share_a_stream() {
    let engine = engine(1);
    let request = story(40, 12).n(3);
    let got = engine.generate_stream(request.clone()).unwrap().blocking_finish().unwrap();
    let want = engine
        .generate_n(&mut engine.session(), &request, &mut |_, _| std::ops::ControlFlow::Continue(()))
        .unwrap();
    assert!(engine.scheduler().stats().prefix_hit_tokens > 0, "the prompt is computed once");
    let tokens = |list: &[Generation]| list.iter().map(|g| g.tokens.clone()).collect::<Vec<_>>();
    assert_eq!(tokens(&got), tokens(&want));

    let best = GenerateRequest { best_of: Some(6), ..story(50, 10).n(2) };
    let got = engine.generate_stream(best.clone()).unwrap().blocking_finish().unwrap();
    let want = engine
        .generate_n(&mut engine.session(), &best, &mut |_, _| std::ops::ControlFlow::Continue(()))
        .unwrap();
    assert_eq!(tokens(&got), tokens(&want));
    assert!(got.iter().all(|g| g.logprobs.is_none()));
    let refused = engine.generate_stream(story(1, 1).n(0)).unwrap_err();
    assert!(matches!(refused, EngineError::Parameter(p) if p.name == "n"));
    assert_whole(&engine);
}

/// Lets forward calls through one by one.
#[derive(Default)]
struct Gate {
    open: Mutex<usize>,
    changed: Condvar,
}

impl Gate {
    fn allow(&self, calls: usize) {
        let mut open = self.open.lock().unwrap();
        *open = open.saturating_add(calls);
        self.changed.notify_all();
    }

    fn pass(&self) {
        let mut open = self.changed.wait_while(self.open.lock().unwrap(), |open| *open == 0).unwrap();
        *open -= 1;
    }
}

/// An engine whose calls wait for a gate, and what it computes: the sequences of each call with their new tokens.
fn gated(options: SchedulerOptions) -> (InferenceEngine, Arc<Gate>, mpsc::Receiver<Vec<Vec<u32>>>) {
    let (gate, (sender, calls)) = (Arc::new(Gate::default()), mpsc::channel());
    let at_gate = Arc::clone(&gate);
    let watch: Watch = Box::new(move |batch: &Batch<'_>| {
        let _ = sender.send(batch.sequences.iter().map(|s| s.tokens.to_vec()).collect());
        at_gate.pass();
        Ok(())
    });
    (watched(options, watch), gate, calls)
}

/// A prompt of one token, by which a request can be told in a batch, and a text of so many tokens.
fn named(token: u32, tokens: usize) -> GenerateRequest {
    let request = GenerateRequest::new(Prompt::Tokens(vec![token])).seed(1).max_tokens(tokens);
    GenerateRequest { ignore_eos: true, ..request }
}

fn of_client(client: &str) -> SubmitOptions {
    SubmitOptions { client: Some(Arc::from(client)), ..SubmitOptions::default() }
}

/// The requests in the order in which their first tokens were computed.
fn order_of(calls: &mpsc::Receiver<Vec<Vec<u32>>>, names: &[u32]) -> Vec<u32> {
    let mut order: Vec<u32> = Vec::new();
    for sequence in calls.try_iter().flatten() {
        if names.contains(&sequence[0]) && !order.contains(&sequence[0]) {
            order.push(sequence[0]);
        }
    }
    order
}

#[test]
fn priorities_come_first_and_clients_take_turns() {
    let options = SchedulerOptions { max_running: 1, ..SchedulerOptions::default() };
    let (engine, gate, calls) = gated(options);
    let submit = |token, options| engine.scheduler().submit(named(token, 1), options).unwrap();
    let mut streams = vec![submit(100, SubmitOptions::default())];
    // The first is being computed: all others wait.
    assert_eq!(calls.recv().unwrap(), [[100]]);
    for (token, client) in [(101, "a"), (102, "a"), (103, "a"), (104, "b"), (105, "c"), (106, "b")] {
        streams.push(submit(token, of_client(client)));
    }
    streams.push(submit(107, SubmitOptions { priority: 2, ..of_client("a") }));
    streams.push(submit(108, SubmitOptions { priority: -2, ..of_client("d") }));
    gate.allow(usize::MAX);
    for stream in streams {
        assert_eq!(stream.blocking_finish().unwrap()[0].tokens.len(), 1);
    }
    let names: Vec<u32> = (101..=108).collect();
    assert_eq!(order_of(&calls, &names), [107, 101, 104, 105, 102, 106, 103, 108]);
}

#[test]
fn a_full_queue_refuses_and_takes_again() {
    let options = SchedulerOptions { max_running: 1, queue_capacity: 2, ..SchedulerOptions::default() };
    let (engine, gate, calls) = gated(options);
    let submit = |token| engine.generate_stream(named(token, 2));
    let mut streams = vec![submit(100).unwrap()];
    calls.recv().unwrap();
    // One that could start if there were nobody, and those that wait.
    while streams.len() < 4 {
        match submit(101) {
            Ok(stream) => streams.push(stream),
            Err(EngineError::QueueFull { capacity: 2 }) => break,
            Err(error) => panic!("{error}"),
        }
    }
    assert!(streams.len() >= 3);
    assert!(matches!(submit(102), Err(EngineError::QueueFull { capacity: 2 })));
    let stats = engine.scheduler().stats();
    assert!(stats.rejected >= 1 && stats.queued >= 2, "{stats:?}");
    gate.allow(usize::MAX);
    for stream in streams {
        stream.blocking_finish().unwrap();
    }
    submit(103).unwrap().blocking_finish().unwrap();
    assert_whole(&engine);
}

#[test]
fn dropping_a_stream_frees_its_place_within_one_step() {
    let options = SchedulerOptions { max_running: 1, ..SchedulerOptions::default() };
    let (engine, gate, calls) = gated(options);
    let endless = engine.generate_stream(named(100, 400)).unwrap();
    calls.recv().unwrap();
    let waiting = engine.generate_stream(named(101, 400)).unwrap();
    let last = engine.generate_stream(named(102, 1)).unwrap();
    drop(waiting);
    drop(endless);
    gate.allow(1);
    // The call that was going on is over; the next one computes the last request.
    assert_eq!(calls.recv().unwrap(), [[102]]);
    gate.allow(usize::MAX);
    last.blocking_finish().unwrap();
    assert_whole(&engine);
    let stats = engine.scheduler().stats();
    assert_eq!((stats.cancelled, stats.finished), (2, 1), "{stats:?}");
}

#[test]
fn deadlines_end_requests() {
    let options = SchedulerOptions { max_running: 1, ..SchedulerOptions::default() };
    let (engine, gate, calls) = gated(options);
    let until = |at| SubmitOptions { deadline: Some(at), ..SubmitOptions::default() };
    let past = Instant::now();
    let far = past + Duration::from_secs(3600);
    let mut late = engine.scheduler().submit(named(100, 400), until(past)).unwrap();
    assert!(matches!(late.blocking_next(), Some(Err(EngineError::DeadlineExceeded))));
    assert!(late.blocking_next().is_none());
    let running = engine.scheduler().submit(named(101, 3), until(far)).unwrap();
    calls.recv().unwrap();
    let waiting = engine.scheduler().submit(named(102, 3), until(past)).unwrap();
    gate.allow(usize::MAX);
    assert!(matches!(waiting.blocking_finish(), Err(EngineError::DeadlineExceeded)));
    assert_eq!(running.blocking_finish().unwrap()[0].tokens.len(), 3);
    assert_whole(&engine);
    assert_eq!(engine.scheduler().stats().failed, 2);
}

#[test]
fn a_fault_of_one_request_is_that_request_s_alone() {
    for panics in [true, false] {
        // A token that the executor cannot stand.
        let watch: Watch = Box::new(move |batch: &Batch<'_>| {
            if batch.sequences.iter().any(|s| s.tokens.contains(&4321)) {
                assert!(!panics, "a bug, on purpose");
                return Err(bitnet_model::ExecError::NotFinite);
            }
            Ok(())
        });
        let engine = watched(SchedulerOptions::default(), watch);
        let mut requests: Vec<GenerateRequest> = (1..6).map(|seed| story(seed, 30)).collect();
        requests.insert(2, GenerateRequest::new(Prompt::Tokens(vec![1, 4321, 7])).max_tokens(5));
        let streams: Vec<_> = requests.iter().map(|r| engine.generate_stream(r.clone()).unwrap()).collect();
        for (place, (request, stream)) in requests.iter().zip(streams).enumerate() {
            match stream.blocking_finish() {
                Ok(got) => assert_eq!(got[0].text, engine.generate_blocking(request).unwrap().text),
                Err(EngineError::RequestPanicked { message }) => {
                    assert!(panics && place == 2 && message.contains("on purpose"), "{message}");
                }
                Err(EngineError::Exec(error)) => assert!(!panics && place == 2, "{error}"),
                Err(error) => panic!("{error}"),
            }
        }
        assert_whole(&engine);
        let stats = engine.scheduler().stats();
        assert_eq!((stats.failed, stats.finished), (1, 5), "{stats:?}");
    }
}

#[test]
fn a_bug_in_one_request_s_sampling_is_that_request_s_alone() {
    // Logits without tokens: whoever draws from them panics.
    let engine = spoiled(SchedulerOptions::default(), Box::new(|_| Ok(())), |batch, top| {
        let rows = batch.sequences.iter().filter(|s| s.logit_rows() > 0);
        for (sequence, top) in rows.zip(top) {
            if sequence.tokens.contains(&4321) {
                top.ids.clear();
            }
        }
    });
    let mut requests: Vec<GenerateRequest> = (1..6).map(|seed| story(seed, 30)).collect();
    let few = SamplingOverrides { top_k: Some(5), ..SamplingOverrides::default() };
    requests.iter_mut().for_each(|r| r.sampling.top_k = few.top_k);
    requests.insert(2, GenerateRequest::new(Prompt::Tokens(vec![1, 7, 4321])).sampling(few).max_tokens(5));
    let streams: Vec<_> = requests.iter().map(|r| engine.generate_stream(r.clone()).unwrap()).collect();
    for (place, (request, stream)) in requests.iter().zip(streams).enumerate() {
        match stream.blocking_finish() {
            Ok(got) => assert_eq!(got[0].text, engine.generate_blocking(request).unwrap().text),
            Err(EngineError::RequestPanicked { .. }) => assert_eq!(place, 2),
            Err(error) => panic!("{error}"),
        }
    }
    assert_whole(&engine);
    let stats = engine.scheduler().stats();
    assert_eq!((stats.failed, stats.finished), (1, 5), "{stats:?}");
}

#[test]
fn shutting_down_finishes_or_cancels() {
    let (engine, gate, calls) = gated(SchedulerOptions { max_running: 1, ..SchedulerOptions::default() });
    let first = engine.generate_stream(named(100, 5)).unwrap();
    calls.recv().unwrap();
    let second = engine.generate_stream(named(101, 5)).unwrap();
    gate.allow(usize::MAX);
    engine.scheduler().shutdown(Shutdown::Drain);
    assert!(matches!(engine.generate_stream(named(102, 5)), Err(EngineError::ShuttingDown)));
    for stream in [first, second] {
        assert_eq!(stream.blocking_finish().unwrap()[0].finish, FinishReason::Length);
    }

    let (engine, gate, calls) = gated(SchedulerOptions { max_running: 1, ..SchedulerOptions::default() });
    let first = engine.generate_stream(named(100, 400)).unwrap();
    calls.recv().unwrap();
    let second = engine.generate_stream(named(101, 5)).unwrap();
    std::thread::scope(|scope| {
        scope.spawn(|| engine.scheduler().shutdown(Shutdown::Cancel));
        while !matches!(engine.generate_stream(named(102, 1)), Err(EngineError::ShuttingDown)) {}
        gate.allow(usize::MAX);
    });
    let first = first.blocking_finish().unwrap();
    assert_eq!(first[0].finish, FinishReason::Cancelled);
    assert_eq!(first[0].tokens.len(), 1, "the step that was going on came to its end");
    assert!(matches!(second.blocking_finish(), Err(EngineError::ShuttingDown)));
}

#[test]
fn dropping_the_last_handle_ends_what_runs() {
    let engine = engine(1);
    let other = engine.clone();
    let stream = engine.generate_stream(named(100, 400)).unwrap();
    drop(engine);
    let mut third = other.generate_stream(named(101, 3)).unwrap();
    while let Some(event) = third.blocking_next() {
        event.unwrap();
    }
    drop(other);
    let finish = &stream.blocking_finish().unwrap()[0].finish;
    assert!(matches!(finish, FinishReason::Cancelled | FinishReason::Length), "{finish:?}");
}

#[test]
fn impossible_options_and_requests_are_named() {
    let refused = |options: SchedulerOptions| match builder(1).scheduler(options).build().map(|_| ()) {
        Err(EngineError::Parameter(error)) => error.name,
        other => panic!("{other:?}"),
    };
    let default = SchedulerOptions::default;
    assert_eq!(refused(SchedulerOptions { max_running: 0, ..default() }), "max_running");
    assert_eq!(refused(SchedulerOptions { prefill_chunk: Some(0), ..default() }), "prefill_chunk");
    assert_eq!(refused(SchedulerOptions { kv_budget: Some(MemorySize::bytes(9)), ..default() }), "kv_budget");
    let never = SchedulerOptions { speculation: Speculation::Always(0), ..default() };
    assert_eq!(refused(never), "speculation");

    let engine = engine(1);
    assert!(matches!(engine.generate_stream(story(1, 0)), Err(EngineError::Parameter(_))));
    let long = GenerateRequest::new(Prompt::text("word ".repeat(4000)));
    assert!(matches!(engine.generate_stream(long), Err(EngineError::PromptTooLong { .. })));
    assert_eq!(engine.scheduler().stats().requests_total, 0);
}

#[test]
fn a_small_budget_shortens_the_context() {
    let block = engine(1).info().block_bytes.as_bytes();
    let options =
        SchedulerOptions { kv_budget: Some(MemorySize::bytes(2 * block)), ..SchedulerOptions::default() };
    let engine = builder(1).scheduler(options).build().unwrap();
    assert_eq!(engine.context(), 64);
    let got = engine.generate_stream(named(100, 1000)).unwrap().blocking_finish().unwrap();
    assert_eq!((&got[0].finish, got[0].tokens.len()), (&FinishReason::ContextFull, 63));
}

#[test]
fn blocks_that_sessions_hold_are_waited_for() {
    let engine = builder(1).context_size(64).sessions(1).build().unwrap();
    let mut session = engine.session();
    engine
        .generate_with(&mut session, &named(100, 100), &mut |_| std::ops::ControlFlow::Continue(()))
        .unwrap();
    let stream = engine.generate_stream(named(101, 100)).unwrap();
    while engine.scheduler().stats().queued == 0 {
        std::thread::yield_now();
    }
    drop(session);
    assert_eq!(stream.blocking_finish().unwrap()[0].finish, FinishReason::ContextFull);
    assert_whole(&engine);
}
