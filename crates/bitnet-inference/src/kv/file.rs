//! Conversations in files: tokens with their keys and values, so that another process goes on without computing them again.
//!
//! ```text
//! magic       8 bytes   "BNSESS\r\n"
//! version     u32       of this layout and of the arithmetic: keys and values of another version are not used
//! kv type     u32       0 f32, 1 f16, 2 int8
//! model       u64       bitnet_model::fingerprint
//! layers, key and value heads, elements of a head      u32 each
//! tokens, and how many of them are computed            u64 each
//! tokens      u32 each
//! keys and values of each computed token               bitnet_model::kv_rows
//! checksum    u64       XXH3 of all before
//! ```
//!
//! All numbers are little-endian. Nothing is believed before the checksum is right: a session gets its keys and values
//! block by block while they are read, but only a whole file makes them known.

use std::fs::File;
use std::hash::Hasher;
use std::io::{BufReader, BufWriter, ErrorKind, Read, Write};
use std::path::{Path, PathBuf};

use bitnet_model::KvType;
use bitnet_model::kv_rows::KvRows;
use twox_hash::XxHash3_64;

use crate::engine::InferenceEngine;
use crate::error::EngineError;
use crate::kv::Session;

const MAGIC: &[u8; 8] = b"BNSESS\r\n";
const VERSION: u32 = 1;
/// Tokens that are read at a time, so that a wrong number of them takes no memory.
const CHUNK: usize = 4096;

/// Why a conversation cannot be written to a file or go on from one.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SessionFileError {
    /// The file cannot be opened, read, written or renamed.
    #[error("cannot {what} {}: {source}", path.display())]
    Io {
        /// What was tried.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// Another kind of file.
    #[error("{} is no saved session", path.display())]
    NotASession {
        /// The file.
        path: PathBuf,
    },
    /// A file of another version of this program.
    #[error("{} is of version {found}, this program reads version {VERSION}", path.display())]
    Version {
        /// The file.
        path: PathBuf,
        /// Its version.
        found: u32,
    },
    /// A file that does not fit the engine.
    #[error("{} was saved with another {what}", path.display())]
    Mismatch {
        /// The file.
        path: PathBuf,
        /// In what it differs.
        what: &'static str,
    },
    /// A file that is not as it was written.
    #[error("{} is damaged: {what}", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        what: &'static str,
    },
}

/// A file, and the checksum of what was read from or written to it.
struct Checked<'a, T> {
    inner: T,
    hash: XxHash3_64,
    path: &'a Path,
}

impl<'a, T> Checked<'a, T> {
    fn new(inner: T, path: &'a Path) -> Self {
        Self { inner, hash: XxHash3_64::with_seed(0), path }
    }

    fn damaged(&self, what: &'static str) -> SessionFileError {
        SessionFileError::Damaged { path: self.path.to_owned(), what }
    }

    fn mismatch(&self, what: &'static str) -> SessionFileError {
        SessionFileError::Mismatch { path: self.path.to_owned(), what }
    }
}

impl<T: Write> Checked<'_, T> {
    fn put(&mut self, bytes: &[u8]) -> Result<(), SessionFileError> {
        self.hash.write(bytes);
        self.inner.write_all(bytes).map_err(|source| io("write", self.path, source))
    }
}

impl<T: Read> Checked<'_, T> {
    fn fill(&mut self, bytes: &mut [u8]) -> Result<(), SessionFileError> {
        self.inner.read_exact(bytes).map_err(|source| match source.kind() {
            ErrorKind::UnexpectedEof => self.damaged("it ends too early"),
            _ => io("read", self.path, source),
        })?;
        self.hash.write(bytes);
        Ok(())
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], SessionFileError> {
        let mut bytes = [0; N];
        self.fill(&mut bytes)?;
        Ok(bytes)
    }

    fn u32(&mut self) -> Result<u32, SessionFileError> {
        Ok(u32::from_le_bytes(self.array()?))
    }

    fn u64(&mut self) -> Result<u64, SessionFileError> {
        Ok(u64::from_le_bytes(self.array()?))
    }
}

fn io(what: &'static str, path: &Path, source: std::io::Error) -> SessionFileError {
    SessionFileError::Io { what, path: path.to_owned(), source }
}

fn code(kv_type: KvType) -> u32 {
    match kv_type {
        KvType::F32 => 0,
        KvType::F16 => 1,
        KvType::Int8 => 2,
    }
}

impl InferenceEngine {
    /// Writes a conversation to a file: its tokens, and the keys and values of those that are computed. The file takes the
    /// place of another one only when it is complete. Returns its size.
    ///
    /// # Errors
    /// [`EngineError::SessionFile`], [`EngineError::ForeignSession`], or an executor that cannot give its keys and values.
    pub fn save_session(&self, session: &mut Session, path: &Path) -> Result<u64, EngineError> {
        let mut name = path.file_name().unwrap_or_default().to_owned();
        name.push(format!(".{}.tmp", std::process::id()));
        let part = path.with_file_name(name);
        let written = self.write_session(session, &part).and_then(|size| {
            std::fs::rename(&part, path).map_err(|source| io("rename the new file to", path, source))?;
            Ok(size)
        });
        if written.is_err() {
            // What is left of it helps nobody; that it may not be there is no second error.
            let _ = std::fs::remove_file(&part);
        }
        written
    }

    fn write_session(&self, session: &mut Session, path: &Path) -> Result<u64, EngineError> {
        if !session.is_of(self.pool()) {
            return Err(EngineError::ForeignSession);
        }
        session.renew();
        let file = File::create(path).map_err(|source| io("create", path, source))?;
        let mut out = Checked::new(BufWriter::with_capacity(1 << 18, file), path);
        let rows = KvRows::new(self.spec(), self.info().kv_type);
        out.put(MAGIC)?;
        out.put(&VERSION.to_le_bytes())?;
        out.put(&code(rows.kv_type).to_le_bytes())?;
        out.put(&self.model().fingerprint.to_le_bytes())?;
        for size in [rows.layers, rows.heads, rows.head_dim] {
            out.put(&(size as u32).to_le_bytes())?;
        }
        for count in [session.tokens().len(), session.computed()] {
            out.put(&(count as u64).to_le_bytes())?;
        }
        for token in session.tokens() {
            out.put(&token.to_le_bytes())?;
        }
        let mut bytes = vec![0; self.info().block_size * rows.position_bytes()];
        for (block, held) in session.computed_blocks() {
            let bytes = &mut bytes[..held * rows.position_bytes()];
            self.backend().executor().read_block(block, held, bytes)?;
            out.put(bytes)?;
        }
        let sum = out.hash.finish();
        out.put(&sum.to_le_bytes())?;
        let file = out.inner.into_inner().map_err(|error| io("write", path, error.into_error()))?;
        Ok(file.metadata().map_err(|source| io("read the size of", path, source))?.len())
    }

    /// The conversation in a file that [`save_session`](Self::save_session) wrote, with this model in whatever form it is
    /// stored and whatever kernels compute: what it had computed is not computed again, and the text that follows is the
    /// same, bit for bit. Of a conversation that is longer than the context, its beginning.
    ///
    /// # Errors
    /// [`EngineError::SessionFile`] if the file is damaged, or was saved with another model or [`KvType`]: then the
    /// conversation can only be computed again. [`EngineError::Sessions`] if no blocks are left.
    pub fn load_session(&self, path: &Path) -> Result<Session, EngineError> {
        let file = File::open(path).map_err(|source| io("open", path, source))?;
        let mut from = Checked::new(BufReader::with_capacity(1 << 18, file), path);
        let rows = KvRows::new(self.spec(), self.info().kv_type);
        let (count, computed) = self.read_header(&mut from, rows)?;
        let mut session = self.session();
        let tokens = read_tokens(&mut from, count, self.spec().vocab_size)?;
        let kept = tokens.len().min(session.context());
        tokens[..kept].iter().for_each(|&token| session.push(token));
        self.read_rows(&mut from, rows, &mut session, computed)?;
        let sum = from.hash.finish();
        if from.u64()? != sum {
            return Err(from.damaged("its checksum is wrong").into());
        }
        session.set_computed(computed.min(kept));
        Ok(session)
    }

    /// Reads what comes before the tokens, and compares it with the engine. Gives the numbers of tokens and of computed ones.
    fn read_header<T: Read>(
        &self,
        from: &mut Checked<'_, T>,
        rows: KvRows,
    ) -> Result<(usize, usize), SessionFileError> {
        let magic = from.array::<8>();
        if !magic.is_ok_and(|magic| magic == *MAGIC) {
            return Err(SessionFileError::NotASession { path: from.path.to_owned() });
        }
        let found = from.u32()?;
        if found != VERSION {
            return Err(SessionFileError::Version { path: from.path.to_owned(), found });
        }
        let (kv_type, model) = (from.u32()?, from.u64()?);
        if model != self.model().fingerprint {
            return Err(from.mismatch("model"));
        }
        if kv_type != code(rows.kv_type) {
            return Err(from.mismatch("type of keys and values (--kv-type)"));
        }
        for size in [rows.layers, rows.heads, rows.head_dim] {
            if from.u32()? as usize != size {
                return Err(from.damaged("its keys and values have other sizes than the model's"));
            }
        }
        let (count, computed) = (from.u64()?, from.u64()?);
        match (usize::try_from(count), usize::try_from(computed)) {
            (Ok(count), Ok(computed)) if computed <= count => Ok((count, computed)),
            _ => Err(from.damaged("it has fewer tokens than computed ones")),
        }
    }

    /// Puts the keys and values of the file into blocks of the session, as far as it has tokens.
    fn read_rows<T: Read>(
        &self,
        from: &mut Checked<'_, T>,
        rows: KvRows,
        session: &mut Session,
        computed: usize,
    ) -> Result<(), EngineError> {
        let (kept, size) = (computed.min(session.tokens().len()), self.info().block_size);
        let mut bytes = vec![0; size * rows.position_bytes()];
        for start in (0..computed).step_by(size) {
            let held = (computed - start).min(size);
            from.fill(&mut bytes[..held * rows.position_bytes()])?;
            let held = kept.saturating_sub(start).min(size);
            if held > 0 {
                session.cover(start + held)?;
                let backend = &mut *self.backend();
                self.reserve_memory(backend)?;
                let bytes = &bytes[..held * rows.position_bytes()];
                backend.executor().write_block(session.blocks()[start / size], held, bytes)?;
            }
        }
        Ok(())
    }
}

fn read_tokens<T: Read>(
    from: &mut Checked<'_, T>,
    count: usize,
    vocab_size: usize,
) -> Result<Vec<u32>, SessionFileError> {
    let (mut tokens, mut bytes) = (Vec::new(), [0; 4 * CHUNK]);
    while tokens.len() < count {
        let bytes = &mut bytes[..4 * (count - tokens.len()).min(CHUNK)];
        from.fill(bytes)?;
        tokens.extend(bytes.as_chunks().0.iter().map(|bytes| u32::from_le_bytes(*bytes)));
    }
    match tokens.iter().any(|&token| token as usize >= vocab_size) {
        true => Err(from.damaged("it has tokens outside the vocabulary")),
        false => Ok(tokens),
    }
}
