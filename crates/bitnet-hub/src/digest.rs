//! [`Digest`]: how the content of a file is known, and checked while it comes.
//!
//! The etag of a large file (LFS, Xet) is the SHA-256 of its content, that of a small one the SHA-1 of git's object: of
//! `blob <size>\0` and the content.

use ring::digest::{Context, SHA1_FOR_LEGACY_USE_ONLY, SHA256};

/// A hash that content must have, in lower-case hexadecimal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Digest {
    /// SHA-256 of the content.
    Sha256(String),
    /// SHA-1 of git's object.
    GitBlob(String),
}

impl Digest {
    /// The digest that an etag is, if it is one.
    pub(crate) fn from_etag(etag: &str) -> Option<Self> {
        let hex = etag.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte));
        match (hex, etag.len()) {
            (true, 64) => Some(Self::Sha256(etag.to_owned())),
            (true, 40) => Some(Self::GitBlob(etag.to_owned())),
            _ => None,
        }
    }

    /// The hexadecimal digits.
    pub(crate) fn hex(&self) -> &str {
        match self {
            Self::Sha256(hex) | Self::GitBlob(hex) => hex,
        }
    }

    /// Begins to hash a file of `size` bytes.
    pub(crate) fn hasher(&self, size: u64) -> Hasher {
        match self {
            Self::Sha256(_) => Hasher(Context::new(&SHA256)),
            Self::GitBlob(_) => {
                let mut context = Context::new(&SHA1_FOR_LEGACY_USE_ONLY);
                context.update(format!("blob {size}\0").as_bytes());
                Hasher(context)
            }
        }
    }
}

/// A hash in the making.
#[derive(Clone)]
pub(crate) struct Hasher(Context);

impl Hasher {
    /// Takes the next bytes.
    pub(crate) fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// The hash in lower-case hexadecimal.
    pub(crate) fn finish(self) -> String {
        self.0.finish().as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
    }
}

impl std::fmt::Debug for Hasher {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Hasher")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digests_are_those_of_git_and_lfs() {
        // `printf hello | git hash-object --stdin` and `printf hello | sha256sum`.
        for etag in [
            "b6fc4c620b67d95f953a5c1c1230aaab5db5a1b0",
            "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824",
        ] {
            let mut hasher = Digest::from_etag(etag).unwrap().hasher(5);
            hasher.update(b"he");
            hasher.update(b"llo");
            assert_eq!(hasher.finish(), etag);
        }
    }

    #[test]
    fn other_etags_are_no_digests() {
        for etag in ["", "W/abc", &"A".repeat(40), &"0".repeat(41), "d41d8cd98f00b204e9800998ecf8427e"] {
            assert_eq!(Digest::from_etag(etag), None);
        }
    }
}
