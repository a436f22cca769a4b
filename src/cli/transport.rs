//! One HTTP/1.1 request over TCP, TLS or a unix socket, blocking. Every request has a connection of its own: commands
//! make one or two and end.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::Arc;

use rustls::pki_types::ServerName;

/// Bytes of one line of a response's head.
const LINE_MAX: u64 = 64 << 10;
/// Header lines of a response.
const HEADERS_MAX: usize = 256;
/// Bytes of a body that is read as a whole.
const BODY_MAX: u64 = 1 << 30;

/// Where an agent listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// `host:port`, in clear.
    Plain(String),
    /// `host:port`, over TLS.
    Tls(String),
    /// A unix socket.
    Unix(PathBuf),
}

/// A stream in both directions.
trait Duplex: Read + Write {}

impl<T: Read + Write> Duplex for T {}

/// A response whose body is still to be read.
pub struct Incoming {
    /// Status code.
    pub status: u16,
    body: Body,
}

/// How far the body goes.
enum Body {
    /// So many bytes.
    Sized(io::Take<BufReader<Box<dyn Duplex + Send>>>),
    /// Chunks: bytes left of the current one, and whether the last was seen.
    Chunked { from: BufReader<Box<dyn Duplex + Send>>, left: u64, ended: bool, first: bool },
}

/// A request.
pub struct Outgoing<'a> {
    /// Method.
    pub method: &'a str,
    /// Path and query, encoded.
    pub path: &'a str,
    /// Headers besides those of the connection.
    pub headers: &'a [(String, String)],
    /// Body.
    pub body: &'a [u8],
}

/// Sends a request and reads the head of the response.
///
/// # Errors
/// In Go's words where it has some: they stand in the commands' messages.
pub fn send(
    target: &Target,
    tls: Option<(&Arc<rustls::ClientConfig>, &str)>,
    request: &Outgoing<'_>,
) -> Result<Incoming, String> {
    let mut stream = connect(target, tls)?;
    let host = match target {
        Target::Plain(addr) | Target::Tls(addr) => addr.as_str(),
        Target::Unix(_) => "localhost",
    };
    let mut head =
        format!("{} {} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n", request.method, request.path);
    for (name, value) in request.headers {
        if value.contains(['\r', '\n']) {
            return Err(format!("net/http: invalid header field value for {name:?}"));
        }
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    if request.method != "GET" || !request.body.is_empty() {
        head.push_str(&format!("Content-Length: {}\r\n", request.body.len()));
    }
    head.push_str("\r\n");
    let sent = stream
        .write_all(head.as_bytes())
        .and_then(|()| stream.write_all(request.body))
        .and_then(|()| stream.flush());
    // A server that refuses early has answered although it did not take all: its answer counts.
    let answer = read_head(BufReader::new(stream));
    match (sent, answer) {
        (_, Ok(incoming)) => Ok(incoming),
        (Err(error), Err(_)) | (Ok(()), Err(error)) => Err(error_text(&error)),
    }
}

/// Opens the connection.
fn connect(
    target: &Target,
    tls: Option<(&Arc<rustls::ClientConfig>, &str)>,
) -> Result<Box<dyn Duplex + Send>, String> {
    let (addr, encrypted) = match target {
        Target::Unix(path) => {
            let stream = UnixStream::connect(path);
            let named = |e: io::Error| format!("dial unix {}: connect: {}", path.display(), error_text(&e));
            return stream.map(|s| Box::new(s) as Box<dyn Duplex + Send>).map_err(named);
        }
        Target::Plain(addr) => (addr, None),
        Target::Tls(addr) => (addr, tls),
    };
    let found: Vec<_> =
        addr.to_socket_addrs().map_err(|e| format!("dial tcp: lookup {addr}: {}", error_text(&e)))?.collect();
    let mut last = format!("dial tcp: lookup {addr}: no such host");
    for addr in found {
        match TcpStream::connect(addr) {
            Ok(stream) => return secure(stream, encrypted),
            Err(error) => last = format!("dial tcp {addr}: connect: {}", error_text(&error)),
        }
    }
    Err(last)
}

/// Puts TLS over a connection when it is wanted.
fn secure(
    stream: TcpStream,
    tls: Option<(&Arc<rustls::ClientConfig>, &str)>,
) -> Result<Box<dyn Duplex + Send>, String> {
    let Some((config, name)) = tls else { return Ok(Box::new(stream)) };
    let name =
        ServerName::try_from(name.to_owned()).map_err(|e| format!("tls: server name {name:?}: {e}"))?;
    let session = rustls::ClientConnection::new(config.clone(), name).map_err(|e| format!("tls: {e}"))?;
    Ok(Box::new(rustls::StreamOwned::new(session, stream)))
}

/// Reads status line and headers.
fn read_head(mut from: BufReader<Box<dyn Duplex + Send>>) -> io::Result<Incoming> {
    loop {
        let status = line(&mut from)?;
        let code =
            status.strip_prefix("HTTP/1.").and_then(|rest| rest.get(2..5)).and_then(|c| c.parse().ok());
        let Some(status) = code else {
            return Err(io::Error::other(format!("malformed HTTP response {status:?}")));
        };
        let (mut length, mut chunked) = (None, false);
        for _ in 0..HEADERS_MAX {
            let header = line(&mut from)?;
            if header.is_empty() {
                break;
            }
            let (name, value) = header.split_once(':').unwrap_or((&header, ""));
            match (name.to_ascii_lowercase().as_str(), value.trim()) {
                ("content-length", value) => length = value.parse::<u64>().ok(),
                ("transfer-encoding", value) => chunked = value.eq_ignore_ascii_case("chunked"),
                _ => {}
            }
        }
        // Interim answers come before the one that counts.
        if (100..200).contains(&status) {
            continue;
        }
        let body = if chunked {
            Body::Chunked { from, left: 0, ended: false, first: true }
        } else {
            Body::Sized(from.take(length.unwrap_or(u64::MAX)))
        };
        return Ok(Incoming { status, body });
    }
}

/// One line without its end.
fn line(from: &mut impl BufRead) -> io::Result<String> {
    let mut bytes = Vec::new();
    from.by_ref().take(LINE_MAX).read_until(b'\n', &mut bytes)?;
    if bytes.pop() != Some(b'\n') {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    if bytes.last() == Some(&b'\r') {
        bytes.pop();
    }
    String::from_utf8(bytes).map_err(|_| io::Error::other("malformed HTTP response: not text"))
}

impl Incoming {
    /// The whole body.
    pub fn bytes(self) -> Result<Vec<u8>, String> {
        let mut out = Vec::new();
        self.take(BODY_MAX).read_to_end(&mut out).map_err(|e| error_text(&e))?;
        Ok(out)
    }
}

impl Read for Incoming {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        match &mut self.body {
            Body::Sized(from) => from.read(out),
            Body::Chunked { from, left, ended, first } => {
                if *ended {
                    return Ok(0);
                }
                if *left == 0 {
                    if !std::mem::take(first) {
                        line(from)?;
                    }
                    let size = line(from)?;
                    let digits = size.split(';').next().unwrap_or_default().trim();
                    *left = u64::from_str_radix(digits, 16)
                        .map_err(|_| io::Error::other("malformed chunked encoding"))?;
                    if *left == 0 {
                        *ended = true;
                        return Ok(0);
                    }
                }
                let room = out.len().min(usize::try_from(*left).unwrap_or(usize::MAX));
                let n = from.read(&mut out[..room])?;
                if n == 0 {
                    return Err(io::ErrorKind::UnexpectedEof.into());
                }
                *left -= n as u64;
                Ok(n)
            }
        }
    }
}

/// An I/O error in Go's words.
pub fn error_text(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => "connection refused".to_owned(),
        io::ErrorKind::NotFound => "no such file or directory".to_owned(),
        io::ErrorKind::PermissionDenied => "permission denied".to_owned(),
        io::ErrorKind::UnexpectedEof => "unexpected EOF".to_owned(),
        io::ErrorKind::ConnectionReset => "connection reset by peer".to_owned(),
        _ => error.to_string(),
    }
}
