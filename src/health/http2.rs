//! gRPC health checks and HTTP/2 pings.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures_lite::future::or;
use futures_lite::io::{AsyncRead, AsyncWrite};
use h2::client::{self, SendRequest};
use http::{HeaderMap, Request};

use super::connect::{Connection, dial, secure, split_host_port};
use super::plan::{Finding, TlsProbe};
use super::tls::TlsConfigs;

/// Most bytes of a health answer. A server that sends more fails the check.
const ANSWER_MAX: usize = 4096;
/// `SERVING` of `grpc.health.v1.HealthCheckResponse.ServingStatus`.
const SERVING: u64 = 1;

/// Asks the standard gRPC health service.
pub async fn grpc(
    address: &str,
    service: &str,
    tls: Option<&TlsProbe>,
    limit: Duration,
    configs: &TlsConfigs,
) -> Finding {
    let target = if service.is_empty() { address.to_owned() } else { format!("{address}/{service}") };
    match ask_health(address, service, tls, limit, configs).await {
        Ok(SERVING) => Finding::passing(format!("gRPC check {target}: success")),
        Ok(status) => Finding::critical(format!("gRPC check {target}: gRPC {} status", serving_word(status))),
        Err(why) => Finding::critical(format!("gRPC check {target}: {why}")),
    }
}

/// Sends an HTTP/2 PING and waits for its echo.
pub async fn ping(address: &str, tls: Option<&TlsProbe>, limit: Duration, configs: &TlsConfigs) -> Finding {
    let work = async {
        let (_requests, mut connection) = connect(address, tls, limit, configs).await?;
        let mut pings = connection.ping_pong().ok_or("the connection takes no pings")?;
        let echo = async { pings.ping(h2::Ping::opaque()).await.map(drop).map_err(|e| e.to_string()) };
        or(echo, drive(connection)).await
    };
    match work.await {
        Ok(()) => Finding::passing("HTTP2 ping was successful"),
        Err(why) => Finding::critical(format!("HTTP2 ping failed: {why}")),
    }
}

type H2Connection = client::Connection<TokioIo<Connection>, Bytes>;

/// Moves a connection until it ends; ending before the answer is an error.
async fn drive<T>(connection: H2Connection) -> Result<T, String> {
    match connection.await {
        Ok(()) => Err("connection closed by the server".to_owned()),
        Err(e) => Err(e.to_string()),
    }
}

async fn connect(
    address: &str,
    tls: Option<&TlsProbe>,
    limit: Duration,
    configs: &TlsConfigs,
) -> Result<(SendRequest<Bytes>, H2Connection), String> {
    let (host, port) = split_host_port(address, None)?;
    let stream = dial(host, port, limit).await?;
    let connection = match tls {
        Some(tls) => secure(stream, host, tls, configs, &[b"h2"]).await?,
        None => Connection::Plain(stream),
    };
    client::handshake(TokioIo(connection)).await.map_err(|e| e.to_string())
}

async fn ask_health(
    address: &str,
    service: &str,
    tls: Option<&TlsProbe>,
    limit: Duration,
    configs: &TlsConfigs,
) -> Result<u64, String> {
    let (requests, connection) = connect(address, tls, limit, configs).await?;
    let scheme = if tls.is_some() { "https" } else { "http" };
    or(call(requests, scheme, address, service), drive(connection)).await
}

async fn call(
    requests: SendRequest<Bytes>,
    scheme: &str,
    address: &str,
    service: &str,
) -> Result<u64, String> {
    let text = |e: h2::Error| e.to_string();
    let mut requests = requests.ready().await.map_err(text)?;
    let request = Request::post(format!("{scheme}://{address}/grpc.health.v1.Health/Check"))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .header("user-agent", "Consul Health Check")
        .body(())
        .map_err(|e| e.to_string())?;
    let (answer, mut body) = requests.send_request(request, false).map_err(text)?;
    body.send_data(health_request(service), true).map_err(text)?;
    let (head, mut body) = answer.await.map_err(text)?.into_parts();
    if head.status != 200 {
        return Err(format!("unexpected HTTP status code received from server: {}", head.status));
    }
    grpc_status(&head.headers)?;
    let mut received = Vec::new();
    while let Some(piece) = body.data().await {
        let piece = piece.map_err(text)?;
        let _ = body.flow_control().release_capacity(piece.len());
        received.extend_from_slice(&piece);
        if received.len() > ANSWER_MAX {
            return Err(format!("the health answer exceeds {ANSWER_MAX} bytes"));
        }
    }
    if let Some(trailers) = body.trailers().await.map_err(text)? {
        grpc_status(&trailers)?;
    }
    serving_status(&received)
}

/// Fails on a `grpc-status` other than OK, in the words of Go's client.
fn grpc_status(fields: &HeaderMap) -> Result<(), String> {
    let Some(code) = fields.get("grpc-status").and_then(|v| v.to_str().ok()) else { return Ok(()) };
    if code == "0" {
        return Ok(());
    }
    let name = match code {
        "1" => "Canceled",
        "2" => "Unknown",
        "3" => "InvalidArgument",
        "4" => "DeadlineExceeded",
        "5" => "NotFound",
        "7" => "PermissionDenied",
        "8" => "ResourceExhausted",
        "12" => "Unimplemented",
        "13" => "Internal",
        "14" => "Unavailable",
        "16" => "Unauthenticated",
        other => other,
    };
    let message = fields.get("grpc-message").and_then(|v| v.to_str().ok()).unwrap_or_default();
    Err(format!("rpc error: code = {name} desc = {message}"))
}

/// `HealthCheckRequest { string service = 1; }` in a gRPC frame.
fn health_request(service: &str) -> Bytes {
    let mut message = Vec::new();
    if !service.is_empty() {
        message.push(0x0a);
        let mut length = service.len();
        while length >= 0x80 {
            message.push((length & 0x7f) as u8 | 0x80);
            length >>= 7;
        }
        message.push(length as u8);
        message.extend_from_slice(service.as_bytes());
    }
    let mut frame = vec![0];
    frame.extend_from_slice(&(message.len() as u32).to_be_bytes());
    frame.extend_from_slice(&message);
    frame.into()
}

/// `HealthCheckResponse { ServingStatus status = 1; }` out of a gRPC frame. Field absent: UNKNOWN, 0.
fn serving_status(frame: &[u8]) -> Result<u64, String> {
    let [compressed, a, b, c, d, message @ ..] = frame else {
        return Err("the server sent no health answer".to_owned());
    };
    let length = u32::from_be_bytes([*a, *b, *c, *d]) as usize;
    if *compressed != 0 || message.len() != length {
        return Err("the health answer is malformed".to_owned());
    }
    match message {
        [] => Ok(0),
        [0x08, value, ..] if *value < 0x80 => Ok(u64::from(*value)),
        _ => Err("the health answer is malformed".to_owned()),
    }
}

fn serving_word(status: u64) -> &'static str {
    match status {
        0 => "UNKNOWN",
        1 => "SERVING",
        2 => "NOT_SERVING",
        3 => "SERVICE_UNKNOWN",
        _ => "unheard-of",
    }
}

/// `h2` speaks tokio's traits; the runtime speaks those of futures.
pub(super) struct TokioIo<S>(pub(super) S);

impl<S: AsyncRead + Unpin> tokio::io::AsyncRead for TokioIo<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut tokio::io::ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        let read = Pin::new(&mut self.get_mut().0).poll_read(cx, buffer.initialize_unfilled());
        read.map_ok(|n| buffer.advance(n))
    }
}

impl<S: AsyncWrite + Unpin> tokio::io::AsyncWrite for TokioIo<S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &[u8]) -> Poll<std::io::Result<usize>> {
        Pin::new(&mut self.get_mut().0).poll_write(cx, buffer)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.get_mut().0).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.get_mut().0).poll_close(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_request_names_the_service() {
        assert_eq!(&health_request("")[..], [0, 0, 0, 0, 0]);
        assert_eq!(&health_request("ab")[..], [0, 0, 0, 0, 4, 0x0a, 2, b'a', b'b']);
        assert_eq!(health_request(&"x".repeat(300)).len(), 5 + 1 + 2 + 300);
    }

    #[test]
    fn the_answer_is_read_strictly() {
        assert_eq!(serving_status(&[0, 0, 0, 0, 2, 8, 1]), Ok(SERVING));
        assert_eq!(serving_status(&[0, 0, 0, 0, 2, 8, 2]), Ok(2));
        assert_eq!(serving_status(&[0, 0, 0, 0, 0]), Ok(0));
        assert!(serving_status(&[]).is_err());
        assert!(serving_status(&[1, 0, 0, 0, 2, 8, 1]).is_err());
        assert!(serving_status(&[0, 0, 0, 0, 9, 8, 1]).is_err());
    }
}
