//! [`Settings`]: what a person set once and for all, in one TOML file.
//!
//! ```text
//! model = "org/name"         flags of the commands that run models
//! [sampling] temp = 0.7
//! [hub] cache = "/large/hub" where models come from and go to
//! [server] port = 9000       `bitnet serve`
//! ```
//!
//! A setting is a flag with an environment variable `BITNET_*`: the file gives the flag its default ([`Settings::apply`]), so
//! that flags come before the environment, and that before the file. [`keys`] knows all settings, [`check`] reads
//! values as the flags do, [`edit`] changes the file and keeps its comments.

mod check;
mod edit;
pub(crate) mod keys;
mod read;

use std::ffi::OsString;
use std::path::PathBuf;
use std::sync::OnceLock;

use bitnet_server::config::Section;
use clap::{Arg, Command};
use serde_json::{Map, Value, json};

pub(crate) use check::check;
pub(crate) use edit::{TEMPLATE, edited};
pub(crate) use read::unknown;

use crate::folders::{self, Lookup};

/// The variable that names the file; empty for none.
pub(crate) const VARIABLE: &str = "BITNET_CONFIG";

/// The one setting of the Hub that is true or false.
const HUB_SWITCH: &str = "hub.offline";

/// Settings outside `[server]` that a server obeys as well, where `[server]` says nothing else.
const SHARED: [&str; 9] = [
    "threads",
    "device",
    "gpu_memory",
    "on_device_error",
    "kernels",
    "ctx_size",
    "weight_form",
    "kv_type",
    "log_format",
];

static CURRENT: OnceLock<Settings> = OnceLock::new();

/// The settings of a file.
#[derive(Debug, Clone, Default)]
pub(crate) struct Settings {
    /// The file; none if there is none.
    pub(crate) path: Option<PathBuf>,
    /// What stands outside `[server]`, by name with its section.
    values: Vec<(String, String)>,
    /// What stands in `[server]`.
    server: Map<String, Value>,
}

/// The settings of this run.
pub(crate) fn current() -> &'static Settings {
    CURRENT.get_or_init(Settings::default)
}

/// Makes these the settings of this run, if there are none yet.
pub(crate) fn install(settings: Settings) {
    let _ = CURRENT.set(settings);
}

/// The file that is read: `BITNET_CONFIG`, else `config.toml` in the person's folder, whether it is there or not.
pub(crate) fn path(get: Lookup<'_>) -> Option<PathBuf> {
    match get(VARIABLE) {
        Some(path) => (!path.is_empty()).then(|| path.into()),
        None => Some(folders::config(get)?.join("config.toml")),
    }
}

impl Settings {
    /// The value of a setting outside `[server]`, by its name with its section.
    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        self.values.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// The same command line, with the file's values as defaults.
    pub(crate) fn apply(&self, command: Command) -> Command {
        if self.values.is_empty() {
            return command;
        }
        let of_env: Vec<(OsString, &str)> = keys::flags()
            .into_iter()
            .filter_map(|key| Some((key.env.into(), self.get(&key.name)?)))
            .collect();
        with_defaults(command, &of_env)
    }

    /// What a server obeys, and where it stands; flags and environment come before it.
    pub(crate) fn section(&self) -> Option<Section> {
        let path = self.path.as_ref()?;
        let mut values = Map::new();
        if let Some(model) = self.get("model") {
            values.insert("models".to_owned(), json!([{"path": model}]));
        }
        for name in SHARED {
            if let Some(text) = self.get(name) {
                let key = bitnet_server::config::keys::KEYS.iter().find(|key| key.name == name);
                values.extend(key.and_then(|key| key.read(text).ok()).map(|value| (name.to_owned(), value)));
            }
        }
        values.extend(self.server.clone());
        Some(Section { origin: format!("file {}", path.display()), values })
    }

    /// A variable that `huggingface_hub` knows, from the environment or else the file.
    pub(crate) fn hub_variable(&self, name: &str, get: Lookup<'_>) -> Option<OsString> {
        let set = |name: &str| get(name).filter(|value| !value.is_empty());
        let setting = keys::HUB.iter().find(|setting| setting.variables[0] == name);
        match setting {
            Some(setting) if !setting.variables.iter().any(|name| set(name).is_some()) => {
                self.get(setting.name).map(Into::into)
            }
            _ => get(name),
        }
    }
}

/// Gives the flags that have these variables defaults, those of subcommands too.
fn with_defaults(command: Command, of_env: &[(OsString, &str)]) -> Command {
    let default = |arg: Arg| {
        let value = of_env.iter().find(|(env, _)| arg.get_env() == Some(env.as_os_str()));
        match value {
            // clap keeps defaults as long as the program runs, and the file is read once.
            Some((_, value)) => arg.default_value(&*(*value).to_owned().leak()),
            None => arg,
        }
    };
    command.mut_args(default).mut_subcommands(|sub| with_defaults(sub, of_env))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::args;

    fn settings(text: &str) -> Settings {
        Settings::read(Path::new("config.toml"), text).unwrap()
    }

    #[test]
    fn the_file_gives_flags_their_defaults() {
        let settings = settings("threads = 3\nmodel = \"a\"\n[sampling]\ntemp = 0.25\n");
        let parse = |args: &[&str]| settings.apply(args::command()).try_get_matches_from(args).unwrap();
        let matches = parse(&["bitnet", "generate", "--threads", "2", "Hi"]);
        let generate = matches.subcommand_matches("generate").unwrap();
        assert_eq!(generate.get_one::<usize>("threads"), Some(&2));
        assert_eq!(generate.get_one::<f32>("temp"), Some(&0.25));
        assert_eq!(generate.get_one::<PathBuf>("model"), Some(&"a".into()));
        let matches = parse(&["bitnet", "chat"]);
        assert_eq!(matches.subcommand_matches("chat").unwrap().get_one::<usize>("threads"), Some(&3));
    }

    #[test]
    fn a_server_obeys_its_section_before_the_rest() {
        let section =
            settings("threads = 3\nkv_type = \"int8\"\nmodel = \"m\"\n[server]\nthreads = 4\nport = 1\n");
        let section = section.section().unwrap();
        assert_eq!(section.origin, "file config.toml");
        let expected = json!({"models": [{"path": "m"}], "threads": 4, "kv_type": "int8", "port": 1});
        assert_eq!(Value::Object(section.values), expected);
    }

    #[test]
    fn the_environment_comes_before_the_file_for_the_hub() {
        let settings = settings("[hub]\ncache = \"/file\"\noffline = true\n");
        let none = |_: &str| None;
        assert_eq!(settings.hub_variable("HF_HUB_CACHE", &none), Some("/file".into()));
        assert_eq!(settings.hub_variable("HF_HUB_OFFLINE", &none), Some("true".into()));
        let home = |name: &str| (name == "HF_HOME").then(|| "/env".into());
        assert_eq!(settings.hub_variable("HF_HUB_CACHE", &home), None);
        assert_eq!(settings.hub_variable("HF_HOME", &home), Some("/env".into()));
    }
}
