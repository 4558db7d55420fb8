//! Requests of every kind, one after the other on many threads: good ones, bad ones, and clients that misbehave.
//!
//! Each kind says what may come back. What a kind does follows from the request's number alone, so that a failure can be
//! seen again.

use std::io::{ErrorKind, Read, Result, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::{Value, json};

use super::condition;
use super::http::{self, Answer};
use crate::process::Failure;
use crate::server::Server;

const CHAT: &str = "/v1/chat/completions";

/// How many failures are told in full.
const TOLD: usize = 10;

/// A kind of request: its name, how often it comes, what it does.
struct Kind {
    name: &'static str,
    weight: usize,
    run: fn(&Client<'_>, usize) -> std::result::Result<(), String>,
}

const KINDS: [Kind; 26] = [
    Kind { name: "chat", weight: 14, run: |client, n| client.expect(200, CHAT, &chat(n, json!({}))) },
    Kind { name: "chat, streamed", weight: 14, run: |client, n| client.streamed(n) },
    Kind {
        name: "completion",
        weight: 8,
        run: |client, n| {
            client.expect(
                200,
                "/v1/completions",
                &json!({"prompt": format!("Number {n}"), "max_tokens": 3, "seed": n}),
            )
        },
    },
    Kind {
        name: "two choices with log probabilities",
        weight: 3,
        run: |client, n| {
            client.expect(200, CHAT, &chat(n, json!({"n": 2, "logprobs": true, "top_logprobs": 2})))
        },
    },
    Kind { name: "JSON schema", weight: 4, run: |client, n| client.schema(n) },
    Kind {
        name: "tools",
        weight: 3,
        run: |client, n| client.expect(200, CHAT, &chat(n, json!({"tools": [tool()], "max_tokens": 6}))),
    },
    Kind {
        name: "embedding",
        weight: 2,
        run: |client, n| {
            client.expect(200, "/v1/embeddings", &json!({"input": [format!("number {n}"), "two"]}))
        },
    },
    Kind {
        name: "tokenize",
        weight: 3,
        run: |client, n| client.expect(200, "/tokenize", &json!({"content": format!("number {n}")})),
    },
    Kind { name: "left in the middle", weight: 9, run: |client, n| client.left(n) },
    Kind {
        name: "left before the answer",
        weight: 6,
        run: |client, n| {
            client.half(&http::request("POST", CHAT, long(n).to_string().as_bytes()), usize::MAX)
        },
    },
    Kind {
        name: "half a head",
        weight: 3,
        run: |client, n| {
            client.half(b"POST /v1/chat/completions HTTP/1.1\r\nHost: bitnet\r\nContent-Le", n % 60)
        },
    },
    Kind {
        name: "half a body",
        weight: 3,
        run: |client, n| {
            let bytes = http::request("POST", CHAT, long(n).to_string().as_bytes());
            client.half(&bytes, bytes.len() - 20)
        },
    },
    Kind { name: "slow reader", weight: 2, run: |client, n| client.slow(n) },
    Kind {
        name: "no JSON",
        weight: 5,
        run: |client, n| {
            let bad: [&[u8]; 6] = [b"", b"{", b"[1,2", b"nonsense", b"{\"messages\": [}", b"\xff\xfe{}"];
            client.bytes(&[400], "POST", CHAT, bad[n % bad.len()])
        },
    },
    Kind { name: "wrong types", weight: 6, run: |client, n| client.wrong_types(n) },
    Kind {
        name: "unknown role",
        weight: 2,
        run: |client, _| {
            client.expect(
                400,
                CHAT,
                &json!({"messages": [{"role": "wizard", "content": "x"}], "max_tokens": 2}),
            )
        },
    },
    Kind {
        name: "invalid UTF-8",
        weight: 2,
        run: |client, _| {
            client.bytes(
                &[400],
                "POST",
                CHAT,
                b"{\"messages\":[{\"role\":\"user\",\"content\":\"\xc3\x28\"}]}",
            )
        },
    },
    Kind {
        name: "deep JSON",
        weight: 1,
        run: |client, n| {
            let deep = ["[", "{\"a\":"][n % 2].repeat(20_000);
            client.bytes(&[400], "POST", CHAT, format!("{{\"messages\":{deep}").as_bytes())
        },
    },
    Kind {
        name: "too long a prompt",
        weight: 2,
        run: |client, n| {
            client.expect(
                400,
                CHAT,
                &json!({"messages": [{"role": "user", "content": "word ".repeat(600 + n % 3000)}]}),
            )
        },
    },
    Kind {
        name: "a prompt of a megabyte",
        weight: 1,
        run: |client, n| {
            let bytes = json!({"messages": [{"role": "user", "content": "a b".repeat(350_000 + n % 1000)}]})
                .to_string();
            if n.is_multiple_of(10) {
                client.bytes(&[400, 413], "POST", CHAT, bytes.as_bytes())
            } else {
                Ok(())
            }
        },
    },
    Kind {
        name: "ten thousand stop strings",
        weight: 1,
        run: |client, n| {
            let stop: Vec<String> = (0..10_000).map(|index| format!("stop {index}")).collect();
            client.status(&[200, 400], CHAT, &chat(n, json!({"stop": stop})))
        },
    },
    Kind {
        name: "bad schema",
        weight: 2,
        run: |client, n| {
            let schema = [json!({"type": "nothing"}), json!(7), json!({"$ref": "#/none"})][n % 3].clone();
            let format = json!({"type": "json_schema", "json_schema": {"name": "x", "schema": schema}});
            client.expect(400, CHAT, &chat(n, json!({"response_format": format})))
        },
    },
    Kind {
        name: "bad grammar",
        weight: 2,
        run: |client, n| {
            client.expect(
                400,
                "/completion",
                &json!({"prompt": "x", "n_predict": 2, "grammar": bad_grammar(n)}),
            )
        },
    },
    Kind { name: "no such route", weight: 1, run: |client, _| client.bytes(&[404], "GET", "/v1/none", b"") },
    Kind { name: "wrong method", weight: 1, run: |client, _| client.bytes(&[405], "GET", CHAT, b"") },
    Kind {
        name: "no HTTP",
        weight: 1,
        run: |client, n| {
            client
                .half([&b"\x16\x03\x01\x02\x00\x01\x00"[..], b"GET\r\n\r\n", b"\0\0\0\0"][n % 3], usize::MAX)
        },
    },
];

/// Sends `count` requests on `threads` threads, and looks at the server afterwards.
///
/// # Errors
/// The requests that were answered in another way than they may be; what is still in use afterwards.
pub(super) fn run(server: &Server, count: usize, threads: usize) -> std::result::Result<String, Failure> {
    let client = Client { address: server.address(), parked: Mutex::new(Vec::new()) };
    let next = AtomicUsize::new(0);
    let failures: Mutex<Vec<String>> = Mutex::new(Vec::new());
    let work = || {
        loop {
            let number = next.fetch_add(1, Ordering::Relaxed);
            let enough = failures.lock().map_or(true, |failures| failures.len() >= TOLD);
            if number >= count || enough {
                return;
            }
            let kind = kind(number);
            if let Err(what) = (kind.run)(&client, number)
                && let Ok(mut failures) = failures.lock()
            {
                failures.push(format!("request {number} ({}): {what}", kind.name));
            }
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(work);
        }
    });
    drop(client);
    let failures = failures.into_inner().unwrap_or_default();
    if !failures.is_empty() {
        return Err(Failure(failures.join("\n")));
    }
    server.check_log()?;
    condition::settle(server.address())?;
    let memory = condition::resident(server.id())
        .map_or(String::new(), |bytes| format!(", resident {} MiB", bytes >> 20));
    Ok(format!(
        "{count} requests of {} kinds{memory}; no panic, all slots free, the block pool whole",
        KINDS.len()
    ))
}

/// Which kind a request is: the numbers are scattered over the weights.
fn kind(number: usize) -> &'static Kind {
    let total: usize = KINDS.iter().map(|kind| kind.weight).sum();
    let scattered = (number as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 32;
    let mut at = usize::try_from(scattered).unwrap_or(0) % total;
    for kind in &KINDS {
        if at < kind.weight {
            return kind;
        }
        at -= kind.weight;
    }
    &KINDS[0]
}

fn chat(number: usize, more: Value) -> Value {
    let mut body = json!({
        "messages": [{"role": "user", "content": format!("Say something about {number}.")}],
        "max_tokens": 1 + number % 4,
        "seed": number,
    });
    if let (Some(body), Value::Object(more)) = (body.as_object_mut(), more) {
        body.extend(more);
    }
    body
}

/// A request whose answer would go on for a while.
fn long(number: usize) -> Value {
    chat(number, json!({"stream": true, "max_tokens": 400, "repeat_penalty": 1.3}))
}

fn bad_grammar(number: usize) -> &'static str {
    ["root ::= (", "root ::= none", "\u{0}"][number % 3]
}

fn tool() -> Value {
    let parameters =
        json!({"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]});
    json!({"type": "function", "function": {"name": "weather", "description": "Tells the weather", "parameters": parameters}})
}

/// What all threads share: where the server is, and connections that are kept open without a use.
struct Client<'a> {
    address: &'a str,
    parked: Mutex<Vec<TcpStream>>,
}

impl Client<'_> {
    fn expect(&self, status: u16, path: &str, body: &Value) -> std::result::Result<(), String> {
        self.status(&[status], path, body)
    }

    fn status(&self, allowed: &[u16], path: &str, body: &Value) -> std::result::Result<(), String> {
        self.bytes(allowed, "POST", path, body.to_string().as_bytes())
    }

    /// A request that is answered with one of these states, by an object: an error object unless it is 200.
    fn bytes(
        &self,
        allowed: &[u16],
        method: &str,
        path: &str,
        body: &[u8],
    ) -> std::result::Result<(), String> {
        let mut answer = http::send(self.address, method, path, body).map_err(|error| error.to_string())?;
        let text = answer.text().map_err(|error| error.to_string())?;
        if !allowed.contains(&answer.status) {
            let text: String = text.chars().take(300).collect();
            return Err(format!("{path} answered {} instead of {allowed:?}: {text}", answer.status));
        }
        let object: Value =
            serde_json::from_str(&text).map_err(|_| format!("{path} answered no JSON: {text:?}"))?;
        if answer.status != 200 && !object["error"]["message"].is_string() {
            return Err(format!("{path} answered {} without an error object: {text}", answer.status));
        }
        Ok(())
    }

    fn start(&self, body: &Value) -> std::result::Result<Answer, String> {
        let mut answer = http::send(self.address, "POST", CHAT, body.to_string().as_bytes())
            .map_err(|error| error.to_string())?;
        if answer.status != 200 {
            let text = answer.text().unwrap_or_default();
            return Err(format!("status {}: {text}", answer.status));
        }
        Ok(answer)
    }

    fn streamed(&self, number: usize) -> std::result::Result<(), String> {
        let mut answer = self.start(&chat(number, json!({"stream": true})))?;
        let mut last = String::new();
        while let Some(data) = answer.event().map_err(|error| error.to_string())? {
            last = data;
        }
        if last == "[DONE]" { Ok(()) } else { Err(format!("the stream ended with {last:?}")) }
    }

    /// Reads a few events, then closes the connection.
    fn left(&self, number: usize) -> std::result::Result<(), String> {
        let mut answer = self.start(&long(number))?;
        for _ in 0..1 + number % 5 {
            answer.event().map_err(|error| error.to_string())?;
        }
        Ok(())
    }

    /// Reads a long answer a few bytes at a time.
    fn slow(&self, number: usize) -> std::result::Result<(), String> {
        let mut stream = http::connect(self.address).map_err(|error| error.to_string())?;
        let body = chat(number, json!({"stream": true, "max_tokens": 30})).to_string();
        stream.write_all(&http::request("POST", CHAT, body.as_bytes())).map_err(|error| error.to_string())?;
        let mut buffer = [0; 64];
        let mut text = Vec::new();
        loop {
            match stream.read(&mut buffer).map_err(|error| error.to_string())? {
                0 => break,
                length => text.extend_from_slice(&buffer[..length]),
            }
            std::thread::sleep(std::time::Duration::from_millis(2));
        }
        let whole = String::from_utf8_lossy(&text).contains("data: [DONE]");
        if whole { Ok(()) } else { Err("the stream ended without [DONE]".to_owned()) }
    }

    /// Sends the beginning of something and then either leaves or stays without a word; whatever comes back is fine.
    fn half(&self, bytes: &[u8], length: usize) -> std::result::Result<(), String> {
        let mut stream = http::connect(self.address).map_err(|error| error.to_string())?;
        stream.write_all(&bytes[..length.min(bytes.len())]).map_err(|error| error.to_string())?;
        if length == usize::MAX {
            return leave(&stream).map_err(|error| error.to_string());
        }
        let mut parked = self.parked.lock().map_err(|_| "a thread of the soak panicked".to_owned())?;
        parked.push(stream);
        if parked.len() > 16 {
            parked.remove(0);
        }
        Ok(())
    }

    fn schema(&self, number: usize) -> std::result::Result<(), String> {
        let schema = json!({
            "type": "object",
            "properties": {"kind": {"enum": ["cat", "dog"]}, "count": {"type": "integer", "minimum": 0, "maximum": 9}},
            "required": ["kind", "count"],
            "additionalProperties": false,
        });
        let format =
            json!({"type": "json_schema", "json_schema": {"name": "pet", "schema": schema, "strict": true}});
        let body = chat(number, json!({"response_format": format, "max_tokens": 60}));
        let mut answer = self.start(&body)?;
        let text = answer.text().map_err(|error| error.to_string())?;
        let object: Value = serde_json::from_str(&text).map_err(|error| error.to_string())?;
        let choice = &object["choices"][0];
        let content = choice["message"]["content"].as_str().unwrap_or_default();
        let pet: Value = serde_json::from_str(content).unwrap_or_default();
        let fits = matches!(pet["kind"].as_str(), Some("cat" | "dog"))
            && pet["count"].as_u64().is_some_and(|count| count < 10);
        if fits || choice["finish_reason"] == "length" {
            Ok(())
        } else {
            Err(format!("{content:?} does not fit the schema"))
        }
    }

    fn wrong_types(&self, number: usize) -> std::result::Result<(), String> {
        let wrong = [
            json!({"messages": 7}),
            json!({"messages": [7]}),
            json!({"messages": [{"role": "user", "content": {"a": 1}}]}),
            json!({"temperature": "hot"}),
            json!({"temperature": -1}),
            json!({"top_p": 2}),
            json!({"max_tokens": "many"}),
            json!({"n": 0}),
            json!({"stop": 7}),
            json!({"seed": "x"}),
            json!({"stream": "yes"}),
            json!({"logit_bias": 3}),
            json!({"response_format": "json"}),
            json!({"tools": {}}),
        ];
        self.expect(400, CHAT, &chat(number, wrong[number % wrong.len()].clone()))
    }
}

fn leave(stream: &TcpStream) -> Result<()> {
    match stream.shutdown(Shutdown::Both) {
        // The server may have been quicker.
        Err(error) if error.kind() == ErrorKind::NotConnected => Ok(()),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[test]
    fn every_kind_comes_about_as_often_as_its_weight_says() {
        let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
        let total: usize = KINDS.iter().map(|kind| kind.weight).sum();
        for number in 0..total * 100 {
            *counts.entry(kind(number).name).or_default() += 1;
        }
        for kind in &KINDS {
            let count = counts.get(kind.name).copied().unwrap_or_default();
            let wanted = kind.weight * 100;
            assert!(count > wanted / 2 && count < wanted * 2, "{}: {count} of {wanted}", kind.name);
        }
    }
}
