//! The client of the commands: which agent, which token, which certificates; flags over environment.

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;

use base64::Engine;
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

use super::transport::{self, Incoming, Outgoing, Target, error_text};
use crate::config::flags::{Flag, FlagKind, Parsed, go_bool};
use crate::watch::gotext::encoded;

/// A flag with a value.
const fn value(name: &'static str, help: &'static str) -> Flag {
    Flag { name, kind: FlagKind::Value, help }
}

/// Flags that all commands share which speak to an agent.
pub const FLAGS: [Flag; 10] = [
    value(
        "http-addr",
        "Address and port of the agent's HTTP API, with http://, https:// or unix:// before it if need be. Else CONSUL_HTTP_ADDR, else 127.0.0.1:8500.",
    ),
    value("token", "ACL token of the request. Else CONSUL_HTTP_TOKEN, else the token of the agent."),
    value("token-file", "File that holds the ACL token. Else CONSUL_HTTP_TOKEN_FILE."),
    value("ca-file", "File of certificate authorities for TLS. Else CONSUL_CACERT."),
    value("ca-path", "Folder of certificate authorities for TLS. Else CONSUL_CAPATH."),
    value("client-cert", "Certificate shown to the agent. Else CONSUL_CLIENT_CERT."),
    value("client-key", "Key of that certificate. Else CONSUL_CLIENT_KEY."),
    value("tls-server-name", "Name expected in the agent's certificate. Else CONSUL_TLS_SERVER_NAME."),
    value("datacenter", "Datacenter asked; that of the agent when not given."),
    Flag {
        name: "stale",
        kind: FlagKind::Bool,
        help: "Any server may answer, not only the leader: faster, but the answer may be old. Only for reads.",
    },
];

/// How many of [`FLAGS`] commands have that ask about no datacenter.
pub const AGENT_FLAGS: usize = 8;

/// The agent that a command speaks to.
#[derive(Clone)]
pub struct Client {
    target: Target,
    /// The address as URLs in messages show it.
    shown: String,
    tls: Option<(Arc<rustls::ClientConfig>, String)>,
    headers: Vec<(String, String)>,
    datacenter: Option<String>,
    stale: bool,
}

/// A finished answer.
pub struct Reply {
    /// Status code.
    pub status: u16,
    /// Body.
    pub body: Vec<u8>,
}

impl Reply {
    /// The body of a 200, else Consul's text for other codes.
    pub fn ok(self) -> Result<Vec<u8>, String> {
        if self.status == 200 {
            return Ok(self.body);
        }
        Err(format!(
            "Unexpected response code: {} ({})",
            self.status,
            String::from_utf8_lossy(&self.body).trim_end()
        ))
    }
}

impl Client {
    /// The client that flags and environment describe. The error is for the operator.
    pub fn new(flags: &Parsed) -> Result<Client, String> {
        let setting = |flag: &str, variable: &str| {
            let given = flags.value(flag).map(str::to_owned);
            given.or_else(|| std::env::var(variable).ok()).filter(|text| !text.is_empty())
        };
        let addr = setting("http-addr", "CONSUL_HTTP_ADDR").unwrap_or_else(|| "127.0.0.1:8500".to_owned());
        let ssl = setting("ssl", "CONSUL_HTTP_SSL").and_then(|text| go_bool(&text)).unwrap_or(false);
        let (target, shown) = target(&addr, ssl);
        let mut headers = Vec::new();
        if let Some(token) = token(flags)? {
            headers.push(("X-Consul-Token".to_owned(), token));
        }
        if let Some(auth) = setting("auth", "CONSUL_HTTP_AUTH") {
            let pair = if auth.contains(':') { auth } else { format!("{auth}:") };
            let encoded = base64::engine::general_purpose::STANDARD.encode(pair);
            headers.push(("Authorization".to_owned(), format!("Basic {encoded}")));
        }
        let tls = match &target {
            Target::Tls(host) => {
                let name = setting("tls-server-name", "CONSUL_TLS_SERVER_NAME");
                let config = TlsFiles {
                    ca_file: setting("ca-file", "CONSUL_CACERT"),
                    ca_path: setting("ca-path", "CONSUL_CAPATH"),
                    cert: setting("client-cert", "CONSUL_CLIENT_CERT"),
                    key: setting("client-key", "CONSUL_CLIENT_KEY"),
                }
                .config()?;
                Some((Arc::new(config), name.unwrap_or_else(|| host_of(host).to_owned())))
            }
            _ => None,
        };
        let datacenter = flags.value("datacenter").filter(|dc| !dc.is_empty()).map(str::to_owned);
        Ok(Client { target, shown, tls, headers, datacenter, stale: flags.is_on("stale") })
    }

    /// GET of a path with a query.
    pub fn get(&self, path: &str, query: &[(&str, &str)]) -> Result<Reply, String> {
        self.request("GET", path, query, &[])
    }

    /// PUT of a path with a query.
    pub fn put(&self, path: &str, query: &[(&str, &str)], body: &[u8]) -> Result<Reply, String> {
        self.request("PUT", path, query, body)
    }

    /// Any request, its answer as a whole.
    pub fn request(
        &self,
        method: &str,
        path: &str,
        query: &[(&str, &str)],
        body: &[u8],
    ) -> Result<Reply, String> {
        let (incoming, url) = self.open(method, path, query, body)?;
        let status = incoming.status;
        let body = incoming.bytes().map_err(|why| failed(method, &url, &why))?;
        Ok(Reply { status, body })
    }

    /// Any request, its body still to be read; and its URL for messages.
    pub fn open(
        &self,
        method: &str,
        path: &str,
        query: &[(&str, &str)],
        body: &[u8],
    ) -> Result<(Incoming, String), String> {
        let (path, url) = self.address(path, query);
        let request = Outgoing { method, path: &path, headers: &self.headers, body };
        let incoming =
            transport::send(&self.target, self.tls(), &request).map_err(|why| failed(method, &url, &why))?;
        Ok((incoming, url))
    }

    /// Whether any server may answer.
    pub fn is_stale(&self) -> bool {
        self.stale
    }

    /// Where a request goes: its target with the query, encoded, and its URL for messages.
    pub fn address(&self, path: &str, query: &[(&str, &str)]) -> (String, String) {
        self.address_at(path, query, self.stale)
    }

    /// The same, where any server may answer or only the leader.
    pub fn address_at(&self, path: &str, query: &[(&str, &str)], stale: bool) -> (String, String) {
        let mut query = query.to_vec();
        if let Some(datacenter) = &self.datacenter {
            query.push(("dc", datacenter));
        }
        if stale {
            query.push(("stale", ""));
        }
        query.sort_unstable();
        let mut path = encoded(path, true);
        for (i, (name, value)) in query.iter().enumerate() {
            path.push(if i == 0 { '?' } else { '&' });
            path.push_str(&format!("{}={}", encoded(name, false), encoded(value, false)));
        }
        let url = format!("{}{path}", self.shown);
        (path, url)
    }

    /// Where the agent listens.
    pub fn target(&self) -> &Target {
        &self.target
    }

    /// How TLS is spoken with it.
    pub fn tls(&self) -> Option<(&Arc<rustls::ClientConfig>, &str)> {
        self.tls.as_ref().map(|(config, name)| (config, name.as_str()))
    }

    /// The headers of every request.
    pub fn headers(&self) -> &[(String, String)] {
        &self.headers
    }
}

/// Go's text for a request that failed.
pub fn failed(method: &str, url: &str, why: &str) -> String {
    let mut verb = method.to_ascii_lowercase();
    verb[..1].make_ascii_uppercase();
    format!("{verb} {url:?}: {why}")
}

/// The token of the request: flag, file flag, environment, file of the environment.
fn token(flags: &Parsed) -> Result<Option<String>, String> {
    let variable = |name: &str| std::env::var(name).ok();
    let file = |path: String| -> Result<String, String> {
        let text = fs::read_to_string(&path)
            .map_err(|e| format!("Error loading token file: open {path}: {}", error_text(&e)))?;
        Ok(text.trim().to_owned())
    };
    let given = |text: Option<String>| text.filter(|t| !t.is_empty());
    if let Some(token) = given(flags.value("token").map(str::to_owned)) {
        return Ok(Some(token));
    }
    if let Some(path) = given(flags.value("token-file").map(str::to_owned)) {
        return file(path).map(Some);
    }
    if let Some(token) = given(variable("CONSUL_HTTP_TOKEN")) {
        return Ok(Some(token));
    }
    given(variable("CONSUL_HTTP_TOKEN_FILE")).map(file).transpose()
}

/// Where an address leads, and how URLs show it.
fn target(addr: &str, ssl: bool) -> (Target, String) {
    match addr.split_once("://") {
        Some(("unix", path)) => {
            (Target::Unix(PathBuf::from(path)), format!("http://{}", encoded(path, false)))
        }
        Some(("https", rest)) => tcp(rest, true),
        Some((_, rest)) => tcp(rest, ssl),
        None => tcp(addr, ssl),
    }
}

/// A TCP target; the port of the scheme when none is written.
fn tcp(rest: &str, tls: bool) -> (Target, String) {
    let host = rest.trim_end_matches('/');
    let has_port = host.rsplit_once(':').is_some_and(|(_, port)| port.bytes().all(|b| b.is_ascii_digit()));
    let addr = match (has_port, tls) {
        (true, _) => host.to_owned(),
        (false, true) => format!("{host}:443"),
        (false, false) => format!("{host}:80"),
    };
    if tls {
        (Target::Tls(addr), format!("https://{host}"))
    } else {
        (Target::Plain(addr), format!("http://{host}"))
    }
}

/// The host of `host:port`, without brackets.
fn host_of(addr: &str) -> &str {
    let host = addr.rsplit_once(':').map_or(addr, |(host, _)| host);
    host.trim_start_matches('[').trim_end_matches(']')
}

/// Files of a TLS client.
struct TlsFiles {
    ca_file: Option<String>,
    ca_path: Option<String>,
    cert: Option<String>,
    key: Option<String>,
}

impl TlsFiles {
    /// The configuration of TLS.
    fn config(&self) -> Result<rustls::ClientConfig, String> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = rustls::ClientConfig::builder_with_provider(provider.clone())
            .with_safe_default_protocol_versions()
            .map_err(|e| format!("tls: {e}"))?;
        let verify =
            std::env::var("CONSUL_HTTP_SSL_VERIFY").ok().and_then(|text| go_bool(&text)).unwrap_or(true);
        let builder = if verify {
            builder.with_root_certificates(self.roots()?)
        } else {
            builder.dangerous().with_custom_certificate_verifier(Arc::new(Unverified(provider)))
        };
        match (&self.cert, &self.key) {
            (Some(cert), Some(key)) => {
                let text = |e: std::io::Error| format!("Error loading client key {key}: {}", error_text(&e));
                let bytes = fs::read(key).map_err(text)?;
                let parsed = PrivateKeyDer::from_pem_slice(&bytes)
                    .map_err(|e| format!("Error loading client key {key}: {e}"))?;
                builder
                    .with_client_auth_cert(certificates(cert)?, parsed)
                    .map_err(|e| format!("{cert} and {key}: {e}"))
            }
            (None, None) => Ok(builder.with_no_client_auth()),
            _ => Err("both client cert and client key must be provided".to_owned()),
        }
    }

    /// The authorities: the file, the folder, else those of the system.
    fn roots(&self) -> Result<rustls::RootCertStore, String> {
        let mut files: Vec<String> = self.ca_file.iter().cloned().collect();
        if let Some(folder) = self.ca_path.as_ref().filter(|_| files.is_empty()) {
            let entries = fs::read_dir(folder).map_err(|e| format!("Error loading CA path {folder}: {e}"))?;
            files.extend(entries.flatten().map(|entry| entry.path().display().to_string()));
        }
        let mut roots = rustls::RootCertStore::empty();
        for file in &files {
            for cert in certificates(file)? {
                roots.add(cert).map_err(|e| format!("{file}: {e}"))?;
            }
        }
        if files.is_empty() {
            roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        }
        Ok(roots)
    }
}

/// The certificates of a PEM file.
fn certificates(file: &str) -> Result<Vec<CertificateDer<'static>>, String> {
    let text = |e: std::io::Error| format!("Error loading certificate {file}: {}", error_text(&e));
    let bytes = fs::read(file).map_err(text)?;
    let wrong = |e: pem::Error| format!("Error loading certificate {file}: {e}");
    CertificateDer::pem_slice_iter(&bytes).collect::<Result<_, _>>().map_err(wrong)
}

/// Takes every certificate: what `CONSUL_HTTP_SSL_VERIFY=false` asks for. Signatures are still checked.
#[derive(Debug)]
struct Unverified(Arc<rustls::crypto::CryptoProvider>);

impl rustls::client::danger::ServerCertVerifier for Unverified {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &rustls::pki_types::ServerName<'_>,
        _: &[u8],
        _: rustls::pki_types::UnixTime,
    ) -> Result<rustls::client::danger::ServerCertVerified, rustls::Error> {
        Ok(rustls::client::danger::ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &rustls::DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls12_signature(
            message,
            cert,
            signed,
            &self.0.signature_verification_algorithms,
        )
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &rustls::DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls13_signature(
            message,
            cert,
            signed,
            &self.0.signature_verification_algorithms,
        )
    }

    fn supported_verify_schemes(&self) -> Vec<rustls::SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_lead_somewhere() {
        let plain = |addr: &str| (Target::Plain(addr.to_owned()), format!("http://{addr}"));
        assert_eq!(target("1.2.3.4:5", false), plain("1.2.3.4:5"));
        assert_eq!(target("http://1.2.3.4:5/", false), plain("1.2.3.4:5"));
        assert_eq!(target("x:1", true), (Target::Tls("x:1".to_owned()), "https://x:1".to_owned()));
        assert_eq!(target("https://x", false), (Target::Tls("x:443".to_owned()), "https://x".to_owned()));
        assert_eq!(target("unix:///a/b", false).0, Target::Unix(PathBuf::from("/a/b")));
        assert_eq!(host_of("[::1]:8500"), "::1");
    }
}
