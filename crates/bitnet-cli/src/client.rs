//! [`Client`]: asks servers that run, over their own API.

use std::path::PathBuf;
use std::time::Duration;

use serde_json::Value;
use ureq::Agent;
use ureq::http::Request;

use crate::args::ClientArgs;
use crate::error::CliError;
use crate::nearest::nearest;
use crate::running;
use crate::{config, folders};

/// Where a server listens that nobody told anything else.
const DEFAULT_URL: &str = "http://127.0.0.1:8080";
/// Longest time to connect.
const CONNECT: Duration = Duration::from_secs(5);
/// Longest time of one request: unloading a large model takes a while.
const REQUEST: Duration = Duration::from_secs(60);

/// What an address begins with that is a socket in the file system.
const UNIX: &str = "unix:";

/// A server.
#[derive(Debug)]
pub(crate) struct Client {
    /// Where it is, without a slash at the end; `unix:` and a path for a socket in the file system.
    pub(crate) url: String,
    /// What requests begin with.
    base: String,
    agent: Agent,
    key: Option<String>,
}

/// The servers that are meant: the one of `--url`, else of the environment, else those that run on this machine, else where
/// one would listen.
///
/// # Errors
/// If an address cannot be asked.
pub(crate) fn clients(args: &ClientArgs) -> Result<Vec<Client>, CliError> {
    addresses(args)?.iter().map(|url| Client::new(url, args)).collect()
}

/// The one server that is meant.
///
/// # Errors
/// If several run; as [`clients`].
pub(crate) fn only_client(args: &ClientArgs) -> Result<Client, CliError> {
    let urls = addresses(args)?;
    match <[String; 1]>::try_from(urls) {
        Ok([url]) => Client::new(&url, args),
        Err(urls) => Err(several(&urls)),
    }
}

/// The error of a question that several servers could answer.
pub(crate) fn several(urls: &[String]) -> CliError {
    let error = CliError::usage(format!("{} servers run on this machine: {}", urls.len(), urls.join(", ")));
    error.hint("say which one with --url")
}

/// The address that flag or environment give, if they do.
pub(crate) fn given(args: &ClientArgs) -> Result<Option<String>, CliError> {
    let variable = |name: &str| std::env::var(name).ok().filter(|value| !value.trim().is_empty());
    if let Some(url) = &args.url {
        return address(url, None).map(Some);
    }
    // A server that has a socket does not listen at the port.
    if let Some(path) = variable("BITNET_UNIX_SOCKET") {
        return socket(&path).map(Some);
    }
    // Port 0 tells a server to take any.
    let port = variable("BITNET_PORT").filter(|port| port.trim() != "0");
    match (variable("BITNET_HOST"), port) {
        (None, None) => Ok(None),
        (host, port) => address(&host.unwrap_or_else(|| "127.0.0.1".to_owned()), port.as_deref()).map(Some),
    }
}

fn addresses(args: &ClientArgs) -> Result<Vec<String>, CliError> {
    if let Some(url) = given(args)? {
        return Ok(vec![url]);
    }
    let running: Vec<String> = running::servers().into_iter().map(|server| server.url).collect();
    if running.is_empty() { Ok(vec![configured()?]) } else { Ok(running) }
}

/// Where the configuration file has a server listen.
fn configured() -> Result<String, CliError> {
    let values = config::current().section().map(|section| section.values).unwrap_or_default();
    if let Some(path) = values.get("unix_socket").and_then(Value::as_str) {
        return socket(path);
    }
    let (host, port) = (values.get("host").and_then(Value::as_str), values.get("port").map(Value::to_string));
    match (host, port) {
        (None, None) => Ok(DEFAULT_URL.to_owned()),
        (host, port) => address(host.unwrap_or("127.0.0.1"), port.as_deref()),
    }
}

/// An address as people write it: a URL, `host:port`, a host. What listens everywhere is asked here.
fn address(text: &str, port: Option<&str>) -> Result<String, CliError> {
    let text = text.trim().trim_end_matches('/');
    if let Some(path) = text.strip_prefix(UNIX) {
        // Some write it as a URL, with two slashes before the path.
        return socket(path.strip_prefix("//").unwrap_or(path));
    }
    let (scheme, rest) = text.split_once("://").unwrap_or(("http", text));
    if !matches!(scheme, "http" | "https") || rest.is_empty() || rest.ends_with(':') {
        return Err(CliError::usage(format!(
            "{text:?} is no address of a server; it begins with http://, https:// or unix:"
        )));
    }
    // Of an address of IPv6 the colons are no port.
    let is_v6 = rest.parse::<std::net::Ipv6Addr>().is_ok();
    let rest = if is_v6 { format!("[{rest}]") } else { rest.to_owned() };
    let has_port = rest
        .rsplit_once(':')
        .is_some_and(|(_, port)| !port.is_empty() && port.bytes().all(|b| b.is_ascii_digit()));
    let rest = match (has_port, text.contains("://"), port) {
        (true, ..) | (false, true, None) => rest,
        (false, _, Some(port)) => format!("{rest}:{port}"),
        (false, false, None) => format!("{rest}:8080"),
    };
    let rest = rest.replacen("0.0.0.0", "127.0.0.1", 1).replacen("[::]", "[::1]", 1);
    Ok(format!("{scheme}://{rest}"))
}

/// The address of a socket in the file system, with its whole path, as servers tell it.
fn socket(path: &str) -> Result<String, CliError> {
    let path = path.trim();
    let whole = std::path::absolute(path)
        .map_err(|_| CliError::usage(format!("{UNIX}{path} is no socket in the file system")))?;
    if cfg!(unix) {
        Ok(format!("{UNIX}{}", whole.display()))
    } else {
        Err(CliError::failed(format!(
            "{UNIX}{path}: sockets in the file system cannot be asked on this system"
        )))
    }
}

/// Asks over the network, or through a socket in the file system.
#[cfg(unix)]
fn agent(config: ureq::config::Config, url: &str) -> Agent {
    match url.strip_prefix(UNIX) {
        Some(path) => crate::unix_socket::agent(config, std::path::Path::new(path)),
        None => config.new_agent(),
    }
}

#[cfg(not(unix))]
fn agent(config: ureq::config::Config, _url: &str) -> Agent {
    config.new_agent()
}

impl Client {
    fn new(url: &str, args: &ClientArgs) -> Result<Self, CliError> {
        let url = address(url, None)?;
        let certificates =
            folders::environment("SSL_CERT_FILE").filter(|path| !path.is_empty()).map(PathBuf::from);
        let config = Agent::config_builder()
            .http_status_as_error(false)
            .timeout_connect(Some(CONNECT))
            .timeout_global(Some(REQUEST))
            .tls_config(bitnet_hub::tls_config(certificates.as_deref())?)
            // A server of this machine or network is not behind a proxy.
            .proxy(None)
            .build();
        let keys = args.api_key.clone().or_else(|| std::env::var("BITNET_API_KEY").ok());
        // A server takes several; one is enough to be let in.
        let key = keys
            .and_then(|keys| keys.split(',').map(str::trim).find(|key| !key.is_empty()).map(str::to_owned));
        let base = if url.starts_with(UNIX) { "http://localhost".to_owned() } else { url.clone() };
        Ok(Self { agent: agent(config, &url), base, url, key })
    }

    /// What the server tells of itself and its models.
    ///
    /// # Errors
    /// If there is no answer, or no good one.
    pub(crate) fn status(&self) -> Result<Value, CliError> {
        let status = self.ask("GET", "/models/status", None)?;
        if status["models"].is_array() { Ok(status) } else { Err(self.other()) }
    }

    /// Unloads a model.
    ///
    /// # Errors
    /// If there is no such model, or it is in use; as [`status`](Self::status).
    pub(crate) fn unload(&self, model: &str) -> Result<(), CliError> {
        let body = serde_json::json!({"model": model}).to_string();
        self.ask("POST", "/models/unload", Some(body)).map(drop)
    }

    fn ask(&self, method: &str, path: &str, body: Option<String>) -> Result<Value, CliError> {
        let mut request = Request::builder().method(method).uri(format!("{}{path}", self.base));
        request = request.header("content-type", "application/json");
        if let Some(key) = &self.key {
            request = request.header("authorization", format!("Bearer {key}"));
        }
        let wrong =
            |error: &dyn std::fmt::Display| CliError::usage(format!("{} cannot be asked: {error}", self.url));
        let request = request.body(body.unwrap_or_default()).map_err(|error| wrong(&error))?;
        let mut response = self.agent.run(request).map_err(|error| self.unanswered(&error))?;
        let status = response.status().as_u16();
        let text = response.body_mut().read_to_string().map_err(|error| self.unanswered(&error))?;
        let answer: Value = serde_json::from_str(&text).unwrap_or_default();
        match (status, answer["error"]["message"].as_str()) {
            (200, _) => Ok(answer),
            (401, Some(message)) => {
                let error = CliError::failed(format!("{}: {message}", self.url));
                Err(error.hint("give the key with --api-key or BITNET_API_KEY"))
            }
            (_, Some(message)) if answer["error"]["code"] == "model_not_found" => {
                Err(CliError::failed(format!("{}: {message}", self.url)))
            }
            (404, _) | (_, None) => Err(self.other()),
            (_, Some(message)) => Err(CliError::failed(format!("{}: {message}", self.url))),
        }
    }

    fn unanswered(&self, error: &ureq::Error) -> CliError {
        let why = match error {
            ureq::Error::ConnectionFailed => "the connection is refused".to_owned(),
            ureq::Error::HostNotFound => "there is no such host".to_owned(),
            ureq::Error::Io(error) => error.to_string(),
            error => error.to_string(),
        };
        let error = CliError::failed(format!("no server answers at {}: {why}", self.url));
        error.hint("`bitnet serve` starts one; --url gives the address of another")
    }

    fn other(&self) -> CliError {
        CliError::failed(format!("what answers at {} is no server of bitnet", self.url))
    }
}

/// The name of a model that was perhaps meant.
pub(crate) fn nearest_model<'a>(status: &'a Value, given: &str) -> Option<&'a str> {
    let models = status["models"].as_array()?;
    nearest(given, models.iter().filter_map(|model| model["id"].as_str()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_as_people_write_them() {
        for (text, port, url) in [
            ("http://a:1/", None, "http://a:1"),
            ("https://a.example", None, "https://a.example"),
            ("a", None, "http://a:8080"),
            ("a:9", None, "http://a:9"),
            ("0.0.0.0", Some("7"), "http://127.0.0.1:7"),
            ("::1", Some("7"), "http://[::1]:7"),
            ("[::]:9", None, "http://[::1]:9"),
        ] {
            assert_eq!(address(text, port).unwrap(), url, "{text}");
        }
        for text in ["ftp://a", "http://", "", "unix:"] {
            assert!(address(text, None).is_err(), "{text}");
        }
    }

    #[cfg(unix)]
    #[test]
    fn sockets_are_told_by_their_whole_path() {
        for text in ["unix:/run/bitnet.sock", " unix:///run/bitnet.sock"] {
            assert_eq!(address(text, None).unwrap(), "unix:/run/bitnet.sock", "{text}");
        }
        let here = std::env::current_dir().unwrap();
        assert_eq!(address("unix:a.sock", None).unwrap(), format!("unix:{}", here.join("a.sock").display()));
    }
}
