//! [`Heap`] and [`Value`]: what a pickle builds, as indices into one list, so that what is shared is held once and
//! what contains itself does no harm.

use std::collections::HashMap;

use bitnet_core::bytes::ByteView;

use super::budget::Budget;
use super::globals::{Element, Global, StorageClass};
use super::strided;
use crate::error::quoted;
use crate::tensor::StoredType;
use crate::{FormatError, Result};

/// A value on the stack of the unpickler. Text lies in the file.
#[derive(Debug, Clone, Copy)]
pub(super) enum Value<'a> {
    /// Something that no tensor consists of: a float, bytes, a big number, an inert object.
    Other,
    /// `None`.
    None,
    /// `True` or `False`.
    Bool,
    /// A number.
    Int(i64),
    /// A string.
    Text(&'a str),
    /// A name of the list.
    Global(Global),
    /// A container, tensor or storage, by its place on the heap.
    Node(u32),
}

/// What the heap holds.
#[derive(Debug)]
pub(super) enum Node<'a> {
    /// A list, tuple or set.
    Sequence(Vec<Value<'a>>),
    /// A dictionary, in order. Nothing stops a file from giving a key twice.
    Dict(Vec<(Value<'a>, Value<'a>)>),
    /// A storage, or a part of one that begins `base` elements in.
    Storage { index: u32, base: u64 },
    /// A tensor.
    Tensor(Box<View>),
}

/// A tensor as a view of a storage. All numbers count elements.
#[derive(Debug)]
pub(super) struct View {
    /// Place in [`Heap::storages`].
    pub(super) storage: u32,
    /// Type, if not that of the storage.
    pub(super) element: Option<Element>,
    /// First element.
    pub(super) offset: u64,
    /// Sizes, outermost first.
    pub(super) shape: Vec<u64>,
    /// Distance of neighbours in each dimension.
    pub(super) stride: Vec<u64>,
}

/// A storage that the pickle mentions.
#[derive(Debug)]
pub(super) struct Storage<'a> {
    /// Its name in the file.
    pub(super) key: &'a str,
    /// What it holds.
    pub(super) class: StorageClass,
    /// Elements, or bytes of an untyped one.
    pub(super) count: u64,
    /// Its bytes, once they were found.
    pub(super) data: Option<ByteView>,
}

impl Storage<'_> {
    /// Its length in bytes, if that can be.
    pub(super) fn byte_len(&self) -> Option<u64> {
        self.count.checked_mul(self.class.unit())
    }
}

/// Everything that one file's pickles built.
#[derive(Debug)]
pub(super) struct Heap<'a, 'o> {
    nodes: Vec<Node<'a>>,
    /// Storages by place.
    pub(super) storages: Vec<Storage<'a>>,
    keys: HashMap<&'a str, u32>,
    /// What memory is left.
    pub(super) budget: Budget<'o>,
}

/// Bytes of a growing list an element may take while its buffer moves, in units of the element.
const GROWTH: usize = 3;
const VALUE: usize = size_of::<Value<'static>>();
const ITEM: usize = 2 * VALUE;
const NODE: usize = size_of::<Node<'static>>();
const STORAGE: usize = size_of::<Storage<'static>>() + 64;

impl<'a, 'o> Heap<'a, 'o> {
    /// An empty heap.
    pub(super) fn new(budget: Budget<'o>) -> Self {
        Self { nodes: Vec::new(), storages: Vec::new(), keys: HashMap::new(), budget }
    }

    /// The file, for messages.
    pub(super) fn origin(&self) -> &'o str {
        self.budget.origin()
    }

    fn put(&mut self, node: Node<'a>) -> Result<Value<'a>> {
        self.budget.objects(GROWTH * NODE)?;
        self.nodes.push(node);
        Ok(Value::Node(self.nodes.len() as u32 - 1))
    }

    /// A new list, tuple or set.
    pub(super) fn sequence(&mut self, values: &[Value<'a>]) -> Result<Value<'a>> {
        self.budget.objects(values.len() * VALUE)?;
        self.put(Node::Sequence(values.to_vec()))
    }

    /// A new empty dictionary.
    pub(super) fn empty_dict(&mut self) -> Result<Value<'a>> {
        self.put(Node::Dict(Vec::new()))
    }

    /// A new tensor.
    pub(super) fn tensor(&mut self, view: View) -> Result<Value<'a>> {
        self.budget.objects(size_of::<View>() + 16 * view.shape.len())?;
        self.put(Node::Tensor(Box::new(view)))
    }

    /// Declares a storage, or finds it again.
    ///
    /// # Errors
    /// If it was declared differently before.
    pub(super) fn storage(
        &mut self,
        key: &'a str,
        class: StorageClass,
        count: u64,
        base: u64,
    ) -> Result<Value<'a>> {
        let index = match self.keys.get(key) {
            Some(&index) => {
                let storage = &self.storages[index as usize];
                if (storage.class, storage.count) != (class, count) {
                    let problem = "it is mentioned twice with different types or sizes";
                    return Err(FormatError::malformed(
                        self.origin(),
                        format!("storage {}", quoted(key)),
                        problem,
                    ));
                }
                index
            }
            None => {
                self.budget.objects(GROWTH * STORAGE)?;
                self.storages.push(Storage { key, class, count, data: None });
                let index = self.storages.len() as u32 - 1;
                self.keys.insert(key, index);
                index
            }
        };
        self.put(Node::Storage { index, base })
    }

    /// The place of a declared storage.
    pub(super) fn find_storage(&self, key: &str) -> Option<usize> {
        self.keys.get(key).map(|&index| index as usize)
    }

    /// What a value refers to.
    pub(super) fn node(&self, value: Value<'a>) -> Option<&Node<'a>> {
        match value {
            Value::Node(place) => self.nodes.get(place as usize),
            _ => None,
        }
    }

    /// The elements of a list, tuple or set.
    pub(super) fn elements(&self, value: Value<'a>) -> Option<&[Value<'a>]> {
        match self.node(value)? {
            Node::Sequence(values) => Some(values),
            _ => None,
        }
    }

    /// The entries of a dictionary.
    pub(super) fn entries(&self, value: Value<'a>) -> Option<&[(Value<'a>, Value<'a>)]> {
        match self.node(value)? {
            Node::Dict(entries) => Some(entries),
            _ => None,
        }
    }

    /// A tensor.
    pub(super) fn view(&self, value: Value<'a>) -> Option<&View> {
        match self.node(value)? {
            Node::Tensor(view) => Some(view),
            _ => None,
        }
    }

    /// The data of tensor `value`, of elements `stored`, out of the bytes of its storage.
    ///
    /// # Errors
    /// As [`strided::read`].
    pub(super) fn materialise(
        &mut self,
        value: Value<'a>,
        stored: StoredType,
        storage: &ByteView,
        name: &str,
    ) -> Result<ByteView> {
        let Value::Node(place) = value else { return Ok(ByteView::from_vec(Vec::new())) };
        match self.nodes.get(place as usize) {
            Some(Node::Tensor(view)) => strided::read(view, stored, storage, name, &mut self.budget),
            _ => Ok(ByteView::from_vec(Vec::new())),
        }
    }

    /// Appends to a list or set; what is appended to an inert object is dropped. False if it is neither.
    pub(super) fn append(&mut self, list: Value<'a>, values: &[Value<'a>]) -> Result<bool> {
        self.budget.objects(GROWTH * VALUE * values.len())?;
        Ok(match list {
            Value::Other => true,
            Value::Node(place) => match self.nodes.get_mut(place as usize) {
                Some(Node::Sequence(list)) => {
                    list.extend_from_slice(values);
                    true
                }
                _ => false,
            },
            _ => false,
        })
    }

    /// Adds keys and values, in turn, to a dictionary; those of an inert object are dropped. False if it is neither
    /// or a value is missing.
    pub(super) fn set_items(&mut self, dict: Value<'a>, flat: &[Value<'a>]) -> Result<bool> {
        let (pairs, rest) = flat.as_chunks::<2>();
        self.budget.objects(GROWTH * ITEM * pairs.len())?;
        Ok(match dict {
            _ if !rest.is_empty() => false,
            Value::Other => true,
            Value::Node(place) => match self.nodes.get_mut(place as usize) {
                Some(Node::Dict(entries)) => {
                    entries.extend(pairs.iter().map(|&[key, value]| (key, value)));
                    true
                }
                _ => false,
            },
            _ => false,
        })
    }
}
