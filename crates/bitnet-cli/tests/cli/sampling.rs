//! The flags of sampling.

use serde_json::Value;

use crate::support::{fails, run, run_with, stdout};

const STORY: &[&str] = &["generate", "Once upon a time", "-n", "24", "-q", "--seed", "7", "--ignore-eos"];

fn story(more: &[&str]) -> String {
    stdout(&[STORY, more].concat())
}

fn json(more: &[&str]) -> Value {
    serde_json::from_str(&story(&[more, &["--json"]].concat())).unwrap()
}

#[test]
fn each_sampler_has_its_flag_and_a_seed_decides() {
    let ways: &[&[&str]] = &[
        &["--dynatemp-range", "0.5", "--dynatemp-exp", "1.2"],
        &["--typical", "0.6", "--top-k", "0"],
        &["--top-nsigma", "0.7"],
        &["--xtc-probability", "1", "--xtc-threshold", "0.05"],
        &["--mirostat", "1", "--mirostat-ent", "3", "--mirostat-lr", "0.2"],
        &["--mirostat", "2"],
        &["--presence-penalty", "1.5", "--repeat-last-n", "64"],
        &["--frequency-penalty", "1.5"],
        &["--samplers", "top_k", "--top-k", "2"],
    ];
    let plain = story(&[]);
    for way in ways {
        let text = story(way);
        assert_eq!(text, story(way), "{way:?}");
        assert_ne!(text, plain, "{way:?} did nothing");
    }
    let twice = |more: &[&str]| {
        let prompt = "The red fox ran home. The red fox ran home. The red fox ran";
        let flags = ["generate", prompt, "-n", "8", "-q", "--temp", "0", "--repeat-penalty", "1"];
        stdout(&[&flags, more].concat())
    };
    let dry = twice(&["--dry-multiplier", "5", "--dry-base", "2", "--dry-penalty-last-n", "-1"]);
    assert!(twice(&[]).contains("The red fox") && !dry.contains("The red fox"), "{dry}");
    let (none, long) = (
        ["--dry-multiplier", "5", "--dry-penalty-last-n", "0"],
        ["--dry-multiplier", "5", "--dry-allowed-length", "50"],
    );
    assert_eq!((twice(&none), twice(&long)), (twice(&[]), twice(&[])));
    let seq = |order: &[&str]| story(&[&["--temp", "1.5", "--min-p", "0.1"], order].concat());
    let named = seq(&["--samplers", "penalties;dry;top_n_sigma;top_k;typ_p;top_p;min_p;xtc;temperature"]);
    assert_eq!(named, seq(&["--sampling-seq", "edskypmxt"]));
    assert_ne!(named, seq(&[]));
}

#[test]
fn bad_values_are_refused_with_the_flag_and_its_range() {
    for (flag, value, part) in [
        ("--typical", "1.5", "from 0 to 1"),
        ("--dynatemp-exp", "0", "greater than 0"),
        ("--xtc-threshold", "-1", "from 0 to 1"),
        ("--mirostat", "3", "1 or 2"),
        ("--presence-penalty", "1000", "-100 to 100"),
        ("--dry-base", "0.5", "1 or greater"),
        ("--samplers", "top_k;dry;top_k", "at most once"),
        ("--sampling-seq", "z", "edskypmxt"),
        ("--logit-bias", "hello", "ID+X"),
        ("--top-nsigma", "nan", "-1 for none"),
    ] {
        fails(&["generate", "Hi", flag, value], 2, &[flag, part]);
    }
    fails(&["generate", "Hi", "-n", "2", "-l", "9000000+1"], 2, &["logit_bias"]);
    fails(&["generate", "Hi", "-n", "2", "--ban", ""], 2, &["banned"]);
    fails(&["generate", "Hi", "-n", "2", "--choices", "3", "--best-of", "2"], 2, &["best_of"]);
}

#[test]
fn banned_strings_and_biases_shape_the_text() {
    let plain = story(&[]);
    let word = plain.split_whitespace().nth(2).unwrap();
    assert!(!story(&["--banned-string", word]).contains(word));
    let forced = ["generate", "Once upon a time", "-n", "3", "-q", "-l", " sea+1e6", "--temp", "0"];
    assert_eq!(stdout(&forced), " sea sea sea\n");
}

#[test]
fn logprobs_are_in_the_json_on_request() {
    assert_eq!(json(&[])["logprobs"], Value::Null);
    let value = json(&["--logprobs=3"]);
    let tokens = value["tokens"].as_array().unwrap();
    let logprobs = value["logprobs"].as_array().unwrap();
    assert_eq!(tokens.len(), logprobs.len());
    for (token, at) in tokens.iter().zip(logprobs) {
        assert_eq!(token, &at["id"]);
        assert!(at["logprob"].as_f64().unwrap() <= 0.0 && at["token"].is_string() && at["bytes"].is_array());
        assert_eq!(at["top_logprobs"].as_array().unwrap().len(), 3);
    }
    assert_eq!(json(&["--logprobs"])["logprobs"][0]["top_logprobs"].as_array().unwrap().len(), 0);
    fails(&["generate", "Hi", "--logprobs=3"], 2, &["--json"]);
}

#[test]
fn several_choices_come_one_after_the_other() {
    let first = json(&[])["text"].clone();
    let value = json(&["--choices", "3"]);
    let choices = value["choices"].as_array().unwrap();
    assert_eq!((choices.len(), &choices[0]["text"]), (3, &first));
    assert_eq!(choices[2]["seed"], 9);
    assert_eq!(choices[2]["stats"]["cached_tokens"].as_u64().map(|n| n > 0), Some(true));
    let text: String = choices.iter().map(|c| format!("{}\n", c["text"].as_str().unwrap())).collect();
    assert_eq!(story(&["--choices", "3"]), text);
    let best = json(&["--choices", "1", "--best-of", "3"]);
    let best = best["choices"][0]["text"].as_str().unwrap().to_owned();
    assert!(text.contains(&best));
    assert_eq!(story(&["--best-of", "3"]), format!("{best}\n"));
    let said = run(&["generate", "Hi", "-n", "3", "--choices", "2", "--seed", "1"]);
    assert!(said.stderr.contains("2 of 2"), "{}", said.stderr);
}

#[test]
fn the_chat_sets_what_the_flags_set() {
    let lines = "/set mirostat 2\n/set samplers top_k;temperature\n/set dry-multiplier 0.8\n/set\n/set typical 3\n/set mirostta 1\n";
    let output = run_with(&["chat", "--xtc-probability", "0.25"], lines);
    let shows = |name: &str, value: &str| {
        let row = output.stderr.lines().find(|line| line.starts_with(&format!("{name} ")));
        assert!(row.is_some_and(|row| row.ends_with(value)), "{name}: {}", output.stderr);
    };
    shows("mirostat", "2");
    shows("samplers", "top_k;temperature");
    shows("dry-multiplier", "0.8");
    shows("xtc-probability", "0.25");
    for part in
        ["/set typical 3: it must be a number from 0 to 1", "no setting mirostta", "did you mean mirostat?"]
    {
        assert!(output.stderr.contains(part), "{part}: {}", output.stderr);
    }
}
