//! `bitnet config`.

use clap::{Args, Subcommand};

const EXAMPLES: &str = "\
Examples:
  bitnet config                               all settings, with where they come from
  bitnet config set model microsoft/bitnet-b1.58-2B-4T
  bitnet config set sampling.temp 0.7         as --temp 0.7 with every command that samples
  bitnet config set server.port 9000          as `bitnet serve --port 9000`
  bitnet config edit                          opens $VISUAL or $EDITOR

One TOML file keeps defaults of flags: model, threads and so on at its top, then the sections
[sampling], [hub] and [server]. Flags come before environment variables (BITNET_MODEL, BITNET_TEMP,
BITNET_PORT), these before the file. BITNET_CONFIG names another file; empty: none.";

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct ConfigArgs {
    #[command(subcommand)]
    pub(crate) action: Option<ConfigAction>,
}

const SHOW_EXAMPLES: &str = "\
Examples:
  bitnet config show
  bitnet config show --json | jq -r '.[] | select(.origin != \"default\") | .name'";

const PATH_EXAMPLES: &str = "\
Examples:
  cat \"$(bitnet config path)\"";

const GET_EXAMPLES: &str = "\
Examples:
  bitnet config get kv_type
  bitnet config get server.port";

const SET_EXAMPLES: &str = "\
Examples:
  bitnet config set threads 4
  bitnet config set kv_type int8
  bitnet config set hub.cache /large/disk/hub
  bitnet config set server.cors_origin http://localhost:3000,https://example.org";

const UNSET_EXAMPLES: &str = "\
Examples:
  bitnet config unset threads";

const EDIT_EXAMPLES: &str = "\
Examples:
  bitnet config edit
  EDITOR=nano bitnet config edit";

const INIT_EXAMPLES: &str = "\
Examples:
  bitnet config init                          a file in which every line is a comment
  BITNET_CONFIG=./bitnet.toml bitnet config init";

#[derive(Debug, Subcommand)]
pub(crate) enum ConfigAction {
    /// Show all settings, with where they come from
    #[command(after_help = SHOW_EXAMPLES)]
    Show {
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Print where the file is
    #[command(after_help = PATH_EXAMPLES)]
    Path,
    /// Print the value of a setting
    #[command(after_help = GET_EXAMPLES)]
    Get {
        /// Name of the setting, with its section
        #[arg(value_name = "NAME")]
        name: String,
    },
    /// Set a setting in the file
    #[command(after_help = SET_EXAMPLES)]
    Set {
        /// Name of the setting, with its section
        #[arg(value_name = "NAME")]
        name: String,
        /// Its value; lists between commas
        #[arg(value_name = "VALUE", allow_hyphen_values = true)]
        value: String,
    },
    /// Take a setting out of the file
    #[command(after_help = UNSET_EXAMPLES)]
    Unset {
        /// Name of the setting, with its section
        #[arg(value_name = "NAME")]
        name: String,
    },
    /// Open the file in an editor, and check it afterwards
    #[command(after_help = EDIT_EXAMPLES)]
    Edit,
    /// Write a new file that explains itself
    #[command(after_help = INIT_EXAMPLES)]
    Init {
        /// Write over the file that is there
        #[arg(long)]
        force: bool,
    },
}
