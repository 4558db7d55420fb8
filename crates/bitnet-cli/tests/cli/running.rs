//! `bitnet ps` and `bitnet stop`, with a server that runs.

use serde_json::Value;

use crate::support::{Output, bitnet, fails, serve};

/// Runs a command that finds servers in this folder.
fn with(runtime: &str, args: &[&str]) -> Output {
    let output = bitnet(args).env("XDG_RUNTIME_DIR", runtime).output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    Output { code: output.status.code(), stdout: text(output.stdout), stderr: text(output.stderr) }
}

#[cfg(unix)]
#[test]
fn a_server_is_found_asked_and_ended() {
    let dir = tempfile::tempdir().unwrap();
    let runtime = dir.path().to_str().unwrap();
    let mut server = serve(&["--api-key", "secret", "--log-level", "off"], &[("XDG_RUNTIME_DIR", runtime)]);
    while !server.get("/health").starts_with("HTTP/1.1 200") {
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    let url = format!("http://{}", server.address);
    let refused = with(runtime, &["ps"]);
    assert!(refused.code == Some(1) && refused.stderr.contains("--api-key"), "{refused:?}");
    let shown = with(runtime, &["ps", "--api-key", "secret"]);
    let rows: Vec<Vec<&str>> = shown.stdout.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(rows[0], ["NAME", "SIZE", "CONTEXT", "SLOTS", "TOKENS/S", "UP"], "{shown:?}");
    assert!(rows[1][0] == "bitnet-tiny" && rows[1].contains(&"512"), "{shown:?}");
    assert!(shown.stderr.contains(&url), "{shown:?}");
    let json = with(runtime, &["ps", "--api-key", "secret", "--json"]);
    let servers: Value = serde_json::from_str(&json.stdout).unwrap();
    assert_eq!(
        (&servers[0]["url"], &servers[0]["models"][0]["slots"]["running"]),
        (&url.clone().into(), &0.into())
    );

    let wrong = with(runtime, &["stop", "bitnet-tny", "--api-key", "secret"]);
    assert!(wrong.code == Some(1) && wrong.stderr.contains("did you mean bitnet-tiny?"), "{wrong:?}");
    let stopped = with(runtime, &["stop", "bitnet-tiny", "--api-key", "secret"]);
    assert!(stopped.code == Some(0) && stopped.stderr.contains("unloaded bitnet-tiny"), "{stopped:?}");
    let empty = with(runtime, &["ps", "--api-key", "secret"]);
    assert!(empty.stdout.is_empty() && empty.stderr.contains("no model is loaded"), "{empty:?}");
    assert_eq!(with(runtime, &["stop", "--all", "--api-key", "secret"]).code, Some(0));

    let elsewhere = with(runtime, &["stop", "--server", "--url", "http://127.0.0.1:1"]);
    assert!(elsewhere.code == Some(1) && elsewhere.stderr.contains(&url), "{elsewhere:?}");
    let ended = with(runtime, &["stop", "--server"]);
    assert!(ended.code == Some(0) && ended.stderr.contains(&url), "{ended:?}");
    assert_eq!(server.child.wait().unwrap().code(), Some(0));
    let left: Vec<_> = std::fs::read_dir(dir.path().join("bitnet/servers")).unwrap().collect();
    assert!(left.is_empty(), "{left:?}");
    assert_eq!(with(runtime, &["stop", "--server"]).code, Some(1));
}

#[cfg(unix)]
#[test]
fn a_server_at_a_socket_is_asked_as_others_are() {
    let dir = tempfile::tempdir().unwrap();
    let runtime = dir.path().to_str().unwrap();
    let socket = dir.path().join("b.sock");
    let flags = ["--unix-socket", socket.to_str().unwrap(), "--api-key", "secret", "--log-level", "off"];
    let mut server = serve(&flags, &[("XDG_RUNTIME_DIR", runtime)]);
    let url = format!("unix:{}", socket.display());
    assert_eq!(server.address, url);
    // Before the model is loaded it is not among those that can be unloaded.
    let json = loop {
        let json = with(runtime, &["ps", "--api-key", "secret", "--json"]);
        assert_eq!(json.code, Some(0), "{json:?}");
        if json.stdout.contains("tokens_per_second") {
            break json;
        }
        std::thread::sleep(std::time::Duration::from_millis(20));
    };
    let servers: Value = serde_json::from_str(&json.stdout).unwrap();
    assert_eq!(servers[0]["url"], url.as_str());
    let refused = with(runtime, &["ps"]);
    assert!(refused.code == Some(1) && refused.stderr.contains("--api-key"), "{refused:?}");
    let named = with("/dev/null/runtime", &["ps", "--url", &url, "--api-key", "secret"]);
    assert!(named.code == Some(0) && named.stdout.contains("bitnet-tiny"), "{named:?}");
    let stopped = with(runtime, &["stop", "bitnet-tiny", "--api-key", "secret"]);
    assert!(stopped.code == Some(0) && stopped.stderr.contains("unloaded bitnet-tiny"), "{stopped:?}");
    let ended = with(runtime, &["stop", "--server", "--url", &url]);
    assert!(ended.code == Some(0) && ended.stderr.contains(&url), "{ended:?}");
    assert_eq!(server.child.wait().unwrap().code(), Some(0));
    let gone = with(runtime, &["ps", "--url", &url]);
    assert!(gone.code == Some(1) && gone.stderr.contains("no server answers at unix:"), "{gone:?}");
}

#[test]
fn servers_that_are_not_there_are_told() {
    fails(&["ps", "--url", "http://127.0.0.1:1"], 1, &["no server answers at http://127.0.0.1:1"]);
    fails(&["ps", "--url", "ftp://a"], 2, &["ftp://a"]);
    fails(&["stop"], 2, &["MODEL"]);
    fails(&["stop", "a", "--all"], 2, &["--all"]);
}
