//! What several API families share: how to continue a text ([`sampling`], [`constraint`]), an answer in parts ([`reply`]),
//! single tokens ([`pieces`]), single JSON fields ([`fields`]), times ([`clock`], [`timings`]), ids ([`ids`]), and errors in
//! each family's shape ([`errors`]).

pub(crate) mod clock;
pub(crate) mod constraint;
pub(crate) mod errors;
pub(crate) mod fields;
pub(crate) mod ids;
pub(crate) mod pieces;
pub(crate) mod reply;
pub(crate) mod sampling;
pub(crate) mod timings;
