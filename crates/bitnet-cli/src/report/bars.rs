//! [`Bars`]: bars over a lower axis, such as a histogram or one value for each layer.

use super::axes::{Axis, Frame, Legend};
use super::svg::{self, COLOURS, label};

/// A histogram or a row of values.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Bars {
    pub(crate) title: String,
    pub(crate) x: Axis,
    pub(crate) y_name: &'static str,
    /// Each from one place of the lower axis to another, with its height.
    pub(crate) bars: Vec<Bar>,
    /// Names of the colours, if there are several.
    pub(crate) names: Vec<String>,
}

/// One bar. Bars of the same place with rising `base` are stacked.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Bar {
    pub(crate) from: f64,
    pub(crate) to: f64,
    /// Where it begins; 0 but for stacks.
    pub(crate) base: f64,
    pub(crate) height: f64,
    pub(crate) colour: usize,
}

impl Bars {
    /// How many of `values` lie in each of the ranges between `edges`. Values outside count in the first and the last.
    pub(crate) fn histogram(title: impl Into<String>, x: Axis, edges: &[f64], values: &[f64]) -> Self {
        let bins = edges.len().saturating_sub(1).max(1);
        let mut counts = vec![0usize; bins];
        for value in values {
            counts[edges.partition_point(|edge| edge <= value).saturating_sub(1).min(bins - 1)] += 1;
        }
        let bar = |(range, &count): (&[f64], &usize)| Bar {
            from: range[0],
            to: range[1],
            base: 0.0,
            height: count as f64,
            colour: 0,
        };
        let bars = edges.windows(2).zip(&counts).map(bar).collect();
        Self { title: title.into(), x, y_name: "count", bars, names: Vec::new() }
    }

    /// The drawing.
    pub(crate) fn svg(&self) -> String {
        let highest = self.bars.iter().map(|b| b.base + b.height).fold(0.0, f64::max);
        let lowest = self.bars.iter().map(|b| b.base + b.height).fold(0.0, f64::min);
        let frame = Frame::new(self.x.clone().without_grid(), Axis::linear(self.y_name, lowest, highest));
        let mut out = String::new();
        for bar in self.bars.iter().filter(|bar| bar.height != 0.0) {
            let (low, high) = (frame.at(bar.from, bar.base), frame.at(bar.to, bar.base + bar.height));
            let title = format!(
                "{} {} to {}: {} {}",
                self.x.name(),
                label(bar.from),
                label(bar.to),
                label(bar.height),
                self.names.get(bar.colour).map_or(self.y_name, String::as_str)
            );
            out += &svg::block(&format!("block c{}", bar.colour % COLOURS), low, high, &title);
        }
        let entry = |(colour, name): (usize, &String)| Legend {
            text: name.clone(),
            colour,
            dashed: false,
            mark: false,
        };
        let legend: Vec<Legend> = self.names.iter().enumerate().map(entry).collect();
        frame.drawing(&self.title, &out, &legend)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_value_is_in_one_bar() {
        let edges = [0.0, 1.0, 2.0, 4.0];
        let bars =
            Bars::histogram("h", Axis::linear("x", 0.0, 4.0), &edges, &[-1.0, 0.0, 1.0, 1.5, 3.9, 4.0, 9.0]);
        let heights: Vec<f64> = bars.bars.iter().map(|b| b.height).collect();
        assert_eq!(heights, [2.0, 2.0, 3.0]);
        assert_eq!(bars.svg().matches("<rect").count(), 3);
        assert_eq!(bars.svg().matches("<title>x 2 to 4: 3 count</title>").count(), 1);
    }
}
