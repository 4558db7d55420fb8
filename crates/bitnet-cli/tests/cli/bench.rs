//! `bitnet bench` on the bundled model, with tiny counts. What it says is checked, not how fast anything is.

use serde_json::Value;

use crate::support::{fails, run, stdout};

/// A benchmark as short as can be.
fn quick<'a>(flags: &[&'a str]) -> Vec<&'a str> {
    [&["bench", "-p", "8", "-n", "3", "-r", "2", "-t", "1", "--no-limits", "-q"], flags].concat()
}

fn parse(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

fn names(rows: &Value) -> Vec<(String, u64, u64)> {
    let rows = rows.as_array().unwrap().iter();
    let number = |row: &Value, field: &str| row[field].as_u64().unwrap();
    rows.map(|r| (r["test"].as_str().unwrap().to_owned(), number(r, "n_threads"), number(r, "n_batch")))
        .collect()
}

#[test]
fn lists_of_everything_are_measured_and_told_as_json() {
    let text = stdout(&[
        "bench",
        "-p",
        "8",
        "-n",
        "3",
        "-pg",
        "4,2",
        "-d",
        "0-16+16",
        "-b",
        "1,2",
        "-t",
        "1,2",
        "-r",
        "2",
        "-o",
        "json",
        "--no-limits",
        "-q",
    ]);
    let rows = parse(&text);
    let one = ["pp8", "tg3", "pp4+tg2", "pp8 @ d16", "tg3 @ d16", "pp4+tg2 @ d16"];
    let two = ["tg3", "pp4+tg2", "tg3 @ d16", "pp4+tg2 @ d16"];
    let mut expected = Vec::new();
    for threads in [1, 2] {
        expected.extend(one.iter().map(|n| ((*n).to_owned(), threads, 1)));
        expected.extend(two.iter().map(|n| ((*n).to_owned(), threads, 2)));
    }
    assert_eq!(names(&rows), expected);
    for row in rows.as_array().unwrap() {
        assert!(row["avg_ts"].as_f64().unwrap() > 0.0, "{row}");
        assert_eq!(row["samples_ts"].as_array().unwrap().len(), 2, "{row}");
        assert_eq!((&row["model_name"], &row["model_n_params"]), (&"bitnet-tiny".into(), &35_682_816.into()));
        assert_eq!((&row["of_limit"], &row["machine_read_gb_s"]), (&Value::Null, &Value::Null));
        let (prompt, generation) = (row["n_prompt"] != 0, row["n_gen"] != 0);
        assert_eq!(row["first_token_ms"].is_f64(), prompt, "{row}");
        assert_eq!(row["token_p99_ms"].is_f64(), generation, "{row}");
        if generation {
            assert!(row["token_p50_ms"].as_f64() <= row["token_p99_ms"].as_f64(), "{row}");
        }
        assert!(row["peak_bytes"].is_u64() || cfg!(not(target_os = "linux")));
    }
}

#[test]
fn every_form_has_the_same_rows() {
    let lines = stdout(&quick(&["-o", "jsonl"]));
    let tests: Vec<Value> = lines.lines().map(|line| parse(line)["test"].clone()).collect();
    assert_eq!(tests, ["pp8", "tg3"]);

    let csv = stdout(&quick(&["-o", "csv"]));
    let table: Vec<Vec<&str>> = csv.lines().map(|line| line.split(',').collect()).collect();
    let column = table[0].iter().position(|name| *name == "test").unwrap();
    // The name of the processor may hold a comma, in quotation marks: count from the end.
    let from_end = table[0].len() - column;
    assert_eq!(table.len(), 3);
    let tests: Vec<&str> = table[1..].iter().map(|row| row[row.len() - from_end]).collect();
    assert_eq!(tests, ["pp8", "tg3"]);

    let md = stdout(&quick(&[]));
    let rows: Vec<&str> = md.lines().take_while(|line| line.starts_with('|')).collect();
    assert_eq!(rows.len(), 4, "{md}");
    assert!(rows[0].contains("| t/s") || rows[0].contains("t/s |"), "{md}");
    assert!(rows[2].contains(" pp8 |") && rows[3].contains(" tg3 |") && rows[3].contains('±'), "{md}");

    assert_eq!(parse(&stdout(&quick(&["--json"]))).as_array().unwrap().len(), 2);
}

#[test]
fn limits_are_measured_beside_the_tests() {
    let args = ["bench", "-p", "16", "-n", "2", "-r", "1", "-t", "1", "-o", "json"];
    let output = run(&args);
    assert_eq!(output.code, Some(0), "{output:?}");
    assert!(output.stderr.contains("using the bundled model"), "{}", output.stderr);
    assert_eq!(output.stderr.lines().count(), 1, "no progress in a pipe: {}", output.stderr);
    for row in parse(&output.stdout).as_array().unwrap() {
        for field in ["machine_read_gb_s", "limit_ts", "of_limit", "read_gb_s", "int8_gmac_s", "work_bytes"] {
            assert!(row[field].as_f64().unwrap() > 0.0, "{field}: {row}");
        }
        assert!(["memory", "int8"].contains(&row["limited_by"].as_str().unwrap()), "{row}");
        let part = row["avg_ts"].as_f64().unwrap() / row["limit_ts"].as_f64().unwrap();
        assert!((part / row["of_limit"].as_f64().unwrap() - 1.0).abs() < 1e-6, "{row}");
    }
}

#[test]
fn kernel_sets_can_be_named() {
    let rows = parse(&stdout(&quick(&["-o", "json", "--kernels", "scalar", "--top-k", "0", "--no-warmup"])));
    assert!(rows.as_array().unwrap().iter().all(|row| row["kernels"] == "scalar"));
    fails(&quick(&["--kernels", "abacus"]), 1, &["abacus", "scalar"]);
}

#[test]
fn a_report_is_one_page() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("out.html");
    let flags = ["--report", path.to_str().unwrap(), "-d", "0,8", "-b", "1,2"];
    let table = stdout(&quick(&flags));
    assert!(table.contains("tg3 @ d8"), "{table}");
    let page = std::fs::read_to_string(&path).unwrap();
    for part in [
        "<!DOCTYPE html>",
        "Speed of bitnet-tiny",
        "Generation against depth",
        "Generation against batch",
        "</html>",
    ] {
        assert!(page.contains(part), "{part}");
    }
    assert!(!page.contains("http") && !page.contains("<script"));
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
    let absent = folder.path().join("absent/out.html");
    fails(&quick(&["--report", absent.to_str().unwrap()]), 1, &["absent"]);
    fails(&quick(&["--report", folder.path().to_str().unwrap()]), 2, &["folder"]);
}

#[test]
fn operations_of_one_layer() {
    let args = ["bench", "ops", "--rows", "48", "--cols", "32", "-r", "2", "-o", "json"];
    let rows = parse(&stdout(&args));
    let names: Vec<&str> = rows.as_array().unwrap().iter().map(|r| r["kernels"].as_str().unwrap()).collect();
    assert!(names.contains(&"scalar"), "{names:?}");
    for row in rows.as_array().unwrap() {
        assert!(row["operations_s"].as_f64().unwrap() > 0.0, "{row}");
        assert_eq!((&row["rows"], &row["cols"], &row["rounds"]), (&48.into(), &32.into(), &2.into()));
    }
    let one = ["bench", "ops", "--rows", "16", "--cols", "16", "-r", "1", "--kernels", "scalar"];
    let table = stdout(&one);
    assert!(table.starts_with("kernels") && table.contains("16x16") && table.lines().count() == 2, "{table}");
    let csv = stdout(&[&one[..], &["-o", "csv"]].concat());
    assert_eq!(csv.lines().count(), 2);
    fails(&["bench", "ops", "--kernels", "abacus"], 1, &["abacus"]);
    fails(&["bench", "ops", "--rows", "0"], 2, &["--rows"]);
    fails(&["bench", "ops", "--rows", "1000000", "--cols", "1000000"], 2, &["2^30"]);
}

#[test]
fn grades() {
    let json = parse(&stdout(&["bench", "--score", "--json", "-q"]));
    let parts = json["parts"].as_array().unwrap();
    let names: Vec<&str> = parts.iter().map(|p| p["name"].as_str().unwrap()).collect();
    assert!(names.starts_with(&["throughput", "latency"]) && names.ends_with(&["batch"]), "{names:?}");
    let known = ["A+", "A", "B", "C", "D"];
    assert!(parts.iter().all(|p| known.contains(&p["grade"].as_str().unwrap())), "{json}");
    assert!(known.contains(&json["grade"].as_str().unwrap()));
    let points = json["points"].as_f64().unwrap();
    assert!((40.0..=100.0).contains(&points), "{json}");
    fails(&["bench", "--score", "-t", "1,2"], 2, &["one number of threads"]);
}

#[test]
fn what_cannot_be_measured_is_refused() {
    for (flags, part) in [
        (&["-p", "x"][..], "ranges"),
        (&["-p", "8-4"], "does not go up"),
        (&["-n", "1-2*1"], "does not go up"),
        (&["-d", "0-99999"], "1000 numbers"),
        (&["-t", "0"], "from 1 to 1024"),
        (&["-t", "2000"], "from 1 to 1024"),
        (&["-b", "0"], "at least 1"),
        (&["-r", "0"], "at least 1"),
        (&["-pg", "8"], "PROMPT,ANSWER"),
        (&["-o", "xml"], "jsonl"),
        (&["-p", "0", "-n", "0"], "nothing to measure"),
        (&["-p", "513"], "at most 512"),
        (&["-d", "510"], "lower -d"),
        (&["--score", "--report", "x.html"], "--report"),
        (&["-o", "csv", "--json"], "--json"),
    ] {
        fails(&[&["bench"], flags].concat(), 2, &[part]);
    }
    fails(&["bench", "-m", "/no/such/model"], 1, &["/no/such/model"]);
}

/// Ctrl-C ends the tests, not the results.
#[test]
#[cfg(target_os = "linux")]
fn an_interrupted_benchmark_prints_what_is_there() {
    use std::io::{BufRead, BufReader, Read};
    use std::process::{Command, Stdio};
    let mut command = Command::new(assert_cmd::cargo::cargo_bin("bitnet"));
    command.args([
        "bench",
        "-p",
        "8",
        "-n",
        "8",
        "-r",
        "1",
        "-d",
        "0-400+1",
        "-o",
        "jsonl",
        "--no-limits",
        "-q",
    ]);
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap();
    let mut out = BufReader::new(child.stdout.take().unwrap());
    let mut text = String::new();
    out.read_line(&mut text).unwrap();
    let kill = Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap();
    assert!(kill.success());
    out.read_to_string(&mut text).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(130));
    assert!(!text.is_empty() && text.lines().count() < 800, "{}", text.lines().count());
    assert!(text.lines().all(|line| parse(line)["avg_ts"].is_f64()));
}
