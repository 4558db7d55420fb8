//! [`Frame`]: the axes of a plot, and where its values are in the drawing.

use super::svg::{self, COLOURS, Point, decades, label, ticks};

/// Room for the labels on the left, above, and on the right.
const LEFT: f64 = 66.0;
const TOP: f64 = 14.0;
const RIGHT: f64 = 18.0;
/// Room for the labels and the name of the lower axis.
const BELOW: f64 = 48.0;
/// Height of a line of the legend.
const LEGEND_LINE: f64 = 20.0;

/// One axis.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Axis {
    name: String,
    low: f64,
    high: f64,
    /// Where labels stand.
    ticks: Vec<f64>,
    /// Whether lines go through the plot at the ticks.
    grid: bool,
    log: bool,
}

impl Axis {
    /// From at most `low` to at least `high`, ends at round numbers.
    pub(crate) fn linear(name: impl Into<String>, low: f64, high: f64) -> Self {
        let ticks = ticks(low, high);
        let (low, high) = ends(&ticks);
        Self { name: name.into(), low, high, ticks, grid: true, log: false }
    }

    /// From the power of ten below `low` to that above `high`; both are more than zero.
    pub(crate) fn log(name: impl Into<String>, low: f64, high: f64) -> Self {
        let ticks = decades(low, high);
        let (low, high) = ends(&ticks);
        Self { name: name.into(), low, high, ticks, grid: true, log: true }
    }

    /// From `low` to `high`, with labels at these places and no lines.
    pub(crate) fn places(name: impl Into<String>, low: f64, high: f64, ticks: Vec<f64>) -> Self {
        let high = if high > low { high } else { low + 1.0 };
        Self { name: name.into(), low, high, ticks, grid: false, log: false }
    }

    /// The same, without lines through the plot.
    #[must_use]
    pub(crate) fn without_grid(mut self) -> Self {
        self.grid = false;
        self
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Both ends.
    pub(crate) fn ends(&self) -> (f64, f64) {
        (self.low, self.high)
    }

    /// How far along the axis a value stands, 0 to 1; what is outside stands at the end.
    fn part(&self, value: f64) -> f64 {
        let part = if self.log {
            (value / self.low).log10() / (self.high / self.low).log10()
        } else {
            (value - self.low) / (self.high - self.low)
        };
        if part.is_finite() { part.clamp(0.0, 1.0) } else { 0.0 }
    }
}

fn ends(ticks: &[f64]) -> (f64, f64) {
    (ticks.first().copied().unwrap_or(0.0), ticks.last().copied().unwrap_or(1.0))
}

/// One line of a legend.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Legend {
    pub(crate) text: String,
    pub(crate) colour: usize,
    pub(crate) dashed: bool,
    /// Whether the mark of the series stands on the line.
    pub(crate) mark: bool,
}

/// Two axes and the room between them.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Frame {
    width: f64,
    plot_height: f64,
    pub(crate) x: Axis,
    pub(crate) y: Axis,
}

impl Frame {
    /// A plot of the usual size, of which two stand side by side.
    pub(crate) fn new(x: Axis, y: Axis) -> Self {
        Self { width: 560.0, plot_height: 250.0, x, y }
    }

    /// A plot that takes the width of a page.
    pub(crate) fn wide(x: Axis, y: Axis) -> Self {
        Self { width: 760.0, plot_height: 320.0, x, y }
    }

    /// Where values are in the drawing.
    pub(crate) fn at(&self, x: f64, y: f64) -> Point {
        let width = self.width - LEFT - RIGHT;
        (LEFT + self.x.part(x) * width, TOP + self.plot_height * (1.0 - self.y.part(y)))
    }

    /// The right end of the plot, in the drawing.
    pub(crate) fn right(&self) -> f64 {
        self.width - RIGHT
    }

    /// Lines, labels and names.
    pub(crate) fn axes(&self) -> String {
        let (base, mut out) = (TOP + self.plot_height, String::new());
        for (i, &tick) in self.y.ticks.iter().enumerate() {
            let (from, to) = (self.at(self.x.low, tick), self.at(self.x.high, tick));
            let foot = if self.y.log { i == 0 } else { tick == 0.0 };
            if foot || self.y.grid {
                out += &svg::line(if foot { "axis" } else { "grid" }, from, to);
            }
            out += &svg::text("tick", (from.0 - 8.0, from.1 + 4.0), "end", &label(tick));
        }
        let mut free_from = f64::NEG_INFINITY;
        for (i, &tick) in self.x.ticks.iter().enumerate() {
            let (x, _) = self.at(tick, self.y.low);
            if self.x.grid {
                out += &svg::line(if i == 0 { "axis" } else { "grid" }, (x, TOP), (x, base));
            } else {
                out += &svg::line("axis", (x, base), (x, base + 5.0));
            }
            let text = label(tick);
            // Labels that would run into each other are left out.
            let half = 4.0 * text.len() as f64 + 3.0;
            if x - half >= free_from {
                out += &svg::text("tick", (x, base + 19.0), "middle", &text);
                free_from = x + half;
            }
        }
        let middle = LEFT + (self.width - LEFT - RIGHT) / 2.0;
        out += &svg::text("name", (middle, base + 40.0), "middle", &self.x.name);
        out + &svg::upright("name", (16.0, TOP + self.plot_height / 2.0), &self.y.name)
    }

    /// The whole drawing: `content` between the axes, the legend below.
    pub(crate) fn drawing(&self, title: &str, content: &str, legend: &[Legend]) -> String {
        let mut out = self.axes() + content;
        for (index, entry) in legend.iter().enumerate() {
            let y = TOP + self.plot_height + BELOW + 10.0 + LEGEND_LINE * index as f64;
            let dashed = if entry.dashed { " limit" } else { "" };
            let class = format!("line{dashed} c{}", entry.colour % COLOURS);
            out += &svg::line(&class, (LEFT, y), (LEFT + 30.0, y));
            if entry.mark {
                out += &svg::mark(entry.colour, (LEFT + 15.0, y), &entry.text);
            }
            out += &svg::text("legend", (LEFT + 40.0, y + 4.0), "start", &entry.text);
        }
        let height = TOP + self.plot_height + BELOW + LEGEND_LINE * legend.len() as f64;
        svg::drawing(self.width, height, title, &out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_stand_where_the_axes_say() {
        let frame = Frame::new(Axis::linear("x", -1.0, 1.0), Axis::log("y", 0.02, 80.0));
        assert_eq!((frame.x.ends(), frame.y.ends()), ((-1.0, 1.0), (0.01, 100.0)));
        let (left, base) = frame.at(-1.0, 0.01);
        let (right, top) = frame.at(1.0, 100.0);
        assert_eq!(frame.at(0.0, 1.0), ((left + right) / 2.0, (base + top) / 2.0));
        assert_eq!(frame.at(f64::NAN, 0.0), (left, base), "what cannot be drawn stands at the end");
        assert_eq!(frame.at(9.0, 1e9), (right, top));
    }
}
