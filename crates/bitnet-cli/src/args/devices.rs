//! `bitnet devices`.

use clap::Args;

const EXAMPLES: &str = "\
Examples:
  bitnet devices
  bitnet devices --json
  BITNET_KERNELS=scalar bitnet devices     is that set there?";

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct DevicesArgs {
    /// Kernel set to choose, as for the other commands
    #[arg(long, value_name = "SET", env = "BITNET_KERNELS", hide_env_values = true)]
    pub(crate) kernels: Option<String>,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}
