//! A page: a card for each row. It needs nothing but itself, and is well-formed XML as well as HTML.

use crate::commands::batch::outcome::{Done, Outcome, Totals};

use super::{facts, heading};
use crate::output::count;
use crate::report::svg::escape;

const STYLE: &str = "\
:root { color-scheme: light dark; --ground: #ffffff; --card: #f7f7f8; --ink: #1b1b1f; --dim: #5c5c66; --rule: #d9d9de;
  --bad: #b3261e; }
@media (prefers-color-scheme: dark) {
  :root { --ground: #16171a; --card: #1f2024; --ink: #ececf0; --dim: #a3a3ae; --rule: #3a3b42; --bad: #f2a49c; }
}
body { margin: 0 auto; max-width: 52rem; padding: 2rem 1.25rem 4rem; background: var(--ground); color: var(--ink);
  font: 16px/1.5 system-ui, sans-serif; }
h1 { font-size: 1.7rem; line-height: 1.25; margin: 0 0 1.5rem; overflow-wrap: anywhere; }
article { margin: 0 0 1rem; padding: 1rem; background: var(--card); border: 1px solid var(--rule); border-radius: .5rem; }
h2 { font-size: 1rem; margin: 0 0 .5rem; overflow-wrap: anywhere; }
h2 small, footer, p.facts { color: var(--dim); font-size: .85rem; font-weight: normal; }
div { white-space: pre-wrap; overflow-wrap: anywhere; }
div.prompt { color: var(--dim); border-left: 3px solid var(--rule); padding-left: .75rem; margin-bottom: .75rem; }
p { margin: .75rem 0 0; }
p.failed { color: var(--bad); }
";

/// The head of the page.
pub(super) fn begin(title: &str, model: &str) -> String {
    let title = escape(title);
    format!(
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\"/>\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\"/>\n<title>{title}</title>\n\
         <style>\n{STYLE}</style>\n</head>\n<body>\n<h1>{title}, by {}</h1>\n",
        escape(model)
    )
}

/// A row.
pub(super) fn row(outcome: &Outcome, timings: bool) -> String {
    let mut out = format!(
        "<article>\n<h2>{} <small>{}</small></h2>\n",
        escape(&heading(outcome)),
        escape(&outcome.source)
    );
    if let Some(prompt) = &outcome.prompt {
        out += &format!("<div class=\"prompt\">{}</div>\n", lines(prompt));
    }
    match &outcome.end {
        Ok(Done::Text(text)) => {
            out += &format!(
                "<div>{}</div>\n<p class=\"facts\">{}</p>\n",
                lines(&text.text),
                facts(text, timings)
            );
        }
        _ => {
            out += &format!(
                "<p class=\"failed\">failed: {}</p>\n",
                escape(&outcome.error().unwrap_or_default())
            );
        }
    }
    out + "</article>\n"
}

/// Text of several lines.
fn lines(text: &str) -> String {
    text.split('\n').map(escape).collect::<Vec<_>>().join("\n")
}

/// The end of the page.
pub(super) fn end(totals: &Totals) -> String {
    format!(
        "<footer>{} rows, {} failed; {} prompt tokens, {} generated</footer>\n</body>\n</html>\n",
        count(totals.rows),
        count(totals.failed),
        count(totals.prompt_tokens),
        count(totals.generated_tokens)
    )
}
