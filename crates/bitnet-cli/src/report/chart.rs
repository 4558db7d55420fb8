//! [`Chart`]: lines over a linear axis, with error bars, a legend and the limits dashed.

use super::axes::{Axis, Frame, Legend};
use super::svg::{self, COLOURS, Point, label};

/// Lines of more values have no marks, which would hide them.
const MOST_MARKS: usize = 64;
/// With more places than these the lower axis has round numbers instead.
const MOST_PLACES: usize = 24;

/// One value with its spread.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Value {
    pub(crate) x: f64,
    pub(crate) y: f64,
    pub(crate) spread: f64,
}

/// One line.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Series {
    pub(crate) name: String,
    /// Ascending in `x`.
    pub(crate) values: Vec<Value>,
    /// A limit, drawn dashed in the colour of the series of this number.
    pub(crate) limit_of: Option<usize>,
}

/// A plot.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Chart {
    pub(crate) title: String,
    pub(crate) x_name: &'static str,
    pub(crate) y_name: &'static str,
    pub(crate) series: Vec<Series>,
}

impl Chart {
    /// All places on the lower axis where there is a value.
    fn places(&self) -> Vec<f64> {
        let mut places: Vec<f64> = self.series.iter().flat_map(|s| s.values.iter().map(|v| v.x)).collect();
        places.sort_by(f64::total_cmp);
        places.dedup();
        places
    }

    /// Whether a line can be drawn at all.
    pub(crate) fn has_lines(&self) -> bool {
        self.places().len() > 1
    }

    /// The drawing.
    pub(crate) fn svg(&self) -> String {
        let frame = self.frame();
        let mut out = String::new();
        for (index, series) in self.series.iter().enumerate() {
            out += &self.line(index, series, &frame);
        }
        let entry = |(index, series): (usize, &Series)| Legend {
            text: series.name.clone(),
            colour: series.limit_of.unwrap_or(index),
            dashed: series.limit_of.is_some(),
            mark: has_marks(series),
        };
        let legend: Vec<Legend> = self.series.iter().enumerate().map(entry).collect();
        frame.drawing(&self.title, &out, &legend)
    }

    fn frame(&self) -> Frame {
        let places = self.places();
        let all = |f: fn(&Value) -> f64| self.series.iter().flat_map(move |s| s.values.iter().map(f));
        let y = Axis::linear(
            self.y_name,
            all(|v| v.y - v.spread).fold(0.0, f64::min),
            all(|v| v.y + v.spread).fold(0.0, f64::max),
        );
        let (first, last) = (places.first().copied().unwrap_or(0.0), places.last().copied().unwrap_or(1.0));
        if places.len() > MOST_PLACES {
            return Frame::new(Axis::linear(self.x_name, first, last).without_grid(), y);
        }
        // Numbers of threads or sequences have room on both sides, a depth begins at the axis.
        let margin = if first == 0.0 { 0.0 } else { (last - first) * 0.06 };
        Frame::new(Axis::places(self.x_name, first - margin, last + margin, places), y)
    }

    fn line(&self, index: usize, series: &Series, frame: &Frame) -> String {
        let points: Vec<Point> = series.values.iter().map(|v| frame.at(v.x, v.y)).collect();
        let colour = series.limit_of.unwrap_or(index);
        let dashed = if series.limit_of.is_some() { " limit" } else { "" };
        let mut out = svg::polyline(&format!("line{dashed} c{}", colour % COLOURS), &points);
        if !has_marks(series) {
            return out;
        }
        for (value, &point) in series.values.iter().zip(&points) {
            if value.spread > 0.0 {
                let class = format!("bar c{}", colour % COLOURS);
                let ends =
                    (frame.at(value.x, value.y - value.spread), frame.at(value.x, value.y + value.spread));
                out += &svg::line(&class, ends.0, ends.1);
            }
            let (x, y) = (label(value.x), label(value.y));
            let title = format!("{}, {} {x}: {y} {}", series.name, self.x_name, self.y_name);
            out += &svg::mark(colour, point, &title);
        }
        out
    }
}

fn has_marks(series: &Series) -> bool {
    series.limit_of.is_none() && series.values.len() <= MOST_MARKS
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chart(values: impl Iterator<Item = (f64, f64)>) -> Chart {
        let values = values.map(|(x, y)| Value { x, y, spread: 0.0 }).collect();
        let series = vec![Series { name: "line".to_owned(), values, limit_of: None }];
        Chart { title: "plot".to_owned(), x_name: "x", y_name: "y", series }
    }

    #[test]
    fn few_values_have_marks_and_many_have_none() {
        let few = chart((0..5).map(|i| (f64::from(i), -1.0)));
        assert_eq!(few.svg().matches("<circle").count(), 6, "the legend has one as well");
        assert_eq!(few.frame().y.ends(), (-1.0, 0.0));
        let many = chart((0..500).map(|i| (f64::from(i), f64::from(i))));
        assert_eq!((many.svg().matches("<circle").count(), many.svg().matches("<polyline").count()), (0, 1));
        assert_eq!(many.frame().x.ends(), (0.0, 500.0));
        assert!(!chart([(1.0, 1.0)].into_iter()).has_lines());
    }
}
