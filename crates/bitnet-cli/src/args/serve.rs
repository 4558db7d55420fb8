//! `bitnet serve`.

use std::path::PathBuf;

use clap::{ArgAction, Args};

use super::{GlobalArgs, HubArgs, values};

const EXAMPLES: &str = "\
Examples:
  bitnet serve                                        the bundled model at http://127.0.0.1:8080
  bitnet serve -m microsoft/bitnet-b1.58-2B-4T        a model on the Hub, fetched on first use
  bitnet serve -m small=a.gguf -m large=DIR           two models, by the names small and large
  bitnet serve --models-dir DIR --memory-budget 8GB   all models of a folder, loaded when asked for
  bitnet serve --host 0.0.0.0 --api-key-file keys.txt --tls-cert cert.pem --tls-key key.pem
  bitnet serve --config serve.toml --print-config     what would be used, and where it was set

  curl http://127.0.0.1:8080/v1/chat/completions -d '{\"messages\":[{\"role\":\"user\",\"content\":\"Hi\"}]}'

A chat page is at /. The APIs of OpenAI (/v1/chat/completions, /v1/completions, /v1/embeddings,
/v1/responses, /v1/models), Anthropic (/v1/messages), llama-server (/completion, /tokenize, /props,
/slots, /health, /metrics, ...) and ollama (/api/chat, /api/generate, /api/tags, ...) are served.

Every setting is also an environment variable (--port is BITNET_PORT) and a line of a TOML file
(port = 8080), a file of its own (--config) or the section [server] of `bitnet config path`. Flags come
before the environment, the environment before the file; --print-config prints such a file. Names in files: as the flags, with _ for -, but models, webui, metrics, slots,
prefix_cache.

SIGTERM and Ctrl-C end the server when running requests are done; a second one ends it at once.";

/// All values are optional: what is not given comes from the environment, a file, or is a default.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct ServeArgs {
    /// Model folder or file, or ORG/NAME[@REVISION][:FILE-OR-QUANT] on the Hub, or NAME=MODEL; may be given again
    /// [default: the bundled model]
    #[arg(short, long = "model", value_name = "[NAME=]MODEL")]
    pub(crate) models: Vec<String>,
    /// Names of the first model in requests, between commas
    #[arg(short, long, value_name = "NAMES", value_delimiter = ',')]
    pub(crate) alias: Vec<String>,
    /// Folder whose models are served as well, each loaded when it is first asked for
    #[arg(long, value_name = "DIR")]
    pub(crate) models_dir: Option<PathBuf>,
    /// A TOML file with settings, of a server alone or of `bitnet config` [default: that of `bitnet config path`]
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// Print the settings as a TOML file that says where each came from, and end
    #[arg(long)]
    pub(crate) print_config: bool,
    #[command(flatten)]
    pub(crate) network: NetworkArgs,
    #[command(flatten)]
    pub(crate) engine: EngineArgs,
    #[command(flatten)]
    pub(crate) access: AccessArgs,
    #[command(flatten)]
    pub(crate) limits: LimitArgs,
    #[command(flatten)]
    pub(crate) parts: PartArgs,
    #[command(flatten)]
    pub(crate) hub: HubArgs,
}

#[derive(Debug, Args)]
#[command(next_help_heading = "Network")]
pub(crate) struct NetworkArgs {
    /// Address to listen on; 0.0.0.0 for all [default: 127.0.0.1]
    #[arg(long, value_name = "ADDRESS")]
    pub(crate) host: Option<String>,
    /// Port to listen on; 0 for any [default: 8080]
    #[arg(long, value_name = "PORT")]
    pub(crate) port: Option<u16>,
    /// Listen on a socket in the file system instead
    #[arg(long, value_name = "PATH")]
    pub(crate) unix_socket: Option<PathBuf>,
    /// Certificate chain for TLS (PEM)
    #[arg(long, alias = "ssl-cert-file", value_name = "FILE")]
    pub(crate) tls_cert: Option<PathBuf>,
    /// Private key for TLS (PEM)
    #[arg(long, alias = "ssl-key-file", value_name = "FILE")]
    pub(crate) tls_key: Option<PathBuf>,
}

#[derive(Debug, Args)]
#[command(next_help_heading = "Engine")]
pub(crate) struct EngineArgs {
    /// Requests computed together, each model [default: 64]
    #[arg(long, visible_alias = "np", value_name = "N")]
    pub(crate) parallel: Option<usize>,
    /// Most tokens of prompt and answer together [default: what the model was made for]
    #[arg(short, long, value_name = "N")]
    pub(crate) ctx_size: Option<usize>,
    /// Threads that compute [default: one for each core]
    #[arg(short, long, value_name = "N", value_parser = values::threads)]
    pub(crate) threads: Option<usize>,
    /// Device that models run on: auto, cpu, cuda, cuda:N, metal, vulkan, dx12 or mlx [default: auto]
    #[arg(long, value_name = "DEVICE")]
    pub(crate) device: Option<String>,
    /// Most memory of a GPU for each model, such as 6GB [default: nearly all that is free]
    #[arg(long, value_name = "SIZE")]
    pub(crate) gpu_memory: Option<String>,
    /// When a GPU fails: go on with the processor (cpu), or end requests with its error (fail) [default: cpu]
    #[arg(long, value_name = "WHAT")]
    pub(crate) on_device_error: Option<String>,
    /// Kernel set, as `bitnet devices` lists them [default: the fastest]
    #[arg(long, value_name = "SET")]
    pub(crate) kernels: Option<String>,
    /// How ternary weights are kept: 2bit, 1.6bit or auto, what a single request likes best; the text is the same
    /// [default: 2bit, which serves several requests at a time faster]
    #[arg(long, value_name = "FORM")]
    pub(crate) weight_form: Option<String>,
    /// How keys and values of the context are kept: f32, f16 or int8 [default: f16]
    #[arg(long, alias = "cache-type", value_name = "TYPE")]
    pub(crate) kv_type: Option<String>,
    /// Memory for keys and values of each model, such as 2GB [default: four full contexts; on a GPU
    /// as many as requests run together, in half of its free memory]
    #[arg(long, value_name = "SIZE")]
    pub(crate) kv_budget: Option<String>,
    /// Memory for all models, keys and values included [default: that of the machine]
    #[arg(long, value_name = "SIZE")]
    pub(crate) memory_budget: Option<String>,
    /// Unload a model that was not used for so many seconds; 0: never [default: 0]
    #[arg(long, value_name = "SECONDS")]
    pub(crate) keep_alive: Option<u64>,
    /// Tokens of prompts computed in one step beside running requests [default: chosen]
    #[arg(long, value_name = "N")]
    pub(crate) prefill_chunk: Option<usize>,
    /// Compute every prompt anew, also where it begins as an earlier one
    #[arg(long)]
    pub(crate) no_prefix_cache: bool,
    /// Speculative decoding: auto, off, or the most tokens of a draft; texts are the same [default: auto]
    #[arg(long, value_name = "auto|off|N")]
    pub(crate) speculation: Option<String>,
    /// Chat template to use instead of the models' own (a Jinja file)
    #[arg(long, alias = "chat-template-file", value_name = "FILE")]
    pub(crate) chat_template: Option<PathBuf>,
    /// Tokenizer to use instead of the models' own
    #[arg(long, value_name = "FILE")]
    pub(crate) tokenizer: Option<PathBuf>,
}

#[derive(Debug, Args)]
#[command(next_help_heading = "Access")]
pub(crate) struct AccessArgs {
    /// Keys of which clients must send one, between commas
    #[arg(long, value_name = "KEYS", value_delimiter = ',')]
    pub(crate) api_key: Vec<String>,
    /// File with keys, one a line
    #[arg(long, value_name = "FILE")]
    pub(crate) api_key_file: Option<PathBuf>,
    /// Origins whose pages may use the server from a browser, between commas; * for all [default: its own page]
    #[arg(long, value_name = "ORIGINS", value_delimiter = ',')]
    pub(crate) cors_origin: Vec<String>,
    /// Let clients choose with the header X-Priority, -100 to 100, whose requests go first; others wait and make room
    #[arg(long)]
    pub(crate) priorities: bool,
    /// Answer 404 to names of models that are not served, also where there is one model only
    #[arg(long)]
    pub(crate) strict_models: bool,
}

#[derive(Debug, Args)]
#[command(next_help_heading = "Limits")]
pub(crate) struct LimitArgs {
    /// Requests that may wait, each model; more are refused [default: 256]
    #[arg(long, value_name = "N")]
    pub(crate) queue: Option<usize>,
    /// Status of refused requests: 503 or 429 [default: 503]
    #[arg(long, value_name = "STATUS")]
    pub(crate) overload: Option<u16>,
    /// Seconds that a request may take altogether [default: 600]
    #[arg(long, visible_alias = "to", value_name = "SECONDS")]
    pub(crate) timeout: Option<u64>,
    /// Bytes of a request's body, such as 32MB [default: 32MB]
    #[arg(long, value_name = "SIZE")]
    pub(crate) body_limit: Option<String>,
    /// Seconds for the head of a request, and between requests of a connection [default: 30]
    #[arg(long, value_name = "SECONDS")]
    pub(crate) header_timeout: Option<u64>,
    /// Seconds for the body of a request [default: 60]
    #[arg(long, value_name = "SECONDS")]
    pub(crate) body_timeout: Option<u64>,
    /// Seconds that a client may leave unread what was sent to it [default: 60]
    #[arg(long, value_name = "SECONDS")]
    pub(crate) write_timeout: Option<u64>,
    /// Seconds that running requests have when the server is to end [default: 30]
    #[arg(long, value_name = "SECONDS")]
    pub(crate) shutdown_timeout: Option<u64>,
    /// Connections at a time; more wait [default: 1024]
    #[arg(long, value_name = "N")]
    pub(crate) max_connections: Option<usize>,
}

#[derive(Debug, Args)]
#[command(next_help_heading = "Parts and logs")]
pub(crate) struct PartArgs {
    /// Serve no chat page
    #[arg(long)]
    pub(crate) no_webui: bool,
    /// Serve /metrics (it is unless a file or the environment says otherwise)
    #[arg(long, overrides_with = "no_metrics")]
    pub(crate) metrics: bool,
    /// Do not serve /metrics
    #[arg(long, overrides_with = "metrics")]
    pub(crate) no_metrics: bool,
    /// Serve /slots (it is unless a file or the environment says otherwise)
    #[arg(long, overrides_with = "no_slots")]
    pub(crate) slots: bool,
    /// Do not serve /slots, which tells what is being answered
    #[arg(long, overrides_with = "slots", action = ArgAction::SetTrue)]
    pub(crate) no_slots: bool,
    /// What is logged: error, warn, info, debug, trace, off, or filters [default: info]
    #[arg(long, value_name = "LEVEL")]
    pub(crate) log_level: Option<String>,
    /// Send traces there by OTLP over gRPC, as http://localhost:4317 (builds with the feature otel)
    #[arg(long, value_name = "URL")]
    pub(crate) otel_endpoint: Option<String>,
}

impl ServeArgs {
    /// The log level that -v and -q stand for, if none is set by its name.
    pub(crate) fn log_level(&self, global: GlobalArgs) -> Option<String> {
        let by_name = self.parts.log_level.clone();
        let short = match (global.verbose, global.quiet) {
            (true, _) => Some("debug"),
            (_, true) => Some("error"),
            _ => None,
        };
        by_name.or(short.map(str::to_owned))
    }
}
