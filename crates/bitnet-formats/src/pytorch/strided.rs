//! Tensors that are views of storages: checked, taken where they lie if their elements are in order, copied if not.

use bitnet_core::bytes::ByteView;

use super::budget::Budget;
use super::heap::View;
use crate::tensor::StoredType;
use crate::{FormatError, Result};

/// The data of a view of `storage`, elements in row-major order. Views whose elements are in order already share the
/// storage's memory; others are copied, which is charged to the budget.
///
/// # Errors
/// If the view reaches beyond its storage, or the copy would be too large. `name` is quoted, for messages.
pub(super) fn read(
    view: &View,
    stored: StoredType,
    storage: &ByteView,
    name: &str,
    budget: &mut Budget<'_>,
) -> Result<ByteView> {
    let wrong = |problem: String| FormatError::malformed(budget.origin(), format!("tensor {name}"), problem);
    let size = stored.element_size().unwrap_or(1);
    let Some(len) = stored.byte_len(&view.shape) else {
        return Err(wrong(format!("shape {:?} is too large", view.shape)));
    };
    let reach = if len == 0 { Some(view.offset) } else { reach(view) };
    let Some(end) = reach.and_then(|end| end.checked_mul(size)).filter(|&end| end <= storage.len() as u64)
    else {
        return Err(wrong(format!(
            "sizes {:?} with strides {:?} from element {} on reach beyond its storage of {} bytes",
            view.shape,
            view.stride,
            view.offset,
            storage.len()
        )));
    };
    let start = view.offset * size;
    if len == 0 {
        return Ok(storage.slice(end, end, budget.origin())?);
    }
    if in_order(view) {
        return Ok(storage.slice(start, start + len, budget.origin())?);
    }
    budget.copy(len, name)?;
    let from = &storage.as_slice()[start as usize..end as usize];
    Ok(ByteView::from_vec(match size {
        1 => gather::<1>(view, from, len as usize),
        2 => gather::<2>(view, from, len as usize),
        4 => gather::<4>(view, from, len as usize),
        _ => gather::<8>(view, from, len as usize),
    }))
}

/// One more than the last element that is touched; no size is 0.
fn reach(view: &View) -> Option<u64> {
    view.shape.iter().zip(&view.stride).try_fold(view.offset.checked_add(1)?, |end, (&size, &stride)| {
        end.checked_add((size - 1).checked_mul(stride)?)
    })
}

/// Whether the elements follow each other in memory.
fn in_order(view: &View) -> bool {
    let mut expected = 1u64;
    view.shape.iter().zip(&view.stride).rev().all(|(&size, &stride)| {
        let fits = size == 1 || stride == expected;
        expected = expected.saturating_mul(size);
        fits
    })
}

/// Copies elements of `N` bytes into row-major order. The view was checked: it reaches exactly to the end of `from`.
fn gather<const N: usize>(view: &View, from: &[u8], len: usize) -> Vec<u8> {
    let mut out = Vec::with_capacity(len);
    let (&inner, outer) = view.shape.split_last().unwrap_or((&1, &[]));
    let step = view.stride.last().map_or(1, |&stride| stride as usize * N);
    let mut index = vec![0u64; outer.len()];
    let mut at = 0usize;
    loop {
        for i in 0..inner as usize {
            out.extend_from_slice(&from[at + i * step..][..N]);
        }
        // Counts up like an odometer, the last dimension fastest.
        let mut place = outer.len();
        loop {
            if place == 0 {
                return out;
            }
            place -= 1;
            let stride = view.stride[place] as usize * N;
            index[place] += 1;
            at += stride;
            if index[place] < outer[place] {
                break;
            }
            at -= stride * outer[place] as usize;
            index[place] = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(shape: &[u64], stride: &[u64], offset: u64, storage: usize) -> Result<(Vec<u8>, bool)> {
        let storage = ByteView::from_vec((0..storage).map(|i| i as u8).collect());
        let view = View { storage: 0, element: None, offset, shape: shape.to_vec(), stride: stride.to_vec() };
        let data = read(&view, StoredType::U8, &storage, "\"t\"", &mut Budget::new(24, "m.pt"))?;
        let range = storage.as_slice().as_ptr_range();
        Ok((data.as_slice().to_vec(), range.contains(&data.as_slice().as_ptr())))
    }

    #[test]
    fn views_in_order_are_not_copied() {
        assert_eq!(bytes(&[2, 3], &[3, 1], 4, 10).unwrap(), ((4..10).collect(), true));
        assert_eq!(bytes(&[1, 3], &[77, 1], 1, 4).unwrap(), ((1..4).collect(), true));
        assert_eq!(bytes(&[], &[], 2, 4).unwrap(), (vec![2], true));
        assert_eq!(bytes(&[0, 3], &[3, 1], 4, 4).unwrap().0, Vec::<u8>::new());
    }

    #[test]
    fn others_are_put_in_order() {
        assert_eq!(bytes(&[3, 2], &[1, 3], 0, 6).unwrap(), (vec![0, 3, 1, 4, 2, 5], false));
        assert_eq!(bytes(&[2, 2], &[4, 2], 1, 8).unwrap().0, [1, 3, 5, 7]);
        assert_eq!(bytes(&[4], &[0], 3, 4).unwrap().0, [3, 3, 3, 3]);
        assert_eq!(bytes(&[2, 2, 2], &[1, 2, 4], 0, 8).unwrap().0, [0, 4, 2, 6, 1, 5, 3, 7]);
    }

    #[test]
    fn what_reaches_too_far_is_refused() {
        for (shape, stride, offset) in [
            (&[2u64, 3][..], &[3u64, 1][..], 5),
            (&[2], &[10], 0),
            (&[1 << 40, 1 << 40], &[0, 0], 0),
            (&[2, 2], &[u64::MAX, 1], 0),
            (&[u64::MAX], &[1], 0),
            (&[1], &[1], u64::MAX),
            (&[0], &[1], 11),
        ] {
            let message = bytes(shape, stride, offset, 10).unwrap_err().to_string();
            assert!(message.starts_with("m.pt: tensor \"t\""), "{message}");
        }
        let message = bytes(&[25], &[0], 0, 10).unwrap_err().to_string();
        assert!(message.contains("not supported") && message.contains("contiguous"), "{message}");
    }
}
