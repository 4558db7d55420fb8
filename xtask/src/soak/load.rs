//! Many clients at once, each streaming: no error, flat memory, and every text as if its request had been alone.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::{condition, http};
use crate::process::Failure;
use crate::server::Server;

/// What is asked of the load.
#[derive(Clone, Copy, Debug)]
pub(super) struct Load {
    pub(super) clients: usize,
    pub(super) time: Duration,
    /// How many different requests there are; clients take turns with them.
    pub(super) different: usize,
    /// Tokens of each answer, at most.
    pub(super) tokens: usize,
}

/// Memory may grow by so much of itself, between its warm state and the end.
const MEMORY_TOLERANCE: f64 = 0.05;
/// Answers a client has had on average when the server is warm: by then every place has held a text of full length. Counted
/// in answers since a slow machine gives few of them in a second.
const WARM_ANSWERS: u64 = 2;
/// Answers a client has had on average at the end, at least.
const LEAST_ANSWERS: u64 = 6;

/// What came out.
#[derive(Debug, Default)]
pub(super) struct Report {
    requests: u64,
    tokens: u64,
    seconds: f64,
    memory: Vec<(f64, u64)>,
}

impl std::fmt::Display for Report {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let megabytes = |bytes: u64| bytes as f64 / f64::from(1 << 20);
        let memory: Vec<u64> = self.memory.iter().map(|&(_, bytes)| bytes).collect();
        let least = memory.iter().min().copied().map_or(0.0, megabytes);
        let most = memory.iter().max().copied().map_or(0.0, megabytes);
        write!(
            formatter,
            "{} requests, {} pieces of text in {:.1} s ({:.1} a second), resident {least:.1} to {most:.1} MiB when warm",
            self.requests,
            self.tokens,
            self.seconds,
            self.tokens as f64 / self.seconds.max(1e-9),
        )
    }
}

/// Runs the load.
///
/// # Errors
/// The first request that failed or whose text differs; memory that grew.
pub(super) fn run(server: &Server, load: Load) -> Result<Report, Failure> {
    let address = server.address();
    let mut alone = Vec::new();
    for index in 0..load.different {
        alone.push(stream(address, &body(index, load.tokens))?.0);
    }
    let report = together(server, load, &alone)?;
    check_memory(&report.memory)?;
    condition::settle(address)?;
    Ok(report)
}

/// All clients until the time is over and [`LEAST_ANSWERS`] are there; each looks at every text.
fn together(server: &Server, load: Load, alone: &[String]) -> Result<Report, Failure> {
    let (start, failed) = (Instant::now(), AtomicBool::new(false));
    let (requests, tokens) = (AtomicU64::new(0), AtomicU64::new(0));
    let failure: Mutex<Option<Failure>> = Mutex::new(None);
    let had = |part: Duration, answers: u64| {
        start.elapsed() >= part && requests.load(Ordering::Relaxed) >= answers * load.clients as u64
    };
    let goes_on = || !had(load.time, LEAST_ANSWERS) && !failed.load(Ordering::Relaxed);
    let client = |number: usize| {
        let mut index = number;
        while goes_on() {
            let which = index % alone.len();
            match stream(server.address(), &body(which, load.tokens)) {
                Ok((text, pieces)) if text == alone[which] => {
                    requests.fetch_add(1, Ordering::Relaxed);
                    tokens.fetch_add(pieces, Ordering::Relaxed);
                }
                Ok((text, _)) => {
                    return Err(Failure(format!(
                        "request {which} gave another text in company\n  alone:      {:?}\n  in company: {text:?}",
                        alone[which]
                    )));
                }
                Err(failure) => return Err(failure),
            }
            index += 7;
        }
        Ok(())
    };
    let mut memory = Vec::new();
    std::thread::scope(|scope| {
        let clients: Vec<_> = (0..load.clients)
            .map(|number| {
                let (client, failed, failure) = (&client, &failed, &failure);
                scope.spawn(move || {
                    if let Err(error) = client(number) {
                        failed.store(true, Ordering::Relaxed);
                        failure
                            .lock()
                            .map(|mut first| first.get_or_insert(error).0.len())
                            .unwrap_or_default();
                    }
                })
            })
            .collect();
        while goes_on() {
            std::thread::sleep(load.time / 60);
            if had(load.time / 6, WARM_ANSWERS) {
                memory.extend(
                    condition::resident(server.id()).map(|bytes| (start.elapsed().as_secs_f64(), bytes)),
                );
            }
        }
        drop(clients);
    });
    if let Some(failure) = failure.into_inner().unwrap_or_default() {
        return Err(failure);
    }
    Ok(Report {
        requests: requests.into_inner(),
        tokens: tokens.into_inner(),
        seconds: start.elapsed().as_secs_f64(),
        memory,
    })
}

/// Fails when memory leaves the band around where it was when warm.
fn check_memory(memory: &[(f64, u64)]) -> Result<(), Failure> {
    let Some(&(_, warm)) = memory.first() else { return Ok(()) };
    let off = memory.iter().find(|(_, bytes)| (*bytes as f64 / warm as f64 - 1.0).abs() > MEMORY_TOLERANCE);
    off.map_or(Ok(()), |(seconds, bytes)| {
        Err(Failure(format!(
            "resident memory went from {warm} bytes when warm to {bytes} after {seconds:.1} s"
        )))
    })
}

/// One of the different requests: prompts of several lengths, greedy and sampled, some with a common beginning.
fn body(index: usize, tokens: usize) -> String {
    let subject =
        ["a fox", "the sea", "a clock", "rain", "a baker", "two birds", "the moon", "a train"][index % 8];
    let system = index
        .is_multiple_of(3)
        .then(|| json!({"role": "system", "content": "You tell short stories to children."}));
    let user = json!({"role": "user", "content": format!("Tell me about {subject}, number {index}. {}", "Please. ".repeat(index % 11))});
    let messages: Vec<Value> = system.into_iter().chain([user]).collect();
    json!({
        "messages": messages,
        "stream": true,
        "max_tokens": tokens / 2 + index % (tokens / 2).max(1),
        "temperature": if index.is_multiple_of(4) { 0.0 } else { 0.9 },
        "seed": index,
    })
    .to_string()
}

/// Streams an answer; gives its text and the number of pieces.
fn stream(address: &str, body: &str) -> Result<(String, u64), Failure> {
    let failed = |what: String| Failure(format!("a streaming request failed: {what}\n  request: {body}"));
    let mut answer = http::send(address, "POST", "/v1/chat/completions", body.as_bytes())
        .map_err(|error| failed(error.to_string()))?;
    if answer.status != 200 {
        let text = answer.text().unwrap_or_default();
        return Err(failed(format!("status {}: {text}", answer.status)));
    }
    let (mut text, mut pieces) = (String::new(), 0);
    loop {
        match answer.event().map_err(|error| failed(error.to_string()))? {
            None => return Err(failed("the stream ended without [DONE]".to_owned())),
            Some(data) if data == "[DONE]" => return Ok((text, pieces)),
            Some(data) => {
                let chunk: Value = serde_json::from_str(&data).map_err(|error| failed(error.to_string()))?;
                if !chunk["error"].is_null() {
                    return Err(failed(chunk["error"].to_string()));
                }
                if let Some(piece) = chunk["choices"][0]["delta"]["content"].as_str() {
                    text.push_str(piece);
                    pieces += 1;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_may_move_a_little() {
        assert!(check_memory(&[]).is_ok());
        assert!(check_memory(&[(1.0, 1000), (2.0, 1049), (3.0, 960)]).is_ok());
        assert!(check_memory(&[(1.0, 1000), (2.0, 1000), (3.0, 1060)]).is_err());
    }

    #[test]
    fn requests_differ_and_stay_the_same() {
        let bodies: std::collections::BTreeSet<String> = (0..64).map(|index| body(index, 48)).collect();
        assert_eq!(bodies.len(), 64);
        assert_eq!(body(5, 48), body(5, 48));
    }
}
