//! Puts what a template does not know into words that it does: tools into the system message, calls and results into the
//! text of turns, a system message into the first turn of the user.

use std::borrow::Cow;

use serde_json::{Value, json};

use super::{ChatMessage, ChatPrompt, ChatTemplate};
use crate::tools::{self, ToolFormat};

/// The prompt as the template can write it; the same where nothing is missing.
pub(super) fn rewritten<'p>(prompt: &'p ChatPrompt, template: &ChatTemplate) -> Cow<'p, ChatPrompt> {
    let messages = &prompt.messages;
    let has_system = messages.iter().any(|message| message.role == "system");
    let has_calls = messages.iter().any(|message| !message.tool_calls.is_empty());
    let has_results = messages.iter().any(|message| message.role == "tool");
    if !has_system && !has_calls && !has_results && prompt.tools.is_empty() {
        return Cow::Borrowed(prompt);
    }
    let can = template.abilities();
    let format = template.tool_format();
    let mut rewritten = Cow::Borrowed(prompt);
    if format == ToolFormat::Mistral {
        rewritten.to_mut().messages.iter_mut().for_each(shorten_ids);
    }
    // A template without tools may still print the turns of any role, but as nothing that the model was told of.
    if has_calls && !(can.tools && can.calls) {
        rewritten.to_mut().messages.iter_mut().for_each(|message| calls_to_text(message, format));
    }
    if has_results && !(can.tools && can.results) {
        let messages = std::mem::take(&mut rewritten.to_mut().messages);
        rewritten.to_mut().messages = results_to_turns(messages);
    }
    if !prompt.tools.is_empty() && !can.tools {
        let tools = std::mem::take(&mut rewritten.to_mut().tools);
        instruct(&mut rewritten.to_mut().messages, &tools);
    }
    if !can.system && rewritten.messages.iter().any(|message| message.role == "system") {
        let messages = std::mem::take(&mut rewritten.to_mut().messages);
        rewritten.to_mut().messages = system_to_user(messages);
    }
    rewritten
}

/// Mistral's templates insist on ids of nine letters and digits; ids of clients are mostly longer.
fn shorten_ids(message: &mut ChatMessage) {
    let ids = message.tool_calls.iter_mut().filter_map(|call| call.id.as_mut());
    for id in ids.chain(&mut message.tool_call_id) {
        let end: Vec<char> = id.chars().filter(char::is_ascii_alphanumeric).rev().take(9).collect();
        *id = format!("{:0>9}", end.into_iter().rev().collect::<String>());
    }
}

/// Appends a paragraph to a text.
fn append(text: &mut String, separator: &str, more: &str) {
    if !text.is_empty() && !more.is_empty() {
        text.push_str(separator);
    }
    text.push_str(more);
}

fn calls_to_text(message: &mut ChatMessage, format: ToolFormat) {
    let calls = std::mem::take(&mut message.tool_calls);
    let key = format.arguments_key();
    for call in calls {
        let call = json!({"name": call.name, key: call.arguments});
        append(&mut message.content, "\n", &format!("{}\n{call}\n{}", tools::CALL_BEGIN, tools::CALL_END));
    }
}

/// Results become turns of the user, one for all that stand together, since many templates insist on turns that take turns.
fn results_to_turns(messages: Vec<ChatMessage>) -> Vec<ChatMessage> {
    let mut turns: Vec<ChatMessage> = Vec::with_capacity(messages.len());
    let mut after_result = false;
    for message in messages {
        if message.role != "tool" {
            let joins = after_result && message.role == "user";
            match turns.last_mut().filter(|_| joins) {
                Some(last) => append(&mut last.content, "\n", &message.content),
                None => turns.push(message),
            }
            after_result = false;
            continue;
        }
        let name = message.name.map(|name| format!("{name}: ")).unwrap_or_default();
        let text = format!("{}\n{name}{}\n{}", tools::RESULT_BEGIN, message.content, tools::RESULT_END);
        match turns.last_mut().filter(|_| after_result) {
            Some(last) => append(&mut last.content, "\n", &text),
            None => turns.push(ChatMessage::user(text)),
        }
        after_result = true;
    }
    turns
}

/// Tells in the system message which tools there are and how they are called.
fn instruct(messages: &mut Vec<ChatMessage>, tools: &[Value]) {
    let text = tools::instructions(tools);
    match messages.iter_mut().find(|message| message.role == "system") {
        Some(system) => append(&mut system.content, "\n\n", &text),
        None => messages.insert(0, ChatMessage::system(text)),
    }
}

/// Puts what system messages say before what the user says next.
fn system_to_user(messages: Vec<ChatMessage>) -> Vec<ChatMessage> {
    let mut turns = Vec::with_capacity(messages.len());
    let mut waiting = String::new();
    for mut message in messages {
        if message.role == "system" {
            append(&mut waiting, "\n\n", &message.content);
            continue;
        }
        if message.role == "user" && !waiting.is_empty() {
            append(&mut waiting, "\n\n", &message.content);
            message.content = std::mem::take(&mut waiting);
        }
        turns.push(message);
    }
    if !waiting.is_empty() {
        turns.push(ChatMessage::user(waiting));
    }
    turns
}
