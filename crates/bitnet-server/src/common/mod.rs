//! What several API families share: the fields that say how to sample, and the reading of single JSON fields.

pub(crate) mod fields;
pub(crate) mod sampling;
