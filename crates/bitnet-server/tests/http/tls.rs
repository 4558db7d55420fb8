//! TLS.

use std::io::Read;
use std::process::Command;
use std::sync::Arc;

use bitnet_server::Server;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;

use crate::support::{config, start_with};

/// Writes a certificate for localhost and its key; false where there is no openssl to make them.
fn certificate(dir: &std::path::Path) -> bool {
    let args = ["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"];
    let more = ["-days", "2", "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"];
    let files = ["-addext", "basicConstraints=critical,CA:FALSE", "-keyout", "key.pem", "-out", "cert.pem"];
    let made = Command::new("openssl").args(args).args(more).args(files).current_dir(dir).output();
    made.is_ok_and(|output| output.status.success())
}

#[test]
fn a_certificate_encrypts() {
    let dir = tempfile::tempdir().unwrap();
    if !certificate(dir.path()) {
        // What is not there is told, not passed over.
        eprintln!("skipped: openssl cannot be run to make a certificate");
        return;
    }
    let mut config = config();
    config.tls_cert = Some(dir.path().join("cert.pem"));
    config.tls_key = Some(dir.path().join("key.pem"));
    config.header_timeout = 1;
    let server = start_with(config);
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(dir.path().join("cert.pem")).unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = rustls::ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let client = builder.unwrap().with_root_certificates(roots).with_no_client_auth();
    let name = "localhost".try_into().unwrap();
    let mut session = rustls::ClientConnection::new(Arc::new(client), name).unwrap();
    let mut plain = server.connect().stream;
    let mut stream = rustls::Stream::new(&mut session, &mut plain);
    std::io::Write::write_all(
        &mut stream,
        b"GET /v1/models HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n",
    )
    .unwrap();
    let mut text = Vec::new();
    let _ = stream.read_to_end(&mut text);
    let text = String::from_utf8(text).unwrap();
    assert!(text.starts_with("HTTP/1.1 200") && text.contains(bitnet_tiny::NAME), "{text}");
    // One that speaks no TLS gets nothing, one that says nothing is not waited for.
    let mut plain = server.connect();
    plain.request("GET", "/health", &[], b"");
    assert!(plain.head().is_none_or(|answer| answer.status == 0));
    let mut silent = server.connect();
    assert!(!silent.more());
}

#[tokio::test]
async fn files_that_are_no_certificates_are_told() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("cert.pem"), "no PEM").unwrap();
    let mut config = config();
    config.tls_cert = Some(dir.path().join("cert.pem"));
    config.tls_key = Some(dir.path().join("missing.pem"));
    let error = Server::bind(config).await.unwrap_err().to_string();
    assert!(error.contains("cert.pem"), "{error}");
}
