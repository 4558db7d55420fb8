//! `bitnet generate`: one text.

use std::io::{IsTerminal, Read};
use std::ops::ControlFlow;
use std::path::Path;
use std::process::ExitCode;

use bitnet_inference::sampling::{LogprobsAt, TokenLogprob};
use bitnet_inference::{
    ChatMessage, Event, FinishReason, GenerateRequest, Generation, InferenceEngine, Prompt, Session,
};
use serde_json::json;

use super::constraint;
use crate::args::GenerateArgs;
use crate::args::values::Limit;
use crate::error::CliError;
use crate::output::{self, EngineFacts, Notes, Progress};
use crate::{interrupt, model};

pub(super) fn run(args: &GenerateArgs, notes: Notes) -> Result<ExitCode, CliError> {
    let prompt = given(args.prompt.as_deref().or(args.prompt_flag.as_deref()), args.file.as_deref())?
        .ok_or_else(|| CliError::usage("no prompt").hint(GIVE_TEXT))?;
    let constraint = constraint::constraint(&args.constraint)?;
    let engine = model::engine(&args.model, notes)?;
    let request = GenerateRequest { constraint, ..request(args, &prompt, &engine) };
    if !args.json && !is_chat(args) {
        if args.echo {
            output::result(&prompt)?;
        } else {
            notes.lead_in(&prompt);
        }
    }
    if request.n > 1 || request.best_of.is_some() {
        return several(args, &engine, &request, notes);
    }
    let mut sink = if args.json { Sink::silent() } else { Sink::stdout(trims(args, &request)) };
    let generation = generate(&engine, &mut engine.session(), &request, notes, &mut sink)?;
    let facts = EngineFacts::of(&engine);
    if args.json {
        output::json(&as_json(&engine, &generation, &facts))?;
    } else {
        output::result("\n")?;
    }
    output::print_stats(notes, &generation, &facts, args.stats);
    let interrupted = generation.finish == FinishReason::Cancelled;
    Ok(if interrupted { ExitCode::from(interrupt::EXIT_CODE) } else { ExitCode::SUCCESS })
}

/// Several completions: streamed one after the other, or told at the end where the best are chosen among more.
fn several(
    args: &GenerateArgs,
    engine: &InferenceEngine,
    request: &GenerateRequest,
    notes: Notes,
) -> Result<ExitCode, CliError> {
    let streams = !args.json && request.best_of.is_none_or(|best_of| best_of == request.n);
    let mut progress = Progress::new("reading the prompt", notes);
    let listening = interrupt::listen();
    let (mut sink, mut current) = (Sink::silent(), None);
    let generations = engine.generate_n(&mut engine.session(), request, &mut |number, event| {
        let flow = match event {
            Event::Prefill { done, total } => {
                progress.set(done as u64, total as u64);
                ControlFlow::Continue(())
            }
            Event::Token { text, .. } | Event::Tail { text } if streams => {
                progress.clear();
                if current != Some(number) {
                    if current.is_some() {
                        // Ends the line of the completion before; the sink finds out if nobody reads any more.
                        let _ = sink.write("\n");
                    }
                    notes.say(&format!("({} of {})", number + 1, request.n));
                    (sink, current) = (Sink::stdout(trims(args, request)), Some(number));
                }
                sink.write(text)
            }
            Event::Token { .. } | Event::Tail { .. } => ControlFlow::Continue(()),
        };
        if interrupt::requested() { ControlFlow::Break(()) } else { flow }
    })?;
    drop((listening, progress));
    if let Some(error) = sink.closed.take() {
        return Err(error);
    }
    let facts = EngineFacts::of(engine);
    if args.json {
        let one = |generation| as_json(engine, generation, &facts);
        let choices: Vec<_> = generations.iter().map(one).collect();
        output::json(&json!({ "model": engine.model().name, "choices": choices }))?;
    } else if streams {
        output::result("\n")?;
    } else {
        for (i, generation) in generations.iter().enumerate() {
            notes.say(&format!("({} of {}, seed {})", i + 1, request.n, generation.stats.seed));
            let text = &generation.text;
            output::result(if trims(args, request) { text.trim_start() } else { text })?;
            output::result("\n")?;
        }
    }
    for generation in &generations {
        output::print_stats(notes, generation, &facts, args.stats);
    }
    let interrupted = generations.iter().any(|g| g.finish == FinishReason::Cancelled);
    Ok(if interrupted { ExitCode::from(interrupt::EXIT_CODE) } else { ExitCode::SUCCESS })
}

fn is_chat(args: &GenerateArgs) -> bool {
    args.chat || args.system.is_some()
}

/// Whether white space at the beginning is left out: templates have some at the end, but constraints mean what they say.
fn trims(args: &GenerateArgs, request: &GenerateRequest) -> bool {
    is_chat(args) && request.constraint.is_none()
}

fn request(args: &GenerateArgs, prompt: &str, engine: &InferenceEngine) -> GenerateRequest {
    let prompt = if is_chat(args) {
        let system = args.system.iter().map(ChatMessage::system);
        Prompt::Chat(system.chain([ChatMessage::user(prompt)]).collect())
    } else {
        Prompt::text(prompt)
    };
    let mut request = GenerateRequest {
        max_tokens: max_tokens(args.predict, engine),
        sampling: args.sampling.overrides(),
        stop: args.stop.clone(),
        ignore_eos: args.ignore_eos,
        echo: args.echo,
        logprobs: args.logprobs,
        n: args.choices,
        best_of: args.best_of,
        ..GenerateRequest::new(prompt)
    };
    args.sampling.complete(&mut request);
    request
}

/// No limit means the context, whatever the model's default is.
pub(super) fn max_tokens(limit: Option<Limit>, engine: &InferenceEngine) -> Option<usize> {
    limit.map(|limit| match limit {
        Limit::Tokens(n) => n,
        // One more than there is room for, so that the end is called a full context.
        Limit::None => engine.context() + 1,
    })
}

/// What to do if there is no text.
pub(super) const GIVE_TEXT: &str = "write one after the command, pipe it in, or name a file with --file";

/// A text from wherever it comes: the command line (`-` is stdin), a file, or a pipe.
pub(super) fn given(text: Option<&str>, file: Option<&Path>) -> Result<Option<String>, CliError> {
    Ok(Some(match (text, file) {
        (Some("-"), _) => stdin()?,
        (Some(text), _) => text.to_owned(),
        (None, Some(path)) => read(path)?,
        (None, None) if !std::io::stdin().is_terminal() => stdin()?,
        (None, None) => return Ok(None),
    }))
}

/// All of standard input.
pub(super) fn stdin() -> Result<String, CliError> {
    read(Path::new("-"))
}

/// The text of a file or of stdin, without the line break that editors and `echo` put at the end.
pub(super) fn read(path: &Path) -> Result<String, CliError> {
    let mut text = read_whole(path)?;
    if text.ends_with('\n') {
        text.pop();
        if text.ends_with('\r') {
            text.pop();
        }
    }
    Ok(text)
}

/// The text of a file, or of stdin for `-`, as it is.
pub(super) fn read_whole(path: &Path) -> Result<String, CliError> {
    let mut bytes = Vec::new();
    let (read, name) = match path == Path::new("-") {
        true => (std::io::stdin().lock().read_to_end(&mut bytes).map(|_| bytes), "stdin".to_owned()),
        false => (std::fs::read(path), path.display().to_string()),
    };
    let bytes = read.map_err(|error| CliError::failed(format!("cannot read {name}: {error}")))?;
    String::from_utf8(bytes).map_err(|error| {
        let at = error.utf8_error().valid_up_to();
        CliError::failed(format!("{name} is not UTF-8 text: byte {at} begins no character; convert it first"))
    })
}

/// Takes what is generated.
pub(super) trait Receiver {
    /// Takes a token with the text that is certain by it, or the text that was left at the end; breaks to stop.
    fn take(&mut self, token: Option<u32>, text: &str) -> ControlFlow<()>;

    /// Why it stopped, if that was an error.
    fn failure(&mut self) -> Option<CliError>;
}

/// Where generated text goes.
#[derive(Debug)]
struct Sink {
    silent: bool,
    /// White space at the beginning is still to be left out: chat models begin their answers with it.
    trims: bool,
    closed: Option<CliError>,
}

impl Sink {
    fn stdout(trims: bool) -> Self {
        Self { silent: false, trims, closed: None }
    }

    fn silent() -> Self {
        Self { silent: true, ..Self::stdout(false) }
    }

    /// Writes; breaks if nobody reads any more.
    fn write(&mut self, text: &str) -> ControlFlow<()> {
        let text = if self.trims { text.trim_start() } else { text };
        if self.silent || text.is_empty() {
            return ControlFlow::Continue(());
        }
        self.trims = false;
        match output::result(text) {
            Ok(()) => ControlFlow::Continue(()),
            Err(error) => {
                self.closed = Some(error);
                ControlFlow::Break(())
            }
        }
    }
}

impl Receiver for Sink {
    fn take(&mut self, _: Option<u32>, text: &str) -> ControlFlow<()> {
        self.write(text)
    }

    fn failure(&mut self) -> Option<CliError> {
        self.closed.take()
    }
}

/// Runs a request, giving its text away as it comes; Ctrl-C ends it.
pub(super) fn generate(
    engine: &InferenceEngine,
    session: &mut Session,
    request: &GenerateRequest,
    notes: Notes,
    receiver: &mut dyn Receiver,
) -> Result<Generation, CliError> {
    let mut progress = Progress::new("reading the prompt", notes);
    let listening = interrupt::listen();
    let generation = engine.generate_with(session, request, &mut |event| {
        let flow = match event {
            Event::Prefill { done, total } => {
                progress.set(done as u64, total as u64);
                ControlFlow::Continue(())
            }
            Event::Token { id, text, .. } => {
                progress.clear();
                receiver.take(Some(id), text)
            }
            Event::Tail { text } => receiver.take(None, text),
        };
        if interrupt::requested() { ControlFlow::Break(()) } else { flow }
    })?;
    drop(listening);
    match receiver.failure() {
        Some(error) => Err(error),
        None => Ok(generation),
    }
}

fn as_json(engine: &InferenceEngine, generation: &Generation, facts: &EngineFacts) -> serde_json::Value {
    let stop = match &generation.finish {
        FinishReason::StopString(text) => Some(text),
        _ => None,
    };
    let mut value = json!({
        "model": engine.model().name,
        "text": generation.text,
        "tokens": generation.tokens,
        "finish": generation.finish.name(),
        "stop_string": stop,
        "seed": generation.stats.seed,
        "stats": output::stats_json(generation, facts),
    });
    if let Some(logprobs) = &generation.logprobs {
        value["logprobs"] = logprobs.iter().map(|at| logprobs_json(engine, at)).collect();
    }
    value
}

/// One place of a text: the token drawn and the most probable ones, each with its bytes, as OpenAI's API has it. What is
/// impossible has no finite logarithm: null.
fn logprobs_json(engine: &InferenceEngine, at: LogprobsAt<'_>) -> serde_json::Value {
    let one = |t: &TokenLogprob| {
        let bytes = engine.model().tokenizer.as_ref().and_then(|tokenizer| tokenizer.token_bytes(t.token));
        let text = bytes.map(String::from_utf8_lossy);
        json!({ "id": t.token, "token": text, "logprob": t.logprob, "bytes": bytes })
    };
    let mut value = one(&at.chosen);
    value["top_logprobs"] = at.top.iter().map(one).collect();
    value
}
