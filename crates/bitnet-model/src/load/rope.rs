//! Rotary positions and sliding windows in a `config.json`.
//!
//! transformers 4 writes `rope_theta`, `rope_scaling` and, for Gemma 3, `rope_local_base_freq`; transformers 5 writes
//! `rope_parameters`, for models with two kinds of layers one object a kind.

use super::error::{LoadError, Result};
use super::json::Section;
use crate::{RopeScaling, SlidingWindow};

/// Kinds of layers, as `layer_types` names them.
const FULL: &str = "full_attention";
const SLIDING: &str = "sliding_attention";

/// Rotary positions of a model.
#[derive(Debug)]
pub(super) struct Rope {
    /// Base of the frequencies, if the file tells it.
    pub(super) theta: Option<f64>,
    /// How the frequencies are changed.
    pub(super) scaling: RopeScaling,
    /// Base in layers with a sliding window, if the file tells it.
    pub(super) local_theta: Option<f64>,
}

impl Rope {
    /// Reads all spellings.
    ///
    /// # Errors
    /// If a field has the wrong type, or asks for positions that the engine does not compute.
    pub(super) fn read(root: &Section<'_>) -> Result<Self> {
        check_partial_rotary(root)?;
        let mut rope = Self {
            theta: root.number("rope_theta")?,
            scaling: RopeScaling::None,
            local_theta: root.number("rope_local_base_freq")?,
        };
        if let Some(scaling) = root.section("rope_scaling")? {
            rope.scaling = read_scaling(&scaling)?;
        }
        let Some(parameters) = root.section("rope_parameters")? else { return Ok(rope) };
        let (full, sliding) = (parameters.get(FULL), parameters.get(SLIDING));
        let main = match (full, sliding) {
            (None, None) => parameters.clone(),
            _ => parameters.section(FULL)?.unwrap_or_else(|| parameters.clone()),
        };
        check_partial_rotary(&main)?;
        rope.theta = main.number("rope_theta")?.or(rope.theta);
        rope.scaling = match read_scaling(&main)? {
            RopeScaling::None => rope.scaling,
            scaling => scaling,
        };
        if let Some(local) = parameters.section(SLIDING)? {
            check_partial_rotary(&local)?;
            if read_scaling(&local)? != RopeScaling::None {
                return Err(unsupported(&local, "rope_type", "scaled rotary positions"));
            }
            rope.local_theta = local.number("rope_theta")?.or(rope.local_theta);
        }
        Ok(rope)
    }
}

fn unsupported(section: &Section<'_>, field: &str, what: &str) -> LoadError {
    LoadError::Unsupported {
        file: section.origin().to_owned(),
        what: format!("{} in layers with a sliding window ({what})", section.field(field)),
        remedy: "unscaled rotary positions are in these layers",
    }
}

fn check_partial_rotary(section: &Section<'_>) -> Result<()> {
    match section.number("partial_rotary_factor")? {
        Some(factor) if factor != 1.0 => Err(LoadError::Unsupported {
            file: section.origin().to_owned(),
            what: format!("{} = {factor}", section.field("partial_rotary_factor")),
            remedy: "rotary positions over whole heads are",
        }),
        _ => Ok(()),
    }
}

fn read_scaling(section: &Section<'_>) -> Result<RopeScaling> {
    let kind = match section.text("rope_type")? {
        Some(kind) => Some(kind),
        None => section.text("type")?,
    };
    let number = |name: &str| section.number(name)?.ok_or_else(|| section.missing(name));
    match kind {
        None | Some("default") => Ok(RopeScaling::None),
        Some("linear") => Ok(match section.number("factor")? {
            None | Some(1.0) => RopeScaling::None,
            Some(factor) => RopeScaling::Linear(factor),
        }),
        Some("llama3") => Ok(RopeScaling::Llama3 {
            factor: number("factor")?,
            low_freq_factor: number("low_freq_factor")?,
            high_freq_factor: number("high_freq_factor")?,
            original_context: number("original_max_position_embeddings")?,
        }),
        Some(other) => Err(LoadError::Unsupported {
            file: section.origin().to_owned(),
            what: format!("{} = {other:?}", section.field("rope_type")),
            remedy: "unscaled rotary positions, linear and llama3 scaling are",
        }),
    }
}

/// Which layers have a window by default, where `layer_types` does not tell.
#[derive(Debug, Clone, Copy)]
pub(super) enum WindowRule {
    /// Gemma 3: all but every sixth, unless `sliding_window_pattern` says otherwise; 4096 positions by default.
    Periodic,
    /// Qwen3: none, or with `use_sliding_window` those from `max_window_layers` on.
    Late,
}

/// Reads the sliding window; `local_theta` is the rotary base in layers that have it.
///
/// # Errors
/// If a field has the wrong type or names a kind of layer that is not known.
pub(super) fn sliding_window(
    root: &Section<'_>,
    rule: WindowRule,
    num_layers: usize,
    local_theta: f64,
) -> Result<Option<SlidingWindow>> {
    let window = match (rule, root.count("sliding_window")?) {
        (WindowRule::Periodic, None) if root.is_null("sliding_window") => None,
        (WindowRule::Periodic, window) => Some(window.unwrap_or(4096)),
        (WindowRule::Late, window) => {
            window.filter(|_| root.flag("use_sliding_window").ok().flatten() == Some(true))
        }
    };
    let Some(window) = window else { return Ok(None) };
    if let Some(kinds) = root.texts("layer_types")? {
        if let Some(other) = kinds.iter().find(|kind| ![FULL, SLIDING].contains(kind)) {
            return Err(LoadError::Unsupported {
                file: root.origin().to_owned(),
                what: format!("{} with {other:?}", root.field("layer_types")),
                remedy: "full_attention and sliding_attention are",
            });
        }
        if kinds.len() != num_layers {
            return Err(
                root.wrong("layer_types", format!("a list with the kind of each of the {num_layers} layers"))
            );
        }
        let layers: Vec<bool> = kinds.iter().map(|kind| *kind == SLIDING).collect();
        let some = layers.contains(&true);
        return Ok(some.then_some(SlidingWindow { window, layers, rope_theta: local_theta }));
    }
    // More layers than any model has are refused later, and must not size a list before.
    let num_layers = num_layers.min(1 << 16);
    match rule {
        WindowRule::Periodic => {
            let period = match root.count("sliding_window_pattern")? {
                Some(period) => period,
                None => root.count("_sliding_window_pattern")?.unwrap_or(6),
            };
            Ok(Some(SlidingWindow::periodic(window, num_layers, period, local_theta)))
        }
        WindowRule::Late => {
            let first = root.count("max_window_layers")?.unwrap_or(28);
            let layers: Vec<bool> = (0..num_layers).map(|layer| layer >= first).collect();
            let some = layers.contains(&true);
            Ok(some.then_some(SlidingWindow { window, layers, rope_theta: local_theta }))
        }
    }
}
