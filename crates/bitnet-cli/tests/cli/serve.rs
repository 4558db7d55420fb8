//! `bitnet serve`.

use std::io::Read;
use std::process::Command;

use crate::support::{bitnet, fails, serve, stdout};

#[test]
fn settings_are_printed_with_where_they_came_from() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("serve.toml");
    std::fs::write(&file, "queue = 7\nport = 1\nhost = \"::1\"\n").unwrap();
    let args = ["serve", "--config", file.to_str().unwrap(), "--port", "9", "-np", "3", "--print-config"];
    let output = bitnet(&args).env("BITNET_HOST", "0.0.0.0").output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    for line in [
        "port = 9  # flag --port",
        "host = \"0.0.0.0\"  # environment variable BITNET_HOST",
        &format!("queue = 7  # file {}", file.display()),
        "parallel = 3  # flag --parallel",
        "body_limit = \"32MB\"  # default",
        "# tls_cert is not set",
    ] {
        assert!(text.lines().any(|l| l == line), "{line}: {text}");
    }
    // What is printed is a configuration.
    std::fs::write(&file, &text).unwrap();
    let again = stdout(&["serve", "--config", file.to_str().unwrap(), "--print-config"]);
    assert!(again.contains("port = 9  # file ") && again.contains("parallel = 3  # file "), "{again}");
}

#[test]
fn help_has_examples() {
    let text = stdout(&["serve", "--help"]);
    for part in [
        "bitnet serve -m small=a.gguf",
        "--api-key-file",
        "--tls-cert",
        "BITNET_PORT",
        "/v1/chat/completions",
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
}

#[test]
fn mistakes_are_told() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("serve.toml");
    std::fs::write(&file, "prot = 8080\n").unwrap();
    let file = file.to_str().unwrap();
    fails(&["serve", "--config", file], 2, &["serve.toml", "prot"]);
    fails(&["serve", "--config", "/no/such.toml"], 2, &["/no/such.toml"]);
    fails(&["serve", "--parallel", "0"], 2, &["parallel = 0"]);
    fails(&["serve", "--tls-cert", "a.pem"], 2, &["tls_key"]);
    fails(&["serve", "--cors-origin", "example.org"], 2, &["cors_origin", "example.org"]);
    fails(&["serve", "--log-level", "=="], 2, &["log_level"]);
    fails(&["serve", "--host", "256.0.0.1"], 1, &["256.0.0.1"]);
    fails(&["serve", "-m", "/no/such/model"], 1, &["/no/such/model"]);
    fails(&["serve", "--api-key-file", "/no/such/keys"], 2, &["/no/such/keys"]);
}

#[cfg(unix)]
#[test]
fn a_server_ends_when_it_is_asked_to() {
    for signal in ["-TERM", "-INT"] {
        let mut server = serve(&["--log-format", "json"], &[]);
        assert!(server.get("/v1/models").starts_with("HTTP/1.1 200"));
        assert!(server.get("/").contains("<html"), "the chat page");
        let pid = server.child.id().to_string();
        assert!(Command::new("kill").args([signal, &pid]).status().unwrap().success());
        assert_eq!(server.child.wait().unwrap().code(), Some(0), "{signal}");
        let mut log = String::new();
        server.log.read_to_string(&mut log).unwrap();
        let line =
            log.lines().find(|line| line.contains("\"/v1/models\"")).unwrap_or_else(|| panic!("{log}"));
        let line: serde_json::Value = serde_json::from_str(line).unwrap();
        assert_eq!((&line["method"], &line["status"]), (&"GET".into(), &200.into()), "{line}");
        assert!(line["id"].is_string() && line["ms"].is_number(), "{line}");
    }
}
