//! `bitnet inspect --html`: a page with plots of the layers.

use bitnet_core::MemorySize;
use bitnet_inference::anatomy::{ActivationRange, Anatomy, LayerAnatomy};
use bitnet_model::load::LoadedModel;

use super::layers::{HEADS, Layers, row};
use super::{Facts, bits, share};
use crate::output::count;
use crate::report::{Axis, Bar, Bars, Chart, Column, Page, Series, Value};

/// The page.
pub(super) fn page(model: &LoadedModel, facts: &Facts, layers: &Layers) -> String {
    let anatomy = &layers.anatomy;
    let mut page = Page::new(&format!("Layers of {}", model.name));
    page.facts(&head(model, facts, anatomy));
    page.heading("Weights");
    page.text(
        "A code that codes each weight by itself needs at least as many bits a weight as the entropy of its shares \
         says; one that codes five neighbours of a row together can need less if they tell about each other. Dashed: \
         the most that three equally frequent values can need.",
    );
    page.figures([
        ("Shares of the weights by layer", shares(anatomy).svg()),
        ("Bits a weight by layer", entropies(anatomy).svg()),
        ("Scale by layer", scales(anatomy).svg()),
    ]);
    if let Some(sample) = &layers.sample {
        page.heading("Activations");
        page.text(
            "What goes into the projections, norms applied, over all tokens of the sample. Each token's row is scaled \
             so that its largest magnitude becomes 127 and is rounded to int8: many zeros beside a large maximum mean \
             that a few values take the range of all others.",
        );
        page.figures([
            ("Largest magnitude", inputs(anatomy, "magnitude", |input| f64::from(input.absmax)).svg()),
            ("Mean magnitude", inputs(anatomy, "magnitude", ActivationRange::mean_magnitude).svg()),
            ("Values that become 0", inputs(anatomy, "%", |input| 100.0 * input.zero_share()).svg()),
            (
                "Values at an end of the range",
                inputs(anatomy, "%", |input| 100.0 * input.saturated_share()).svg(),
            ),
        ]);
        page.text(&format!("The sample: {sample}"));
    }
    table(&mut page, anatomy);
    page.finish()
}

fn head(model: &LoadedModel, facts: &Facts, anatomy: &Anatomy) -> Vec<(&'static str, String)> {
    let (all, ternary) = (model.spec.parameters(), model.spec.ternary_parameters());
    let least = anatomy.trits.entropy() * ternary as f64 / 8.0;
    let mut out = vec![
        ("format", model.format.clone()),
        ("architecture", model.spec.architecture.clone()),
        ("parameters", format!("{} ({:.1} % ternary)", count(all), 100.0 * share(model))),
        (
            "ternary weights",
            format!("{}, {:.2} bits each", count(ternary), bits(facts.ternary_bytes, ternary)),
        ),
        (
            "at their entropy",
            format!("{:.3} bits each, {}", anatomy.trits.entropy(), MemorySize::bytes(least as u64)),
        ),
    ];
    if anatomy.sample_tokens > 0 {
        out.push(("sample", format!("{} tokens", anatomy.sample_tokens)));
    }
    out
}

/// A stack for each layer.
fn shares(anatomy: &Anatomy) -> Bars {
    let mut bars = Vec::new();
    for (number, layer) in anatomy.layers.iter().enumerate() {
        let (mut base, at) = (0.0, number as f64);
        for (colour, share) in layer.trits.shares().into_iter().enumerate() {
            let height = 100.0 * share;
            bars.push(Bar { from: at - 0.4, to: at + 0.4, base, height, colour });
            base += height;
        }
    }
    Bars {
        title: "Shares of the weights by layer".to_owned(),
        x: Axis::linear("layer", -0.5, anatomy.layers.len() as f64 - 0.5),
        y_name: "%",
        bars,
        names: ["-1", "0", "+1"].map(str::to_owned).to_vec(),
    }
}

/// A chart over the layers.
fn chart(title: &str, y_name: &'static str, series: Vec<Series>) -> Chart {
    Chart { title: title.to_owned(), x_name: "layer", y_name, series }
}

/// A line over the layers; layers without a value are left out.
fn series(name: &str, values: impl Iterator<Item = Option<f64>>) -> Series {
    let value = |(layer, y): (usize, Option<f64>)| Some(Value { x: layer as f64, y: y?, spread: 0.0 });
    Series { name: name.to_owned(), values: values.enumerate().filter_map(value).collect(), limit_of: None }
}

fn entropies(anatomy: &Anatomy) -> Chart {
    let layers = || anatomy.layers.iter();
    let most = series("three equal shares", layers().map(|_| Some(3f64.log2())));
    let lines = vec![
        series("each weight by itself", layers().map(|layer| Some(layer.trits.entropy()))),
        series("five neighbours together", layers().map(|layer| layer.trits.group_entropy())),
        Series { limit_of: Some(0), ..most },
    ];
    chart(
        "Bits a weight by layer",
        "bits",
        lines.into_iter().filter(|line| !line.values.is_empty()).collect(),
    )
}

fn scales(anatomy: &Anatomy) -> Chart {
    let Some(first) = anatomy.layers.first() else { return chart("Scale by layer", "scale", Vec::new()) };
    let line = |(index, name): (usize, &str)| {
        series(name, anatomy.layers.iter().map(|layer| Some(f64::from(layer.projections[index].scale))))
    };
    let names = first.projections.iter().map(|projection| projection.name);
    chart("Scale by layer", "scale", names.enumerate().map(line).collect())
}

/// A line for each kind of input, as `figure` tells.
fn inputs(anatomy: &Anatomy, y_name: &'static str, figure: impl Fn(&ActivationRange) -> f64) -> Chart {
    let Some(first) = anatomy.layers.first() else { return chart("", y_name, Vec::new()) };
    let mut kinds: Vec<(usize, String)> = Vec::new();
    for (index, projection) in first.projections.iter().enumerate() {
        match kinds.last_mut().filter(|(of, _)| first.projections[*of].input == projection.input) {
            Some((_, names)) => *names += &format!(", {}", projection.name),
            None => kinds.push((index, projection.name.to_owned())),
        }
    }
    let line = |(index, name): &(usize, String)| {
        let input = |layer: &LayerAnatomy| layer.projections[*index].input.as_ref().map(&figure);
        series(&format!("into {name}"), anatomy.layers.iter().map(input))
    };
    chart("Activations by layer", y_name, kinds.iter().map(line).collect())
}

fn table(page: &mut Page, anatomy: &Anatomy) {
    let columns: Vec<Column<'_>> = HEADS.iter().map(|head| Column { head, right: true }).collect();
    let layers = anatomy.layers.iter().enumerate();
    let rows: Vec<Vec<String>> =
        layers.flat_map(|(number, layer)| layer.projections.iter().map(move |p| row(number, p))).collect();
    let width = rows.first().map_or(columns.len(), Vec::len);
    page.heading("All figures");
    page.table(&columns[..width], &rows);
}

#[cfg(test)]
mod tests {
    use bitnet_inference::{LoadOptions, ModelSource};
    use bitnet_model::load::load;

    use super::*;
    use crate::report::elements;

    #[test]
    fn a_page_has_the_plots_and_needs_nothing_else() {
        let view = |(name, bytes): (&str, &'static [u8])| {
            (name.to_owned(), bitnet_core::bytes::ByteView::from_static(bytes))
        };
        let files = bitnet_tiny::files().into_iter().map(view).collect();
        let model =
            load(&ModelSource::Memory { name: "<tiny>".to_owned(), files }, &LoadOptions::default()).unwrap();
        let count = |page: &str, name: &str| elements(page).iter().filter(|e| *e == name).count();
        let facts = Facts::of(&model);
        for (tokens, drawings) in [(vec![1, 2, 3], 7), (Vec::new(), 3)] {
            let anatomy = Anatomy::of(&model, &tokens, &mut |_, _| {}).unwrap();
            let sample = (!tokens.is_empty()).then(|| "a < b".to_owned());
            let page = page(&model, &facts, &Layers { anatomy, sample });
            let rows = 7 * model.spec.num_layers + 1;
            assert_eq!((count(&page, "svg"), count(&page, "tr")), (drawings, rows));
            assert_eq!(page.contains("into q, k, v"), !tokens.is_empty());
            assert!(!page.contains("<tiny>"));
        }
    }
}
