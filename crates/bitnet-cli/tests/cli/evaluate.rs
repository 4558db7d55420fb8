//! `bitnet perplexity`, `eval` and `compare` on the bundled model.

use serde_json::Value;

use crate::support::{fails, run, run_with, stdout};

const TEXT: &str =
    "The little dog ran to the park and played with a ball. Then it was tired and went home.\n";

/// A folder with files of these names and contents.
fn files(contents: &[(&str, &str)]) -> (tempfile::TempDir, Vec<String>) {
    let folder = tempfile::tempdir().unwrap();
    let write = |(name, content): &(&str, &str)| {
        let path = folder.path().join(name);
        std::fs::write(&path, content).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let paths = contents.iter().map(write).collect();
    (folder, paths)
}

fn parse(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

fn number(value: &Value) -> f64 {
    value.as_f64().unwrap_or_else(|| panic!("{value}"))
}

#[test]
fn perplexity_of_several_texts_with_a_stride() {
    let (_folder, paths) = files(&[("a.txt", TEXT), ("b.txt", "A cat sat in the sun. It was happy.")]);
    let base = ["perplexity", &paths[0], &paths[1], "--window", "8", "--stride", "3"];
    let json = parse(&stdout(&[&base[..], &["--json"]].concat()));
    let each = json["files"].as_array().unwrap();
    assert_eq!(each.len(), 2);
    let sum: f64 = each.iter().map(|file| number(&file["nll"])).sum();
    assert!((number(&json["nll"]) - sum).abs() < 1e-9, "{json}");
    assert_eq!((&json["window"], &json["stride"], &json["complete"]), (&8.into(), &3.into(), &true.into()));
    assert!(number(&json["standard_error"]) > 0.0 && number(&json["bits_per_byte"]) > 0.0, "{json}");
    let text = stdout(&base);
    assert!(text.starts_with(&format!("perplexity {:.4} ± ", number(&json["perplexity"]))), "{text}");
    assert!(text.contains("method: windows of 8 tokens every 3 tokens") && text.contains("b.txt"), "{text}");

    let csv = stdout(&[&base[..], &["--csv"]].concat());
    let rows: Vec<Vec<&str>> = csv.lines().map(|line| line.split(',').collect()).collect();
    assert_eq!(rows[0][..3], ["file", "window", "token"]);
    let of_first: Vec<_> = rows[1..].iter().filter(|row| row[0] == paths[0]).collect();
    let nll: f64 = of_first.iter().map(|row| row[5].parse::<f64>().unwrap()).sum();
    assert!((nll - number(&each[0]["nll"])).abs() < 1e-4, "{csv}");
    let tokens: u64 = of_first.iter().map(|row| row[4].parse::<u64>().unwrap()).sum();
    assert_eq!(Value::from(tokens), each[0]["tokens"]);

    // The same from stdin, and with a context in place of a window.
    let args = ["perplexity", "-", "-c", "9", "--stride", "3", "--json"];
    let piped = run_with(&args, TEXT);
    assert_eq!(parse(&piped.stdout)["files"][0]["nll"], each[0]["nll"], "{piped:?}");
    let once = parse(&stdout(&["perplexity", &paths[0], "--bos", "once", "--json"]));
    let apart = parse(&stdout(&["perplexity", &paths[0], "--json"]));
    assert_eq!(once["nll"], apart["nll"], "one window is one window");
    assert_ne!(once["method"], apart["method"]);
}

#[test]
fn wrong_windows_are_refused() {
    let (_folder, paths) = files(&[("a.txt", TEXT)]);
    fails(&["perplexity", &paths[0], "--window", "8", "--stride", "9"], 2, &["stride", "9"]);
    fails(&["perplexity", &paths[0], "--window", "512"], 2, &["window", "512"]);
    fails(&["perplexity", &paths[0], "--window", "0"], 2, &["--window"]);
    fails(&["perplexity"], 2, &["FILE"]);
}

const TASKS: &str = r#"{"context": "Once upon a", "choices": ["time", "spoon"], "answer": 0, "category": "stories"}
{"context": "Once upon a", "choices": ["keyboard", "time"], "answer": "B", "id": "second"}

{"context": "Once upon a", "answer": "time"}
{"question": "What do birds do?", "choices": ["fly", "bark", "read"], "answer": "fly", "category": "animals"}
"#;

#[test]
fn tasks_are_answered_and_counted() {
    let (folder, paths) = files(&[("tasks.jsonl", TASKS)]);
    let out = folder.path().join("answers.jsonl");
    let args = ["eval", &paths[0], "-n", "1", "-o", out.to_str().unwrap()];
    let output = run(&[&args[..], &["--json"]].concat());
    let json = parse(&output.stdout);
    assert_eq!(
        (&json["answered"], &json["acc"]["total"], &json["exact"]["correct"]),
        (&4.into(), &3.into(), &1.into())
    );
    let (low, high) = (number(&json["acc"]["interval"][0]), number(&json["acc"]["interval"][1]));
    assert!(
        low <= number(&json["acc"]["value"]) && number(&json["acc"]["value"]) <= high && high <= 1.0,
        "{json}"
    );
    assert!((number(&json["chance"]) - (0.5 + 0.5 + 1.0 / 3.0) / 3.0).abs() < 1e-9);
    assert_eq!(json["categories"]["stories"]["acc"]["correct"], 1);
    // The second row computes nothing of its prompt again but the last token, the third row nothing but that and its answer.
    let (said, _) = output.stderr.split_once(" shared between rows and choices").unwrap();
    assert!(said.rsplit(' ').next().unwrap().parse::<usize>().unwrap() > 6, "{output:?}");
    assert!(number(&json["tokens"]) > 20.0, "{json}");

    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 2, "nothing is left but tasks and answers");
    let rows: Vec<Value> = std::fs::read_to_string(&out).unwrap().lines().map(parse).collect();
    let of_rows: f64 = rows.iter().map(|row| number(&row["tokens"])).sum();
    assert!((of_rows - number(&json["tokens"])).abs() < 0.5, "{json}");
    let ids: Vec<&str> = rows.iter().map(|row| row["id"].as_str().unwrap()).collect();
    assert_eq!(ids, ["1", "second", "4", "5"]);
    assert_eq!(
        (&rows[1]["answer"], &rows[1]["chosen"], &rows[1]["acc"]),
        (&1.into(), &1.into(), &true.into())
    );
    let first = &rows[0]["choices"][0];
    assert_eq!((&first["text"], &first["tokens"], &first["bytes"]), (&"time".into(), &1.into(), &4.into()));
    assert_eq!((&rows[2]["text"], &rows[2]["exact"]), (&"time".into(), &true.into()));

    let text = stdout(&args);
    for part in ["acc_norm", "95 % interval", "chance", "exact", "stories", "4 of 4 rows"] {
        assert!(text.contains(part), "{part}: {text}");
    }
    let limited = parse(&stdout(&["eval", &paths[0], "--limit", "2", "--json"]));
    assert_eq!((&limited["answered"], limited.get("exact")), (&2.into(), None));
}

#[test]
fn examples_stand_before_questions() {
    let (_folder, paths) = files(&[("tasks.jsonl", TASKS), ("shots.jsonl", TASKS)]);
    let own = parse(&stdout(&["eval", &paths[0], "--shots", "2", "--json"]));
    assert_eq!((&own["rows"], &own["shots"]), (&2.into(), &2.into()));
    let args = ["eval", &paths[0], "--shots", "2", "--shots-file", &paths[1], "--letters", "--json"];
    assert_eq!(parse(&stdout(&args))["rows"], 4);
    fails(&["eval", &paths[0], "--shots", "5"], 2, &["4 rows"]);
    fails(&["eval", &paths[0], "--shots", "4"], 1, &["nothing to ask"]);
    let template = ["eval", &paths[0], "--template", r"{{context}}{{question}}\nIt is", "--json"];
    fails(&template, 1, &["line 1", "--template"]);
}

#[test]
fn wrong_rows_are_told_by_line() {
    let (folder, paths) =
        files(&[("bad.jsonl", "{\"context\": \"a\", \"answer\": \"b\"}\n{\"choices\": 3}\n")]);
    fails(&["eval", &paths[0]], 1, &["bad.jsonl", "line 2", "`choices`"]);
    let long = folder.path().join("long.jsonl");
    let row = format!(r#"{{"context": "{}", "choices": ["a", "b"], "answer": 0}}"#, "very long ".repeat(600));
    std::fs::write(&long, row).unwrap();
    fails(&["eval", long.to_str().unwrap()], 1, &["line 1", "512"]);
    let absent = folder.path().join("absent/out.jsonl");
    fails(&["eval", &paths[0], "-o", absent.to_str().unwrap()], 1, &["absent/out.jsonl"]);
}

#[test]
fn a_model_does_not_differ_from_itself() {
    let args = ["compare", "--limit", "60", "--a-kernels", "scalar", "-t", "2", "--json"];
    let json = parse(&stdout(&args));
    assert_eq!((&json["kl"]["mean"], &json["kl"]["max"]), (&0.0.into(), &0.0.into()));
    assert_eq!((&json["same_best"], &json["top5_in_common"]), (&1.0.into(), &1.0.into()));
    assert_eq!((&json["max_logit_difference"], &json["tokens"]), (&0.0.into(), &60.into()));
    assert_eq!(
        (&json["a"]["kernels"], &json["a"]["perplexity"]),
        (&"scalar".into(), &json["b"]["perplexity"])
    );
    assert_eq!(json["most_different"].as_array().unwrap().len(), 0);
}

#[test]
fn rounded_keys_differ_and_a_page_shows_it() {
    let (folder, paths) = files(&[("a.txt", &TEXT.repeat(3))]);
    let page = folder.path().join("out.html");
    let output = run(&[
        "compare",
        "-f",
        &paths[0],
        "--b-kv-type",
        "int8",
        "--window",
        "20",
        "--worst",
        "2",
        "--html",
        page.to_str().unwrap(),
    ]);
    assert_eq!(output.code, Some(0), "{output:?}");
    assert_eq!(output.stderr.matches("using the bundled model").count(), 1, "{output:?}");
    for part in ["KL mean", "same best token", "keys and values", "Where they differ most:", "most probable"]
    {
        assert!(output.stdout.contains(part), "{part}: {}", output.stdout);
    }
    assert_eq!(output.stdout.matches("A thinks").count(), 2);
    let page = std::fs::read_to_string(page).unwrap();
    assert_eq!(page.matches("<svg").count(), 4, "{page}");
    for part in ["<!DOCTYPE html>", "bitnet-tiny in two ways", "KL of tokens", "Where they differ most"] {
        assert!(page.contains(part), "{part}");
    }
    fails(&["compare", "--a-kernels", "abacus"], 1, &["abacus"]);
    fails(&["compare", "--window", "600"], 2, &["window", "600"]);
}
