//! What `batch` and `eval` need to go on behind an interruption.
//!
//! An output grows as `OUT.part` beside `OUT.journal` and gets its name when it is whole ([`Places`]). The journal
//! ([`Journal`]) begins with a header that says which run it is; a run with another header is not continued, and
//! [`Journal::check`] says what differs.

mod journal;
mod places;

use bitnet_inference::InferenceEngine;
use serde_json::{Value, json};

pub(super) use self::journal::{Journal, Note};
pub(super) use self::places::{Places, failed};

/// Bytes in hexadecimal digits.
pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// What decides about the results of a model.
pub(super) fn facts(engine: &InferenceEngine) -> Value {
    let model = engine.model();
    json!({
        "name": model.name,
        "format": model.format,
        "bytes": model.file_bytes,
        "fingerprint": format!("{:016x}", model.fingerprint),
        "context": engine.context(),
        "kv_type": engine.info().kv_type.name(),
        "device": device(&engine.info().description),
    })
}

/// The device, as far as it decides about results: all processors and CUDA devices have the same bits, whatever their
/// kernels and threads; others have their own.
fn device(description: &str) -> &str {
    let is_exact = ["cpu ", "cuda "].iter().any(|backend| description.starts_with(backend));
    if is_exact { "cpu or cuda" } else { description }
}

/// The command line that goes on with this one's run, for a shell.
pub(super) fn resume_command(args: impl Iterator<Item = String>) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./=:,+@%".contains(c);
    let quoted = |arg: String| match arg.chars().all(plain) && !arg.is_empty() {
        true => arg,
        false => format!("'{}'", arg.replace('\'', "'\\''")),
    };
    let kept = args.filter(|arg| arg != "--force" && arg != "--resume");
    kept.map(quoted).chain(["--resume".to_owned()]).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_that_resumes_is_quoted() {
        let args = ["bitnet", "batch", "it's.txt", "--force", "--template", "{{a}} b", "-o", "x.csv"];
        let command = resume_command(args.into_iter().map(str::to_owned));
        assert_eq!(command, "bitnet batch 'it'\\''s.txt' --template '{{a}} b' -o x.csv --resume");
    }

    #[test]
    fn devices_of_the_same_bits_are_one() {
        assert_eq!(device("cpu (avx2, 2 threads)"), device("cuda (H100, int8 kernels)"));
        assert_ne!(device("vulkan (llvmpipe, plain)"), device("cpu (avx2, 2 threads)"));
    }
}
