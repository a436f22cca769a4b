//! How an agent asks itself: over its own HTTP address, as every client does, and over one connection for each watch.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use futures_lite::io::AsyncWriteExt;

use crate::config::{Config, ListenAddr};
use crate::health::connect::{Connection, secure, secure_by, system_text};
use crate::health::http_client::{Framing, Reader, framing};
use crate::health::output::Tail;
use crate::health::plan::TlsProbe;
use crate::health::tls::{TlsConfigs, unverified_with};
use crate::runtime::blocking;
use crate::runtime::net::{Endpoint, Stream};
use crate::runtime::time;

/// Bytes of an answer. More is no list that a handler could take.
const BODY_MAX: usize = 256 << 20;
/// How long the agent may take to accept its own connection.
const CONNECT_MAX: Duration = Duration::from_secs(10);
/// Fields behind the last chunk.
const TRAILERS_MAX: usize = 128;

/// Where the agent's own HTTP API is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Own {
    endpoint: Endpoint,
    secured: Option<Secured>,
}

/// Over TLS.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Secured {
    host: String,
    /// Certificate and key that the agent shows itself, as it asks of all clients.
    shown: Option<(PathBuf, PathBuf)>,
}

/// An answer.
#[derive(Debug)]
pub struct Answered {
    /// Status code.
    pub status: u16,
    /// `X-Consul-Index`.
    pub index: Option<u64>,
    /// `X-Consul-ContentHash`.
    pub hash: Option<String>,
    /// Body.
    pub body: Vec<u8>,
}

impl Own {
    /// Where it is; `None` when the agent serves no HTTP at all.
    pub fn of(config: &Config) -> Option<Own> {
        let unix = |address: &&ListenAddr| matches!(address, ListenAddr::Unix(_));
        let (http, https) = (&config.listen.http, &config.listen.https);
        let plain = http.iter().find(unix).or(http.first());
        let (address, is_secured) = match plain {
            Some(address) => (address, false),
            None => (https.iter().find(unix).or(https.first())?, true),
        };
        let (endpoint, host) = match address {
            ListenAddr::Unix(path) => (Endpoint::Unix(path.clone()), "localhost".to_owned()),
            ListenAddr::Tcp(address) => {
                let address = reachable(*address);
                (Endpoint::Tcp(address), address.ip().to_string())
            }
        };
        let tls = &config.tls;
        let shown = tls.cert_file.clone().zip(tls.key_file.clone()).filter(|_| tls.verify_incoming_https);
        Some(Own { endpoint, secured: is_secured.then_some(Secured { host, shown }) })
    }

    async fn connect(&self, configs: &TlsConfigs) -> Result<Line, String> {
        let refused = |error: std::io::Error| match &self.endpoint {
            Endpoint::Tcp(address) => format!("dial tcp {address}: connect: {}", system_text(&error)),
            Endpoint::Unix(path) => format!("dial unix {}: connect: {}", path.display(), system_text(&error)),
        };
        let stream = Stream::connect(&self.endpoint, CONNECT_MAX).await.map_err(refused)?;
        let connection = match &self.secured {
            None => Connection::Plain(stream),
            // It is our own address: nobody else can listen there, whatever the certificate is made out for.
            Some(Secured { host, shown: None }) => {
                let anyone = TlsProbe { skip_verify: true, server_name: String::new() };
                secure(stream, host, &anyone, configs, &[]).await?
            }
            Some(Secured { host, shown: Some((cert, key)) }) => {
                let (cert, key) = (cert.clone(), key.clone());
                let read = blocking::run(move || unverified_with(&cert, &key)).await;
                secure_by(stream, host, read.map_err(|panicked| panicked.to_string())??).await?
            }
        };
        Ok(Line { connection, rest: Vec::new() })
    }
}

/// An address that listens on all interfaces is asked on the host's own.
fn reachable(address: SocketAddr) -> SocketAddr {
    let ip = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        other => other,
    };
    SocketAddr::new(ip, address.port())
}

/// A connection that is kept.
pub struct Line {
    connection: Connection,
    rest: Vec<u8>,
}

/// Asks over the connection that is there, else over a new one.
///
/// # Errors
/// In Go's words.
pub async fn ask(
    own: &Own,
    line: &mut Option<Line>,
    configs: &TlsConfigs,
    request: &Request<'_>,
) -> Result<Answered, String> {
    let bytes = request.bytes()?;
    if let Some(mut open) = line.take() {
        match time::timeout(request.limit, open.exchange(&bytes)).await {
            None => return Err("i/o timeout".to_owned()),
            Some(Ok((answered, keeps))) => {
                *line = keeps.then_some(open);
                return Ok(answered);
            }
            // The agent may have closed what rested: that is no failure yet.
            Some(Err(_)) => {}
        }
    }
    let mut open = own.connect(configs).await?;
    let answered = time::timeout(request.limit, open.exchange(&bytes)).await;
    let (answered, keeps) = answered.ok_or_else(|| "i/o timeout".to_owned())??;
    *line = keeps.then_some(open);
    Ok(answered)
}

/// A request, which may come twice if the connection breaks.
pub struct Request<'a> {
    /// Method.
    pub method: &'a str,
    /// Path and query, encoded.
    pub target: &'a str,
    /// Body.
    pub body: &'a [u8],
    /// ACL token, if not empty.
    pub token: &'a str,
    /// How long the answer may take.
    pub limit: Duration,
}

impl Request<'_> {
    fn bytes(&self) -> Result<Vec<u8>, String> {
        if self.token.contains(['\r', '\n', '\0']) {
            return Err("net/http: invalid header field value for \"X-Consul-Token\"".to_owned());
        }
        let token = match self.token {
            "" => String::new(),
            token => format!("X-Consul-Token: {token}\r\n"),
        };
        let length = match self.method {
            "GET" => String::new(),
            _ => format!("Content-Length: {}\r\n", self.body.len()),
        };
        let head =
            format!("{} {} HTTP/1.1\r\nHost: localhost\r\n{token}{length}\r\n", self.method, self.target);
        Ok([head.as_bytes(), self.body].concat())
    }
}

impl Line {
    /// One request and its answer; and whether the connection takes another.
    async fn exchange(&mut self, request: &[u8]) -> Result<(Answered, bool), String> {
        let failed = |error: std::io::Error| system_text(&error);
        self.connection.write_all(request).await.map_err(failed)?;
        self.connection.flush().await.map_err(failed)?;
        let mut reader = Reader { connection: &mut self.connection, buffer: &mut self.rest };
        let head = reader.head().await?;
        let framing = framing(head.status, &head.fields);
        let mut body = Tail::new(BODY_MAX);
        reader.body(framing, &mut body).await?;
        if framing == Framing::Chunked {
            for _ in 0..TRAILERS_MAX {
                if reader.line().await?.is_empty() {
                    break;
                }
            }
        }
        if body.total() > BODY_MAX as u64 {
            return Err(format!("the answer is longer than {BODY_MAX} bytes"));
        }
        let closes = head.fields.get("connection").is_some_and(|value| value.eq_ignore_ascii_case("close"));
        let index = head.fields.get("x-consul-index").and_then(|text| text.parse().ok());
        let hash = head.fields.get("x-consul-contenthash").cloned();
        let answered = Answered { status: head.status, index, hash, body: body.into_bytes() };
        Ok((answered, !closes && framing != Framing::Close))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_of_all_interfaces_is_asked_on_the_hosts_own() {
        let reached = |text: &str| reachable(text.parse().unwrap()).to_string();
        assert_eq!(reached("0.0.0.0:8500"), "127.0.0.1:8500");
        assert_eq!(reached("[::]:8500"), "[::1]:8500");
        assert_eq!(reached("10.0.0.1:8500"), "10.0.0.1:8500");
    }

    #[test]
    fn a_token_cannot_end_the_head() {
        let request =
            |token| Request { method: "PUT", target: "/", body: b"x", token, limit: CONNECT_MAX }.bytes();
        assert!(request("a\r\nb").is_err());
        let head = "PUT / HTTP/1.1\r\nHost: localhost\r\nX-Consul-Token: t\r\nContent-Length: 1\r\n\r\nx";
        assert_eq!(request("t").as_deref(), Ok(head.as_bytes()));
    }
}
