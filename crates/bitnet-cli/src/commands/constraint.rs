//! Constraints from flags and files.

use std::path::Path;

use bitnet_inference::Constraint;

use super::generate::read;
use crate::args::{ConstraintArgs, GrammarType};
use crate::error::CliError;

/// What the flags ask for, if they ask for anything.
pub(super) fn constraint(args: &ConstraintArgs) -> Result<Option<Constraint>, CliError> {
    if args.grammar_type.is_some() && args.grammar.is_none() && args.grammar_file.is_none() {
        return Err(CliError::usage("--grammar-type says how a grammar is written, but there is none")
            .hint("add --grammar TEXT or --grammar-file FILE"));
    }
    Ok(if let Some(schema) = &args.json_schema {
        Some(json_schema(schema)?)
    } else if args.json_object {
        Some(Constraint::JsonObject)
    } else if let Some(regex) = &args.regex {
        Some(Constraint::Regex(regex.clone()))
    } else if let Some(path) = &args.grammar_file {
        Some(grammar_of_file(path, args.grammar_type)?)
    } else if let Some(grammar) = &args.grammar {
        // Every grammar has a colon behind the name of its first rule.
        let is_text = grammar.contains(':') && !Path::new(grammar).is_file();
        Some(if is_text {
            self::grammar(grammar.clone(), args.grammar_type)
        } else {
            grammar_of_file(Path::new(grammar), args.grammar_type)?
        })
    } else if args.choice.is_empty() {
        None
    } else {
        Some(Constraint::Choice(args.choice.clone()))
    })
}

/// A schema, or the one in a file.
pub(super) fn json_schema(schema: &str) -> Result<Constraint, CliError> {
    let is_text = schema.trim_start().starts_with(['{', '[']) || ["true", "false"].contains(&schema.trim());
    let text = if is_text { schema.to_owned() } else { read(Path::new(schema))? };
    Constraint::json_schema(&text).map_err(CliError::usage)
}

fn grammar(text: String, kind: Option<GrammarType>) -> Constraint {
    match kind {
        None => Constraint::grammar(text),
        Some(GrammarType::Gbnf) => Constraint::Gbnf(text),
        Some(GrammarType::Lark) => Constraint::Lark(text),
    }
}

fn grammar_of_file(path: &Path, kind: Option<GrammarType>) -> Result<Constraint, CliError> {
    let by_name = path.extension().is_some_and(|end| end == "lark").then_some(GrammarType::Lark);
    Ok(grammar(read(path)?, kind.or(by_name)))
}
