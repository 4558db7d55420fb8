//! [`HubConfig`]: where models come from and go to, as the variables of `huggingface_hub` say.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::url::Origin;
use crate::{HubError, Result};

const ENDPOINT: &str = "https://huggingface.co";

/// A token, which shows up in no message and no debug output.
#[derive(Clone, PartialEq, Eq)]
pub struct Token(String);

impl Token {
    /// Takes a token; blanks and line breaks around it do not matter.
    ///
    /// # Errors
    /// [`HubError::Config`] if it cannot be one. `name` is the flag, variable or file it comes from.
    pub fn new(text: &str, name: &'static str) -> Result<Self> {
        let text = text.trim();
        if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_graphic()) {
            let why = "a token is a word of ASCII letters and digits".to_owned();
            return Err(HubError::Config { name, why });
        }
        Ok(Self(text.to_owned()))
    }

    /// The value of the header `Authorization`.
    pub(crate) fn header(&self) -> String {
        format!("Bearer {}", self.0)
    }
}

impl std::fmt::Debug for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Token(hidden)")
    }
}

/// Where, with which token and how patiently models are fetched.
#[derive(Debug, Clone)]
pub struct HubConfig {
    /// Address of the Hub without a slash at the end.
    pub endpoint: String,
    /// Folder of the cache.
    pub cache: PathBuf,
    /// The token, sent to `endpoint` only.
    pub token: Option<Token>,
    /// The file that a token is stored in, whether it is there or not.
    pub token_file: Option<PathBuf>,
    /// Whether the network must not be used.
    pub offline: bool,
    /// Whether snapshots may be symbolic links; without them they are files of their own.
    pub symlinks: bool,
    /// Files fetched at the same time.
    pub connections: usize,
    /// Longest time to connect.
    pub connect_timeout: Duration,
    /// Longest time without a byte.
    pub stall_timeout: Duration,
    /// Attempts after the first without progress in between.
    pub retries: u32,
    /// Pause before the first further attempt; it doubles each time.
    pub first_pause: Duration,
    /// Certificates in PEM to trust instead of Mozilla's.
    pub certificates: Option<PathBuf>,
}

impl HubConfig {
    /// Reads `HF_HOME`, `HF_HUB_CACHE`, `HF_ENDPOINT`, `HF_TOKEN`, `HF_TOKEN_PATH`, `HF_HUB_OFFLINE` and what else
    /// `huggingface_hub` reads, and the token that it stored.
    ///
    /// # Errors
    /// [`HubError::Config`] if an address, a folder or a token cannot be used.
    pub fn from_env() -> Result<Self> {
        Self::from_vars(&|name| std::env::var_os(name))
    }

    /// As [`from_env`](Self::from_env), with variables from elsewhere.
    ///
    /// # Errors
    /// As [`from_env`](Self::from_env).
    pub fn from_vars(get: &dyn Fn(&str) -> Option<OsString>) -> Result<Self> {
        let vars = Vars(get);
        let home = vars.hub_home();
        let cache = vars
            .path("HF_HUB_CACHE")
            .or_else(|| vars.path("HUGGINGFACE_HUB_CACHE"))
            .or_else(|| home.as_ref().map(|home| home.join("hub")))
            .ok_or_else(|| HubError::Config {
                name: "HF_HOME",
                why: "neither it nor HOME is set; set one of them".to_owned(),
            })?;
        let endpoint = vars.text("HF_ENDPOINT").unwrap_or_else(|| ENDPOINT.to_owned());
        Self {
            endpoint: endpoint.trim().trim_end_matches('/').to_owned(),
            cache,
            token: if vars.flag("HF_HUB_DISABLE_IMPLICIT_TOKEN") {
                None
            } else {
                vars.token(home.as_deref())?
            },
            token_file: vars.token_file(home.as_deref()),
            offline: vars.flag("HF_HUB_OFFLINE") || vars.flag("TRANSFORMERS_OFFLINE"),
            symlinks: !vars.flag("HF_HUB_DISABLE_SYMLINKS"),
            connections: 4,
            connect_timeout: vars.seconds("HF_HUB_ETAG_TIMEOUT").unwrap_or(Duration::from_secs(10)),
            stall_timeout: vars.seconds("HF_HUB_DOWNLOAD_TIMEOUT").unwrap_or(Duration::from_secs(30)),
            retries: 5,
            first_pause: Duration::from_millis(500),
            certificates: vars.path("SSL_CERT_FILE").or_else(|| vars.path("REQUESTS_CA_BUNDLE")),
        }
        .checked()
    }

    /// Checks what nothing else does.
    fn checked(self) -> Result<Self> {
        if Origin::of(&self.endpoint).is_none() {
            let why = format!("{:?} is no address that begins with http:// or https://", self.endpoint);
            return Err(HubError::Config { name: "HF_ENDPOINT", why });
        }
        Ok(self)
    }

    /// The host of the endpoint, for people.
    pub(crate) fn server(&self) -> String {
        Origin::of(&self.endpoint).map_or_else(|| self.endpoint.clone(), |origin| origin.host())
    }
}

/// Variables, however they are looked up.
struct Vars<'a>(&'a dyn Fn(&str) -> Option<OsString>);

impl Vars<'_> {
    /// The value, if it is set and not empty.
    fn text(&self, name: &str) -> Option<String> {
        let value = (self.0)(name)?.into_string().ok()?;
        (!value.trim().is_empty()).then_some(value)
    }

    /// What Python's library takes for yes.
    fn flag(&self, name: &str) -> bool {
        let value = self.text(name).unwrap_or_default().trim().to_ascii_uppercase();
        matches!(value.as_str(), "1" | "ON" | "YES" | "TRUE")
    }

    fn seconds(&self, name: &str) -> Option<Duration> {
        let seconds: u64 = self.text(name)?.trim().parse().ok()?;
        (1..=86_400).contains(&seconds).then(|| Duration::from_secs(seconds))
    }

    /// A path with `~` and `$NAME` replaced.
    fn path(&self, name: &str) -> Option<PathBuf> {
        let raw = (self.0)(name).filter(|value| !value.is_empty())?;
        let Some(text) = raw.to_str() else { return Some(raw.into()) };
        Some(self.expand(text))
    }

    fn home(&self) -> Option<PathBuf> {
        let name = if cfg!(windows) { "USERPROFILE" } else { "HOME" };
        (self.0)(name).filter(|value| !value.is_empty()).map(PathBuf::from)
    }

    fn hub_home(&self) -> Option<PathBuf> {
        self.path("HF_HOME").or_else(|| {
            let caches = self.path("XDG_CACHE_HOME").or_else(|| Some(self.home()?.join(".cache")))?;
            Some(caches.join("huggingface"))
        })
    }

    fn expand(&self, text: &str) -> PathBuf {
        let mut out = String::new();
        let mut rest = text;
        while let Some(at) = rest.find('$') {
            out += &rest[..at];
            let tail = &rest[at + 1..];
            let (name, after) = match tail.strip_prefix('{').and_then(|inner| inner.split_once('}')) {
                Some(braced) => braced,
                None => {
                    let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
                    tail.split_at(tail.find(|c| !is_name(c)).unwrap_or(tail.len()))
                }
            };
            match (self.0)(name).and_then(|value| value.into_string().ok()) {
                Some(value) if !name.is_empty() => out += &value,
                // As in Python: what is not set stays as it was written.
                _ => out += &rest[at..rest.len() - after.len()],
            }
            rest = after;
        }
        out += rest;
        match (out.strip_prefix('~'), self.home()) {
            (Some(""), Some(home)) => home,
            (Some(below), Some(home)) if below.starts_with(['/', '\\']) => home.join(&below[1..]),
            _ => out.into(),
        }
    }

    fn token_file(&self, home: Option<&Path>) -> Option<PathBuf> {
        self.path("HF_TOKEN_PATH").or_else(|| Some(home?.join("token")))
    }

    /// The token of the variable, else the stored one.
    fn token(&self, home: Option<&Path>) -> Result<Option<Token>> {
        for name in ["HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"] {
            if let Some(text) = self.text(name) {
                return Token::new(&text, name).map(Some);
            }
        }
        let Some(path) = self.token_file(home) else { return Ok(None) };
        match std::fs::read_to_string(&path) {
            Ok(text) if text.trim().is_empty() => Ok(None),
            Ok(text) => Token::new(&text, "the stored token").map(Some),
            // Not there, or not for us: public models need none, and a refusal will say that a token is missing.
            Err(_) => Ok(None),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(vars: &[(&str, &str)]) -> Result<HubConfig> {
        HubConfig::from_vars(&|name| {
            vars.iter().find(|(key, _)| *key == name).map(|(_, value)| OsString::from(value))
        })
    }

    #[test]
    fn the_cache_is_where_python_has_it() {
        let cache = |vars: &[(&str, &str)]| config(vars).unwrap().cache;
        let home = ("HOME", "/home/u");
        if cfg!(unix) {
            assert_eq!(cache(&[home]), Path::new("/home/u/.cache/huggingface/hub"));
            assert_eq!(cache(&[home, ("XDG_CACHE_HOME", "/c")]), Path::new("/c/huggingface/hub"));
            assert_eq!(cache(&[home, ("HF_HOME", "~/hf")]), Path::new("/home/u/hf/hub"));
            assert_eq!(
                cache(&[home, ("HF_HOME", "$HOME/${D}x/$NONE"), ("D", "d")]),
                Path::new("/home/u/dx/$NONE/hub")
            );
            assert_eq!(cache(&[home, ("HF_HOME", "/h"), ("HUGGINGFACE_HUB_CACHE", "/o")]), Path::new("/o"));
            let both = [("HF_HUB_CACHE", "/n"), ("HUGGINGFACE_HUB_CACHE", "/o")];
            assert_eq!(cache(&both), Path::new("/n"));
        }
        assert!(config(&[]).is_err());
    }

    #[test]
    fn flags_and_times_are_read_as_python_does() {
        let offline = |name, value| config(&[("HF_HOME", "/h"), (name, value)]).unwrap().offline;
        assert!(
            offline("HF_HUB_OFFLINE", "1")
                && offline("HF_HUB_OFFLINE", "true")
                && offline("TRANSFORMERS_OFFLINE", "YES")
        );
        assert!(!offline("HF_HUB_OFFLINE", "0") && !offline("HF_HUB_OFFLINE", ""));
        let config =
            config(&[("HF_HOME", "/h"), ("HF_HUB_DOWNLOAD_TIMEOUT", "7"), ("HF_ENDPOINT", "http://m/ ")])
                .unwrap();
        assert_eq!((config.stall_timeout, config.endpoint.as_str()), (Duration::from_secs(7), "http://m"));
    }

    #[test]
    fn tokens_come_from_the_variable_then_the_file_and_stay_hidden() {
        let dir = tempfile::tempdir().unwrap();
        let home = dir.path().to_str().unwrap();
        std::fs::write(dir.path().join("token"), "hf_stored\n").unwrap();
        std::fs::write(dir.path().join("other"), "hf_other").unwrap();
        let other = dir.path().join("other");
        let token = |vars: &[(&str, &str)]| {
            config(&[&[("HF_HOME", home)], vars].concat()).unwrap().token.map(|token| token.header())
        };
        assert_eq!(token(&[]).as_deref(), Some("Bearer hf_stored"));
        assert_eq!(token(&[("HF_TOKEN", " hf_env\n")]).as_deref(), Some("Bearer hf_env"));
        assert_eq!(token(&[("HF_TOKEN_PATH", other.to_str().unwrap())]).as_deref(), Some("Bearer hf_other"));
        assert_eq!(token(&[("HF_HUB_DISABLE_IMPLICIT_TOKEN", "1")]), None);
        let config = config(&[("HF_HOME", home), ("HF_TOKEN", "hf_secret")]).unwrap();
        assert!(!format!("{config:?}").contains("hf_secret"));
    }

    #[test]
    fn what_cannot_be_used_is_refused_without_being_shown() {
        let error = config(&[("HF_HOME", "/h"), ("HF_TOKEN", "hf_a b")]).unwrap_err().to_string();
        assert!(error.contains("HF_TOKEN") && !error.contains("hf_a"), "{error}");
        let error = config(&[("HF_HOME", "/h"), ("HF_ENDPOINT", "hub.co")]).unwrap_err().to_string();
        assert!(error.contains("HF_ENDPOINT") && error.contains("hub.co"), "{error}");
    }
}
