//! `bitnet serve`: the server.

use std::path::Path;
use std::process::ExitCode;

use bitnet_server::config::{ConfigSources, ServerConfig, sources};
use bitnet_server::{Server, ServerError, logging, signals};
use serde_json::{Map, Value, json};

use crate::args::{GlobalArgs, ServeArgs};
use crate::config::{self, Settings};
use crate::error::CliError;
use crate::hub;
use crate::interrupt;
use crate::output::{self, Notes};
use crate::running;

pub(super) fn run(args: &ServeArgs, global: GlobalArgs, notes: Notes) -> Result<ExitCode, CliError> {
    let environment = std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)));
    let section = match &args.config {
        Some(path) => Settings::open(path)?.section(),
        None => config::current().section(),
    };
    let sources =
        ConfigSources { flags: flags(args, global), environment: environment.collect(), file: None, section };
    let effective = sources.load().map_err(|error| CliError::of(&error, true))?;
    if args.print_config {
        output::result(&effective.to_toml())?;
        return Ok(ExitCode::SUCCESS);
    }
    let mut config = effective.config;
    fetch_models(&mut config, args, notes)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let runtime = runtime.map_err(|error| CliError::failed(format!("no threads can be started: {error}")))?;
    let code = runtime.block_on(serve(config, notes));
    // What still blocks a thread (a model being loaded) is not waited for.
    runtime.shutdown_background();
    code
}

async fn serve(config: ServerConfig, notes: Notes) -> Result<ExitCode, CliError> {
    let _logging = logging::init(&config)?;
    let scheme = if config.tls_cert.is_some() { "https" } else { "http" };
    let (webui, bundled) = (config.webui, config.models.is_empty() && config.models_dir.is_none());
    let signals = signals();
    let bound = Server::bind(config).await?;
    if bundled {
        notes.say(&format!("using the bundled model {} (choose another with --model)", bitnet_tiny::NAME));
    }
    // Kept until the end: as long as it lives, others see that the server does.
    let mut _announced = None;
    if let Some(address) = bound.address() {
        _announced = running::announce(&address.url(scheme), notes);
        let page = if webui { ", with a chat page" } else { "" };
        notes.say(&format!("serving at {}{page}; Ctrl-C ends", address.url(scheme)));
    }
    let second = async {
        signals.second().await;
        // Whoever asks twice does not want to wait for anything.
        std::process::exit(i32::from(interrupt::EXIT_CODE));
    };
    bound.serve(signals.first(), second).await?;
    Ok(ExitCode::SUCCESS)
}

/// Finds the models of the configuration on the Hub or in its cache, and fetches what is missing.
fn fetch_models(config: &mut ServerConfig, args: &ServeArgs, notes: Notes) -> Result<(), CliError> {
    for model in &mut config.models {
        let Some(given) = &model.path else { continue };
        let path = hub::resolve(Path::new(given), &args.hub, notes)?;
        if path != Path::new(given) {
            // The path in the cache says less than the name did.
            model.name.get_or_insert_with(|| given.clone());
            model.path = Some(path.to_string_lossy().into_owned());
        }
    }
    Ok(())
}

/// The settings that flags give.
fn flags(args: &ServeArgs, global: GlobalArgs) -> Map<String, Value> {
    let mut flags = Map::new();
    let mut set = |name: &str, value: Option<Value>| {
        flags.extend(value.map(|value| (name.to_owned(), value)));
    };
    let text = |text: &Option<String>| text.as_ref().map(|text| json!(text));
    let path = |path: &Option<std::path::PathBuf>| path.as_ref().map(|path| json!(path.to_string_lossy()));
    let number = |n: Option<usize>| n.map(|n| json!(n));
    let seconds = |n: Option<u64>| n.map(|n| json!(n));
    let list = |list: &[String]| (!list.is_empty()).then(|| json!(list));
    let switch = |yes: bool, no: bool| (yes || no).then(|| json!(yes));
    let models: Vec<Value> = args.models.iter().map(|model| sources::model(model)).collect();
    set("models", (!models.is_empty()).then(|| json!(models)));
    set("alias", list(&args.alias));
    set("models_dir", path(&args.models_dir));
    let network = &args.network;
    set("host", text(&network.host));
    set("port", network.port.map(|port| json!(port)));
    set("unix_socket", path(&network.unix_socket));
    set("tls_cert", path(&network.tls_cert));
    set("tls_key", path(&network.tls_key));
    let engine = &args.engine;
    set("parallel", number(engine.parallel));
    set("ctx_size", number(engine.ctx_size));
    set("threads", number(engine.threads));
    set("device", text(&engine.device));
    set("gpu_memory", text(&engine.gpu_memory));
    set("on_device_error", text(&engine.on_device_error));
    set("kernels", text(&engine.kernels));
    set("weight_form", text(&engine.weight_form));
    set("kv_type", text(&engine.kv_type));
    set("kv_budget", text(&engine.kv_budget));
    set("memory_budget", text(&engine.memory_budget));
    set("keep_alive", seconds(engine.keep_alive));
    set("prefill_chunk", number(engine.prefill_chunk));
    set("prefix_cache", switch(false, engine.no_prefix_cache));
    set("speculation", text(&engine.speculation));
    set("chat_template", path(&engine.chat_template));
    set("tokenizer", path(&engine.tokenizer));
    let access = &args.access;
    set("api_key", list(&access.api_key));
    set("api_key_file", path(&access.api_key_file));
    set("cors_origin", list(&access.cors_origin));
    set("priorities", switch(access.priorities, false));
    set("strict_models", switch(access.strict_models, false));
    let limits = &args.limits;
    set("queue", number(limits.queue));
    set("overload", limits.overload.map(|status| json!(status)));
    set("timeout", seconds(limits.timeout));
    set("body_limit", text(&limits.body_limit));
    set("header_timeout", seconds(limits.header_timeout));
    set("body_timeout", seconds(limits.body_timeout));
    set("write_timeout", seconds(limits.write_timeout));
    set("shutdown_timeout", seconds(limits.shutdown_timeout));
    set("max_connections", number(limits.max_connections));
    let parts = &args.parts;
    set("webui", switch(false, parts.no_webui));
    set("metrics", switch(parts.metrics, parts.no_metrics));
    set("slots", switch(parts.slots, parts.no_slots));
    set("log_format", global.log_format_given.then(|| json!(global.log_format.name())));
    set("log_level", text(&args.log_level(global)));
    set("otel_endpoint", text(&parts.otel_endpoint));
    flags
}

impl From<ServerError> for CliError {
    fn from(error: ServerError) -> Self {
        match &error {
            ServerError::Config(_) => Self::of(&error, true),
            _ => Self::of(&error, false),
        }
    }
}
