//! One connection: handshake, requests, end.

use std::net::SocketAddr;
use std::pin::pin;
use std::time::Duration;

use axum::body::Body;
use axum::extract::ConnectInfo;
use axum::http::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};
use tower::ServiceExt;

use super::listener::Socket;
use super::timed::Timed;
use super::{Phase, Shared};

/// Bytes of the head of a request at most.
const HEAD: usize = 64 << 10;

/// How long a connection may take for what.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    /// The TLS handshake, and the head of a request; also how long a connection may be idle.
    pub(crate) head: Duration,
    /// A write that makes no progress.
    pub(crate) write: Duration,
}

/// Serves a connection to its end.
pub(super) async fn serve(socket: Socket, shared: Shared) {
    match socket {
        Socket::Tcp(stream, peer) => {
            let stream = Timed::new(stream, shared.limits.write);
            let Some(tls) = &shared.tls else { return requests(stream, Some(peer), shared).await };
            match tokio::time::timeout(shared.limits.head, tls.accept(stream)).await {
                Ok(Ok(stream)) => requests(stream, Some(peer), shared).await,
                Ok(Err(error)) => tracing::debug!(%peer, "TLS handshake failed: {error}"),
                Err(_) => tracing::debug!(%peer, "TLS handshake took too long"),
            }
        }
        #[cfg(unix)]
        Socket::Unix(stream) => requests(Timed::new(stream, shared.limits.write), None, shared).await,
    }
}

async fn requests<S>(stream: S, peer: Option<SocketAddr>, shared: Shared)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let Shared { routes, limits, mut phase, .. } = shared;
    let service = routes.map_request(move |mut request: Request<Incoming>| {
        if let Some(peer) = peer {
            request.extensions_mut().insert(ConnectInfo(peer));
        }
        request.map(Body::new)
    });
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(limits.head).max_buf_size(HEAD);
    let connection = http.serve_connection(TokioIo::new(stream), TowerToHyperService::new(service));
    let mut connection = pin!(connection);
    tokio::select! {
        result = connection.as_mut() => return told(result),
        _ = phase.wait_for(|phase| *phase == Phase::Ending) => {}
    }
    // What is being answered is answered; then the connection closes.
    connection.as_mut().graceful_shutdown();
    told(connection.await);
}

/// How it ended. Clients that go away are nothing to speak of.
fn told(result: hyper::Result<()>) {
    if let Err(error) = result {
        tracing::debug!("a connection broke: {error}");
    }
}
