//! Perplexity, log-likelihoods, tasks and comparisons, against slow direct computations.

use std::ops::ControlFlow;

use bitnet_core::bytes::ByteView;
use bitnet_inference::evaluate::compare::{Comparison, compare};
use bitnet_inference::evaluate::task::{Item, Outcome, Summary, Task, TaskOptions};
use bitnet_inference::{
    ChatMessage, EngineError, InferRequest, InferenceEngine, KvType, ModelSource, Prompt, ScoredText,
    TextStart, TextWindows,
};
use bitnet_text::EncodeOptions;

use crate::support::{TESTDATA, builder, engine, source};

fn eval_text(characters: usize) -> String {
    let text = std::fs::read_to_string(format!("{TESTDATA}/eval.txt")).unwrap();
    text.chars().take(characters).collect()
}

/// Logarithms of the probabilities that each token but the first has behind those before it, from all logits of one call.
fn direct(engine: &InferenceEngine, tokens: &[u32]) -> Vec<f64> {
    let logits = engine.infer_blocking(InferRequest::new(tokens).all_rows()).unwrap();
    let vocab_size = engine.spec().vocab_size;
    let row = |(row, &token): (&[f32], &u32)| {
        let sum: f64 = row.iter().map(|&l| f64::from(l).exp()).sum();
        f64::from(row[token as usize]) - sum.ln()
    };
    logits.values().chunks_exact(vocab_size).zip(&tokens[1..]).map(row).collect()
}

fn close(a: f64, b: f64, what: &str) {
    assert!((a - b).abs() <= 1e-5 * b.abs().max(1.0), "{what}: {a} {b}");
}

/// The loop of Hugging Face's documentation on perplexity with a stride, with the sum of each window and the figure as it is
/// computed there: from means of windows, weighted with one token less than each has.
#[test]
fn strided_perplexity_is_that_of_the_documented_loop() {
    let engine = engine(2);
    let text = eval_text(1500);
    let bos = engine.defaults().bos.unwrap();
    let mut tokens = vec![bos];
    tokens.extend(engine.tokenizer().unwrap().encode(&text, EncodeOptions::PLAIN).unwrap());
    for (length, stride) in [(64, 24), (64, 64), (100, 1000)] {
        let stride = stride.min(length);
        let (mut sum, mut count, mut weighted, mut weights, mut previous) = (0.0, 0, 0.0, 0.0, 0);
        for begin in (0..tokens.len()).step_by(stride) {
            let end = (begin + length).min(tokens.len());
            let target = end - previous;
            let all = direct(&engine, &tokens[begin..end]);
            // Labels are shifted: the first token of a window is never one.
            let scored = &all[all.len() - target.min(all.len())..];
            sum -= scored.iter().sum::<f64>();
            count += scored.len();
            if !scored.is_empty() {
                let weight = (target - 1) as f64;
                weighted -= scored.iter().sum::<f64>() / scored.len() as f64 * weight;
                weights += weight;
            }
            previous = end;
            if end == tokens.len() {
                break;
            }
        }
        let windows = TextWindows::new(length).stride(stride).start(TextStart::Once);
        let mut parts = Vec::new();
        let got = engine
            .perplexity_with(&text, &windows, &mut |window| {
                parts.push((window.tokens, window.nll));
                ControlFlow::Continue(())
            })
            .unwrap();
        assert_eq!((got.tokens, got.complete), (count, true), "{length} {stride}");
        close(got.nll, sum, "sum");
        close(parts.iter().map(|(_, nll)| nll).sum(), sum, "sum of windows");
        assert_eq!(parts.iter().map(|(tokens, _)| tokens).sum::<usize>(), count);
        let documented = (weighted / weights).exp();
        assert!((got.value / documented - 1.0).abs() < 0.02, "{got:?} {documented}");
        assert!(got.standard_error > 0.0 && got.standard_error < got.value);
        assert_eq!(got.bytes.is_some(), stride < length, "side by side, windows leave out their first token");
    }
}

/// More context makes prediction better; windows with a token that begins a text before each score every token.
#[test]
fn windows_that_overlap_predict_better() {
    let engine = engine(2);
    let text = eval_text(3000);
    let value = |windows: TextWindows| {
        engine.perplexity_with(&text, &windows, &mut |_| ControlFlow::Continue(())).unwrap()
    };
    let (apart, overlapping) = (value(TextWindows::new(64)), value(TextWindows::new(64).stride(16)));
    assert_eq!((apart.tokens, apart.bytes), (overlapping.tokens, Some(text.len())));
    assert!(overlapping.value < apart.value, "{overlapping:?} {apart:?}");
    assert!(apart.bits_per_byte().unwrap() > overlapping.bits_per_byte().unwrap());
    let mut windows = 0;
    let stopped = engine.perplexity_with(&text, &TextWindows::new(64), &mut |_| {
        windows += 1;
        if windows == 2 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    });
    let stopped = stopped.unwrap();
    assert_eq!((stopped.tokens, stopped.complete, stopped.bits_per_byte()), (128, false, None));
    for wrong in [
        TextWindows::new(0),
        TextWindows::new(512),
        TextWindows::new(9).stride(10),
        TextWindows::new(9).stride(0),
    ] {
        let error = engine.perplexity_with(&text, &wrong, &mut |_| ControlFlow::Continue(())).unwrap_err();
        assert!(matches!(error, EngineError::Parameter(_)), "{wrong:?}: {error}");
    }
    assert!(engine.perplexity("", 64, &mut |_, _| {}).is_err());
}

#[test]
fn continuations_are_scored_as_whole_texts_are_and_share_their_prompt() {
    let engine = engine(2);
    let long = format!(" {}", eval_text(1200));
    let prompt = "Once upon a time, there was a little";
    let continuations = [" girl", " boy named Tim.", " girl", " keyboard that ate the moon", &long];
    let texts = engine.continuations(prompt, &continuations).unwrap();
    let check = |texts: &[ScoredText], reused: usize| {
        let scores = engine.log_likelihoods(texts).unwrap();
        for (text, score) in texts.iter().zip(&scores.texts) {
            let all = direct(&engine, &text.tokens);
            close(score.sum, all[text.from - 1..].iter().sum(), "log-likelihood");
            assert_eq!(score.tokens, text.tokens.len() - text.from);
        }
        // The prompt once, and of each text what is its own, but for the last token.
        let given = texts[0].from;
        let own: usize = texts.iter().map(|text| text.tokens.len() - 1 - given).sum();
        assert_eq!(scores.computed, given - reused + own);
        assert_eq!(scores.reused, given * (texts.len() - 1) + reused);
        scores
    };
    assert!(texts[4].tokens.len() > 250, "long enough for several calls");
    let given = texts[0].from;
    assert!(texts.iter().all(|text| text.from == given && text.tokens[..given] == texts[0].tokens[..given]));
    let scores = check(&texts, 0);
    assert_eq!(scores.texts[0], scores.texts[2]);
    assert!(scores.texts[0].sum > scores.texts[3].sum);
    // Now all of the prompt is known but its last token, whose logits are needed.
    check(&texts[..2], given - 1);
    let greedy = engine.log_likelihoods(&engine.continuations("Once upon a", &[" time"]).unwrap()).unwrap();
    assert!(greedy.texts[0].greedy && greedy.texts[0].tokens == 1);
}

#[test]
fn texts_that_begin_differently_are_scored_too() {
    let engine = engine(1);
    let tokens: Vec<u32> = engine.tokenizer().unwrap().encode(&eval_text(80), EncodeOptions::PLAIN).unwrap();
    let texts = [
        ScoredText { tokens: tokens.clone(), from: 3 },
        ScoredText { tokens: tokens[2..].to_vec(), from: 1 },
    ];
    let scores = engine.log_likelihoods(&texts).unwrap();
    for (text, score) in texts.iter().zip(&scores.texts) {
        close(score.sum, direct(&engine, &text.tokens)[text.from - 1..].iter().sum(), "log-likelihood");
    }
    for wrong in [
        ScoredText { tokens: tokens.clone(), from: 0 },
        ScoredText { tokens: tokens.clone(), from: tokens.len() },
        ScoredText { tokens: vec![1; 514], from: 1 },
        ScoredText { tokens: vec![1, 9_000_000], from: 1 },
    ] {
        assert!(engine.log_likelihoods(std::slice::from_ref(&wrong)).is_err(), "{}", wrong.from);
    }
    assert!(engine.log_likelihoods(&[]).unwrap().texts.is_empty());
    assert!(engine.continuations("a", &[""]).is_err());
    // A space at the end of the prompt belongs to the word behind it.
    let one = engine.continuations("Once upon a ", &["time"]).unwrap();
    assert_eq!(one, engine.continuations("Once upon a", &[" time"]).unwrap());
}

fn items(text: &str) -> Vec<Item> {
    Item::parse_lines(text).unwrap()
}

fn prompt(task: &Task, item: &Item) -> String {
    match task.prompt(item).unwrap() {
        Prompt::Text(text) => text,
        other => panic!("{other:?}"),
    }
}

#[test]
fn chats_ask_in_turns() {
    let rows = items(
        r#"{"context": "Name an animal.", "choices": ["A dog.", "A car."], "answer": 0}
           {"context": "Name a colour.", "choices": ["Red.", "A table."], "answer": 0}"#,
    );
    let engine = engine(1);
    let task =
        Task::new(engine.clone(), TaskOptions { chat: true, ..TaskOptions::default() }, &rows[..1]).unwrap();
    let asked = task.prompt(&rows[1]).unwrap();
    let turns = ["Name an animal.", "A dog.", "Name a colour."];
    let turns = [ChatMessage::user(turns[0]), ChatMessage::assistant(turns[1]), ChatMessage::user(turns[2])];
    assert_eq!(asked, Prompt::Chat(turns.to_vec()));
    let Outcome::Chosen(choosing) = task.run(&rows[1]).unwrap().outcome else { panic!() };
    for score in &choosing.scores {
        let given = engine.encode(&asked).unwrap();
        let own =
            engine.tokenizer().unwrap().encode(&format!(" {}", score.text), EncodeOptions::PLAIN).unwrap();
        let all = direct(&engine, &[&given[..], &own[..]].concat());
        close(score.likelihood.sum, all[given.len() - 1..].iter().sum(), &score.text);
    }
}

#[test]
fn tasks_count_what_is_right_and_compute_examples_once() {
    let rows = items(
        r#"{"question": "What do birds do?", "choices": ["fly", "bark"], "answer": "fly", "category": "animals"}
           {"question": "What do fish do?", "choices": ["swim in the sea", "read"], "answer": 0, "category": "animals"}
           {"context": "Once upon a", "choices": ["time", "spoon", "keyboard"], "answer": "A"}
           {"context": "Once upon a", "answer": "time"}
           {"context": "Once upon a", "pattern": "^time, .*village"}"#,
    );
    let engine = engine(2);
    let options = TaskOptions { max_tokens: 8, ..TaskOptions::default() };
    let task = Task::new(engine.clone(), options.clone(), &[]).unwrap();
    assert_eq!(prompt(&task, &rows[0]), "Question: What do birds do?\nAnswer:");
    let results: Vec<_> = rows.iter().map(|row| task.run(row).unwrap()).collect();
    let Outcome::Chosen(choosing) = &results[2].outcome else { panic!("{results:?}") };
    assert_eq!((choosing.by_sum, choosing.right, choosing.scores.len()), (0, 0, 3));
    for score in &choosing.scores {
        let texts = engine.continuations("Once upon a", &[format!(" {}", score.text)]).unwrap();
        assert_eq!(engine.log_likelihoods(&texts).unwrap().texts[0], score.likelihood);
        close(score.per_byte(), score.likelihood.sum / score.text.len() as f64, "per byte");
    }
    let summary = Summary::of(&results);
    let choices = summary.overall.choices.unwrap();
    assert_eq!((choices.by_sum.total, summary.overall.texts.unwrap().total), (3, 2));
    close(choices.chance, (0.5 + 0.5 + 1.0 / 3.0) / 3.0, "chance");
    assert_eq!(summary.categories.len(), 1);
    assert_eq!(summary.categories[0].1.choices.unwrap().by_sum.total, 2);
    let Outcome::Written(writing) = &results[4].outcome else { panic!("{results:?}") };
    assert!(writing.correct && writing.text.starts_with("time"), "{writing:?}");

    // With examples: the second row computes nothing of them again.
    let shots = Task::new(engine.clone(), options, &rows[..2]).unwrap();
    let prompt = prompt(&shots, &rows[2]);
    assert!(
        prompt.starts_with("Question: What do birds do?\nAnswer: fly\n\nQuestion: What do fish do?"),
        "{prompt}"
    );
    let before = engine.tokenizer().unwrap().encode(&prompt, EncodeOptions::PROMPT).unwrap().len();
    let (first, again) = (shots.run(&rows[2]).unwrap(), shots.run(&rows[2]).unwrap());
    assert_eq!(first.outcome, again.outcome);
    assert!(first.computed > again.computed && again.computed < 6, "{first:?} {again:?}");
    assert!(first.computed + first.reused > before && again.reused >= before - 1, "{first:?} {again:?}");
    assert!(Task::new(engine, TaskOptions::default(), &rows[4..]).is_err(), "a pattern is no example");
}

#[test]
fn letters_and_templates_make_other_prompts() {
    let row = &items(r#"{"question": "Why?", "choices": ["so", "or so"], "answer": 1, "hint": "h"}"#)[0];
    let task = |options| Task::new(engine(1), options, &[]).unwrap();
    let letters = task(TaskOptions { letters: true, ..TaskOptions::default() });
    assert_eq!(prompt(&letters, row), "Question: Why?\nA. so\nB. or so\nAnswer:");
    let Outcome::Chosen(choosing) = letters.run(row).unwrap().outcome else { panic!() };
    assert_eq!(choosing.scores.iter().map(|s| s.text.as_str()).collect::<Vec<_>>(), ["A", "B"]);
    let template = |text| {
        let template = Some(bitnet_text::TextTemplate::new(text, "--template").unwrap());
        task(TaskOptions { template, ..TaskOptions::default() })
    };
    assert_eq!(prompt(&template("{{hint}}: {{question}} {{choices[1]}}"), row), "h: Why? or so");
    let error = template("{{nothing}}").prompt(row).unwrap_err().to_string();
    assert!(error.starts_with("line 1: ") && error.contains("--template"), "{error}");
    let bare = &items(r#"{"choices": ["a", "b"], "answer": 1}"#)[0];
    assert!(task(TaskOptions::default()).prompt(bare).is_err());
}

fn compared(a: &InferenceEngine, b: &InferenceEngine) -> Comparison {
    let windows = TextWindows::new(100);
    compare(a, b, &eval_text(900), &windows, None, &mut |_, _| ControlFlow::Continue(())).unwrap()
}

#[test]
fn kernel_sets_and_threads_are_exactly_equal() {
    let (a, scalar) = (engine(2), builder(1).kernels("scalar".to_owned()).build().unwrap());
    let comparison = compared(&a, &scalar);
    let summary = comparison.summary().unwrap();
    assert!(comparison.tokens.len() > 150 && comparison.complete);
    assert_eq!((summary.kl.mean, summary.kl.max, summary.logit_difference), (0.0, 0.0, 0.0));
    assert_eq!((summary.top1, summary.top5, summary.rms_difference, summary.log_ratio), (1.0, 1.0, 0.0, 0.0));
    assert!(comparison.most_different(5).is_empty());
    // What is compared is what perplexity says.
    let perplexity = a.perplexity(&eval_text(900), 100, &mut |_, _| {}).unwrap();
    let figures = |p: bitnet_inference::Perplexity| (p.value, p.standard_error, p.nll, p.tokens);
    assert_eq!(figures(summary.perplexity[0]), figures(perplexity));
}

#[test]
fn rounded_keys_and_values_differ_a_little() {
    let a = engine(2);
    let b = a.sibling().unwrap().threads(1).kv_type(KvType::Int8).build().unwrap();
    let comparison = compared(&a, &b);
    let summary = comparison.summary().unwrap();
    assert!(summary.kl.mean > 0.0 && summary.kl.mean < 0.01, "{summary:?}");
    assert!(summary.kl.median <= summary.kl.p90 && summary.kl.p99 <= summary.kl.max);
    assert!(summary.top1 > 0.9 && summary.top5 > 0.9 && summary.logit_difference > 0.0);
    let worst = comparison.most_different(3);
    assert!(worst.len() == 3 && worst[0].kl >= worst[1].kl && worst[0].kl == summary.kl.max);
    assert_eq!(comparison.text[worst[0].position], worst[0].token);

    let mut calls = 0;
    let windows = TextWindows::new(50);
    let stopped = compare(&a, &b, &eval_text(900), &windows, Some(120), &mut |_, total| {
        (calls, _) = (calls + 1, assert_eq!(total, 120));
        ControlFlow::Break(())
    });
    assert_eq!((stopped.unwrap().tokens.len(), calls), (50, 1));
}

/// An engine over the weights of another computes the same bits, and the weights are in memory once.
#[test]
fn siblings_share_weights() {
    let a = engine(1);
    let b = a.sibling().unwrap().threads(2).context_size(64).build().unwrap();
    assert_eq!((b.context(), b.info().threads, a.info().weight_bytes), (64, 2, b.info().weight_bytes));
    let logits =
        |engine: &InferenceEngine| engine.infer_blocking("Once upon a time").unwrap().values().to_vec();
    let first = logits(&a);
    assert_eq!(first, logits(&b));
    drop(a);
    assert_eq!(first, logits(&b), "the weights stay as long as anyone uses them");
    let form = bitnet_inference::Form::FiveTrits;
    let other = b.sibling().unwrap().weight_form(Some(form)).build();
    assert!(other.unwrap_err().to_string().contains("1.6-bit"));
}

#[test]
fn models_of_other_vocabularies_are_refused() {
    let ModelSource::Memory { name, mut files } = source() else { panic!() };
    let (_, tokenizer) = files.iter_mut().find(|(name, _)| name == "tokenizer.json").unwrap();
    let text = String::from_utf8(tokenizer.as_slice().to_vec()).unwrap();
    let renamed = text.replace("<|finetune_right_pad_id|>", "<|renamed|>");
    assert_ne!(text, renamed);
    *tokenizer = ByteView::from_vec(renamed.into_bytes());
    let other =
        InferenceEngine::builder().model(ModelSource::Memory { name, files }).threads(1).build().unwrap();
    let windows = TextWindows::new(50);
    let error = compare(&engine(1), &other, "A text.", &windows, None, &mut |_, _| ControlFlow::Continue(()));
    let error = error.unwrap_err();
    assert!(matches!(error, EngineError::Vocabularies { .. }), "{error}");
    assert!(error.to_string().contains("renamed"), "{error}");
}
