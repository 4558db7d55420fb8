//! [`Listener`]: where connections come from.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use socket2::{SockRef, TcpKeepalive};
use tokio::net::{TcpListener, TcpStream};

use crate::config::ServerConfig;
use crate::error::ServerError;

/// After how long a connection on which nothing comes is asked whether the other end is still there.
const KEEPALIVE: Duration = Duration::from_secs(30);

/// Where a server listens.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Address {
    /// An address of the network.
    Tcp(SocketAddr),
    /// A socket in the file system.
    Unix(PathBuf),
}

impl Address {
    /// As a URL; `scheme` is `http` or `https`. Of a socket in the file system it is `unix:` and the whole path, which
    /// means the same to those who work in another folder.
    pub fn url(&self, scheme: &str) -> String {
        match self {
            Self::Tcp(address) => format!("{scheme}://{address}"),
            Self::Unix(path) => {
                format!("unix:{}", std::path::absolute(path).as_ref().unwrap_or(path).display())
            }
        }
    }
}

impl std::fmt::Display for Address {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// A socket that listens.
#[derive(Debug)]
pub(crate) enum Listener {
    /// On the network.
    Tcp(TcpListener),
    /// In the file system; its file goes with it.
    #[cfg(unix)]
    Unix(tokio::net::UnixListener, PathBuf),
}

/// A connection.
pub(crate) enum Socket {
    /// Over the network, with the address of the other end.
    Tcp(TcpStream, SocketAddr),
    /// Through the file system.
    #[cfg(unix)]
    Unix(tokio::net::UnixStream),
}

impl Listener {
    /// Listens where the configuration says.
    ///
    /// # Errors
    /// [`ServerError::Listen`].
    pub(crate) async fn bind(config: &ServerConfig) -> Result<Self, ServerError> {
        if let Some(path) = &config.unix_socket {
            return Self::bind_path(path.clone());
        }
        let (host, port) = (config.host.as_str(), config.port);
        let failed = |source| ServerError::Listen { address: format!("{host}:{port}"), source };
        // Brackets are for URLs.
        let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
        TcpListener::bind((host, port)).await.map(Self::Tcp).map_err(failed)
    }

    #[cfg(unix)]
    fn bind_path(path: PathBuf) -> Result<Self, ServerError> {
        let failed = |source| ServerError::Listen { address: path.display().to_string(), source };
        // A socket that nobody listens on was left behind by a server that was killed.
        let is_dead = |error: &std::io::Error| {
            error.kind() == std::io::ErrorKind::AddrInUse
                && std::os::unix::net::UnixStream::connect(&path)
                    .is_err_and(|error| error.kind() == std::io::ErrorKind::ConnectionRefused)
        };
        let socket = match tokio::net::UnixListener::bind(&path) {
            Err(error) if is_dead(&error) => {
                std::fs::remove_file(&path).map_err(failed)?;
                tokio::net::UnixListener::bind(&path)
            }
            other => other,
        };
        Ok(Self::Unix(socket.map_err(failed)?, path))
    }

    #[cfg(not(unix))]
    fn bind_path(path: PathBuf) -> Result<Self, ServerError> {
        let source = std::io::Error::from(std::io::ErrorKind::Unsupported);
        Err(ServerError::Listen { address: path.display().to_string(), source })
    }

    /// Where it listens, with the port that was chosen for port 0.
    pub(crate) fn address(&self) -> Option<Address> {
        match self {
            Self::Tcp(socket) => socket.local_addr().ok().map(Address::Tcp),
            #[cfg(unix)]
            Self::Unix(_, path) => Some(Address::Unix(path.clone())),
        }
    }

    /// The next connection. Cancelling loses none.
    pub(crate) async fn accept(&self) -> Socket {
        loop {
            let accepted = match self {
                Self::Tcp(socket) => socket.accept().await.map(|(stream, peer)| {
                    prepare(&stream);
                    Socket::Tcp(stream, peer)
                }),
                #[cfg(unix)]
                Self::Unix(socket, _) => socket.accept().await.map(|(stream, _)| Socket::Unix(stream)),
            };
            match accepted {
                Ok(socket) => return socket,
                // The client was gone before it was seen, or there are no descriptors left: nothing to do but wait for
                // others to end.
                Err(error) => {
                    tracing::warn!("a connection could not be accepted: {error}");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
        }
    }
}

/// Small writes go out at once, and the system notices an end that vanished without a word.
fn prepare(stream: &TcpStream) {
    let keepalive = TcpKeepalive::new().with_time(KEEPALIVE).with_interval(KEEPALIVE / 3);
    // Where the system refuses, nothing is worse than without.
    let _ = stream.set_nodelay(true);
    let _ = SockRef::from(stream).set_tcp_keepalive(&keepalive);
}

impl Drop for Listener {
    fn drop(&mut self) {
        #[cfg(unix)]
        if let Self::Unix(_, path) = self {
            let _ = std::fs::remove_file(path);
        }
    }
}
