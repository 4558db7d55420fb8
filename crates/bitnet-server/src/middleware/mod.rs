//! What stands around every handler, from the outside in: ids, logs, counts and panics ([`observe`]), errors in each API's
//! shape, origins ([`origins`]), keys ([`auth`]), sizes ([`limits`]).

mod auth;
mod limits;
mod observe;
mod origins;

use axum::Router;
use axum::middleware::{from_fn, from_fn_with_state};

pub(crate) use self::auth::Keys;
use crate::error::ServerError;
use crate::state::AppState;

/// Puts everything around the routes.
pub(crate) fn wrap(routes: Router<AppState>, state: &AppState) -> Result<Router<AppState>, ServerError> {
    // The last layer is the outermost.
    let mut routes = routes
        .layer(from_fn_with_state(state.clone(), limits::limits))
        .layer(axum::extract::DefaultBodyLimit::max(limits::body(state)))
        .layer(from_fn_with_state(state.clone(), auth::authenticate))
        .layer(from_fn_with_state(state.clone(), origins::refuse_strangers));
    if let Some(layer) = origins::layer(state.config())? {
        routes = routes.layer(layer);
    }
    let routes = routes.layer(from_fn(crate::common::errors::in_shape));
    Ok(routes.layer(from_fn_with_state(state.clone(), observe::observe)))
}
