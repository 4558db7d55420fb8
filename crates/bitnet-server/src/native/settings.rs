//! [`settings`]: the parameters of a generation as llama-server tells them.

use bitnet_inference::sampling::{BiasTarget, DRY_SEQUENCE_BREAKERS};
use bitnet_inference::{Constraint, GenerateRequest, Mirostat, PenaltyWindow, SamplingParams};
use serde_json::{Map, Value, json};

use super::request::Wanted;

/// What llama-server writes for a random seed.
const RANDOM_SEED: u64 = u32::MAX as u64;

/// All parameters that hold for a request: `params` are those of sampling, `seed` is the one in use.
pub(super) fn settings(
    params: &SamplingParams,
    seed: Option<u64>,
    request: &GenerateRequest,
    wanted: &Wanted,
) -> Map<String, Value> {
    let limit = if wanted.only_prompt {
        json!(0)
    } else {
        request.max_tokens.map_or(json!(-1), |tokens| json!(tokens))
    };
    let breakers = request.dry_sequence_breakers.clone();
    let breakers = breakers.unwrap_or_else(|| DRY_SEQUENCE_BREAKERS.map(str::to_owned).to_vec());
    let (grammar, schema) = match &request.constraint {
        Some(Constraint::Gbnf(text) | Constraint::Lark(text)) => (json!(text), Value::Null),
        Some(Constraint::JsonSchema(schema)) => (json!(""), schema.clone()),
        _ => (json!(""), Value::Null),
    };
    let mut settings = Map::new();
    for (name, value) in [
        ("n_predict", limit.clone()),
        ("seed", json!(seed.unwrap_or(RANDOM_SEED))),
        ("temperature", json!(params.temperature)),
        ("dynatemp_range", json!(params.dynatemp_range)),
        ("dynatemp_exponent", json!(params.dynatemp_exponent)),
        ("top_k", json!(params.top_k)),
        ("top_p", json!(params.top_p)),
        ("min_p", json!(params.min_p)),
        ("top_n_sigma", json!(params.top_n_sigma)),
        ("xtc_probability", json!(params.xtc_probability)),
        ("xtc_threshold", json!(params.xtc_threshold)),
        ("typical_p", json!(params.typical_p)),
        ("repeat_last_n", window(params.repeat_last_n)),
        ("repeat_penalty", json!(params.repeat_penalty)),
        ("presence_penalty", json!(params.presence_penalty)),
        ("frequency_penalty", json!(params.frequency_penalty)),
        ("dry_multiplier", json!(params.dry_multiplier)),
        ("dry_base", json!(params.dry_base)),
        ("dry_allowed_length", json!(params.dry_allowed_length)),
        ("dry_penalty_last_n", window(params.dry_penalty_last_n)),
        ("dry_sequence_breakers", json!(breakers)),
        ("mirostat", mirostat(params.mirostat)),
        ("mirostat_tau", json!(params.mirostat_tau)),
        ("mirostat_eta", json!(params.mirostat_eta)),
        ("stop", json!(request.stop)),
        ("max_tokens", limit),
        ("n_keep", json!(0)),
        ("n_discard", json!(0)),
        ("ignore_eos", json!(request.ignore_eos)),
        ("stream", json!(wanted.stream)),
        ("logit_bias", biases(request)),
        ("banned_strings", json!(request.banned)),
        ("n_probs", json!(wanted.n_probs)),
        ("min_keep", json!(0)),
        ("grammar", grammar),
        ("json_schema", schema),
        ("samplers", params.samplers.steps().iter().map(|step| step.name()).collect()),
        ("timings_per_token", json!(wanted.timings_per_token)),
        ("post_sampling_probs", json!(false)),
        ("lora", json!([])),
    ] {
        settings.insert(name.to_owned(), value);
    }
    settings
}

fn window(window: PenaltyWindow) -> Value {
    match window {
        PenaltyWindow::All => json!(-1),
        PenaltyWindow::Last(tokens) => json!(tokens),
    }
}

fn mirostat(mirostat: Mirostat) -> Value {
    match mirostat {
        Mirostat::Off => json!(0),
        Mirostat::V1 => json!(1),
        Mirostat::V2 => json!(2),
    }
}

/// Pairs as a request writes them.
fn biases(request: &GenerateRequest) -> Value {
    let pair = |bias: &bitnet_inference::LogitBias| {
        let value = if bias.bias == f32::NEG_INFINITY { json!(false) } else { json!(bias.bias) };
        match &bias.target {
            BiasTarget::Token(token) => json!([token, value]),
            BiasTarget::Text(text) => json!([text, value]),
        }
    };
    request.logit_bias.iter().map(pair).collect()
}

#[cfg(test)]
mod tests {
    use bitnet_inference::Prompt;

    use super::*;
    use crate::common::sampling::SamplingFields;

    #[test]
    fn what_is_told_can_be_sent_again() {
        let body = json!({
            "n_predict": 7, "seed": 3, "temperature": 0.5, "dynatemp_range": 0.25, "dynatemp_exponent": 2.0, "top_k": 5,
            "top_p": 0.5, "min_p": 0.25, "top_n_sigma": 1.5, "xtc_probability": 0.5, "xtc_threshold": 0.25, "typical_p": 0.75,
            "repeat_last_n": 64, "repeat_penalty": 1.5, "presence_penalty": 0.5, "frequency_penalty": 0.25,
            "dry_multiplier": 0.5, "dry_base": 2.0, "dry_allowed_length": 3, "dry_penalty_last_n": -1,
            "dry_sequence_breakers": ["x"], "mirostat": 2, "mirostat_tau": 4.0, "mirostat_eta": 0.5, "stop": ["s"],
            "ignore_eos": true, "logit_bias": [[5, 1.5], ["x", false]], "banned_strings": ["b"], "samplers": ["top_k"],
        });
        let Value::Object(body) = body else { unreachable!() };
        let fields = SamplingFields::from_map(&body).unwrap();
        let mut request = GenerateRequest::new(Prompt::text("p"));
        fields.clone().apply(&mut request);
        let params = SamplingParams::resolve(&request.sampling, &Default::default()).unwrap();
        let told = settings(&params, params.seed, &request, &Wanted::default());
        for (name, value) in &body {
            assert_eq!(told.get(name), Some(value), "{name}");
        }
        assert_eq!(SamplingFields::from_map(&told).unwrap(), fields);
    }

    #[test]
    fn defaults_are_told_as_such() {
        let request = GenerateRequest::new(Prompt::text("p"));
        let told = settings(&SamplingParams::default(), None, &request, &Wanted::default());
        assert_eq!((&told["n_predict"], &told["seed"]), (&json!(-1), &json!(4_294_967_295_u32)));
        assert_eq!(told["repeat_last_n"], json!(-1));
        assert_eq!(told["samplers"][0], "penalties");
    }
}
