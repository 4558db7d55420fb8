//! The network: the port of the server, and with `--online` the Hub.

use std::io::ErrorKind;
use std::net::{Ipv4Addr, TcpListener};

use bitnet_hub::{Hub, HubConfig, HubError};

use super::finding::{Finding, State};

const AREA: &str = "network";

/// Whether `bitnet serve` could listen on a port.
pub(super) fn port(port: u16) -> Finding {
    let found = |state, message: String| Finding::new(AREA, "port", state, message).value("port", port);
    match TcpListener::bind((Ipv4Addr::LOCALHOST, port)) {
        Ok(_) => found(State::Fine, format!("port {port} is free for bitnet serve")),
        Err(error) if error.kind() == ErrorKind::AddrInUse => {
            found(State::Warning, format!("port {port} is in use, perhaps by a server of this program"))
                .advise("give another one to bitnet serve with --port")
        }
        Err(error) => found(State::Warning, format!("nothing can listen on port {port}: {error}"))
            .advise("give another one to bitnet serve with --port"),
    }
}

/// The settings of the Hub, and with `online` whether it answers.
pub(super) fn hub(config: &HubConfig, online: bool) -> Finding {
    let token =
        if config.token.is_some() { "a token is set" } else { "no token, which public models do not need" };
    let endpoint = &config.endpoint;
    let found = |state, message: String| {
        Finding::new(AREA, "hub", state, message)
            .value("endpoint", endpoint.clone())
            .value("token", config.token.is_some())
            .value("offline", config.offline)
    };
    if config.offline {
        return found(
            State::Note,
            "the Hub is not asked: --offline was given, or HF_HUB_OFFLINE or TRANSFORMERS_OFFLINE is set"
                .to_owned(),
        )
        .advise("leave it out to fetch models");
    }
    if !online {
        return found(State::Note, format!("{endpoint}: {token}; --online asks whether it answers"));
    }
    let once = HubConfig { retries: 0, ..config.clone() };
    match Hub::new(once).and_then(|hub| hub.reach()) {
        Ok(reached) => {
            let who =
                reached.user.map_or_else(|| token.to_owned(), |user| format!("the token is that of {user}"));
            let time = reached.time.as_secs_f64() * 1e3;
            found(State::Fine, format!("{endpoint} answers in {time:.0} ms; {who}"))
                .value("milliseconds", time)
        }
        Err(error) => {
            let advice = match error {
                HubError::BadToken { .. } => "get another token, or unset HF_TOKEN for public models",
                HubError::Config { .. } => "see `bitnet pull --help` for the variables that are obeyed",
                _ => "look at network, proxy (HTTPS_PROXY) and HF_ENDPOINT; models in the cache work without",
            };
            found(State::Problem, error.to_string()).advise(advice)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_in_use_are_told() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let number = listener.local_addr().unwrap().port();
        let used = port(number);
        assert_eq!(used.state, State::Warning);
        assert!(used.message.contains(&number.to_string()) && used.advice.unwrap().contains("--port"));
        assert_eq!(port(0).state, State::Fine);
    }
}
