//! From a [`Response`] to bytes on the wire.

use std::ops::Range;

use bytes::Bytes;
use muster_protocol::http::{DATE_LEN, Method, status_line};

use super::exchange::Response;
use super::{gzip, limits};

/// How the client of a request wants its answer. Small: it waits beside the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Manner {
    /// The client speaks HTTP/1.0.
    pub http_1_0: bool,
    /// The connection stays open behind the answer.
    pub keep_alive: bool,
    /// The client takes gzip.
    pub gzip: bool,
    /// Head only: the request was `HEAD`.
    pub head_only: bool,
}

impl Manner {
    /// Plain HTTP/1.1 on a connection that stays.
    pub const KEEP: Manner = Manner { http_1_0: false, keep_alive: true, gzip: false, head_only: false };

    /// For a request.
    pub fn of(head: &muster_protocol::http::Head) -> Manner {
        Manner {
            http_1_0: head.http_1_0,
            keep_alive: head.keep_alive,
            gzip: gzip::accepted(&head.headers),
            head_only: head.method == Method::Head,
        }
    }

    fn connection(self) -> &'static [u8] {
        match (self.http_1_0, self.keep_alive) {
            (true, true) => b"Connection: keep-alive\r\n",
            (false, false) => b"Connection: close\r\n",
            _ => b"",
        }
    }
}

/// The headers that tell a client how its read was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Meta {
    /// `X-Consul-Index`.
    pub index: u64,
    /// `X-Consul-Effective-Consistency`, on endpoints that say it.
    pub consistency: Option<&'static str>,
    /// Whether a leader is known.
    pub known_leader: bool,
    /// Milliseconds since the leader was last heard of.
    pub last_contact_ms: u64,
}

impl Meta {
    fn write(&self, out: &mut Vec<u8>) {
        if let Some(consistency) = self.consistency {
            header(out, "X-Consul-Effective-Consistency", consistency);
        }
        header(out, "X-Consul-Index", &self.index.to_string());
        header(out, "X-Consul-Knownleader", if self.known_leader { "true" } else { "false" });
        header(out, "X-Consul-Lastcontact", &self.last_contact_ms.to_string());
    }
}

/// A complete answer. Small bodies follow the head in one piece, so that one plain write sends all.
#[derive(Clone, Debug)]
pub struct Wire {
    /// The head, and behind it a small body.
    front: Vec<u8>,
    /// Where the head ends.
    head_len: usize,
    /// Where the headers stand that tell how a read was made; empty without them. Before the date.
    meta_at: Range<usize>,
    /// Where the date stands.
    date_at: usize,
    /// A large body.
    tail: Bytes,
}

/// What goes into a head beside the response itself.
#[derive(Clone, Copy)]
pub struct Dress<'a> {
    /// How the client wants it.
    pub manner: Manner,
    /// Header lines of all endpoints; `None` for answers that are not an endpoint's.
    pub extra: Option<&'a [u8]>,
    /// For reads.
    pub meta: Option<Meta>,
    /// The date.
    pub date: &'a [u8; DATE_LEN],
}

impl Wire {
    /// Puts a response into bytes.
    pub fn new(response: &Response, dress: Dress<'_>) -> Wire {
        let encoded = response.headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("Content-Encoding"));
        let compress = dress.manner.gzip && dress.extra.is_some() && !response.body.is_empty() && !encoded;
        let body = if compress { gzip::compress(&response.body) } else { response.body.clone() };
        let mut front = Vec::with_capacity(320 + dress.extra.map_or(0, <[u8]>::len));
        let Places { meta_at, date_at } =
            write_head(&mut front, response, &dress, compress, Some(body.len()));
        let head_len = front.len();
        let mut tail = Bytes::new();
        if !dress.manner.head_only {
            if body.len() <= limits::JOINED_MAX {
                front.extend_from_slice(&body);
            } else {
                tail = body;
            }
        }
        Wire { front, head_len, meta_at, date_at, tail }
    }

    /// The head of an answer whose body follows in chunks (or, to HTTP/1.0, up to the end of the connection).
    pub fn streamed(response: &Response, dress: Dress<'_>) -> Wire {
        let mut front = Vec::with_capacity(320);
        let Places { meta_at, date_at } = write_head(&mut front, response, &dress, false, None);
        Wire { head_len: front.len(), front, meta_at, date_at, tail: Bytes::new() }
    }

    /// The same answer with another date.
    pub fn set_date(&mut self, date: &[u8; DATE_LEN]) {
        self.front[self.date_at..self.date_at + DATE_LEN].copy_from_slice(date);
    }

    /// The same answer, made in another way.
    pub fn set_meta(&mut self, meta: &Meta) {
        debug_assert!(!self.meta_at.is_empty() && self.meta_at.end <= self.date_at, "it was made with one");
        let mut text = Vec::with_capacity(160);
        meta.write(&mut text);
        let (before, after) = (self.meta_at.len(), text.len());
        self.front.splice(self.meta_at.clone(), text);
        self.meta_at.end = self.meta_at.start + after;
        self.date_at = self.date_at - before + after;
        self.head_len = self.head_len - before + after;
    }

    /// Head and small body.
    pub fn front(&self) -> &[u8] {
        &self.front
    }

    /// The large body, or nothing.
    pub fn tail(&self) -> &Bytes {
        &self.tail
    }

    /// All bytes.
    pub fn len(&self) -> usize {
        self.front.len() + self.tail.len()
    }

    /// Never: there is always a head.
    pub fn is_empty(&self) -> bool {
        false
    }

    /// The same answer, made for [`Manner::KEEP`], for a client that wants another version or the end of the
    /// connection.
    pub fn for_manner(&self, manner: Manner) -> Wire {
        let mut front = Vec::with_capacity(self.front.len() + 32);
        front.extend_from_slice(&self.front[..self.head_len - 2]);
        if manner.http_1_0 {
            front[..8].copy_from_slice(b"HTTP/1.0");
        }
        front.extend_from_slice(manner.connection());
        front.extend_from_slice(b"\r\n");
        let head_len = front.len();
        front.extend_from_slice(&self.front[self.head_len..]);
        Wire {
            front,
            head_len,
            meta_at: self.meta_at.clone(),
            date_at: self.date_at,
            tail: self.tail.clone(),
        }
    }
}

/// Places in a head that are written again.
struct Places {
    meta_at: Range<usize>,
    date_at: usize,
}

/// Writes the head. Without a length the body is chunked.
fn write_head(
    out: &mut Vec<u8>,
    response: &Response,
    dress: &Dress<'_>,
    gzipped: bool,
    length: Option<usize>,
) -> Places {
    status_line(out, dress.manner.http_1_0, response.status);
    if gzipped {
        out.extend_from_slice(b"Content-Encoding: gzip\r\n");
    }
    for (name, value) in &response.headers {
        header(out, name, value);
    }
    out.extend_from_slice(dress.extra.unwrap_or_default());
    let meta_start = out.len();
    if let Some(meta) = &dress.meta {
        meta.write(out);
    }
    let meta_at = meta_start..out.len();
    out.extend_from_slice(b"Date: ");
    let date_at = out.len();
    out.extend_from_slice(dress.date);
    out.extend_from_slice(b"\r\n");
    match length {
        Some(length) => header(out, "Content-Length", &length.to_string()),
        None if dress.manner.http_1_0 => {}
        None => out.extend_from_slice(b"Transfer-Encoding: chunked\r\n"),
    }
    out.extend_from_slice(dress.manner.connection());
    out.extend_from_slice(b"\r\n");
    Places { meta_at, date_at }
}

/// Writes one header line. Line ends in a value (echoed input, say) become spaces: they never make new lines.
fn header(out: &mut Vec<u8>, name: &str, value: &str) {
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b": ");
    out.extend(value.bytes().map(|byte| if matches!(byte, b'\r' | b'\n') { b' ' } else { byte }));
    out.extend_from_slice(b"\r\n");
}

#[cfg(test)]
mod tests {
    use muster_protocol::http::http_date;

    use super::*;

    fn text(wire: &Wire) -> String {
        String::from_utf8([wire.front(), wire.tail()].concat()).unwrap()
    }

    fn dress<'a>(manner: Manner, date: &'a [u8; DATE_LEN]) -> Dress<'a> {
        Dress { manner, extra: Some(b"Vary: Accept-Encoding\r\n"), meta: None, date }
    }

    #[test]
    fn a_read_s_answer() {
        let date = http_date(0);
        let meta = Meta { index: 42, consistency: Some("leader"), known_leader: true, last_contact_ms: 0 };
        let response = Response::json_bytes("[]");
        let mut wire = Wire::new(&response, Dress { meta: Some(meta), ..dress(Manner::KEEP, &date) });
        wire.set_date(&http_date(1));
        assert_eq!(
            text(&wire),
            "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nVary: Accept-Encoding\r\n\
             X-Consul-Effective-Consistency: leader\r\nX-Consul-Index: 42\r\nX-Consul-Knownleader: true\r\n\
             X-Consul-Lastcontact: 0\r\nDate: Thu, 01 Jan 1970 00:00:01 GMT\r\nContent-Length: 2\r\n\r\n[]"
        );
    }

    #[test]
    fn another_manner_gives_what_it_would_have_given_at_once() {
        let date = http_date(0);
        for size in [0, 10, limits::JOINED_MAX + 1] {
            let response = Response::json_bytes("x".repeat(size));
            let kept = Wire::new(&response, dress(Manner::KEEP, &date));
            for (http_1_0, keep_alive) in [(false, false), (true, false), (true, true), (false, true)] {
                let manner = Manner { http_1_0, keep_alive, ..Manner::KEEP };
                assert_eq!(text(&kept.for_manner(manner)), text(&Wire::new(&response, dress(manner, &date))));
            }
        }
    }

    #[test]
    fn heads_only_and_compression() {
        let date = http_date(0);
        let response = Response::text(405, "method HEAD not allowed");
        let wire = Wire::new(&response, dress(Manner { head_only: true, ..Manner::KEEP }, &date));
        assert!(text(&wire).ends_with("Content-Length: 23\r\n\r\n"));
        let wire = Wire::new(&response, dress(Manner { gzip: true, ..Manner::KEEP }, &date));
        assert!(wire.front().windows(22).any(|part| part == b"Content-Encoding: gzip"));
        let empty = Wire::new(&Response::empty(404), dress(Manner { gzip: true, ..Manner::KEEP }, &date));
        assert!(!text(&empty).contains("gzip"));
    }

    #[test]
    fn values_never_make_lines() {
        let date = http_date(0);
        let response = Response::empty(301).header("Location", "/x\r\nEvil: 1");
        assert!(
            text(&Wire::new(&response, dress(Manner::KEEP, &date))).contains("Location: /x  Evil: 1\r\n")
        );
    }
}
