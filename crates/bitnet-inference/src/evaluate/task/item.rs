//! [`Item`]: one question of a task, as a line of JSON.

use regex::Regex;
use serde_json::{Map, Value};

use crate::error::EngineError;

/// One question.
#[derive(Debug, Clone)]
pub struct Item {
    /// Line of its file, from 1.
    pub line: usize,
    /// Its name: the field `id`, else the line.
    pub id: String,
    /// The group it is counted in: the field `category`.
    pub category: Option<String>,
    /// How it is answered.
    pub answer: Answer,
    /// All fields, for templates; `choices` is a list of strings.
    pub fields: Map<String, Value>,
}

/// How an item is answered.
#[derive(Debug, Clone)]
pub enum Answer {
    /// By one of some choices.
    Choice {
        /// The choices.
        choices: Vec<String>,
        /// The right one.
        right: usize,
    },
    /// By a text that is one of these.
    Text(Vec<String>),
    /// By a text in which this is found.
    Pattern(Regex),
}

impl Item {
    /// Reads one line, which is an object with
    ///
    /// - `context`, `question` or both: strings. (A template may do with other fields.)
    /// - `choices`: the strings to choose from, two or more; or nothing, if the answer is to be written.
    /// - `answer`: with choices, the right one: its number from 0, its text, or its letter from `A`. Without, the right text or
    ///   a list of right texts.
    /// - `pattern`: without choices and `answer`, a regular expression that the written text must contain.
    /// - `id` and `category`, strings or numbers: may be left out.
    ///
    /// Other fields are for templates.
    ///
    /// # Errors
    /// [`EngineError::TaskItem`] with the line and the field.
    pub fn parse(text: &str, line: usize) -> Result<Self, EngineError> {
        Self::read(text, line).map_err(|problem| EngineError::TaskItem { line, problem })
    }

    /// Reads all lines of a file; blank ones do not count.
    ///
    /// # Errors
    /// As [`parse`](Self::parse), for the first line that is wrong.
    pub fn parse_lines(text: &str) -> Result<Vec<Self>, EngineError> {
        let lines = text.lines().zip(1..).filter(|(line, _)| !line.trim().is_empty());
        lines.map(|(line, number)| Self::parse(line, number)).collect()
    }

    fn read(text: &str, line: usize) -> Result<Self, String> {
        let mut fields = match serde_json::from_str(text) {
            Ok(Value::Object(fields)) => fields,
            Ok(_) => return Err("it is no JSON object".to_owned()),
            Err(error) => return Err(format!("it is no JSON: {error}")),
        };
        let name = |field: &str| match fields.get(field) {
            None | Some(Value::Null) => Ok(None),
            Some(value) => word(value).map(Some).ok_or(format!("`{field}` must be a string or a number")),
        };
        let (id, category) = (name("id")?.unwrap_or_else(|| line.to_string()), name("category")?);
        for field in ["context", "question"] {
            if fields.get(field).is_some_and(|value| !value.is_string()) {
                return Err(format!("`{field}` must be a string"));
            }
        }
        let answer = match fields.get("choices") {
            None | Some(Value::Null) => written(&fields)?,
            Some(choices) => {
                let choices = list(choices).filter(|choices| choices.len() > 1);
                let choices = choices.ok_or("`choices` must be a list of two or more strings")?;
                if let Some(empty) = choices.iter().position(|choice| choice.trim().is_empty()) {
                    return Err(format!("choice {empty} is empty"));
                }
                let right = right(&choices, fields.get("answer"))?;
                let values = choices.iter().cloned().map(Value::String).collect();
                fields.insert("choices".to_owned(), Value::Array(values));
                Answer::Choice { choices, right }
            }
        };
        Ok(Self { line, id, category, answer, fields })
    }

    /// The text of the right answer, as an example shows it; `None` if only a pattern says what is right.
    pub fn right_text(&self) -> Option<&str> {
        match &self.answer {
            Answer::Choice { choices, right } => Some(&choices[*right]),
            Answer::Text(texts) => texts.first().map(String::as_str),
            Answer::Pattern(_) => None,
        }
    }
}

/// A string, or a number as one.
fn word(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        _ => None,
    }
}

fn list(value: &Value) -> Option<Vec<String>> {
    value.as_array()?.iter().map(word).collect()
}

/// Which choice is right.
fn right(choices: &[String], answer: Option<&Value>) -> Result<usize, String> {
    let count = choices.len();
    match answer {
        None | Some(Value::Null) => Err("there is no `answer`".to_owned()),
        Some(Value::Number(number)) => {
            let index = number.as_u64().and_then(|index| usize::try_from(index).ok());
            index
                .filter(|&index| index < count)
                .ok_or(format!("`answer` is {number}, but choices are numbered 0 to {}", count - 1))
        }
        Some(Value::String(text)) => {
            let same = choices.iter().position(|choice| choice.trim() == text.trim());
            same.or_else(|| letter(text.trim()).filter(|&index| index < count))
                .ok_or(format!("`answer` is {text:?}, which is neither a choice nor the letter of one"))
        }
        Some(_) => Err("`answer` must be a number, the text of a choice or its letter".to_owned()),
    }
}

/// The number of a choice that is named by a capital letter.
fn letter(text: &str) -> Option<usize> {
    match text.as_bytes() {
        [letter @ b'A'..=b'Z'] => Some(usize::from(letter - b'A')),
        _ => None,
    }
}

/// What must be written.
fn written(fields: &Map<String, Value>) -> Result<Answer, String> {
    if let Some(pattern) = fields.get("pattern") {
        let pattern = pattern.as_str().ok_or("`pattern` must be a string")?;
        return Regex::new(pattern).map(Answer::Pattern).map_err(|error| format!("`pattern`: {error}"));
    }
    let texts = match fields.get("answer") {
        None => return Err("there are neither `choices` nor an `answer` or a `pattern`".to_owned()),
        Some(value) => word(value).map(|text| vec![text]).or_else(|| list(value)),
    };
    texts
        .filter(|texts| !texts.is_empty())
        .map(Answer::Text)
        .ok_or("without `choices`, `answer` must be a string or a list of strings".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn right(line: &str) -> usize {
        match Item::parse(line, 1).unwrap().answer {
            Answer::Choice { right, .. } => right,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn answers_are_numbers_texts_or_letters() {
        for (answer, number) in [("0", 0), ("1", 1), ("\"yes\"", 0), ("\" no \"", 1), ("\"B\"", 1)] {
            let line = format!(r#"{{"question": "q", "choices": ["yes", "no"], "answer": {answer}}}"#);
            assert_eq!(right(&line), number, "{answer}");
        }
        assert_eq!(right(r#"{"choices": ["B", "A"], "answer": "A"}"#), 1, "a text counts more than a letter");
        assert_eq!(right(r#"{"choices": [3, 4], "answer": "4"}"#), 1);
    }

    #[test]
    fn names_and_kinds() {
        let item =
            Item::parse(r#"{"id": 7, "category": "c", "question": "q", "answer": ["a", "b"]}"#, 3).unwrap();
        assert_eq!(
            (item.id.as_str(), item.category.as_deref(), item.right_text()),
            ("7", Some("c"), Some("a"))
        );
        let item = Item::parse(r#"{"question": "q", "pattern": "(?i)paris"}"#, 3).unwrap();
        assert_eq!((item.id.as_str(), item.category, item.fields.len()), ("3", None, 2));
        assert!(matches!(item.answer, Answer::Pattern(pattern) if pattern.is_match("In PARIS.")));
        let items = Item::parse_lines("{\"answer\": 1}\n\n  \n{\"answer\": 2}").unwrap();
        assert_eq!(items.iter().map(|item| item.line).collect::<Vec<_>>(), [1, 4]);
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (line, part) in [
            ("nonsense", "no JSON"),
            ("[1]", "no JSON object"),
            ("{}", "neither `choices`"),
            (r#"{"choices": ["a", "b"]}"#, "no `answer`"),
            (r#"{"choices": ["a", "b"], "answer": 2}"#, "numbered 0 to 1"),
            (r#"{"choices": ["a", "b"], "answer": -1}"#, "numbered 0 to 1"),
            (r#"{"choices": ["a", "b"], "answer": "C"}"#, "neither a choice"),
            (r#"{"choices": ["a", "b"], "answer": []}"#, "must be a number"),
            (r#"{"choices": ["a"], "answer": 0}"#, "two or more"),
            (r#"{"choices": ["a", " "], "answer": 0}"#, "choice 1 is empty"),
            (r#"{"choices": "ab", "answer": 0}"#, "two or more"),
            (r#"{"question": 1, "answer": "a"}"#, "`question`"),
            (r#"{"id": [], "answer": "a"}"#, "`id`"),
            (r#"{"answer": []}"#, "list of strings"),
            (r#"{"pattern": "("}"#, "`pattern`"),
        ] {
            let error = Item::parse(line, 12).unwrap_err().to_string();
            assert!(error.starts_with("line 12: ") && error.contains(part), "{line}: {error}");
        }
    }
}
