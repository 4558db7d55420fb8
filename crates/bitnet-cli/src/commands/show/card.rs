//! [`Card`]: what the `README.md` of a model tells.
//!
//! At its beginning, between lines of `---`, are facts in YAML. Only the forms in use on cards are read: `key: value`,
//! lists of one line and of several.

/// Facts that are shown, by their keys and as they are called here.
const FACTS: [(&str, &str); 6] = [
    ("base_model", "base model"),
    ("language", "language"),
    ("pipeline_tag", "task"),
    ("library_name", "library"),
    ("datasets", "datasets"),
    ("tags", "tags"),
];
/// The longest summary.
const SUMMARY_CHARS: usize = 600;

/// A model card.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Card {
    /// The licence, with its name if it is not a usual one.
    pub(super) license: Option<String>,
    /// Other facts.
    pub(super) facts: Vec<(String, String)>,
    /// The first paragraph of text.
    pub(super) summary: String,
}

impl Card {
    /// Reads a card; nothing is required of it.
    pub(super) fn read(text: &str) -> Self {
        let text = text.trim_start_matches('\u{feff}');
        let (head, body) = match text.strip_prefix("---").and_then(|rest| rest.split_once("\n---")) {
            Some((head, body)) => (head, body.split_once('\n').map_or("", |(_, body)| body)),
            None => ("", text),
        };
        let keys = keys(head);
        let find = |key: &str| keys.iter().find(|(name, _)| name == key).map(|(_, values)| values.join(", "));
        let license = match (find("license"), find("license_name")) {
            (Some(license), Some(name)) if license == "other" => Some(name),
            (license, name) => license.or(name),
        };
        let facts = FACTS.iter().filter_map(|(key, name)| Some(((*name).to_owned(), find(key)?))).collect();
        Self { license, facts, summary: summary(body) }
    }
}

/// The keys of the outermost level with their values.
fn keys(head: &str) -> Vec<(String, Vec<String>)> {
    let mut out: Vec<(String, Vec<String>)> = Vec::new();
    for line in head.lines() {
        let trimmed = line.trim();
        if let Some(item) = trimmed.strip_prefix("- ") {
            if let Some((_, values)) = out.last_mut() {
                values.extend(value(item));
            }
        } else if !line.starts_with([' ', '\t', '#'])
            && let Some((key, rest)) = line.split_once(':')
        {
            let rest = rest.trim();
            let values = match rest.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
                Some(list) => list.split(',').filter_map(value).collect(),
                None => value(rest).into_iter().collect(),
            };
            out.push((key.trim().to_owned(), values));
        }
    }
    out.retain(|(_, values)| !values.is_empty());
    out
}

/// A value without quotes and control characters.
fn value(text: &str) -> Option<String> {
    let text = text.trim().trim_matches(['"', '\'']);
    let clean: String = text.chars().filter(|c| !c.is_control()).collect();
    (!clean.is_empty()).then_some(clean)
}

/// The first paragraph that is neither heading nor picture nor markup.
fn summary(body: &str) -> String {
    let is_text = |paragraph: &&str| {
        let start = paragraph.trim_start();
        !start.is_empty() && !start.starts_with(['#', '<', '!', '[', '|', '-', '*', '>', '`'])
    };
    let body = body.replace("\r\n", "\n");
    let paragraph = body.split("\n\n").find(is_text).unwrap_or_default();
    // A heading may stand right above its text.
    let lines = paragraph.lines().map(str::trim).filter(|line| !line.starts_with('#'));
    let text = lines.collect::<Vec<_>>().join(" ");
    let clean: String = text.chars().filter(|c| !c.is_control()).collect();
    match clean.char_indices().nth(SUMMARY_CHARS) {
        None => clean,
        Some((end, _)) => format!("{}...", &clean[..end]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn facts_and_summary_of_a_card() {
        let card = Card::read(
            "---\nlicense: mit\nlanguage:\n- en\n- de\ntags: [\"chat\", bitnet]\nwidget:\n  - text: x\npipeline_tag: text-generation\n---\n# Title\n\n![logo](x.png)\n\nA model of\none bit.\n\nMore.\n",
        );
        assert_eq!(card.license.as_deref(), Some("mit"));
        let fact =
            |name: &str| card.facts.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str());
        assert_eq!(
            (fact("language"), fact("tags"), fact("task")),
            (Some("en, de"), Some("chat, bitnet"), Some("text-generation"))
        );
        assert_eq!(card.summary, "A model of one bit.");
    }

    #[test]
    fn cards_without_facts_and_strange_ones() {
        assert_eq!(Card::read(""), Card::default());
        assert_eq!(Card::read("Only text.").summary, "Only text.");
        let card = Card::read("---\r\nlicense: other\r\nlicense_name: falcon-llm\r\n---\r\nx");
        assert_eq!(card.license.as_deref(), Some("falcon-llm"));
        assert_eq!(Card::read("---\nlicense: mit").license, None);
        assert_eq!(Card::read(&"word ".repeat(500)).summary.chars().count(), SUMMARY_CHARS + 3);
    }
}
