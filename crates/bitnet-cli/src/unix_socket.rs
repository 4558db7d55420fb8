//! HTTP through a socket in the file system, for servers that listen at one.
//!
//! [`ureq`] asks over whatever a [`Connector`] opens. Here that is a path: nothing is resolved, and each request has a
//! connection of its own.

use std::io::{ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use ureq::config::Config;
use ureq::http::Uri;
use ureq::unversioned::resolver::{ResolvedSocketAddrs, Resolver};
use ureq::unversioned::transport::{
    Buffers, ConnectionDetails, Connector, LazyBuffers, NextTimeout, Transport,
};
use ureq::{Agent, Error};

/// Shortest time to wait; of none at all the system makes forever.
const SHORTEST: Duration = Duration::from_millis(1);

/// Asks whoever listens at a path, whatever host a URL has.
pub(crate) fn agent(config: Config, path: &Path) -> Agent {
    Agent::with_parts(config, AtPath(path.to_owned()), Nowhere)
}

/// Opens connections to a path.
#[derive(Debug)]
struct AtPath(PathBuf);

/// Resolves no name, as none is needed.
#[derive(Debug)]
struct Nowhere;

#[derive(Debug)]
struct Connection {
    stream: UnixStream,
    buffers: LazyBuffers,
}

impl Resolver for Nowhere {
    fn resolve(&self, _: &Uri, _: &Config, _: NextTimeout) -> Result<ResolvedSocketAddrs, Error> {
        Ok(self.empty())
    }
}

impl Connector for AtPath {
    type Out = Connection;

    fn connect(&self, details: &ConnectionDetails<'_>, _: Option<()>) -> Result<Option<Connection>, Error> {
        let stream = UnixStream::connect(&self.0)?;
        let config = details.config;
        let buffers = LazyBuffers::new(config.input_buffer_size(), config.output_buffer_size());
        Ok(Some(Connection { stream, buffers }))
    }
}

impl Transport for Connection {
    fn buffers(&mut self) -> &mut dyn Buffers {
        &mut self.buffers
    }

    fn transmit_output(&mut self, amount: usize, timeout: NextTimeout) -> Result<(), Error> {
        let timeout = timeout.for_write();
        self.stream.set_write_timeout(limit(&timeout))?;
        let output = &self.buffers.output()[..amount];
        self.stream.write_all(output).map_err(|error| failed(error, &timeout))
    }

    fn await_input(&mut self, timeout: NextTimeout) -> Result<bool, Error> {
        let timeout = timeout.for_read();
        self.stream.set_read_timeout(limit(&timeout))?;
        let room = self.buffers.input_append_buf();
        let read = loop {
            match self.stream.read(room) {
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                read => break read.map_err(|error| failed(error, &timeout))?,
            }
        };
        self.buffers.input_appended(read);
        Ok(read > 0)
    }

    fn is_open(&mut self) -> bool {
        // It is not kept for a second request.
        false
    }
}

fn limit(timeout: &NextTimeout) -> Option<Duration> {
    (!timeout.after.is_not_happening()).then(|| (*timeout.after).max(SHORTEST))
}

fn failed(error: std::io::Error, timeout: &NextTimeout) -> Error {
    match error.kind() {
        ErrorKind::WouldBlock | ErrorKind::TimedOut => Error::Timeout(timeout.reason),
        _ => error.into(),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;

    use super::*;

    #[test]
    fn a_silent_server_is_not_waited_for_forever() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.sock");
        let config = || Agent::config_builder().timeout_global(Some(Duration::from_millis(50))).build();
        let nobody = agent(config(), &path).get("http://localhost/").call();
        assert!(matches!(nobody, Err(Error::Io(error)) if error.kind() == ErrorKind::NotFound));
        let _silent = UnixListener::bind(&path).unwrap();
        let silent = agent(config(), &path).get("http://localhost/").call();
        assert!(matches!(silent, Err(Error::Timeout(_))), "{silent:?}");
    }
}
