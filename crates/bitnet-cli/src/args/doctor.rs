//! `bitnet doctor`.

use std::path::PathBuf;

use clap::Args;

use super::FormatArgs;

const EXAMPLES: &str = "\
Examples:
  bitnet doctor                            looks at everything, measures for a few seconds
  bitnet doctor --quick                    without measuring
  bitnet doctor -m org/model               does it load, does it fit into memory?
  bitnet doctor --deep                     compares the hashes of all models in the cache
  bitnet doctor --online                   does the Hub answer, does it take the token?
  bitnet doctor --json | jq -r '.findings[] | select(.state != \"ok\") | .message'

✓ is fine, · is something to know, ! works but not as well as it could, ✗ does not work. Below stands what to do. The exit
code is 1 if there is a ✗, else 0.

JSON: {version, ok, problems, warnings, findings}; a finding is {area, check, state, message, advice, values}, where
'state' is ok, note, warning or problem, and 'values' are the figures of the check.";

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct DoctorArgs {
    /// Model that shall load and fit: folder or file, or ORG/NAME[@REVISION][:FILE-OR-QUANT] on the Hub
    #[arg(short, long, value_name = "MODEL", env = "BITNET_MODEL", hide_env_values = true)]
    pub(crate) model: Option<PathBuf>,
    /// Kernel set to test, as `bitnet devices` lists them [default: the fastest]
    #[arg(long, value_name = "SET", env = "BITNET_KERNELS", hide_env_values = true)]
    pub(crate) kernels: Option<String>,
    /// Read the content of all files: hashes of models in the cache, weights of the model
    #[arg(long)]
    pub(crate) deep: bool,
    /// Ask the Hub as well
    #[arg(long, conflicts_with = "offline")]
    pub(crate) online: bool,
    /// Do not measure speed
    #[arg(long)]
    pub(crate) quick: bool,
    /// Remove damaged files, broken links and other leftovers from the cache; the next pull fetches what is missing
    #[arg(long)]
    pub(crate) fix: bool,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) format: FormatArgs,
}
