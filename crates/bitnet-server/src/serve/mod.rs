//! From a socket to the routes: listening ([`listener`]), TLS ([`tls`]), connections ([`connection`]), the end
//! ([`signals`]).
//!
//! ```text
//! accept loop ── connection task ── TLS handshake ── hyper ── routes
//!      │               │ timed: a client that does not read is dropped
//!      └── shutdown: no more connections; those there are finish, or are dropped when the time is up
//! ```

mod connection;
mod listener;
mod signals;
mod timed;
mod tls;

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;

pub(crate) use self::connection::Limits;
pub use self::listener::Address;
pub(crate) use self::listener::Listener;
pub use self::signals::{Signals, signals};
pub(crate) use self::tls::acceptor;

/// How a server ends, as its connections see it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Phase {
    /// It does not.
    Serving,
    /// They finish what they are at.
    Ending,
}

/// What a connection task needs.
#[derive(Clone)]
pub(crate) struct Shared {
    pub(crate) routes: Router,
    pub(crate) tls: Option<tokio_rustls::TlsAcceptor>,
    pub(crate) limits: Limits,
    pub(crate) phase: watch::Receiver<Phase>,
}

/// Serves connections until `shutdown` is done; then no more are taken, and those there are have `patience` to finish, unless
/// `at_once` is done before. Gives how many were cut off.
pub(crate) async fn run(
    listener: Listener,
    mut shared: Shared,
    max_connections: usize,
    patience: Duration,
    shutdown: impl Future<Output = ()>,
    at_once: impl Future<Output = ()>,
) -> usize {
    let (announce, phase) = watch::channel(Phase::Serving);
    shared.phase = phase;
    let places = Arc::new(Semaphore::new(max_connections));
    let mut connections = JoinSet::new();
    let mut shutdown = pin!(shutdown);
    loop {
        let accept = async {
            // A place first: connections that have none wait in the system's queue.
            let place = Arc::clone(&places).acquire_owned().await;
            (listener.accept().await, place)
        };
        tokio::select! {
            () = &mut shutdown => break,
            (socket, place) = accept => {
                let shared = shared.clone();
                connections.spawn(async move {
                    connection::serve(socket, shared).await;
                    drop(place);
                });
            }
            // Those that are done leave the set.
            Some(_) = connections.join_next() => {}
        }
    }
    drop(listener);
    let _ = announce.send(Phase::Ending);
    let drained = async { while connections.join_next().await.is_some() {} };
    tokio::select! {
        () = drained => {}
        () = tokio::time::sleep(patience) => {}
        () = at_once => {}
    }
    let left = connections.len();
    // Dropping the answers cancels their requests.
    connections.shutdown().await;
    left
}
