//! [`ServerConfig`]: everything that can be set about a server.
//!
//! Flags come before environment variables, these before a TOML file, this before defaults; [`sources`] puts them together
//! and [`keys`] says how each setting is called where. A program that embeds the server fills in the struct.

pub mod keys;
mod show;
mod size;
pub mod sources;

use std::path::PathBuf;
use std::time::Duration;

use bitnet_inference::scheduler::{SchedulerOptions, Speculation};
use bitnet_inference::{Device, Form, KvType, OnDeviceFailure};
use serde::{Deserialize, Serialize};

pub use self::size::Size;
pub use self::sources::{ConfigError, ConfigSources, Effective, Section};

/// A model to serve.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModelConfig {
    /// Name in requests; else the name of file or folder, or that on the Hub.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Folder or file, or a name on the Hub that is in the cache. None: the bundled model.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
}

/// How ternary weights are kept in memory; the text is the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum WeightForm {
    /// Two bits a trit. They unpack faster for several requests at a time.
    #[default]
    #[serde(rename = "2bit")]
    TwoBit,
    /// Five trits a byte: a fifth less memory.
    #[serde(rename = "1.6bit")]
    FiveTrits,
    /// Whichever a measurement finds faster for a single request.
    #[serde(rename = "auto")]
    Auto,
}

impl WeightForm {
    /// What the engine's builder takes.
    pub(crate) fn form(self) -> Option<Form> {
        match self {
            Self::TwoBit => Some(Form::TwoBit),
            Self::FiveTrits => Some(Form::FiveTrits),
            Self::Auto => None,
        }
    }
}

/// Form of log lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One object a line.
    Json,
}

/// Everything that can be set. Times are in seconds.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[non_exhaustive]
pub struct ServerConfig {
    /// Address or name to listen on.
    pub host: String,
    /// Port to listen on; 0: any that is free.
    pub port: u16,
    /// Socket in the file system to listen on instead.
    pub unix_socket: Option<PathBuf>,
    /// Models; the first answers requests that name none. Empty: the bundled model.
    pub models: Vec<ModelConfig>,
    /// Further names of the first model; it is shown under the first of these.
    pub alias: Vec<String>,
    /// A folder whose models are served as well, each loaded when it is first asked for.
    pub models_dir: Option<PathBuf>,
    /// Whether a name that is not served is an error also where there is only one model.
    pub strict_models: bool,
    /// Memory for weights, keys and values of all models; None: that of the machine.
    pub memory_budget: Option<Size>,
    /// After how long without a request a model is unloaded; 0: never.
    pub keep_alive: u64,
    /// Most tokens of prompt and answer; None: what each model was made for.
    pub ctx_size: Option<usize>,
    /// Threads that compute, each model; None: one for each core.
    pub threads: Option<usize>,
    /// Device that models run on: `auto`, `cpu`, `cuda`, `cuda:1`, `vulkan`, `metal`, `dx12`, `mlx`.
    #[serde(with = "size::named")]
    pub device: Device,
    /// Most memory of a GPU for each model; None: nearly all that is free.
    pub gpu_memory: Option<Size>,
    /// What happens when a GPU fails: `cpu` goes on with the processor, `fail` ends requests with an error.
    #[serde(with = "size::named")]
    pub on_device_error: OnDeviceFailure,
    /// Kernel set; None: the fastest.
    pub kernels: Option<String>,
    /// How ternary weights are kept; the text is the same.
    pub weight_form: WeightForm,
    /// How keys and values are kept: `f32`, `f16` or `int8`.
    #[serde(with = "size::named")]
    pub kv_type: KvType,
    /// Memory for keys and values of each model; None: the engine's choice.
    pub kv_budget: Option<Size>,
    /// Requests that are computed together, each model.
    pub parallel: usize,
    /// Requests that may wait, each model.
    pub queue: usize,
    /// Status of a request that finds the queue full: 503 or 429.
    pub overload: u16,
    /// Whether the header `x-priority` of requests counts: higher numbers go first.
    pub priorities: bool,
    /// Tokens of prompts computed in one step beside running requests; None: the engine's choice.
    pub prefill_chunk: Option<usize>,
    /// Whether prompts that begin alike share what was computed.
    pub prefix_cache: bool,
    /// Speculative decoding: `auto`, `off`, or the most tokens of a draft.
    pub speculation: String,
    /// A Jinja file to use instead of the models' own chat template.
    pub chat_template: Option<PathBuf>,
    /// A tokenizer to use instead of the models' own.
    pub tokenizer: Option<PathBuf>,
    /// Most time of one request, from its arrival to its last token.
    pub timeout: u64,
    /// Most bytes of a request's body.
    pub body_limit: Size,
    /// Most time for the head of a request, and between requests on one connection.
    pub header_timeout: u64,
    /// Most time for the body of a request.
    pub body_timeout: u64,
    /// Most time that a client may leave what was sent to it unread.
    pub write_timeout: u64,
    /// Most time that ending takes: requests that run longer are cancelled.
    pub shutdown_timeout: u64,
    /// Connections at a time; more wait.
    pub max_connections: usize,
    /// Keys of which clients must send one. Empty: none is needed.
    pub api_key: Vec<String>,
    /// A file with keys, one a line.
    pub api_key_file: Option<PathBuf>,
    /// Origins whose pages may use the server from a browser; `*`: all.
    pub cors_origin: Vec<String>,
    /// Certificate chain (PEM) for TLS.
    pub tls_cert: Option<PathBuf>,
    /// Private key (PEM) for TLS.
    pub tls_key: Option<PathBuf>,
    /// Whether the chat page is served at `/`.
    pub webui: bool,
    /// Whether `/metrics` is served.
    pub metrics: bool,
    /// Whether `/slots` is served.
    pub slots: bool,
    /// Form of log lines.
    pub log_format: LogFormat,
    /// What is logged: `error`, `warn`, `info`, `debug`, `trace`, `off`, or filters like `bitnet_server=debug`.
    pub log_level: String,
    /// Where traces go by OTLP over gRPC, as `http://localhost:4317`; needs the feature `otel`.
    pub otel_endpoint: Option<String>,
}

impl Default for ServerConfig {
    fn default() -> Self {
        Self {
            host: "127.0.0.1".to_owned(),
            port: 8080,
            unix_socket: None,
            models: Vec::new(),
            alias: Vec::new(),
            models_dir: None,
            strict_models: false,
            memory_budget: None,
            keep_alive: 0,
            ctx_size: None,
            threads: None,
            device: Device::default(),
            gpu_memory: None,
            on_device_error: OnDeviceFailure::default(),
            kernels: None,
            weight_form: WeightForm::default(),
            kv_type: KvType::default(),
            kv_budget: None,
            parallel: 64,
            queue: 256,
            overload: 503,
            priorities: false,
            prefill_chunk: None,
            prefix_cache: true,
            speculation: "auto".to_owned(),
            chat_template: None,
            tokenizer: None,
            timeout: 600,
            body_limit: Size::mib(32),
            header_timeout: 30,
            body_timeout: 60,
            write_timeout: 60,
            shutdown_timeout: 30,
            max_connections: 1024,
            api_key: Vec::new(),
            api_key_file: None,
            cors_origin: Vec::new(),
            tls_cert: None,
            tls_key: None,
            webui: true,
            metrics: true,
            slots: true,
            log_format: LogFormat::default(),
            log_level: "info".to_owned(),
            otel_endpoint: None,
        }
    }
}

impl ServerConfig {
    /// Most time of one request.
    pub fn timeout(&self) -> Duration {
        Duration::from_secs(self.timeout)
    }

    /// Most time for the body of a request.
    pub fn body_timeout(&self) -> Duration {
        Duration::from_secs(self.body_timeout)
    }

    /// Checks what types cannot.
    ///
    /// # Errors
    /// [`ConfigError::Value`] with the setting, its value and what it may be.
    pub fn check(&self) -> Result<(), ConfigError> {
        let wrong = |key: &'static str, value: String, allowed: &'static str| {
            Err(ConfigError::Value { key, value, allowed })
        };
        let counts = [
            ("ctx_size", self.ctx_size),
            ("threads", self.threads),
            ("prefill_chunk", self.prefill_chunk),
            ("parallel", Some(self.parallel)),
            ("queue", Some(self.queue)),
            ("max_connections", Some(self.max_connections)),
        ];
        for (key, value) in counts {
            let most = if key == "ctx_size" { u32::MAX as usize } else { 1 << 16 };
            if let Some(value) = value
                && (value == 0 || value > most)
            {
                return wrong(key, value.to_string(), "at least 1 and at most 65536 (ctx_size: 2^32)");
            }
        }
        let times = [
            ("timeout", self.timeout),
            ("header_timeout", self.header_timeout),
            ("body_timeout", self.body_timeout),
            ("write_timeout", self.write_timeout),
        ];
        for (key, value) in times {
            if value == 0 || value > 86_400 * 365 {
                return wrong(key, value.to_string(), "a number of seconds, at least 1 and at most a year");
            }
        }
        if self.body_limit.as_bytes() < 1024 {
            return wrong("body_limit", self.body_limit.to_string(), "at least 1KB");
        }
        if !matches!(self.overload, 429 | 503) {
            return wrong("overload", self.overload.to_string(), "503 or 429");
        }
        if self.tls_cert.is_some() != self.tls_key.is_some() {
            let key = if self.tls_cert.is_some() { "tls_key" } else { "tls_cert" };
            return wrong(key, "missing".to_owned(), "given together with the other: TLS needs both");
        }
        if self.tls_cert.is_some() && self.unix_socket.is_some() {
            return wrong("tls_cert", "set".to_owned(), "left out beside unix_socket");
        }
        if self.api_key.iter().any(|key| key.trim().is_empty()) {
            return wrong("api_key", "\"\"".to_owned(), "a key that is not empty");
        }
        if self.drafts().is_none() {
            return wrong(
                "speculation",
                format!("{:?}", self.speculation),
                "auto, off, or a number from 1 to 64",
            );
        }
        for (at, model) in self.models.iter().enumerate() {
            let taken =
                self.models[..at].iter().any(|other| other.name.is_some() && other.name == model.name);
            if taken {
                let name = model.name.clone().unwrap_or_default();
                return wrong("models", format!("two of the name {name:?}"), "models of different names");
            }
        }
        Ok(())
    }

    /// What the engines' schedulers are told.
    pub(crate) fn scheduler(&self) -> SchedulerOptions {
        SchedulerOptions {
            max_running: self.parallel,
            queue_capacity: self.queue,
            prefill_chunk: self.prefill_chunk,
            kv_budget: self.kv_budget.map(|size| size.0),
            prefix_cache: self.prefix_cache,
            speculation: self.drafts().unwrap_or_default(),
        }
    }

    /// The setting `speculation`, if it is one.
    fn drafts(&self) -> Option<Speculation> {
        match self.speculation.as_str() {
            "auto" => Some(Speculation::Auto),
            "off" | "0" => Some(Speculation::Off),
            text => text.parse().ok().filter(|n| (1..=64).contains(n)).map(Speculation::Always),
        }
    }
}
