//! `bitnet tokenize`, `bitnet inspect --layers` and `bitnet doctor`.

use serde_json::{Value, json};

use crate::support::{bitnet, fails, run, run_with, stdout, write_model};

fn json_of(args: &[&str]) -> Value {
    serde_json::from_str(&stdout(args)).unwrap()
}

#[test]
fn tokens_go_there_and_back() {
    let text = "Once upon a time,\n\tthere was a “fox” 🦊.";
    let tokens = json_of(&["tokenize", text, "--json", "-q"]);
    let list = tokens["tokens"].as_array().unwrap();
    assert_eq!((&tokens["text"], &tokens["count"]), (&json!(text), &json!(list.len())));
    // The begin-of-text token is not in the text; the others are, one after the other.
    assert_eq!(
        (&list[0]["special"], &list[0]["start"], &list[0]["token"]),
        (&json!(true), &Value::Null, &json!("<|begin_of_text|>"))
    );
    let (mut at, mut bytes) = (0, Vec::new());
    for token in &list[1..] {
        assert_eq!(token["start"], at, "{token}");
        at = token["end"].as_u64().unwrap();
        bytes.extend(token["bytes"].as_array().unwrap().iter().map(|byte| byte.as_u64().unwrap() as u8));
    }
    assert_eq!((at, bytes.as_slice()), (text.len() as u64, text.as_bytes()));

    let ids = stdout(&["tokenize", text, "--ids", "-q"]);
    let listed: Vec<u64> = serde_json::from_str(&ids).unwrap();
    assert_eq!(listed, list.iter().map(|token| token["id"].as_u64().unwrap()).collect::<Vec<_>>());
    assert_eq!(stdout(&["tokenize", text, "--count", "-q"]), format!("{}\n", list.len()));
    assert_eq!(stdout(&["tokenize", "--decode", &ids, "--no-special", "-q"]), format!("{text}\n"));
    assert_eq!(stdout(&["tokenize", "--decode", &ids, "-q"]), format!("<|begin_of_text|>{text}\n"));
    let piped = run_with(&["tokenize", "--decode", "-", "--no-special"], &ids);
    assert_eq!((piped.code, piped.stdout), (Some(0), format!("{text}\n")));
}

#[test]
fn pieces_are_lines_where_there_is_no_terminal() {
    let lines = stdout(&["tokenize", "A fox.\n", "--no-bos", "-q"]);
    let pieces: Vec<&str> = lines.lines().map(|line| line.split_once('\t').unwrap().1).collect();
    assert_eq!(pieces.concat(), "A fox.\\n");
    assert!(!lines.contains('\u{1b}'), "{lines}");
    let coloured = bitnet(&["tokenize", "A fox.\n", "-q"])
        .env_remove("NO_COLOR")
        .env("CLICOLOR_FORCE", "1")
        .output()
        .unwrap();
    let coloured = String::from_utf8(coloured.stdout).unwrap();
    assert!(
        coloured.contains("\u{1b}[") && coloured.contains("·fox") && coloured.contains('↵'),
        "{coloured:?}"
    );
}

#[test]
fn special_tokens_are_recognised_if_wanted() {
    let count = |args: &[&str]| -> usize {
        stdout(&[&["tokenize", "--count", "-q"], args].concat()).trim().parse().unwrap()
    };
    assert_eq!(count(&["<|eot_id|>"]), 2);
    assert_eq!(count(&["<|eot_id|>", "--no-bos"]), 1);
    let spelled = count(&["<|eot_id|>", "--no-special"]);
    assert!(spelled > 1);
    assert_eq!(count(&["<|eot_id|>", "--no-parse-special"]), spelled + 1);
}

#[test]
fn chats_are_put_into_the_template() {
    let tokens = json_of(&["tokenize", "--chat", "-sys", "Be brief.", "<|eot_id|>", "--json", "-q"]);
    let text = tokens["text"].as_str().unwrap();
    assert!(text.contains("Be brief.") && text.contains("<|eot_id|>"), "{text}");
    let special =
        tokens["tokens"].as_array().unwrap().iter().filter(|token| token["token"] == "<|eot_id|>").count();
    // What the user wrote is text; what the template writes is not.
    assert_eq!(text.matches("<|eot_id|>").count(), special + 1, "{text}");
    let ids = stdout(&["tokenize", "--chat", "Hi", "--ids", "-q"]);
    assert_eq!(ids, stdout(&["tokenize", "--chat", "-p", "Hi", "--ids", "-q"]));
}

#[test]
fn texts_come_from_everywhere() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("text");
    std::fs::write(&file, "A fox\n").unwrap();
    let ids = stdout(&["tokenize", "A fox", "--ids", "-q"]);
    assert_eq!(stdout(&["tokenize", "-f", file.to_str().unwrap(), "--ids", "-q"]), ids);
    for args in [
        &["tokenize", "-", "--ids", "-q"][..],
        &["tokenize", "--stdin", "--ids", "-q"],
        &["tokenize", "--ids", "-q"],
    ] {
        assert_eq!(run_with(args, "A fox\n").stdout, ids, "{args:?}");
    }
    fails(&["tokenize", "--decode", "1 x"], 2, &["\"x\" is not the id of a token"]);
    fails(&["tokenize", "--decode", "99999999"], 2, &["no token 99999999", "8192"]);
    fails(&["tokenize", "-f", "/no/such/file"], 1, &["/no/such/file"]);
}

#[test]
fn layers_tell_of_weights_and_activations() {
    let out = json_of(&["inspect", "--layers", "--sample-text", "Once upon a time", "--json", "-q"]);
    let layers = out["layers"].as_array().unwrap();
    assert_eq!(layers.len(), out["architecture"]["num_layers"].as_u64().unwrap() as usize);
    assert_eq!(
        (&out["ternary"]["count"], &out["sample"]["text"]),
        (&json!(31_457_280), &json!("Once upon a time"))
    );
    for (number, layer) in layers.iter().enumerate() {
        assert_eq!(layer["layer"], number);
        let names: Vec<&str> =
            layer["projections"].as_array().unwrap().iter().map(|p| p["name"].as_str().unwrap()).collect();
        assert_eq!(names, ["q", "k", "v", "o", "gate", "up", "down"]);
        for projection in layer["projections"].as_array().unwrap() {
            let weights = &projection["weights"];
            let shares: f64 =
                ["minus", "zero", "plus"].iter().map(|key| weights[key].as_f64().unwrap()).sum();
            assert!((shares - 1.0).abs() < 1e-9);
            let (bits, fives) =
                (weights["bits"].as_f64().unwrap(), weights["bits_in_fives"].as_f64().unwrap());
            assert!(fives <= bits && bits < 1.585 && fives > 1.0, "{weights}");
            let input = &projection["input"];
            assert!(
                input["absmax"].as_f64().unwrap() > 0.0 && input["saturated_share"].as_f64().unwrap() > 0.0
            );
        }
    }
    let alone = json_of(&["inspect", "--layers", "--no-sample", "--json", "-q"]);
    assert_eq!(
        (&alone["layers"][0]["projections"][0]["input"], &alone["sample"]),
        (&Value::Null, &Value::Null)
    );
    assert_eq!(alone["layers"][0]["weights"], out["layers"][0]["weights"]);
}

#[test]
fn layers_are_a_table_or_a_page() {
    let folder = tempfile::tempdir().unwrap();
    let table = stdout(&["inspect", "--layers", "--sample-text", "A fox", "--sample-tokens", "2", "-q"]);
    assert!(
        table.starts_with("layer") && table.contains("gate") && table.contains("activations of 2 tokens"),
        "{table}"
    );
    let page = folder.path().join("layers.html");
    let path = page.to_str().unwrap();
    assert_eq!(stdout(&["inspect", "--html", path, "--sample-text", "A fox", "-q"]), format!("{path}\n"));
    let text = std::fs::read_to_string(&page).unwrap();
    assert!(text.starts_with("<!DOCTYPE html>") && text.matches("<svg").count() == 7);
    fails(&["inspect", "--html", "/no/such/folder/x.html"], 1, &["/no/such/folder/x.html"]);
    fails(&["inspect", "--layers", "--sample-file", "/no/such/file"], 1, &["/no/such/file"]);
}

#[test]
fn tensors_have_their_place() {
    let folder = tempfile::tempdir().unwrap();
    write_model(folder.path());
    let out = json_of(&["inspect", folder.path().to_str().unwrap(), "--tensors", "--json", "-q"]);
    let file = std::fs::read(folder.path().join("model.safetensors")).unwrap();
    let mut ends = Vec::new();
    for tensor in out["tensors"].as_array().unwrap() {
        assert!(tensor["file"].as_str().unwrap().ends_with("model.safetensors"));
        ends.push(tensor["offset"].as_u64().unwrap() + tensor["bytes"].as_u64().unwrap());
    }
    assert_eq!(ends.iter().max(), Some(&(file.len() as u64)), "the last tensor ends with the file");
}

fn findings<'a>(report: &'a Value, check: &str) -> Vec<&'a Value> {
    report["findings"].as_array().unwrap().iter().filter(|finding| finding["check"] == check).collect()
}

#[test]
fn the_doctor_looks_at_everything() {
    let home = tempfile::tempdir().unwrap();
    let output = bitnet(&["doctor", "--quick", "--json"]).env("HF_HOME", home.path()).output().unwrap();
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((output.status.code(), &report["ok"]), (Some(0), &json!(true)), "{report:#}");
    for check in
        ["features", "kernels", "model", "nvidia", "vulkan", "bundled", "folder", "integrity", "port", "hub"]
    {
        let found = findings(&report, check);
        assert_eq!(found.len(), 1, "{check}: {report:#}");
        assert!(!found[0]["message"].as_str().unwrap().is_empty());
    }
    assert_eq!(findings(&report, "bundled")[0]["state"], "ok");
    for finding in report["findings"].as_array().unwrap() {
        let bad = ["warning", "problem"].contains(&finding["state"].as_str().unwrap());
        assert!(!bad || finding["advice"].is_string(), "no advice: {finding}");
    }
    let text = bitnet(&["doctor", "--quick"]).env("HF_HOME", home.path()).output().unwrap();
    let text = String::from_utf8(text.stdout).unwrap();
    assert!(text.contains("processor\n") && text.contains("  ✓ the bundled model computes"), "{text}");
    assert_eq!(std::fs::read_dir(home.path()).unwrap().count(), 0, "nothing is left behind");
}

#[test]
fn the_doctor_measures_speed() {
    let report = run(&["doctor", "--json"]);
    let report: Value = serde_json::from_str(&report.stdout).unwrap();
    let speed = findings(&report, "bundled_model");
    assert!(speed[0]["values"]["generated_per_second"].as_f64().unwrap() > 0.0, "{report:#}");
    assert!(findings(&report, "memory")[0]["values"]["read_bytes_per_second"].as_f64().unwrap() > 0.0);
}

#[test]
fn damage_is_a_problem_and_its_exit_code_is_1() {
    let folder = tempfile::tempdir().unwrap();
    write_model(folder.path());
    let home = tempfile::tempdir().unwrap();
    let doctor = |args: &[&str]| {
        let output = bitnet(&[&["doctor", "--quick", "--json", "-q"], args].concat())
            .env("HF_HOME", home.path())
            .output()
            .unwrap();
        let report: Value = serde_json::from_slice(&output.stdout).unwrap();
        (output.status.code(), report)
    };
    let path = folder.path().to_str().unwrap();
    let (code, report) = doctor(&["-m", path, "--deep"]);
    assert_eq!(code, Some(0), "{report:#}");
    assert_eq!(findings(&report, "weights")[0]["state"], "ok");
    std::fs::write(folder.path().join("model.safetensors"), "short").unwrap();
    let (code, report) = doctor(&["-m", path]);
    assert_eq!((code, &report["ok"], &report["problems"]), (Some(1), &json!(false), &json!(1)), "{report:#}");
    assert_eq!(findings(&report, "named")[0]["state"], "problem");

    // A content of the cache that is gone: found, and with --fix removed.
    let snapshot = home.path().join("hub/models--org--m/snapshots").join("a".repeat(40));
    std::fs::create_dir_all(&snapshot).unwrap();
    if cfg!(unix) {
        #[cfg(unix)]
        std::os::unix::fs::symlink("../../blobs/none", snapshot.join("config.json")).unwrap();
        let (code, report) = doctor(&[]);
        assert_eq!((code, findings(&report, "broken_link").len()), (Some(1), 1), "{report:#}");
        let (code, report) = doctor(&["--fix"]);
        assert_eq!((code, findings(&report, "broken_link").len()), (Some(0), 0), "{report:#}");
    }
    fails(&["doctor", "--online", "--offline"], 2, &["--offline"]);
}
