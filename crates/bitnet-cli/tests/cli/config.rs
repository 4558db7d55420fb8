//! `bitnet config`, and what the file does to other commands.

use std::path::Path;

use crate::support::{Output, bitnet, fails};

/// Runs with this file and these further variables.
fn with(file: &Path, variables: &[(&str, &str)], args: &[&str]) -> Output {
    let output = bitnet(args).env("BITNET_CONFIG", file).envs(variables.iter().copied()).output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    Output { code: output.status.code(), stdout: text(output.stdout), stderr: text(output.stderr) }
}

#[test]
fn settings_are_set_shown_and_taken_away() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("new/config.toml");
    let ok = |args: &[&str]| {
        let output = with(&file, &[], args);
        assert_eq!(output.code, Some(0), "{args:?}: {output:?}");
        output.stdout
    };
    assert_eq!(with(&file, &[], &["generate", "Hi"]).code, Some(2), "a file that was named must be there");
    ok(&["config", "init"]);
    assert_eq!(with(&file, &[], &["config", "init"]).code, Some(1));
    assert_eq!(ok(&["config", "path"]).trim(), file.to_str().unwrap());
    for (name, value) in [("threads", "1"), ("sampling.temp", "0"), ("server.port", "9"), ("kv_type", "int8")]
    {
        ok(&["config", "set", name, value]);
        assert_eq!(ok(&["config", "get", name]).trim(), value, "{name}");
    }
    let text = std::fs::read_to_string(&file).unwrap();
    assert!(text.starts_with("# Settings of bitnet"), "{text}");
    let shown = ok(&["config"]);
    for name in ["threads", "sampling.temp", "server.port"] {
        let line = shown.lines().find(|line| line.split_whitespace().next() == Some(name)).unwrap();
        assert!(line.contains("file "), "{line}");
    }
    let output = with(&file, &[("BITNET_THREADS", "2")], &["config", "show", "--json"]);
    let rows: serde_json::Value = serde_json::from_str(&output.stdout).unwrap();
    let threads = rows.as_array().unwrap().iter().find(|row| row["name"] == "threads").unwrap();
    assert_eq!(
        (&threads["value"], &threads["origin"]),
        (&"2".into(), &"environment variable BITNET_THREADS".into())
    );
    ok(&["config", "unset", "threads"]);
    assert_eq!(with(&file, &[], &["config", "get", "threads"]).code, Some(1));
}

#[test]
fn flags_come_before_the_environment_before_the_file() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("c.toml");
    std::fs::write(&file, "kernels = \"file\"\n").unwrap();
    let fails_with = |variables: &[(&str, &str)], flags: &[&str], part: &str| {
        let output = with(&file, variables, &[&["generate", "Hi", "-n", "1"], flags].concat());
        assert!(output.code == Some(1) && output.stderr.contains(part), "{part}: {output:?}");
    };
    fails_with(&[], &[], "file");
    fails_with(&[("BITNET_KERNELS", "environment")], &[], "environment");
    fails_with(&[("BITNET_KERNELS", "environment")], &["--kernels", "flag"], "flag");
    // Sampling from the file gives the text that the flag gives.
    std::fs::write(&file, "threads = 1\n[sampling]\ntemp = 0\n").unwrap();
    let by_file = with(&file, &[], &["generate", "Once upon a time", "-n", "8"]);
    let none = dir.path().join("none.toml");
    std::fs::write(&none, "").unwrap();
    let by_flag = with(&none, &[], &["generate", "Once upon a time", "-n", "8", "--temp", "0"]);
    assert_eq!((by_file.code, &by_file.stdout), (Some(0), &by_flag.stdout), "{by_file:?}");
}

#[test]
fn a_server_reads_the_section() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("c.toml");
    std::fs::write(&file, "threads = 3\n[server]\nport = 7\nqueue = 5\n").unwrap();
    let output = with(&file, &[("BITNET_QUEUE", "6")], &["serve", "--print-config", "--host", "::1"]);
    for line in [
        format!("port = 7  # file {}", file.display()),
        format!("threads = 3  # file {}", file.display()),
        "queue = 6  # environment variable BITNET_QUEUE".to_owned(),
        "host = \"::1\"  # flag --host".to_owned(),
    ] {
        assert!(output.stdout.lines().any(|l| l == line), "{line}: {output:?}");
    }
}

#[test]
fn mistakes_name_line_and_nearest_setting_and_can_be_mended() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("c.toml");
    std::fs::write(&file, "# mine\ntreads = 3\n").unwrap();
    for args in [&["generate", "Hi"][..], &["config", "show"], &["config", "set", "threads", "1"]] {
        let output = with(&file, &[], args);
        assert_eq!(output.code, Some(2), "{args:?}: {output:?}");
        for part in ["c.toml, line 2", "`treads`", "did you mean `threads`?"] {
            assert!(output.stderr.contains(part), "{part}: {}", output.stderr);
        }
    }
    assert_eq!(with(&file, &[], &["config", "path"]).code, Some(0));
    assert_eq!(with(&file, &[], &["generate", "--help"]).code, Some(0));
    fails(&["config", "set", "temp", "1"], 2, &["sampling.temp"]);
    fails(&["config", "get", "server.prot"], 2, &["server.port"]);
}

#[cfg(unix)]
#[test]
fn an_editor_changes_the_file_and_it_is_checked() {
    use std::os::unix::fs::PermissionsExt;
    let dir = tempfile::tempdir().unwrap();
    let (file, editor) = (dir.path().join("c.toml"), dir.path().join("editor"));
    std::fs::write(&editor, "#!/bin/sh\necho \"$1\" >> \"$2\"\n").unwrap();
    std::fs::set_permissions(&editor, std::fs::Permissions::from_mode(0o755)).unwrap();
    let edit = |line: &str| {
        let editor = format!("{} '{line}'", editor.display());
        with(&file, &[("VISUAL", ""), ("EDITOR", &editor)], &["config", "edit"])
    };
    assert_eq!(edit("port = 9000").code, Some(0));
    let output = edit("prot = 9000");
    assert!(output.code == Some(2) && output.stderr.contains("did you mean `port`?"), "{output:?}");
}
