//! The HTTPS listener's certificate and rules, from the configuration's files.

use std::path::Path;
use std::sync::Arc;

use rustls::RootCertStore;
use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::version::TLS13;

use crate::config::TlsConfig;

/// Reads `cert_file` and `key_file`, and `ca_file` when clients have to show a certificate
/// (`verify_incoming_https`). Blocking; for start-up.
///
/// # Errors
/// A file is missing or holds something else; the text names it.
pub fn server_config(tls: &TlsConfig) -> Result<Arc<ServerConfig>, String> {
    let (Some(cert), Some(key)) = (&tls.cert_file, &tls.key_file) else {
        return Err(
            "the HTTPS port is on, but cert_file or key_file is not set: set both, or ports.https to -1"
                .into(),
        );
    };
    let chain = certificates(cert)?;
    let key =
        PrivateKeyDer::from_pem_file(key).map_err(|error| format!("key_file {}: {error}", key.display()))?;
    let builder = match tls.min_version.as_str() {
        "tls13" => ServerConfig::builder_with_protocol_versions(&[&TLS13]),
        // 1.2 and 1.3; older ones are broken, and not spoken whatever the configuration allows.
        _ => ServerConfig::builder(),
    };
    let builder = if tls.verify_incoming_https {
        let ca =
            tls.ca_file.as_deref().ok_or("verify_incoming_https needs ca_file, to know whom to trust")?;
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(certificates(ca)?);
        let verifier = WebPkiClientVerifier::builder(Arc::new(roots)).build();
        builder.with_client_cert_verifier(
            verifier.map_err(|error| format!("ca_file {}: {error}", ca.display()))?,
        )
    } else {
        builder.with_no_client_auth()
    };
    let mut config = builder
        .with_single_cert(chain, key)
        .map_err(|error| format!("cert_file {} and its key: {error}", cert.display()))?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let wrong = |error: rustls::pki_types::pem::Error| format!("{}: {error}", path.display());
    CertificateDer::pem_file_iter(path).map_err(wrong)?.collect::<Result<_, _>>().map_err(wrong)
}
