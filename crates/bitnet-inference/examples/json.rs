//! Output that is JSON of a given shape, whatever the model would rather say.
#![allow(clippy::print_stdout)]

use bitnet_inference::grammar::Constraint;
use bitnet_inference::{EngineError, GenerateRequest, InferenceEngine, Prompt};
use serde_json::{Value, json};

#[tokio::main(flavor = "current_thread")]
pub(crate) async fn main() -> Result<(), EngineError> {
    let engine = InferenceEngine::balanced().await?;
    let schema = json!({
        "type": "object",
        "properties": {
            "animal": { "enum": ["dog", "cat", "bird"] },
            "legs": { "type": "integer", "minimum": 0, "maximum": 9 },
            "friendly": { "type": "boolean" },
        },
        "required": ["animal", "legs", "friendly"],
        "additionalProperties": false,
    });
    let request = GenerateRequest::new(Prompt::text("The animal in the story was"))
        .max_tokens(64)
        .seed(5)
        .constraint(Constraint::JsonSchema(schema));
    let answer = engine.generate(request).await?;
    println!("{}", answer.text);
    let value: Value = serde_json::from_str(&answer.text).expect("the grammar lets nothing else through");
    assert!(value["legs"].is_i64());
    Ok(())
}
