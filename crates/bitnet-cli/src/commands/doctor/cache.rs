//! The cache of models: whether it can be read and written, has room, and is whole.

use std::path::Path;

use bitnet_core::{MemorySize, process};
use bitnet_hub::{Cache, CacheCheck, CacheFault, CachedRepo, FaultKind, HubConfig};

use super::finding::{Finding, State};
use crate::commands::cached::{Model, models};

const AREA: &str = "cache";
/// What a model of two billion weights takes on the disk.
const ROOM: u64 = 2 << 30;
/// Faults of one kind that are told one by one.
const MOST_TOLD: usize = 5;

/// What the checks of a cache found.
pub(super) struct Checked {
    pub(super) findings: Vec<Finding>,
    pub(super) faults: Vec<CacheFault>,
}

/// All checks of the cache in `config`; with `deep`, contents are hashed.
pub(super) fn check(config: &HubConfig, deep: bool, progress: &mut dyn FnMut(u64, u64)) -> Checked {
    let root = config.cache.as_path();
    let cache = Cache::new(root);
    let mut findings = vec![folder(root), room(root)];
    let mut faults = Vec::new();
    match cache.repos() {
        Err(error) => findings.push(Finding::new(AREA, "models", State::Problem, error.to_string()).advise(
            "let your user read the folder (ls -ld shows whose it is), or set HF_HOME to another one",
        )),
        Ok(repos) => {
            let models = models(&repos);
            findings.push(loadable(&cache, &repos, &models));
            findings.extend(damaged(&models));
            let check = cache.check(&repos, deep, progress);
            findings.push(integrity(&check, deep));
            findings.extend(told(&check.faults));
            faults = check.faults;
        }
    }
    findings.extend(config.token_file.as_deref().and_then(token_file));
    Checked { findings, faults }
}

/// Whether the folder is there and can be written.
fn folder(root: &Path) -> Finding {
    let place = root.display();
    let there = root.is_dir();
    let (made, what) = match root.ancestors().find(|folder| folder.is_dir()) {
        Some(folder) if there => (try_to_write(folder), format!("{place} can be written")),
        Some(folder) => (try_to_write(folder), format!("{place} is not there yet; the first pull makes it")),
        None => (Err(std::io::ErrorKind::NotFound.into()), String::new()),
    };
    let found = match made {
        Ok(()) => Finding::new(AREA, "folder", State::Fine, what),
        Err(error) => {
            let message = if there {
                format!("{place} cannot be written ({error}): models in it can be used, none can be fetched")
            } else {
                format!("{place} is not there and cannot be made ({error})")
            };
            let advice = "make it yours (sudo chown -R \"$USER\" FOLDER), or set HF_HOME to another folder";
            Finding::new(AREA, "folder", State::Warning, message).advise(advice)
        }
    };
    found.value("path", root.display().to_string()).value("exists", there)
}

/// Makes a file in a folder and removes it.
fn try_to_write(folder: &Path) -> std::io::Result<()> {
    let file = folder.join(format!(".bitnet-doctor-{}.tmp", std::process::id()));
    std::fs::File::create_new(&file)?;
    std::fs::remove_file(&file)
}

fn room(root: &Path) -> Finding {
    let Some(free) = process::free_space(root).map(MemorySize::as_bytes) else {
        return Finding::new(
            AREA,
            "room",
            State::Note,
            "this system does not tell how much room is on the disk",
        );
    };
    let message = format!("{} free on its disk", MemorySize::bytes(free));
    let found = if free < ROOM {
        Finding::new(
            AREA,
            "room",
            State::Warning,
            format!("only {message}; a model of two billion weights takes 1.2 GB and more"),
        )
        .advise("bitnet du shows what is there, bitnet du --budget SIZE --prune makes room")
    } else {
        Finding::new(AREA, "room", State::Fine, message)
    };
    found.value("free_bytes", free)
}

/// How many models there are.
fn loadable(cache: &Cache, repos: &[CachedRepo], all: &[Model<'_>]) -> Finding {
    let ours = all.iter().filter(|model| model.outline.is_ok()).count();
    let others = all.iter().filter(|model| model.outline.is_err() && !model.is_damaged).count();
    let size = MemorySize::bytes(Cache::size(repos));
    let mut message = match ours {
        0 => "no models of this program".to_owned(),
        1 => "1 model loads".to_owned(),
        n => format!("{n} models load"),
    };
    if others > 0 {
        message += &format!(", {others} are for other programs or not whole (bitnet list says why)");
    }
    Finding::new(AREA, "models", State::Fine, format!("{message}; {size} in all"))
        .value("path", cache.root().display().to_string())
        .value("loadable", ours)
        .value("others", others)
        .value("bytes", Cache::size(repos))
}

/// The models whose files are not what they were.
fn damaged(all: &[Model<'_>]) -> Vec<Finding> {
    let finding = |model: &Model<'_>| {
        let why = model.outline.as_ref().err().map_or("it does not load", String::as_str);
        Finding::new(AREA, "damaged_model", State::Problem, format!("{}: {why}", model.name()))
            .advise(format!("bitnet rm {0} and bitnet pull {0} fetch it again", model.name()))
            .value("model", model.name())
    };
    all.iter().filter(|model| model.is_damaged).map(finding).collect()
}

fn integrity(check: &CacheCheck, deep: bool) -> Finding {
    let (files, faults) = (check.files, check.faults.len());
    let how = if deep {
        format!("{} contents have the hash that they must have", check.hashed)
    } else {
        "sizes and links were looked at; --deep compares hashes too".to_owned()
    };
    let found = if faults == 0 {
        Finding::new(AREA, "integrity", State::Fine, format!("{files} files are whole: {how}"))
    } else {
        Finding::new(
            AREA,
            "integrity",
            State::Note,
            format!("{files} files were looked at, {faults} faults found"),
        )
    };
    found
        .value("files", files)
        .value("hashed", check.hashed)
        .value("faults", faults)
        .value("held_locks", check.held_locks)
}

/// The faults, those of one kind together if they are many.
fn told(faults: &[CacheFault]) -> Vec<Finding> {
    let mut out: Vec<Finding> = Vec::new();
    for kind in 0..6 {
        let same: Vec<&CacheFault> = faults.iter().filter(|fault| order(&fault.kind) == kind).collect();
        out.extend(same.iter().take(MOST_TOLD).map(|fault| tell(fault)));
        if let Some(rest) = same.len().checked_sub(MOST_TOLD).filter(|rest| *rest > 0) {
            out.push(Finding::new(AREA, "more", State::Note, format!("and {rest} more like the last one")));
        }
    }
    out
}

fn order(kind: &FaultKind) -> usize {
    match kind {
        FaultKind::WrongHash { .. } => 0,
        FaultKind::Unreadable { .. } => 1,
        FaultKind::BrokenLink => 2,
        FaultKind::LostReference => 3,
        FaultKind::Incomplete { .. } => 4,
        _ => 5,
    }
}

fn tell(fault: &CacheFault) -> Finding {
    const FIX: &str = "bitnet doctor --fix removes it; the next pull fetches what is missing";
    let (repo, path) = (&fault.repo, fault.path.display());
    let found = |check, state, message: String| Finding::new(AREA, check, state, message);
    match &fault.kind {
        FaultKind::WrongHash { found: hash } => found(
            "wrong_hash",
            State::Problem,
            format!("{repo}: the content of {path} is damaged: its hash is {hash}"),
        )
        .advise(FIX),
        FaultKind::Unreadable { why } => {
            found("unreadable", State::Problem, format!("{repo}: {path} cannot be read: {why}"))
                .advise("let your user read it (chmod u+r, or chown), or set HF_HOME to another folder")
        }
        FaultKind::BrokenLink => {
            found("broken_link", State::Problem, format!("{repo}: the content of {path} is gone")).advise(FIX)
        }
        FaultKind::LostReference => found(
            "lost_reference",
            State::Warning,
            format!("{repo}: {path} names a revision that is not there"),
        )
        .advise(FIX),
        FaultKind::Incomplete { size, busy: true, .. } => found(
            "download",
            State::Note,
            format!("{repo}: a download is under way, {} have come", MemorySize::bytes(*size)),
        ),
        FaultKind::Incomplete { size, age, .. } => {
            let days = age.map_or(0, |age| age.as_secs() / 86_400);
            let since = if days > 0 { format!(" {days} days ago") } else { String::new() };
            let message = format!("{repo}: a download stopped{since} after {}", MemorySize::bytes(*size));
            found("incomplete", State::Warning, message)
                .advise(format!("bitnet pull {repo} goes on with it, bitnet rm {repo} removes it"))
        }
        _ => found(
            "temporary",
            State::Warning,
            format!("{repo}: {path} was left by a program that was stopped"),
        )
        .advise(FIX),
    }
    .value("repo", repo.as_str())
    .value("path", path.to_string())
}

/// Whether others can read the stored token.
#[cfg(unix)]
fn token_file(path: &Path) -> Option<Finding> {
    use std::os::unix::fs::PermissionsExt;
    let mode = std::fs::metadata(path).ok()?.permissions().mode() & 0o777;
    (mode & 0o044 != 0).then(|| {
        let message = format!("others can read your token in {}", path.display());
        Finding::new(AREA, "token_file", State::Warning, message)
            .advise(format!("chmod 600 {}", path.display()))
            .value("mode", format!("{mode:o}"))
    })
}

#[cfg(not(unix))]
fn token_file(_: &Path) -> Option<Finding> {
    None
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn fault(kind: FaultKind) -> CacheFault {
        CacheFault { repo: bitnet_hub::ModelName::parse("org/m").unwrap().repo, path: "p".into(), kind }
    }

    #[test]
    fn a_cache_that_is_not_there_is_fine_if_it_can_be_made() {
        let dir = tempfile::tempdir().unwrap();
        let finding = folder(&dir.path().join("not/yet"));
        assert_eq!(finding.state, State::Fine, "{}", finding.message);
        assert!(finding.message.contains("first pull"));
        assert!(folder(dir.path()).message.contains("can be written"));
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0, "nothing is left");
        let file = dir.path().join("file");
        std::fs::write(&file, "x").unwrap();
        assert_eq!(folder(Path::new("/proc/none/hub")).state, State::Warning);
    }

    #[test]
    fn faults_are_told_the_worst_first_and_not_by_the_hundred() {
        let stopped = FaultKind::Incomplete { size: 5, busy: false, age: Some(Duration::from_secs(200_000)) };
        let running = FaultKind::Incomplete { size: 5, busy: true, age: None };
        let mut faults = vec![fault(stopped), fault(running)];
        faults.extend((0..8).map(|_| fault(FaultKind::BrokenLink)));
        faults.push(fault(FaultKind::WrongHash { found: "00".to_owned() }));
        let told = told(&faults);
        assert_eq!(told.len(), 1 + MOST_TOLD + 1 + 2);
        assert!(told[0].message.contains("damaged") && told[0].state == State::Problem);
        assert!(told[MOST_TOLD + 1].message.contains("3 more"));
        let last = &told[told.len() - 2..];
        assert!(
            last[0].message.contains("2 days ago")
                && last[0].advice.as_ref().unwrap().contains("bitnet pull org/m")
        );
        assert_eq!(last[1].state, State::Note);
    }

    #[test]
    #[cfg(unix)]
    fn tokens_that_others_can_read_are_told() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("token");
        assert!(token_file(&path).is_none());
        std::fs::write(&path, "hf_secret").unwrap();
        for (mode, is_told) in [(0o600, false), (0o640, true), (0o644, true)] {
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
            assert_eq!(token_file(&path).is_some(), is_told, "{mode:o}");
        }
    }
}
