//! Which rows become which lines: speed against depth, threads and batch.

use super::super::row::Row;
use crate::report::{Chart, Series, Value};

/// What stands on the lower axis.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Axis {
    Depth,
    Threads,
    Batch,
}

impl Axis {
    fn of(self, row: &Row) -> usize {
        match self {
            Self::Depth => row.test().depth,
            Self::Threads => row.threads,
            Self::Batch => row.test().sequences,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Depth => "tokens in the context before",
            Self::Threads => "threads",
            Self::Batch => "sequences together",
        }
    }

    fn title(self) -> &'static str {
        match self {
            Self::Depth => "against depth",
            Self::Threads => "against threads",
            Self::Batch => "against batch",
        }
    }

    /// The flag that measures more of it.
    pub(super) fn flag(self) -> &'static str {
        match self {
            Self::Depth => "-d 0,512,1024",
            Self::Threads => "-t 1,2",
            Self::Batch => "-b 1,2,4,8",
        }
    }
}

/// What kind of tests a plot is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Prompt,
    Generation,
}

impl Kind {
    fn has(self, row: &Row) -> bool {
        let test = row.test();
        match self {
            Self::Prompt => test.generate == 0,
            Self::Generation => test.prompt == 0,
        }
    }

    fn title(self) -> &'static str {
        match self {
            Self::Prompt => "Prompt",
            Self::Generation => "Generation",
        }
    }
}

/// All that tells the lines of a plot apart, which is everything but what stands on the axis.
fn line_key(row: &Row, axis: Axis) -> [String; 5] {
    let plural = |n: usize, word: &str| format!("{n} {word}{}", if n == 1 { "" } else { "s" });
    let tokens = match row.test().generate {
        0 => format!("pp{}", row.test().prompt),
        n => format!("tg{n}"),
    };
    let unless = |on: Axis, text: String| if axis == on { String::new() } else { text };
    [
        tokens,
        row.kernels.to_owned(),
        unless(Axis::Threads, plural(row.threads, "thread")),
        unless(Axis::Batch, format!("batch {}", row.test().sequences)),
        unless(Axis::Depth, format!("depth {}", row.test().depth)),
    ]
}

/// Lines by key.
type Lines<'a> = Vec<([String; 5], Vec<&'a Row>)>;

/// What a key says beside what all lines have in common; kind and threads always.
fn line_name(key: &[String; 5], lines: &Lines<'_>) -> String {
    let tells = |i: usize| i == 0 || i == 2 || lines.iter().any(|(other, _)| other[i] != key[i]);
    let parts: Vec<&str> =
        (0..key.len()).filter(|&i| !key[i].is_empty() && tells(i)).map(|i| key[i].as_str()).collect();
    parts.join(", ")
}

/// The plot of one kind of tests over one axis; `None` if no line has two points.
pub(super) fn plot(rows: &[Row], kind: Kind, axis: Axis) -> Option<Chart> {
    let mut lines: Lines<'_> = Vec::new();
    for row in rows.iter().filter(|row| kind.has(row)) {
        let key = line_key(row, axis);
        match lines.iter_mut().find(|(k, _)| *k == key) {
            Some((_, members)) => members.push(row),
            None => lines.push((key, vec![row])),
        }
    }
    // A line of one point says nothing in a plot that has lines, and would crowd it.
    lines.retain(|(_, members)| members.iter().any(|row| axis.of(row) != axis.of(members[0])));
    let names: Vec<String> = lines.iter().map(|(key, _)| line_name(key, &lines)).collect();
    let mut series = Vec::new();
    let mut limits = Vec::new();
    for (index, ((_, mut members), name)) in lines.into_iter().zip(names).enumerate() {
        members.sort_by_key(|row| axis.of(row));
        let value = |row: &&Row| {
            let speed = row.result.tokens_per_second();
            Value { x: axis.of(row) as f64, y: speed.mean, spread: speed.spread }
        };
        let limit = |row: &&Row| Some(Value { x: axis.of(row) as f64, y: row.limit()?, spread: 0.0 });
        let bound: Vec<Value> = members.iter().filter_map(limit).collect();
        if bound.len() == members.len() {
            limits.push(Series { name: format!("limit: {name}"), values: bound, limit_of: Some(index) });
        }
        series.push(Series { name, values: members.iter().map(value).collect(), limit_of: None });
    }
    let tallest = series.iter().flat_map(|s| s.values.iter().map(|v| v.y)).fold(0.0, f64::max);
    // Limits far above the measured lines would press these to the ground.
    limits.retain(|limit| limit.values.iter().any(|v| v.y <= 6.0 * tallest));
    series.extend(limits);
    let title = format!("{} {}", kind.title(), axis.title());
    let chart = Chart { title, x_name: axis.name(), y_name: "tokens/s", series };
    chart.has_lines().then_some(chart)
}

#[cfg(test)]
mod tests {
    use bitnet_inference::benchmark::BenchmarkTest;

    use super::super::super::row::tests::row;
    use super::*;

    #[test]
    fn rows_become_lines_with_their_limits() {
        let at = |depth, threads| {
            let test = BenchmarkTest { depth, ..BenchmarkTest::generate(10) };
            row(test, threads, 1.0 / threads as f64)
        };
        let rows =
            [at(64, 1), at(0, 1), at(0, 2), at(64, 2), at(32, 2), row(BenchmarkTest::prompt(8), 1, 1.0)];
        let chart = plot(&rows, Kind::Generation, Axis::Depth).unwrap();
        let names: Vec<&str> = chart.series.iter().map(|s| s.name.as_str()).collect();
        assert_eq!(
            names,
            ["tg10, 1 thread", "tg10, 2 threads", "limit: tg10, 1 thread", "limit: tg10, 2 threads"]
        );
        assert_eq!(chart.series[1].values.iter().map(|v| v.x).collect::<Vec<_>>(), [0.0, 32.0, 64.0]);
        let threads = plot(&rows, Kind::Generation, Axis::Threads).unwrap();
        let names: Vec<&str> = threads.series.iter().map(|s| s.name.as_str()).collect();
        assert!(names.contains(&"tg10, depth 64") && !names.contains(&"tg10, depth 32"), "{names:?}");
        assert_eq!(plot(&rows, Kind::Generation, Axis::Batch), None);
        assert_eq!(plot(&rows, Kind::Prompt, Axis::Depth), None);
    }
}
