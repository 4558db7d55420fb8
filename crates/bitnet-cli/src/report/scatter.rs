//! [`Scatter`]: points over two linear axes.

use super::axes::{Axis, Frame, Legend};
use super::svg::{self, COLOURS};

/// Points of one colour.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Points {
    pub(crate) name: String,
    /// To the right, up.
    pub(crate) at: Vec<(f64, f64)>,
}

/// A plot of many points, which have no names of their own.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Scatter {
    pub(crate) title: String,
    pub(crate) x: Axis,
    pub(crate) y: Axis,
    pub(crate) points: Vec<Points>,
    /// Whether a dashed line marks where both values are equal.
    pub(crate) diagonal: bool,
}

impl Scatter {
    /// The drawing.
    pub(crate) fn svg(&self) -> String {
        let frame = Frame::new(self.x.clone(), self.y.clone());
        let mut out = String::new();
        if self.diagonal {
            let (low, high) = (self.x.ends().0.max(self.y.ends().0), self.x.ends().1.min(self.y.ends().1));
            out += &svg::line("axis limit", frame.at(low, low), frame.at(high, high));
        }
        for (colour, points) in self.points.iter().enumerate() {
            let at: Vec<svg::Point> = points.at.iter().map(|&(x, y)| frame.at(x, y)).collect();
            out += &svg::dots(&format!("dots c{}", colour % COLOURS), &at);
        }
        let named = self.points.iter().enumerate().filter(|(_, points)| !points.name.is_empty());
        let entry = |(colour, points): (usize, &Points)| Legend {
            text: points.name.clone(),
            colour,
            dashed: false,
            mark: false,
        };
        frame.drawing(&self.title, &out, &named.map(entry).collect::<Vec<_>>())
    }
}
