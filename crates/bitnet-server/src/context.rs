//! [`RequestContext`]: what is known about a request beside its body, and what is learnt while it is answered.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use axum::extract::{ConnectInfo, FromRequestParts};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue};

/// The header that carries the id of a request, in both directions.
pub(crate) const REQUEST_ID: &str = "x-request-id";

/// The header by which a client asks for a priority, where the server allows it.
pub(crate) const PRIORITY: &str = "x-priority";

/// Priorities lie between the negative of this and this.
const MOST_PRIORITY: i32 = 100;

/// The longest id that is taken over from a client.
const LONGEST_ID: usize = 128;

/// A request as the server sees it. Handlers take it as an argument.
#[derive(Debug, Clone)]
pub struct RequestContext {
    /// Its id: the client's `x-request-id`, else one of ours. Goes back in the response and into the log.
    pub id: Arc<str>,
    /// Who asks, for fairness: one of the keys, or an address.
    pub client: Arc<str>,
    /// When its head was there.
    pub arrived: Instant,
    /// The priority that the client asks for; 0 if none. Whether it counts is the server's setting `priorities`.
    pub priority: i32,
    pub(crate) facts: Arc<Facts>,
}

/// What the log line of a request tells beside what HTTP knows.
#[derive(Debug, Default)]
pub(crate) struct Facts {
    model: Mutex<Option<Arc<str>>>,
    pub(crate) prompt_tokens: AtomicU64,
    pub(crate) generated_tokens: AtomicU64,
}

impl Facts {
    pub(crate) fn set_model(&self, id: &Arc<str>) {
        *self.model.lock().unwrap_or_else(PoisonError::into_inner) = Some(Arc::clone(id));
    }

    pub(crate) fn model(&self) -> Option<Arc<str>> {
        self.model.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(crate) fn tokens(&self) -> (u64, u64) {
        (self.prompt_tokens.load(Ordering::Relaxed), self.generated_tokens.load(Ordering::Relaxed))
    }
}

impl RequestContext {
    /// The context of a request that came with these headers over this connection.
    pub(crate) fn new(headers: &HeaderMap, peer: Option<SocketAddr>) -> Self {
        let given = headers.get(REQUEST_ID).and_then(|id| id.to_str().ok());
        let is_fine =
            |id: &&str| !id.is_empty() && id.len() <= LONGEST_ID && id.bytes().all(|b| b.is_ascii_graphic());
        let id = given.filter(is_fine).map_or_else(new_id, Arc::from);
        let client = peer.map_or_else(|| Arc::from("local"), |peer| Arc::from(peer.ip().to_string()));
        let priority = headers.get(PRIORITY).map_or(0, priority);
        Self { id, client, arrived: Instant::now(), priority, facts: Arc::default() }
    }
}

/// The priority that a header asks for: a whole number, held within the possible; 0 if it is none.
fn priority(value: &HeaderValue) -> i32 {
    let number = value.to_str().ok().and_then(|text| text.trim().parse::<i32>().ok());
    number.map_or(0, |number| number.clamp(-MOST_PRIORITY, MOST_PRIORITY))
}

/// Sixteen random bytes in hexadecimal digits.
pub(crate) fn new_id() -> Arc<str> {
    use ring::rand::SecureRandom;
    let mut bytes = [0_u8; 16];
    if ring::rand::SystemRandom::new().fill(&mut bytes).is_err() {
        // Ids must differ, not be secret.
        static COUNT: AtomicU64 = AtomicU64::new(0);
        bytes[8..].copy_from_slice(&COUNT.fetch_add(1, Ordering::Relaxed).to_be_bytes());
    }
    Arc::from(bytes.map(|byte| format!("{byte:02x}")).concat())
}

/// The address of the other end, where the connection has one.
pub(crate) fn peer(extensions: &axum::http::Extensions) -> Option<SocketAddr> {
    extensions.get::<ConnectInfo<SocketAddr>>().map(|info| info.0)
}

impl<S: Send + Sync> FromRequestParts<S> for RequestContext {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        let known = parts.extensions.get::<Self>().cloned();
        Ok(known.unwrap_or_else(|| Self::new(&parts.headers, peer(&parts.extensions))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_of_clients_are_taken_over_if_they_are_fine() {
        let context = |id: &[u8]| {
            let headers = HeaderMap::from_iter([(
                axum::http::HeaderName::from_static(REQUEST_ID),
                HeaderValue::from_bytes(id).unwrap(),
            )]);
            RequestContext::new(&headers, None).id
        };
        assert_eq!(&*context(b"abc-1"), "abc-1");
        for bad in [&b""[..], b"a b", b"\xff", &[b'a'; 129]] {
            assert_eq!(context(bad).len(), 32);
        }
        assert_ne!(new_id(), new_id());
    }

    #[test]
    fn priorities_are_whole_numbers_within_limits() {
        let of = |value: &'static str| priority(&HeaderValue::from_static(value));
        assert_eq!((of("5"), of(" -3 "), of("1000"), of("-2000000000")), (5, -3, 100, -100));
        assert_eq!((of("high"), of(""), of("1.5")), (0, 0, 0));
    }
}
