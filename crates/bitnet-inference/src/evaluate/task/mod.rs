//! Tasks: questions whose answers are known. [`Item`]s are read, [`Task`] turns them into prompts and scores them, a
//! [`Summary`] counts.
//!
//! An item with choices is answered by the choice that the model thinks most probable behind the prompt; the choices of
//! an item are computed together, and what prompts have in common, such as examples, once. An item without choices is answered
//! by a text that is written greedily.
//!
//! ```
//! use bitnet_inference::evaluate::task::{Item, Summary, Task, TaskOptions};
//! # use bitnet_inference::{EngineError, InferenceEngine};
//!
//! # fn main() -> Result<(), EngineError> {
//! # let engine = InferenceEngine::bundled().threads(1).build()?;
//! let item = Item::parse(r#"{"context": "Once upon a", "choices": ["time", "keyboard"], "answer": 0}"#, 1)?;
//! let task = Task::new(engine, TaskOptions::default(), &[])?;
//! let results = [task.run(&item)?];
//! let summary = Summary::of(&results);
//! assert_eq!(summary.overall.choices.unwrap().by_sum.correct, 1);
//! # Ok(())
//! # }
//! ```

mod accuracy;
mod item;
mod prompt;
mod run;

pub use accuracy::{Accuracy, Choices, Figures, Summary};
pub use item::{Answer, Item};
pub use prompt::{Task, TaskOptions};
pub use run::{ChoiceScore, Choosing, ItemResult, Outcome, Writing};
