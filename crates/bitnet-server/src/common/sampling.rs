//! [`SamplingFields`]: how to continue a text, in all spellings that clients use.
//!
//! OpenAI, llama-server, vLLM and ollama name the same things differently; here is the one place that knows the names.
//! The fields lie in the request's body beside others (`#[serde(flatten)]`), or in an object of their own (ollama's
//! `options`). Unknown fields are not looked at.
//!
//! | field | also spelled |
//! |---|---|
//! | `max_tokens` | `max_completion_tokens`, `n_predict`, `num_predict`, `max_output_tokens`; below 0: no limit |
//! | `temperature` | `temp` |
//! | `typical_p` | `typ_p`, `typical` |
//! | `top_n_sigma` | `top_nsigma`, `nsigma` |
//! | `repeat_penalty` | `repetition_penalty` |
//! | `repeat_last_n` | `penalty_last_n`; -1: all |
//! | `samplers` | a list of names, names between semicolons, or the letters of llama.cpp |
//! | `seed` | below 0, or llama.cpp's 4294967295: a random one |
//! | `logit_bias` | an object or a list of pairs; `false` excludes |
//! | `banned_strings` | `bad_words` |

use std::fmt;

use bitnet_inference::sampling::BiasTarget;
use bitnet_inference::{
    GenerateRequest, LogitBias, Mirostat, PenaltyWindow, SamplerOrder, SamplingOverrides,
};
use serde::de::{Error, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::{Map, Value};

use super::fields::{self, FieldError, Found, find};

/// What llama.cpp takes for "a random seed".
const LLAMA_RANDOM_SEED: i64 = u32::MAX as i64;

/// The fields of a request that say how to continue a text. What is absent (or null) leaves the model's defaults.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct SamplingFields {
    /// Parameters of sampling, seed included.
    pub(crate) overrides: SamplingOverrides,
    /// Most tokens to generate; `Some(None)`: the client asks for no limit.
    pub(crate) max_tokens: Option<Option<usize>>,
    /// Strings that end the text.
    pub(crate) stop: Vec<String>,
    /// What is added to logits.
    pub(crate) logit_bias: Vec<LogitBias>,
    /// Strings that never appear.
    pub(crate) banned: Vec<String>,
    /// Strings over which DRY does not look.
    pub(crate) dry_sequence_breakers: Option<Vec<String>>,
    /// Whether stop tokens do not end the text.
    pub(crate) ignore_eos: bool,
}

impl SamplingFields {
    /// Reads the fields out of a body.
    ///
    /// # Errors
    /// [`FieldError`] for the first field of a wrong type. Ranges are the engine's to check.
    pub(crate) fn from_map(map: &Map<String, Value>) -> Result<Self, FieldError> {
        let fields = Self {
            overrides: overrides(map)?,
            max_tokens: max_tokens(map)?,
            stop: read(map, &["stop"], fields::watched)?.unwrap_or_default(),
            logit_bias: read(map, &["logit_bias"], logit_bias)?.unwrap_or_default(),
            banned: read(map, &["banned_strings", "bad_words"], fields::watched)?.unwrap_or_default(),
            dry_sequence_breakers: read(map, &["dry_sequence_breakers"], fields::watched)?,
            ignore_eos: read(map, &["ignore_eos"], fields::truth)?.unwrap_or_default(),
        };
        Ok(fields)
    }

    /// Puts what the client said into a request, over what it says. Strings and biases are added to those that are there.
    pub(crate) fn apply(self, request: &mut GenerateRequest) {
        request.sampling = self.overrides.over(&request.sampling);
        if let Some(max_tokens) = self.max_tokens {
            request.max_tokens = max_tokens;
        }
        request.stop.extend(self.stop);
        request.logit_bias.extend(self.logit_bias);
        request.banned.extend(self.banned);
        if self.dry_sequence_breakers.is_some() {
            request.dry_sequence_breakers = self.dry_sequence_breakers;
        }
        request.ignore_eos |= self.ignore_eos;
    }
}

/// Reads a field under the first of its names that is there.
fn read<'a, T>(
    map: &'a Map<String, Value>,
    names: &[&'a str],
    with: impl FnOnce(Found<'a>) -> Result<T, FieldError>,
) -> Result<Option<T>, FieldError> {
    find(map, names).map(with).transpose()
}

fn overrides(map: &Map<String, Value>) -> Result<SamplingOverrides, FieldError> {
    let number = |names: &[&'static str]| read(map, names, fields::number);
    Ok(SamplingOverrides {
        repeat_penalty: number(&["repeat_penalty", "repetition_penalty"])?,
        presence_penalty: number(&["presence_penalty"])?,
        frequency_penalty: number(&["frequency_penalty"])?,
        repeat_last_n: read(map, &["repeat_last_n", "penalty_last_n"], window)?,
        dry_multiplier: number(&["dry_multiplier"])?,
        dry_base: number(&["dry_base"])?,
        dry_allowed_length: read(map, &["dry_allowed_length"], fields::count)?,
        dry_penalty_last_n: read(map, &["dry_penalty_last_n"], window)?,
        temperature: number(&["temperature", "temp"])?,
        dynatemp_range: number(&["dynatemp_range"])?,
        dynatemp_exponent: number(&["dynatemp_exponent"])?,
        // llama.cpp writes "off" as -1.
        top_n_sigma: number(&["top_n_sigma", "top_nsigma", "nsigma"])?.map(|sigma| sigma.max(0.0)),
        top_k: read(map, &["top_k"], |found| fields::whole(found).map(|k| usize::try_from(k).unwrap_or(0)))?,
        typical_p: number(&["typical_p", "typ_p", "typical"])?,
        top_p: number(&["top_p"])?,
        min_p: number(&["min_p"])?,
        xtc_probability: number(&["xtc_probability"])?,
        xtc_threshold: number(&["xtc_threshold"])?,
        mirostat: read(map, &["mirostat"], mirostat)?,
        mirostat_tau: number(&["mirostat_tau"])?,
        mirostat_eta: number(&["mirostat_eta"])?,
        samplers: read(map, &["samplers"], samplers)?,
        seed: read(map, &["seed"], seed)?.flatten(),
    })
}

/// A limit of tokens under any of its names.
fn max_tokens(map: &Map<String, Value>) -> Result<Option<Option<usize>>, FieldError> {
    let names = ["max_tokens", "max_completion_tokens", "n_predict", "num_predict", "max_output_tokens"];
    read(map, &names, |found| fields::whole(found).map(|n| usize::try_from(n).ok()))
}

/// How far back a penalty looks.
fn window(found: Found<'_>) -> Result<PenaltyWindow, FieldError> {
    match fields::whole(found)? {
        -1 => Ok(PenaltyWindow::All),
        tokens => usize::try_from(tokens)
            .map(PenaltyWindow::Last)
            .map_err(|_| FieldError::new(found.0, found.1, "a number of tokens, 0 for off or -1 for all")),
    }
}

fn mirostat(found: Found<'_>) -> Result<Mirostat, FieldError> {
    match fields::whole(found)? {
        0 => Ok(Mirostat::Off),
        1 => Ok(Mirostat::V1),
        2 => Ok(Mirostat::V2),
        _ => Err(FieldError::new(found.0, found.1, "0 (off), 1 or 2")),
    }
}

/// Seeds are 64 bits wide; those beyond what a signed number holds are read as they are.
fn seed(found: Found<'_>) -> Result<Option<u64>, FieldError> {
    if let Some(seed) = found.1.as_u64().filter(|&seed| seed > i64::MAX as u64) {
        return Ok(Some(seed));
    }
    let seed = fields::whole(found)?;
    Ok(u64::try_from(seed).ok().filter(|_| seed != LLAMA_RANDOM_SEED))
}

/// Names, or else letters; `temp` is a name although all its letters stand for steps.
fn samplers(found: Found<'_>) -> Result<SamplerOrder, FieldError> {
    let named = |text: &str| text.parse().map_err(|error| FieldError::of_parameter(found.0, error));
    match found.1 {
        Value::Array(_) => named(&fields::texts(found)?.join(";")),
        Value::String(text) => {
            named(text).or_else(|refused| SamplerOrder::from_letters(text).map_err(|_| refused))
        }
        _ => Err(FieldError::new(found.0, found.1, "a list of names, or names between semicolons")),
    }
}

/// `{"15043": 1.0, " word": false}` or `[[15043, 1.0], [" word", false]]`.
fn logit_bias(found: Found<'_>) -> Result<Vec<LogitBias>, FieldError> {
    let refused = || {
        let allowed = "an object from tokens to numbers, or a list of [token or text, number or false]";
        FieldError::new(found.0, found.1, allowed)
    };
    let bias = |target: BiasTarget, value: &Value| {
        let bias = match value {
            Value::Bool(false) => f32::NEG_INFINITY,
            other => other.as_f64().ok_or_else(refused)? as f32,
        };
        Ok(LogitBias { target, bias })
    };
    let token_or_text =
        |key: &str| key.parse().map_or_else(|_| BiasTarget::Text(key.to_owned()), BiasTarget::Token);
    match found.1 {
        Value::Object(object) => object.iter().map(|(key, value)| bias(token_or_text(key), value)).collect(),
        Value::Array(list) => list
            .iter()
            .map(|entry| {
                let [target, value] = entry.as_array().ok_or_else(refused)?.as_slice() else {
                    return Err(refused());
                };
                let target = match target {
                    Value::String(text) => BiasTarget::Text(text.clone()),
                    other => {
                        let id = other.as_u64().and_then(|id| u32::try_from(id).ok()).ok_or_else(refused)?;
                        BiasTarget::Token(id)
                    }
                };
                bias(target, value)
            })
            .collect(),
        _ => Err(refused()),
    }
}

impl<'de> Deserialize<'de> for SamplingFields {
    /// From all fields of an object; with `#[serde(flatten)]`, from those that the structure around it does not name.
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Fields;
        impl<'de> Visitor<'de> for Fields {
            type Value = SamplingFields;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object with sampling parameters")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<SamplingFields, A::Error> {
                let mut map = Map::new();
                while let Some((key, value)) = entries.next_entry()? {
                    map.insert(key, value);
                }
                SamplingFields::from_map(&map).map_err(A::Error::custom)
            }
        }
        deserializer.deserialize_map(Fields)
    }
}

#[cfg(test)]
mod tests {
    use bitnet_inference::Prompt;
    use serde_json::json;

    use super::*;

    fn read(body: Value) -> Result<SamplingFields, String> {
        serde_json::from_value(body).map_err(|error| error.to_string())
    }

    #[test]
    fn nothing_said_changes_nothing() {
        for body in [json!({}), json!({"temperature": null, "stop": null, "model": "x", "messages": []})] {
            let fields = read(body).unwrap();
            assert_eq!(fields, SamplingFields::default());
            let mut request = GenerateRequest::new(Prompt::text("x")).max_tokens(5);
            let before = request.clone();
            fields.apply(&mut request);
            assert_eq!(request, before);
        }
    }

    #[test]
    fn spellings_of_all_families() {
        let own = |body| read(body).unwrap().overrides;
        let with = |set: fn(&mut SamplingOverrides)| {
            let mut overrides = SamplingOverrides::default();
            set(&mut overrides);
            overrides
        };
        let temperature = with(|o| o.temperature = Some(0.5));
        let typical = with(|o| o.typical_p = Some(0.25));
        let sigma = with(|o| o.top_n_sigma = Some(0.0));
        let penalty = with(|o| o.repeat_penalty = Some(1.5));
        let window = with(|o| o.repeat_last_n = Some(PenaltyWindow::All));
        for (body, expected) in [
            (json!({"temperature": 0.5}), temperature),
            (json!({"temp": 0.5}), temperature),
            (json!({"typical_p": 0.25}), typical),
            (json!({"typ_p": 0.25}), typical),
            (json!({"top_n_sigma": -1}), sigma),
            (json!({"repeat_penalty": 1.5}), penalty),
            (json!({"repetition_penalty": 1.5}), penalty),
            (json!({"repeat_last_n": -1}), window),
            (json!({"top_k": -1}), with(|o| o.top_k = Some(0))),
            (json!({"top_k": 40.0}), with(|o| o.top_k = Some(40))),
            (
                json!({"dry_penalty_last_n": 64}),
                with(|o| o.dry_penalty_last_n = Some(PenaltyWindow::Last(64))),
            ),
            (json!({"mirostat": 2}), with(|o| o.mirostat = Some(Mirostat::V2))),
            (json!({"samplers": ["top_k", "temperature"]}), with(|o| o.samplers = "top_k;temp".parse().ok())),
            (json!({"samplers": "kt"}), with(|o| o.samplers = "top_k;temp".parse().ok())),
            (json!({"samplers": "top_k;temp"}), with(|o| o.samplers = "top_k;temp".parse().ok())),
            (json!({"samplers": "temp"}), with(|o| o.samplers = "temperature".parse().ok())),
            (json!({"seed": 7}), with(|o| o.seed = Some(7))),
            (json!({"seed": u64::MAX}), with(|o| o.seed = Some(u64::MAX))),
            (json!({"seed": -1}), SamplingOverrides::default()),
            (json!({"seed": 4_294_967_295_u32}), SamplingOverrides::default()),
        ] {
            assert_eq!(own(body.clone()), expected, "{body}");
        }
    }

    #[test]
    fn limits_and_strings_reach_the_request() {
        for name in ["max_tokens", "max_completion_tokens", "n_predict", "num_predict", "max_output_tokens"] {
            let mut request = GenerateRequest::new(Prompt::text("x")).max_tokens(5);
            read(json!({name: 9})).unwrap().apply(&mut request);
            assert_eq!(request.max_tokens, Some(9), "{name}");
            read(json!({name: -1})).unwrap().apply(&mut request);
            assert_eq!(request.max_tokens, None, "{name}");
        }
        let body = json!({"stop": "a", "banned_strings": ["b"], "dry_sequence_breakers": ["\n"], "ignore_eos": true,
            "logit_bias": {"5": -100, " yes": false}});
        let mut request = GenerateRequest::new(Prompt::text("x")).stop("z");
        read(body).unwrap().apply(&mut request);
        assert_eq!(
            (request.stop, request.banned),
            (vec!["z".to_owned(), "a".to_owned()], vec!["b".to_owned()])
        );
        assert_eq!(request.dry_sequence_breakers, Some(vec!["\n".to_owned()]));
        assert!(request.ignore_eos);
        let bias = |target, bias| LogitBias { target, bias };
        let excluded = bias(BiasTarget::Text(" yes".to_owned()), f32::NEG_INFINITY);
        assert_eq!(request.logit_bias, [bias(BiasTarget::Token(5), -100.0), excluded.clone()]);
        let pairs = read(json!({"logit_bias": [[5, -100], [" yes", false]]})).unwrap();
        assert_eq!(pairs.logit_bias, [bias(BiasTarget::Token(5), -100.0), excluded]);
    }

    #[test]
    fn fields_may_lie_beside_others() {
        #[derive(Deserialize)]
        struct Body {
            model: String,
            stop: Option<String>,
            #[serde(flatten)]
            sampling: SamplingFields,
        }
        let body =
            r#"{"temperature": 1, "model": "m", "stop": "own", "top_p": 0.5, "else": [1, {"a": null}]}"#;
        let Body { model, stop, sampling } = serde_json::from_str(body).unwrap();
        assert_eq!((model.as_str(), stop.as_deref()), ("m", Some("own")));
        assert_eq!((sampling.overrides.temperature, sampling.overrides.top_p), (Some(1.0), Some(0.5)));
        assert!(sampling.stop.is_empty());
        let error = serde_json::from_str::<Body>(r#"{"model": "m", "top_p": "high"}"#).err().unwrap();
        assert!(error.to_string().contains("top_p = \"high\""), "{error}");
    }

    #[test]
    fn wrong_types_name_field_and_value() {
        for (body, field) in [
            (json!({"temperature": "hot"}), "temperature = \"hot\""),
            (json!({"temp": []}), "temp = []"),
            (json!({"top_k": 1.5}), "top_k = 1.5"),
            (json!({"seed": "x"}), "seed = \"x\""),
            (json!({"seed": 0.5}), "seed = 0.5"),
            (json!({"stop": [1]}), "stop = [1]"),
            (json!({"stop": {"a": 1}}), "stop = {"),
            (json!({"mirostat": 3}), "mirostat = 3"),
            (json!({"samplers": ["top_x"]}), "samplers = \"top_x\""),
            (json!({"samplers": 1}), "samplers = 1"),
            (json!({"repeat_last_n": -2}), "repeat_last_n = -2"),
            (json!({"dry_allowed_length": -1}), "dry_allowed_length = -1"),
            (json!({"logit_bias": 1}), "logit_bias = 1"),
            (json!({"logit_bias": [[1]]}), "logit_bias = [[1]]"),
            (json!({"logit_bias": [[-1, 1.0]]}), "logit_bias = [[-1"),
            (json!({"logit_bias": {"1": true}}), "logit_bias = {"),
            (json!({"max_tokens": "many"}), "max_tokens = \"many\""),
            (json!({"ignore_eos": 1}), "ignore_eos = 1"),
        ] {
            let error = read(body.clone()).unwrap_err();
            assert!(error.starts_with(field), "{body}: {error}");
        }
        assert!(read(json!([])).is_err());
    }
}
