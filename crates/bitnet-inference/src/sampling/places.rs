//! [`Places`]: which token a logit belongs to.

/// The tokens of a row of logits.
#[derive(Debug, Clone, Copy)]
pub(super) enum Places<'a> {
    /// All `0..n`.
    All(usize),
    /// These, ascending.
    Some(&'a [u32]),
}

impl Places<'_> {
    /// Where the logit of a token is, if it is there.
    pub(super) fn of(self, token: u32) -> Option<usize> {
        match self {
            Self::All(n) => Some(token as usize).filter(|&place| place < n),
            Self::Some(ids) => ids.binary_search(&token).ok(),
        }
    }

    /// The token of a place.
    pub(super) fn token(self, place: usize) -> u32 {
        match self {
            Self::All(_) => place as u32,
            Self::Some(ids) => ids[place],
        }
    }

    /// How many there are.
    pub(super) fn len(self) -> usize {
        match self {
            Self::All(n) => n,
            Self::Some(ids) => ids.len(),
        }
    }
}
