//! HTTP/1.1 over TCP, TLS or a unix socket, blocking. A request of [`send`] has a connection of its own: most commands
//! make one or two and end. Who asks again and again keeps one (`follow.rs`).

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Shutdown, TcpStream, ToSocketAddrs};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

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
pub trait Duplex: Read + Write {}

impl<T: Read + Write> Duplex for T {}

/// A connection that is read in lines and pieces.
pub type Reader = BufReader<Box<dyn Duplex + Send>>;

/// A response whose body is still to be read.
pub struct Incoming {
    /// Status code.
    pub status: u16,
    from: Reader,
    framing: Framing,
}

/// The head of a response.
pub struct Head {
    /// Status code.
    pub status: u16,
    /// `X-Consul-Index`.
    pub index: Option<u64>,
    /// `X-Muster-Waits`: the server knows how to wait with a write.
    pub waits: bool,
    /// The connection takes another request after the body.
    pub keeps: bool,
    /// How far the body goes.
    pub framing: Framing,
}

/// How far a body goes.
pub enum Framing {
    /// So many bytes.
    Sized(u64),
    /// Chunks: bytes left of the current one, and whether the last was seen.
    Chunked {
        /// Bytes left of the current chunk.
        left: u64,
        /// The last chunk was seen.
        ended: bool,
        /// No chunk was seen yet.
        first: bool,
    },
    /// To the end of the connection.
    Close,
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
    let (mut stream, _) = connect(target, tls, None)?;
    let head = head(target, request, true)?;
    let sent = write(&mut stream, &head, request.body);
    // A server that refuses early has answered although it did not take all: its answer counts.
    let mut from = BufReader::new(stream);
    let answer = read_head(&mut from);
    match (sent, answer) {
        (_, Ok(head)) => Ok(Incoming { status: head.status, from, framing: head.framing }),
        (Err(error), Err(_)) | (Ok(()), Err(error)) => Err(error_text(&error)),
    }
}

/// The head of a request; `last` says that the connection ends with it.
///
/// # Errors
/// A header's value would end the header.
pub fn head(target: &Target, request: &Outgoing<'_>, last: bool) -> Result<String, String> {
    let host = match target {
        Target::Plain(addr) | Target::Tls(addr) => addr.as_str(),
        Target::Unix(_) => "localhost",
    };
    let mut head = format!("{} {} HTTP/1.1\r\nHost: {host}\r\n", request.method, request.path);
    if last {
        head.push_str("Connection: close\r\n");
    }
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
    Ok(head)
}

/// Sends head and body.
///
/// # Errors
/// The connection is gone.
pub fn write(stream: &mut impl Write, head: &str, body: &[u8]) -> io::Result<()> {
    stream.write_all(head.as_bytes())?;
    stream.write_all(body)?;
    stream.flush()
}

/// The socket under a connection: for limits, and to cut it off from another thread.
pub enum Socket {
    /// TCP, with TLS over it or not.
    Tcp(TcpStream),
    /// Unix.
    Unix(UnixStream),
}

impl Socket {
    /// How long one read and one write may take.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn limit(&self, read: Duration, write: Duration) -> io::Result<()> {
        match self {
            Socket::Tcp(socket) => {
                socket.set_read_timeout(Some(read))?;
                socket.set_write_timeout(Some(write))
            }
            Socket::Unix(socket) => {
                socket.set_read_timeout(Some(read))?;
                socket.set_write_timeout(Some(write))
            }
        }
    }

    /// Ends the connection: who reads from it is told at once.
    pub fn cut(&self) {
        // One that has ended already needs no end.
        let _ = match self {
            Socket::Tcp(socket) => socket.shutdown(Shutdown::Both),
            Socket::Unix(socket) => socket.shutdown(Shutdown::Both),
        };
    }
}

/// Opens a connection; `limit` is how long one address may take to accept it.
///
/// # Errors
/// In Go's words.
pub fn connect(
    target: &Target,
    tls: Option<(&Arc<rustls::ClientConfig>, &str)>,
    limit: Option<Duration>,
) -> Result<(Box<dyn Duplex + Send>, Socket), String> {
    let (addr, encrypted) = match target {
        Target::Unix(path) => {
            let named = |e: io::Error| format!("dial unix {}: connect: {}", path.display(), error_text(&e));
            let stream = UnixStream::connect(path).map_err(named)?;
            let socket = Socket::Unix(stream.try_clone().map_err(named)?);
            return Ok((Box::new(stream), socket));
        }
        Target::Plain(addr) => (addr, None),
        Target::Tls(addr) => (addr, tls),
    };
    let found: Vec<_> =
        addr.to_socket_addrs().map_err(|e| format!("dial tcp: lookup {addr}: {}", error_text(&e)))?.collect();
    let mut last = format!("dial tcp: lookup {addr}: no such host");
    for addr in found {
        let dialled = match limit {
            Some(limit) => TcpStream::connect_timeout(&addr, limit),
            None => TcpStream::connect(addr),
        };
        let cloned = dialled.and_then(|stream| Ok((stream.try_clone()?, stream)));
        match cloned {
            Ok((socket, stream)) => return Ok((secure(stream, encrypted)?, Socket::Tcp(socket))),
            Err(error) if error.kind() == io::ErrorKind::TimedOut => {
                last = format!("dial tcp {addr}: i/o timeout");
            }
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
///
/// # Errors
/// The connection is gone, or speaks no HTTP.
pub fn read_head(from: &mut impl BufRead) -> io::Result<Head> {
    loop {
        let status = line(from)?;
        let rest = status.strip_prefix("HTTP/1.");
        let code = rest.and_then(|rest| rest.get(2..5)).and_then(|c| c.parse().ok());
        let Some(status) = code else {
            return Err(io::Error::other(format!("malformed HTTP response {status:?}")));
        };
        let mut keeps = rest.is_some_and(|rest| rest.starts_with('1'));
        let (mut length, mut chunked, mut index, mut waits) = (None, false, None, false);
        for _ in 0..HEADERS_MAX {
            let header = line(from)?;
            if header.is_empty() {
                break;
            }
            let (name, value) = header.split_once(':').unwrap_or((&header, ""));
            match (name.to_ascii_lowercase().as_str(), value.trim()) {
                ("content-length", value) => length = value.parse::<u64>().ok(),
                ("transfer-encoding", value) => chunked = value.eq_ignore_ascii_case("chunked"),
                ("connection", value) if value.eq_ignore_ascii_case("close") => keeps = false,
                ("x-consul-index", value) => index = value.parse::<u64>().ok(),
                ("x-muster-waits", _) => waits = true,
                _ => {}
            }
        }
        // Interim answers come before the one that counts.
        if (100..200).contains(&status) {
            continue;
        }
        let framing = match (chunked, length) {
            (true, _) => Framing::Chunked { left: 0, ended: false, first: true },
            (false, Some(length)) => Framing::Sized(length),
            (false, None) if status == 204 || status == 304 => Framing::Sized(0),
            (false, None) => Framing::Close,
        };
        keeps &= !matches!(framing, Framing::Close);
        return Ok(Head { status, index, waits, keeps, framing });
    }
}

/// Reads a whole body.
///
/// # Errors
/// It breaks off, or is longer than is ever read.
pub fn read_body(from: &mut impl BufRead, framing: &mut Framing) -> io::Result<Vec<u8>> {
    let mut out = Vec::new();
    Piecewise { from, framing }.take(BODY_MAX + 1).read_to_end(&mut out)?;
    match out.len() as u64 > BODY_MAX {
        true => Err(io::Error::other(format!("the response is longer than {BODY_MAX} bytes"))),
        false => Ok(out),
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
    pub fn bytes(mut self) -> Result<Vec<u8>, String> {
        read_body(&mut self.from, &mut self.framing).map_err(|e| error_text(&e))
    }
}

impl Read for Incoming {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        Piecewise { from: &mut self.from, framing: &mut self.framing }.read(out)
    }
}

/// A body as it comes.
struct Piecewise<'a, R> {
    from: &'a mut R,
    framing: &'a mut Framing,
}

impl<R: BufRead> Read for Piecewise<'_, R> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let left = match self.framing {
            Framing::Close => return self.from.read(out),
            Framing::Sized(0) | Framing::Chunked { ended: true, .. } => return Ok(0),
            Framing::Sized(left) => left,
            Framing::Chunked { left, ended, first } => {
                if *left == 0 {
                    if !std::mem::take(first) {
                        line(self.from)?;
                    }
                    let size = line(self.from)?;
                    let digits = size.split(';').next().unwrap_or_default().trim();
                    *left = u64::from_str_radix(digits, 16)
                        .map_err(|_| io::Error::other("malformed chunked encoding"))?;
                    if *left == 0 {
                        *ended = true;
                        // Trailers, up to the empty line.
                        while !line(self.from)?.is_empty() {}
                        return Ok(0);
                    }
                }
                left
            }
        };
        let room = out.len().min(usize::try_from(*left).unwrap_or(usize::MAX));
        let n = self.from.read(&mut out[..room])?;
        if n == 0 && room > 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        *left -= n as u64;
        Ok(n)
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
