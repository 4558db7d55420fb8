//! A whole model: which files, several at a time, put in place in an order that never shows a part as the whole.

use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use bitnet_core::{MemorySize, process};

use crate::api::{Api, FileMeta, RemoteFile};
use crate::cache::{BlobLock, RepoFolder, beside, is_there, place, write_atomically};
use crate::choose::{Choice, choose};
use crate::download::Job;
use crate::error::io;
use crate::events::{Event, Observer};
use crate::{Cache, Found, HubError, ModelName, Result, WeightKind};

/// What tells backup programs that a folder is a cache (bford.info/cachedir).
const CACHE_TAG: &[u8] =
    b"Signature: 8a477f597d28d172789f06886806bc55\n# A cache of models. Its content can be fetched again.\n";

/// What is already there of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FileState {
    /// The file is in the snapshot.
    Present,
    /// Its content is in the cache, from another revision.
    Cached,
    /// The first bytes are there.
    Partial(u64),
    /// Nothing is there.
    Missing,
}

/// A file that a model needs.
#[derive(Debug, Clone)]
pub struct PlannedFile {
    /// Path in the repository.
    pub path: String,
    /// Bytes.
    pub size: u64,
    /// What is already there.
    pub state: FileState,
    /// Whether it holds weights.
    pub is_weights: bool,
    meta: Option<FileMeta>,
}

/// What a model needs, and what of it is there.
#[derive(Debug, Clone)]
pub struct Plan {
    /// The model.
    pub name: ModelName,
    /// The commit of its revision.
    pub commit: String,
    /// Form of the weights.
    pub kind: WeightKind,
    /// All files.
    pub files: Vec<PlannedFile>,
    found: Found,
}

impl Plan {
    /// Bytes of all files.
    pub fn total_bytes(&self) -> u64 {
        self.files.iter().map(|file| file.size).sum()
    }

    /// Bytes that must come.
    pub fn missing_bytes(&self) -> u64 {
        let missing = |file: &PlannedFile| match file.state {
            FileState::Present | FileState::Cached => 0,
            FileState::Partial(there) => file.size - there,
            FileState::Missing => file.size,
        };
        self.files.iter().map(missing).sum()
    }

    /// Whether nothing must come.
    pub fn is_complete(&self) -> bool {
        self.files.iter().all(|file| file.state == FileState::Present)
    }
}

/// See [`Hub::plan`](crate::Hub::plan).
pub(crate) fn plan(api: &Api, cache: &Cache, name: &ModelName, observer: &Observer<'_>) -> Result<Plan> {
    if api.config.offline {
        return Err(HubError::Offline { what: name.to_string() });
    }
    let revision = api.revision(name, observer)?;
    let folder = cache.repo(&name.repo);
    let commit = revision.commit.as_str();
    let target = Target { api, name, folder: &folder, commit, observer };
    let names: Vec<&str> = revision.files.iter().map(|file| file.path.as_str()).collect();
    let listed = |path: &str| revision.files.iter().find(|file| file.path == path);
    let mut read = |path: &str| {
        let file = listed(path).ok_or_else(|| HubError::NoModel {
            repo: name.repo.to_string(),
            why: format!("there is no {path}"),
        })?;
        let planned = target.plan(file, true)?;
        target.fetch(&planned, &|| false)?;
        let path = target.pointer(path);
        std::fs::read(&path).map_err(io("read", &path))
    };
    let choice = choose(name.repo.as_str(), &names, name.wanted.as_deref(), &mut read)?;
    let found = Found::new(name, commit, folder.snapshot(commit), &choice)
        .ok_or_else(|| incomplete(name, &choice))?;
    let wanted: Vec<(&RemoteFile, bool)> = choice
        .companions
        .iter()
        .map(|path| (path, false))
        .chain(choice.weights.iter().map(|path| (path, true)))
        .filter_map(|(path, is_weights)| Some((listed(path)?, is_weights)))
        .collect();
    let files =
        in_parallel(&wanted, api.config.connections, |(file, is_weights), _| target.plan(file, *is_weights))?;
    Ok(Plan { name: name.clone(), commit: revision.commit.clone(), kind: choice.kind, files, found })
}

fn incomplete(name: &ModelName, choice: &Choice) -> HubError {
    let why = match choice.kind {
        WeightKind::Gguf => {
            format!("parts of {} are missing", choice.weights.first().map_or("", String::as_str))
        }
        kind => format!("there are {} weights, but no config.json", kind.name()),
    };
    HubError::NoModel { repo: name.repo.to_string(), why }
}

/// See [`Hub::fetch`](crate::Hub::fetch).
pub(crate) fn fetch(api: &Api, cache: &Cache, plan: &Plan, observer: &Observer<'_>) -> Result<Found> {
    let folder = cache.repo(&plan.name.repo);
    let target = Target { api, name: &plan.name, folder: &folder, commit: &plan.commit, observer };
    if !plan.is_complete() {
        prepare(cache.root())?;
        check_space(cache.root(), plan.missing_bytes())?;
        // Weights last: a snapshot that has them has all.
        for weights in [false, true] {
            let files: Vec<&PlannedFile> =
                plan.files.iter().filter(|file| file.is_weights == weights).collect();
            in_parallel(&files, api.config.connections, |file, given_up| target.fetch(file, given_up))?;
        }
    }
    if plan.name.revision() != plan.commit {
        let written = write_atomically(&folder.refs().join(plan.name.revision()), plan.commit.as_bytes());
        // What is complete can be used from a cache that must not be written.
        if !plan.is_complete() {
            written?;
        }
    }
    Ok(plan.found.clone())
}

/// Makes the cache, marked as one.
fn prepare(root: &Path) -> Result<()> {
    if !root.exists() {
        std::fs::create_dir_all(root).map_err(io("make the cache", root))?;
        write_atomically(&root.join("CACHEDIR.TAG"), CACHE_TAG)?;
    }
    Ok(())
}

fn check_space(root: &Path, needed: u64) -> Result<()> {
    let Some(free) = process::free_space(root) else { return Ok(()) };
    if free.as_bytes() >= needed {
        return Ok(());
    }
    Err(HubError::DiskFull { path: root.to_owned(), needed: MemorySize::bytes(needed), free: Some(free) })
}

/// A snapshot that files are fetched into.
struct Target<'a> {
    api: &'a Api,
    name: &'a ModelName,
    folder: &'a RepoFolder,
    commit: &'a str,
    observer: &'a Observer<'a>,
}

impl Target<'_> {
    fn pointer(&self, path: &str) -> PathBuf {
        let snapshot = self.folder.snapshot(self.commit);
        path.split('/').fold(snapshot, |folder, part| folder.join(part))
    }

    /// Finds out what a file is and what is there of it.
    fn plan(&self, file: &RemoteFile, is_weights: bool) -> Result<PlannedFile> {
        let planned =
            |size, state, meta| PlannedFile { path: file.path.clone(), size, state, is_weights, meta };
        if let Some(size) = file.size
            && is_there(&self.pointer(&file.path), size)
        {
            return Ok(planned(size, FileState::Present, None));
        }
        let meta = self.api.file(self.name, self.commit, file, self.observer)?;
        let size = meta.size;
        let partial = std::fs::metadata(self.incomplete(&meta.etag)).map_or(0, |partial| partial.len());
        let state = if is_there(&self.pointer(&file.path), size) {
            FileState::Present
        } else if is_there(&self.folder.blob(&meta.etag), size) {
            FileState::Cached
        } else if partial > 0 && partial <= size {
            FileState::Partial(partial)
        } else {
            FileState::Missing
        };
        Ok(planned(size, state, Some(meta)))
    }

    fn incomplete(&self, etag: &str) -> PathBuf {
        self.folder.blobs().join(format!("{etag}.incomplete"))
    }

    /// Puts a file into the snapshot.
    fn fetch(&self, file: &PlannedFile, given_up: &(dyn Fn() -> bool + Sync)) -> Result<()> {
        let pointer = self.pointer(&file.path);
        let path = file.path.as_str();
        let Some(meta) = file.meta.as_ref().filter(|_| !is_there(&pointer, file.size)) else { return Ok(()) };
        let mut told = false;
        let lock = BlobLock::wait(&self.folder.lock(&meta.etag), &mut || {
            let stops = !std::mem::replace(&mut told, true)
                && (self.observer)(Event::Waiting { file: path }).is_break();
            if stops || given_up() { Err(HubError::Stopped) } else { Ok(()) }
        })?;
        // Whoever held the lock may have done the work.
        if !is_there(&pointer, file.size) {
            let blob = self.folder.blob(&meta.etag);
            let comes = !is_there(&blob, file.size);
            if comes {
                self.download(path, meta, &blob, &lock, given_up)?;
            }
            place(&blob, &pointer, path.matches('/').count(), self.api.config.symlinks, comes)?;
        }
        drop(lock);
        match (self.observer)(Event::Done { file: path, size: file.size }).is_break() {
            true => Err(HubError::Stopped),
            false => Ok(()),
        }
    }

    fn download(
        &self,
        path: &str,
        meta: &FileMeta,
        blob: &Path,
        lock: &BlobLock,
        given_up: &(dyn Fn() -> bool + Sync),
    ) -> Result<()> {
        let (api, name, commit, observer) = (self.api, self.name, self.commit, self.observer);
        let job = Job { api, name, commit, path, meta, observer, given_up };
        if lock.is_exclusive() {
            return job.fetch(&self.incomplete(&meta.etag), blob);
        }
        // Without locks another process may write the same file: a name of our own, which is no use later.
        let own = beside(blob, "incomplete");
        let result = job.fetch(&own, blob);
        if result.is_err() {
            let _ = std::fs::remove_file(&own);
        }
        result
    }
}

/// Does `work` for all items, `threads` at a time, and gives the results in order. `work` is told whether another item
/// has failed.
///
/// # Errors
/// The first failure in time; the others are given up.
fn in_parallel<T: Sync, R: Send>(
    items: &[T],
    threads: usize,
    work: impl Fn(&T, &(dyn Fn() -> bool + Sync)) -> Result<R> + Sync,
) -> Result<Vec<R>> {
    let (next, failed) = (AtomicUsize::new(0), AtomicBool::new(false));
    let failure: Mutex<Option<HubError>> = Mutex::new(None);
    let given_up = || failed.load(Ordering::Relaxed);
    let run = || {
        let mut done = Vec::new();
        while !given_up() {
            let index = next.fetch_add(1, Ordering::Relaxed);
            let Some(item) = items.get(index) else { break };
            match work(item, &given_up) {
                Ok(result) => done.push((index, result)),
                Err(error) => {
                    failed.store(true, Ordering::Relaxed);
                    let mut first = failure.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
                    first.get_or_insert(error);
                }
            }
        }
        done
    };
    let mut results: Vec<(usize, R)> = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..threads.clamp(1, items.len().max(1))).map(|_| scope.spawn(run)).collect();
        let join = |worker: std::thread::ScopedJoinHandle<'_, Vec<(usize, R)>>| {
            worker.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        };
        workers.into_iter().flat_map(join).collect()
    });
    if let Some(error) = failure.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner) {
        return Err(error);
    }
    results.sort_unstable_by_key(|(index, _)| *index);
    Ok(results.into_iter().map(|(_, result)| result).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_come_in_order_and_the_first_failure_is_told() {
        let items: Vec<u32> = (0..50).collect();
        assert_eq!(
            in_parallel(&items, 4, |n, _| Ok(n * 2)).unwrap(),
            items.iter().map(|n| n * 2).collect::<Vec<_>>()
        );
        assert!(in_parallel(&[] as &[u32], 4, |n, _| Ok(*n)).unwrap().is_empty());
        let failed = in_parallel(&items, 1, |n, _| if *n == 7 { Err(HubError::Stopped) } else { Ok(()) });
        assert!(matches!(failed, Err(HubError::Stopped)));
    }
}
