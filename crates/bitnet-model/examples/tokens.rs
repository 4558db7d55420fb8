//! Tokens of a text as a prompt of a model: for comparing with other programs.
//!
//! ```text
//! tokens MODEL FILE
//! ```
//!
//! Prints the numbers, separated by commas, with the token that begins a text if the model wants one.

use std::error::Error;
use std::io::Write as _;
use std::path::PathBuf;

use bitnet_model::{LoadOptions, ModelSource, load};
use bitnet_text::EncodeOptions;

const USAGE: &str = "usage: tokens MODEL FILE";

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let (path, file) = (arguments.next().ok_or(USAGE)?, arguments.next().ok_or(USAGE)?);
    let model = load(&ModelSource::Path(PathBuf::from(path)), &LoadOptions::default())?;
    let tokens = model.require_tokenizer()?.encode(&std::fs::read_to_string(file)?, EncodeOptions::PROMPT)?;
    let tokens: Vec<String> = tokens.iter().map(u32::to_string).collect();
    writeln!(std::io::stdout(), "{}", tokens.join(","))?;
    Ok(())
}
