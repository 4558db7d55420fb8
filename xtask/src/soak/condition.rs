//! The condition of a server from outside: its memory, its slots, its block pool.

use std::time::{Duration, Instant};

use serde_json::Value;

use super::http;
use crate::process::{Failure, Outcome};

/// How long requests that nobody waits for may take to be gone.
const SETTLING: Duration = Duration::from_secs(60);

/// Resident memory of a process in bytes; `None` where the system does not tell.
pub(super) fn resident(process: u32) -> Option<u64> {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kilobytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kilobytes * 1024)
}

/// Waits until the server is at rest: it is healthy, no slot is in use, nothing waits, and no block of the pool belongs to
/// a request.
///
/// # Errors
/// What is still in use when it should have been given back long ago.
pub(super) fn settle(address: &str) -> Outcome {
    let start = Instant::now();
    loop {
        let trouble = match trouble(address) {
            None => return Ok(()),
            Some(trouble) => trouble,
        };
        if start.elapsed() > SETTLING {
            return Err(Failure(format!("{SETTLING:?} after the last request {trouble}")));
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// Why the server is not at rest, if it is not.
fn trouble(address: &str) -> Option<String> {
    let read = |path: &str| match http::get(address, path) {
        Ok((200, text)) => Ok(text),
        Ok((status, text)) => Err(format!("{path} answers {status}: {text}")),
        Err(error) => Err(format!("{path} does not answer: {error}")),
    };
    match (read("/health"), read("/slots"), read("/metrics")) {
        (Ok(health), Ok(slots), Ok(metrics)) => {
            busy_slot(&slots).or_else(|| busy_gauge(&metrics)).or_else(|| ill(&health))
        }
        (Err(trouble), ..) | (_, Err(trouble), _) | (.., Err(trouble)) => Some(trouble),
    }
}

fn ill(health: &str) -> Option<String> {
    let told: Value = serde_json::from_str(health).unwrap_or_default();
    (told["status"] != "ok").then(|| format!("/health says {health}"))
}

fn busy_slot(slots: &str) -> Option<String> {
    let Ok(Value::Array(slots)) = serde_json::from_str(slots) else {
        return Some(format!("/slots is no list: {slots}"));
    };
    if slots.is_empty() {
        return Some("/slots is empty".to_owned());
    }
    slots.iter().find(|slot| slot["is_processing"] != false).map(|slot| format!("a slot is in use: {slot}"))
}

/// Gauges that are zero when nothing runs; each must be there.
const AT_REST: [&str; 3] =
    ["llamacpp:requests_processing", "llamacpp:requests_deferred", "bitnet_kv_blocks_used"];

fn busy_gauge(metrics: &str) -> Option<String> {
    AT_REST.iter().find_map(|name| match gauge(metrics, name) {
        None => Some(format!("/metrics does not tell {name}")),
        Some(0.0) => None,
        Some(value) => Some(format!("{name} is {value}")),
    })
}

/// The sum of a metric over its labels, or `None` where it is not among the metrics.
pub(super) fn gauge(metrics: &str, name: &str) -> Option<f64> {
    let values: Vec<f64> = metrics
        .lines()
        .filter_map(|line| line.strip_prefix(name))
        .filter(|rest| rest.starts_with([' ', '{']))
        .filter_map(|rest| rest.rsplit_once(' ')?.1.parse().ok())
        .collect();
    (!values.is_empty()).then(|| values.iter().sum())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gauges_are_summed_over_labels() {
        let text = "# HELP a_b x\na_b{m=\"1\"} 2\na_b{m=\"2\"} 3\na_b_c 7\nd 0\n";
        assert_eq!(gauge(text, "a_b"), Some(5.0));
        assert_eq!(gauge(text, "d"), Some(0.0));
        assert_eq!(gauge(text, "e"), None);
    }

    #[test]
    fn what_is_in_use_is_named() {
        assert_eq!(busy_slot(r#"[{"id":0,"is_processing":false}]"#), None);
        assert!(busy_slot(r#"[{"id":0,"is_processing":true}]"#).is_some());
        assert!(busy_slot("[]").is_some() && busy_slot("{}").is_some());
        assert!(ill("{}").is_some() && ill(r#"{"status":"ok"}"#).is_none());
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn this_process_is_resident() {
        assert!(resident(std::process::id()).unwrap() > 1 << 16);
    }
}
