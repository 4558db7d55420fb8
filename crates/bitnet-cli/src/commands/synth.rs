//! `bitnet synth`: a model of random weights.

use std::process::ExitCode;

use bitnet_model::synth::{self, SynthError, SynthOptions, Vocabulary};

use crate::args::SynthArgs;
use crate::error::CliError;
use crate::output::{self, Notes, Progress};

pub(super) fn run(args: &SynthArgs, notes: Notes) -> Result<ExitCode, CliError> {
    let spec = args.shape.spec();
    let options = SynthOptions {
        format: args.format.into(),
        vocabulary: args.tokenizer.clone().map_or(Vocabulary::Dummy, Vocabulary::Tokenizer),
        seed: args.seed,
        overwrite: args.force,
    };
    let mut progress = Progress::new("writing", notes);
    let written = synth::write(&args.out, &spec, &options, &mut |done, total| progress.set(done, total));
    progress.clear();
    written.map_err(|error| match &error {
        SynthError::Exists { .. } => CliError::failed(&error).hint("--force writes over it"),
        _ => CliError::failed(&error),
    })?;
    notes.say(&format!(
        "wrote {} parameters; the text of this model is noise",
        output::count(spec.parameters())
    ));
    output::result(&format!("{}\n", args.out.display()))?;
    Ok(ExitCode::SUCCESS)
}
