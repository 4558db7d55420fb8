//! [`MemorySize`]: a byte count that people can read and write.

use std::fmt;
use std::str::FromStr;

use crate::CoreError;

/// A number of bytes. Displays with binary units, parses decimal and binary ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct MemorySize(u64);

#[allow(non_snake_case, reason = "unit names as people write them: MemorySize::GB(2)")]
impl MemorySize {
    /// `n` bytes.
    pub const fn bytes(n: u64) -> Self {
        Self(n)
    }

    /// `n` times 2^10 bytes.
    pub const fn KB(n: u64) -> Self {
        Self(n << 10)
    }

    /// `n` times 2^20 bytes.
    pub const fn MB(n: u64) -> Self {
        Self(n << 20)
    }

    /// `n` times 2^30 bytes.
    pub const fn GB(n: u64) -> Self {
        Self(n << 30)
    }

    /// The count.
    pub const fn as_bytes(self) -> u64 {
        self.0
    }

    /// The count in units of 2^20 bytes.
    pub fn as_mib(self) -> f64 {
        self.0 as f64 / (1u64 << 20) as f64
    }
}

impl fmt::Display for MemorySize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let n = self.0 as f64;
        match self.0 {
            0..1024 => write!(f, "{} B", self.0),
            1024..1_048_576 => write!(f, "{:.1} KiB", n / 1024.0),
            1_048_576..1_073_741_824 => write!(f, "{:.1} MiB", n / 1_048_576.0),
            _ => write!(f, "{:.2} GiB", n / 1_073_741_824.0),
        }
    }
}

impl FromStr for MemorySize {
    type Err = CoreError;

    /// Reads `512MB`, `2GiB`, `1.5g`, `4096`. `K`, `M`, `G`, `T` with or without `B`/`iB` all mean powers of 1024.
    fn from_str(text: &str) -> Result<Self, CoreError> {
        let bad = || CoreError::BadMemorySize { text: text.to_owned() };
        let lower = text.trim().to_ascii_lowercase();
        let split = lower.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(lower.len());
        let (number, unit) = lower.split_at(split);
        let number: f64 = number.parse().map_err(|_| bad())?;
        let shift = match unit.trim() {
            "" | "b" => 0,
            "k" | "kb" | "kib" => 10,
            "m" | "mb" | "mib" => 20,
            "g" | "gb" | "gib" => 30,
            "t" | "tb" | "tib" => 40,
            _ => return Err(bad()),
        };
        let bytes = number * (1u64 << shift) as f64;
        if !bytes.is_finite() || bytes > u64::MAX as f64 / 2.0 {
            return Err(bad());
        }
        Ok(Self(bytes as u64))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_and_writes() {
        for (text, bytes) in
            [("4096", 4096), ("2GiB", 2 << 30), ("1.5g", 3 << 29), ("512 MB", 512 << 20), ("0", 0)]
        {
            assert_eq!(text.parse::<MemorySize>().unwrap().as_bytes(), bytes, "{text}");
        }
        for text in ["", "GB", "1e9", "-1", "2 pigs", "99999999999T"] {
            assert!(text.parse::<MemorySize>().is_err(), "{text}");
        }
        assert_eq!(MemorySize::GB(2).to_string(), "2.00 GiB");
        assert_eq!(MemorySize::bytes(1536).to_string(), "1.5 KiB");
    }
}
