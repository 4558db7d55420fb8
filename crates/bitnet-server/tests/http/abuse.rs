//! What no client should do: an error object or a closed connection, and nothing left behind.

use std::io::Write;
use std::net::Shutdown;

use serde_json::json;

use crate::stream::{PATH, long, short};
use crate::support::{Running, config, start, start_with};

/// The server still does what it is for.
fn is_well(server: &Running) {
    server.wait_until_idle();
    let answer = server.post(PATH, &short("Once", 1));
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert!(!answer.text().is_empty());
    assert!(server.get("/metrics").text().contains("bitnet_handler_panics_total 0"));
}

#[test]
fn bodies_that_make_no_sense_are_error_objects() {
    let server = start();
    let mut client = server.connect();
    let deep = "[".repeat(200_000);
    let bodies: [&[u8]; 9] = [
        b"",
        b"{",
        b"nonsense",
        b"{\"prompt\": \"\xff\xfe\"}",
        b"{\"prompt\": 7}",
        b"{\"prompt\": \"a\", \"max_tokens\": -1}",
        b"{\"prompt\": \"a\", \"max_tokens\": 1e300}",
        b"{\"prompt\": \"a\", \"surprise\": true}",
        deep.as_bytes(),
    ];
    for body in bodies {
        // One connection for all: none of these ends it.
        client.request("POST", PATH, &[], body);
        let message = client.answer().unwrap().error(400);
        assert!(message.len() < 1000, "{message}");
    }
    let wrong = server.post(PATH, &json!({"prompt": "a", "stop": ["x", 7]}));
    wrong.error(400);
    assert_eq!(wrong.json()["error"]["param"], "stop[1]");
    server.post(PATH, &json!({"prompt": "a", "max_tokens": 0})).error(400);
    server.post(PATH, &json!({"prompt": "a", "n": 0})).error(400);
    is_well(&server);
}

#[test]
fn sizes_have_limits() {
    let mut config = config();
    config.body_limit = "4MB".parse().unwrap();
    let server = start_with(config);
    let mut client = server.connect();
    client.request("POST", PATH, &[("content-length", "99999999999")], b"");
    assert!(client.answer().unwrap().error(413).contains("body_limit"));
    // One that is not announced is cut off on the way.
    let mut client = server.connect();
    let head = format!("POST {PATH} HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n");
    client.stream.write_all(head.as_bytes()).unwrap();
    let chunk = [b"100000\r\n".to_vec(), vec![b' '; 1 << 20], b"\r\n".to_vec()].concat();
    for _ in 0..6 {
        if client.stream.write_all(&chunk).is_err() {
            break;
        }
    }
    if let Some(answer) = client.answer() {
        answer.error(413);
    }
    // A prompt of a megabyte fits the body, not the context.
    let answer = server.post(PATH, &json!({"prompt": "word ".repeat(200_000)}));
    answer.error(400);
    assert_eq!(answer.json()["error"]["type"], "exceed_context_size_error");
    // Ten thousand stop strings are many, but no mistake.
    let stop: Vec<String> = (0..10_000).map(|i| format!("stop {i}")).collect();
    let answer = server.post(PATH, &json!({"prompt": "Once", "max_tokens": 4, "stop": stop}));
    assert_eq!(answer.status, 200, "{}", answer.text());
    // A head without end.
    let mut client = server.connect();
    let _ = client.stream.write_all(b"GET / HTTP/1.1\r\n");
    for _ in 0..64 {
        if client.stream.write_all(format!("x-filler: {}\r\n", "y".repeat(4096)).as_bytes()).is_err() {
            break;
        }
    }
    assert!(client.head().is_none_or(|answer| answer.status == 431));
    is_well(&server);
}

#[test]
fn what_is_no_http_is_not_listened_to() {
    let server = start();
    for garbage in [&b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"[..], b"\r\n\r\nHELO\r\n\r\n", &[0; 512]]
    {
        let mut client = server.connect();
        client.stream.write_all(garbage).unwrap();
        client.stream.shutdown(Shutdown::Write).unwrap();
        assert!(client.head().is_none_or(|answer| answer.status == 400));
    }
    is_well(&server);
}

#[test]
fn who_stops_in_the_middle_is_not_waited_for() {
    let mut config = config();
    (config.header_timeout, config.body_timeout) = (1, 1);
    let server = start_with(config);
    let mut silent = server.connect();
    let mut half_head = server.connect();
    half_head.stream.write_all(b"POST /test/stream HTTP/1.1\r\nhost: a\r\n").unwrap();
    let mut half_body = server.connect();
    half_body.request("POST", PATH, &[("content-length", "100")], b"{\"prompt\":");
    assert!(half_body.answer().unwrap().error(408).contains('1'));
    assert!(!silent.more());
    while half_head.more() {}
    is_well(&server);
}

#[test]
fn who_vanishes_frees_the_slot() {
    let server = start();
    for _ in 0..3 {
        let mut client = server.connect();
        client.request("POST", PATH, &[], long().to_string().as_bytes());
        assert_eq!(client.head().unwrap().status, 200);
        client.chunk().unwrap();
        drop(client);
        let stats = server.wait_until_idle();
        assert_eq!(stats.finished, 0, "it ended by itself");
    }
    let stats = server.wait_until_idle();
    assert_eq!((stats.cancelled, stats.failed), (3, 0));
    let text = server.get("/metrics").text();
    assert!(text.contains(&format!("bitnet_requests_total{{route=\"{PATH}\",status=\"499\"}} 3")), "{text}");
    is_well(&server);
}

#[test]
fn who_vanishes_while_waiting_leaves_the_queue() {
    let mut config = config();
    config.parallel = 1;
    let server = start_with(config);
    let ask = || {
        let mut client = server.connect();
        client.request("POST", PATH, &[], long().to_string().as_bytes());
        client
    };
    let mut first = ask();
    assert_eq!(first.head().unwrap().status, 200);
    let waiting = [ask(), ask(), ask()];
    server.wait_for("three wait", |stats| stats.requests_total == 4);
    drop(waiting);
    server.wait_for("nobody waits", |stats| stats.queued == 0 && stats.cancelled == 3);
    drop(first);
    is_well(&server);
}

#[test]
fn who_does_not_read_is_dropped() {
    let mut config = config();
    config.write_timeout = 1;
    let server = start_with(config);
    let mut client = server.connect();
    // More a token than systems keep for a connection.
    let request = json!({"prompt": "Once upon a time", "n": 128, "padding": 1 << 20});
    client.request("POST", PATH, &[], request.to_string().as_bytes());
    assert_eq!(client.head().unwrap().status, 200);
    let stats = server.wait_until_idle();
    assert_eq!((stats.finished, stats.cancelled), (0, 1), "{stats:?}");
    is_well(&server);
}

#[test]
fn a_crowd_of_all_kinds_leaves_nothing_behind() {
    let server = start();
    std::thread::scope(|scope| {
        for kind in 0..12_u64 {
            let server = &server;
            scope.spawn(move || {
                for round in 0..8 {
                    let mut client = server.connect();
                    match (kind + round) % 4 {
                        0 => client.request("POST", PATH, &[], short("Once", round).to_string().as_bytes()),
                        1 => client.request("POST", PATH, &[], b"{\"prompt\": [}"),
                        2 => client.request("POST", PATH, &[("content-length", "50")], b"{"),
                        _ => client.request("POST", PATH, &[], long().to_string().as_bytes()),
                    }
                    match (kind + round) % 4 {
                        0 => assert_eq!(client.answer().unwrap().status, 200),
                        1 => drop(client.answer().unwrap().error(400)),
                        // The others go away in the middle.
                        3 => assert_eq!(client.head().unwrap().status, 200),
                        _ => {}
                    }
                }
            });
        }
    });
    let stats = server.wait_until_idle();
    assert_eq!((stats.finished, stats.failed, stats.cancelled), (24, 0, 24));
    is_well(&server);
}
