//! TLS rules of checks: the host's certificate authorities, or none at all. Made once, when first needed.

use std::cell::OnceCell;
use std::path::Path;
use std::sync::Arc;

use rustls::client::WantsClientCert;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{ClientConfig, ConfigBuilder, DigitallySignedStruct, RootCertStore, SignatureScheme};

use crate::runtime::blocking;

/// See the module. One per core.
#[derive(Default)]
pub struct TlsConfigs {
    verified: OnceCell<Arc<ClientConfig>>,
    unverified: OnceCell<Arc<ClientConfig>>,
}

impl TlsConfigs {
    /// The rules for checks that verify certificates, or for those that do not.
    pub async fn get(&self, skip_verify: bool) -> Result<Arc<ClientConfig>, String> {
        let cell = if skip_verify { &self.unverified } else { &self.verified };
        if let Some(config) = cell.get() {
            return Ok(config.clone());
        }
        let made = if skip_verify {
            unverified()?
        } else {
            // Reads the host's bundle of authorities.
            blocking::run(verified).await.map_err(|_| "tls: loading authorities failed".to_owned())??
        };
        Ok(cell.get_or_init(|| Arc::new(made)).clone())
    }
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

fn verified() -> Result<ClientConfig, String> {
    let mut roots = RootCertStore::empty();
    let found = rustls_native_certs::load_native_certs();
    roots.add_parsable_certificates(found.certs);
    let builder = ClientConfig::builder_with_provider(provider());
    let builder = builder.with_safe_default_protocol_versions().map_err(|e| format!("tls: {e}"))?;
    Ok(builder.with_root_certificates(roots).with_no_client_auth())
}

fn unverified() -> Result<ClientConfig, String> {
    Ok(anyones()?.with_no_client_auth())
}

/// Takes any certificate and shows one: for an agent that asks itself. Blocking.
///
/// # Errors
/// A file is missing or holds something else; the text names it.
pub fn unverified_with(cert: &Path, key: &Path) -> Result<Arc<ClientConfig>, String> {
    let wrong = |path: &Path, why: pem::Error| format!("{}: {why}", path.display());
    let chain = CertificateDer::pem_file_iter(cert).map_err(|why| wrong(cert, why))?;
    let chain = chain.collect::<Result<Vec<_>, _>>().map_err(|why| wrong(cert, why))?;
    let private = PrivateKeyDer::from_pem_file(key).map_err(|why| wrong(key, why))?;
    let config = anyones()?.with_client_auth_cert(chain, private);
    Ok(Arc::new(config.map_err(|why| format!("{} and its key: {why}", cert.display()))?))
}

fn anyones() -> Result<ConfigBuilder<ClientConfig, WantsClientCert>, String> {
    let builder = ClientConfig::builder_with_provider(provider());
    let builder = builder.with_safe_default_protocol_versions().map_err(|e| format!("tls: {e}"))?;
    let anyone = Arc::new(Anyone(provider()));
    Ok(builder.dangerous().with_custom_certificate_verifier(anyone))
}

/// Takes any certificate, as `tls_skip_verify` asks; signatures are still checked.
#[derive(Debug)]
struct Anyone(Arc<CryptoProvider>);

impl ServerCertVerifier for Anyone {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls12_signature(message, cert, dss, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls13_signature(message, cert, dss, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
