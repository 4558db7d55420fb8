//! Projections of GGUF files: every ternary type of ggml's programs, and ternary values or masters in dense types.
//!
//! Scales stand behind the trits (I2_S, TL1, TL2), in every block (TQ1_0, TQ2_0) or row (IQ1_BN, IQ2_BN), or follow from
//! the values (dense types). A tensor `<projection>.scale` multiplies what is found; `<projection>.weight_scale` stands
//! for the scale behind TL1 and TL2 where converters write it as a tensor.

use bitnet_core::bytes::ByteView;
use bitnet_formats::{StoredTensor, StoredType};
use bitnet_quant::codec::TlTiles;
use bitnet_quant::{I2sLayout, TritCodec};

use super::assemble::Slot;
use super::error::{LoadError, Result};
use super::projection::{Form, Projection};
use super::tensors::{Tensors, check_shape, unsupported_type};

/// The types that hold trits and nothing else, for messages.
pub(super) const TERNARY_TYPES: &str = "i2_s, tq1_0, tq2_0, iq1_bn, iq2_bn, iq2_bn_r4, tl1 or tl2";

/// Whether a type holds trits and nothing else.
pub(super) fn is_ternary(stored: StoredType) -> bool {
    stored == StoredType::I2S || scaled(stored).is_some() || matches!(stored.name(), "tl1" | "tl2")
}

/// The codec of a type with scales in its blocks or rows.
fn scaled(stored: StoredType) -> Option<TritCodec> {
    match stored {
        StoredType::TQ1_0 => Some(TritCodec::Tq1_0),
        StoredType::TQ2_0 => Some(TritCodec::Tq2_0),
        StoredType::IQ1_BN => Some(TritCodec::Iq1Bn),
        StoredType::IQ2_BN => Some(TritCodec::Iq2Bn),
        StoredType::IQ2_BN_R4 => Some(TritCodec::Iq2BnR4),
        _ => None,
    }
}

/// The projection of a slot.
///
/// # Errors
/// If it is missing or has another shape or a type that cannot be read.
pub(super) fn projection(tensors: &Tensors<'_>, layout: I2sLayout, slot: &Slot) -> Result<Projection> {
    let tensor = tensors.require(&format!("{}.weight", slot.name))?;
    let factor = tensors.scalar(&format!("{}.scale", slot.name))?;
    check_shape(tensor, &[slot.rows, slot.cols])?;
    if let Some(codec) = scaled(tensor.stored) {
        return Ok(slot.filled(tensor, Form::Scaled { codec, factor }, tensor.data.clone()));
    }
    if let Some(dtype) = tensor.stored.dense_type() {
        return Ok(slot.filled(tensor, Form::Masters { dtype, factor }, tensor.data.clone()));
    }
    let codec = match tensor.stored.name() {
        "i2_s" => TritCodec::I2S(layout),
        "tl1" => TritCodec::Tl1(tiles(tensor, TlTiles::tl1(slot.rows, slot.cols))?),
        "tl2" => TritCodec::Tl2(tiles(tensor, TlTiles::tl2(slot.rows, slot.cols))?),
        _ => {
            let remedy = "i2_s, tq1_0, tq2_0, iq1_bn, iq2_bn, iq2_bn_r4, tl1, tl2 and ternary values in f32, f16, bf16, \
                          q4_0 to q8_0 and q2_K to q6_K are supported for projections";
            return Err(unsupported_type(tensor, remedy));
        }
    };
    refuse_layout(tensor, codec, slot)?;
    let separate = match codec {
        TritCodec::I2S(_) => None,
        _ => tensors.scalar(&format!("{}.weight_scale", slot.name))?,
    };
    let scale = match separate {
        Some(scale) => scale,
        None => scale_behind(tensor)?,
    };
    let len = codec.byte_len(slot.rows, slot.cols).map_err(|source| LoadError::Quant {
        file: tensor.origin.to_string(),
        tensor: tensor.name.clone(),
        source,
    })?;
    let data = tensor.data.slice(0, len, &tensor.origin)?;
    Ok(slot.filled(tensor, Form::Ternary(codec, scale * factor.unwrap_or(1.0)), data))
}

/// A row that is not whole groups tells that an I2_S file has another byte order than it is read in. (Otherwise nothing
/// does: the other orders are permutations of the columns, the same in every row.)
fn refuse_layout(tensor: &StoredTensor, codec: TritCodec, slot: &Slot) -> Result<()> {
    let group = match codec {
        TritCodec::I2S(I2sLayout::Group128) => 128,
        TritCodec::I2S(I2sLayout::Group64) => 64,
        _ => return Ok(()),
    };
    if slot.cols.is_multiple_of(group) {
        return Ok(());
    }
    Err(LoadError::Unsupported {
        file: tensor.origin.to_string(),
        what: format!("tensor {} of type i2_s with {} columns in groups of {group}", tensor.name, slot.cols),
        remedy: "the file has another byte order: choose group64 or rows4 with --i2s-layout",
    })
}

/// The tiles of a TL1 or TL2 tensor, which only its shape tells.
fn tiles(tensor: &StoredTensor, known: Option<TlTiles>) -> Result<TlTiles> {
    known.ok_or_else(|| LoadError::Unsupported {
        file: tensor.origin.to_string(),
        what: format!("tensor {} of type {} and shape {:?}", tensor.name, tensor.stored, tensor.shape),
        remedy: "the file does not tell how these weights are tiled, and only the tiles for the shapes of \
                 bitnet_b1_58-large, bitnet_b1_58-3B and Llama3-8B-1.58 are known: take or convert to i2_s",
    })
}

/// The scale that stands behind the trits.
fn scale_behind(tensor: &StoredTensor) -> Result<f32> {
    let at = tensor.stored.scale_at(&tensor.shape).unwrap_or(0);
    let bytes: ByteView = tensor.data.slice(at, at.saturating_add(4), &tensor.origin)?;
    let mut scale = [0u8; 4];
    scale.copy_from_slice(bytes.as_slice());
    Ok(f32::from_le_bytes(scale))
}
