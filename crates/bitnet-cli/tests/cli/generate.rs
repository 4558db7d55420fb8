//! `bitnet generate`.

use crate::support::{bitnet, fails, run, run_with, stdout};

const STORY: &[&str] = &["generate", "Once upon a time", "-n", "12", "-q"];

fn story<'a>(more: &[&'a str]) -> Vec<&'a str> {
    [STORY, more].concat()
}

#[test]
fn a_seed_gives_the_same_text_twice() {
    let first = stdout(&story(&["--seed", "7"]));
    assert!(first.len() > 10 && first.ends_with('\n'), "{first:?}");
    assert_eq!(first, stdout(&story(&["--seed", "7"])));
    assert_ne!(first, stdout(&story(&["--seed", "8"])));
}

#[test]
fn threads_and_kernels_do_not_change_the_text() {
    let one = stdout(&story(&["--temp", "0", "--threads", "1"]));
    assert_eq!(one, stdout(&story(&["--temp", "0", "--threads", "2"])));
    assert_eq!(one, stdout(&story(&["--temp", "0", "--kernels", "scalar"])));
}

#[test]
fn the_type_of_keys_and_values_can_be_chosen() {
    let stats = |kv_type: &[&str]| -> serde_json::Value {
        let args = ["generate", "The sea", "-n", "6", "--seed", "3", "--json"];
        serde_json::from_str(&stdout(&[&args[..], kv_type].concat())).unwrap()
    };
    let bytes = |kv_type: &[&str], name: &str| {
        let stats = &stats(kv_type)["stats"];
        assert_eq!(stats["kv_type"], name);
        stats["kv_bytes_per_token"].as_u64().unwrap()
    };
    let half = bytes(&[], "f16");
    assert_eq!(bytes(&["--kv-type", "f32"], "f32"), 2 * half);
    let int8 = bytes(&["--cache-type", "q8_0"], "int8");
    assert!(int8 > half / 2 && int8 < half * 2 / 3, "{int8} and {half}");
    fails(&["generate", "Hi", "--kv-type", "q4_0"], 2, &["q4_0", "int8"]);
}

#[test]
fn a_prompt_comes_from_argument_flag_stdin_or_file() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("prompt.txt");
    std::fs::write(&file, "Once upon a time\n").unwrap();
    let file = file.to_str().unwrap();
    let flags = ["-n", "8", "-q", "--seed", "1"];
    let run = |args: &[&str], stdin: &str| {
        let output = run_with(&[&["generate"], args, &flags].concat(), stdin);
        assert_eq!(output.code, Some(0), "{output:?}");
        output.stdout
    };
    let want = run(&["Once upon a time"], "");
    assert_eq!(run(&["-p", "Once upon a time"], ""), want);
    assert_eq!(run(&["-"], "Once upon a time\n"), want);
    assert_eq!(run(&[], "Once upon a time\r\n"), want);
    assert_eq!(run(&["--file", file], ""), want);
    assert_ne!(run(&[], "Once upon a time\n\n"), want, "only one line break is taken off");
}

#[test]
fn results_go_to_stdout_and_all_else_to_stderr() {
    let output = run(&["generate", "The sea", "-n", "6", "--seed", "3", "--stats"]);
    assert_eq!(output.code, Some(0), "{output:?}");
    assert_eq!(output.stdout.lines().count(), output.stdout.trim_end_matches('\n').lines().count());
    for part in [
        "bundled model bitnet-tiny",
        "seed 3",
        "tok/s",
        "ms/token",
        "peak memory",
        "load time",
        "beside the weights",
    ] {
        assert!(output.stderr.contains(part), "{part}: {}", output.stderr);
        assert!(!output.stdout.contains(part), "{part}: {}", output.stdout);
    }
    assert!(!output.stderr.contains('\u{1b}'), "NO_COLOR means none: {:?}", output.stderr);
    assert_eq!(run(&story(&["--seed", "3"])).stderr, "", "quiet");
}

#[test]
fn json_is_one_object_with_text_and_figures() {
    let text = stdout(&["generate", "The sea", "-n", "6", "--seed", "3", "--ignore-eos", "--json"]);
    let json: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(json["seed"], 3);
    assert_eq!(json["finish"], "length");
    assert_eq!(json["tokens"].as_array().unwrap().len(), 6);
    assert_eq!(json["stats"]["generated_tokens"], 6);
    assert!(json["stats"]["peak_bytes"].is_u64() || cfg!(not(target_os = "linux")));
    let plain = stdout(&["generate", "The sea", "-n", "6", "--seed", "3", "--ignore-eos", "-q"]);
    assert_eq!(format!("{}\n", json["text"].as_str().unwrap()), plain);
}

#[test]
fn an_echo_puts_the_prompt_before_the_text() {
    let plain = stdout(&story(&["--seed", "7"]));
    assert_eq!(stdout(&story(&["--seed", "7", "--echo"])), format!("Once upon a time{plain}"));
}

#[test]
fn a_stop_string_ends_the_text() {
    let whole = stdout(&story(&["--seed", "7"]));
    let word = whole.split_whitespace().nth(4).unwrap();
    let cut = stdout(&story(&["--seed", "7", "--stop", word]));
    assert_eq!(cut.trim_end_matches('\n'), whole.split(word).next().unwrap());
}

#[test]
fn a_chat_answer_is_trimmed_and_a_system_message_means_chat() {
    let args = ["generate", "--seed", "5", "-n", "20", "-q", "Hello!"];
    let chat = stdout(&[&args[..], &["--chat"]].concat());
    assert!(!chat.starts_with(' '), "{chat:?}");
    assert_ne!(chat, stdout(&args));
    let system = stdout(&[&args[..], &["-sys", "You are a pirate."]].concat());
    assert_eq!(system, stdout(&[&args[..], &["--system", "You are a pirate.", "--chat"]].concat()));
}

#[test]
fn the_environment_names_model_and_threads() {
    let output =
        bitnet(&["generate", "Hi", "-n", "2"]).env("BITNET_THREADS", "1").arg("--stats").output().unwrap();
    assert!(String::from_utf8_lossy(&output.stderr).contains("1 thread"), "{output:?}");
    let output = bitnet(&["generate", "Hi"]).env("BITNET_MODEL", "/no/such/model").output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("/no/such/model"));
}

/// A reader that goes away is no error.
#[test]
#[cfg(unix)]
fn a_closed_stdout_ends_it_quietly() {
    use std::process::Stdio;
    let mut command = std::process::Command::new(assert_cmd::cargo::cargo_bin("bitnet"));
    command.args(["generate", "Once upon a time", "--ignore-eos", "-q"]).stdin(Stdio::null());
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert!(output.stderr.is_empty(), "{output:?}");
}
