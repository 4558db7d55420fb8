//! From flags to a model source and an engine.

use std::path::{Path, PathBuf};

use bitnet_core::bytes::ByteView;
use bitnet_inference::{EngineBuilder, EngineError, InferenceEngine, LoadOptions, ModelSource};

use crate::args::{FormatArgs, HubArgs, ModelArgs};
use crate::error::{CliError, kernel_hint};
use crate::hub;
use crate::output::{Notes, Progress};

/// The model that was named, by path or on the Hub, or the bundled one. A model on the Hub that is not in the cache is
/// fetched.
pub(crate) fn source(name: Option<&Path>, args: &HubArgs, notes: Notes) -> Result<ModelSource, CliError> {
    if let Some(name) = name {
        return Ok(ModelSource::Path(hub::resolve(name, args, notes)?));
    }
    notes.say(&format!("using the bundled model {} (choose another with --model)", bitnet_tiny::NAME));
    Ok(bundled())
}

/// The bundled model.
pub(crate) fn bundled() -> ModelSource {
    let view = |(name, bytes): (&str, &'static [u8])| (name.to_owned(), ByteView::from_static(bytes));
    let files = bitnet_tiny::files().into_iter().map(view).collect();
    ModelSource::Memory { name: bitnet_tiny::NAME.to_owned(), files }
}

/// How to read it.
pub(crate) fn load_options(args: &FormatArgs) -> Result<LoadOptions, CliError> {
    let read = |path: &PathBuf| {
        std::fs::read_to_string(path).map_err(|error| {
            CliError::failed(format!("cannot read {} as a template: {error}", path.display()))
        })
    };
    Ok(LoadOptions {
        i2s_layout: args.i2s_layout.into(),
        activation: args.activation.map(Into::into),
        tokenizer: args.tokenizer.clone(),
        chat_template: args.chat_template.as_ref().map(read).transpose()?,
        dense_as_masters: false,
    })
}

/// Loads a model and prepares it to run.
pub(crate) fn engine(args: &ModelArgs, notes: Notes) -> Result<InferenceEngine, CliError> {
    engine_with(args, notes, |builder| builder)
}

/// As [`engine`], with what `adjust` does to its description.
pub(crate) fn engine_with(
    args: &ModelArgs,
    notes: Notes,
    adjust: impl FnOnce(EngineBuilder) -> EngineBuilder,
) -> Result<InferenceEngine, CliError> {
    let options = load_options(&args.format)?;
    let source = source(args.model.as_deref(), &args.format.hub, notes)?;
    let builder = InferenceEngine::builder().model(source).load_options(options);
    build(adjust(builder.weight_form(args.storage.weight_form.into())), args, notes)
}

/// Builds an engine whose weights are described, with all else that the flags say.
pub(crate) fn build(
    builder: EngineBuilder,
    args: &ModelArgs,
    notes: Notes,
) -> Result<InferenceEngine, CliError> {
    let mut progress = Progress::new("loading", notes);
    let builder = builder
        .threads(args.threads)
        .kernels(args.kernels.clone())
        .device(args.device.device)
        .gpu_memory(args.device.gpu_memory)
        .on_device_failure(args.device.on_device_error)
        .output_storage(args.storage.lm_head.into())
        .kv_type(args.storage.kv_type)
        .context_size(args.ctx_size)
        .progress(move |done, total| progress.set(done, total));
    let engine = builder.build().map_err(|error| explain(error, args))?;
    for warning in &engine.model().warnings {
        notes.warn(warning);
    }
    notes.detail(&format!(
        "{}: {}, on {}",
        engine.model().name,
        engine.model().format,
        engine.info().description
    ));
    Ok(engine)
}

/// Adds what only the command line knows.
fn explain(error: EngineError, args: &ModelArgs) -> CliError {
    match &error {
        EngineError::Exec(_) => match &args.kernels {
            Some(given) => CliError::from(error).hint(kernel_hint(given)),
            None => error.into(),
        },
        _ => error.into(),
    }
}
