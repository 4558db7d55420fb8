//! [`timings`]: counts and speeds of a generation in the form that clients of llama-server read.

use std::time::Duration;

use bitnet_inference::GenerationStats;
use serde_json::{Map, Value, json};

/// The `timings` object of a generation. Draft tokens are told where there were any.
pub(crate) fn timings(stats: &GenerationStats) -> Value {
    let prompt_n = stats.prompt_tokens - stats.cached_tokens;
    let mut timings = Map::new();
    timings.insert("cache_n".to_owned(), json!(stats.cached_tokens));
    speed(&mut timings, "prompt", prompt_n, prompt_n, stats.prefill);
    // The first token comes with the prompt, so its time is not in that of the others.
    let intervals = stats.generated_tokens.saturating_sub(1);
    speed(&mut timings, "predicted", stats.generated_tokens, intervals, stats.decode);
    if stats.drafted > 0 {
        timings.insert("draft_n".to_owned(), json!(stats.drafted));
        timings.insert("draft_n_accepted".to_owned(), json!(stats.accepted));
    }
    Value::Object(timings)
}

/// Count and milliseconds; milliseconds a token and tokens a second of those that were computed in that time.
fn speed(timings: &mut Map<String, Value>, name: &str, tokens: usize, timed: usize, time: Duration) {
    let ms = time.as_secs_f64() * 1e3;
    let ratio = |a: f64, b: f64| if b > 0.0 { a / b } else { 0.0 };
    timings.insert(format!("{name}_n"), json!(tokens));
    timings.insert(format!("{name}_ms"), json!(ms));
    timings.insert(format!("{name}_per_token_ms"), json!(ratio(ms, timed as f64)));
    timings.insert(format!("{name}_per_second"), json!(ratio(timed as f64 * 1e3, ms)));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_and_speeds() {
        let stats = GenerationStats {
            prompt_tokens: 12,
            cached_tokens: 2,
            generated_tokens: 51,
            prefill: Duration::from_millis(100),
            decode: Duration::from_millis(500),
            ..GenerationStats::default()
        };
        let expected = json!({
            "cache_n": 2, "prompt_n": 10, "prompt_ms": 100.0, "prompt_per_token_ms": 10.0, "prompt_per_second": 100.0,
            "predicted_n": 51, "predicted_ms": 500.0, "predicted_per_token_ms": 10.0, "predicted_per_second": 100.0,
        });
        assert_eq!(timings(&stats), expected);
        let drafts = timings(&GenerationStats { drafted: 5, accepted: 3, ..stats });
        assert_eq!((&drafts["draft_n"], &drafts["draft_n_accepted"]), (&json!(5), &json!(3)));
        // Nothing is divided by nothing.
        let nothing = timings(&GenerationStats::default());
        assert_eq!(
            (&nothing["prompt_per_second"], &nothing["predicted_per_token_ms"]),
            (&json!(0.0), &json!(0.0))
        );
    }
}
