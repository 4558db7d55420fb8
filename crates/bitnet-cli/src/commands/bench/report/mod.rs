//! `--report`: one page with plots and the table.
//!
//! This module puts the page together, `plots` makes charts of the rows, `roofline` draws what they miss.

mod plots;
mod roofline;

use std::path::Path;

use self::plots::{Axis, Kind, plot};
use super::print::cells;
use super::row::{Machine, Row, timestamp};
use crate::error::CliError;
use crate::output;
use crate::report::{Column, Page};

/// Writes the page.
///
/// # Errors
/// If it cannot be written; what was there before stays.
pub(super) fn write(path: &Path, rows: &[Row], machine: &Machine) -> Result<(), CliError> {
    output::write_file(path, page(rows, machine).as_bytes())
}

fn page(rows: &[Row], machine: &Machine) -> String {
    let mut page = match rows.first() {
        Some(row) => Page::new(&format!("Speed of {}", row.model)),
        None => Page::new("Nothing was measured"),
    };
    page.facts(&facts(rows, machine));
    plots(&mut page, rows);
    roof(&mut page, rows);
    table(&mut page, rows);
    page.finish()
}

/// Model, machine and version.
fn facts(rows: &[Row], machine: &Machine) -> Vec<(&'static str, String)> {
    let mut facts = Vec::new();
    if let Some(row) = rows.first() {
        let size =
            format!("{} in memory, {:.2} million parameters", row.weights, row.parameters as f64 / 1e6);
        facts.push(("weights", size));
        let mut kernels: Vec<&str> = rows.iter().map(|row| row.kernels).collect();
        kernels.dedup();
        facts.push(("kernels", kernels.join(", ")));
    }
    facts.push(("machine", machine.line()));
    facts.push(("extensions", machine.cpu.features.join(" ")));
    let now = timestamp(std::time::SystemTime::now());
    facts.push(("measured", format!("{now}, bitnet {}", env!("CARGO_PKG_VERSION"))));
    facts
}

fn plots(page: &mut Page, rows: &[Row]) {
    let mut figures = Vec::new();
    let mut absent = Vec::new();
    for axis in [Axis::Depth, Axis::Threads, Axis::Batch] {
        let charts = [Kind::Generation, Kind::Prompt].into_iter().filter_map(|kind| plot(rows, kind, axis));
        let before = figures.len();
        figures.extend(charts);
        if figures.len() == before {
            absent.push(axis.flag());
        }
    }
    page.heading("Speed");
    if !figures.is_empty() {
        page.text(
            "Tokens a second of all sequences together, mean and spread of the repetitions. Dashed: what memory \
             bandwidth and int8 multiplier allow, measured between the repetitions.",
        );
        page.figures(figures.iter().map(|chart| (chart.title.as_str(), chart.svg())));
    }
    if !absent.is_empty() {
        page.text(&format!("More plots come with more values: {}.", absent.join(", ")));
    }
}

fn roof(page: &mut Page, rows: &[Row]) {
    let Some(drawing) = roofline::svg(rows) else { return };
    page.heading("Roofline");
    page.text(
        "Below the slope a test waits for memory, below the flat part for the int8 multiplier. A test above its roof \
         reads its weights from caches, which are faster than memory.",
    );
    page.wide_figure(&drawing);
}

fn table(page: &mut Page, rows: &[Row]) {
    let Some(first) = rows.first() else { return };
    // The head of the page says these once.
    let shown =
        |row: &Row| cells(row).into_iter().filter(|cell| !["model", "size", "params"].contains(&cell.head));
    let columns: Vec<_> = shown(first).map(|cell| Column { head: cell.head, right: cell.right }).collect();
    let cells: Vec<Vec<String>> = rows.iter().map(|row| shown(row).map(|cell| cell.text).collect()).collect();
    page.heading("All figures");
    page.table(&columns, &cells);
    page.text(
        "GB/s and GMAC/s are what the machine read and multiplied at most on these threads, beside each test. First \
         token is the time of a prompt up to its first token, P50, P95 and P99 are percentiles of the time of a \
         generated token, peak is the most memory the process had taken by then.",
    );
}

#[cfg(test)]
mod tests {
    use bitnet_inference::benchmark::BenchmarkTest;

    use super::super::row::tests::{machine, row};
    use super::*;
    use crate::report::elements;

    fn rows() -> Vec<Row> {
        let mut rows = Vec::new();
        for threads in [1, 2] {
            for depth in [0, 512, 1024] {
                rows.push(row(BenchmarkTest { depth, ..BenchmarkTest::prompt(512) }, threads, 5.0));
                for sequences in [1, 4] {
                    let test = BenchmarkTest { depth, sequences, ..BenchmarkTest::generate(10) };
                    rows.push(row(test, threads, 0.4));
                }
            }
        }
        rows
    }

    #[test]
    fn a_page_is_well_formed_and_needs_nothing_else() {
        let page = page(&rows(), &machine());
        let elements = elements(&page);
        let count = |name: &str| elements.iter().filter(|e| *e == name).count();
        assert_eq!((count("svg"), count("table"), count("tr")), (6, 1, rows().len() + 1));
        assert!(
            page.contains("a &lt;model&gt;, &quot;quoted&quot; &amp; more") && page.contains("A &lt;CPU&gt;")
        );
        for title in
            ["Generation against depth", "Prompt against threads", "Generation against batch", "Roofline"]
        {
            assert!(page.contains(title), "{title}");
        }
    }

    #[test]
    fn pages_of_little_are_well_formed_too() {
        elements(&page(&[], &machine()));
        let one = page(&rows()[..1], &machine());
        elements(&one);
        assert!(one.contains("More plots come with more values: -d 0,512,1024, -t 1,2, -b 1,2,4,8."));
        let mut bare = rows();
        for row in &mut bare {
            row.result.repetitions.iter_mut().for_each(|r| r.limits = None);
        }
        let page = page(&bare, &machine());
        elements(&page);
        assert!(!page.contains("Roofline") && !page.contains("limit: "));
    }
}
