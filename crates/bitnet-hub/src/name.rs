//! [`ModelName`]: what people write for a model on the Hub.

use crate::{HubError, Result};

/// A repository: `org/name`, in old caches also `name` alone.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RepoId(String);

impl RepoId {
    /// Reads `org/name`.
    ///
    /// # Errors
    /// [`HubError::BadName`] with what is wrong. The rules are those of the Hub: letters, digits, `-`, `_` and `.`, no
    /// `--` and no `..`, at most 96 characters.
    pub fn parse(text: &str) -> Result<Self> {
        let bad = |why: &'static str| HubError::BadName { text: text.to_owned(), why };
        let (org, name) = text.split_once('/').ok_or_else(|| bad("it has no organisation in front"))?;
        if name.contains('/') {
            return Err(bad("it has more than one slash"));
        }
        if ![org, name].into_iter().all(is_part) {
            return Err(bad("letters, digits, `-`, `_` and `.` may stand on each side of the slash"));
        }
        if text.len() > 96 {
            return Err(bad("it has more than 96 characters"));
        }
        Ok(Self(text.to_owned()))
    }

    /// The repository of a folder `models--org--name`; none for folders of other kinds.
    pub(crate) fn of_folder(folder: &str) -> Option<Self> {
        let rest = folder.strip_prefix("models--")?;
        let parts: Vec<&str> = rest.split("--").collect();
        let sound = (1..=2).contains(&parts.len()) && parts.iter().all(|part| is_part(part));
        sound.then(|| Self(parts.join("/")))
    }

    /// `org/name`.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The name without the organisation.
    pub fn name(&self) -> &str {
        self.0.rsplit('/').next().unwrap_or(&self.0)
    }

    /// The folder in the cache: `models--org--name`.
    pub fn folder(&self) -> String {
        format!("models--{}", self.0.replace('/', "--"))
    }
}

fn is_part(part: &str) -> bool {
    let inside = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    let edges = [part.bytes().next(), part.bytes().last()];
    !part.is_empty()
        && part.bytes().all(inside)
        && edges.iter().flatten().all(|byte| !b"-.".contains(byte))
        && !part.contains("--")
        && !part.contains("..")
}

impl std::fmt::Display for RepoId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

/// A model on the Hub: `org/name[@revision][:file-or-quant]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModelName {
    /// The repository.
    pub repo: RepoId,
    /// Branch, tag or commit; `main` if none is given.
    pub revision: Option<String>,
    /// A file, a quantisation such as `i2_s`, or a format: `safetensors`, `gguf`, `pytorch`, `onnx`.
    pub wanted: Option<String>,
}

/// What may stand in front of a name, to say that it is one and no path.
const PREFIXES: [&str; 4] = ["hf://", "hf:", "https://huggingface.co/", "https://hf.co/"];

impl ModelName {
    /// Reads a name, also with `hf:` or the address of the Hub's page in front.
    ///
    /// # Errors
    /// [`HubError::BadName`] with what is wrong.
    pub fn parse(text: &str) -> Result<Self> {
        let bad = |why: &'static str| HubError::BadName { text: text.to_owned(), why };
        let bare = PREFIXES.iter().find_map(|prefix| text.strip_prefix(prefix)).unwrap_or(text);
        let (left, wanted) = match bare.split_once(':') {
            None => (bare, None),
            Some((_, "")) => return Err(bad("no file or quantisation follows the colon")),
            Some((left, wanted)) => (left, Some(wanted)),
        };
        let (repo, revision) = match left.split_once('@') {
            None => (left, None),
            Some((repo, revision)) => (repo, Some(revision)),
        };
        let repo = RepoId::parse(repo.trim_end_matches('/')).map_err(|error| match error {
            HubError::BadName { why, .. } => bad(why),
            error => error,
        })?;
        if let Some(wanted) = wanted
            && !is_relative_path(wanted)
        {
            return Err(bad("what follows the colon must be a file of the repository or a quantisation"));
        }
        let name = Self { repo, revision: None, wanted: wanted.map(str::to_owned) };
        match revision {
            None => Ok(name),
            Some(revision) => {
                name.at(revision).map_err(|_| bad("what follows the @ is no branch, tag or commit"))
            }
        }
    }

    /// Whether `text` says by what stands in front that it is a name and no path.
    pub fn is_explicit(text: &str) -> bool {
        PREFIXES.iter().any(|prefix| text.starts_with(prefix))
    }

    /// The same model at another revision.
    ///
    /// # Errors
    /// [`HubError::BadName`] if that cannot be a revision.
    pub fn at(mut self, revision: &str) -> Result<Self> {
        if !is_revision(revision) {
            let why = "a revision is a branch, a tag or a commit";
            return Err(HubError::BadName { text: revision.to_owned(), why });
        }
        self.revision = Some(revision.to_owned());
        Ok(self)
    }

    /// The revision, `main` if none was given.
    pub fn revision(&self) -> &str {
        self.revision.as_deref().unwrap_or("main")
    }
}

impl std::fmt::Display for ModelName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.repo)?;
        if let Some(revision) = &self.revision {
            write!(f, "@{revision}")?;
        }
        match &self.wanted {
            Some(wanted) => write!(f, ":{wanted}"),
            None => Ok(()),
        }
    }
}

/// Whether this is the full name of a commit.
pub(crate) fn is_commit(text: &str) -> bool {
    text.len() == 40 && text.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte))
}

/// Whether this may be a revision. It becomes a path below `refs`, and must stay there.
fn is_revision(text: &str) -> bool {
    is_relative_path(text) && text.len() <= 200 && !text.contains([':', '@', '~', '^', '?', '*', '[', ' '])
}

/// Whether this is a path that stays inside the folder it is joined to, on every system.
pub(crate) fn is_relative_path(text: &str) -> bool {
    !text.is_empty()
        && text.len() <= 1000
        && !text.contains(['\\', '\0', ':'])
        && !text.contains(char::is_control)
        && text.split('/').all(|part| !matches!(part, "" | "." | ".."))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_in_all_their_parts() {
        let name = ModelName::parse("microsoft/bitnet-b1.58-2B-4T").unwrap();
        assert_eq!(
            (name.repo.folder().as_str(), name.revision()),
            ("models--microsoft--bitnet-b1.58-2B-4T", "main")
        );
        let name = ModelName::parse("hf:a/b@refs/pr/1:sub/m-i2_s.gguf").unwrap();
        assert_eq!((name.revision(), name.wanted.as_deref()), ("refs/pr/1", Some("sub/m-i2_s.gguf")));
        assert_eq!(name.to_string(), "a/b@refs/pr/1:sub/m-i2_s.gguf");
        assert_eq!(ModelName::parse("https://huggingface.co/a/b").unwrap().to_string(), "a/b");
        assert!(ModelName::is_explicit("hf:a/b") && !ModelName::is_explicit("a/b"));
    }

    #[test]
    fn what_could_leave_its_folder_is_no_name() {
        for bad in [
            "a",
            "a/b/c",
            "../b",
            "a/..",
            "/a/b",
            "a/b@../x",
            "a/b@",
            "a/b:",
            "a/b:../x",
            "a/b:/etc/passwd",
            "a--x/b",
            "a/b@x y",
            "C:/models/x",
            "a\\b/c",
            "./a",
            "-a/b",
            "a/b:x\\y",
            "a/.",
            "a/b@a//b",
        ] {
            assert!(ModelName::parse(bad).is_err(), "{bad}");
        }
        assert!(ModelName::parse(&format!("a/{}", "b".repeat(95))).is_err());
    }

    #[test]
    fn folders_of_the_cache_have_names() {
        for (folder, id) in
            [("models--a--b", Some("a/b")), ("models--gpt2", Some("gpt2")), ("datasets--a--b", None)]
        {
            assert_eq!(RepoId::of_folder(folder).as_ref().map(RepoId::as_str), id);
        }
        assert_eq!(RepoId::of_folder("models--a--b--c"), None);
        assert_eq!(RepoId::of_folder("models--..--b"), None);
    }

    #[test]
    fn commits_are_forty_lower_case_digits() {
        assert!(is_commit(&"0a".repeat(20)) && !is_commit(&"0A".repeat(20)) && !is_commit("main"));
    }
}
