//! Finding the weights in what a checkpoint holds beside them: wrappers, optimizer state, counters.

use std::collections::HashSet;

use super::heap::{Heap, Value};
use crate::error::quoted;
use crate::{FormatError, Result};

/// Keys under which trainers put the state dict.
const WRAPPERS: [&str; 6] = ["state_dict", "model_state_dict", "model_state", "model", "module", "net"];

/// Parts of keys under which things lie that are no weights although they hold tensors.
const NO_WEIGHTS: [&str; 10] =
    ["optim", "sched", "ema", "rng", "scaler", "callbacks", "loops", "hyper", "args", "config"];

/// What wrappers of the model class put before every name.
const PREFIXES: [&str; 2] = ["module.", "_orig_mod."];

/// Deepest nesting of dictionaries.
const DEPTH: usize = 16;

/// Longest name of a tensor.
const LONGEST_NAME: usize = 4096;

/// Bytes that a tensor may take in the list and the set made of it, beside its name.
const TENSOR: usize = 1024;

/// The tensors of a state dict by name, in order, and what lay beside it.
#[derive(Debug)]
pub(super) struct State<'a> {
    /// Name and place on the heap.
    pub(super) tensors: Vec<(String, Value<'a>)>,
    /// Keys of the checkpoint that were left out.
    pub(super) skipped: Vec<String>,
}

/// Finds the state dict.
///
/// # Errors
/// If there is none.
pub(super) fn find<'a>(heap: &mut Heap<'a, '_>, root: Value<'a>) -> Result<State<'a>> {
    if heap.entries(root).is_none() {
        let what = match root {
            root if heap.view(root).is_some() => "a single tensor",
            root if heap.elements(root).is_some() => "a list",
            Value::Text(_) => "a string",
            _ => "an object that is no dictionary",
        };
        return Err(no_state(heap, &format!("{what} in place of a state dict")));
    }
    let mut finder = Finder { heap, seen: HashSet::new(), tensors: Vec::new(), skipped: Vec::new() };
    let dict = finder.unwrap(root)?;
    finder.collect(dict, &mut String::new(), 0)?;
    let Finder { mut tensors, skipped, .. } = finder;
    if tensors.is_empty() {
        return Err(no_state(heap, "a checkpoint without tensors"));
    }
    strip_prefixes(&mut tensors);
    Ok(State { tensors, skipped })
}

fn no_state(heap: &Heap<'_, '_>, what: &str) -> FormatError {
    FormatError::Unsupported {
        origin: heap.origin().to_owned(),
        what: what.to_owned(),
        remedy: "save the weights by name: torch.save(model.state_dict(), path)",
    }
}

struct Finder<'h, 'a, 'o> {
    heap: &'h mut Heap<'a, 'o>,
    /// Dictionaries that were visited, by place: a file may refer to one a million times.
    seen: HashSet<u32>,
    tensors: Vec<(String, Value<'a>)>,
    skipped: Vec<String>,
}

impl<'a> Finder<'_, 'a, '_> {
    /// Goes into wrappers as long as there are any.
    fn unwrap(&mut self, mut dict: Value<'a>) -> Result<Value<'a>> {
        for _ in 0..DEPTH {
            let entries = self.heap.entries(dict).unwrap_or_default();
            let wrapped = WRAPPERS.iter().find_map(|wrapper| {
                let is = |(key, value): &&(Value<'a>, Value<'a>)| {
                    matches!(key, Value::Text(key) if key == wrapper) && self.is_state(*value)
                };
                entries.iter().find(is)
            });
            let Some(&(Value::Text(wrapper), inner)) = wrapped else { break };
            let others = entries.iter().filter_map(|(key, _)| match key {
                Value::Text(key) if *key != wrapper => Some(*key),
                _ => None,
            });
            // Enough to tell people, however many there are.
            let others: Vec<String> = others.take(20).map(|key| key.chars().take(60).collect()).collect();
            self.skipped.extend(others);
            dict = inner;
        }
        Ok(dict)
    }

    /// Whether a value is a dictionary with tensors or a wrapper of one.
    fn is_state(&self, value: Value<'a>) -> bool {
        self.heap.entries(value).is_some_and(|entries| {
            entries.iter().any(|&(key, value)| {
                let wrapper = matches!(key, Value::Text(key) if WRAPPERS.contains(&key));
                self.heap.view(value).is_some() || wrapper && self.heap.entries(value).is_some()
            })
        })
    }

    /// Collects the tensors of a dictionary and of those in it; names are joined by dots.
    fn collect(&mut self, dict: Value<'a>, prefix: &mut String, depth: usize) -> Result<()> {
        let Value::Node(place) = dict else { return Ok(()) };
        if depth == DEPTH || !self.seen.insert(place) {
            return Ok(());
        }
        self.heap.budget.objects(64)?;
        let count = self.heap.entries(dict).map_or(0, <[_]>::len);
        for index in 0..count {
            let Some(&(Value::Text(key), value)) = self.heap.entries(dict).and_then(|all| all.get(index))
            else {
                continue;
            };
            if prefix.len() + key.len() > LONGEST_NAME {
                let problem = format!("{} is longer than names are ({LONGEST_NAME} bytes)", quoted(key));
                return Err(FormatError::malformed(self.heap.origin(), "the name of a tensor", problem));
            }
            let before = prefix.len();
            prefix.push_str(key);
            if self.heap.view(value).is_some() {
                self.heap.budget.objects(TENSOR + 4 * prefix.len())?;
                self.tensors.push((prefix.clone(), value));
            } else if self.heap.entries(value).is_some() {
                if depth == 0 && NO_WEIGHTS.iter().any(|part| key.contains(part)) {
                    self.skipped.extend((self.skipped.len() < 20).then(|| key.chars().take(60).collect()));
                } else {
                    prefix.push('.');
                    self.collect(value, prefix, depth + 1)?;
                }
            }
            prefix.truncate(before);
        }
        Ok(())
    }
}

/// Takes off what stands before all names because the model was wrapped in another class.
fn strip_prefixes(tensors: &mut [(String, Value<'_>)]) {
    let all = |tensors: &[(String, Value<'_>)], test: &dyn Fn(&str) -> bool| {
        tensors.iter().all(|(name, _)| test(name))
    };
    let strip = |tensors: &mut [(String, Value<'_>)], len: usize| {
        tensors.iter_mut().for_each(|(name, _)| drop(name.drain(..len)));
    };
    while let Some(prefix) = PREFIXES.iter().find(|prefix| all(tensors, &|name| name.starts_with(**prefix))) {
        strip(tensors, prefix.len());
    }
    // A Lightning module that holds the model as `model`.
    let inner = |name: &str| name.starts_with("model.model.") || name.starts_with("model.lm_head.");
    if all(tensors, &inner) {
        strip(tensors, "model.".len());
    }
}
