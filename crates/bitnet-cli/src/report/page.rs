//! [`Page`]: headings, facts, plots and tables in one file of HTML.

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
svg .block { fill: currentColor; }
svg .dots { fill: none; stroke: currentColor; stroke-width: 3; stroke-linecap: round; opacity: .55; }
svg .mark { fill: currentColor; stroke: var(--card); }
.c0 { color: var(--c0); } .c1 { color: var(--c1); } .c2 { color: var(--c2); }
.c3 { color: var(--c3); } .c4 { color: var(--c4); } .c5 { color: var(--c5); }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-size: .85rem; font-variant-numeric: tabular-nums; white-space: nowrap; }
th, td { padding: .3rem .6rem; border-bottom: 1px solid var(--rule); text-align: left; }
th { color: var(--dim); font-weight: 600; }
.right { text-align: right; }
.text { font-family: ui-monospace, monospace; white-space: pre-wrap; }
";

/// The head of a column.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Column<'a> {
    pub(crate) head: &'a str,
    /// Numbers stand on the right.
    pub(crate) right: bool,
}

/// A page that is being written. All texts are escaped but drawings, which are SVG.
#[derive(Debug)]
pub(crate) struct Page {
    title: String,
    body: String,
}

impl Page {
    /// An empty page.
    pub(crate) fn new(title: &str) -> Self {
        Self { title: escape(title), body: String::new() }
    }

    /// Names with their values.
    pub(crate) fn facts(&mut self, facts: &[(&str, String)]) {
        self.body += "<dl>\n";
        for (name, value) in facts {
            self.body += &format!("<dt>{}</dt><dd>{}</dd>\n", escape(name), escape(value));
        }
        self.body += "</dl>\n";
    }

    /// A heading.
    pub(crate) fn heading(&mut self, text: &str) {
        self.body += &format!("<h2>{}</h2>\n", escape(text));
    }

    /// A paragraph.
    pub(crate) fn text(&mut self, text: &str) {
        self.body += &format!("<p>{}</p>\n", escape(text));
    }

    /// Drawings under their captions, side by side where there is room.
    pub(crate) fn figures<'a>(&mut self, figures: impl IntoIterator<Item = (&'a str, String)>) {
        self.body += "<div class=\"plots\">\n";
        for (caption, svg) in figures {
            let caption = escape(caption);
            self.body += &format!("<figure>\n<figcaption><b>{caption}</b></figcaption>\n{svg}</figure>\n");
        }
        self.body += "</div>\n";
    }

    /// A drawing as wide as the page.
    pub(crate) fn wide_figure(&mut self, svg: &str) {
        self.body += &format!("<figure class=\"wide\">\n{svg}</figure>\n");
    }

    /// A table.
    pub(crate) fn table(&mut self, columns: &[Column<'_>], rows: &[Vec<String>]) {
        let class = |column: &Column<'_>| if column.right { " class=\"right\"" } else { "" };
        self.body += "<div class=\"scroll\">\n<table>\n<thead><tr>";
        for column in columns {
            self.body += &format!("<th{}>{}</th>", class(column), escape(column.head));
        }
        self.body += "</tr></thead>\n<tbody>\n";
        for row in rows {
            self.body += "<tr>";
            for (column, cell) in columns.iter().zip(row) {
                self.body += &format!("<td{}>{}</td>", class(column), escape(cell));
            }
            self.body += "</tr>\n";
        }
        self.body += "</tbody>\n</table>\n</div>\n";
    }

    /// The file.
    pub(crate) fn finish(self) -> String {
        let Self { title, body } = self;
        format!(
            "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\"/>\n\
             <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\"/>\n<title>{title}</title>\n\
             <style>\n{STYLE}</style>\n</head>\n<body>\n<h1>{title}</h1>\n{body}</body>\n</html>\n"
        )
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// Checks that a page is well-formed and reaches for nothing outside; gives the names of its elements.
    pub(crate) fn elements(page: &str) -> Vec<String> {
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
        for outside in ["http", "src=", "href", "url(", "@import", "<script", "<link", "NaN", "inf\""] {
            assert!(!page.contains(outside), "{outside}");
        }
        all
    }

    #[test]
    fn all_parts_are_well_formed() {
        let mut page = Page::new("<title> & \"more\"");
        page.facts(&[("a <name>", "a <value>".to_owned())]);
        page.heading("A & B");
        page.text("less < more");
        page.figures([("caption <1>", "<svg></svg>\n".to_owned())]);
        page.wide_figure("<svg></svg>\n");
        page.table(&[Column { head: "<h>", right: true }], &[vec!["<c>".to_owned()], vec![]]);
        let page = page.finish();
        let all = elements(&page);
        let count = |name: &str| all.iter().filter(|e| *e == name).count();
        assert_eq!((count("svg"), count("figure"), count("tr"), count("td"), count("dd")), (2, 2, 3, 1, 1));
        assert!(page.contains("less &lt; more") && page.contains("prefers-color-scheme: dark"));
    }
}
