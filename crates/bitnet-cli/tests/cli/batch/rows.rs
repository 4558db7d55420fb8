//! What rows are, and how they become prompts.

use serde_json::json;

use super::{Folder, batch, done, generated, objects};
use crate::support::{fails, run, run_with};

#[test]
fn lines_are_what_generate_gives_with_their_seeds() {
    let folder = Folder::new();
    let input = folder.write("in.txt", "Once upon a time\n\nThe cat\r\nA dog");
    done(&input, &folder.arg("out.jsonl"), &[]);
    let rows = objects(&folder.read("out.jsonl"));
    let members: Vec<&String> = rows[0].as_object().unwrap().keys().collect();
    assert_eq!(
        members,
        [
            "row",
            "source",
            "prompt",
            "text",
            "finish_reason",
            "prompt_tokens",
            "generated_tokens",
            "seed",
            "error"
        ]
    );
    let prompts: Vec<&str> = rows.iter().map(|row| row["prompt"].as_str().unwrap()).collect();
    assert_eq!(prompts, ["Once upon a time", "The cat", "A dog"]);
    assert!(rows[1]["source"].as_str().unwrap().ends_with("in.txt:3"));
    assert_ne!(rows[0]["seed"], rows[1]["seed"]);
    for row in rows {
        let seed = row["seed"].to_string();
        let text = generated(row["prompt"].as_str().unwrap(), &["-n", "4", "--seed", &seed]);
        assert_eq!(row["text"], text, "{row}");
    }
    assert_eq!(folder.names(), ["in.txt", "out.jsonl"]);
}

#[test]
fn texts_do_not_depend_on_how_many_are_computed_together() {
    let folder = Folder::new();
    let lines: String = (0..40).map(|i| format!("The number {i} is\n")).collect();
    let input = folder.write("in.txt", &lines);
    done(&input, &folder.arg("one.jsonl"), &["--parallel", "1"]);
    done(&input, &folder.arg("many.jsonl"), &["-np", "16", "--threads", "2"]);
    assert_eq!(folder.read("one.jsonl"), folder.read("many.jsonl"));
}

#[test]
fn paragraphs_and_files() {
    let folder = Folder::new();
    let input = folder.write("in.md", "\nOne\ntwo\n\n \nThree\n");
    let prompts = |mode: &str| {
        let out = folder.arg(&format!("{mode}.jsonl"));
        done(&input, &out, &["--mode", mode]);
        let rows = objects(&folder.read(&format!("{mode}.jsonl")));
        rows.into_iter().map(|row| row["prompt"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(prompts("paragraph"), ["One\ntwo", "Three"]);
    assert_eq!(prompts("file"), ["\nOne\ntwo\n\n \nThree"]);
}

#[test]
fn fields_of_a_row_hold_for_it() {
    let folder = Folder::new();
    let rows = [
        json!({"id": "a", "prompt": "The cat", "max_tokens": 2, "seed": 5, "note": 1}),
        json!({"prompt": "The cat", "temperature": 0, "stop": ["."], "n_predict": 9}),
        json!({"prompt": "Hello", "system": "You are a pirate."}),
        json!({"messages": [{"role": "user", "content": "Hello"}], "seed": 5}),
    ];
    let lines: String = rows.iter().map(|row| format!("{row}\n")).collect();
    let input = folder.write("in.jsonl", &lines);
    done(&input, &folder.arg("out.jsonl"), &[]);
    let out = objects(&folder.read("out.jsonl"));
    assert_eq!(
        (&out[0]["id"], &out[0]["input"]["note"], &out[0]["seed"]),
        (&json!("a"), &json!(1), &json!(5))
    );
    assert_eq!(out[0]["text"], generated("The cat", &["-n", "2", "--seed", "5"]));
    assert_eq!(out[1]["text"], generated("The cat", &["-n", "9", "--temp", "0", "--stop", "."]));
    let seed = out[2]["seed"].to_string();
    let pirate = generated("Hello", &["-n", "4", "--seed", &seed, "-sys", "You are a pirate."]);
    assert_eq!(out[2]["text"], pirate);
    assert_eq!(out[3]["text"], generated("Hello", &["-n", "4", "--seed", "5", "--chat"]));
    assert_eq!(out[3]["prompt"], "Hello");
}

#[test]
fn what_a_template_names_is_data() {
    let folder = Folder::new();
    let input = folder.write("in.jsonl", "{\"city\": \"Rome\", \"temperature\": 25, \"max_tokens\": 2}\n");
    let template = ["--template", "{{row}}. In {{city}} it is {{temperature}} degrees"];
    done(&input, &folder.arg("out.jsonl"), &template);
    let out = objects(&folder.read("out.jsonl"));
    assert_eq!(out[0]["prompt"], "1. In Rome it is 25 degrees");
    assert_eq!(out[0]["generated_tokens"], 2);
    done(&input, &folder.arg("all.jsonl"), &[&template[..], &["--no-row-settings"]].concat());
    assert_eq!(objects(&folder.read("all.jsonl"))[0]["generated_tokens"], 4);
}

#[test]
fn columns_by_name() {
    let folder = Folder::new();
    let input = folder.write("in.csv", "name,animal\n\"Tom, the first\",cat\nRex,dog\n");
    let out = folder.arg("out.jsonl");
    done(&input, &out, &["--template", "{{name}} is a {{ animal|upper }}"]);
    let rows = objects(&folder.read("out.jsonl"));
    assert_eq!(rows[0]["prompt"], "Tom, the first is a CAT");
    assert_eq!(rows[1]["input"], json!({"name": "Rex", "animal": "dog"}));
    let unknown = folder.arg("unknown.jsonl");
    fails(&["batch", &input, "-o", &unknown, "--template", "{{nam}}"], 2, &["\"nam\"", "name, animal"]);
    fails(&["batch", &input, "-o", &unknown], 2, &["prompt", "name, animal"]);
    assert_eq!(folder.names(), ["in.csv", "out.jsonl"]);
}

#[test]
fn rows_that_fail_are_recorded_and_counted() {
    let folder = Folder::new();
    let lines = "{\"prompt\": \"The cat\"}\n{\"prompt\": 7}\nnot json\n{\"prompt\": \"x\", \"top_p\": \"high\"}\n[1]\n\"A dog\"\n";
    let input = folder.write("in.jsonl", lines);
    let output = batch(&input, &folder.arg("out.jsonl"), &[]);
    assert_eq!(output.code, Some(3), "{output:?}");
    assert!(output.stderr.contains("4 failed"), "{output:?}");
    let rows = objects(&folder.read("out.jsonl"));
    let errors: Vec<&str> = rows.iter().map(|row| row["error"].as_str().unwrap_or("-")).collect();
    for (error, part) in
        errors.iter().zip(["-", "no string", "not JSON", "top_p = \"high\"", "object or a string", "-"])
    {
        assert!(error.contains(part), "{error}: {part}");
    }
    assert_eq!((&rows[2]["text"], rows[5]["text"].is_string()), (&json!(null), true));
    let output = batch(&input, &folder.arg("fast.jsonl"), &["--fail-fast"]);
    assert_eq!(output.code, Some(1), "{output:?}");
    assert!(output.stderr.contains("row 2 (") && output.stderr.contains("--resume"), "{output:?}");
    let output = batch(&input, &folder.arg("fast.jsonl"), &["--resume"]);
    assert_eq!(output.code, Some(3), "{output:?}");
    assert_eq!(folder.read("fast.jsonl"), folder.read("out.jsonl"));
}

#[test]
fn folders_patterns_and_stdin() {
    let folder = Folder::new();
    folder.write("data/b.txt", "The cat\n");
    folder.write("data/a/c.md", "A dog\n");
    folder.write("data/.hidden/d.txt", "No\n");
    folder.write("data/model.bin", "No\n");
    let sources = |args: &[&str]| {
        let output = run_with(&[&["batch", "-n", "1", "-q"], args].concat(), "From stdin\n");
        assert_eq!(output.code, Some(0), "{output:?}");
        let name = |row: &serde_json::Value| {
            let source = row["source"].as_str().unwrap();
            source.rsplit(['/', '\\']).next().unwrap().to_owned()
        };
        objects(&output.stdout).iter().map(name).collect::<Vec<_>>()
    };
    let data = folder.arg("data");
    assert_eq!(sources(&[&data]), ["c.md:1", "b.txt:1"]);
    assert_eq!(sources(&[&data, "--no-recursive"]), ["b.txt:1"]);
    assert_eq!(sources(&[&folder.arg("data/*.txt"), "-"]), ["b.txt:1", "stdin:1"]);
    assert_eq!(sources(&[&folder.arg("data/**/*.md")]), ["c.md:1"]);
    fails(&["batch", &folder.arg("data/*.csv")], 1, &["no file fits"]);
    fails(&["batch", &folder.arg("none.txt")], 1, &["none.txt", "no such file"]);
}

#[test]
fn constraints_hold_for_all_rows() {
    let folder = Folder::new();
    let input = folder.write("in.txt", "A cat says\nA dog says\n");
    done(&input, &folder.arg("out.txt"), &["--regex", "(yes|no)!", "-n", "9"]);
    for line in folder.read("out.txt").lines() {
        assert!(["yes!", "no!"].contains(&line), "{line}");
    }
    fails(&["batch", &input, "-o", &folder.arg("bad.txt"), "--regex", "("], 2, &["regular expression"]);
    assert_eq!(folder.names(), ["in.txt", "out.txt"]);
}

#[test]
fn a_dry_run_counts_and_writes_nothing() {
    let folder = Folder::new();
    let input =
        folder.write("in.jsonl", "{\"prompt\": \"The cat\"}\n{\"prompt\": 7}\n{\"prompt\": \"A dog\"}\n");
    let args = ["batch", &input, "-o", &folder.arg("out.jsonl"), "-n", "3", "--ignore-eos", "--dry-run"];
    let output = run(&[&args[..], &["--json"]].concat());
    assert_eq!(output.code, Some(0), "{output:?}");
    let told: serde_json::Value = serde_json::from_str(&output.stdout).unwrap();
    assert_eq!((&told["rows"], &told["failing_rows"]), (&json!(3), &json!(1)));
    assert_eq!(told["generated_tokens"], 6.0);
    assert!(told["first_failure"].as_str().unwrap().contains("in.jsonl:2"));
    assert!(told["prompt_tokens"].as_u64().unwrap() >= 4 && told["seconds"].as_f64().unwrap() > 0.0);
    assert!(run(&args).stdout.starts_with("rows "), "a table");
    assert_eq!(folder.names(), ["in.jsonl"]);
}
