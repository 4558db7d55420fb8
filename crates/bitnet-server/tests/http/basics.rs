//! Routes, ids, keys, origins, errors.

use serde_json::json;

use crate::support::{config, start, start_with};

#[test]
fn a_server_tells_of_itself() {
    let server = start();
    let mut client = server.connect();
    // Loading takes its time; until then it says so.
    loop {
        client.request("GET", "/health", &[], b"");
        let answer = client.answer().unwrap();
        if answer.status == 200 {
            assert_eq!(answer.json(), json!({"status": "ok"}));
            break;
        }
        answer.error(503);
        assert_eq!(answer.header("retry-after"), Some("1"));
    }
    let models = server.get("/v1/models").json();
    assert_eq!(models["data"][0]["id"], bitnet_tiny::NAME);
    let metrics = server.get("/metrics");
    assert!(metrics.header("content-type").unwrap().starts_with("text/plain; version=0.0.4"));
    let text = metrics.text();
    for part in
        ["bitnet_requests_total{route=\"/v1/models\",status=\"200\"} 1", "llamacpp:prompt_tokens_total 0"]
    {
        assert!(text.contains(part), "{part}: {text}");
    }
}

#[test]
fn wrong_paths_and_methods_are_error_objects() {
    let server = start();
    assert!(server.get("/no/such/thing").error(404).contains("/no/such/thing"));
    let answer = server.send("DELETE", "/health", &[], b"");
    assert!(answer.error(405).contains("DELETE"));
    assert!(answer.header("allow").unwrap().contains("GET"));
    assert!(server.send("BREW", "/health", &[], b"").error(405).contains("BREW"));
}

#[test]
fn requests_have_ids() {
    let server = start();
    let answer = server.send("GET", "/v1/models", &[("x-request-id", "mine-7")], b"");
    assert_eq!(answer.header("x-request-id"), Some("mine-7"));
    let (a, b) = (server.get("/v1/models"), server.get("/nothing"));
    let (a, b) = (a.header("x-request-id").unwrap(), b.header("x-request-id").unwrap());
    assert!(a.len() == 32 && b.len() == 32 && a != b, "{a} {b}");
}

#[test]
fn keys_are_needed_where_they_are_set() {
    let mut config = config();
    config.api_key = vec!["sesame".to_owned()];
    let server = start_with(config);
    let load = |headers: &[(&str, &str)]| server.send("POST", "/models/load", headers, b"{\"model\":\"no\"}");
    let refused = load(&[]);
    assert!(refused.error(401).contains("Bearer"));
    assert_eq!(refused.json()["error"]["type"], "authentication_error");
    load(&[("authorization", "Bearer wrong")]).error(401);
    load(&[("authorization", "Bearer ")]).error(401);
    load(&[("authorization", "Bearer sesame")]).error(404);
    load(&[("x-api-key", "sesame")]).error(404);
    server.get("/metrics").error(401);
    server.get("/no/such/thing").error(401);
    for public in ["/v1/models", "/models"] {
        assert_eq!(server.get(public).status, 200, "{public}");
    }
    assert_ne!(server.get("/health").status, 401);
}

#[test]
fn pages_need_a_permission() {
    let mut config = config();
    config.cors_origin = vec!["https://good.example".to_owned()];
    let server = start_with(config);
    let ask = |origin: &str| {
        let headers = [
            ("origin", origin),
            ("access-control-request-method", "POST"),
            ("access-control-request-headers", "content-type,authorization"),
        ];
        server.send("OPTIONS", "/models/load", &headers, b"")
    };
    let answer = ask("https://good.example");
    assert_eq!(
        (answer.status, answer.header("access-control-allow-origin")),
        (200, Some("https://good.example"))
    );
    assert!(answer.header("access-control-allow-headers").unwrap().contains("authorization"));
    assert_eq!(ask("https://evil.example").header("access-control-allow-origin"), None);
    let post = |origin: &str, site: &str| {
        let headers = [("origin", origin), ("sec-fetch-site", site)];
        server.send("POST", "/models/load", &headers, b"{\"model\":\"no\"}")
    };
    post("https://evil.example", "cross-site").error(403);
    let answer = post("https://good.example", "cross-site");
    answer.error(404);
    assert_eq!(answer.header("access-control-allow-origin"), Some("https://good.example"));
}
