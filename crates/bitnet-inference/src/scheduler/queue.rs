//! [`Queue`]: who waits, and who is next.
//!
//! Higher priorities come first. Within a priority clients take turns: each has a line of its own, and the line that gave
//! a request goes behind the others.

use std::cmp::Reverse;
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

type Client = Option<Arc<str>>;

/// The line of one client.
#[derive(Debug)]
struct Line<T> {
    client: Client,
    waiting: VecDeque<T>,
}

/// Waiting things by priority and client.
#[derive(Debug)]
pub(super) struct Queue<T> {
    /// No list and no line is empty.
    levels: BTreeMap<Reverse<i32>, VecDeque<Line<T>>>,
    len: usize,
}

impl<T> Default for Queue<T> {
    fn default() -> Self {
        Self { levels: BTreeMap::new(), len: 0 }
    }
}

impl<T> Queue<T> {
    /// How many wait.
    pub(super) fn len(&self) -> usize {
        self.len
    }

    pub(super) fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Puts a thing at the end of its client's line.
    pub(super) fn push(&mut self, priority: i32, client: Client, item: T) {
        let lines = self.levels.entry(Reverse(priority)).or_default();
        match lines.iter_mut().find(|line| line.client == client) {
            Some(line) => line.waiting.push_back(item),
            None => lines.push_back(Line { client, waiting: VecDeque::from([item]) }),
        }
        self.len += 1;
    }

    /// Who is next.
    pub(super) fn peek(&self) -> Option<&T> {
        self.levels.first_key_value()?.1.front()?.waiting.front()
    }

    /// Takes the next; its client's line goes to the end.
    pub(super) fn pop(&mut self) -> Option<T> {
        let mut level = self.levels.first_entry()?;
        let lines = level.get_mut();
        let mut line = lines.pop_front()?;
        let item = line.waiting.pop_front();
        if !line.waiting.is_empty() {
            lines.push_back(line);
        }
        if lines.is_empty() {
            level.remove();
        }
        self.len -= usize::from(item.is_some());
        item
    }

    /// Takes out all that `leaves` names.
    pub(super) fn extract(&mut self, mut leaves: impl FnMut(&T) -> bool) -> Vec<T> {
        let mut out = Vec::new();
        for lines in self.levels.values_mut() {
            for line in lines.iter_mut() {
                if line.waiting.iter().any(&mut leaves) {
                    let (gone, stay) = line.waiting.drain(..).partition(&mut leaves);
                    line.waiting = stay;
                    out.extend::<VecDeque<T>>(gone);
                }
            }
            lines.retain(|line| !line.waiting.is_empty());
        }
        self.levels.retain(|_, lines| !lines.is_empty());
        self.len -= out.len();
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn drain(queue: &mut Queue<u32>) -> Vec<u32> {
        std::iter::from_fn(|| {
            let next = queue.peek().copied();
            assert_eq!(queue.pop(), next);
            next
        })
        .collect()
    }

    fn client(name: &str) -> Client {
        Some(Arc::from(name))
    }

    #[test]
    fn clients_take_turns_within_a_priority() {
        let mut queue = Queue::default();
        for i in 0..4 {
            queue.push(0, client("busy"), i);
        }
        queue.push(0, client("other"), 10);
        queue.push(0, None, 20);
        queue.push(5, client("busy"), 30);
        queue.push(-1, client("other"), 40);
        queue.push(0, client("other"), 11);
        assert_eq!(queue.len(), 9);
        assert_eq!(drain(&mut queue), [30, 0, 10, 20, 1, 11, 2, 3, 40]);
        assert!(queue.is_empty());
    }

    #[test]
    fn a_client_that_comes_late_waits_for_one_request_of_each_other() {
        let mut queue = Queue::default();
        for i in 0..100 {
            queue.push(0, client(["a", "b"][i % 2]), i as u32);
        }
        assert_eq!(queue.pop(), Some(0));
        queue.push(0, client("late"), 1000);
        let order = drain(&mut queue);
        assert_eq!(order.iter().position(|&x| x == 1000), Some(2));
    }

    #[test]
    fn what_leaves_is_gone_and_the_rest_keeps_its_order() {
        let mut queue = Queue::default();
        for i in 0..10 {
            queue.push(i32::from(i % 2 == 0), client(["a", "b", "c"][i as usize % 3]), i);
        }
        let mut gone = queue.extract(|i| i % 3 == 0);
        gone.sort_unstable();
        assert_eq!(gone, [0, 3, 6, 9]);
        assert_eq!(queue.len(), 6);
        assert_eq!(drain(&mut queue), [2, 4, 8, 1, 5, 7]);
    }
}
