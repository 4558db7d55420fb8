//! Requests beside each other, and what is counted of them.

use bitnet_inference::{GenerateRequest, Prompt};
use serde_json::json;

use crate::stream::{PATH, long, short};
use crate::support::{config, start, start_with};

#[test]
fn texts_are_the_same_alone_and_in_company() {
    let server = start();
    let prompts = ["Once upon a time", "The cat", "One day", "Lily saw a"];
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let model = runtime.block_on(server.state.model(None)).unwrap();
    let alone = |prompt: &str, seed| {
        let mut request = GenerateRequest::new(Prompt::text(prompt)).max_tokens(24).seed(seed);
        request.ignore_eos = true;
        model.engine().generate_blocking(&request).unwrap().text
    };
    std::thread::scope(|scope| {
        for client in 0..8_u64 {
            let (server, alone) = (&server, &alone);
            scope.spawn(move || {
                for round in 0..4 {
                    let seed = client * 10 + round;
                    let prompt = prompts[seed as usize % prompts.len()];
                    let answer = server.post(PATH, &short(prompt, seed));
                    assert_eq!((answer.status, answer.text()), (200, alone(prompt, seed)), "{prompt} {seed}");
                }
            });
        }
    });
    server.wait_until_idle();
    let text = server.get("/metrics").text();
    let name = bitnet_tiny::NAME;
    for part in [
        format!("bitnet_generated_tokens_total{{model=\"{name}\"}} {}", 32 * 24),
        format!("bitnet_time_to_first_token_seconds_count{{model=\"{name}\"}} 32"),
        format!("bitnet_inter_token_seconds_count{{model=\"{name}\"}} {}", 32 * 23),
        format!("bitnet_inter_token_seconds_bucket{{model=\"{name}\",le=\"+Inf\"}} {}", 32 * 23),
        format!("bitnet_generations_total{{model=\"{name}\",reason=\"length\"}} 32"),
        format!("bitnet_running{{model=\"{name}\"}} 0"),
        format!("bitnet_kv_blocks_used{{model=\"{name}\"}} 0"),
        format!("llamacpp:tokens_predicted_total {}", 32 * 24),
        "llamacpp:requests_processing 0".to_owned(),
    ] {
        assert!(text.contains(&part), "{part}: {text}");
    }
}

#[test]
fn a_full_queue_refuses() {
    for (overload, status) in [(503, 503), (429, 429)] {
        let mut config = config();
        (config.parallel, config.queue, config.overload) = (1, 1, overload);
        let server = start_with(config);
        let mut taken = Vec::new();
        let refused = loop {
            assert!(taken.len() < 8, "nothing is refused");
            let before = server.wait_for("any", |_| true);
            let mut client = server.connect();
            client.request("POST", PATH, &[], long().to_string().as_bytes());
            let after = server.wait_for("it is taken or refused", |stats| {
                stats.requests_total > before.requests_total || stats.rejected > 0
            });
            if after.rejected > 0 {
                break client.answer().unwrap();
            }
            taken.push(client);
        };
        refused.error(status);
        assert_eq!(refused.header("retry-after"), Some("1"));
        drop(taken);
        server.wait_until_idle();
    }
}

#[test]
fn requests_have_a_time_limit() {
    let mut config = config();
    (config.parallel, config.timeout) = (1, 1);
    let server = start_with(config);
    let mut first = server.connect();
    first.request("POST", PATH, &[], long().to_string().as_bytes());
    assert_eq!(first.head().unwrap().status, 200);
    // Whether it waits until its time is up or has begun when it is, it ends.
    let mut second = server.connect();
    second.request("POST", PATH, &[], long().to_string().as_bytes());
    while first.more() {}
    while second.more() {}
    let stats = server.wait_until_idle();
    assert_eq!((stats.finished, stats.failed), (0, 2));
    let text = server.get("/metrics").text();
    assert!(text.contains("reason=\"deadline\"}"), "{text}");
}

#[test]
fn priorities_count_where_they_are_allowed() {
    let mut config = config();
    (config.parallel, config.priorities) = (1, true);
    let server = start_with(config);
    let mut long = server.connect();
    let body = json!({"prompt": "Once", "max_tokens": 400}).to_string();
    long.request("POST", PATH, &[], body.as_bytes());
    assert_eq!(long.head().unwrap().status, 200);
    let urgent = server.send("POST", PATH, &[("x-priority", "5")], short("Once", 1).to_string().as_bytes());
    assert_eq!(urgent.status, 200, "{}", urgent.text());
    while long.chunk().is_some() {}
    let stats = server.wait_until_idle();
    assert_eq!(stats.finished, 2);
    assert!(stats.preemptions > 0, "{stats:?}");
}
