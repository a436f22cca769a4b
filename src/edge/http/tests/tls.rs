//! HTTPS, with the certificate of `tests/fixtures/tls`, which vouches for itself.

use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore};

use super::*;
use crate::config::TlsConfig;
use crate::edge::http::tls::server_config;

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/tls").join(name)
}

fn with_certificate() -> TlsConfig {
    TlsConfig { cert_file: Some(fixture("cert.pem")), key_file: Some(fixture("key.pem")), ..config().tls }
}

const HTTPS: Setup =
    Setup { tls: Some(|_| server_config(&with_certificate()).expect("TLS")), ..Setup::PLAIN };

/// Asks every client for a certificate.
const MUTUAL: Setup = Setup {
    tls: Some(|_| {
        let tls = TlsConfig {
            ca_file: Some(fixture("cert.pem")),
            verify_incoming_https: true,
            ..with_certificate()
        };
        server_config(&tls).expect("TLS")
    }),
    ..Setup::PLAIN
};

/// A client with TLS over [`Client`]'s stream.
struct Secure {
    tls: ClientConnection,
    stream: Stream,
    plain: Vec<u8>,
}

impl Secure {
    async fn connect(site: &Site, certificate: bool) -> Secure {
        let mut roots = RootCertStore::empty();
        roots
            .add(CertificateDer::from_pem_file(fixture("cert.pem")).expect("a certificate"))
            .expect("a root");
        let builder = ClientConfig::builder().with_root_certificates(roots);
        let config = if certificate {
            let chain = vec![CertificateDer::from_pem_file(fixture("cert.pem")).expect("a certificate")];
            let key = PrivateKeyDer::from_pem_file(fixture("key.pem")).expect("a key");
            builder.with_client_auth_cert(chain, key).expect("a pair")
        } else {
            builder.with_no_client_auth()
        };
        let name = ServerName::try_from("localhost").expect("a name");
        let mut tls = ClientConnection::new(Arc::new(config), name).expect("a session");
        tls.set_buffer_limit(None);
        Secure { tls, stream: site.client().await.stream, plain: Vec::new() }
    }

    async fn send(&mut self, bytes: &str) -> io::Result<()> {
        self.tls.writer().write_all(bytes.as_bytes())?;
        self.flush().await
    }

    async fn flush(&mut self) -> io::Result<()> {
        let mut records = Vec::new();
        while self.tls.wants_write() {
            self.tls.write_tls(&mut records)?;
        }
        self.stream.write_all(&records).await
    }

    /// Whether there was more to read.
    async fn more(&mut self) -> io::Result<bool> {
        let mut records = [0; 16 << 10];
        let read = self.stream.read(&mut records).await?;
        let mut rest = &records[..read];
        loop {
            self.tls.read_tls(&mut rest)?;
            self.tls.process_new_packets().map_err(io::Error::other)?;
            let mut plain = vec![0; 64 << 10];
            while let Ok(read @ 1..) = self.tls.reader().read(&mut plain) {
                self.plain.extend_from_slice(&plain[..read]);
            }
            if rest.is_empty() {
                break;
            }
        }
        self.flush().await?;
        Ok(read > 0)
    }

    /// The next answer's status and body.
    async fn answer(&mut self) -> io::Result<(u16, String)> {
        loop {
            if let Some(at) = self.plain.windows(4).position(|w| w == b"\r\n\r\n") {
                let head = String::from_utf8_lossy(&self.plain[..at]).into_owned();
                let length = head.lines().find_map(|line| line.strip_prefix("Content-Length: "));
                let end = at + 4 + length.map_or(0, |length| length.parse().expect("a length"));
                if self.plain.len() >= end {
                    let body = String::from_utf8_lossy(&self.plain[at + 4..end]).into_owned();
                    self.plain.drain(..end);
                    return Ok((head[9..12].parse().expect("a status"), body));
                }
            }
            if !self.more().await? {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
    }

    async fn ask(&mut self, bytes: &str) -> io::Result<(u16, String)> {
        self.send(bytes).await?;
        self.answer().await
    }
}

fn get(target: &str) -> String {
    format!("GET {target} HTTP/1.1\r\nHost: x\r\n\r\n")
}

#[test]
fn requests_on_one_connection() {
    with_site_as(HTTPS, |site| async move {
        let mut client = Secure::connect(&site, false).await;
        let put = "PUT /v1/kv/k HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\n\r\n1";
        assert_eq!(client.ask(put).await.expect("an answer").0, 200);
        assert_eq!(client.tls.alpn_protocol(), None, "who asks for no protocol gets none");
        for _ in 0..3 {
            assert_eq!(client.ask(&get("/v1/kv/k?raw")).await.expect("an answer"), (200, "1".to_owned()));
        }
        // More than one record, one socket buffer, one turn.
        let (status, body) = client.ask(&get("/test/big")).await.expect("an answer");
        assert_eq!((status, body.len()), (200, BIG));
        let large = "x".repeat(300_000);
        let echo =
            format!("PUT /test/echo HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n\r\n{large}", large.len());
        assert_eq!(client.ask(&echo).await.expect("an answer"), (200, large));
        client.send(&format!("{}{}", get("/v1/kv/k?raw"), get("/v1/kv/k?raw"))).await.expect("sent");
        for _ in 0..2 {
            assert_eq!(client.answer().await.expect("an answer").1, "1");
        }
        let last = "GET /v1/kv/k?raw HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
        assert_eq!(client.ask(last).await.expect("an answer").1, "1");
        assert!(!client.more().await.expect("a goodbye"));
    });
}

#[test]
fn a_blocking_query_wakes() {
    with_site_as(HTTPS, |site| async move {
        site.put("k", "1").await;
        let mut client = Secure::connect(&site, false).await;
        let mut other = Secure::connect(&site, false).await;
        client.send(&get("/v1/kv/k?raw&wait=60s&index=1")).await.expect("sent");
        assert_eq!(other.ask(&get("/v1/kv/k?raw")).await.expect("an answer").1, "1");
        site.put("k", "2").await;
        assert_eq!(client.answer().await.expect("an answer"), (200, "2".to_owned()));
        assert_eq!(client.ask(&get("/v1/kv/k?raw")).await.expect("an answer").1, "2");
    });
}

#[test]
fn the_least_version_holds() {
    let tls = TlsConfig { min_version: "tls13".to_owned(), ..with_certificate() };
    let server = server_config(&tls).expect("TLS");
    let roots = RootCertStore::empty();
    let old = ClientConfig::builder_with_protocol_versions(&[&rustls::version::TLS12]);
    let old = old.with_root_certificates(roots).with_no_client_auth();
    let mut client =
        ClientConnection::new(Arc::new(old), "localhost".try_into().expect("a name")).expect("a session");
    let mut hello = Vec::new();
    client.write_tls(&mut hello).expect("a hello");
    let mut session = rustls::ServerConnection::new(server).expect("a session");
    session.read_tls(&mut &hello[..]).expect("read");
    assert!(session.process_new_packets().is_err());
}

#[test]
fn clients_without_a_certificate_are_refused_where_one_is_asked_for() {
    with_site_as(MUTUAL, |site| async move {
        let mut stranger = Secure::connect(&site, false).await;
        assert!(stranger.ask(&get("/v1/status/leader")).await.is_err());
        // The others are served on.
        let mut known = Secure::connect(&site, true).await;
        assert_eq!(known.ask(&get("/v1/status/leader")).await.expect("an answer").0, 200);
    });
}

#[test]
fn plain_http_on_the_https_port_is_closed() {
    with_site_as(HTTPS, |site| async move {
        let mut client = site.client().await;
        client.send(get("/v1/status/leader")).await;
        while !client.is_closed().await {}
    });
}

#[test]
fn what_is_wrong_with_the_files_is_said() {
    let wrong = |tls: TlsConfig| server_config(&tls).map(drop).expect_err("it is wrong");
    // None at all is not wrong: only nobody gets in.
    assert!(server_config(&config().tls).is_ok());
    let missing = TlsConfig { cert_file: Some("/nonexistent.pem".into()), ..with_certificate() };
    assert!(wrong(missing).contains("/nonexistent.pem"));
    let swapped = TlsConfig { key_file: Some(fixture("cert.pem")), ..with_certificate() };
    assert!(wrong(swapped).contains("key_file"));
    let no_ca = TlsConfig { verify_incoming_https: true, ..with_certificate() };
    assert!(wrong(no_ca).contains("ca_file"));
}
