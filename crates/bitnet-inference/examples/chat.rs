//! A chat with memory: each turn computes only what is new.
#![allow(clippy::print_stdout)]

use std::ops::ControlFlow;

use bitnet_inference::{ChatMessage, EngineError, Event, GenerateRequest, InferenceEngine, Prompt};

pub(crate) fn main() -> Result<(), EngineError> {
    let engine = InferenceEngine::balanced_blocking()?;
    // Keys and values of the conversation stay here between the turns.
    let mut session = engine.session();
    let mut messages = Vec::new();
    for question in ["Tell me a story about a dog.", "And then?"] {
        println!("> {question}");
        messages.push(ChatMessage::user(question));
        let request = GenerateRequest::new(Prompt::Chat(messages.clone())).max_tokens(32).seed(11);
        let answer = engine.generate_with(&mut session, &request, &mut |event| {
            if let Event::Token { text, .. } | Event::Tail { text } = event {
                print!("{text}");
            }
            ControlFlow::Continue(())
        })?;
        println!();
        println!(
            "  ({} of {} tokens of the prompt were there already)",
            answer.stats.cached_tokens, answer.stats.prompt_tokens
        );
        messages.push(ChatMessage::assistant(answer.text));
    }
    Ok(())
}
