//! The page: what was measured on what, the plots, the table.

use super::super::print::cells;
use super::super::row::{Machine, Row, timestamp};
use super::plots::{Axis, Kind, plot};
use super::roofline;
use super::svg::escape;

/// Colours are those of Okabe and Ito, told apart by everyone, lighter on dark ground.
const STYLE: &str = "\
:root { color-scheme: light dark; --ground: #ffffff; --card: #f7f7f8; --ink: #1b1b1f; --dim: #5c5c66; --rule: #d9d9de;
  --c0: #0072b2; --c1: #d55e00; --c2: #009e73; --c3: #b0437f; --c4: #8a6d00; --c5: #4b4bc8; }
@media (prefers-color-scheme: dark) {
  :root { --ground: #16171a; --card: #1f2024; --ink: #ececf0; --dim: #a3a3ae; --rule: #3a3b42;
    --c0: #56b4e9; --c1: #f0883e; --c2: #3ccf9e; --c3: #e38abb; --c4: #e0c341; --c5: #a0a0ff; }
}
body { margin: 0 auto; max-width: 76rem; padding: 2rem 1.25rem 4rem; background: var(--ground); color: var(--ink);
  font: 16px/1.5 system-ui, sans-serif; }
h1 { font-size: 1.7rem; margin: 0 0 .25rem; line-height: 1.25; }
h2 { font-size: 1.2rem; margin: 2.5rem 0 .75rem; }
p, figcaption, dt { color: var(--dim); }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .15rem 1.25rem; margin: 1rem 0 0; }
dd { margin: 0; }
.plots { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 26rem), 1fr)); gap: 1.25rem; }
figure { margin: 0; padding: 1rem; background: var(--card); border: 1px solid var(--rule); border-radius: .5rem; }
figure.wide { max-width: 56rem; }
figcaption { margin-bottom: .5rem; }
figcaption b { color: var(--ink); }
svg { display: block; width: 100%; height: auto; }
svg text { fill: var(--ink); font: 13px system-ui, sans-serif; }
svg .tick { fill: var(--dim); font-size: 12px; }
svg .grid { stroke: var(--rule); }
svg .axis { stroke: var(--dim); }
svg .line { fill: none; stroke: currentColor; stroke-width: 2; }
svg .limit { stroke-dasharray: 6 5; stroke-width: 1.5; }
svg .bar { stroke: currentColor; stroke-width: 1.5; }
svg .mark { fill: currentColor; stroke: var(--card); }
.c0 { color: var(--c0); } .c1 { color: var(--c1); } .c2 { color: var(--c2); }
.c3 { color: var(--c3); } .c4 { color: var(--c4); } .c5 { color: var(--c5); }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-size: .85rem; font-variant-numeric: tabular-nums; white-space: nowrap; }
th, td { padding: .3rem .6rem; border-bottom: 1px solid var(--rule); text-align: left; }
th { color: var(--dim); font-weight: 600; }
.right { text-align: right; }
";

/// The whole page.
pub(super) fn page(rows: &[Row], machine: &Machine) -> String {
    let title = match rows.first() {
        Some(row) => format!("Speed of {}", row.model),
        None => "Nothing was measured".to_owned(),
    };
    let title = escape(&title);
    format!(
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\"/>\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\"/>\n<title>{title}</title>\n\
         <style>\n{STYLE}</style>\n</head>\n<body>\n<h1>{title}</h1>\n{}{}{}{}</body>\n</html>\n",
        facts(rows, machine),
        plots(rows),
        roof(rows),
        table(rows),
    )
}

/// Model, machine and version.
fn facts(rows: &[Row], machine: &Machine) -> String {
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
    facts.push((
        "measured",
        format!("{}, bitnet {}", timestamp(std::time::SystemTime::now()), env!("CARGO_PKG_VERSION")),
    ));
    let mut out = "<dl>\n".to_owned();
    for (name, value) in facts {
        out += &format!("<dt>{name}</dt><dd>{}</dd>\n", escape(&value));
    }
    out + "</dl>\n"
}

fn plots(rows: &[Row]) -> String {
    let mut figures = String::new();
    let mut absent = Vec::new();
    for axis in [Axis::Depth, Axis::Threads, Axis::Batch] {
        let charts: Vec<_> =
            [Kind::Generation, Kind::Prompt].into_iter().filter_map(|kind| plot(rows, kind, axis)).collect();
        if charts.is_empty() {
            absent.push(axis.flag());
        }
        for chart in charts {
            figures += &format!(
                "<figure>\n<figcaption><b>{}</b></figcaption>\n{}</figure>\n",
                chart.title,
                chart.svg()
            );
        }
    }
    let mut out = "<h2>Speed</h2>\n".to_owned();
    if !figures.is_empty() {
        out += "<p>Tokens a second of all sequences together, mean and spread of the repetitions. Dashed: what memory \
                bandwidth and int8 multiplier allow, measured between the repetitions.</p>\n";
        out += &format!("<div class=\"plots\">\n{figures}</div>\n");
    }
    if !absent.is_empty() {
        out += &format!("<p>More plots come with more values: {}.</p>\n", absent.join(", "));
    }
    out
}

fn roof(rows: &[Row]) -> String {
    let Some(drawing) = roofline::svg(rows) else { return String::new() };
    format!(
        "<h2>Roofline</h2>\n<p>Below the slope a test waits for memory, below the flat part for the int8 multiplier. \
         A test above its roof reads its weights from caches, which are faster than memory.</p>\n\
         <figure class=\"wide\">\n{drawing}</figure>\n"
    )
}

fn table(rows: &[Row]) -> String {
    let Some(first) = rows.first() else { return String::new() };
    // The head of the page says these once.
    let shown =
        |row: &Row| cells(row).into_iter().filter(|cell| !["model", "size", "params"].contains(&cell.head));
    let class = |right: bool| if right { " class=\"right\"" } else { "" };
    let mut out = "<h2>All figures</h2>\n<div class=\"scroll\">\n<table>\n<thead><tr>".to_owned();
    for cell in shown(first) {
        out += &format!("<th{}>{}</th>", class(cell.right), cell.head);
    }
    out += "</tr></thead>\n<tbody>\n";
    for row in rows {
        out += "<tr>";
        for cell in shown(row) {
            out += &format!("<td{}>{}</td>", class(cell.right), escape(&cell.text));
        }
        out += "</tr>\n";
    }
    out += "</tbody>\n</table>\n</div>\n";
    out + "<p>GB/s and GMAC/s are what the machine read and multiplied at most on these threads, beside each test. \
           First token is the time of a prompt up to its first token, P50, P95 and P99 are percentiles of the time of a \
           generated token, peak is the most memory the process had taken by then.</p>\n"
}

#[cfg(test)]
mod tests {
    use bitnet_inference::benchmark::BenchmarkTest;

    use super::super::super::row::tests::{machine, row};
    use super::*;

    /// Checks that elements are nested and closed, and gives their names.
    fn elements(page: &str) -> Vec<String> {
        let mut open: Vec<String> = Vec::new();
        let mut all = Vec::new();
        let mut rest = page.strip_prefix("<!DOCTYPE html>\n").unwrap();
        while let Some(start) = rest.find('<') {
            assert!(!rest[..start].contains('>'), "a stray > in {:?}", &rest[..start]);
            let end = rest[start..].find('>').unwrap() + start;
            let tag = &rest[start + 1..end];
            assert_eq!(tag.matches('"').count() % 2, 0, "{tag}");
            if let Some(name) = tag.strip_prefix('/') {
                assert_eq!(open.pop().as_deref(), Some(name), "{tag}");
            } else {
                let name: String = tag.chars().take_while(char::is_ascii_alphanumeric).collect();
                all.push(name.clone());
                if !tag.ends_with('/') {
                    open.push(name);
                }
            }
            rest = &rest[end + 1..];
        }
        assert!(open.is_empty(), "{open:?}");
        all
    }

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
        for outside in ["http", "src=", "href", "url(", "@import", "<script", "<link", "NaN", "inf\""] {
            assert!(!page.contains(outside), "{outside}");
        }
        assert!(page.contains("prefers-color-scheme: dark"));
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
