//! `/tokenize`, `/detokenize`, `/apply-template`.

use axum::Json;
use axum::extract::State;
use bitnet_inference::EngineError;
use bitnet_text::{ChatMessage, ChatPrompt, EncodeOptions, ToolCall};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::request::input;
use crate::common::fields::{self, find};
use crate::error::ApiError;
use crate::extract::ApiJson;
use crate::state::AppState;

/// `/tokenize`: the tokens of a text, or of texts and tokens in a row. Spellings of special tokens stand for them unless
/// `parse_special` is false.
pub(super) async fn tokenize(
    State(state): State<AppState>,
    ApiJson(body): ApiJson<Map<String, Value>>,
) -> Result<Json<Value>, ApiError> {
    let model = state.model(find(&body, &["model"]).map(fields::text).transpose()?).await?;
    let flag = |name: &'static str, default| find(&body, &[name]).map_or(Ok(default), fields::truth);
    let options =
        EncodeOptions { add_bos: flag("add_special", false)?, parse_special: flag("parse_special", true)? };
    let with_pieces = flag("with_pieces", false)?;
    let content = body.get("content").unwrap_or(&Value::Null);
    let content = input("content", content)?;
    let tokens = model
        .blocking(move |engine| {
            let tokens = content.encode(engine, options)?;
            let tokenizer = engine.tokenizer()?;
            let told = |&token: &u32| {
                if !with_pieces {
                    return json!(token);
                }
                // A piece that is no text by itself is told as bytes.
                let bytes = tokenizer.token_bytes(token).unwrap_or_default();
                let piece = std::str::from_utf8(bytes).map_or_else(|_| json!(bytes), |text| json!(text));
                json!({"id": token, "piece": piece})
            };
            Ok(tokens.iter().map(told).collect::<Vec<_>>())
        })
        .await?;
    Ok(Json(json!({"tokens": tokens})))
}

/// The body of `/detokenize`.
#[derive(Debug, Deserialize)]
pub(super) struct DetokenizeRequest {
    model: Option<String>,
    tokens: Vec<u32>,
}

/// `/detokenize`: the text of tokens, special ones included.
pub(super) async fn detokenize(
    State(state): State<AppState>,
    ApiJson(body): ApiJson<DetokenizeRequest>,
) -> Result<Json<Value>, ApiError> {
    let model = state.model(body.model.as_deref()).await?;
    let tokens = body.tokens;
    let content = model
        .blocking(move |engine| {
            let tokenizer = engine.tokenizer()?;
            let vocab_size = tokenizer.vocab_size();
            match tokens.iter().find(|&&token| token as usize >= vocab_size) {
                Some(&token) => Err(EngineError::BadToken { token, vocab_size }),
                None => Ok(tokenizer.decode(&tokens, false)),
            }
        })
        .await?;
    Ok(Json(json!({"content": content})))
}

/// The body of `/apply-template`.
#[derive(Debug, Deserialize)]
pub(super) struct TemplateRequest {
    model: Option<String>,
    messages: Vec<Turn>,
    tools: Option<Vec<Value>>,
    chat_template_kwargs: Option<Map<String, Value>>,
    continue_final_message: Option<bool>,
}

/// A turn as OpenAI's API writes it.
#[derive(Debug, Deserialize)]
struct Turn {
    role: String,
    content: Option<Content>,
    tool_calls: Option<Vec<ToolCall>>,
    tool_call_id: Option<String>,
    name: Option<String>,
}

/// Text, or parts of it.
#[derive(Debug, Deserialize)]
#[serde(untagged, expecting = "expected a string or a list of text parts")]
enum Content {
    Text(String),
    Parts(Vec<TextPart>),
}

#[derive(Debug, Deserialize)]
struct TextPart {
    text: String,
}

impl From<Turn> for ChatMessage {
    fn from(turn: Turn) -> Self {
        let content = match turn.content {
            None => String::new(),
            Some(Content::Text(text)) => text,
            Some(Content::Parts(parts)) => {
                parts.into_iter().map(|part| part.text).collect::<Vec<_>>().join("\n")
            }
        };
        let tool_calls = turn.tool_calls.unwrap_or_default();
        Self { role: turn.role, content, tool_calls, tool_call_id: turn.tool_call_id, name: turn.name }
    }
}

/// `/apply-template`: the prompt of a conversation, as the model's template writes it.
pub(super) async fn apply_template(
    State(state): State<AppState>,
    ApiJson(body): ApiJson<TemplateRequest>,
) -> Result<Json<Value>, ApiError> {
    let model = state.model(body.model.as_deref()).await?;
    let prompt = ChatPrompt {
        messages: body.messages.into_iter().map(ChatMessage::from).collect(),
        tools: body.tools.unwrap_or_default(),
        continue_final: body.continue_final_message == Some(true),
        kwargs: body.chat_template_kwargs.unwrap_or_default(),
    };
    let rendered = model
        .blocking(move |engine| {
            let template = engine.model().chat_template.as_ref();
            let missing = || EngineError::NoChatTemplate { model: engine.model().name.clone() };
            Ok(template.ok_or_else(missing)?.render_prompt(&prompt)?)
        })
        .await?;
    Ok(Json(json!({"prompt": rendered})))
}
