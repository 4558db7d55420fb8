//! [`Server`]: bound to an address, ready to serve.

use axum::Router;

use crate::config::ServerConfig;
use crate::error::ServerError;
use crate::middleware;
use crate::routes::routes;
use crate::state::AppState;

/// A server, or the routes of one for another axum application.
#[derive(Debug, Clone)]
pub struct Server {
    state: AppState,
}

impl Server {
    /// Makes the routes and the state behind them; listens on nothing. Models are loaded when they are first asked for.
    ///
    /// # Errors
    /// [`ServerError`]: the configuration cannot be, or a model is not there.
    pub fn new(config: ServerConfig) -> Result<Self, ServerError> {
        let state = AppState::new(config)?;
        // Tells now what would fail later.
        let _ = middleware::wrap(Router::new(), &state)?;
        Ok(Self { state })
    }

    /// The state behind the routes.
    pub fn state(&self) -> &AppState {
        &self.state
    }

    /// The routes with everything that stands around them. They nest in other applications.
    ///
    /// # Errors
    /// [`ServerError::Config`] for an origin that is none.
    pub fn router(&self) -> Result<Router, ServerError> {
        Ok(middleware::wrap(routes(&self.state), &self.state)?.with_state(self.state.clone()))
    }
}
