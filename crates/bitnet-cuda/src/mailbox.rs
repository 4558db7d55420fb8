//! [`Mailbox`]: the host's side of the memory through which steps of decoding get their inputs and give their results.
//! `kernels/mailbox.cu` is the device's side.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::gpu::{Address, Shared};

/// Most bytes of inputs of a step.
const INPUTS: usize = 256 << 10;
/// Most pairs of a token and its logit of a row.
const ROOM: usize = 512;
/// Most rows.
const ROWS: usize = 64;
/// Words before the results of the first row: flags and padding.
pub(crate) const RESULTS_HEAD: usize = 2;

/// Where the words lie that both sides look at, each in a line of its own, and what is behind them.
const POSTED: usize = 0;
const DELIVERED: usize = 64;
const GAVE_UP: usize = 128;
const INPUTS_AT: usize = 256;
const RESULTS_AT: usize = INPUTS_AT + INPUTS;
/// Bytes of all.
pub(crate) const BYTES: usize = RESULTS_AT + 4 * (RESULTS_HEAD + ROWS * row_words(ROOM));

/// Words of a row's results with room for so many pairs.
pub(crate) const fn row_words(room: usize) -> usize {
    2 + 2 * room
}

/// Room for what is found of each row of a step, where `capacity` is the most that is kept on the device.
pub(crate) fn room(capacity: usize) -> usize {
    capacity.min(ROOM)
}

/// Whether inputs of so many bytes and results of so many rows fit.
pub(crate) fn fits(inputs: usize, rows: usize) -> bool {
    inputs <= INPUTS && rows <= ROWS
}

/// What became of a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    /// Its results are there.
    Delivered,
    /// Its inputs did not come in time.
    GaveUp,
}

/// Where kernels find the mailbox, and what they note for themselves.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Post {
    pub(crate) mail: Address,
    pub(crate) inputs: Address,
    pub(crate) results: Address,
    pub(crate) turn: Address,
}

/// The memory, whose owner lets nobody write to inputs that the device may read.
pub(crate) struct Mailbox {
    shared: Shared,
    turn: Address,
}

// SAFETY: the memory is that of a device, which goes wherever this goes; it is used by one thread of the host at a time.
unsafe impl Send for Mailbox {}

impl Mailbox {
    /// On zeroed memory that stays for as long as this is used, and with zeroed memory of the device for what kernels note.
    pub(crate) fn new(shared: Shared, turn: Address) -> Self {
        assert!(shared.bytes >= BYTES, "the mailbox was given its memory");
        Self { shared, turn }
    }

    /// Where kernels find it.
    pub(crate) fn post(&self) -> Post {
        let at = |place: usize| self.shared.device + place as u64;
        Post { mail: at(0), inputs: at(INPUTS_AT), results: at(RESULTS_AT), turn: self.turn }
    }

    fn word(&self, place: usize) -> &AtomicU64 {
        // SAFETY: the place is inside and aligned; both sides use it as an atomic word only.
        unsafe { AtomicU64::from_ptr(self.shared.host.add(place).as_ptr().cast()) }
    }

    /// Gives a step its inputs. The one before has ended, so nobody reads what was there.
    pub(crate) fn give(&mut self, number: u64, inputs: &[u8]) {
        let count = inputs.len().min(INPUTS);
        // SAFETY: inside the memory; the device reads it only once the number below is there.
        unsafe {
            let to = self.shared.host.add(INPUTS_AT).as_ptr();
            std::ptr::copy_nonoverlapping(inputs.as_ptr(), to, count);
        }
        self.word(POSTED).store(2 * number, Ordering::Release);
    }

    /// Tells a step that it shall not be.
    pub(crate) fn skip(&mut self, number: u64) {
        self.word(POSTED).store(2 * number + 1, Ordering::Release);
    }

    /// What became of a step that got its inputs, if it has ended.
    pub(crate) fn end(&self, number: u64) -> Option<End> {
        // In this order: one that was launched behind it may give up at any time after it has delivered.
        let gave_up = self.word(GAVE_UP).load(Ordering::Acquire) >= number;
        if self.word(DELIVERED).load(Ordering::Acquire) == number {
            Some(End::Delivered)
        } else {
            gave_up.then_some(End::GaveUp)
        }
    }

    /// What the last step delivered: [`RESULTS_HEAD`] words, the first of which is not zero if something is not a number, then
    /// for each row [`row_words`]: a count, nothing, and pairs, if there was room for all of them.
    pub(crate) fn results(&self) -> &[u32] {
        // SAFETY: inside the memory and aligned; the device writes here only between a call of `give` and the end of its
        // step, and `give` needs the mailbox for itself.
        unsafe {
            let from = self.shared.host.add(RESULTS_AT).as_ptr().cast::<u32>();
            std::slice::from_raw_parts(from, (BYTES - RESULTS_AT) / 4)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::ptr::NonNull;

    #[test]
    fn both_sides_find_their_words() {
        let mut memory = vec![0u64; BYTES.div_ceil(8)];
        let host = NonNull::new(memory.as_mut_ptr().cast()).unwrap();
        let mut mailbox = Mailbox::new(Shared { host, device: 1 << 20, bytes: BYTES }, 5);
        mailbox.give(3, &[1, 2, 3]);
        assert_eq!(mailbox.end(3), None);
        mailbox.word(DELIVERED).store(3, Ordering::Release);
        mailbox.word(GAVE_UP).store(4, Ordering::Release);
        assert_eq!([3, 4, 5].map(|n| mailbox.end(n)), [Some(End::Delivered), Some(End::GaveUp), None]);
        assert_eq!(mailbox.word(POSTED).load(Ordering::Acquire), 6);
        mailbox.skip(4);
        assert_eq!(mailbox.word(POSTED).load(Ordering::Acquire), 9);
        let post = mailbox.post();
        assert_eq!((post.inputs - post.mail, post.results - post.mail), (256, 256 + INPUTS as u64));
        assert!(mailbox.results().len() > ROWS * row_words(ROOM));
    }
}
