//! [`Client`]: requests to the Hub, redirects followed by hand.
//!
//! The token goes to the origin of the endpoint and nowhere else: once a redirect has led away from it, no later request
//! of that chain carries the token, even one that leads back. Bodies come as they are (`Accept-Encoding: identity`), and
//! a read that takes longer than the stall timeout fails.

use std::path::Path;
use std::time::{Duration, SystemTime};

use ureq::http::{HeaderMap, Request};
use ureq::tls::{PemItem, RootCerts, TlsConfig, parse_pem};
use ureq::{Agent, Body};

use crate::retry::Failure;
use crate::url::{Origin, join, without_query};
use crate::{HubConfig, HubError, Result};

/// Redirects of one request.
const MOST_REDIRECTS: usize = 10;
/// The longest text of a server that is shown.
const MESSAGE_CHARS: usize = 200;

/// Which redirects are followed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Follow {
    /// Those that stay on the server: renamed repositories. Others are the answer.
    SameOrigin,
    /// All: to where the content is.
    All,
}

/// The answer to a request.
#[derive(Debug)]
pub(crate) struct Answer {
    /// The address that answered.
    pub(crate) url: String,
    /// Its status.
    pub(crate) status: u16,
    /// Its headers.
    pub(crate) headers: HeaderMap,
    /// Its body.
    pub(crate) body: Body,
    /// Whether the server of the endpoint gave it.
    pub(crate) from_hub: bool,
}

impl Answer {
    /// A header as text, if it is there and is text.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok().map(str::trim).filter(|text| !text.is_empty())
    }

    /// A header as a number.
    pub(crate) fn number(&self, name: &str) -> Option<u64> {
        self.header(name)?.parse().ok()
    }

    /// What the Hub says about an error.
    pub(crate) fn message(&self) -> String {
        let text = self.header("x-error-message").unwrap_or_default();
        let clean: String = text.chars().filter(|c| !c.is_control()).take(MESSAGE_CHARS).collect();
        if clean.is_empty() { format!("status {}", self.status) } else { clean }
    }

    /// How long the server asks to wait.
    pub(crate) fn wait(&self) -> Option<Duration> {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        wait(self.header("retry-after"), self.header("ratelimit"), now)
    }
}

/// A server, spoken to over connections that are kept.
#[derive(Debug)]
pub(crate) struct Client {
    agent: Agent,
    home: Option<Origin>,
    authorization: Option<String>,
}

impl Client {
    /// Prepares requests; nothing is sent yet.
    ///
    /// # Errors
    /// [`HubError::Config`] if the certificates cannot be read.
    pub(crate) fn new(config: &HubConfig) -> Result<Self> {
        let tls = tls_config(config.certificates.as_deref())?;
        let agent = Agent::config_builder()
            .http_status_as_error(false)
            .max_redirects(0)
            .user_agent(concat!("bitnet/", env!("CARGO_PKG_VERSION")))
            .timeout_resolve(Some(config.connect_timeout))
            .timeout_connect(Some(config.connect_timeout))
            .timeout_per_read(Some(config.stall_timeout))
            .timeout_per_write(Some(config.stall_timeout))
            .input_buffer_size(256 << 10)
            .max_idle_connections_per_host(config.connections.max(1))
            .tls_config(tls)
            .build()
            .new_agent();
        let authorization = config.token.as_ref().map(crate::Token::header);
        Ok(Self { agent, home: Origin::of(&config.endpoint), authorization })
    }

    /// Whether there is a token.
    pub(crate) fn has_token(&self) -> bool {
        self.authorization.is_some()
    }

    /// Sends a request without a body, and follows redirects. Any status is an answer.
    ///
    /// # Errors
    /// If there is no answer, or a redirect leads where nothing may be fetched from.
    pub(crate) fn send(
        &self,
        method: &str,
        url: &str,
        headers: &[(&str, String)],
        follow: Follow,
    ) -> Result<Answer, Failure> {
        let mut url = url.to_owned();
        let mut trusted = true;
        for _ in 0..=MOST_REDIRECTS {
            let origin =
                Origin::of(&url).ok_or_else(|| bad_redirect(&url, "this is no address".to_owned()))?;
            let at_home = self.home.as_ref() == Some(&origin);
            trusted &= at_home;
            let mut request =
                Request::builder().method(method).uri(&url).header("accept-encoding", "identity");
            for (name, value) in headers {
                request = request.header(*name, value);
            }
            if let (Some(authorization), true) = (&self.authorization, trusted) {
                request = request.header("authorization", authorization);
            }
            let request = request.body(()).map_err(|error| bad_redirect(&url, error.to_string()))?;
            let response = self.agent.run(request).map_err(|error| unanswered(&url, &origin, &error))?;
            let status = response.status().as_u16();
            let (parts, body) = response.into_parts();
            let answer = Answer { url, status, headers: parts.headers, body, from_hub: at_home };
            if !matches!(status, 301 | 302 | 303 | 307 | 308) {
                return Ok(answer);
            }
            let location = answer.header("location").unwrap_or_default();
            let target = join(&answer.url, location)
                .ok_or_else(|| bad_redirect(&answer.url, "it redirects to no address".to_owned()))?;
            let target_origin = Origin::of(&target);
            if follow == Follow::SameOrigin && target_origin.as_ref() != Some(&origin) {
                return Ok(answer);
            }
            if origin.is_encrypted() && target_origin.is_none_or(|target| !target.is_encrypted()) {
                let why = format!("it redirects to {}, which is not encrypted", without_query(&target));
                return Err(bad_redirect(&answer.url, why).into());
            }
            url = target;
        }
        Err(bad_redirect(&url, format!("more than {MOST_REDIRECTS} redirects")).into())
    }
}

/// Whom to trust: the certificates in this PEM file, or Mozilla's.
///
/// # Errors
/// [`HubError::Config`] if they cannot be read.
pub fn tls_config(certificates: Option<&Path>) -> Result<TlsConfig> {
    Ok(match certificates {
        None => TlsConfig::default(),
        Some(path) => TlsConfig::builder().root_certs(read_certificates(path)?).build(),
    })
}

fn bad_redirect(url: &str, why: String) -> HubError {
    HubError::BadRedirect { url: without_query(url).to_owned(), why }
}

fn read_certificates(path: &Path) -> Result<RootCerts> {
    let bad = |why: String| HubError::Config { name: "SSL_CERT_FILE", why };
    let text =
        std::fs::read(path).map_err(|error| bad(format!("cannot read {}: {error}", path.display())))?;
    let certificates: Vec<_> = parse_pem(&text)
        .filter_map(|item| match item {
            Ok(PemItem::Certificate(certificate)) => Some(certificate),
            _ => None,
        })
        .collect();
    if certificates.is_empty() {
        return Err(bad(format!("{} holds no certificates in PEM", path.display())));
    }
    Ok(RootCerts::new_with_certs(&certificates))
}

/// The failure of a request that got no answer.
fn unanswered(url: &str, origin: &Origin, error: &ureq::Error) -> Failure {
    if let ureq::Error::Protocol(why) = error {
        let (url, why) = (without_query(url).to_owned(), why.to_string());
        return Failure::passing(HubError::BadAnswer { url, why });
    }
    let why = match error {
        ureq::Error::HostNotFound => "there is no such host, or no name server answers".to_owned(),
        ureq::Error::Timeout(timeout) => format!("no answer in time ({timeout})"),
        ureq::Error::Io(error) => error.to_string(),
        error => error.to_string(),
    };
    let lasting = matches!(error, ureq::Error::Rustls(_) | ureq::Error::Tls(_) | ureq::Error::BadUri(_))
        || why.contains("certificate");
    let error = HubError::Unreachable { server: origin.host(), why };
    if lasting { error.into() } else { Failure::passing(error) }
}

/// The failure of a body that broke off.
pub(crate) fn broken_off(what: &str, error: std::io::Error) -> Failure {
    let why = match ureq::Error::from(error) {
        ureq::Error::Timeout(_) => "nothing came for too long".to_owned(),
        error => format!("the connection broke ({error})"),
    };
    Failure::passing(HubError::Interrupted { what: what.to_owned(), why })
}

/// `Retry-After` in seconds or as a date, or the rest of the window that `RateLimit: "api";r=0;t=55` tells.
fn wait(retry_after: Option<&str>, rate_limit: Option<&str>, now: Duration) -> Option<Duration> {
    if let Some(text) = retry_after {
        if let Ok(seconds) = text.parse() {
            return Some(Duration::from_secs(seconds));
        }
        return http_date(text).map(|date| date.saturating_sub(now));
    }
    let seconds = rate_limit?.split(';').find_map(|part| part.trim().strip_prefix("t="))?;
    seconds.parse().ok().map(Duration::from_secs)
}

/// `Sun, 06 Nov 1994 08:49:37 GMT` as time since 1970.
fn http_date(text: &str) -> Option<Duration> {
    let mut words = text.split_once(", ")?.1.split_ascii_whitespace();
    let day: u64 = words.next()?.parse().ok().filter(|day| (1..=31).contains(day))?;
    let name = words.next()?;
    let months = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let month = months.iter().position(|month| *month == name)? as u64;
    let year: u64 = words.next()?.parse().ok().filter(|year| (1970..10_000).contains(year))?;
    let mut clock = words.next()?.splitn(3, ':').map(|part| part.parse::<u64>().ok().filter(|n| *n < 61));
    let (hours, minutes, seconds) = (clock.next()??, clock.next()??, clock.next()??);
    // Years that begin in March put the leap day at their end.
    let (year, month) = if month < 2 { (year - 1, month + 10) } else { (year, month - 2) };
    let days = 365 * year + year / 4 - year / 100 + year / 400 + (153 * month + 2) / 5 + day - 1;
    Some(Duration::from_secs((days - 719_468) * 86_400 + hours * 3600 + minutes * 60 + seconds))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_say_in_several_ways_how_long_to_wait() {
        let now = Duration::from_secs(784_111_777);
        let seconds = |retry, limit| wait(retry, limit, now).map(|wait| wait.as_secs());
        assert_eq!(seconds(Some("7"), None), Some(7));
        assert_eq!(seconds(Some("Sun, 06 Nov 1994 08:49:47 GMT"), None), Some(10));
        assert_eq!(seconds(Some("Sun, 06 Nov 1994 08:40:00 GMT"), None), Some(0));
        assert_eq!(seconds(None, Some("\"api\";r=0;t=55")), Some(55));
        assert_eq!(seconds(Some("soon"), None), None);
        assert_eq!(seconds(None, None), None);
    }

    #[test]
    fn dates_are_counted_right() {
        let date = |text| http_date(text).map(|date| date.as_secs());
        assert_eq!(date("Thu, 01 Jan 1970 00:00:00 GMT"), Some(0));
        assert_eq!(date("Sun, 06 Nov 1994 08:49:37 GMT"), Some(784_111_777));
        assert_eq!(date("Thu, 29 Feb 2024 12:00:00 GMT"), Some(1_709_208_000));
        for bad in
            ["", "Sun, 00 Nov 1994 08:49:37 GMT", "Sun, 06 Nov 94 08:49:37 GMT", "x, 1 Foo 2000 1:1:1 GMT"]
        {
            assert_eq!(date(bad), None, "{bad}");
        }
    }
}
