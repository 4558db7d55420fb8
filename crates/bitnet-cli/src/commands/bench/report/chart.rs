//! [`Chart`]: lines over a linear axis, with error bars, a legend and the limits dashed.

use super::svg::{self, COLOURS, Point, label, ticks};

const WIDTH: f64 = 560.0;
const PLOT_HEIGHT: f64 = 250.0;
/// Room for the labels on the left, above, and on the right.
const LEFT: f64 = 66.0;
const TOP: f64 = 14.0;
const RIGHT: f64 = 18.0;
/// Room for the labels and the name of the lower axis.
const BELOW: f64 = 48.0;
/// Height of a line of the legend.
const LEGEND_LINE: f64 = 20.0;

/// One value with its spread.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Value {
    pub(super) x: f64,
    pub(super) y: f64,
    pub(super) spread: f64,
}

/// One line.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Series {
    pub(super) name: String,
    /// Ascending in `x`.
    pub(super) values: Vec<Value>,
    /// A limit, drawn dashed in the colour of the series of this number.
    pub(super) limit_of: Option<usize>,
}

/// A plot.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Chart {
    pub(super) title: String,
    pub(super) x_name: &'static str,
    pub(super) y_name: &'static str,
    pub(super) series: Vec<Series>,
}

impl Chart {
    /// All places on the lower axis where something was measured.
    fn places(&self) -> Vec<f64> {
        let mut places: Vec<f64> = self.series.iter().flat_map(|s| s.values.iter().map(|v| v.x)).collect();
        places.sort_by(f64::total_cmp);
        places.dedup();
        places
    }

    /// Whether a line can be drawn at all.
    pub(super) fn has_lines(&self) -> bool {
        self.places().len() > 1
    }

    /// The drawing.
    pub(super) fn svg(&self) -> String {
        let places = self.places();
        let most = |f: fn(&Value) -> f64| {
            self.series.iter().flat_map(|s| s.values.iter().map(f)).fold(0.0, f64::max)
        };
        let y_ticks = ticks(most(|v| v.y + v.spread));
        let top = y_ticks.last().copied().unwrap_or(1.0);
        let (first, last) = (places.first().copied().unwrap_or(0.0), places.last().copied().unwrap_or(1.0));
        // Numbers of threads or sequences have room on both sides, a depth begins at the axis.
        let margin = if first == 0.0 { 0.0 } else { (last - first) * 0.06 };
        let (low, high) = (first - margin, last + margin);
        let span = if high > low { high - low } else { 1.0 };
        let at = |x: f64, y: f64| -> Point {
            (LEFT + (x - low) / span * (WIDTH - LEFT - RIGHT), TOP + PLOT_HEIGHT * (1.0 - y / top))
        };
        let mut out = self.axes(&places, &y_ticks, &at, (low, high));
        for (index, series) in self.series.iter().enumerate() {
            out += &self.line(index, series, &at);
        }
        out += &self.legend();
        let height = TOP + PLOT_HEIGHT + BELOW + LEGEND_LINE * self.series.len() as f64;
        svg::drawing(WIDTH, height, &self.title, &out)
    }

    fn axes(
        &self,
        places: &[f64],
        y_ticks: &[f64],
        at: &dyn Fn(f64, f64) -> Point,
        (low, high): (f64, f64),
    ) -> String {
        let mut out = String::new();
        for &tick in y_ticks {
            let (from, to) = (at(low, tick), at(high, tick));
            out += &svg::line(if tick == 0.0 { "axis" } else { "grid" }, from, to);
            out += &svg::text("tick", (from.0 - 8.0, from.1 + 4.0), "end", &label(tick));
        }
        let base = TOP + PLOT_HEIGHT;
        let mut free_from = f64::NEG_INFINITY;
        for &place in places {
            let (x, _) = at(place, 0.0);
            out += &svg::line("axis", (x, base), (x, base + 5.0));
            let text = label(place);
            // Labels that would run into each other are left out.
            let half = 4.0 * text.len() as f64 + 3.0;
            if x - half >= free_from {
                out += &svg::text("tick", (x, base + 19.0), "middle", &text);
                free_from = x + half;
            }
        }
        out += &svg::text("name", (LEFT + (WIDTH - LEFT - RIGHT) / 2.0, base + 40.0), "middle", self.x_name);
        out += &svg::upright("name", (16.0, TOP + PLOT_HEIGHT / 2.0), self.y_name);
        out
    }

    fn line(&self, index: usize, series: &Series, at: &dyn Fn(f64, f64) -> Point) -> String {
        let points: Vec<Point> = series.values.iter().map(|v| at(v.x, v.y)).collect();
        let colour = series.limit_of.unwrap_or(index);
        let dashed = if series.limit_of.is_some() { " limit" } else { "" };
        let mut out = svg::polyline(&format!("line{dashed} c{}", colour % COLOURS), &points);
        if series.limit_of.is_some() {
            return out;
        }
        for (value, &point) in series.values.iter().zip(&points) {
            if value.spread > 0.0 {
                let class = format!("bar c{}", colour % COLOURS);
                let (low, high) = (at(value.x, value.y - value.spread), at(value.x, value.y + value.spread));
                out += &svg::line(&class, low, high);
            }
            let title = format!(
                "{}, {} {}: {} {}",
                series.name,
                self.x_name,
                label(value.x),
                label(value.y),
                self.y_name
            );
            out += &svg::mark(colour, point, &title);
        }
        out
    }

    fn legend(&self) -> String {
        let mut out = String::new();
        for (index, series) in self.series.iter().enumerate() {
            let y = TOP + PLOT_HEIGHT + BELOW + 10.0 + LEGEND_LINE * index as f64;
            let colour = series.limit_of.unwrap_or(index);
            let dashed = if series.limit_of.is_some() { " limit" } else { "" };
            let class = format!("line{dashed} c{}", colour % COLOURS);
            out += &svg::line(&class, (LEFT, y), (LEFT + 30.0, y));
            if series.limit_of.is_none() {
                out += &svg::mark(colour, (LEFT + 15.0, y), &series.name);
            }
            out += &svg::text("legend", (LEFT + 40.0, y + 4.0), "start", &series.name);
        }
        out
    }
}
