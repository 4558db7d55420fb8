//! The engine as a user has it, with the bundled model.

mod generate;
mod reference;
mod support;
