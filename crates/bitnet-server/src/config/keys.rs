//! How each setting is called in files, in the environment and on the command line.

/// What a value of the environment is read as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// As it is.
    Text,
    /// A number.
    Number,
    /// `1`, `true`, `yes`, `on`, and their contraries.
    Switch,
    /// Texts between commas.
    List,
    /// Models between commas, each as `-m` takes it.
    Models,
}

/// A setting.
#[derive(Debug, Clone, Copy)]
pub struct Key {
    /// Its name in files, and the field of [`ServerConfig`](super::ServerConfig).
    pub name: &'static str,
    /// Its environment variable.
    pub env: &'static str,
    /// Its flag.
    pub flag: &'static str,
    pub(super) kind: Kind,
}

const fn key(name: &'static str, env: &'static str, flag: &'static str, kind: Kind) -> Key {
    Key { name, env, flag, kind }
}

/// All settings, in the order in which they are printed.
pub const KEYS: &[Key] = &[
    key("host", "BITNET_HOST", "--host", Kind::Text),
    key("port", "BITNET_PORT", "--port", Kind::Number),
    key("unix_socket", "BITNET_UNIX_SOCKET", "--unix-socket", Kind::Text),
    key("models", "BITNET_MODEL", "--model", Kind::Models),
    key("alias", "BITNET_ALIAS", "--alias", Kind::List),
    key("models_dir", "BITNET_MODELS_DIR", "--models-dir", Kind::Text),
    key("strict_models", "BITNET_STRICT_MODELS", "--strict-models", Kind::Switch),
    key("memory_budget", "BITNET_MEMORY_BUDGET", "--memory-budget", Kind::Text),
    key("keep_alive", "BITNET_KEEP_ALIVE", "--keep-alive", Kind::Number),
    key("ctx_size", "BITNET_CTX_SIZE", "--ctx-size", Kind::Number),
    key("threads", "BITNET_THREADS", "--threads", Kind::Number),
    key("device", "BITNET_DEVICE", "--device", Kind::Text),
    key("gpu_memory", "BITNET_GPU_MEMORY", "--gpu-memory", Kind::Text),
    key("on_device_error", "BITNET_ON_DEVICE_ERROR", "--on-device-error", Kind::Text),
    key("kernels", "BITNET_KERNELS", "--kernels", Kind::Text),
    key("weight_form", "BITNET_WEIGHT_FORM", "--weight-form", Kind::Text),
    key("kv_type", "BITNET_KV_TYPE", "--kv-type", Kind::Text),
    key("kv_budget", "BITNET_KV_BUDGET", "--kv-budget", Kind::Text),
    key("parallel", "BITNET_PARALLEL", "--parallel", Kind::Number),
    key("queue", "BITNET_QUEUE", "--queue", Kind::Number),
    key("overload", "BITNET_OVERLOAD", "--overload", Kind::Number),
    key("priorities", "BITNET_PRIORITIES", "--priorities", Kind::Switch),
    key("prefill_chunk", "BITNET_PREFILL_CHUNK", "--prefill-chunk", Kind::Number),
    key("prefix_cache", "BITNET_PREFIX_CACHE", "--no-prefix-cache", Kind::Switch),
    key("speculation", "BITNET_SPECULATION", "--speculation", Kind::Text),
    key("chat_template", "BITNET_CHAT_TEMPLATE", "--chat-template", Kind::Text),
    key("tokenizer", "BITNET_TOKENIZER", "--tokenizer", Kind::Text),
    key("timeout", "BITNET_TIMEOUT", "--timeout", Kind::Number),
    key("body_limit", "BITNET_BODY_LIMIT", "--body-limit", Kind::Text),
    key("header_timeout", "BITNET_HEADER_TIMEOUT", "--header-timeout", Kind::Number),
    key("body_timeout", "BITNET_BODY_TIMEOUT", "--body-timeout", Kind::Number),
    key("write_timeout", "BITNET_WRITE_TIMEOUT", "--write-timeout", Kind::Number),
    key("shutdown_timeout", "BITNET_SHUTDOWN_TIMEOUT", "--shutdown-timeout", Kind::Number),
    key("max_connections", "BITNET_MAX_CONNECTIONS", "--max-connections", Kind::Number),
    key("api_key", "BITNET_API_KEY", "--api-key", Kind::List),
    key("api_key_file", "BITNET_API_KEY_FILE", "--api-key-file", Kind::Text),
    key("cors_origin", "BITNET_CORS_ORIGIN", "--cors-origin", Kind::List),
    key("tls_cert", "BITNET_TLS_CERT", "--tls-cert", Kind::Text),
    key("tls_key", "BITNET_TLS_KEY", "--tls-key", Kind::Text),
    key("webui", "BITNET_WEBUI", "--no-webui", Kind::Switch),
    key("metrics", "BITNET_METRICS", "--metrics", Kind::Switch),
    key("slots", "BITNET_SLOTS", "--no-slots", Kind::Switch),
    key("log_format", "BITNET_LOG_FORMAT", "--log-format", Kind::Text),
    key("log_level", "BITNET_LOG_LEVEL", "--log-level", Kind::Text),
    key("otel_endpoint", "BITNET_OTEL_ENDPOINT", "--otel-endpoint", Kind::Text),
];

#[cfg(test)]
mod tests {
    use super::super::ServerConfig;
    use super::*;

    #[test]
    fn every_setting_has_a_key() {
        let value = serde_json::to_value(ServerConfig::default()).unwrap();
        let fields: Vec<&str> = value.as_object().unwrap().keys().map(String::as_str).collect();
        let keys: Vec<&str> = KEYS.iter().map(|key| key.name).collect();
        assert_eq!(fields, keys);
    }
}
