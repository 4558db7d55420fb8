//! A conversation as Markdown, JSON, HTML or plain text.

use std::fmt::Write as _;
use std::path::Path;

use bitnet_inference::ChatMessage;
use pulldown_cmark::{Event, LinkType, Options, Parser, Tag, TagEnd, html};
use serde_json::json;

use super::transcript::{Transcript, message_json};
use crate::report::svg::escape;

/// What a conversation can be written as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Format {
    Markdown,
    Json,
    Html,
    Text,
}

impl Format {
    /// The format that a file's name asks for.
    pub(super) fn of(path: &Path) -> Self {
        let ending = path.extension().and_then(|ending| ending.to_str()).unwrap_or_default();
        match ending.to_ascii_lowercase().as_str() {
            "md" | "markdown" => Self::Markdown,
            "json" => Self::Json,
            "html" | "htm" => Self::Html,
            _ => Self::Text,
        }
    }
}

/// The conversation in this format.
pub(super) fn export(talk: &Transcript, model: &str, format: Format) -> String {
    match format {
        Format::Markdown => markdown(talk, model),
        Format::Json => as_json(talk, model),
        Format::Html => as_html(talk, model),
        Format::Text => text(talk),
    }
}

/// All messages, the system message first.
fn messages(talk: &Transcript) -> impl Iterator<Item = ChatMessage> {
    talk.system.iter().map(ChatMessage::system).chain(talk.messages.iter().cloned())
}

/// Who speaks, for people.
fn speaker(message: &ChatMessage) -> String {
    match (message.role.as_str(), &message.name) {
        ("user", _) => "User".to_owned(),
        ("assistant", _) => "Assistant".to_owned(),
        ("system", _) => "System".to_owned(),
        ("tool", Some(name)) => format!("Result of {name}"),
        (other, _) => other.to_owned(),
    }
}

/// What is said, calls of tools as code.
fn said(message: &ChatMessage) -> String {
    let mut text = message.content.trim().to_owned();
    for call in &message.tool_calls {
        let gap = if text.is_empty() { "" } else { "\n\n" };
        let _ = write!(text, "{gap}```json\n{}({})\n```", call.name, call.arguments);
    }
    text
}

fn markdown(talk: &Transcript, model: &str) -> String {
    let mut out = format!("# A conversation with {model}\n");
    for message in messages(talk) {
        let _ = write!(out, "\n## {}\n\n{}\n", speaker(&message), said(&message));
    }
    out
}

fn text(talk: &Transcript) -> String {
    let one = |message: ChatMessage| format!("{}:\n{}\n", speaker(&message), said(&message));
    messages(talk).map(one).collect::<Vec<_>>().join("\n")
}

fn as_json(talk: &Transcript, model: &str) -> String {
    let messages: Vec<_> = messages(talk).map(|message| message_json(&message)).collect();
    format!("{:#}\n", json!({ "model": model, "messages": messages }))
}

const STYLE: &str = "body{max-width:48rem;margin:2rem auto;padding:0 1rem;font:1rem/1.5 system-ui,sans-serif}\
section{margin:1rem 0;padding:.5rem 1rem;border-radius:.5rem;background:#8881}.user{background:#48f2}\
h2{font-size:.8rem;margin:0;opacity:.6}pre{overflow:auto;padding:.5rem;background:#8882}\
table{border-collapse:collapse}td,th{border:1px solid #8886;padding:.2rem .5rem}:root{color-scheme:light dark}";

fn as_html(talk: &Transcript, model: &str) -> String {
    let title = escape(&format!("A conversation with {model}"));
    let mut out = format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width\">\n<title>{title}</title>\n<style>{STYLE}</style>\n\
         </head>\n<body>\n<h1>{title}</h1>\n"
    );
    for message in messages(talk) {
        let role = escape(&message.role);
        let _ = write!(out, "<section class=\"{role}\">\n<h2>{}</h2>\n", escape(&speaker(&message)));
        // What a model or a person wrote as HTML is shown, not run; addresses are those of the text.
        let options = Options::ENABLE_TABLES | Options::ENABLE_STRIKETHROUGH;
        let text = said(&message);
        let events = Parser::new_ext(&text, options).map(|event| match event {
            Event::Html(text) | Event::InlineHtml(text) => Event::Text(text),
            Event::SoftBreak => Event::HardBreak,
            // Pictures are named, not fetched.
            Event::Start(Tag::Image { dest_url, title, .. } | Tag::Link { dest_url, title, .. }) => {
                let dest_url = if is_harmless(&dest_url) { dest_url } else { "#".into() };
                Event::Start(Tag::Link { link_type: LinkType::Inline, dest_url, title, id: "".into() })
            }
            Event::End(TagEnd::Image) => Event::End(TagEnd::Link),
            other => other,
        });
        html::push_html(&mut out, events);
        out += "</section>\n";
    }
    out + "</body>\n</html>\n"
}

/// Whether an address only leads somewhere.
fn is_harmless(address: &str) -> bool {
    ["http://", "https://", "mailto:", "#"].iter().any(|start| address.starts_with(start))
}

#[cfg(test)]
mod tests {
    use bitnet_inference::ToolCall;

    use super::*;

    fn talk() -> Transcript {
        let call = ToolCall {
            id: Some("call_1".to_owned()),
            name: "weather".to_owned(),
            arguments: json!({"city": "Oslo"}),
        };
        let messages = vec![
            ChatMessage::user("Is **it** <b>cold</b>?"),
            ChatMessage { tool_calls: vec![call], ..ChatMessage::assistant("") },
            ChatMessage { name: Some("weather".to_owned()), ..ChatMessage::tool("call_1", "3 degrees") },
            ChatMessage::assistant(
                "| a |\n|---|\n| 1 |\n\n[x](javascript:alert(1)) <script>alert(1)</script>",
            ),
        ];
        Transcript { system: Some("Be brief.".to_owned()), messages, dropped: 2 }
    }

    #[test]
    fn endings_choose_the_format() {
        for (path, format) in [
            ("a.md", Format::Markdown),
            ("a.JSON", Format::Json),
            ("a.html", Format::Html),
            ("a.txt", Format::Text),
            ("a", Format::Text),
        ] {
            assert_eq!(Format::of(Path::new(path)), format, "{path}");
        }
    }

    #[test]
    fn everything_that_was_said_is_there() {
        for format in [Format::Markdown, Format::Json, Format::Html, Format::Text] {
            let out = export(&talk(), "bitnet-tiny", format);
            for part in ["Be brief.", "weather", "Oslo", "3 degrees"] {
                assert!(out.contains(part), "{format:?}: {part} in {out}");
            }
        }
        let json: serde_json::Value = serde_json::from_str(&export(&talk(), "m", Format::Json)).unwrap();
        assert_eq!(json["messages"].as_array().unwrap().len(), 5);
        assert!(markdown(&talk(), "m").contains("## User\n\nIs **it** <b>cold</b>?\n"));
    }

    #[test]
    fn pages_show_what_is_html_and_do_not_run_it() {
        let page = as_html(&talk(), "a<b");
        assert!(page.contains("<strong>it</strong>") && page.contains("<table>"), "{page}");
        assert!(
            !page.contains("<script") && !page.contains("javascript:") && !page.contains("a<b"),
            "{page}"
        );
        assert!(page.contains("&lt;b&gt;cold"), "{page}");
    }
}
