//! The roofline: multiply-adds a second over multiply-adds for each byte read, both axes in powers of ten.
//!
//! The roof of a number of threads rises with the memory bandwidth up to the int8 peak. A test stands below its roof by as
//! much as it misses its limit.

use bitnet_inference::benchmark::Limits;

use super::super::row::Row;
use crate::report::svg::{self, COLOURS, Point, label};
use crate::report::{Axis, Frame, Legend};

/// The roof of one number of threads and kernel set.
struct Roof {
    name: String,
    /// Means over the rows.
    read_bytes: f64,
    macs: f64,
}

/// A test in the plot.
struct Dot {
    roof: usize,
    /// Multiply-adds for each byte.
    x: f64,
    /// Multiply-adds a second, in billions.
    y: f64,
    name: String,
}

/// The drawing; `None` if no limits were measured.
pub(super) fn svg(rows: &[Row]) -> Option<String> {
    let (roofs, dots) = collect(rows);
    if roofs.is_empty() || dots.is_empty() {
        return None;
    }
    let ridge = |r: &Roof| r.macs / r.read_bytes;
    let xs = || dots.iter().map(|d| d.x).chain(roofs.iter().map(ridge));
    let ys = || dots.iter().map(|d| d.y).chain(roofs.iter().map(|r| r.macs / 1e9));
    let least = |values: &mut dyn Iterator<Item = f64>| values.fold(f64::INFINITY, f64::min);
    let most = |values: &mut dyn Iterator<Item = f64>| values.fold(0.0, f64::max);
    let frame = Frame::wide(
        Axis::log("multiply-adds for each byte read", least(&mut xs()) * 0.8, most(&mut xs()) * 1.25),
        Axis::log("GMAC/s", least(&mut ys()) * 0.8, most(&mut ys()) * 1.25),
    );
    let mut out = String::new();
    for (index, roof) in roofs.iter().enumerate() {
        out += &roof_line(&frame, index, roof);
    }
    out += &marks(&frame, &dots);
    let entry = |(colour, roof): (usize, &Roof)| {
        let (read, macs) = (roof.read_bytes / 1e9, roof.macs / 1e9);
        let text = format!("{}: {read:.1} GB/s, {macs:.0} GMAC/s", roof.name);
        Legend { text, colour, dashed: true, mark: true }
    };
    Some(frame.drawing("Roofline", &out, &roofs.iter().enumerate().map(entry).collect::<Vec<_>>()))
}

/// The roofs, and the tests with the number of their roof.
fn collect(rows: &[Row]) -> (Vec<Roof>, Vec<Dot>) {
    let mut groups: Vec<(String, Vec<Limits>)> = Vec::new();
    let mut dots = Vec::new();
    let several = rows.iter().any(|row| row.kernels != rows[0].kernels);
    for row in rows {
        let Some(limits) = row.result.limits().filter(|l| l.macs.is_some()) else { continue };
        let mut name = format!("{} thread{}", row.threads, if row.threads == 1 { "" } else { "s" });
        if several {
            name += &format!(", {}", row.kernels);
        }
        let roof = groups.iter().position(|(n, _)| *n == name).unwrap_or(groups.len());
        if roof == groups.len() {
            groups.push((name, Vec::new()));
        }
        groups[roof].1.push(limits);
        let mut name = row.test().name();
        if row.test().sequences > 1 {
            name += &format!(" x {}", row.test().sequences);
        }
        let work = &row.result.work;
        dots.push(Dot { roof, x: work.macs() / work.bytes(), y: row.result.macs() / 1e9, name });
    }
    let mean =
        |limits: &[Limits], f: fn(&Limits) -> f64| limits.iter().map(f).sum::<f64>() / limits.len() as f64;
    let roof = |(name, limits): (String, Vec<Limits>)| Roof {
        name,
        read_bytes: mean(&limits, |l| l.read_bytes),
        macs: mean(&limits, |l| l.macs.unwrap_or(0.0)),
    };
    (groups.into_iter().map(roof).collect(), dots)
}

/// From where the roof enters the frame over its ridge to the right end.
fn roof_line(frame: &Frame, index: usize, roof: &Roof) -> String {
    let (read, macs) = (roof.read_bytes / 1e9, roof.macs / 1e9);
    let ridge = macs / read;
    let start = frame.x.ends().0.max(frame.y.ends().0 / read).min(ridge);
    let points =
        [(start, start * read), (ridge, macs), (frame.x.ends().1, macs)].map(|(x, y)| frame.at(x, y));
    svg::polyline(&format!("line limit c{}", index % COLOURS), &points)
}

/// Marks with names, as far as names do not run into each other.
fn marks(frame: &Frame, dots: &[Dot]) -> String {
    let mut out = String::new();
    let mut taken: Vec<(Point, f64)> = Vec::new();
    for dot in dots {
        let point = frame.at(dot.x, dot.y);
        let title = format!("{}: {} GMAC/s, {} for each byte", dot.name, label(dot.y), label(dot.x));
        out += &svg::mark(dot.roof, point, &title);
        let width = 7.0 * dot.name.len() as f64 + 6.0;
        // To the left where the right end is near.
        let left = point.0 + width + 12.0 > frame.right();
        let start = if left { point.0 - width - 4.0 } else { point.0 + 10.0 };
        let free =
            taken.iter().all(|((x, y), w)| (point.1 - y).abs() > 14.0 || start > x + w || start + width < *x);
        if free {
            let (x, anchor) = if left { (point.0 - 10.0, "end") } else { (start, "start") };
            out += &svg::text("tick", (x, point.1 + 4.0), anchor, &dot.name);
            taken.push(((start, point.1), width));
        }
    }
    out
}
