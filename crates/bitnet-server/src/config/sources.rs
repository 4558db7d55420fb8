//! [`ConfigSources`]: from flags, environment and file to one configuration, and where each value came from.

use std::path::PathBuf;

use figment::providers::{Format, Serialized, Toml};
use figment::{Figment, Metadata, Profile, Provider};
use serde_json::{Map, Value, json};

use super::keys::{KEYS, Key, Kind};
use super::{ServerConfig, show};

/// What is wrong with a configuration.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// The file is not there, or cannot be read.
    #[error("cannot read the configuration {}: {problem}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        problem: String,
    },
    /// A value that cannot be read as what it should be, or a setting that there is not.
    #[error("{origin}: {problem}")]
    Source {
        /// Where it stands.
        origin: String,
        /// What is wrong.
        problem: String,
    },
    /// A value that is not possible.
    #[error("{key} = {value} is not possible: it must be {allowed}")]
    Value {
        /// The setting.
        key: &'static str,
        /// Its value.
        value: String,
        /// What it may be.
        allowed: &'static str,
    },
}

/// Settings that stand elsewhere than in a file of their own.
#[derive(Debug, Clone, Default)]
pub struct Section {
    /// Where, as `file PATH`.
    pub origin: String,
    /// The settings by name.
    pub values: Map<String, Value>,
}

/// Where settings come from, the strongest first: flags, environment, file, section.
#[derive(Debug, Clone, Default)]
pub struct ConfigSources {
    /// Settings by name, as the command line gave them.
    pub flags: Map<String, Value>,
    /// Environment variables; those that are no settings are passed over.
    pub environment: Vec<(String, String)>,
    /// A TOML file.
    pub file: Option<PathBuf>,
    /// Settings from a part of another file.
    pub section: Option<Section>,
}

/// A configuration, and where its values came from.
#[derive(Debug, Clone)]
pub struct Effective {
    /// The configuration.
    pub config: ServerConfig,
    origins: Vec<(&'static str, String)>,
}

/// Settings of one source with the name of that source.
struct Named {
    values: Map<String, Value>,
    name: String,
}

impl Provider for Named {
    fn metadata(&self) -> Metadata {
        Metadata::named(self.name.clone()).interpolater(|_, keys| keys.join("."))
    }

    fn data(&self) -> figment::Result<figment::value::Map<Profile, figment::value::Dict>> {
        Serialized::defaults(&self.values).data()
    }
}

impl ConfigSources {
    /// Puts the settings together.
    ///
    /// # Errors
    /// [`ConfigError`] with the place of what is wrong.
    pub fn load(&self) -> Result<Effective, ConfigError> {
        let mut figment = Figment::from(Serialized::defaults(ServerConfig::default()));
        if let Some(Section { origin, values }) = &self.section {
            figment = figment.merge(Named { values: values.clone(), name: origin.clone() });
        }
        if let Some(path) = &self.file {
            // A file that is not there would be passed over in silence.
            std::fs::File::open(path)
                .map_err(|error| ConfigError::File { path: path.clone(), problem: error.to_string() })?;
            figment = figment.merge(Toml::file_exact(path));
        }
        for settings in self.settings_of_environment()? {
            figment = figment.merge(settings);
        }
        for (name, value) in &self.flags {
            let flag = KEYS.iter().find(|key| key.name == name).map_or(name.as_str(), |key| key.flag);
            let values = Map::from_iter([(name.clone(), value.clone())]);
            figment = figment.merge(Named { values, name: format!("flag {flag}") });
        }
        let config: ServerConfig = figment.extract().map_err(|error| explain(&error))?;
        config.check()?;
        let origin = |name: &'static str| (name, origin_of(&figment, name));
        Ok(Effective { config, origins: KEYS.iter().map(|key| origin(key.name)).collect() })
    }

    /// The variables that are settings.
    fn settings_of_environment(&self) -> Result<Vec<Named>, ConfigError> {
        let mut settings = Vec::new();
        for key in KEYS {
            let Some((_, text)) = self.environment.iter().find(|(name, _)| name == key.env) else { continue };
            if text.is_empty() {
                continue;
            }
            let wrong = |allowed: &str| ConfigError::Source {
                origin: format!("environment variable {}", key.env),
                problem: format!("{text:?} is not {allowed}"),
            };
            let value = key.read(text).map_err(wrong)?;
            let values = Map::from_iter([(key.name.to_owned(), value)]);
            settings.push(Named { values, name: format!("environment variable {}", key.env) });
        }
        Ok(settings)
    }
}

impl Key {
    /// Reads a value as the environment has it: lists between commas, switches as `true` or `off`.
    ///
    /// # Errors
    /// What it must be.
    pub fn read(&self, text: &str) -> Result<Value, &'static str> {
        let list = || text.split(',').map(str::trim).filter(|part| !part.is_empty());
        Ok(match self.kind {
            Kind::Text => json!(text),
            Kind::Number => json!(text.trim().parse::<u64>().map_err(|_| "a whole number")?),
            Kind::Switch => json!(switch(text).ok_or("true or false")?),
            Kind::List => json!(list().collect::<Vec<_>>()),
            Kind::Models => json!(list().map(model).collect::<Vec<_>>()),
        })
    }
}

fn switch(text: &str) -> Option<bool> {
    match text.trim().to_ascii_lowercase().as_str() {
        "1" | "true" | "yes" | "on" => Some(true),
        "0" | "false" | "no" | "off" => Some(false),
        _ => None,
    }
}

/// A model as people write it: `PATH`, or `NAME=PATH`. What is there by the whole text is a path.
pub fn model(text: &str) -> Value {
    match text.split_once('=') {
        Some((name, path))
            if !name.is_empty() && !path.is_empty() && !std::path::Path::new(text).exists() =>
        {
            json!({"name": name, "path": path})
        }
        _ => json!({"path": text}),
    }
}

/// The first of figment's complaints with its place.
fn explain(error: &figment::Error) -> ConfigError {
    let name = error.metadata.as_ref().map_or("configuration", |metadata| metadata.name.as_ref());
    let file = error.metadata.as_ref().and_then(|metadata| metadata.source.as_ref()?.file_path());
    let origin = file.map_or_else(|| name.to_owned(), |path| path.display().to_string());
    let key = error.path.join(".");
    if let figment::error::Kind::UnknownField(name, known) = &error.kind {
        let near = known.iter().map(|known| (strsim::damerau_levenshtein(name, known), known));
        let near = near.filter(|(distance, _)| *distance <= 2.max(name.len() / 4)).min();
        let near = near.map_or_else(String::new, |(_, known)| format!("; did you mean `{known}`?"));
        return ConfigError::Source { origin, problem: format!("there is no setting `{name}`{near}") };
    }
    let problem = if key.is_empty() { error.kind.to_string() } else { format!("{key}: {}", error.kind) };
    ConfigError::Source { origin, problem }
}

/// Where the value of a setting came from: `default`, `file PATH`, `environment variable NAME`, `flag NAME`.
fn origin_of(figment: &Figment, name: &str) -> String {
    let Some(metadata) = figment.find_metadata(name) else { return "default".to_owned() };
    match metadata.source.as_ref().and_then(|source| source.file_path()) {
        Some(path) => format!("file {}", path.display()),
        None if ["flag ", "environment ", "file "].iter().any(|kind| metadata.name.starts_with(kind)) => {
            metadata.name.to_string()
        }
        None => "default".to_owned(),
    }
}

impl Effective {
    /// The configuration as a TOML file with comments that tell where values came from. Keys are not shown.
    pub fn to_toml(&self) -> String {
        show::toml(&self.config, &self.origins)
    }

    /// Where the value of a setting came from: `default`, `file PATH`, `environment variable NAME`, `flag NAME`.
    pub fn origin(&self, name: &str) -> &str {
        self.origins.iter().find(|(key, _)| *key == name).map_or("default", |(_, origin)| origin.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(text: &str) -> tempfile::NamedTempFile {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), text).unwrap();
        file
    }

    fn sources(toml: &tempfile::NamedTempFile, environment: &[(&str, &str)], flags: Value) -> ConfigSources {
        let Value::Object(flags) = flags else { panic!("flags are an object") };
        let environment = environment.iter().map(|(a, b)| ((*a).to_owned(), (*b).to_owned())).collect();
        ConfigSources { flags, environment, file: Some(toml.path().to_owned()), section: None }
    }

    #[test]
    fn a_section_of_another_file_is_weaker_than_a_file() {
        let Value::Object(values) = json!({"queue": 3, "port": 4}) else { unreachable!() };
        let section = Section { origin: "file all.toml".to_owned(), values };
        let toml = file("port = 5");
        let sources = ConfigSources { section: Some(section), ..sources(&toml, &[], json!({})) };
        let effective = sources.load().unwrap();
        assert_eq!((effective.config.queue, effective.config.port), (3, 5));
        assert_eq!(effective.origin("queue"), "file all.toml");
        assert!(effective.origin("port").starts_with("file "), "{}", effective.origin("port"));
    }

    #[test]
    fn flags_come_before_environment_before_file_before_defaults() {
        let toml = file("port = 1\nhost = \"a\"\nqueue = 7\nmodels = [{ name = \"x\", path = \"y\" }]\n");
        let environment = [("BITNET_PORT", "2"), ("BITNET_HOST", "b"), ("HOME", "/root")];
        let effective = sources(&toml, &environment, json!({"port": 3})).load().unwrap();
        let config = &effective.config;
        assert_eq!((config.port, config.host.as_str(), config.queue, config.parallel), (3, "b", 7, 64));
        assert_eq!(config.models[0].name.as_deref(), Some("x"));
        let text = effective.to_toml();
        for line in ["port = 3  # flag --port", "host = \"b\"  # environment variable BITNET_HOST"] {
            assert!(text.contains(line), "{line}: {text}");
        }
        assert!(text.contains("queue = 7  # file ") && text.contains("parallel = 64  # default"), "{text}");
    }

    #[test]
    fn what_is_printed_is_read_back_as_the_same() {
        let toml = file("api_key = [\"secret\"]\ntimeout = 5\nbody_limit = \"3MB\"\nkv_type = \"int8\"\n");
        let flags = json!({"models": [{"name": "a \"b\"", "path": "c\\d"}, {"path": "e"}], "webui": false});
        let effective = sources(&toml, &[], flags).load().unwrap();
        let text = effective.to_toml();
        assert!(!text.contains("secret"), "{text}");
        let printed = file(&text);
        let again = sources(&printed, &[], json!({"api_key": ["secret"]})).load().unwrap();
        assert_eq!(again.config, effective.config, "{text}");
    }

    #[test]
    fn mistakes_are_told_with_their_place() {
        type Pairs = &'static [(&'static str, &'static str)];
        let cases: [(&str, Pairs, Value, &str); 11] = [
            ("prot = 1", &[], json!({}), "did you mean `port`?"),
            ("port = \"x\"", &[], json!({}), "port"),
            ("port = 99999", &[], json!({}), "port"),
            ("models = [{ file = \"x\" }]", &[], json!({}), "file"),
            ("", &[("BITNET_PORT", "many")], json!({}), "BITNET_PORT"),
            ("", &[("BITNET_METRICS", "perhaps")], json!({}), "BITNET_METRICS"),
            ("", &[("BITNET_KV_TYPE", "f8")], json!({}), "BITNET_KV_TYPE"),
            ("", &[], json!({"parallel": 0}), "parallel"),
            ("", &[], json!({"tls_cert": "a.pem"}), "tls_key"),
            ("", &[], json!({"speculation": "maybe"}), "speculation"),
            ("", &[], json!({"overload": 500}), "overload"),
        ];
        for (toml, environment, flags, part) in cases {
            let toml = file(toml);
            let error = sources(&toml, environment, flags).load().unwrap_err().to_string();
            assert!(error.contains(part), "{part}: {error}");
        }
        let missing = ConfigSources { file: Some("/no/such.toml".into()), ..ConfigSources::default() };
        assert!(missing.load().unwrap_err().to_string().contains("/no/such.toml"));
    }

    #[test]
    fn models_may_have_names() {
        assert_eq!(model("a=b/c"), json!({"name": "a", "path": "b/c"}));
        assert_eq!(model("org/name:i2_s"), json!({"path": "org/name:i2_s"}));
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x=y");
        std::fs::create_dir(&path).unwrap();
        let path = path.display().to_string();
        assert_eq!(model(&path), json!({"path": path}));
    }
}
