//! Connections of checks: by name or address, in clear or over TLS.

use std::io;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_lite::io::{AsyncRead, AsyncWrite};
use futures_rustls::TlsConnector;
use futures_rustls::client::TlsStream;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;

use super::plan::TlsProbe;
use super::tls::TlsConfigs;
use crate::runtime::net::{Endpoint, Stream, resolve};

/// A stream of a check.
pub enum Connection {
    /// In clear.
    Plain(Stream),
    /// Over TLS.
    Tls(Box<TlsStream<Stream>>),
}

/// Connects to `host:port`, trying each address the name has. The error reads as Go's: `dial tcp ADDR: connect: ...`.
pub async fn dial(host: &str, port: u16, limit: Duration) -> Result<Stream, String> {
    let addresses = match host.parse::<IpAddr>() {
        Ok(ip) => vec![(ip, port).into()],
        Err(_) => resolve(host, port).await.map_err(|e| format!("dial tcp: lookup {host}: {e}"))?,
    };
    let mut last = format!("dial tcp: lookup {host}: no such host");
    for address in addresses {
        match Stream::connect(&Endpoint::Tcp(address), limit).await {
            Ok(stream) => return Ok(stream),
            Err(e) => last = format!("dial tcp {address}: connect: {}", system_text(&e)),
        }
    }
    Err(last)
}

/// Splits `host:port`; the port may be missing when there is a default.
pub fn split_host_port(text: &str, default_port: Option<u16>) -> Result<(&str, u16), String> {
    let (host, port) = match text.rsplit_once(':') {
        Some((host, port)) if !host.contains(':') || host.ends_with(']') => (host, Some(port)),
        _ => (text, None),
    };
    let port = match port {
        Some(port) => port.parse().map_err(|_| format!("dial tcp: address {text}: invalid port"))?,
        None => default_port.ok_or_else(|| format!("dial tcp: address {text}: missing port in address"))?,
    };
    Ok((host.trim_start_matches('[').trim_end_matches(']'), port))
}

/// Shakes hands on a stream. `alpn` names the protocols offered.
pub async fn secure(
    stream: Stream,
    host: &str,
    probe: &TlsProbe,
    configs: &TlsConfigs,
    alpn: &[&[u8]],
) -> Result<Connection, String> {
    let name = if probe.server_name.is_empty() { host } else { &probe.server_name };
    let mut config: Arc<ClientConfig> = configs.get(probe.skip_verify).await?;
    if !alpn.is_empty() {
        let mut with_alpn = ClientConfig::clone(&config);
        with_alpn.alpn_protocols = alpn.iter().map(|p| p.to_vec()).collect();
        config = Arc::new(with_alpn);
    }
    secure_by(stream, name, config).await
}

/// Shakes hands on a stream by these rules.
pub async fn secure_by(stream: Stream, name: &str, config: Arc<ClientConfig>) -> Result<Connection, String> {
    let name = ServerName::try_from(name.to_owned()).map_err(|e| format!("tls: {name}: {e}"))?;
    let handshake = TlsConnector::from(config).connect(name, stream).await;
    let tls = handshake.map_err(|e| tls_text(&e))?;
    Ok(Connection::Tls(Box::new(tls)))
}

/// What is wrong with a handshake, in Go's words where it has some; any other failure in its own.
fn tls_text(error: &io::Error) -> String {
    use rustls::{CertificateError as Bad, InvalidMessage};
    let Some(cause) = error.get_ref().and_then(|cause| cause.downcast_ref::<rustls::Error>()) else {
        return system_text(error);
    };
    let bad = match cause {
        rustls::Error::InvalidCertificate(bad) => bad,
        rustls::Error::InvalidMessage(InvalidMessage::InvalidContentType) => {
            return "tls: first record does not look like a TLS handshake".to_owned();
        }
        other => return format!("tls: {other}"),
    };
    match bad {
        // The latter: a self-signed certificate that calls itself an authority.
        Bad::UnknownIssuer | Bad::Other(_) => "x509: certificate signed by unknown authority".to_owned(),
        Bad::Expired | Bad::ExpiredContext { .. } | Bad::NotValidYet | Bad::NotValidYetContext { .. } => {
            "x509: certificate has expired or is not yet valid".to_owned()
        }
        Bad::NotValidForNameContext { expected, presented } => name_text(&expected.to_str(), presented),
        other => format!("x509: {other}"),
    }
}

/// That a certificate is for others. `presented` are its names as rustls writes them: `DnsName("a.b")`, `IpAddress(::1)`.
fn name_text(expected: &str, presented: &[String]) -> String {
    let inner = |name: &str| {
        let name = name.split_once('(').map_or(name, |(_, rest)| rest);
        name.trim_end_matches(')').trim_matches('"').to_owned()
    };
    let is_address = expected.parse::<IpAddr>().is_ok();
    let same_kind = |name: &&String| name.starts_with("IpAddress") == is_address;
    let names: Vec<String> = presented.iter().filter(same_kind).map(|name| inner(name)).collect();
    match names.is_empty() {
        true if is_address => {
            format!("x509: cannot validate certificate for {expected} because it doesn't contain any IP SANs")
        }
        true => format!("x509: certificate is not valid for any names, but wanted to match {expected}"),
        false => format!("x509: certificate is valid for {}, not {expected}", names.join(", ")),
    }
}

/// The system's words for an error, without Rust's `(os error N)`, in Go's small letters.
pub fn system_text(error: &io::Error) -> String {
    if error.kind() == io::ErrorKind::TimedOut {
        return "i/o timeout".to_owned();
    }
    let text = error.to_string();
    let text = text.split(" (os error").next().unwrap_or_default();
    let mut chars = text.chars();
    match chars.next() {
        Some(first) => first.to_lowercase().chain(chars).collect(),
        None => String::new(),
    }
}

impl AsyncRead for Connection {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Connection::Plain(stream) => Pin::new(stream).poll_read(cx, buffer),
            Connection::Tls(stream) => Pin::new(stream.as_mut()).poll_read(cx, buffer),
        }
    }
}

impl AsyncWrite for Connection {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Connection::Plain(stream) => Pin::new(stream).poll_write(cx, buffer),
            Connection::Tls(stream) => Pin::new(stream.as_mut()).poll_write(cx, buffer),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Connection::Plain(stream) => Pin::new(stream).poll_flush(cx),
            Connection::Tls(stream) => Pin::new(stream.as_mut()).poll_flush(cx),
        }
    }

    fn poll_close(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Connection::Plain(stream) => Pin::new(stream).poll_close(cx),
            Connection::Tls(stream) => Pin::new(stream.as_mut()).poll_close(cx),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_and_ports_are_split() {
        assert_eq!(split_host_port("a:80", None), Ok(("a", 80)));
        assert_eq!(split_host_port("[::1]:80", None), Ok(("::1", 80)));
        assert_eq!(split_host_port("[::1]", Some(443)), Ok(("::1", 443)));
        assert_eq!(split_host_port("a", Some(443)), Ok(("a", 443)));
        assert!(split_host_port("a", None).is_err());
        assert!(split_host_port("a:x", None).is_err());
    }

    #[test]
    fn system_errors_read_as_in_go() {
        let refused = io::Error::from_raw_os_error(111);
        assert_eq!(system_text(&refused), "connection refused");
    }
}
