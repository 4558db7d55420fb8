//! [`GrammarFactory`]: compiles constraints for the vocabulary of one model.

use std::sync::{Arc, Mutex, PoisonError};

use bitnet_text::Tokenizer;
use llguidance::ParserFactory;
use llguidance::api::{ParserLimits, TopLevelGrammar};
use llguidance::earley::SlicedBiasComputer;
use llguidance::toktrie::InferenceCapabilities;

use super::{Constraint, GrammarError, Matcher, gbnf, schema, tokens};

/// Stack of the thread that compiles; reserved, not taken. Deep constraints need more than usual threads have.
const STACK: usize = 256 << 20;
/// Longest regular expression in bytes.
const LONGEST_REGEX: usize = 64 << 10;
/// Longest grammar in bytes.
const LONGEST_GRAMMAR: usize = 256 << 10;
/// Deepest nesting of brackets in a Lark grammar.
const DEEPEST: usize = 400;
/// Most bytes of all choices.
const LONGEST_CHOICES: usize = 512 << 10;
/// Compiled constraints that are kept for the next request with the same.
const KEPT: usize = 8;

/// What following a constraint may take. The parser's own defaults assume that schemas come from friends.
fn limits() -> ParserLimits {
    ParserLimits {
        // One lexer state takes up to 2 KiB.
        max_lexer_states: 30_000,
        max_grammar_size: 200_000,
        step_max_items: 200_000,
        step_lexer_fuel: 500_000,
        verbose_errors: false,
        ..ParserLimits::default()
    }
}

/// A constraint and its compiled form at the beginning of a text.
type Compiled = (Constraint, Arc<llguidance::Matcher>);

/// Makes [`Matcher`]s. One for each engine.
pub(crate) struct GrammarFactory {
    parsers: ParserFactory,
    tokenizer: Arc<Tokenizer>,
    vocab_size: usize,
    stop_tokens: Arc<[u32]>,
    /// The last constraints that were asked for, the latest last.
    compiled: Mutex<Vec<Compiled>>,
}

impl std::fmt::Debug for GrammarFactory {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("GrammarFactory").field("vocab_size", &self.vocab_size).finish_non_exhaustive()
    }
}

impl GrammarFactory {
    /// For a model with these tokens, in which `stop_tokens` end a text.
    pub(crate) fn new(
        tokenizer: &Arc<Tokenizer>,
        vocab_size: usize,
        stop_tokens: &[u32],
    ) -> Result<Self, GrammarError> {
        let tokens = tokens::environment(tokenizer, vocab_size, stop_tokens)?;
        let slices = SlicedBiasComputer::general_slices();
        let mut parsers = ParserFactory::new(&tokens, InferenceCapabilities::default(), &slices)
            .map_err(|error| GrammarError::Vocabulary { problem: GrammarError::tidy(&error.to_string()) })?;
        parsers.quiet();
        *parsers.limits_mut() = limits();
        let stop_tokens =
            stop_tokens.iter().copied().filter(|&token| (token as usize) < vocab_size).collect();
        Ok(Self {
            parsers,
            tokenizer: Arc::clone(tokenizer),
            vocab_size,
            stop_tokens,
            compiled: Mutex::default(),
        })
    }

    /// A matcher at the beginning of a text. Without `may_stop` the text goes on for as long as it may.
    ///
    /// # Errors
    /// [`GrammarError`] if the constraint cannot be used.
    pub(crate) fn matcher(&self, constraint: &Constraint, may_stop: bool) -> Result<Matcher, GrammarError> {
        let compiled = self.compiled(constraint)?;
        let stop_tokens = if may_stop { Arc::clone(&self.stop_tokens) } else { Arc::from([]) };
        let tokenizer = Arc::clone(&self.tokenizer);
        let mut matcher = Matcher::new(compiled, tokenizer, self.vocab_size, stop_tokens, &self.stop_tokens);
        if matcher.mask()?.is_none() {
            return Err(wrong(constraint, "nothing but the empty text fits"));
        }
        Ok(matcher)
    }

    /// The compiled form of a constraint, from before or made now.
    fn compiled(&self, constraint: &Constraint) -> Result<Arc<llguidance::Matcher>, GrammarError> {
        if let Some(known) = self.known(constraint) {
            return Ok(known);
        }
        let made = Arc::new(self.compile(constraint)?);
        let mut compiled = self.compiled.lock().unwrap_or_else(PoisonError::into_inner);
        if compiled.len() >= KEPT {
            compiled.remove(0);
        }
        compiled.push((constraint.clone(), Arc::clone(&made)));
        Ok(made)
    }

    fn known(&self, constraint: &Constraint) -> Option<Arc<llguidance::Matcher>> {
        let mut compiled = self.compiled.lock().unwrap_or_else(PoisonError::into_inner);
        let place = compiled.iter().position(|known| known.0 == *constraint)?;
        let known = compiled.remove(place);
        let matcher = Arc::clone(&known.1);
        compiled.push(known);
        Some(matcher)
    }

    /// Compiles a constraint, on a stack of its own.
    fn compile(&self, constraint: &Constraint) -> Result<llguidance::Matcher, GrammarError> {
        // What is nested too deeply must not even be walked through on the usual stack.
        if let Constraint::JsonSchema(schema) = constraint {
            schema::measure(schema)?;
        }
        let failed = |problem: String| GrammarError::Failed { problem };
        std::thread::scope(|scope| {
            std::thread::Builder::new()
                .name("grammar".to_owned())
                .stack_size(STACK)
                .spawn_scoped(scope, || self.compile_here(constraint))
                .map_err(|error| failed(format!("no thread to compile in: {error}")))?
                .join()
                .map_err(|_| failed("compiling panicked".to_owned()))?
        })
    }

    fn compile_here(&self, constraint: &Constraint) -> Result<llguidance::Matcher, GrammarError> {
        let grammar = match constraint {
            Constraint::JsonSchema(schema) => TopLevelGrammar::from_json_schema(schema::prepare(schema)?),
            Constraint::JsonObject => {
                TopLevelGrammar::from_json_schema(schema::prepare(&serde_json::json!({"type": "object"}))?)
            }
            Constraint::Regex(regex) => {
                check_regex(regex)?;
                TopLevelGrammar::from_regex(regex)
            }
            Constraint::Lark(lark) => {
                check_size("the grammar's length in bytes", lark.len(), LONGEST_GRAMMAR)?;
                check_size("the nesting of brackets", nesting(lark), DEEPEST)?;
                TopLevelGrammar::from_lark(lark.clone())
            }
            Constraint::Gbnf(text) => {
                check_size("the grammar's length in bytes", text.len(), LONGEST_GRAMMAR)?;
                TopLevelGrammar::from_lark(gbnf::to_lark(text)?)
            }
            Constraint::Choice(choices) => TopLevelGrammar::from_lark(choices_to_lark(choices)?),
        };
        let parser = self.parsers.create_parser(grammar);
        let parser = parser.map_err(|error| wrong(constraint, &format!("{error:#}")))?;
        let mut matcher = llguidance::Matcher::new(Ok(parser));
        // Finds out whether a text may go on at all.
        matcher.consume_tokens(&[]).map_err(|error| wrong(constraint, &error.to_string()))?;
        Ok(matcher)
    }
}

/// What a message of the parser means for a constraint.
fn wrong(constraint: &Constraint, message: &str) -> GrammarError {
    GrammarError::of_parser(message, |problem| match constraint {
        Constraint::JsonSchema(_) | Constraint::JsonObject => schema::explain(problem),
        Constraint::Regex(_) => GrammarError::Regex { problem: explain_regex(&problem) },
        Constraint::Lark(_) => GrammarError::Lark { problem },
        Constraint::Gbnf(_) => GrammarError::Gbnf { line: 1, column: 1, problem },
        Constraint::Choice(_) => GrammarError::Failed { problem },
    })
}

fn check_size(what: &'static str, found: usize, limit: usize) -> Result<(), GrammarError> {
    if found <= limit { Ok(()) } else { Err(GrammarError::TooLarge { what, found, limit }) }
}

fn check_regex(regex: &str) -> Result<(), GrammarError> {
    check_size("the regular expression's length in bytes", regex.len(), LONGEST_REGEX)?;
    // The parser would hide from the text what such a group matches.
    if regex.contains("(?P<stop>") || regex.contains("(?<stop>") {
        let problem = "a group must not be called \"stop\"; give it another name".to_owned();
        return Err(GrammarError::Regex { problem });
    }
    if regex.is_empty() {
        return Err(GrammarError::Regex { problem: "it is empty".to_owned() });
    }
    Ok(())
}

/// The message about a regular expression, without the grammar around it.
fn explain_regex(problem: &str) -> String {
    match problem.find("regex parse error:") {
        Some(start) => {
            let message = &problem[start..];
            let end = message.rfind("\n   1 |").or_else(|| message.find("\n\n")).unwrap_or(message.len());
            message[..end].trim().to_owned()
        }
        None => problem.to_owned(),
    }
}

/// A bound on how deeply brackets are nested, wherever they stand: those in strings count as well.
fn nesting(lark: &str) -> usize {
    let (mut depth, mut deepest) = (0_usize, 0);
    for byte in lark.bytes() {
        match byte {
            b'(' | b'[' | b'{' | b'~' => depth += 1,
            b')' | b']' | b'}' => depth = depth.saturating_sub(1),
            _ => {}
        }
        deepest = deepest.max(depth);
    }
    deepest
}

/// One terminal that is any of the choices.
fn choices_to_lark(choices: &[String]) -> Result<String, GrammarError> {
    let wrong = |problem| Err(GrammarError::Choice { problem });
    if choices.is_empty() {
        return wrong("there are none");
    }
    if choices.iter().any(String::is_empty) {
        return wrong("one of them is empty");
    }
    check_size("the length of the choices in bytes", choices.iter().map(String::len).sum(), LONGEST_CHOICES)?;
    let mut lark = String::from("start: CHOICE\nCHOICE: ");
    for (index, choice) in choices.iter().enumerate() {
        if index > 0 {
            lark.push_str(" | ");
        }
        gbnf::push_lark_string(&mut lark, choice.chars());
    }
    lark.push('\n');
    Ok(lark)
}
