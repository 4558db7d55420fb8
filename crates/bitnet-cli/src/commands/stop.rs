//! `bitnet stop`: unloads models of a server, or ends it.

use std::process::ExitCode;

use crate::args::{ClientArgs, StopArgs};
use crate::client::{self, given, nearest_model, only_client};
use crate::error::CliError;
use crate::output::Notes;
use crate::running::{self, Server};

pub(super) fn run(args: &StopArgs, notes: Notes) -> Result<ExitCode, CliError> {
    match &args.name {
        _ if args.server => end(&args.client, notes)?,
        Some(name) => unload(name, &args.client, notes)?,
        None => unload_all(&args.client, notes)?,
    }
    Ok(ExitCode::SUCCESS)
}

fn unload(name: &str, args: &ClientArgs, notes: Notes) -> Result<(), CliError> {
    let client = only_client(args)?;
    let unloaded = client.unload(name);
    if let (Err(error), Ok(status)) = (unloaded, client.status()) {
        let known =
            status["models"].as_array().is_some_and(|models| models.iter().any(|model| model["id"] == name));
        return Err(match nearest_model(&status, name) {
            Some(near) if !known => error.hint(format!("did you mean {near}?")),
            _ => error,
        });
    }
    notes.say(&format!("unloaded {name}"));
    Ok(())
}

fn unload_all(args: &ClientArgs, notes: Notes) -> Result<(), CliError> {
    let client = only_client(args)?;
    let status = client.status()?;
    let models = status["models"].as_array().map_or(&[][..], Vec::as_slice);
    let loaded = models.iter().filter(|model| model["status"]["value"] == "loaded");
    let names: Vec<&str> = loaded.filter_map(|model| model["id"].as_str()).collect();
    let mut failed = None;
    for name in &names {
        match client.unload(name) {
            Ok(()) => notes.say(&format!("unloaded {name}")),
            Err(error) => failed = Some(error),
        }
    }
    if names.is_empty() {
        notes.say("no model is loaded");
    }
    failed.map_or(Ok(()), Err)
}

fn end(args: &ClientArgs, notes: Notes) -> Result<(), CliError> {
    let running = running::servers();
    let server = match given(args)? {
        Some(url) => {
            running.iter().find(|server| server.url == url).ok_or_else(|| none_at(&url, &running))?
        }
        None => match running.as_slice() {
            [only] => only,
            [] => return Err(CliError::failed("no server of this user runs on this machine")),
            several => {
                return Err(client::several(
                    &several.iter().map(|server| server.url.clone()).collect::<Vec<_>>(),
                ));
            }
        },
    };
    notes.detail(&format!("asking process {} to end", server.pid));
    server.end()?;
    notes.say(&format!("ended the server at {}", server.url));
    Ok(())
}

fn none_at(url: &str, running: &[Server]) -> CliError {
    let error = CliError::failed(format!("no server of this user on this machine listens at {url}"));
    if running.is_empty() {
        return error.hint("a server can only be ended on the machine where it runs");
    }
    let urls: Vec<&str> = running.iter().map(|server| server.url.as_str()).collect();
    error.hint(format!("servers run at {}", urls.join(", ")))
}
