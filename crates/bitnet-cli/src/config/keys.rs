//! All settings: flags with an environment variable, the Hub's, the server's.

use bitnet_server::config::keys::{KEYS, Key};
use clap::{Arg, Command};

use crate::args;

/// The command whose flags are settings; the others that run models have the same ones.
const COMMAND: &str = "generate";

/// A setting of the Hub, and the variables of `huggingface_hub` that come before it; it stands for the first of them.
#[derive(Debug)]
pub(crate) struct HubSetting {
    pub(crate) name: &'static str,
    pub(crate) variables: &'static [&'static str],
}

/// The settings of the Hub.
pub(crate) const HUB: [HubSetting; 3] = [
    HubSetting { name: "hub.cache", variables: &["HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "HF_HOME"] },
    HubSetting { name: "hub.endpoint", variables: &["HF_ENDPOINT"] },
    HubSetting { name: "hub.offline", variables: &["HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"] },
];

/// A flag that is a setting.
#[derive(Debug, Clone)]
pub(crate) struct FlagSetting {
    /// Its name with its section.
    pub(crate) name: String,
    pub(crate) env: String,
    pub(crate) arg: Arg,
}

/// A setting.
#[derive(Debug, Clone)]
pub(crate) enum Setting {
    Flag(Box<FlagSetting>),
    Hub(&'static HubSetting),
    Server(&'static Key),
}

impl Setting {
    /// Its name with its section.
    pub(crate) fn name(&self) -> String {
        match self {
            Self::Flag(flag) => flag.name.clone(),
            Self::Hub(hub) => hub.name.to_owned(),
            Self::Server(key) => format!("server.{}", key.name),
        }
    }
}

/// The flags of one command line that are settings.
fn flags_of(command: &Command) -> Vec<&Arg> {
    let is_setting = |arg: &&Arg| {
        let env = arg.get_env().and_then(|env| env.to_str());
        env.is_some_and(|env| env.starts_with("BITNET_"))
    };
    command.get_arguments().filter(is_setting).collect()
}

/// The flags that are settings.
pub(crate) fn flags() -> Vec<FlagSetting> {
    let (command, sampling) = (args::command(), args::sampling());
    let is_sampling = |arg: &Arg| sampling.get_arguments().any(|other| other.get_id() == arg.get_id());
    let generate = command.find_subcommand(COMMAND);
    let found = flags_of(&command).into_iter().chain(generate.into_iter().flat_map(flags_of));
    let setting = |arg: &Arg| {
        let env = arg.get_env()?.to_str()?.to_owned();
        let name = env.strip_prefix("BITNET_")?.to_ascii_lowercase();
        let name = if is_sampling(arg) { format!("sampling.{name}") } else { name };
        Some(FlagSetting { name, env, arg: arg.clone() })
    };
    found.filter_map(setting).collect()
}

/// All settings, in the order in which they are shown.
pub(crate) fn all() -> Vec<Setting> {
    let flags = flags().into_iter().map(|flag| Setting::Flag(Box::new(flag)));
    flags.chain(HUB.iter().map(Setting::Hub)).chain(KEYS.iter().map(Setting::Server)).collect()
}

/// The setting of this name.
pub(crate) fn find(name: &str) -> Option<Setting> {
    all().into_iter().find(|setting| setting.name() == name)
}

/// The name that was perhaps meant: by its letters, or a name without its section, or by another flag that means the same.
pub(crate) fn nearest(name: &str) -> Option<String> {
    let settings = all();
    let mut words: Vec<(String, String)> = Vec::new();
    for setting in &settings {
        let full = setting.name();
        words.push((full.clone(), full.clone()));
        if let Some((_, last)) = full.split_once('.') {
            words.push((last.to_owned(), full.clone()));
        }
        if let Setting::Flag(flag) = setting {
            let aliases = flag.arg.get_all_aliases().unwrap_or_default();
            words.extend(aliases.into_iter().map(|alias| (alias.replace('-', "_"), full.clone())));
        }
    }
    let name = name.replace('-', "_");
    let last = name.rsplit('.').next().unwrap_or(&name);
    [name.as_str(), last].into_iter().find_map(|word| {
        let candidates = words.iter().map(|(word, full)| (word.as_str(), full.clone()));
        crate::nearest::nearest_within(word, (word.len() / 3).max(1), candidates)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_have_names_of_their_own() {
        let mut names: Vec<String> = all().iter().map(Setting::name).collect();
        for name in ["model", "threads", "kv_type", "log_format", "sampling.temp", "hub.cache", "server.port"]
        {
            assert!(names.iter().any(|n| n == name), "{name}: {names:?}");
        }
        let count = names.len();
        names.sort();
        names.dedup();
        assert_eq!(names.len(), count);
    }

    #[test]
    fn near_names_are_found() {
        for (given, meant) in [
            ("treads", "threads"),
            ("kv-type", "kv_type"),
            ("temp", "sampling.temp"),
            ("temperature", "sampling.temp"),
            ("sampling.tmep", "sampling.temp"),
            ("port", "server.port"),
            ("server.prot", "server.port"),
        ] {
            assert_eq!(nearest(given).as_deref(), Some(meant), "{given}");
        }
        assert_eq!(nearest("nothing_like_it"), None);
    }
}
