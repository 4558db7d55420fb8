//! [`System`]: what Linux tells in files, below any root, so that tests can make up a machine.
//!
//! Other systems have no such files; every question then gets no answer.

use std::path::{Path, PathBuf};

/// A machine, as its files tell.
#[derive(Debug, Clone)]
pub(super) struct System {
    root: PathBuf,
}

impl System {
    /// The machine whose files are below `root`.
    pub(super) fn at(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    /// Where a file of the machine is.
    pub(super) fn path(&self, file: &str) -> PathBuf {
        self.root.join(file.trim_start_matches('/'))
    }

    /// Whether there is such a file or folder.
    pub(super) fn has(&self, file: &str) -> bool {
        self.path(file).exists()
    }

    /// The text of a file, without white space around it.
    pub(super) fn text(&self, file: &str) -> Option<String> {
        let bytes = std::fs::read(self.path(file)).ok()?;
        Some(String::from_utf8_lossy(&bytes).trim().to_owned())
    }

    /// A file that holds one number.
    pub(super) fn number(&self, file: &str) -> Option<u64> {
        self.text(file)?.parse().ok()
    }

    /// The names in a folder, sorted.
    pub(super) fn names(&self, folder: &str) -> Vec<String> {
        let entries = std::fs::read_dir(self.path(folder)).into_iter().flatten().flatten();
        let mut names: Vec<String> =
            entries.filter_map(|entry| entry.file_name().into_string().ok()).collect();
        names.sort();
        names
    }

    /// Bytes of a line `Name: 123 kB` of `/proc/meminfo`.
    pub(super) fn memory(&self, name: &str) -> Option<u64> {
        let text = self.text("/proc/meminfo")?;
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
        line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
    }

    /// Values of a file of the control groups that this process is in, the innermost first: `unified` is its name in
    /// version 2, `controller` and `legacy` are where it is in version 1.
    pub(super) fn groups(&self, unified: &str, controller: &str, legacy: &str) -> Vec<String> {
        let text = self.text("/proc/self/cgroup").unwrap_or_default();
        let mut out = Vec::new();
        for line in text.lines() {
            let mut fields = line.splitn(3, ':').skip(1);
            let (Some(controllers), Some(group)) = (fields.next(), fields.next()) else { continue };
            let (top, file) = if controllers.is_empty() {
                ("/sys/fs/cgroup".to_owned(), unified)
            } else if controllers.split(',').any(|name| name == controller) {
                (self.mount(controllers, controller), legacy)
            } else {
                continue;
            };
            // A container may see its own group as the top, or the path of a tree that it does not see.
            for folder in Path::new(group.trim_start_matches('/')).ancestors() {
                let file = Path::new(&top).join(folder).join(file);
                out.extend(file.to_str().and_then(|file| self.text(file)));
            }
        }
        out
    }

    /// Where the tree of a version 1 controller is.
    fn mount(&self, controllers: &str, controller: &str) -> String {
        let joint = format!("/sys/fs/cgroup/{controllers}");
        if self.has(&joint) { joint } else { format!("/sys/fs/cgroup/{controller}") }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// A machine with these files.
    pub(in super::super) fn machine(files: &[(&str, &str)]) -> (tempfile::TempDir, System) {
        let root = tempfile::tempdir().unwrap();
        let system = System::at(root.path());
        for (file, text) in files {
            let path = system.path(file);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        (root, system)
    }

    #[test]
    fn files_are_read_below_the_root() {
        let (_root, system) = machine(&[
            ("/proc/meminfo", "MemTotal:       16 kB\nMemFree: x kB\n"),
            ("/sys/a/number", " 42\n"),
            ("/sys/a/text", "none"),
        ]);
        assert_eq!(
            (system.memory("MemTotal"), system.memory("MemFree"), system.memory("Mem")),
            (Some(16_384), None, None)
        );
        assert_eq!((system.number("/sys/a/number"), system.number("/sys/a/text")), (Some(42), None));
        assert_eq!(system.names("/sys/a"), ["number", "text"]);
        assert!(system.has("/sys/a") && !system.has("/sys/b") && system.names("/sys/b").is_empty());
    }

    #[test]
    fn groups_are_found_in_both_versions() {
        let value = |system: &System| system.groups("memory.max", "memory", "memory.limit_in_bytes");
        let (_root, two) = machine(&[
            ("/proc/self/cgroup", "0::/a/b\n"),
            ("/sys/fs/cgroup/a/b/memory.max", "max\n"),
            ("/sys/fs/cgroup/a/memory.max", "1000\n"),
        ]);
        assert_eq!(value(&two), ["max", "1000"]);
        let (_root, one) = machine(&[
            ("/proc/self/cgroup", "5:cpu,cpuacct:/x\n4:memory:/docker/1\n"),
            ("/sys/fs/cgroup/memory/memory.limit_in_bytes", "2000"),
            ("/sys/fs/cgroup/cpu,cpuacct/x/cpu.cfs_quota_us", "50000"),
        ]);
        assert_eq!(value(&one), ["2000"]);
        assert_eq!(one.groups("cpu.max", "cpu", "cpu.cfs_quota_us"), ["50000"]);
        let (_root, none) = machine(&[("/proc/self/cgroup", "nonsense")]);
        assert!(value(&none).is_empty());
    }
}
