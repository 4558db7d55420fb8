//! What `/set` changes: the flags of sampling by their names, and the limit of tokens.

use bitnet_inference::{Mirostat, PenaltyWindow, SamplingOverrides, SamplingParams};

use crate::args::values;

/// Names that `/set` takes.
pub(super) const NAMES: [&str; 24] = [
    "temp",
    "dynatemp-range",
    "dynatemp-exp",
    "top-k",
    "top-p",
    "min-p",
    "typical",
    "top-nsigma",
    "xtc-probability",
    "xtc-threshold",
    "mirostat",
    "mirostat-ent",
    "mirostat-lr",
    "repeat-penalty",
    "presence-penalty",
    "frequency-penalty",
    "repeat-last-n",
    "dry-multiplier",
    "dry-base",
    "dry-allowed-length",
    "dry-penalty-last-n",
    "samplers",
    "seed",
    "predict",
];

/// Sets a parameter of sampling; `None` if there is none of this name.
pub(super) fn set(s: &mut SamplingOverrides, name: &str, value: &str) -> Option<Result<(), String>> {
    let whole = |why: &str| format!("it must be a whole number{why}");
    Some(match name {
        "temp" | "temperature" => values::temperature(value).map(|v| s.temperature = Some(v)),
        "dynatemp-range" => values::temperature(value).map(|v| s.dynatemp_range = Some(v)),
        "dynatemp-exp" => values::positive_number(value).map(|v| s.dynatemp_exponent = Some(v)),
        "top-k" => value.parse().map(|v| s.top_k = Some(v)).map_err(|_| whole("")),
        "top-p" => values::probability(value).map(|v| s.top_p = Some(v)),
        "min-p" => values::probability(value).map(|v| s.min_p = Some(v)),
        "typical" | "typical-p" => values::probability(value).map(|v| s.typical_p = Some(v)),
        "top-nsigma" | "top-n-sigma" => values::n_sigma(value).map(|v| s.top_n_sigma = Some(v)),
        "xtc-probability" => values::probability(value).map(|v| s.xtc_probability = Some(v)),
        "xtc-threshold" => values::probability(value).map(|v| s.xtc_threshold = Some(v)),
        "mirostat" => values::mirostat(value).map(|v| s.mirostat = Some(v)),
        "mirostat-ent" => values::non_negative(value).map(|v| s.mirostat_tau = Some(v)),
        "mirostat-lr" => values::probability(value).map(|v| s.mirostat_eta = Some(v)),
        "repeat-penalty" => values::penalty(value).map(|v| s.repeat_penalty = Some(v)),
        "presence-penalty" => values::offset(value).map(|v| s.presence_penalty = Some(v)),
        "frequency-penalty" => values::offset(value).map(|v| s.frequency_penalty = Some(v)),
        "repeat-last-n" => values::window(value).map(|v| s.repeat_last_n = Some(v)),
        "dry-multiplier" => values::dry_multiplier(value).map(|v| s.dry_multiplier = Some(v)),
        "dry-base" => values::dry_base(value).map(|v| s.dry_base = Some(v)),
        "dry-allowed-length" => values::positive(value).map(|v| s.dry_allowed_length = Some(v)),
        "dry-penalty-last-n" => values::window(value).map(|v| s.dry_penalty_last_n = Some(v)),
        "samplers" => values::samplers(value).map(|v| s.samplers = Some(v)),
        "sampling-seq" | "sampler-seq" => values::sampling_seq(value).map(|v| s.samplers = Some(v)),
        "seed" if value == "random" => {
            s.seed = None;
            Ok(())
        }
        "seed" => value.parse().map(|v| s.seed = Some(v)).map_err(|_| whole(" or `random`")),
        _ => return None,
    })
}

/// The parameters of sampling as they act, with their names.
pub(super) fn rows(p: &SamplingParams) -> Vec<(&'static str, String)> {
    let window = |window| match window {
        PenaltyWindow::All => "-1".to_owned(),
        PenaltyWindow::Last(n) => n.to_string(),
    };
    let mirostat = match p.mirostat {
        Mirostat::Off => "0",
        Mirostat::V1 => "1",
        Mirostat::V2 => "2",
    };
    vec![
        ("temp", p.temperature.to_string()),
        ("dynatemp-range", p.dynatemp_range.to_string()),
        ("dynatemp-exp", p.dynatemp_exponent.to_string()),
        ("top-k", p.top_k.to_string()),
        ("top-p", p.top_p.to_string()),
        ("min-p", p.min_p.to_string()),
        ("typical", p.typical_p.to_string()),
        ("top-nsigma", p.top_n_sigma.to_string()),
        ("xtc-probability", p.xtc_probability.to_string()),
        ("xtc-threshold", p.xtc_threshold.to_string()),
        ("mirostat", mirostat.to_owned()),
        ("mirostat-ent", p.mirostat_tau.to_string()),
        ("mirostat-lr", p.mirostat_eta.to_string()),
        ("repeat-penalty", p.repeat_penalty.to_string()),
        ("presence-penalty", p.presence_penalty.to_string()),
        ("frequency-penalty", p.frequency_penalty.to_string()),
        ("repeat-last-n", window(p.repeat_last_n)),
        ("dry-multiplier", p.dry_multiplier.to_string()),
        ("dry-base", p.dry_base.to_string()),
        ("dry-allowed-length", p.dry_allowed_length.to_string()),
        ("dry-penalty-last-n", window(p.dry_penalty_last_n)),
        ("samplers", p.samplers.to_string()),
        ("seed", p.seed.map_or_else(|| "random".to_owned(), |seed| seed.to_string())),
    ]
}
