//! [`Transcript`]: what was said.

use bitnet_inference::{ChatMessage, ChatPrompt, Prompt};
use serde_json::Value;

/// The system message and the messages behind it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Transcript {
    pub(super) system: Option<String>,
    /// Messages of user, assistant and tools, the oldest first.
    pub(super) messages: Vec<ChatMessage>,
    /// How many of them, from the first, the model does not see any more because the context was full.
    pub(super) dropped: usize,
}

impl Transcript {
    /// What the model is to answer, or, if it has said `partial` already, to go on with.
    pub(super) fn prompt(&self, tools: &[Value], partial: &str) -> Prompt {
        let system = self.system.iter().map(ChatMessage::system);
        let mut messages: Vec<_> = system.chain(self.messages[self.dropped..].iter().cloned()).collect();
        if !partial.is_empty() {
            messages.push(ChatMessage::assistant(partial));
        }
        Prompt::ChatWith(ChatPrompt {
            tools: tools.to_vec(),
            continue_final: !partial.is_empty(),
            ..ChatPrompt::new(messages)
        })
    }

    /// Takes the oldest turn that the model sees out of its sight; false if that is the last one.
    pub(super) fn drop_oldest(&mut self) -> bool {
        let next = (self.dropped + 1..self.messages.len()).find(|&i| self.messages[i].role == "user");
        self.dropped = next.unwrap_or(self.dropped);
        next.is_some()
    }

    /// Turns: messages of the user.
    pub(super) fn turns(&self) -> usize {
        turns(&self.messages)
    }

    /// Those that the model does not see.
    pub(super) fn dropped_turns(&self) -> usize {
        turns(&self.messages[..self.dropped])
    }

    /// Forgets the last message of the user and all behind it; false if there is none.
    pub(super) fn undo(&mut self) -> bool {
        let Some(last) = self.messages.iter().rposition(|message| message.role == "user") else {
            return false;
        };
        self.cut(last);
        true
    }

    /// Takes what was said after the last message of the user; nothing if there is no answer.
    pub(super) fn take_answer(&mut self) -> Vec<ChatMessage> {
        let last = self.messages.iter().rposition(|message| message.role == "user");
        last.map_or_else(Vec::new, |last| self.messages.split_off(last + 1))
    }

    /// Forgets all but the first messages.
    pub(super) fn cut(&mut self, len: usize) {
        self.messages.truncate(len);
        self.dropped = self.dropped.min(len);
    }
}

/// A message in the form of OpenAI's API.
pub(super) fn message_json(message: &ChatMessage) -> Value {
    serde_json::to_value(message).unwrap_or_default()
}

fn turns(messages: &[ChatMessage]) -> usize {
    messages.iter().filter(|message| message.role == "user").count()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn talk() -> Transcript {
        let messages = ["1", "2", "3"].into_iter();
        let turn = |n: &str| [ChatMessage::user(format!("q{n}")), ChatMessage::assistant(format!("a{n}"))];
        Transcript { system: Some("s".to_owned()), messages: messages.flat_map(turn).collect(), dropped: 0 }
    }

    fn seen(talk: &Transcript) -> Vec<String> {
        let Prompt::ChatWith(prompt) = talk.prompt(&[], "") else { panic!("it is a chat") };
        prompt.messages.into_iter().map(|message| message.content).collect()
    }

    #[test]
    fn the_oldest_turns_go_and_the_system_message_stays() {
        let mut talk = talk();
        talk.messages.insert(2, ChatMessage::tool("call_1", "result"));
        assert!(talk.drop_oldest());
        assert_eq!(seen(&talk), ["s", "q2", "a2", "q3", "a3"]);
        assert_eq!((talk.turns(), talk.dropped_turns()), (3, 1));
        assert!(talk.drop_oldest() && !talk.drop_oldest(), "the last turn stays");
        assert_eq!(seen(&talk), ["s", "q3", "a3"]);
        assert!(talk.undo());
        assert_eq!(seen(&talk), ["s"]);
    }

    #[test]
    fn answers_and_turns_are_taken_back() {
        let mut talk = talk();
        let answer = talk.take_answer();
        assert_eq!((answer.len(), talk.messages.len()), (1, 5));
        assert!(talk.take_answer().is_empty());
        assert!(talk.undo() && talk.undo() && talk.undo() && !talk.undo());
    }

    #[test]
    fn an_answer_under_way_is_continued() {
        let Prompt::ChatWith(prompt) = talk().prompt(&[], "part") else { panic!("it is a chat") };
        assert!(prompt.continue_final && prompt.messages.last().unwrap().content == "part");
    }
}
