//! How probable tokens were, in the forms of chat completions and of completions.

use bitnet_inference::sampling::TokenLogprob;
use bitnet_inference::scheduler::OwnedLogprobs;
use serde_json::{Map, Value, json};

use crate::common::fields;
use crate::common::pieces::Pieces;
use crate::error::ApiError;

use super::request::{Body, read};

/// Most alternatives of a chat completion, as in OpenAI's API.
const MOST_TOP: usize = 20;

/// What an impossible token's probability is told as, since JSON has no infinity.
const IMPOSSIBLE: f32 = -9999.0;

/// How many alternatives a chat completion tells, if it tells probabilities: by `logprobs` and `top_logprobs`, or by
/// llama-server's `n_probs`.
pub(super) fn of_chat(body: &Body) -> Result<Option<usize>, ApiError> {
    let wanted = read(body, "logprobs", fields::truth)?.unwrap_or(false);
    let top = read(body, "top_logprobs", fields::count)?;
    if let Some(top) = top {
        if !wanted && top > 0 {
            let message = "top_logprobs is only possible with \"logprobs\": true";
            return Err(ApiError::bad_param("top_logprobs", message));
        }
        if top > MOST_TOP {
            let message = format!("top_logprobs = {top} is not possible: it must be from 0 to {MOST_TOP}");
            return Err(ApiError::bad_param("top_logprobs", message));
        }
    }
    let probs = read(body, "n_probs", fields::count)?.filter(|&n| n > 0);
    Ok(if wanted { Some(top.or(probs).unwrap_or(0)) } else { probs })
}

fn finite(logprob: f32) -> f32 {
    if logprob.is_finite() { logprob } else { IMPOSSIBLE }
}

/// The entry of a token: `{"token", "logprob", "bytes", "top_logprobs"}`.
pub(super) fn entry(pieces: &Pieces, at: &OwnedLogprobs) -> Value {
    let token = |at: &TokenLogprob| {
        let bytes = pieces.bytes(at.token);
        json!({"token": String::from_utf8_lossy(bytes), "logprob": finite(at.logprob), "bytes": bytes})
    };
    let mut told = token(&at.chosen);
    told["top_logprobs"] = at.top.iter().map(token).collect();
    told
}

/// The entries of tokens.
pub(super) fn entries(pieces: &Pieces, tokens: &[OwnedLogprobs]) -> Vec<Value> {
    tokens.iter().map(|at| entry(pieces, at)).collect()
}

/// The object of a chat completion's choice.
pub(super) fn content(pieces: &Pieces, tokens: &[OwnedLogprobs]) -> Value {
    json!({"content": entries(pieces, tokens), "refusal": null})
}

/// The older form of completions: lists side by side, with the places of tokens in the text. `offset` is that of the
/// first token in characters, and is moved on.
pub(super) fn lists(pieces: &Pieces, tokens: &[OwnedLogprobs], offset: &mut usize) -> Value {
    let text = |token: u32| String::from_utf8_lossy(pieces.bytes(token)).into_owned();
    let mut offsets = Vec::with_capacity(tokens.len());
    for at in tokens {
        offsets.push(*offset);
        // A token that is a part of a character counts as one; that is as exact as this form can be.
        *offset += text(at.chosen.token).chars().count();
    }
    let top = |at: &OwnedLogprobs| {
        let best = at.top.iter().map(|at| (text(at.token), json!(finite(at.logprob))));
        Value::Object(best.collect::<Map<_, _>>())
    };
    json!({
        "tokens": tokens.iter().map(|at| text(at.chosen.token)).collect::<Vec<_>>(),
        "token_logprobs": tokens.iter().map(|at| finite(at.chosen.logprob)).collect::<Vec<_>>(),
        "top_logprobs": tokens.iter().map(top).collect::<Vec<_>>(),
        "text_offset": offsets,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_asked_for() {
        let asked = |body: Value| of_chat(body.as_object().unwrap());
        assert_eq!(asked(json!({})).unwrap(), None);
        assert_eq!(asked(json!({"logprobs": false, "top_logprobs": 0})).unwrap(), None);
        assert_eq!(asked(json!({"logprobs": true})).unwrap(), Some(0));
        assert_eq!(asked(json!({"logprobs": true, "top_logprobs": 20})).unwrap(), Some(20));
        assert_eq!(asked(json!({"n_probs": 30})).unwrap(), Some(30));
        for body in [json!({"top_logprobs": 1}), json!({"logprobs": true, "top_logprobs": 21})] {
            assert_eq!(asked(body).unwrap_err().param.as_deref(), Some("top_logprobs"));
        }
        assert_eq!(asked(json!({"logprobs": 1})).unwrap_err().param.as_deref(), Some("logprobs"));
    }

    #[test]
    fn infinity_is_told_as_a_number() {
        let at = |logprob| TokenLogprob { token: 3, logprob };
        let tokens = [OwnedLogprobs { chosen: at(f32::NEG_INFINITY), top: vec![at(-0.5)] }];
        let told = content(&Pieces::default(), &tokens);
        let expected = json!({"content": [{"token": "", "logprob": -9999.0, "bytes": [],
            "top_logprobs": [{"token": "", "logprob": -0.5, "bytes": []}]}], "refusal": null});
        assert_eq!(told, expected);
        let mut offset = 5;
        let told = lists(&Pieces::default(), &tokens, &mut offset);
        assert_eq!(
            (told["text_offset"].clone(), told["top_logprobs"].clone()),
            (json!([5]), json!([{"": -0.5}]))
        );
    }
}
