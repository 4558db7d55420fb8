//! Ternary products and attention-free building blocks, by kernel set: `cargo bench -p bitnet-cpu`.

fn main() {}
