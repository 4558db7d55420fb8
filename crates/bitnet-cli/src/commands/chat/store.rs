//! [`Store`]: conversations that are kept. Each is a JSON file with what was said, and beside it a file with its keys and
//! values ([`InferenceEngine::save_session`]), which only spares computing and may be missing or wrong.
//!
//! [`InferenceEngine::save_session`]: bitnet_inference::InferenceEngine::save_session

use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use bitnet_core::MemorySize;
use bitnet_inference::ChatMessage;
use serde_json::{Value, json};

use super::transcript::{Transcript, message_json};
use crate::error::CliError;
use crate::folders;
use crate::output::{self, Table, ago};

/// Version of the JSON file.
const VERSION: u64 = 1;
/// What a conversation is called that nobody named.
const UNNAMED: &str = "last";
/// Longest name.
const LONGEST: usize = 100;

/// The folder of saved conversations.
#[derive(Debug, Clone)]
pub(super) struct Store {
    folder: PathBuf,
}

/// Where one of them is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) name: String,
    pub(super) text: PathBuf,
    pub(super) kv: PathBuf,
}

/// A conversation with what is needed to go on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Saved {
    pub(super) talk: Transcript,
    /// The model as it was named on the command line; nothing for the bundled one.
    pub(super) model: Option<String>,
    /// What it is called.
    pub(super) model_name: String,
}

impl Store {
    /// The user's.
    pub(super) fn open() -> Result<Self, CliError> {
        let folder = folders::state(&folders::environment).ok_or_else(|| {
            CliError::failed("there is no folder to keep conversations in")
                .hint("set BITNET_STATE_DIR or HOME")
        })?;
        Ok(Self::at(folder.join("sessions")))
    }

    pub(super) fn at(folder: PathBuf) -> Self {
        Self { folder }
    }

    /// The place of a name; what has a separator or ends in .json is a path.
    pub(super) fn place(&self, name: &str) -> Result<Place, CliError> {
        let path = Path::new(name);
        if name.ends_with(".json") || path.components().count() > 1 {
            let text =
                if name.ends_with(".json") { path.to_owned() } else { PathBuf::from(format!("{name}.json")) };
            return Ok(Place { name: name.to_owned(), kv: text.with_extension("kv"), text });
        }
        let allowed = |c: char| c.is_alphanumeric() || matches!(c, '-' | '_' | '.' | ' ');
        if name.is_empty() || name.len() > LONGEST || name.starts_with('.') || !name.chars().all(allowed) {
            return Err(CliError::usage(format!("{name:?} cannot be the name of a conversation"))
                .hint("use letters, digits, - and _, or a path that ends in .json"));
        }
        let file = |ending| self.folder.join(format!("{name}.{ending}"));
        Ok(Place { name: name.to_owned(), text: file("json"), kv: file("kv") })
    }

    /// The place of a conversation that nobody named.
    pub(super) fn unnamed(&self) -> Place {
        let file = |ending| self.folder.join(format!("{UNNAMED}.{ending}"));
        Place { name: UNNAMED.to_owned(), text: file("json"), kv: file("kv") }
    }

    /// Names with the time when each was saved, the last one first.
    fn entries(&self) -> Vec<(String, SystemTime)> {
        let entry = |entry: std::fs::DirEntry| {
            let name = entry.file_name().into_string().ok()?;
            let time = entry.metadata().and_then(|data| data.modified()).ok()?;
            Some((name.strip_suffix(".json")?.to_owned(), time))
        };
        let files = std::fs::read_dir(&self.folder).into_iter().flatten().flatten();
        let mut entries: Vec<_> = files.filter_map(entry).collect();
        entries.sort_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
        entries
    }

    /// All names, in order.
    pub(super) fn names(&self) -> Vec<String> {
        let mut names: Vec<_> = self.entries().into_iter().map(|(name, _)| name).collect();
        names.sort();
        names
    }

    /// The conversation that was saved last.
    pub(super) fn latest(&self) -> Result<Place, CliError> {
        match self.entries().first() {
            Some((name, _)) => self.place(name),
            None => {
                Err(CliError::failed("there is no conversation to continue").hint("`bitnet chat` begins one"))
            }
        }
    }

    /// A table of all conversations, the last one first.
    pub(super) fn table(&self) -> String {
        let mut table = Table::default();
        table.row([&"NAME", &"TURNS", &"SAVED", &"SIZE", &"MODEL"]);
        for (name, time) in self.entries() {
            let Ok(place) = self.place(&name) else { continue };
            let saved = ago(Some(time));
            match place.read() {
                Ok(conversation) => {
                    let size =
                        [&place.text, &place.kv].map(|path| path.metadata().map_or(0, |data| data.len()));
                    let size = MemorySize::bytes(size.iter().sum());
                    table.row([&name, &conversation.talk.turns(), &saved, &size, &conversation.model_name]);
                }
                Err(_) => table.row([&name, &"-", &saved, &"-", &"(damaged)"]),
            }
        }
        table.to_string()
    }
}

impl Place {
    /// Whether something is there.
    pub(super) fn is_taken(&self) -> bool {
        self.text.exists()
    }

    /// What is there; `None` if nothing.
    pub(super) fn load(&self) -> Result<Option<Saved>, CliError> {
        if self.is_taken() { self.read().map(Some) } else { Ok(None) }
    }

    fn read(&self) -> Result<Saved, CliError> {
        let failed = |why: String| {
            CliError::failed(format!("cannot read the conversation in {}: {why}", self.text.display()))
        };
        let text = std::fs::read_to_string(&self.text).map_err(|error| failed(error.to_string()))?;
        let value: Value = serde_json::from_str(&text).map_err(|error| failed(error.to_string()))?;
        from_json(value).map_err(|why| {
            failed(why).hint("move the file away or choose another name; it is not overwritten")
        })
    }

    /// Writes what was said.
    pub(super) fn save(&self, saved: &Saved) -> Result<(), CliError> {
        if let Some(folder) = self.text.parent().filter(|folder| !folder.as_os_str().is_empty()) {
            folders::make_private(folder).map_err(|error| {
                CliError::failed(format!("cannot make the folder {}: {error}", folder.display()))
            })?;
        }
        output::write_file(&self.text, format!("{:#}\n", as_json(saved)).as_bytes())
    }

    /// Removes it.
    pub(super) fn remove(&self) -> Result<(), CliError> {
        let removed = std::fs::remove_file(&self.text).and_then(|()| match std::fs::remove_file(&self.kv) {
            Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        });
        removed.map_err(|error| match error.kind() {
            ErrorKind::NotFound => CliError::failed(format!("there is no conversation {}", self.name))
                .hint("`bitnet chat --list-sessions` lists them"),
            _ => CliError::failed(format!("cannot remove {}: {error}", self.text.display())),
        })
    }
}

fn as_json(saved: &Saved) -> Value {
    json!({
        "version": VERSION,
        "model": saved.model,
        "model_name": saved.model_name,
        "system": saved.talk.system,
        "dropped": saved.talk.dropped,
        "messages": saved.talk.messages.iter().map(message_json).collect::<Vec<_>>(),
    })
}

fn from_json(mut value: Value) -> Result<Saved, String> {
    match value["version"].as_u64() {
        Some(VERSION) => {}
        Some(other) => return Err(format!("its version is {other}, this program reads {VERSION}")),
        None => return Err("it is no saved conversation".to_owned()),
    }
    let text = |value: &Value| value.as_str().map(str::to_owned);
    let messages = value["messages"].take();
    let messages: Vec<ChatMessage> =
        serde_json::from_value(messages).map_err(|error| format!("its messages are wrong: {error}"))?;
    let dropped = value["dropped"].as_u64().map_or(0, |n| usize::try_from(n).unwrap_or(usize::MAX));
    let dropped = dropped.min(messages.len());
    Ok(Saved {
        talk: Transcript { system: text(&value["system"]), messages, dropped },
        model: text(&value["model"]),
        model_name: text(&value["model_name"]).unwrap_or_default(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn saved() -> Saved {
        let messages =
            vec![ChatMessage::user("Hi"), ChatMessage::assistant("Hello"), ChatMessage::user("Bye")];
        let talk = Transcript { system: Some("Be brief.".to_owned()), messages, dropped: 2 };
        Saved { talk, model: Some("org/name".to_owned()), model_name: "name".to_owned() }
    }

    #[test]
    fn conversations_come_back_as_they_were() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::at(folder.path().join("sessions"));
        assert!(store.names().is_empty() && store.latest().is_err());
        let place = store.place("my talk").unwrap();
        assert_eq!(place.load().unwrap(), None);
        place.save(&saved()).unwrap();
        assert_eq!(place.load().unwrap(), Some(saved()));
        store.unnamed().save(&saved()).unwrap();
        assert_eq!(store.names(), ["last", "my talk"]);
        assert!(store.table().contains("my talk  2") && store.table().contains("name"), "{}", store.table());
        place.remove().unwrap();
        assert!(place.remove().is_err());
        assert_eq!(store.latest().unwrap().name, "last");
    }

    #[test]
    fn names_stay_within_the_folder() {
        let store = Store::at("/state".into());
        for bad in ["", ".hidden", "a\nb", "a:b", "a*", &"x".repeat(101)] {
            assert!(store.place(bad).is_err(), "{bad}");
        }
        assert_eq!(store.place("a-b_2").unwrap().text, Path::new("/state/a-b_2.json"));
        let path = store.place("./talks/one").unwrap();
        assert_eq!((path.text, path.kv), ("./talks/one.json".into(), "./talks/one.kv".into()));
    }

    #[test]
    fn what_is_no_conversation_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let place = Store::at(folder.path().to_owned()).place("bad").unwrap();
        for bad in ["", "[]", "{\"version\": 2}", "{\"version\": 1}", "{\"version\": 1, \"messages\": [1]}"] {
            std::fs::write(&place.text, bad).unwrap();
            let error = format!("{:?}", place.load().unwrap_err());
            assert!(error.contains("bad.json"), "{error}");
        }
    }
}
