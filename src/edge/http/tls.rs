//! The HTTPS listener's certificate and rules, from the configuration's files.

use std::path::Path;
use std::sync::Arc;

use rustls::RootCertStore;
use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ResolvesServerCertUsingSni, WebPkiClientVerifier};
use rustls::version::TLS13;

use crate::config::TlsConfig;

/// Reads `cert_file` and `key_file`, and `ca_file` when clients have to show a certificate
/// (`verify_incoming_https`). Without the first two every handshake fails, as Consul's do: a port that is on by somebody's
/// template is no reason not to start. Blocking; for start-up.
///
/// # Errors
/// A file is missing or holds something else; the text names it.
pub fn server_config(tls: &TlsConfig) -> Result<Arc<ServerConfig>, String> {
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
    let mut config = match (&tls.cert_file, &tls.key_file) {
        (Some(cert), Some(key)) => {
            let chain = certificates(cert)?;
            let key = PrivateKeyDer::from_pem_file(key)
                .map_err(|error| format!("key_file {}: {error}", key.display()))?;
            builder
                .with_single_cert(chain, key)
                .map_err(|error| format!("cert_file {} and its key: {error}", cert.display()))?
        }
        _ => builder.with_cert_resolver(Arc::new(ResolvesServerCertUsingSni::new())),
    };
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let wrong = |error: rustls::pki_types::pem::Error| format!("{}: {error}", path.display());
    CertificateDer::pem_file_iter(path).map_err(wrong)?.collect::<Result<_, _>>().map_err(wrong)
}
