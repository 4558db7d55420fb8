//! The little of URLs that a client of one server needs: encoding, origins, and where a redirect leads.

use ureq::http::Uri;

/// Scheme, host and port: what decides who may see a token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Origin {
    scheme: String,
    host: String,
    port: u16,
}

impl Origin {
    /// The origin of an absolute `http` or `https` URL.
    pub(crate) fn of(url: &str) -> Option<Self> {
        let uri: Uri = url.parse().ok()?;
        let scheme = uri.scheme_str()?.to_ascii_lowercase();
        let usual = match scheme.as_str() {
            "http" => 80,
            "https" => 443,
            _ => return None,
        };
        // A name in front of the host would be sent along, and hides where a URL leads.
        if uri.authority()?.as_str().contains('@') {
            return None;
        }
        let host = uri.host().filter(|host| !host.is_empty())?.to_ascii_lowercase();
        Some(Self { scheme, host, port: uri.port_u16().unwrap_or(usual) })
    }

    /// The host, with its port if that is not the usual one.
    pub(crate) fn host(&self) -> String {
        match (self.scheme.as_str(), self.port) {
            ("http", 80) | ("https", 443) => self.host.clone(),
            _ => format!("{}:{}", self.host, self.port),
        }
    }

    /// Whether what is sent there is encrypted.
    pub(crate) fn is_encrypted(&self) -> bool {
        self.scheme == "https"
    }

    fn prefix(&self) -> String {
        format!("{}://{}", self.scheme, self.host())
    }
}

/// Where `location` leads as the answer to a request of `base`. None if that is no `http` or `https` URL.
pub(crate) fn join(base: &str, location: &str) -> Option<String> {
    let location = location.trim().split('#').next().unwrap_or_default();
    let origin = Origin::of(base)?;
    let target = if location.contains("://") {
        location.to_owned()
    } else if let Some(rest) = location.strip_prefix("//") {
        format!("{}://{rest}", origin.scheme)
    } else if location.starts_with('/') {
        origin.prefix() + location
    } else if location.is_empty() {
        return None;
    } else {
        let path = base.split(['?', '#']).next().unwrap_or(base);
        let folder = path.rfind('/').filter(|&slash| slash > "https://".len()).map(|slash| &path[..=slash]);
        folder.map_or_else(|| format!("{}/", origin.prefix()), str::to_owned) + location
    };
    Origin::of(&target).map(|_| target)
}

/// Encodes everything but unreserved characters, slashes too.
pub(crate) fn encode(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            out += &format!("%{byte:02X}");
        }
    }
    out
}

/// Encodes the parts of a path.
pub(crate) fn encode_path(path: &str) -> String {
    path.split('/').map(encode).collect::<Vec<_>>().join("/")
}

/// The URL without its query, for messages: signed URLs carry secrets there.
pub(crate) fn without_query(url: &str) -> &str {
    url.split(['?', '#']).next().unwrap_or(url)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn origins_differ_by_scheme_host_and_port() {
        let of = |url| Origin::of(url).unwrap();
        assert_eq!(of("https://Hub.co/a"), of("https://hub.co:443/b?c"));
        assert_ne!(of("https://hub.co/"), of("http://hub.co/"));
        assert_ne!(of("http://hub.co/"), of("http://hub.co:8080/"));
        assert_eq!(of("http://[::1]:5/x").host(), "[::1]:5");
        for bad in ["ftp://hub.co/", "/path", "http://", "https://user:pw@hub.co/", "not a url"] {
            assert_eq!(Origin::of(bad), None, "{bad}");
        }
    }

    #[test]
    fn redirects_lead_where_the_standard_says() {
        let base = "https://hub.co/a/resolve/main/c.json?x=1";
        for (location, target) in [
            ("/b/resolve/main/c.json", "https://hub.co/b/resolve/main/c.json"),
            ("d.json", "https://hub.co/a/resolve/main/d.json"),
            ("https://cdn.co/x?sig=a%2Fb#f", "https://cdn.co/x?sig=a%2Fb"),
            ("//cdn.co/x", "https://cdn.co/x"),
        ] {
            assert_eq!(join(base, location).as_deref(), Some(target));
        }
        assert_eq!(join("http://hub.co", "x").as_deref(), Some("http://hub.co/x"));
        for bad in ["", "ftp://x/y", "javascript://x", "https://a@b/c"] {
            assert_eq!(join(base, bad), None, "{bad}");
        }
    }

    #[test]
    fn revisions_and_paths_are_encoded() {
        assert_eq!(encode("refs/pr/1"), "refs%2Fpr%2F1");
        assert_eq!(encode_path("a b/ü.json"), "a%20b/%C3%BC.json");
        assert_eq!(without_query("https://x/y?sig=1"), "https://x/y");
    }
}
