//! Completions, manual pages, the reference, and what scripts see: exit codes and lines of JSON.

use crate::support::{bitnet, fails, run, stdout, write_model};

#[test]
fn shells_are_told_how_to_ask() {
    for (shell, part) in [
        ("bash", "complete -o nospace"),
        ("zsh", "#compdef bitnet"),
        ("fish", "complete --keep-order"),
        ("powershell", "Register-ArgumentCompleter"),
        ("elvish", "edit:completion"),
    ] {
        let script = stdout(&["completions", shell]);
        assert!(script.contains(part) && script.contains("BITNET_COMPLETE"), "{shell}: {script}");
    }
    fails(&["completions", "cmd"], 2, &["bash"]);
}

/// What bash is offered for the last word.
fn offered(words: &[&str], variables: &[(&str, &str)]) -> Vec<String> {
    let mut command = bitnet(&[&["--", "bitnet"], words].concat());
    command.env("BITNET_COMPLETE", "bash").env("_CLAP_COMPLETE_INDEX", words.len().to_string());
    let output = command.env("_CLAP_IFS", "\n").envs(variables.iter().copied()).output().unwrap();
    String::from_utf8(output.stdout).unwrap().lines().map(str::to_owned).collect()
}

#[test]
fn commands_flags_settings_and_cached_models_are_offered() {
    assert_eq!(offered(&["conv"], &[]), ["convert"]);
    assert!(offered(&["generate", "--top-"], &[]).contains(&"--top-k".to_owned()));
    assert!(offered(&["generate", "--weight-form", ""], &[]).contains(&"1.6bit".to_owned()));
    assert_eq!(offered(&["config", "set", "sampling.top_p"], &[]), ["sampling.top_p"]);
    assert!(!offered(&[""], &[]).contains(&"reference".to_owned()));
    let cache = tempfile::tempdir().unwrap();
    let snapshot = cache.path().join("models--org--small/snapshots/0123456789abcdef0123456789abcdef01234567");
    std::fs::create_dir_all(&snapshot).unwrap();
    write_model(&snapshot);
    let variables = [("HF_HUB_CACHE", cache.path().to_str().unwrap())];
    assert_eq!(offered(&["generate", "-m", "or"], &variables), ["org/small"]);
    assert_eq!(offered(&["rm", "org/"], &variables), ["org/small"]);
}

#[test]
fn manual_pages_are_written_for_all_commands() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("man1");
    stdout(&["man", "--output", folder.to_str().unwrap()]);
    for name in ["bitnet.1", "bitnet-generate.1", "bitnet-config-set.1", "bitnet-bench-ops.1"] {
        let page = std::fs::read_to_string(folder.join(name)).unwrap();
        for part in [".TH", ".SH NAME", "Examples:", ".SH \"EXIT STATUS\""] {
            assert!(page.contains(part), "{name}: no {part} in {page}");
        }
    }
    assert!(!folder.join("bitnet-reference.1").exists());
    assert_eq!(stdout(&["man", "chat"]), std::fs::read_to_string(folder.join("bitnet-chat.1")).unwrap());
    fails(&["man", "genrate"], 2, &["did you mean `generate`?"]);
}

#[test]
fn a_command_line_can_be_checked_without_being_run() {
    for words in [&["generate", "--temp", "0", "Hi"][..], &["pull", "org/model"], &["bench", "--help"]] {
        assert_eq!(stdout(&[&["reference", "check", "--"], words].concat()), "");
    }
    fails(&["reference", "check", "--", "generate", "--tmep", "0"], 2, &["--tmep", "--temp"]);
}

#[test]
fn exit_codes_are_documented_and_kept() {
    let help = stdout(&["--help"]);
    for line in ["0    it is done", "1    it failed", "2    it was asked", "130  it was interrupted"] {
        assert!(help.contains(line), "{line}: {help}");
    }
    assert_eq!(run(&["generate", "-m", "/no/such/model", "Hi"]).code, Some(1));
    assert_eq!(run(&["genrate"]).code, Some(2));
    assert!(run(&["genrate"]).stderr.contains("'generate'"));
}

#[test]
fn machines_read_lines_of_json() {
    let lines = |args: &[&str]| {
        let output = run(args);
        let lines = output.stderr.lines();
        let lines: Vec<serde_json::Value> = lines
            .map(|line| serde_json::from_str(line).unwrap_or_else(|_| panic!("{args:?}: {line}")))
            .collect();
        (output.code, lines)
    };
    let (code, said) = lines(&["generate", "Hi", "-n", "1", "--log-format", "json", "-v"]);
    assert_eq!(code, Some(0));
    assert!(said.len() >= 2 && said.iter().all(|line| line["timestamp"].is_string()), "{said:?}");
    assert!(said.iter().any(|line| line["level"] == "INFO"));
    let (code, said) = lines(&["--log-format=json", "-q", "generate", "--kernels", "avx51", "Hi"]);
    assert_eq!((code, said.len(), &said[0]["level"]), (Some(1), 1, &"ERROR".into()), "{said:?}");
    assert!(said[0]["hint"].as_str().unwrap().contains("bitnet devices"), "{said:?}");
    let (code, said) = lines(&["generate", "--log-format", "json", "--no-such-flag"]);
    assert!(code == Some(2) && said[0]["message"].as_str().unwrap().contains("--no-such-flag"), "{said:?}");
}
