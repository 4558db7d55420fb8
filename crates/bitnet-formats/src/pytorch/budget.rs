//! [`Budget`]: how much memory a file may cost before it is refused.

use crate::{FormatError, Result};

/// Memory that any file may take for names, shapes and containers, whatever its size.
const FREE_BYTES: u64 = 8 << 20;

/// What is left of the memory that one file may cost. Every growth is charged before it happens, with the largest
/// number of bytes that it can hold while its buffer moves.
#[derive(Debug)]
pub(super) struct Budget<'o> {
    objects: u64,
    copies: u64,
    file: u64,
    origin: &'o str,
}

impl<'o> Budget<'o> {
    /// The budget of a file of `len` bytes: objects of its size and a little, and copies of its size.
    pub(super) fn new(len: u64, origin: &'o str) -> Self {
        Self { objects: FREE_BYTES + len, copies: len, file: len, origin }
    }

    /// The file, for messages.
    pub(super) fn origin(&self) -> &'o str {
        self.origin
    }

    /// Charges names, shapes and containers.
    ///
    /// # Errors
    /// If they are out of all proportion to the file.
    pub(super) fn objects(&mut self, bytes: usize) -> Result<()> {
        match self.objects.checked_sub(bytes as u64) {
            Some(left) => {
                self.objects = left;
                Ok(())
            }
            None => {
                let problem =
                    format!("its objects would take more memory than a file of {} bytes may", self.file);
                Err(FormatError::malformed(self.origin, "the pickle", problem))
            }
        }
    }

    /// Charges tensor data that must be copied into order.
    ///
    /// # Errors
    /// If all copies together would be larger than the file.
    pub(super) fn copy(&mut self, bytes: u64, tensor: &str) -> Result<()> {
        match self.copies.checked_sub(bytes) {
            Some(left) => {
                self.copies = left;
                Ok(())
            }
            None => Err(FormatError::Unsupported {
                origin: self.origin.to_owned(),
                what: format!(
                    "tensor {tensor}: a view out of order of {bytes} bytes, with those before it larger than the file,"
                ),
                remedy: "save contiguous tensors: torch.save({k: v.contiguous() for k, v in state.items()}, path)",
            }),
        }
    }
}
