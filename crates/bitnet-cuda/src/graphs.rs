//! [`Graphs`]: passes of decoding that were recorded, so that one call starts all of their kernels.
//!
//! A graph is good for every pass of the same sizes in the same buffer. Sizes are recorded when they come a second time.

use std::collections::HashMap;

use crate::gpu::{Address, Gpu, GraphId};
use crate::scratch::Sizes;

/// Graphs that are kept; those used longest ago go first.
const MOST: usize = 64;

/// What must be the same for a graph to be good.
pub(crate) type Key = (Sizes, Address);

#[derive(Debug, Default)]
struct Entry {
    graph: Option<GraphId>,
    used: u64,
}

/// Recorded passes.
#[derive(Debug, Default)]
pub(crate) struct Graphs {
    entries: HashMap<Key, Entry>,
    clock: u64,
    /// Recorded, and run.
    pub(crate) counts: [u64; 2],
}

/// What to do with a pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    /// Run its kernels one by one.
    Direct,
    /// Record it, then run that.
    Record,
    /// Run what was recorded.
    Run(GraphId),
}

impl Graphs {
    /// What to do with a pass of these sizes.
    pub(crate) fn way(&mut self, key: Key) -> Way {
        self.clock += 1;
        let clock = self.clock;
        let entry = self.entries.entry(key).or_default();
        let seen = std::mem::replace(&mut entry.used, clock) != 0;
        match entry.graph {
            Some(graph) => {
                self.counts[1] += 1;
                Way::Run(graph)
            }
            None if seen => Way::Record,
            None => Way::Direct,
        }
    }

    /// Keeps what was recorded.
    pub(crate) fn keep(&mut self, gpu: &mut dyn Gpu, key: Key, graph: GraphId) {
        while self.entries.len() > MOST {
            let oldest = self.entries.iter().min_by_key(|(_, entry)| entry.used).map(|(key, _)| *key);
            let Some(removed) = oldest.and_then(|key| self.entries.remove(&key)) else { break };
            removed.graph.into_iter().for_each(|graph| gpu.drop_graph(graph));
        }
        self.counts[0] += 1;
        self.entries.insert(key, Entry { graph: Some(graph), used: self.clock });
    }

    /// Forgets everything: addresses have changed.
    pub(crate) fn clear(&mut self, gpu: &mut dyn Gpu) {
        for (_, entry) in self.entries.drain() {
            entry.graph.into_iter().for_each(|graph| gpu.drop_graph(graph));
        }
    }
}
