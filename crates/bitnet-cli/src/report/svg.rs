//! Elements of drawings, as text, and the ticks of axes.

/// Text with the characters escaped that mean something in HTML.
pub(crate) fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out += "&amp;",
            '<' => out += "&lt;",
            '>' => out += "&gt;",
            '"' => out += "&quot;",
            c if c.is_control() => out.push(' '),
            c => out.push(c),
        }
    }
    out
}

/// A place in a drawing, in its units: to the right, down.
pub(crate) type Point = (f64, f64);

pub(crate) fn line(class: &str, from: Point, to: Point) -> String {
    let ((x1, y1), (x2, y2)) = (from, to);
    format!("<line class=\"{class}\" x1=\"{x1:.1}\" y1=\"{y1:.1}\" x2=\"{x2:.1}\" y2=\"{y2:.1}\"/>\n")
}

pub(crate) fn polyline(class: &str, points: &[Point]) -> String {
    let places: Vec<String> = points.iter().map(|(x, y)| format!("{x:.1},{y:.1}")).collect();
    format!("<polyline class=\"{class}\" points=\"{}\"/>\n", places.join(" "))
}

/// A mark; `title` shows up when it is pointed at. Marks of different series differ in shape as well as in colour.
pub(crate) fn mark(series: usize, at: Point, title: &str) -> String {
    let (x, y) = at;
    let class = format!("mark c{}", series % COLOURS);
    let title = format!("<title>{}</title>", escape(title));
    match series % 4 {
        0 => format!("<circle class=\"{class}\" cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"4.5\">{title}</circle>\n"),
        1 => format!(
            "<rect class=\"{class}\" x=\"{:.1}\" y=\"{:.1}\" width=\"8\" height=\"8\">{title}</rect>\n",
            x - 4.0,
            y - 4.0
        ),
        2 => polygon(&class, at, &[(0.0, -5.5), (5.2, 4.0), (-5.2, 4.0)], &title),
        _ => polygon(&class, at, &[(0.0, -5.8), (5.8, 0.0), (0.0, 5.8), (-5.8, 0.0)], &title),
    }
}

fn polygon(class: &str, (x, y): Point, corners: &[Point], title: &str) -> String {
    let places: Vec<String> = corners.iter().map(|(dx, dy)| format!("{:.1},{:.1}", x + dx, y + dy)).collect();
    format!("<polygon class=\"{class}\" points=\"{}\">{title}</polygon>\n", places.join(" "))
}

/// A bar between two corners; `title` shows up when it is pointed at.
pub(crate) fn block(class: &str, from: Point, to: Point, title: &str) -> String {
    let (left, top) = (from.0.min(to.0), from.1.min(to.1));
    // A hair between bars tells them apart.
    let (width, height) = (((from.0 - to.0).abs() - 1.0).max(0.5), (from.1 - to.1).abs());
    format!(
        "<rect class=\"{class}\" x=\"{left:.1}\" y=\"{top:.1}\" width=\"{width:.1}\" height=\"{height:.1}\">\
         <title>{}</title></rect>\n",
        escape(title)
    )
}

/// Small dots, all of them one element.
pub(crate) fn dots(class: &str, points: &[Point]) -> String {
    let places: Vec<String> = points.iter().map(|(x, y)| format!("M{x:.1} {y:.1}h0")).collect();
    format!("<path class=\"{class}\" d=\"{}\"/>\n", places.join(""))
}

/// Colours of series that the page's style has.
pub(crate) const COLOURS: usize = 6;

/// A text; `anchor` is `start`, `middle` or `end`.
pub(crate) fn text(class: &str, (x, y): Point, anchor: &str, content: &str) -> String {
    format!(
        "<text class=\"{class}\" x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\">{}</text>\n",
        escape(content)
    )
}

/// A text that reads upwards.
pub(crate) fn upright(class: &str, (x, y): Point, content: &str) -> String {
    format!(
        "<text class=\"{class}\" transform=\"translate({x:.1} {y:.1}) rotate(-90)\" text-anchor=\"middle\">{}</text>\n",
        escape(content)
    )
}

/// A whole drawing.
pub(crate) fn drawing(width: f64, height: f64, label: &str, content: &str) -> String {
    format!(
        "<svg viewBox=\"0 0 {width:.0} {height:.0}\" role=\"img\" aria-label=\"{}\">\n{content}</svg>\n",
        escape(label)
    )
}

/// Round numbers around `low` and `high`, four to eight of them.
pub(crate) fn ticks(low: f64, high: f64) -> Vec<f64> {
    let span = high - low;
    if !(span.is_finite() && span > 0.0) {
        let start = if low.is_finite() { low.floor() } else { 0.0 };
        return vec![start, start + 1.0];
    }
    let power = 10f64.powf((span / 5.0).log10().floor());
    let steps = [1.0, 2.0, 2.5, 5.0, 10.0].map(|s| s * power);
    let step = steps.into_iter().find(|step| span / step <= 6.0).unwrap_or(10.0 * power);
    let (first, last) = ((low / step + 1e-9).floor() as i64, (high / step - 1e-9).ceil() as i64);
    (first..=last).map(|i| i as f64 * step).collect()
}

/// Powers of ten around `least` and `most`.
pub(crate) fn decades(least: f64, most: f64) -> Vec<f64> {
    let (first, last) = (least.log10().floor() as i32, most.log10().ceil() as i32);
    (first..=last.max(first + 1)).map(|exponent| 10f64.powi(exponent)).collect()
}

/// A number beside an axis.
pub(crate) fn label(value: f64) -> String {
    let text = match value.abs() {
        0.0 => return "0".to_owned(),
        v if v >= 1e6 => return format!("{}M", label(value / 1e6)),
        v if v >= 1e4 => return format!("{}k", label(value / 1e3)),
        v if v >= 100.0 => format!("{value:.0}"),
        v if v >= 1.0 => format!("{value:.2}"),
        v if v < 1e-3 => return format!("{value:.1e}").replace(".0e", "e"),
        _ => format!("{value:.4}"),
    };
    if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.').to_owned() } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_round_and_reach_over_the_data() {
        assert_eq!(ticks(0.0, 37.0), [0.0, 10.0, 20.0, 30.0, 40.0]);
        assert_eq!(ticks(0.0, 1.0), [0.0, 0.2, 0.4, 0.6000000000000001, 0.8, 1.0]);
        assert_eq!(ticks(-3.5, 0.0), [-4.0, -3.0, -2.0, -1.0, 0.0]);
        assert_eq!(ticks(0.0, 2000.0).last(), Some(&2000.0));
        for bad in [0.0, -1.0, f64::NAN, f64::INFINITY] {
            assert_eq!(ticks(0.0, bad), [0.0, 1.0]);
        }
        for most in [0.001, 0.7, 3.3, 99.0, 101.0, 12_345.0, 9.9e9] {
            for low in [0.0, -most, -most / 3.0, most / 2.0] {
                let ticks = ticks(low, most);
                assert!(ticks.len() >= 4 && ticks.len() <= 8, "{ticks:?}");
                assert!(
                    ticks[0] <= low + most * 0.001 && *ticks.last().unwrap() >= most * 0.999,
                    "{ticks:?}"
                );
            }
        }
        assert_eq!(decades(3.0, 250.0), [1.0, 10.0, 100.0, 1000.0]);
        assert_eq!(decades(1.0, 1.0), [1.0, 10.0]);
    }

    #[test]
    fn labels_are_short() {
        let cases = [
            (0.0, "0"),
            (0.5, "0.5"),
            (2.5, "2.5"),
            (10.0, "10"),
            (512.0, "512"),
            (4096.0, "4096"),
            (12_000.0, "12k"),
            (2_500_000.0, "2.5M"),
            (0.001, "0.001"),
            (1e-7, "1e-7"),
            (-1.5, "-1.5"),
            (100.0, "100"),
        ];
        for (value, text) in cases {
            assert_eq!(label(value), text);
        }
    }

    #[test]
    fn text_is_escaped() {
        assert_eq!(escape("<a href=\"x\"> & \n"), "&lt;a href=&quot;x&quot;&gt; &amp;  ");
    }
}
