//! `bitnet ps` and `bitnet stop`: servers that run.

use clap::Args;

/// Which server is meant.
#[derive(Debug, Args)]
#[command(next_help_heading = "Server")]
pub(crate) struct ClientArgs {
    /// Address of the server; unix:PATH for a socket [default: BITNET_UNIX_SOCKET, else BITNET_HOST and BITNET_PORT, else
    /// the servers of this machine]
    #[arg(long, value_name = "URL")]
    pub(crate) url: Option<String>,
    /// Key that the server wants (also BITNET_API_KEY)
    #[arg(long, value_name = "KEY")]
    pub(crate) api_key: Option<String>,
}

const PS_EXAMPLES: &str = "\
Examples:
  bitnet ps
  bitnet ps --url http://192.168.1.7:8080 --api-key KEY
  bitnet ps --url unix:/run/bitnet.sock
  bitnet ps --json | jq '.[].models[] | select(.slots.running > 0)'

Of each model: its memory (weights), its context, the requests that are computed, tokens a second
(now, or of the mean text so far while nothing runs), and for how long it has been loaded.";

#[derive(Debug, Args)]
#[command(after_help = PS_EXAMPLES)]
pub(crate) struct PsArgs {
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) client: ClientArgs,
}

const STOP_EXAMPLES: &str = "\
Examples:
  bitnet stop bitnet-tiny                     unloads a model; the next request loads it again
  bitnet stop --all                           unloads all models
  bitnet stop --server                        ends the server when running requests are done

A model that is answering is not unloaded. Only servers of this machine and this user can be ended.";

#[derive(Debug, Args)]
#[command(after_help = STOP_EXAMPLES)]
pub(crate) struct StopArgs {
    /// Model to unload, as `bitnet ps` calls it
    #[arg(value_name = "MODEL", required_unless_present_any = ["all", "server"])]
    #[arg(conflicts_with_all = ["all", "server"])]
    pub(crate) name: Option<String>,
    /// Unload all models
    #[arg(long, conflicts_with = "server")]
    pub(crate) all: bool,
    /// End the server itself
    #[arg(long)]
    pub(crate) server: bool,
    #[command(flatten)]
    pub(crate) client: ClientArgs,
}
