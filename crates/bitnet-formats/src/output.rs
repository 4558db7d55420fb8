//! Output files that appear whole or not at all, filled tensor by tensor as planned.

use std::fs::File;
use std::io::{BufWriter, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use crate::error::quoted;
use crate::{FormatError, Result};

/// Place of one tensor in the file.
#[derive(Debug, Clone)]
pub(crate) struct Slot {
    pub(crate) name: String,
    /// First byte, from the beginning of the file.
    pub(crate) at: u64,
    pub(crate) len: u64,
}

/// A safetensors or GGUF file under construction, filled tensor by tensor in the order of its plan.
///
/// It grows under a temporary name in the same folder and gets its own in [`finish`](Self::finish); dropped before that,
/// it is removed. Started by [`create_safetensors`](crate::create_safetensors) and [`create_gguf`](crate::create_gguf).
#[derive(Debug)]
pub struct TensorWriter {
    file: BufWriter<File>,
    temporary: PathBuf,
    path: PathBuf,
    slots: Vec<Slot>,
    /// Slots begun so far; the last of them is being filled.
    begun: usize,
    /// Bytes given to it.
    filled: u64,
    /// Where the next byte goes in the file.
    position: u64,
    /// Size of the whole file.
    size: u64,
    renamed: bool,
}

impl TensorWriter {
    /// Creates the temporary file and writes `header`; `slots` are filled in the order given.
    pub(crate) fn create(path: &Path, header: &[u8], slots: Vec<Slot>, size: u64) -> Result<Self> {
        let (temporary, file) = create_beside(path)?;
        let mut writer = Self::over(file, temporary, path, slots, size);
        writer.put(header)?;
        Ok(writer)
    }

    fn over(file: File, temporary: PathBuf, path: &Path, slots: Vec<Slot>, size: u64) -> Self {
        let file = BufWriter::with_capacity(1 << 20, file);
        let path = path.to_owned();
        Self { file, temporary, path, slots, begun: 0, filled: 0, position: 0, size, renamed: false }
    }

    /// Writes a whole tensor, the next in the plan.
    ///
    /// # Errors
    /// [`FormatError::BadPlan`] if name or length are not as planned; [`FormatError::Io`].
    pub fn write_tensor(&mut self, name: &str, bytes: &[u8]) -> Result<()> {
        self.begin(name)?;
        self.append(bytes)
    }

    /// Starts the next tensor of the plan; its bytes follow through [`append`](Self::append).
    ///
    /// # Errors
    /// [`FormatError::BadPlan`] if another tensor is next or the one before is incomplete; [`FormatError::Io`].
    pub fn begin(&mut self, name: &str) -> Result<()> {
        self.check_filled()?;
        let Some(slot) = self.slots.get(self.begun) else {
            return Err(
                self.bad_plan(name, format!("all {} planned tensors are written already", self.begun))
            );
        };
        if slot.name != name {
            let problem = format!("tensor {} is next in the plan", quoted(&slot.name));
            return Err(self.bad_plan(name, problem));
        }
        let at = slot.at;
        if at != self.position {
            self.file.seek(SeekFrom::Start(at)).map_err(|source| self.io("write", source))?;
            self.position = at;
        }
        self.begun += 1;
        self.filled = 0;
        Ok(())
    }

    /// Adds bytes to the tensor begun last.
    ///
    /// # Errors
    /// [`FormatError::BadPlan`] if it gets more bytes than planned; [`FormatError::Io`].
    pub fn append(&mut self, bytes: &[u8]) -> Result<()> {
        let Some(slot) = self.begun.checked_sub(1).and_then(|last| self.slots.get(last)) else {
            return Err(self.bad_plan("data", "no tensor was begun".to_owned()));
        };
        let filled = self.filled + bytes.len() as u64;
        if filled > slot.len {
            let problem = format!("{filled} bytes were given, but its type and shape take {}", slot.len);
            return Err(self.bad_plan(&slot.name, problem));
        }
        self.put(bytes)?;
        self.filled = filled;
        Ok(())
    }

    /// Makes the file durable and gives it its name, replacing a file that had it.
    ///
    /// # Errors
    /// [`FormatError::BadPlan`] if tensors are incomplete or missing; [`FormatError::Io`]. Then there is no file.
    pub fn finish(mut self) -> Result<()> {
        self.check_filled()?;
        if let Some(slot) = self.slots.get(self.begun) {
            return Err(self.bad_plan(&slot.name, "it is in the plan, but no data was written".to_owned()));
        }
        self.file.flush().map_err(|source| self.io("write", source))?;
        let file = self.file.get_ref();
        file.set_len(self.size).and_then(|()| file.sync_all()).map_err(|source| self.io("write", source))?;
        std::fs::rename(&self.temporary, &self.path).map_err(|source| self.io("create", source))?;
        self.renamed = true;
        sync_folder(&self.path);
        Ok(())
    }

    fn put(&mut self, bytes: &[u8]) -> Result<()> {
        self.file.write_all(bytes).map_err(|source| self.io("write", source))?;
        self.position += bytes.len() as u64;
        Ok(())
    }

    fn check_filled(&self) -> Result<()> {
        match self.begun.checked_sub(1).and_then(|last| self.slots.get(last)) {
            Some(slot) if slot.len != self.filled => {
                let problem =
                    format!("{} bytes were given, but its type and shape take {}", self.filled, slot.len);
                Err(self.bad_plan(&slot.name, problem))
            }
            _ => Ok(()),
        }
    }

    fn bad_plan(&self, name: &str, problem: String) -> FormatError {
        FormatError::BadPlan { path: self.path.clone(), field: format!("tensor {}", quoted(name)), problem }
    }

    fn io(&self, action: &'static str, source: std::io::Error) -> FormatError {
        FormatError::Io { action, path: self.path.clone(), source }
    }
}

impl Drop for TensorWriter {
    fn drop(&mut self) {
        if !self.renamed {
            // Nothing can be done about a failure here, and a leftover is recognisable by its name.
            let _ = std::fs::remove_file(&self.temporary);
        }
    }
}

/// Opens a new file in the folder of `path`, under a name that no other writer uses.
fn create_beside(path: &Path) -> Result<(PathBuf, File)> {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let io = |source| FormatError::Io { action: "create", path: path.to_owned(), source };
    let Some(name) = path.file_name() else {
        return Err(io(std::io::Error::new(std::io::ErrorKind::InvalidInput, "the path names no file")));
    };
    if path.is_dir() {
        return Err(io(std::io::Error::new(
            std::io::ErrorKind::IsADirectory,
            "there is a folder of this name",
        )));
    }
    let mut temporary = std::ffi::OsString::from(".");
    temporary.push(name);
    temporary.push(format!(".{}-{}.partial", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed)));
    let temporary = path.with_file_name(temporary);
    let file = File::create_new(&temporary).map_err(io)?;
    Ok((temporary, file))
}

/// Makes the renaming itself durable, where folders can be synced. The data is safe already, so failure is not fatal.
fn sync_folder(path: &Path) {
    #[cfg(unix)]
    if let Some(folder) = path.parent() {
        let folder = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
        let _ = File::open(folder).and_then(|folder| folder.sync_all());
    }
    #[cfg(not(unix))]
    let _ = path;
}

#[cfg(test)]
mod tests {
    use super::*;

    fn slot(name: &str, at: u64, len: u64) -> Slot {
        Slot { name: name.to_owned(), at, len }
    }

    fn entries(folder: &Path) -> usize {
        std::fs::read_dir(folder).unwrap().count()
    }

    #[test]
    fn gaps_become_zeros_and_the_file_appears_at_the_end() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("out");
        let slots = vec![slot("late", 12, 2), slot("early", 8, 1), slot("none", 14, 0)];
        let mut stream = TensorWriter::create(&path, b"head", slots, 20).unwrap();
        stream.begin("late").unwrap();
        stream.append(b"l").unwrap();
        stream.append(b"L").unwrap();
        stream.begin("early").unwrap();
        stream.append(b"e").unwrap();
        stream.begin("none").unwrap();
        assert!(!path.exists());
        stream.finish().unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"head\0\0\0\0e\0\0\0lL\0\0\0\0\0\0");
        assert_eq!(entries(folder.path()), 1);
    }

    #[test]
    fn what_is_not_as_planned_is_refused_and_leaves_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("out");
        let create =
            || TensorWriter::create(&path, b"head", vec![slot("a", 4, 2), slot("b", 6, 1)], 7).unwrap();

        let mut stream = create();
        assert!(stream.append(b"x").unwrap_err().to_string().contains("no tensor was begun"));
        let message = stream.begin("b").unwrap_err().to_string();
        assert!(message.contains("tensor \"b\"") && message.contains("\"a\" is next"), "{message}");
        stream.begin("a").unwrap();
        let message = stream.append(b"123").unwrap_err().to_string();
        assert!(message.contains("3 bytes were given") && message.contains("take 2"), "{message}");
        let message = stream.begin("b").unwrap_err().to_string();
        assert!(message.contains("tensor \"a\": 0 bytes were given"), "{message}");
        let message = stream.finish().unwrap_err().to_string();
        assert!(message.contains("tensor \"a\": 0 bytes were given"), "{message}");

        let mut stream = create();
        stream.begin("a").unwrap();
        stream.append(b"12").unwrap();
        let message = stream.finish().unwrap_err().to_string();
        assert!(message.contains("tensor \"b\"") && message.contains("no data was written"), "{message}");

        let mut stream = create();
        stream.begin("a").unwrap();
        stream.append(b"12").unwrap();
        stream.begin("b").unwrap();
        stream.append(b"3").unwrap();
        assert!(stream.begin("c").unwrap_err().to_string().contains("all 2 planned tensors"));
        assert_eq!(entries(folder.path()), 1);
        drop(stream);
        assert_eq!(entries(folder.path()), 0);
    }

    #[test]
    fn a_disk_that_fails_leaves_the_old_file_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("out");
        std::fs::write(&path, b"old").unwrap();
        // A handle without write permission fails as a broken disk does: when the buffer is emptied.
        for len in [4u64, 1 << 21] {
            let (temporary, file) = create_beside(&path).unwrap();
            drop(file);
            let read_only = File::open(&temporary).unwrap();
            let mut stream = TensorWriter::over(read_only, temporary, &path, vec![slot("a", 0, len)], len);
            stream.begin("a").unwrap();
            let written = stream.append(&vec![1; len as usize]);
            assert_eq!(written.is_err(), len > 1 << 20);
            let error = stream.finish().unwrap_err().to_string();
            assert!(error.contains("out"), "{error}");
            assert_eq!(std::fs::read(&path).unwrap(), b"old");
            assert_eq!(entries(folder.path()), 1);
        }
    }

    #[test]
    fn places_that_cannot_hold_a_file() {
        let folder = tempfile::tempdir().unwrap();
        let create = |path: &Path| TensorWriter::create(path, b"", Vec::new(), 0).unwrap_err().to_string();
        assert!(create(&folder.path().join("absent/out")).contains("absent"));
        assert!(create(folder.path()).contains("folder"));
        assert!(create(Path::new("..")).contains("names no file"));
    }
}
