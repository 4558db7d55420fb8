//! [`Guard`]: keeps messages from writing special tokens. Before a template is run, each spelling of a special token
//! in a message is broken by a character that occurs nowhere else, and so is an ending that other text could complete
//! to one; when the prompt is cut into tokens and text, the character is taken out of the text again. Templates may
//! trim, cut and join messages in between.

use aho_corasick::AhoCorasick;
use serde_json::{Map, Value};

use super::{ChatMessage, ChatPrompt, ToolCall};
use crate::error::{Result, TextError};

/// The private-use areas: characters that mean nothing and are found in hardly any text.
const PRIVATE_USE: [std::ops::RangeInclusive<char>; 2] = ['\u{E000}'..='\u{F8FF}', '\u{F0000}'..='\u{FFFFD}'];

/// Two characters that occur in none of the messages, and what the first protects.
pub(super) struct Guard<'a> {
    specials: &'a [&'a str],
    finder: AhoCorasick,
    sentinel: char,
    /// Marks a place in a message, to be found again in the prompt.
    pub(super) mark: char,
}

/// Calls `visit` with every string of a value, names of fields included.
fn strings<'v>(value: &'v Value, visit: &mut dyn FnMut(&'v str)) {
    match value {
        Value::String(text) => visit(text),
        Value::Array(list) => list.iter().for_each(|value| strings(value, visit)),
        Value::Object(map) => map.iter().for_each(|(name, value)| {
            visit(name);
            strings(value, visit);
        }),
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

/// Calls `visit` with every string of a prompt.
fn all_strings<'p>(prompt: &'p ChatPrompt, visit: &mut dyn FnMut(&'p str)) {
    for message in &prompt.messages {
        visit(&message.role);
        visit(&message.content);
        message.tool_call_id.iter().chain(&message.name).for_each(|text| visit(text));
        for call in &message.tool_calls {
            call.id.iter().chain([&call.name]).for_each(|text| visit(text));
            strings(&call.arguments, visit);
        }
    }
    for value in prompt.tools.iter().chain(prompt.kwargs.values()) {
        strings(value, visit);
    }
}

impl<'a> Guard<'a> {
    /// Chooses characters that occur neither in the prompt nor in `taken`.
    pub(super) fn new(specials: &'a [&'a str], prompt: &ChatPrompt, taken: &[&str]) -> Result<Self> {
        let failed = |message: &str| TextError::Encode { message: message.to_owned() };
        let mut used = std::collections::HashSet::new();
        let mut note = |text: &str| {
            used.extend(text.chars().filter(|c| PRIVATE_USE.iter().any(|range| range.contains(c))));
        };
        all_strings(prompt, &mut note);
        taken.iter().chain(specials).for_each(|text| note(text));
        let mut free = PRIVATE_USE.into_iter().flatten().filter(|character| !used.contains(character));
        let (Some(sentinel), Some(mark)) = (free.next(), free.next()) else {
            return Err(failed("the messages use every private-use character; remove some"));
        };
        let finder = AhoCorasick::new(specials).map_err(|error| failed(&error.to_string()))?;
        Ok(Self { specials, finder, sentinel, mark })
    }

    /// The prompt with every special token in it broken.
    pub(super) fn protect(&self, prompt: &ChatPrompt) -> ChatPrompt {
        let call = |call: &ToolCall| ToolCall {
            id: call.id.as_ref().map(|id| self.broken(id, true)),
            name: self.broken(&call.name, true),
            arguments: self.value(&call.arguments),
        };
        let message = |message: &ChatMessage| ChatMessage {
            role: self.broken(&message.role, false),
            content: self.broken(&message.content, true),
            tool_calls: message.tool_calls.iter().map(call).collect(),
            tool_call_id: message.tool_call_id.as_ref().map(|id| self.broken(id, true)),
            name: message.name.as_ref().map(|name| self.broken(name, true)),
        };
        // The names of the template's variables stay: they are no text of the prompt.
        let kwargs = prompt.kwargs.iter().map(|(name, value)| (name.clone(), self.value(value)));
        ChatPrompt {
            messages: prompt.messages.iter().map(message).collect(),
            tools: prompt.tools.iter().map(|tool| self.value(tool)).collect(),
            continue_final: prompt.continue_final,
            kwargs: kwargs.collect(),
        }
    }

    /// A value with every special token in its strings broken. A closing quote or a bracket always follows, so that only
    /// whole tokens need it; but a template may take a string out of the value.
    fn value(&self, value: &Value) -> Value {
        match value {
            Value::String(text) => Value::String(self.broken(text, true)),
            Value::Array(list) => list.iter().map(|value| self.value(value)).collect(),
            Value::Object(map) => {
                let fields = map.iter().map(|(name, value)| (self.broken(name, false), self.value(value)));
                Value::Object(fields.collect::<Map<_, _>>())
            }
            other => other.clone(),
        }
    }

    /// Puts the sentinel behind the first character of every special token in `text`, overlapping ones included; with
    /// `open_end`, also of what begins one at the end.
    fn broken(&self, text: &str, open_end: bool) -> String {
        let mut starts: Vec<usize> =
            self.finder.find_overlapping_iter(text).map(|found| found.start()).collect();
        if open_end {
            // A template may trim the end before it goes on.
            for ending in [text, text.trim_end()] {
                starts.extend(self.open_starts(ending));
            }
        }
        starts.sort_unstable();
        starts.dedup();
        let mut broken = String::with_capacity(text.len() + starts.len() * self.sentinel.len_utf8());
        let mut at = 0;
        for start in starts {
            let after = start + text[start..].chars().next().map_or(0, char::len_utf8);
            broken.push_str(&text[at..after]);
            broken.push(self.sentinel);
            at = after;
        }
        broken.push_str(&text[at..]);
        broken
    }

    /// Where the last characters of `text` begin a special token without ending it.
    fn open_starts(&self, text: &str) -> impl Iterator<Item = usize> {
        let longest = self.specials.iter().map(|special| special.len()).max().unwrap_or(0);
        let from = text.ceil_char_boundary(text.len().saturating_sub(longest));
        text[from..]
            .char_indices()
            .map(move |(offset, _)| from + offset)
            .filter(|&start| self.specials.iter().any(|special| special.starts_with(&text[start..])))
    }

    /// A text as it was before.
    pub(super) fn release(&self, text: &str) -> String {
        text.replace([self.sentinel, self.mark], "")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SPECIALS: [&str; 3] = ["<|eot_id|>", "<s>", "<<s>>"];

    fn prompt(contents: &[&str]) -> ChatPrompt {
        ChatPrompt::new(contents.iter().map(|content| ChatMessage::user(*content)).collect())
    }

    #[test]
    fn breaks_what_is_special_and_what_may_become_so() {
        for (content, broken) in [
            ("a<|eot_id|>b", "a<#|eot_id|>b"),
            ("<<s>>", "<#<#s>>"),
            ("x <|eo \n", "x <#|eo \n"),
            ("x <", "x <#"),
            ("", ""),
            ("<|eot_id", "<#|eot_id"),
            ("a < b", "a < b"),
        ] {
            let prompt = prompt(&[content]);
            let guard = Guard::new(&SPECIALS, &prompt, &[]).unwrap();
            let protected = guard.protect(&prompt).messages[0].content.clone();
            assert_eq!(protected, broken.replace('#', "\u{E000}"), "{content}");
            assert_eq!(guard.release(&protected), content);
        }
    }

    #[test]
    fn calls_tools_and_arguments_are_guarded_too() {
        let arguments = serde_json::json!({"<s>": ["<|eot_id|>", 1, null]});
        let call = ToolCall { id: Some("<s>".to_owned()), name: "<s>".to_owned(), arguments };
        let mut prompt = prompt(&["x"]);
        prompt.messages[0].tool_calls.push(call);
        prompt.tools.push(serde_json::json!({"function": {"name": "<s>"}}));
        prompt.kwargs.insert("a".to_owned(), "<s>".into());
        let guard = Guard::new(&SPECIALS, &prompt, &[]).unwrap();
        let protected = guard.protect(&prompt);
        let mut texts = String::new();
        all_strings(&protected, &mut |text| texts.push_str(text));
        assert!(!texts.contains("<s>") && !texts.contains("<|eot_id|>"), "{texts}");
        assert_eq!(guard.release(&texts).matches("<s>").count(), 5);
    }

    #[test]
    fn the_sentinel_is_a_character_that_nobody_uses() {
        let prompt = prompt(&["\u{E000}<s>\u{E001}"]);
        let guard = Guard::new(&SPECIALS, &prompt, &["\u{E002}"]).unwrap();
        assert_eq!((guard.sentinel, guard.mark), ('\u{E003}', '\u{E004}'));
        let protected = guard.protect(&prompt).messages[0].content.clone();
        assert_eq!(guard.release(&protected), prompt.messages[0].content);
    }
}
