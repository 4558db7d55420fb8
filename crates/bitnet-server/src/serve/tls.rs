//! TLS from PEM files.

use std::path::Path;
use std::sync::Arc;

use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::TlsAcceptor;

use crate::config::ServerConfig;
use crate::error::ServerError;

/// What shakes hands, if TLS is configured.
///
/// # Errors
/// [`ServerError::Tls`] with the file that cannot be used.
pub(crate) fn acceptor(config: &ServerConfig) -> Result<Option<TlsAcceptor>, ServerError> {
    let (Some(certificate), Some(key)) = (&config.tls_cert, &config.tls_key) else { return Ok(None) };
    let failed =
        |path: &Path, problem: String| ServerError::Tls { file: path.display().to_string(), problem };
    let chain: Vec<CertificateDer<'static>> = CertificateDer::pem_file_iter(certificate)
        .and_then(Iterator::collect)
        .map_err(|error| failed(certificate, format!("cannot be read as PEM certificates: {error}")))?;
    if chain.is_empty() {
        return Err(failed(certificate, "has no certificate; give a PEM file".to_owned()));
    }
    let private = PrivateKeyDer::from_pem_file(key)
        .map_err(|error| failed(key, format!("cannot be read as a PEM private key: {error}")))?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut tls = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .and_then(|builder| builder.with_no_client_auth().with_single_cert(chain, private))
        .map_err(|error| failed(certificate, format!("does not go with {}: {error}", key.display())))?;
    tls.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Some(TlsAcceptor::from(Arc::new(tls))))
}
