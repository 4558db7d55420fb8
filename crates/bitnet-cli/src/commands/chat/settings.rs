//! [`Settings`]: what `/set` changes: the flags of sampling by their names, and how answers are made and shown.

use bitnet_inference::{
    Constraint, InferenceEngine, Mirostat, PenaltyWindow, SamplingOverrides, SamplingParams,
};

use super::screen::Looks;
use crate::args::values::{self, Limit};
use crate::args::{ChatFlags, SamplingArgs};
use crate::commands::constraint::{constraint, json_schema};
use crate::error::CliError;
use crate::nearest::nearest;

/// Parameters of sampling that `/set` takes.
const SAMPLING: [&str; 23] = [
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
];

/// What else it takes.
const OTHERS: [&str; 9] =
    ["predict", "stop", "system", "format", "markdown", "wordwrap", "stats", "context-shift", "history"];

/// All names that `/set` takes.
pub(super) fn names() -> impl Iterator<Item = &'static str> {
    SAMPLING.into_iter().chain(OTHERS)
}

/// How answers are made and shown.
#[derive(Debug)]
pub(super) struct Settings {
    pub(super) sampling: SamplingOverrides,
    /// The flags, for what `/set` does not change.
    pub(super) flags: SamplingArgs,
    pub(super) constraint: Option<Constraint>,
    pub(super) predict: Option<Limit>,
    pub(super) stop: Vec<String>,
    pub(super) looks: Looks,
    /// Whether all statistics follow each answer.
    pub(super) stats: bool,
    /// Whether the oldest turns go when the context is full.
    pub(super) context_shift: bool,
    /// Whether typed lines are kept.
    pub(super) history: bool,
}

impl Settings {
    pub(super) fn new(args: &ChatFlags) -> Result<Self, CliError> {
        Ok(Self {
            sampling: args.sampling.overrides(),
            flags: args.sampling.clone(),
            constraint: constraint(&args.constraint)?,
            predict: args.predict,
            stop: args.stop.clone(),
            looks: Looks { markdown: !args.raw, wordwrap: !args.nowordwrap },
            stats: args.stats,
            context_shift: args.context_shift,
            history: true,
        })
    }

    /// Changes a setting, by its name or as ollama's users write it.
    pub(super) fn set(&mut self, name: &str, value: &str, engine: &InferenceEngine) -> Result<(), CliError> {
        let (name, value) = as_ours(name, value);
        let name = name.replace('_', "-");
        if value.is_empty() {
            return Err(
                CliError::usage(format!("/set {name} needs a value")).hint("/set alone shows all settings")
            );
        }
        let wrong = |why: String| CliError::usage(format!("/set {name} {value}: {why}"));
        if let Some(done) = set(&mut self.sampling, &name, value) {
            return done.map_err(wrong);
        }
        match name.as_str() {
            "predict" | "n" | "num-predict" => self.predict = Some(values::limit(value).map_err(wrong)?),
            "stop" => self.stop = if value == "none" { Vec::new() } else { vec![value.to_owned()] },
            "format" => self.constraint = format(value, engine)?,
            "markdown" => self.looks.markdown = on(value).map_err(wrong)?,
            "wordwrap" => self.looks.wordwrap = on(value).map_err(wrong)?,
            "stats" => self.stats = on(value).map_err(wrong)?,
            "context-shift" => self.context_shift = on(value).map_err(wrong)?,
            "history" => self.history = on(value).map_err(wrong)?,
            _ => {
                let hint = match nearest(&name, names()) {
                    Some(near) => format!("did you mean {near}?"),
                    None => format!("there are {}", names().collect::<Vec<_>>().join(", ")),
                };
                return Err(CliError::usage(format!("there is no setting {name}")).hint(hint));
            }
        }
        Ok(())
    }

    /// All settings as they act now, with their names.
    pub(super) fn rows(&self, engine: &InferenceEngine) -> Vec<(&'static str, String)> {
        let switch = |on: bool| if on { "on" } else { "off" }.to_owned();
        let predict = match self.predict {
            Some(Limit::Tokens(n)) => n.to_string(),
            Some(Limit::None) | None => "-1".to_owned(),
        };
        let stop = if self.stop.is_empty() { "none".to_owned() } else { format!("{:?}", self.stop) };
        let format = if self.constraint.is_some() { "constrained" } else { "off" };
        let sampling = SamplingParams::resolve(&self.sampling, engine.defaults());
        let mut all = sampling.map_or_else(|_| Vec::new(), |params| rows(&params));
        all.extend([
            ("predict", predict),
            ("stop", stop),
            ("format", format.to_owned()),
            ("markdown", switch(self.looks.markdown)),
            ("wordwrap", switch(self.looks.wordwrap)),
            ("stats", switch(self.stats)),
            ("context-shift", switch(self.context_shift)),
            ("history", switch(self.history)),
        ]);
        all
    }
}

/// What users of ollama write, in the words of this program: `parameter NAME VALUE`, `verbose`, `nowordwrap`.
fn as_ours<'a>(name: &'a str, value: &'a str) -> (&'a str, &'a str) {
    match name {
        "parameter" => {
            value.split_once(char::is_whitespace).map_or((value, ""), |(name, value)| (name, value.trim()))
        }
        "verbose" if value.is_empty() => ("stats", "on"),
        "quiet" if value.is_empty() => ("stats", "off"),
        "wordwrap" | "history" if value.is_empty() => (name, "on"),
        "nowordwrap" => ("wordwrap", "off"),
        "nohistory" => ("history", "off"),
        "noformat" => ("format", "off"),
        _ => (name, value),
    }
}

/// Reads a switch.
fn on(value: &str) -> Result<bool, String> {
    match value {
        "on" | "true" | "yes" | "1" => Ok(true),
        "off" | "false" | "no" | "0" => Ok(false),
        _ => Err("it must be on or off".to_owned()),
    }
}

/// What answers must be: `json`, a schema or the name of a file with one, `off` for anything.
pub(super) fn format(value: &str, engine: &InferenceEngine) -> Result<Option<Constraint>, CliError> {
    let constraint = match value {
        "off" | "none" => return Ok(None),
        "json" => Constraint::JsonObject,
        schema => json_schema(schema)?,
    };
    engine.check_constraint(&constraint)?;
    Ok(Some(constraint))
}

/// Sets a parameter of sampling; `None` if there is none of this name.
fn set(s: &mut SamplingOverrides, name: &str, value: &str) -> Option<Result<(), String>> {
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
fn rows(p: &SamplingParams) -> Vec<(&'static str, String)> {
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
