//! A blocking HTTP/1.1 client of one request per connection, over plain `std` sockets.

use std::collections::BTreeMap;
use std::io::{self, BufRead, BufReader, ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

/// How long a read may wait for bytes. Blocking queries of the tests are far shorter.
pub const READ_TIMEOUT: Duration = Duration::from_secs(60);
const HEADERS_MAX: usize = 200;

/// One request, as the caller wants it on the wire.
#[derive(Clone, Debug, Default)]
pub struct Request {
    pub method: String,
    /// Path and query, sent as they are.
    pub path: String,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
    /// Send the body chunked, without a length.
    pub chunked: bool,
}

impl Request {
    pub fn new(method: &str, path: &str) -> Request {
        Request { method: method.into(), path: path.into(), ..Request::default() }
    }

    pub fn body(mut self, body: impl Into<Vec<u8>>) -> Request {
        self.body = body.into();
        self
    }

    pub fn header(mut self, name: &str, value: &str) -> Request {
        self.headers.push((name.into(), value.into()));
        self
    }

    /// The request's bytes; `host` fills the `Host` header unless the caller gave one.
    pub fn encode(&self, host: &str) -> Vec<u8> {
        let given = |name: &str| self.headers.iter().any(|(key, _)| key.eq_ignore_ascii_case(name));
        let mut head = format!("{} {} HTTP/1.1\r\n", self.method, self.path);
        if !given("host") {
            head += &format!("Host: {host}\r\n");
        }
        if !given("user-agent") {
            head += "User-Agent: golden\r\n";
        }
        for (name, value) in &self.headers {
            head += &format!("{name}: {value}\r\n");
        }
        let writes = matches!(self.method.as_str(), "PUT" | "POST" | "DELETE" | "PATCH");
        if self.chunked {
            head += "Transfer-Encoding: chunked\r\n";
        } else if !given("content-length") && (writes || !self.body.is_empty()) {
            head += &format!("Content-Length: {}\r\n", self.body.len());
        }
        head += "\r\n";
        let mut bytes = head.into_bytes();
        if self.chunked {
            if !self.body.is_empty() {
                bytes.extend_from_slice(format!("{:x}\r\n", self.body.len()).as_bytes());
                bytes.extend_from_slice(&self.body);
                bytes.extend_from_slice(b"\r\n");
            }
            bytes.extend_from_slice(b"0\r\n\r\n");
        } else {
            bytes.extend_from_slice(&self.body);
        }
        bytes
    }

    /// Sends the request to `127.0.0.1:port` on a connection of its own and reads the whole reply.
    pub fn send(&self, port: u16) -> io::Result<Reply> {
        let start = Instant::now();
        let mut stream = TcpStream::connect(("127.0.0.1", port))?;
        stream.set_read_timeout(Some(READ_TIMEOUT))?;
        match stream.write_all(&self.encode(&format!("127.0.0.1:{port}"))) {
            // The server may answer (413) before it has read everything.
            Err(error) if !matches!(error.kind(), ErrorKind::BrokenPipe | ErrorKind::ConnectionReset) => {
                return Err(error);
            }
            _ => {}
        }
        let mut reply = read_reply(&mut BufReader::new(stream), &self.method)?;
        reply.elapsed = start.elapsed();
        Ok(reply)
    }
}

/// `GET path` from the agent on `port`.
pub fn get(port: u16, path: &str) -> io::Result<Reply> {
    Request::new("GET", path).send(port)
}

/// `PUT path` with `body` to the agent on `port`.
pub fn put(port: u16, path: &str, body: impl Into<Vec<u8>>) -> io::Result<Reply> {
    Request::new("PUT", path).body(body).send(port)
}

/// A kept-alive connection.
pub struct Connection {
    reader: BufReader<TcpStream>,
    host: String,
}

impl Connection {
    pub fn open(port: u16) -> io::Result<Connection> {
        let stream = TcpStream::connect(("127.0.0.1", port))?;
        stream.set_read_timeout(Some(READ_TIMEOUT))?;
        stream.set_nodelay(true)?;
        Ok(Connection { reader: BufReader::new(stream), host: format!("127.0.0.1:{port}") })
    }

    /// How long a read may wait for bytes from now on.
    pub fn set_patience(&self, limit: Duration) {
        self.reader.get_ref().set_read_timeout(Some(limit)).expect("a timeout above zero");
    }

    /// Sends a request and does not wait for its reply.
    pub fn send(&mut self, request: &Request) -> io::Result<()> {
        self.reader.get_mut().write_all(&request.encode(&self.host))
    }

    /// Reads the next reply, to a request of `method`.
    pub fn receive(&mut self, method: &str) -> io::Result<Reply> {
        read_reply(&mut self.reader, method)
    }

    pub fn exchange(&mut self, request: &Request) -> io::Result<Reply> {
        self.send(request)?;
        self.receive(&request.method)
    }

    /// Whether nothing has arrived: no reply, no end of the connection.
    pub fn is_silent(&mut self) -> bool {
        let stream = self.reader.get_mut();
        stream.set_nonblocking(true).expect("a socket's mode can be set");
        let looked = stream.peek(&mut [0]);
        stream.set_nonblocking(false).expect("a socket's mode can be set");
        looked.is_err_and(|error| error.kind() == ErrorKind::WouldBlock)
    }
}

/// A whole reply.
#[derive(Clone, Debug, Default)]
pub struct Reply {
    pub status: u16,
    /// By lower-case name; repeated ones joined by a comma.
    pub headers: BTreeMap<String, String>,
    pub body: Vec<u8>,
    pub elapsed: Duration,
}

impl Reply {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(String::as_str)
    }

    /// `X-Consul-Index` as a number.
    pub fn index(&self) -> u64 {
        self.header("x-consul-index").and_then(|text| text.parse().ok()).expect("a reply with X-Consul-Index")
    }

    /// The body, decompressed if need be.
    pub fn decoded(&self) -> Vec<u8> {
        match self.header("content-encoding") {
            Some("gzip") => gunzip(&self.body).unwrap_or_else(|_| self.body.clone()),
            _ => self.body.clone(),
        }
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.decoded()).into_owned()
    }

    pub fn json(&self) -> serde_json::Value {
        let body = self.decoded();
        serde_json::from_slice(&body)
            .unwrap_or_else(|error| panic!("not JSON ({error}): {}", String::from_utf8_lossy(&body)))
    }
}

/// Decompresses a gzip body.
pub fn gunzip(bytes: &[u8]) -> io::Result<Vec<u8>> {
    let mut out = Vec::new();
    flate2::read::GzDecoder::new(bytes).read_to_end(&mut out)?;
    Ok(out)
}

/// Reads one reply to a request of `method`.
pub fn read_reply(from: &mut impl BufRead, method: &str) -> io::Result<Reply> {
    let mut reply = loop {
        let reply = read_head(from)?;
        if reply.status != 100 {
            break reply;
        }
    };
    let chunked =
        reply.header("transfer-encoding").is_some_and(|value| value.eq_ignore_ascii_case("chunked"));
    let length = reply.header("content-length").and_then(|text| text.trim().parse::<usize>().ok());
    if method == "HEAD" || reply.status == 204 || reply.status == 304 || reply.status < 200 {
        return Ok(reply);
    }
    if chunked {
        reply.body = read_chunks(from)?;
    } else if let Some(length) = length {
        reply.body = vec![0; length];
        from.read_exact(&mut reply.body)?;
    } else {
        from.read_to_end(&mut reply.body)?;
    }
    Ok(reply)
}

fn read_head(from: &mut impl BufRead) -> io::Result<Reply> {
    let line = read_line(from)?;
    let mut words = line.splitn(3, ' ');
    let version = words.next().unwrap_or_default();
    let status = words.next().and_then(|word| word.parse().ok());
    let (true, Some(status)) = (version.starts_with("HTTP/1."), status) else {
        return Err(io::Error::new(ErrorKind::InvalidData, format!("not a status line: {line:?}")));
    };
    let mut reply = Reply { status, ..Reply::default() };
    for _ in 0..HEADERS_MAX {
        let line = read_line(from)?;
        if line.is_empty() {
            return Ok(reply);
        }
        let (name, value) = line
            .split_once(':')
            .ok_or_else(|| io::Error::new(ErrorKind::InvalidData, format!("not a header: {line:?}")))?;
        let value = value.trim();
        reply
            .headers
            .entry(name.to_ascii_lowercase())
            .and_modify(|old| *old = format!("{old}, {value}"))
            .or_insert_with(|| value.to_owned());
    }
    Err(io::Error::new(ErrorKind::InvalidData, "more headers than a reply may have"))
}

fn read_chunks(from: &mut impl BufRead) -> io::Result<Vec<u8>> {
    let mut body = Vec::new();
    loop {
        let line = read_line(from)?;
        let size = usize::from_str_radix(line.split(';').next().unwrap_or_default().trim(), 16)
            .map_err(|_| io::Error::new(ErrorKind::InvalidData, format!("not a chunk size: {line:?}")))?;
        if size == 0 {
            while !read_line(from)?.is_empty() {} // trailers
            return Ok(body);
        }
        let start = body.len();
        body.resize(start + size, 0);
        from.read_exact(&mut body[start..])?;
        read_line(from)?;
    }
}

/// A line without its end; the end of the stream is an error.
fn read_line(from: &mut impl BufRead) -> io::Result<String> {
    let mut bytes = Vec::new();
    from.read_until(b'\n', &mut bytes)?;
    if bytes.pop() != Some(b'\n') {
        return Err(io::Error::new(ErrorKind::UnexpectedEof, "the connection was closed"));
    }
    if bytes.last() == Some(&b'\r') {
        bytes.pop();
    }
    Ok(bytes.iter().map(|&byte| char::from(byte)).collect())
}
