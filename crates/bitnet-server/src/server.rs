//! [`Server`]: the routes, and serving them; [`BoundServer`]: one that listens.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use bitnet_inference::InferenceEngine;

use crate::config::ServerConfig;
use crate::error::ServerError;
use crate::middleware;
use crate::models::Models;
use crate::routes::routes;
use crate::serve::{self, Address, Limits, Listener, Shared};
use crate::state::AppState;

/// How often idle models are looked for, and what was recorded is sorted.
const CHORES: Duration = Duration::from_secs(1);

/// The routes of a server and the state behind them. Cloning is cheap.
#[derive(Debug, Clone)]
pub struct Server {
    state: AppState,
    extra: Router<AppState>,
}

/// A server that listens: connections are taken by the system, and served by [`serve`](Self::serve).
pub struct BoundServer {
    server: Server,
    listener: Listener,
    tls: Option<tokio_rustls::TlsAcceptor>,
}

impl std::fmt::Debug for BoundServer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { server, listener, tls } = self;
        let mut out = f.debug_struct("BoundServer");
        out.field("server", server).field("listener", listener).field("tls", &tls.is_some()).finish()
    }
}

impl Server {
    /// Makes the routes and the state behind them; listens on nothing. Models are loaded when they are first asked for.
    ///
    /// # Errors
    /// [`ServerError`]: the configuration cannot be, or a model is not there.
    pub fn new(config: ServerConfig) -> Result<Self, ServerError> {
        Self::with_state(AppState::new(config)?)
    }

    /// As [`new`](Self::new), but serves an engine that is there already, under the name of its model. What the configuration
    /// says about models and how to build engines means nothing then.
    ///
    /// # Errors
    /// [`ServerError`]: the configuration cannot be, or its memory budget is too small.
    pub fn with_engine(config: ServerConfig, engine: &InferenceEngine) -> Result<Self, ServerError> {
        let models = Models::of_engine(&config, engine)?;
        Self::with_state(AppState::with_models(config, models)?)
    }

    fn with_state(state: AppState) -> Result<Self, ServerError> {
        // Tells now what would fail later.
        let _ = middleware::wrap(Router::new(), &state)?;
        Ok(Self { state, extra: Router::new() })
    }

    /// As [`new`](Self::new), and listens where the configuration says.
    ///
    /// # Errors
    /// Also [`ServerError::Listen`] and [`ServerError::Tls`].
    pub async fn bind(config: ServerConfig) -> Result<BoundServer, ServerError> {
        Self::new(config)?.listen().await
    }

    /// Listens where the configuration says.
    ///
    /// # Errors
    /// [`ServerError::Listen`] and [`ServerError::Tls`].
    pub async fn listen(self) -> Result<BoundServer, ServerError> {
        let config = self.state.config();
        let tls = serve::acceptor(config)?;
        let listener = Listener::bind(config).await?;
        Ok(BoundServer { server: self, listener, tls })
    }

    /// Adds routes of the program that embeds the server. Keys, limits, ids and logs hold for them as for all others, and their
    /// handlers take what those of this crate take.
    ///
    /// # Panics
    /// If a path is taken, as [`Router::merge`].
    #[must_use]
    pub fn with_routes(mut self, routes: Router<AppState>) -> Self {
        self.extra = self.extra.merge(routes);
        self
    }

    /// The state behind the routes.
    pub fn state(&self) -> &AppState {
        &self.state
    }

    /// The routes with everything that stands around them. They nest in other applications. Where the connection's address
    /// is known to them as `ConnectInfo<SocketAddr>`, clients without a key are told apart by it.
    ///
    /// # Errors
    /// [`ServerError::Config`] for an origin that is none.
    pub fn router(&self) -> Result<Router, ServerError> {
        let routes = routes(&self.state).merge(self.extra.clone());
        Ok(middleware::wrap(routes, &self.state)?.with_state(self.state.clone()))
    }

    /// Loads the models that are configured by name, one after another, as far as the memory budget lets them be there
    /// together. Until it is done `/health` says so.
    ///
    /// # Errors
    /// [`ServerError::Model`] if the first cannot be loaded.
    pub async fn load_models(&self) -> Result<(), ServerError> {
        self.state.set_starting(true);
        let loaded = self.state.registry().load_configured().await;
        self.state.set_starting(false);
        loaded
    }

    /// What must be done from time to time: unloading idle models, sorting what was recorded. Ends when nothing else knows
    /// the server's state any more. [`BoundServer::serve`] does it; a program that nests the routes spawns it.
    pub fn chores(&self) -> impl Future<Output = ()> + Send + 'static {
        let weak = self.state.downgrade();
        async move {
            loop {
                tokio::time::sleep(CHORES).await;
                let Some(state) = weak.upgrade() else { return };
                state.metrics().upkeep();
                state.registry().unload_idle().await;
            }
        }
    }
}

impl BoundServer {
    /// Where it listens, with the port that was chosen for port 0.
    pub fn address(&self) -> Option<Address> {
        self.listener.address()
    }

    /// The server.
    pub fn server(&self) -> &Server {
        &self.server
    }

    /// Loads the configured models and serves until `shutdown` is done. Then no more connections are taken, and what is being
    /// answered has `shutdown_timeout` to finish; after that, or when `at_once` is done, it is cancelled.
    ///
    /// # Errors
    /// [`ServerError::Model`] if the first model cannot be loaded.
    pub async fn serve(
        self,
        shutdown: impl Future<Output = ()>,
        at_once: impl Future<Output = ()>,
    ) -> Result<(), ServerError> {
        let Self { server, listener, tls } = self;
        let config = server.state.config();
        let limits = Limits {
            head: Duration::from_secs(config.header_timeout),
            write: Duration::from_secs(config.write_timeout),
        };
        let (_, phase) = tokio::sync::watch::channel(serve::Phase::Serving);
        let shared = Shared { routes: server.router()?, tls, limits, phase };
        let chores = tokio::spawn(server.chores());
        server.state.set_starting(true);
        let failure = Arc::new(tokio::sync::Mutex::new(None));
        let loading = async {
            if let Err(error) = server.load_models().await {
                *failure.lock().await = Some(error);
                return;
            }
            std::future::pending::<()>().await;
        };
        let shutdown = async {
            tokio::select! {
                () = shutdown => {}
                () = loading => {}
            }
            tracing::info!("ending: no more requests are taken");
        };
        let patience = Duration::from_secs(config.shutdown_timeout);
        let left = serve::run(listener, shared, config.max_connections, patience, shutdown, at_once).await;
        if left > 0 {
            tracing::warn!(connections = left, "cut off what was not done in time");
        }
        chores.abort();
        server.state.registry().close().await;
        let failed = failure.lock().await.take();
        failed.map_or(Ok(()), Err)
    }
}
