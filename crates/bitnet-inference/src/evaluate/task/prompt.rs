//! [`Task`]: how items become prompts.

use bitnet_text::{ChatMessage, TextTemplate};

use super::item::{Answer, Item};
use crate::engine::InferenceEngine;
use crate::error::EngineError;
use crate::generate::Prompt;

/// How items become prompts and answers are taken.
#[derive(Debug, Clone)]
pub struct TaskOptions {
    /// The prompt of an item from its fields. By default the context as it is; a question as `Question: ...`, then
    /// `Answer:`, behind the context if there is one.
    pub template: Option<TextTemplate>,
    /// Whether choices stand in the default prompt behind letters and the letter is chosen, instead of the text.
    pub letters: bool,
    /// Whether the model is asked in the form of its chat template, with examples as the turns before.
    pub chat: bool,
    /// What stands between prompt and answer; nothing if the prompt ends in white space.
    pub delimiter: String,
    /// What stands between examples and before the question.
    pub separator: String,
    /// Most tokens of a written answer.
    pub max_tokens: usize,
    /// Texts that end a written answer.
    pub stop: Vec<String>,
}

impl Default for TaskOptions {
    fn default() -> Self {
        Self {
            template: None,
            letters: false,
            chat: false,
            delimiter: " ".to_owned(),
            separator: "\n\n".to_owned(),
            max_tokens: 64,
            stop: vec!["\n".to_owned()],
        }
    }
}

/// A task on an engine.
#[derive(Debug)]
pub struct Task {
    pub(super) engine: InferenceEngine,
    pub(super) options: TaskOptions,
    /// The prompts of the examples, and their answers.
    shots: Vec<(String, String)>,
}

impl Task {
    /// A task whose prompts begin with `shots` as examples.
    ///
    /// # Errors
    /// [`EngineError::TaskItem`] for an example without the text of an answer, or one that gives no prompt.
    pub fn new(engine: InferenceEngine, options: TaskOptions, shots: &[Item]) -> Result<Self, EngineError> {
        let mut task = Self { engine, options, shots: Vec::new() };
        for shot in shots {
            let answer = task.right_text(shot).ok_or_else(|| EngineError::TaskItem {
                line: shot.line,
                problem: "an example needs an answer, not a pattern".to_owned(),
            })?;
            let question = task.question(shot)?;
            task.shots.push((question, answer));
        }
        Ok(task)
    }

    /// The prompt of an item, examples included.
    ///
    /// # Errors
    /// [`EngineError::TaskItem`] if the item lacks what the prompt is made of.
    pub fn prompt(&self, item: &Item) -> Result<Prompt, EngineError> {
        let question = self.question(item)?;
        if self.options.chat {
            let turns = self
                .shots
                .iter()
                .flat_map(|(question, answer)| [ChatMessage::user(question), ChatMessage::assistant(answer)]);
            return Ok(Prompt::Chat(turns.chain([ChatMessage::user(question)]).collect()));
        }
        let mut text = String::new();
        for (question, answer) in &self.shots {
            text += question;
            text += self.delimiter(question);
            text += answer;
            text += &self.options.separator;
        }
        Ok(Prompt::Text(text + &question))
    }

    /// What stands between this prompt and an answer.
    pub(super) fn delimiter(&self, prompt: &str) -> &str {
        if prompt.ends_with(char::is_whitespace) { "" } else { &self.options.delimiter }
    }

    /// The answers to choose from, as they stand behind the delimiter.
    pub(super) fn choices(&self, choices: &[String]) -> Vec<String> {
        if self.options.letters {
            return (0..choices.len()).map(letter).collect();
        }
        choices.iter().map(|choice| choice.trim_start().to_owned()).collect()
    }

    fn right_text(&self, item: &Item) -> Option<String> {
        match &item.answer {
            Answer::Choice { choices, right } => Some(self.choices(choices).swap_remove(*right)),
            _ => item.right_text().map(str::to_owned),
        }
    }

    /// The prompt of an item alone.
    fn question(&self, item: &Item) -> Result<String, EngineError> {
        let wrong = |problem| EngineError::TaskItem { line: item.line, problem };
        if let Some(template) = &self.options.template {
            return template.render(&item.fields).map_err(|error| wrong(error.to_string()));
        }
        let field = |name: &str| item.fields.get(name).and_then(|value| value.as_str());
        let (context, question) = (field("context"), field("question"));
        let mut text = context.unwrap_or_default().to_owned();
        if let Some(question) = question {
            if context.is_some() {
                text.push('\n');
            }
            text += &format!("Question: {question}");
        } else if context.is_none() {
            return Err(wrong("there is neither a `context` nor a `question`".to_owned()));
        }
        let letters = self.options.letters.then_some(&item.answer);
        if let Some(Answer::Choice { choices, .. }) = letters {
            for (index, choice) in choices.iter().enumerate() {
                text += &format!("\n{}. {choice}", letter(index));
            }
        }
        if question.is_some() || self.options.letters {
            text += "\nAnswer:";
        }
        Ok(text)
    }
}

/// The letter of a choice; a number behind the last letter.
fn letter(index: usize) -> String {
    match u8::try_from(index) {
        Ok(index @ 0..26) => char::from(b'A' + index).to_string(),
        _ => index.to_string(),
    }
}
