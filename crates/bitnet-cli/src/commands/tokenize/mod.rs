//! `bitnet tokenize`: a text as tokens, and tokens as a text.
//!
//! This module finds the tokens, `paint` shows them to people.

mod paint;

use std::ops::Range;
use std::process::ExitCode;

use bitnet_inference::ChatMessage;
use bitnet_model::load::{LoadedModel, load};
use bitnet_text::{ChatPrompt, EncodeOptions, Tokenizer};
use serde_json::{Value, json};

use super::generate::{GIVE_TEXT, given};
use crate::args::TokenizeArgs;
use crate::error::CliError;
use crate::model;
use crate::output::{self, Notes};

/// A text and its tokens.
struct Tokens<'a> {
    tokenizer: &'a Tokenizer,
    text: String,
    ids: Vec<u32>,
    spans: Vec<Option<Range<usize>>>,
}

pub(super) fn run(args: &TokenizeArgs, notes: Notes) -> Result<ExitCode, CliError> {
    let options = model::load_options(&args.format)?;
    let decode = args.decode.as_deref().map(ids).transpose()?;
    let text = match &decode {
        Some(_) => String::new(),
        None => given(text(args), args.file.as_deref())?
            .ok_or_else(|| CliError::usage("there is nothing to tokenize").hint(GIVE_TEXT))?,
    };
    let model = load(&model::source(args.model.as_deref(), &args.format.hub, notes)?, &options)?;
    let tokenizer = model.require_tokenizer()?;
    let tokens = match decode {
        Some(ids) => decoded(tokenizer, ids, args.no_special)?,
        None => encoded(&model, tokenizer, text, args)?,
    };
    show(args, &tokens, notes)?;
    Ok(ExitCode::SUCCESS)
}

/// What the command line says.
fn text(args: &TokenizeArgs) -> Option<&str> {
    if args.stdin { Some("-") } else { args.text.as_deref().or(args.prompt.as_deref()) }
}

/// Reads ids in any notation of lists.
fn ids(list: &str) -> Result<Vec<u32>, CliError> {
    let list = if list == "-" { given(Some("-"), None)?.unwrap_or_default() } else { list.to_owned() };
    let words =
        list.split(|c: char| c.is_whitespace() || ",;[]()".contains(c)).filter(|word| !word.is_empty());
    words
        .map(|word| word.parse().map_err(|_| CliError::usage(format!("{word:?} is not the id of a token"))))
        .collect()
}

fn decoded(tokenizer: &Tokenizer, ids: Vec<u32>, no_special: bool) -> Result<Tokens<'_>, CliError> {
    if let Some(id) = ids.iter().find(|id| tokenizer.token_bytes(**id).is_none()) {
        let size = tokenizer.vocab_size();
        return Err(CliError::usage(format!("there is no token {id}; the vocabulary has {size}, from 0 on")));
    }
    let text = tokenizer.decode(&ids, no_special);
    let spans = tokenizer.spans(&text, &ids, EncodeOptions { add_bos: false, parse_special: !no_special });
    Ok(Tokens { tokenizer, text, ids, spans })
}

fn encoded<'a>(
    model: &LoadedModel,
    tokenizer: &'a Tokenizer,
    text: String,
    args: &TokenizeArgs,
) -> Result<Tokens<'a>, CliError> {
    let options = EncodeOptions {
        add_bos: !args.no_bos && !args.no_special,
        parse_special: !args.no_parse_special && !args.no_special,
    };
    if !args.chat && args.system.is_none() {
        let ids = tokenizer.encode(&text, options).map_err(CliError::failed)?;
        let spans = tokenizer.spans(&text, &ids, options);
        return Ok(Tokens { tokenizer, text, ids, spans });
    }
    let template = model.chat_template.as_ref().ok_or_else(|| {
        CliError::failed(format!("{} has no chat template", model.name))
            .hint("leave out --chat, or name a template with --chat-template FILE")
    })?;
    let system = args.system.iter().map(ChatMessage::system);
    let prompt = ChatPrompt::new(system.chain([ChatMessage::user(text)]).collect());
    let text = template.render_prompt(&prompt).map_err(CliError::failed)?;
    let ids = template.encode_prompt(tokenizer, &prompt).map_err(CliError::failed)?;
    let spans = tokenizer.spans(&text, &ids, EncodeOptions::TEMPLATE);
    Ok(Tokens { tokenizer, text, ids, spans })
}

fn show(args: &TokenizeArgs, tokens: &Tokens<'_>, notes: Notes) -> Result<(), CliError> {
    if args.count {
        return output::result(&format!("{}\n", tokens.ids.len()));
    }
    if args.ids {
        return output::result(&format!("{}\n", list(&tokens.ids)));
    }
    if args.json {
        return output::json(&as_json(tokens));
    }
    if args.decode.is_some() {
        return output::result(&format!("{}\n", tokens.text));
    }
    if !console::colors_enabled() {
        return output::result(&paint::lines(tokens));
    }
    output::result(&paint::painted(tokens))?;
    let (count, bytes) = (tokens.ids.len(), tokens.text.len());
    notes.say(&format!(
        "{count} tokens, {bytes} bytes, {:.2} bytes a token",
        bytes as f64 / count.max(1) as f64
    ));
    Ok(())
}

/// Ids as a list of JSON on one line, which is also one of Python.
fn list(ids: &[u32]) -> String {
    let ids: Vec<String> = ids.iter().map(u32::to_string).collect();
    format!("[{}]", ids.join(", "))
}

fn as_json(tokens: &Tokens<'_>) -> Value {
    let token = |(&id, span): (&u32, &Option<Range<usize>>)| {
        let bytes = tokens.tokenizer.token_bytes(id).unwrap_or_default();
        json!({
            "id": id,
            "piece": String::from_utf8_lossy(bytes),
            "token": tokens.tokenizer.token_str(id),
            "bytes": bytes,
            "special": tokens.tokenizer.is_special(id),
            "start": span.as_ref().map(|span| span.start),
            "end": span.as_ref().map(|span| span.end),
        })
    };
    json!({
        "count": tokens.ids.len(),
        "bytes": tokens.text.len(),
        "text": tokens.text,
        "tokens": tokens.ids.iter().zip(&tokens.spans).map(token).collect::<Vec<_>>(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_of_ids_are_read_as_they_are_written() {
        for text in ["[1, 2, 30]", "1,2,30", " 1 2\n30 ", "(1;2;30)"] {
            assert_eq!(ids(text).unwrap(), [1, 2, 30], "{text}");
        }
        assert_eq!(ids(&list(&[7, 0])).unwrap(), [7, 0]);
        assert_eq!(ids("[]").unwrap(), [0u32; 0]);
        for text in ["x", "-1", "1.5", "4294967296"] {
            assert!(ids(text).is_err(), "{text}");
        }
    }
}
