//! PyTorch checkpoints: files of `torch.save`, in the zip form and in that of before version 1.6.
//!
//! A checkpoint is a pickle, which is a program, and the bytes of its storages. The program is not run: `unpickle` knows
//! the two dozen instructions and the few names that weights consist of, and refuses every other name by name. Tensors
//! are views of storages with offset and strides; those whose elements are in order stay where they lie in the file.
//!
//! * [`read_pytorch`], [`PytorchFile`]: one file.
//! * [`read_pytorch_shards`]: `pytorch_model.bin.index.json` and the files it names.
//!
//! Memory is bounded by the file's size: objects may take as much and 8 MiB, copies of views that are not in order as much.

mod archive;
mod budget;
mod globals;
mod heap;
mod legacy;
mod rebuild;
mod state;
mod strided;
mod unpickle;

use std::sync::Arc;

use bitnet_core::bytes::ByteView;

use crate::error::quoted;
use crate::safetensors::{ShardIndex, collect_shards};
use crate::tensor::{StoredTensor, TensorSet};
use crate::{Container, FormatError, Result, detect};
use archive::Archive;
use budget::Budget;
use globals::StorageClass;
use heap::{Heap, Value};

/// What a PyTorch file holds.
#[derive(Debug, Clone)]
pub struct PytorchFile {
    /// The tensors of the state dict, in its order. Names are without what wrappers put before all of them (`module.`).
    pub tensors: TensorSet,
    /// What lay beside the state dict and was left out, such as `optimizer`; at most a few names.
    pub skipped: Vec<String>,
}

/// Reads a PyTorch file of either form; `origin` is its name for messages. Nothing in it is ever run.
///
/// The state dict is the outermost dictionary, or one under a key such as `state_dict` or `model`. Dictionaries in it are
/// flattened, names joined by dots.
///
/// # Errors
/// [`FormatError`] if the file is of another kind, cut short or malformed; [`FormatError::ForbiddenGlobal`] if it mentions
/// a name that weights have no need of.
#[expect(clippy::needless_pass_by_value, reason = "the file is handed over: its tensors hold on to it")]
pub fn read_pytorch(view: ByteView, origin: &str) -> Result<PytorchFile> {
    let budget = Budget::new(view.len() as u64, origin);
    match detect(view.as_slice()) {
        Container::PytorchLegacy => {
            let mut heap = Heap::new(budget);
            let root = legacy::read(&view, view.as_slice(), &mut heap)?;
            let missing = |_: &Heap<'_, '_>, key: &str| {
                Err(FormatError::malformed(
                    origin,
                    format!("storage {}", quoted(key)),
                    "it is not in the file",
                ))
            };
            finish(&mut heap, root, &missing)
        }
        Container::PytorchZip => read_zip(&view, budget),
        _ => {
            detect::expect(Container::PytorchZip, "PyTorch", view.as_slice(), origin)?;
            Err(FormatError::Empty { origin: origin.to_owned() })
        }
    }
}

fn read_zip(view: &ByteView, mut budget: Budget<'_>) -> Result<PytorchFile> {
    let origin = budget.origin();
    let archive = Archive::read(view.as_slice(), &mut budget)?;
    if archive.contains("constants.pkl") {
        return Err(FormatError::Unsupported {
            origin: origin.to_owned(),
            what: "a TorchScript program".to_owned(),
            remedy: "save the weights alone: torch.save(model.state_dict(), path)",
        });
    }
    if let Some(order) = archive.open("byteorder")?
        && order != b"little"
    {
        return Err(big_endian(origin));
    }
    let pickle = archive.open("data.pkl")?.unwrap_or_default();
    let mut heap = Heap::new(budget);
    let (root, _) = unpickle::unpickle(pickle, "data.pkl", &mut heap)?;
    let locate = |heap: &Heap<'_, '_>, key: &str| {
        let name = format!("storage {}", quoted(key));
        let wrong = |problem: String| FormatError::malformed(origin, name.as_str(), problem);
        let range = archive
            .find(&format!("data/{key}"))?
            .ok_or_else(|| wrong("it is not in the archive".to_owned()))?;
        let wanted = heap.find_storage(key).and_then(|place| heap.storages[place].byte_len());
        let found = range.end - range.start;
        match wanted {
            Some(wanted) if wanted <= found => Ok(view.slice(range.start, range.start + wanted, origin)?),
            _ => Err(wrong(format!("it has {found} bytes, fewer than the pickle says"))),
        }
    };
    finish(&mut heap, root, &locate)
}

/// The error for files of machines with the other byte order.
fn big_endian(origin: &str) -> FormatError {
    FormatError::Unsupported {
        origin: origin.to_owned(),
        what: "big-endian data".to_owned(),
        remedy: "save the model on a little-endian machine",
    }
}

/// Finds the bytes of a storage by its key.
type Locate<'l, 'a, 'o> = &'l dyn Fn(&Heap<'a, 'o>, &str) -> Result<ByteView>;

/// Makes the tensors of what was unpickled.
fn finish<'a, 'o>(
    heap: &mut Heap<'a, 'o>,
    root: Value<'a>,
    locate: Locate<'_, 'a, 'o>,
) -> Result<PytorchFile> {
    let state = state::find(heap, root)?;
    let origin: Arc<str> = heap.origin().into();
    let mut tensors = TensorSet::new();
    for (name, value) in state.tensors {
        let Some(view) = heap.view(value) else { continue };
        let (place, element) = (view.storage as usize, view.element);
        let storage = &heap.storages[place];
        let stored = match (element, storage.class) {
            (Some(element), _) | (None, StorageClass::Of(element)) => element.stored(),
            (None, StorageClass::Untyped) => {
                let problem = "it has no element type: its storage is untyped";
                return Err(FormatError::malformed(&origin, format!("tensor {}", quoted(&name)), problem));
            }
        };
        let bytes = match &storage.data {
            Some(bytes) => bytes.clone(),
            None => {
                let bytes = locate(heap, storage.key)?;
                heap.storages[place].data = Some(bytes.clone());
                bytes
            }
        };
        let data = heap.materialise(value, stored, &bytes, &quoted(&name))?;
        let shape = heap.view(value).map(|view| view.shape.clone()).unwrap_or_default();
        tensors.insert(StoredTensor { name, shape, stored, data, origin: Arc::clone(&origin) })?;
    }
    Ok(PytorchFile { tensors, skipped: state.skipped })
}

/// Reads all files of an index. `origin` is the name of the index for messages; `open` is called once for each file
/// name, in the order of [`ShardIndex::files`].
///
/// # Errors
/// Those of `open` and of [`read_pytorch`]; [`FormatError::MissingFromShard`] and [`FormatError::NotInIndex`] if files
/// and index disagree.
pub fn read_pytorch_shards(
    index: &ShardIndex,
    origin: &str,
    open: &mut dyn FnMut(&str) -> Result<ByteView>,
) -> Result<TensorSet> {
    collect_shards(index, origin, &mut |file| Ok(read_pytorch(open(file)?, file)?.tensors))
}
