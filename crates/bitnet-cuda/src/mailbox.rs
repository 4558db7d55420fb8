//! [`Mailbox`]: the host's side of the memory through which steps of decoding get their inputs and give their results, without
//! copies that the driver makes. `kernels/mailbox.cu` is the device's side.
//!
//! A graph is launched when its inputs are known. One that is launched ahead and waits for them on the device begins 4 us
//! earlier (H200, a step of 790 us), but whenever the batch changes instead, all of its kernels run for nothing.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use crate::CudaError;
use crate::gpu::{Address, Gpu, Shared};

/// Most bytes of inputs of a step.
const INPUTS: usize = 256 << 10;
/// Most pairs of a token and its logit of a row.
const ROOM: usize = 1024;
/// Most rows.
const ROWS: usize = 64;
/// Words before the results of the first row: flags and padding.
const RESULTS_HEAD: usize = 2;

/// Where the words lie that both sides look at, each in a line of its own, and what is behind them.
const POSTED: usize = 0;
const DELIVERED: usize = 64;
const INPUTS_AT: usize = 256;
const RESULTS_AT: usize = INPUTS_AT + INPUTS;
/// Bytes of all.
pub(crate) const BYTES: usize = RESULTS_AT + 4 * (RESULTS_HEAD + ROWS * row_words(ROOM));

/// Looks at the word between looks at the clock.
const LOOKS: u32 = 64;
/// How often the device is asked whether it is still at work.
const ASK: Duration = Duration::from_micros(200);
/// When the host stops looking, and sleeps until the device is done.
const SLEEP: Duration = Duration::from_millis(20);

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

/// Where kernels find the mailbox, and keep the number of the step.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Post {
    pub(crate) mail: Address,
    pub(crate) inputs: Address,
    pub(crate) results: Address,
    pub(crate) number: Address,
}

/// The memory. One step at a time uses it.
pub(crate) struct Mailbox {
    shared: Shared,
    number: Address,
    /// Number of the last step.
    given: u64,
}

impl Mailbox {
    /// On zeroed memory that stays for as long as this is used, and with eight bytes of the device for the number of the step.
    pub(crate) fn new(shared: Shared, number: Address) -> Self {
        assert!(shared.len() >= BYTES, "the mailbox was given its memory");
        Self { shared, number, given: 0 }
    }

    /// Where kernels find it.
    pub(crate) fn post(&self) -> Post {
        let at = |place: usize| self.shared.device(place);
        Post { mail: at(0), inputs: at(INPUTS_AT), results: at(RESULTS_AT), number: self.number }
    }

    /// Takes the inputs of the next step, whose graph is launched behind this. The one before has ended.
    pub(crate) fn give(&mut self, inputs: &[u8]) {
        self.shared.write(INPUTS_AT, &inputs[..inputs.len().min(INPUTS)]);
        self.given += 1;
        self.shared.word(POSTED).store(self.given, Ordering::Release);
    }

    fn is_delivered(&self) -> bool {
        self.shared.word(DELIVERED).load(Ordering::Acquire) == self.given
    }

    /// Waits for the results of the step that was given its inputs last. Looking at a word is the fastest way to hear of them; a
    /// device that fails or takes its time is noticed too.
    ///
    /// # Errors
    /// If the driver, or any work queued before, failed.
    pub(crate) fn wait(&self, gpu: &mut dyn Gpu) -> Result<(), CudaError> {
        let begin = Instant::now();
        let mut asked = begin;
        let mut busy = true;
        loop {
            for _ in 0..LOOKS {
                if self.is_delivered() {
                    return Ok(());
                }
                std::hint::spin_loop();
            }
            if !busy {
                let what = "a step ended without results".to_owned();
                return Err(CudaError::Driver { call: "deliver", what });
            }
            let now = Instant::now();
            if now - begin > SLEEP {
                gpu.synchronize()?;
                busy = false;
            } else if now - asked > ASK {
                asked = now;
                busy = gpu.is_busy()?;
            }
        }
    }

    /// Whether all results of the last step are numbers.
    pub(crate) fn is_finite(&self) -> bool {
        self.shared.words(RESULTS_AT, 1)[0].load(Ordering::Relaxed) == 0
    }

    /// Takes what the last step found of a row: a count, nothing, and if there was [`room`] for all of them so many pairs.
    pub(crate) fn take_row(&self, row: usize, room: usize, found: &mut Vec<u32>) {
        let place = RESULTS_AT + 4 * (RESULTS_HEAD + row * row_words(room));
        let words = self.shared.words(place, row_words(room));
        let count = words[0].load(Ordering::Relaxed) as usize;
        found.clear();
        let there = if count <= room { row_words(count) } else { 2 };
        found.extend(words[..there].iter().map(|word| word.load(Ordering::Relaxed)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_sides_find_their_words() {
        let mut mailbox = Mailbox::new(Shared::zeroed(BYTES), 5);
        mailbox.give(&[1, 2, 3]);
        mailbox.give(&[4, 5]);
        assert_eq!(mailbox.shared.word(POSTED).load(Ordering::Acquire), 2);
        mailbox.shared.word(DELIVERED).store(1, Ordering::Release);
        assert!(!mailbox.is_delivered(), "that was the step before");
        mailbox.shared.word(DELIVERED).store(2, Ordering::Release);
        assert!(mailbox.is_delivered());
        let post = mailbox.post();
        assert_eq!((post.inputs - post.mail, post.results - post.mail), (256, 256 + INPUTS as u64));
        let mut found = Vec::new();
        mailbox.take_row(ROWS - 1, ROOM, &mut found);
        assert!(mailbox.is_finite() && found == [0, 0]);
    }
}
