//! [`Mailbox`]: the host's side of the memory through which steps of decoding get their inputs and give their results, without
//! copies that the driver makes. `kernels/mailbox.cu` is the device's side.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::CudaError;
use crate::gpu::{Address, Gpu, Shared};

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

// SAFETY: the memory is that of a device, which goes wherever this goes; it is used by one thread of the host at a time.
unsafe impl Send for Mailbox {}

impl Mailbox {
    /// On zeroed memory that stays for as long as this is used, and with eight bytes of the device for the number of the step.
    pub(crate) fn new(shared: Shared, number: Address) -> Self {
        assert!(shared.bytes >= BYTES, "the mailbox was given its memory");
        Self { shared, number, given: 0 }
    }

    /// Where kernels find it.
    pub(crate) fn post(&self) -> Post {
        let at = |place: usize| self.shared.device + place as u64;
        Post { mail: at(0), inputs: at(INPUTS_AT), results: at(RESULTS_AT), number: self.number }
    }

    fn word(&self, place: usize) -> &AtomicU64 {
        // SAFETY: the place is inside and aligned; both sides use it as an atomic word only.
        unsafe { AtomicU64::from_ptr(self.shared.host.add(place).as_ptr().cast()) }
    }

    /// Takes the inputs of the next step, whose graph is launched behind this. The one before has ended.
    pub(crate) fn give(&mut self, inputs: &[u8]) {
        let count = inputs.len().min(INPUTS);
        // SAFETY: inside the memory; no step that could read it is on its way.
        unsafe {
            let to = self.shared.host.add(INPUTS_AT).as_ptr();
            std::ptr::copy_nonoverlapping(inputs.as_ptr(), to, count);
        }
        self.given += 1;
        self.word(POSTED).store(self.given, Ordering::Release);
    }

    fn is_delivered(&self) -> bool {
        self.word(DELIVERED).load(Ordering::Acquire) == self.given
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

    /// What the last step delivered: [`RESULTS_HEAD`] words, the first of which is not zero if something is not a number, then
    /// for each row [`row_words`]: a count, nothing, and pairs, if there was room for all of them.
    pub(crate) fn results(&self) -> &[u32] {
        // SAFETY: inside the memory and aligned; the device writes here only between `give`, which needs the mailbox for
        // itself, and the end of its step.
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
        mailbox.give(&[1, 2, 3]);
        mailbox.give(&[4, 5]);
        assert_eq!(mailbox.word(POSTED).load(Ordering::Acquire), 2);
        mailbox.word(DELIVERED).store(1, Ordering::Release);
        assert!(!mailbox.is_delivered(), "that was the step before");
        mailbox.word(DELIVERED).store(2, Ordering::Release);
        assert!(mailbox.is_delivered());
        let post = mailbox.post();
        assert_eq!((post.inputs - post.mail, post.results - post.mail), (256, 256 + INPUTS as u64));
        assert!(mailbox.results().len() > ROWS * row_words(ROOM));
    }
}
