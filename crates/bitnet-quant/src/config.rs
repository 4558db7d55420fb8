//! [`QuantizationConfig`]: how a model is quantised, and what of that this engine computes with.

use bitnet_core::DType;

use crate::{QuantError, Result, absmean};

/// How weights and activations are quantised. The default is BitNet b1.58: ternary weights with one scale a tensor, int8
/// activations with one scale a row, both symmetric around zero. It is also all there is: other combinations can be
/// written down, and are refused by [`check`](Self::check) with the reason.
///
/// ```
/// use bitnet_quant::QuantizationConfig;
///
/// let config = QuantizationConfig::default();
/// let (trits, scale) = config.quantize(&[0.9, -1.2, 0.1, 1.1])?;
/// assert_eq!(trits, [1, -1, 0, 1]);
/// assert!((scale - 0.825).abs() < 1e-6, "the mean of the absolute values");
///
/// let four_bits = QuantizationConfig { weight_bits: 4.0, ..config };
/// assert!(four_bits.check().unwrap_err().to_string().contains("ternary"));
/// # Ok::<(), bitnet_quant::QuantError>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct QuantizationConfig {
    /// Bits of a weight: 1.58 is a trit, however it is stored. 1.6 asks for five trits a byte, 2 for two bits a trit;
    /// results are the same bits.
    pub weight_bits: f32,
    /// Bits of an activation: 8.
    pub activation_bits: u32,
    /// Whether zero is in the middle of the range: yes.
    pub symmetric: bool,
    /// Whether each output of a weight matrix has a scale of its own: no, a matrix has one.
    pub per_channel: bool,
}

impl Default for QuantizationConfig {
    fn default() -> Self {
        Self { weight_bits: 1.58, activation_bits: 8, symmetric: true, per_channel: false }
    }
}

/// How trits are to be kept in memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TritStorage {
    /// Whichever is faster.
    Any,
    /// Five trits a byte.
    FiveTrits,
    /// Two bits a trit.
    TwoBit,
}

impl QuantizationConfig {
    /// How trits are to be kept, if the engine computes with this configuration.
    ///
    /// # Errors
    /// [`QuantError::Unsupported`] that names the field and what is supported.
    pub fn check(&self) -> Result<TritStorage> {
        let refuse =
            |field, value: String, supported| Err(QuantError::Unsupported { field, value, supported });
        if self.activation_bits != 8 {
            let supported = "8: products take int8 activations";
            return refuse("activation_bits", self.activation_bits.to_string(), supported);
        }
        if !self.symmetric {
            let supported = "true: trits and int8 activations have no zero point";
            return refuse("symmetric", "false".to_owned(), supported);
        }
        if self.per_channel {
            let supported = "false: a ternary matrix has one scale";
            return refuse("per_channel", "true".to_owned(), supported);
        }
        match self.weight_bits {
            bits if (1.58..1.6).contains(&bits) => Ok(TritStorage::Any),
            1.6 => Ok(TritStorage::FiveTrits),
            2.0 => Ok(TritStorage::TwoBit),
            bits => {
                let supported =
                    "1.58 (ternary), 1.6 (five trits a byte) or 2 (two bits a trit): weights are ternary";
                refuse("weight_bits", bits.to_string(), supported)
            }
        }
    }

    /// Quantises the weights of one matrix by absmean: its trits, and what a trit stands for.
    ///
    /// # Errors
    /// As [`check`](Self::check), and [`QuantError::NotFinite`].
    pub fn quantize(&self, weights: &[f32]) -> Result<(Vec<i8>, f32)> {
        self.check()?;
        let measured = absmean::measure(DType::F32, &DType::F32.encode(weights))?;
        let trits = weights.iter().map(|&weight| absmean::trit(weight, measured.inv)).collect();
        Ok((trits, measured.scale))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_supported_and_what_is_not() {
        let base = QuantizationConfig::default();
        assert_eq!(base.check(), Ok(TritStorage::Any));
        let stored = |weight_bits| QuantizationConfig { weight_bits, ..base }.check();
        assert_eq!(stored(1.585), Ok(TritStorage::Any));
        assert_eq!(stored(1.6), Ok(TritStorage::FiveTrits));
        assert_eq!(stored(2.0), Ok(TritStorage::TwoBit));
        for bits in [0.0, 1.0, 4.0, 16.0, -2.0, f32::NAN, f32::INFINITY] {
            let error = stored(bits).unwrap_err();
            assert!(matches!(error, QuantError::Unsupported { field: "weight_bits", .. }), "{error}");
        }
        let refused = [
            QuantizationConfig { activation_bits: 16, ..base },
            QuantizationConfig { symmetric: false, ..base },
            QuantizationConfig { per_channel: true, ..base },
        ];
        let fields = refused.map(|config| match config.check().unwrap_err() {
            QuantError::Unsupported { field, .. } => field,
            other => panic!("{other}"),
        });
        assert_eq!(fields, ["activation_bits", "symmetric", "per_channel"]);
        assert!(base.quantize(&[1.0, f32::NAN]).is_err());
    }
}
