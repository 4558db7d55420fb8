//! `bitnet inspect --layers`: the layers as a table and as JSON.

use bitnet_inference::anatomy::{ActivationRange, Anatomy, LayerAnatomy, ProjectionAnatomy};
use bitnet_model::load::LoadedModel;
use bitnet_quant::TritCounts;
use bitnet_text::EncodeOptions;
use serde_json::{Value, json};

use crate::args::SampleArgs;
use crate::commands::generate::read;
use crate::error::CliError;
use crate::output::{Notes, Progress, Table};

/// What is read if no text is given: plain sentences of the kind that every model has seen.
const SAMPLE: &str = "The old bridge over the river was closed last winter. Since then people walk twice as far to the \
    market, and the baker says that his bread is cold before it is sold. A small boat takes children to school in the \
    morning and brings them home at four. Nobody knows who will pay for a new bridge, but everyone agrees that it \
    should be wide enough for two carts and a dog.";

/// The heads of [`row`].
pub(super) const HEADS: [&str; 13] = [
    "layer",
    "projection",
    "shape",
    "-1",
    "0",
    "+1",
    "bits",
    "of 5",
    "scale",
    "absmax",
    "mean |x|",
    "to 0",
    "at an end",
];
/// How many of the heads are about weights.
const WEIGHT_HEADS: usize = 9;

/// The layers, and what their activations come from.
pub(super) struct Layers {
    pub(super) anatomy: Anatomy,
    /// The part of the sample that was used.
    pub(super) sample: Option<String>,
}

impl Layers {
    /// Looks into a model.
    ///
    /// # Errors
    /// If a text is given that cannot be read or made tokens of, or a tensor is damaged.
    pub(super) fn of(model: &LoadedModel, args: &SampleArgs, notes: Notes) -> Result<Self, CliError> {
        let tokens = tokens(model, args, notes)?;
        let mut progress = Progress::new("looking into the layers", notes);
        let anatomy = Anatomy::of(model, &tokens, &mut |done, total| progress.set(done, total))?;
        let text = |tokens: &[u32]| model.tokenizer.as_ref().map(|t| t.decode(tokens, true));
        let sample = if tokens.is_empty() { None } else { text(&tokens) };
        Ok(Self { anatomy, sample })
    }

    /// The table, and a line on the sample.
    pub(super) fn text(&self) -> String {
        let mut table = Table::default();
        let width = if self.anatomy.sample_tokens > 0 { HEADS.len() } else { WEIGHT_HEADS };
        table.cells(HEADS[..width].iter().map(ToString::to_string).collect());
        for (number, layer) in self.anatomy.layers.iter().enumerate() {
            for projection in &layer.projections {
                table.cells(row(number, projection));
            }
        }
        let mut all: Vec<String> = ["all", "", ""].map(str::to_owned).to_vec();
        all.extend(weight_cells(&self.anatomy.trits));
        table.cells(all);
        let sample = match &self.sample {
            Some(_) => format!("activations of {} tokens\n", self.anatomy.sample_tokens),
            None => String::new(),
        };
        format!("{table}{sample}")
    }

    /// The keys of JSON that tell of layers.
    pub(super) fn json(&self) -> [(&'static str, Value); 3] {
        let layer = |(number, layer): (usize, &LayerAnatomy)| {
            json!({
                "layer": number,
                "weights": weights_json(&layer.trits),
                "projections": layer.projections.iter().map(projection_json).collect::<Vec<_>>(),
            })
        };
        let sample =
            self.sample.as_ref().map(|text| json!({"tokens": self.anatomy.sample_tokens, "text": text}));
        [
            ("layers", self.anatomy.layers.iter().enumerate().map(layer).collect()),
            ("ternary", weights_json(&self.anatomy.trits)),
            ("sample", sample.unwrap_or_default()),
        ]
    }
}

/// The tokens of the sample; none if there is to be none, or the model has no tokenizer and nobody asked for a text.
fn tokens(model: &LoadedModel, args: &SampleArgs, notes: Notes) -> Result<Vec<u32>, CliError> {
    let text = match (&args.sample_text, &args.sample_file) {
        _ if args.no_sample => return Ok(Vec::new()),
        (Some(text), _) => text.clone(),
        (None, Some(path)) => read(path)?,
        (None, None) if model.tokenizer.is_none() => {
            notes.warn("the model has no tokenizer; its weights are looked at, its activations are not");
            return Ok(Vec::new());
        }
        (None, None) => SAMPLE.to_owned(),
    };
    let mut tokens =
        model.require_tokenizer()?.encode(&text, EncodeOptions::PROMPT).map_err(CliError::failed)?;
    if tokens.is_empty() {
        return Err(
            CliError::usage("the sample text is empty").hint("--no-sample looks at the weights alone")
        );
    }
    tokens.truncate(args.sample_tokens.min(model.spec.context_length));
    Ok(tokens)
}

/// A projection as the cells of a table.
pub(super) fn row(layer: usize, projection: &ProjectionAnatomy) -> Vec<String> {
    let ProjectionAnatomy { name, rows, cols, scale, trits, input } = projection;
    let mut cells = vec![layer.to_string(), (*name).to_owned(), format!("{rows}x{cols}")];
    cells.extend(weight_cells(trits));
    cells.push(digits(f64::from(*scale)));
    if let Some(input) = input {
        cells.extend([digits(f64::from(input.absmax)), digits(input.mean_magnitude())]);
        cells.extend([percent(input.zero_share()), percent(input.saturated_share())]);
    }
    cells
}

fn weight_cells(trits: &TritCounts) -> impl Iterator<Item = String> {
    let in_fives = trits.group_entropy().map_or_else(|| "-".to_owned(), |bits| format!("{bits:.3}"));
    let shares = trits.shares().map(percent);
    shares.into_iter().chain([format!("{:.3}", trits.entropy()), in_fives])
}

/// A share with as many digits as matter.
fn percent(share: f64) -> String {
    if share < 0.01 { format!("{:.2} %", 100.0 * share) } else { format!("{:.1} %", 100.0 * share) }
}

/// A number of any size with four digits.
pub(super) fn digits(x: f64) -> String {
    match x.abs() {
        0.0 => "0".to_owned(),
        v if !(1e-4..1e6).contains(&v) => format!("{x:.3e}"),
        v => format!("{x:.*}", (3 - v.log10().floor() as i32).max(0) as usize),
    }
}

fn weights_json(trits: &TritCounts) -> Value {
    let [minus, zero, plus] = trits.shares();
    json!({
        "count": trits.total(),
        "minus": minus,
        "zero": zero,
        "plus": plus,
        "bits": trits.entropy(),
        "bits_in_fives": trits.group_entropy(),
    })
}

fn projection_json(projection: &ProjectionAnatomy) -> Value {
    let input = |input: &ActivationRange| {
        json!({
            "absmax": input.absmax,
            "least_row_absmax": input.least_row_absmax,
            "mean": input.mean(),
            "mean_magnitude": input.mean_magnitude(),
            "zero_share": input.zero_share(),
            "saturated_share": input.saturated_share(),
        })
    };
    json!({
        "name": projection.name,
        "rows": projection.rows,
        "cols": projection.cols,
        "scale": projection.scale,
        "weights": weights_json(&projection.trits),
        "input": projection.input.as_ref().map(input),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_the_digits_that_matter() {
        let cases = [
            (0.0, "0"),
            (1.0, "1.000"),
            (0.012_344, "0.01234"),
            (-123.45, "-123.5"),
            (98_765.4, "98765"),
            (1.5e-7, "1.500e-7"),
            (f64::INFINITY, "inf"),
        ];
        for (x, text) in cases {
            assert_eq!(digits(x), text);
        }
        assert_eq!((percent(0.0012), percent(0.375)), ("0.12 %".to_owned(), "37.5 %".to_owned()));
    }
}
