//! The least of an HTTP client: one connection, one request at a time, on a thread that may wait.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use serde_json::Value;

/// An answer that takes longer is none.
const PATIENCE: Duration = Duration::from_secs(30);

/// A connection to a server's HTTP port.
pub struct Client {
    host: String,
    stream: Option<BufReader<TcpStream>>,
}

impl Client {
    /// To `host:port`; the connection is made when it is needed.
    pub fn new(host: &str) -> Client {
        let host = host.trim_start_matches("http://").trim_end_matches('/').to_owned();
        Client { host, stream: None }
    }

    /// Asks for JSON.
    ///
    /// # Errors
    /// No answer, another status than 200, or no JSON.
    pub fn get(&mut self, path: &str) -> io::Result<Value> {
        let (status, body) = self.ask("GET", path, b"")?;
        if status != 200 {
            return Err(io::Error::other(format!("{path}: {status}: {}", String::from_utf8_lossy(&body))));
        }
        serde_json::from_slice(&body).map_err(io::Error::other)
    }

    /// Puts JSON.
    ///
    /// # Errors
    /// No answer, or another status than 200.
    pub fn put(&mut self, path: &str, body: &Value) -> io::Result<()> {
        let (status, told) = self.ask("PUT", path, body.to_string().as_bytes())?;
        if status == 200 {
            return Ok(());
        }
        Err(io::Error::other(format!("{path}: {status}: {}", String::from_utf8_lossy(&told))))
    }

    fn ask(&mut self, method: &str, path: &str, body: &[u8]) -> io::Result<(u16, Vec<u8>)> {
        let answer = self.try_ask(method, path, body);
        if answer.is_err() {
            self.stream = None;
        }
        answer
    }

    fn try_ask(&mut self, method: &str, path: &str, body: &[u8]) -> io::Result<(u16, Vec<u8>)> {
        let stream = match &mut self.stream {
            Some(stream) => stream,
            none => none.insert(BufReader::new(connect(&self.host)?)),
        };
        let length = body.len();
        let head =
            format!("{method} {path} HTTP/1.1\r\nHost: {}\r\nContent-Length: {length}\r\n\r\n", self.host);
        let request = [head.as_bytes(), body].concat();
        stream.get_mut().write_all(&request)?;
        read_answer(stream)
    }
}

fn connect(host: &str) -> io::Result<TcpStream> {
    let stream = TcpStream::connect(host)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    Ok(stream)
}

fn read_answer(stream: &mut BufReader<TcpStream>) -> io::Result<(u16, Vec<u8>)> {
    let mut line = String::new();
    stream.read_line(&mut line)?;
    let status = line.split(' ').nth(1).and_then(|code| code.parse().ok());
    let status = status.ok_or_else(|| io::Error::other(format!("no answer but {line:?}")))?;
    let (mut length, mut chunked) = (0, false);
    loop {
        line.clear();
        stream.read_line(&mut line)?;
        let Some((name, value)) = line.trim_end().split_once(':') else { break };
        if name.eq_ignore_ascii_case("content-length") {
            length = value.trim().parse().map_err(io::Error::other)?;
        }
        chunked |= name.eq_ignore_ascii_case("transfer-encoding") && value.trim() == "chunked";
    }
    let mut body = Vec::new();
    if !chunked {
        stream.take(length).read_to_end(&mut body)?;
        return Ok((status, body));
    }
    loop {
        line.clear();
        stream.read_line(&mut line)?;
        let size = u64::from_str_radix(line.trim(), 16).map_err(io::Error::other)?;
        stream.by_ref().take(size).read_to_end(&mut body)?;
        line.clear();
        stream.read_line(&mut line)?;
        if size == 0 {
            return Ok((status, body));
        }
    }
}
