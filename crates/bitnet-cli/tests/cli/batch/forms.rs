//! Forms of outputs.

use super::{Folder, batch, done, objects};
use crate::support::{fails, run_with};

/// A table with one good and one bad row.
const TABLE: &str = "id,text\nfirst,\"The cat, \"\"Tom\"\"\"\nsecond\n";

#[test]
fn tables_repeat_the_columns_of_the_input() {
    let folder = Folder::new();
    let input = folder.write("in.csv", TABLE);
    for (name, delimiter) in [("out.csv", b','), ("out.tsv", b'\t')] {
        let output = batch(&input, &folder.arg(name), &["--template", "{{text}} sat"]);
        assert_eq!(output.code, Some(3), "{output:?}");
        let text = folder.read(name);
        let mut reader = csv::ReaderBuilder::new().delimiter(delimiter).from_reader(text.as_bytes());
        let head: Vec<String> = reader.headers().unwrap().iter().map(str::to_owned).collect();
        let want = [
            "row",
            "source",
            "id",
            "input_text",
            "prompt",
            "text",
            "finish_reason",
            "prompt_tokens",
            "generated_tokens",
            "seed",
            "error",
        ];
        assert_eq!(head, want);
        let rows: Vec<csv::StringRecord> = reader.records().map(Result::unwrap).collect();
        assert_eq!(
            (&rows[0][2], &rows[0][3], &rows[0][4]),
            ("first", "The cat, \"Tom\"", "The cat, \"Tom\" sat")
        );
        assert_eq!((&rows[0][8], &rows[0][10]), ("4", ""));
        assert_eq!((&rows[1][0], &rows[1][3], &rows[1][10]), ("2", "", "1 values, but there are 2 columns"));
    }
}

#[test]
fn documents_for_people() {
    let folder = Folder::new();
    let input = folder.write("in.csv", TABLE);
    let want =
        [("out.md", "## 1: first\n"), ("out.html", "The cat, &quot;Tom&quot; &lt;b&gt;"), ("out.txt", "\n")];
    for (name, part) in want {
        let output = batch(&input, &folder.arg(name), &["--template", "{{text}} <b>"]);
        assert_eq!(output.code, Some(3), "{output:?}");
        assert!(folder.read(name).contains(part), "{name}: {}", folder.read(name));
    }
    let (md, html) = (folder.read("out.md"), folder.read("out.html"));
    assert!(md.contains("\n> The cat, \"Tom\" <b>\n") && md.contains("**failed:** 1 values"), "{md}");
    assert!(html.contains("failed: 1 values") && html.trim_end().ends_with("</html>"), "{html}");
    assert!(!html.contains("Tom\" <b>"), "{html}");
    assert_eq!(folder.read("out.txt").lines().count(), 2, "a line for each row");
}

#[test]
fn timings_only_if_asked_for() {
    let folder = Folder::new();
    let input = folder.write("in.txt", "The cat\n");
    done(&input, &folder.arg("out.jsonl"), &["--timings"]);
    assert!(objects(&folder.read("out.jsonl"))[0]["generation_ms"].as_f64().unwrap() > 0.0);
    done(&input, &folder.arg("out.csv"), &["--timings"]);
    assert!(
        folder.read("out.csv").lines().next().unwrap().ends_with("error,queued_ms,prompt_ms,generation_ms")
    );
}

#[test]
fn nothing_is_overwritten_by_accident() {
    let folder = Folder::new();
    let input = folder.write("in.txt", "The cat\n");
    let out = folder.write("out.jsonl", "precious");
    fails(&["batch", &input, "-o", &out], 2, &["exists", "--force"]);
    assert_eq!(folder.read("out.jsonl"), "precious");
    fails(&["batch", &input, "-o", &input], 2, &["input and the output"]);
    fails(&["batch", &input, "-o", &folder.arg("out.xyz")], 2, &["ending", ".jsonl"]);
    fails(&["batch", &input, "-o", &folder.arg("no/out.jsonl")], 1, &["no such folder"]);
    fails(&["batch", &input, "--resume"], 2, &["--resume", "--output"]);
    done(&input, &out, &["--force"]);
    assert_eq!(objects(&folder.read("out.jsonl")).len(), 1);
    let again = batch(&input, &out, &["--resume"]);
    assert!(again.code == Some(0) && again.stderr.contains("nothing to resume"), "{again:?}");
}

#[test]
fn nothing_gives_an_empty_output() {
    let folder = Folder::new();
    let input = folder.write("in.txt", "\n\n");
    done(&input, &folder.arg("out.jsonl"), &[]);
    assert_eq!(folder.read("out.jsonl"), "");
    let empty = folder.write("in.csv", "");
    done(&empty, &folder.arg("out.csv"), &[]);
    assert_eq!(folder.read("out.csv").lines().count(), 1);
}

#[test]
#[cfg(feature = "parquet")]
fn parquet_is_written_and_read() {
    let folder = Folder::new();
    let input = folder.write("in.jsonl", "{\"name\": \"The cat\", \"legs\": 4}\n{\"name\": null}\n");
    done(&input, &folder.arg("out.parquet"), &["--template", "{{name}} sat"]);
    assert_eq!(folder.names(), ["in.jsonl", "out.parquet"]);
    done(&folder.arg("out.parquet"), &folder.arg("again.jsonl"), &["--template", "{{text}} And"]);
    let rows = objects(&folder.read("again.jsonl"));
    assert!(rows.len() == 2 && rows[1]["source"].as_str().unwrap().ends_with("out.parquet:2"), "{rows:?}");
    let first = &rows[0]["input"];
    assert_eq!((&first["row"], &first["prompt"]), (&1.into(), &"The cat sat".into()), "{first}");
    assert!(first["seed"].is_u64() && first["generated_tokens"] == 4 && first["error"].is_null(), "{first}");
    let broken = folder.write("broken.parquet", "PAR1PAR1");
    fails(&["batch", &broken], 1, &["broken.parquet"]);
}

#[test]
#[cfg(not(feature = "parquet"))]
fn parquet_says_what_is_missing() {
    let folder = Folder::new();
    let input = folder.write("in.txt", "The cat\n");
    fails(&["batch", &input, "-o", &folder.arg("out.parquet")], 1, &["no Parquet"]);
    let table = folder.write("in.parquet", "PAR1");
    fails(&["batch", &table], 1, &["in.parquet", "no Parquet"]);
}

#[test]
fn stdin_to_stdout() {
    let output = run_with(&["batch", "-", "-n", "2", "-q", "--output-format", "csv"], "The cat\nA dog\n");
    assert_eq!((output.code, output.stdout.lines().count()), (Some(0), 3), "{output:?}");
    assert_eq!(output.stderr, "");
}
