//! `bitnet embed`.

use serde_json::Value;

use crate::support::{bitnet, fails, run_with, stdout};

fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap()
}

#[test]
fn every_format_has_the_same_numbers() {
    let texts = ["a cat", "a kitten"];
    let of = |format: &str| stdout(&["embed", "-q", texts[0], texts[1], "--format", format]);
    let all = json(&stdout(&["embed", "-q", texts[0], texts[1]]));
    assert_eq!((all["dimensions"].as_u64(), all["pooling"].as_str()), (Some(512), Some("last")));
    assert_eq!(all["normalized"], true);
    let vectors = all["embeddings"].as_array().unwrap();
    assert_eq!(vectors.len(), 2);
    let lines: Vec<Value> = of("jsonl").lines().map(json).collect();
    assert_eq!(&lines, vectors);
    let raw = bitnet(&["embed", "-q", texts[0], texts[1], "--format", "raw"]).output().unwrap().stdout;
    let floats: Vec<f32> = raw.chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect();
    assert_eq!(floats.len(), 1024);
    let csv = of("csv");
    for (i, line) in csv.lines().enumerate() {
        let numbers: Vec<f32> = line.split(',').map(|x| x.parse().unwrap()).collect();
        assert_eq!(numbers, floats[i * 512..(i + 1) * 512]);
        let shown = &vectors[i]["embedding"].as_array().unwrap()[7];
        assert_eq!(shown.as_f64().unwrap() as f32, numbers[7]);
    }
}

#[test]
fn lines_of_files_and_of_stdin() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("lines.txt");
    std::fs::write(&path, "first\n\nthird\n").unwrap();
    let path = path.to_str().unwrap();
    let file = stdout(&["embed", "-q", "-f", path, "--format", "csv", "--pooling", "mean"]);
    assert_eq!(file.lines().count(), 3);
    let piped = run_with(&["embed", "-q", "--format", "csv", "--pooling", "mean"], "first\n\nthird\n");
    assert_eq!(piped.stdout, file);
    assert_ne!(stdout(&["embed", "-q", "-f", path, "--format", "csv"]), file);
    let loose =
        stdout(&["embed", "-q", "-f", path, "--format", "csv", "--pooling", "mean", "--no-normalize"]);
    assert_ne!(loose, file);
}

#[test]
fn similarities() {
    let args = ["embed", "-q", "--similarity", "a cat", "a cat", "The old bridge fell into the river."];
    let table = stdout(&args);
    assert_eq!(table.lines().count(), 4, "{table}");
    assert!(table.lines().nth(1).unwrap().contains("1.000  1.000"), "{table}");
    let found = json(&stdout(&[&args[..], &["--format", "json"]].concat()));
    let other = found["similarity"][0][2].as_f64().unwrap();
    assert!(other < 0.99 && other == found["similarity"][2][0].as_f64().unwrap(), "{found}");
    fails(&[&args[..], &["--format", "raw"]].concat(), 2, &["--similarity"]);
}

#[test]
fn an_embedding_model_in_every_form() {
    let dir = tempfile::tempdir().unwrap();
    for shape in ["tiny-qwen3", "tiny-gemma3"] {
        for (format, name) in [("safetensors-bf16", "masters"), ("gguf", "model.gguf")] {
            let out = dir.path().join(format!("{shape}-{name}"));
            let out = out.to_str().unwrap();
            stdout(&["synth", "--shape", shape, "--format", format, out, "-q"]);
            let text = stdout(&["inspect", out]);
            assert!(text.contains("before every projection") && text.contains("pooling"), "{text}");
            let all = json(&stdout(&["embed", "-q", "-m", out, "bado kimu", "bado"]));
            assert_eq!((all["dimensions"].as_u64(), all["pooling"].as_str()), (Some(128), Some("last")));
            let plain = json(&stdout(&["inspect", "--json", out]));
            assert_eq!(plain["end_token"], 769);
        }
    }
}

#[test]
fn what_cannot_be_embedded() {
    fails(&["embed", "--pooling", "max", "x"], 2, &["max", "last, mean or cls"]);
    fails(&["embed", "-f", "/no/such/file"], 1, &["/no/such/file"]);
    fails(&["embed", "-q"], 1, &["no lines"]);
    fails(&["embed", "-q", &"word ".repeat(3000)], 1, &["text 1 has", "context"]);
    stdout(&["embed", "-q", "--truncate", "--format", "csv", &"word ".repeat(3000)]);
}
