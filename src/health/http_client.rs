//! A small HTTP/1.1 client for checks: one request per connection, redirects followed, the body read to its end and
//! its last bytes kept. Errors read as those of Go's client, since they become check output.

use std::collections::BTreeMap;
use std::time::Duration;

use futures_lite::io::{AsyncReadExt, AsyncWriteExt};
use http::Uri;

use super::connect::{Connection, dial, secure, system_text};
use super::output::Tail;
use super::plan::HttpProbe;
use super::tls::TlsConfigs;

/// Most bytes of a response head. A server that sends more fails the check.
const HEAD_MAX: usize = 64 * 1024;
/// Most header fields of a response head.
const HEADERS_MAX: usize = 128;
/// Most redirects followed, as in Go.
const REDIRECTS_MAX: usize = 10;
/// Most bytes of one chunk-size line.
const CHUNK_LINE_MAX: usize = 4096;

/// Fields of a definition that are not for whatever host a redirect leads to, as in Go.
const FOR_THE_HOST_ALONE: [&str; 5] = ["Authorization", "Cookie", "Cookie2", "Www-Authenticate", "Host"];

/// What a server answered.
#[derive(Debug)]
pub struct Answer {
    /// Status code.
    pub status: u16,
    /// The reason phrase as sent.
    pub reason: String,
    /// The end of the body.
    pub body: Tail,
}

/// Asks a URL, following redirects. The error is the text for the check's output.
pub async fn ask(
    probe: &HttpProbe,
    configs: &TlsConfigs,
    limit: Duration,
    output_max: usize,
) -> Result<Answer, String> {
    let mut method = if probe.method.is_empty() { "GET".to_owned() } else { probe.method.to_uppercase() };
    let mut url = probe.url.clone();
    let mut body = probe.body.as_str();
    // Go names the last URL with the last method.
    let describe = |method: &str, url: &str, why: String| format!("{} \"{url}\": {why}", capitalised(method));
    for _ in 0..REDIRECTS_MAX {
        let uri = parse_url(&url).map_err(|why| describe(&method, &url, why))?;
        let (answer, location) = exchange(&method, &uri, probe, body, configs, limit, output_max)
            .await
            .map_err(|why| describe(&method, &url, why))?;
        let redirect = match answer.status {
            301..=303 => true,
            307 | 308 => location.is_some(),
            _ => false,
        };
        if !redirect || probe.disable_redirects {
            return Ok(answer);
        }
        let Some(location) = location else {
            let why = format!("{} response missing Location header", answer.status);
            return Err(describe(&method, &url, why));
        };
        url = resolve_reference(&uri, &location);
        if matches!(answer.status, 301..=303) {
            if method != "HEAD" {
                "GET".clone_into(&mut method);
            }
            body = "";
        }
    }
    Err(describe(&method, &url, format!("stopped after {REDIRECTS_MAX} redirects")))
}

fn parse_url(url: &str) -> Result<Uri, String> {
    let uri: Uri = url.parse().map_err(|e| format!("invalid URL: {e}"))?;
    match uri.scheme_str() {
        Some("http" | "https") => {}
        Some(other) => return Err(format!("unsupported protocol scheme \"{other}\"")),
        None => return Err("unsupported protocol scheme \"\"".to_owned()),
    }
    if uri.host().unwrap_or_default().is_empty() {
        return Err("http: no Host in request URL".to_owned());
    }
    Ok(uri)
}

/// A `Location` may be absolute, or relative to the URL that sent it.
fn resolve_reference(base: &Uri, location: &str) -> String {
    if location.contains("://") {
        return location.to_owned();
    }
    let scheme = base.scheme_str().unwrap_or("http");
    if location.starts_with("//") {
        return format!("{scheme}:{location}");
    }
    let authority = base.authority().map(|a| a.as_str()).unwrap_or_default();
    if location.starts_with('/') {
        return format!("{scheme}://{authority}{location}");
    }
    let folder = base.path().rsplit_once('/').map_or("", |(folder, _)| folder);
    format!("{scheme}://{authority}{folder}/{location}")
}

/// A method as Go names it in errors: `Get`.
pub fn capitalised(method: &str) -> String {
    let mut chars = method.chars();
    match chars.next() {
        Some(first) => first.to_uppercase().chain(chars.flat_map(char::to_lowercase)).collect(),
        None => String::new(),
    }
}

/// One request and its answer, with the `Location` if there is one.
async fn exchange(
    method: &str,
    uri: &Uri,
    probe: &HttpProbe,
    body: &str,
    configs: &TlsConfigs,
    limit: Duration,
    output_max: usize,
) -> Result<(Answer, Option<String>), String> {
    let secured = uri.scheme_str() == Some("https");
    let host = uri.host().unwrap_or_default().trim_start_matches('[').trim_end_matches(']');
    let port = uri.port_u16().unwrap_or(if secured { 443 } else { 80 });
    let stream = dial(host, port, limit).await?;
    let mut connection = if secured {
        secure(stream, host, &probe.tls, configs, &[]).await?
    } else {
        Connection::Plain(stream)
    };
    let head = request_head(method, uri, probe, body.len())?;
    let failed = |e: std::io::Error| system_text(&e);
    connection.write_all(&[head.as_slice(), body.as_bytes()].concat()).await.map_err(failed)?;
    connection.flush().await.map_err(failed)?;
    read_answer(&mut connection, method == "HEAD", output_max).await
}

/// Whether a redirect led to another host than the one the check names.
fn is_foreign(uri: &Uri, asked: &str) -> bool {
    let asked: Option<Uri> = asked.parse().ok();
    let host = asked.as_ref().and_then(Uri::host);
    host.is_some_and(|host| !uri.host().unwrap_or_default().eq_ignore_ascii_case(host))
}

fn request_head(method: &str, uri: &Uri, probe: &HttpProbe, body_len: usize) -> Result<Vec<u8>, String> {
    if method.bytes().any(|b| !b.is_ascii_alphanumeric() && !b"!#$%&'*+-.^_`|~".contains(&b)) {
        return Err(format!("net/http: invalid method {method:?}"));
    }
    let path = uri.path_and_query().map_or("/", |p| p.as_str());
    let authority = uri.authority().map(|a| a.as_str()).unwrap_or_default();
    let (user, host) = authority.rsplit_once('@').map_or((None, authority), |(u, h)| (Some(u), h));
    let mut fields: Vec<(String, String)> = Vec::new();
    let foreign = is_foreign(uri, &probe.url);
    for (name, values) in &probe.header {
        if foreign && FOR_THE_HOST_ALONE.iter().any(|own| own.eq_ignore_ascii_case(name)) {
            continue;
        }
        for value in values {
            fields.push((name.clone(), value.clone()));
        }
    }
    let mut default = |name: &str, value: &str| {
        if !fields.iter().any(|(known, _)| known.eq_ignore_ascii_case(name)) {
            fields.push((name.to_owned(), value.to_owned()));
        }
    };
    default("Host", host);
    default("User-Agent", "Consul Health Check");
    default("Accept", "text/plain, text/*, */*");
    if let Some(user) = user {
        use base64::Engine;
        let coded = base64::engine::general_purpose::STANDARD.encode(user);
        default("Authorization", &format!("Basic {coded}"));
    }
    fields.retain(|(name, _)| {
        !["connection", "content-length", "transfer-encoding"].contains(&name.to_ascii_lowercase().as_str())
    });
    if body_len > 0 || matches!(method, "POST" | "PUT" | "PATCH") {
        fields.push(("Content-Length".to_owned(), body_len.to_string()));
    }
    let mut head = format!("{method} {path} HTTP/1.1\r\n");
    for (name, value) in fields {
        if name.is_empty() || name.bytes().chain(value.bytes()).any(|b| b == b'\r' || b == b'\n' || b == 0) {
            return Err(format!("net/http: invalid header field {name:?}"));
        }
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    head.push_str("Connection: close\r\n\r\n");
    Ok(head.into_bytes())
}

/// How the end of a body is known.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Framing {
    /// There is none.
    Empty,
    /// So many bytes.
    Length(u64),
    /// In chunks, the last of which is empty.
    Chunked,
    /// With the connection.
    Close,
}

async fn read_answer(
    connection: &mut Connection,
    head_only: bool,
    output_max: usize,
) -> Result<(Answer, Option<String>), String> {
    let mut buffer = Vec::new();
    let mut reader = Reader { connection, buffer: &mut buffer };
    loop {
        let Head { status, reason, fields } = reader.head().await?;
        if (100..200).contains(&status) && status != 101 {
            continue;
        }
        let framing = if head_only { Framing::Empty } else { framing(status, &fields) };
        let mut body = Tail::new(output_max);
        reader.body(framing, &mut body).await?;
        let location = fields.get("location").cloned();
        return Ok((Answer { status, reason, body }, location));
    }
}

/// How the end of the body behind a head is known.
pub fn framing(status: u16, fields: &BTreeMap<String, String>) -> Framing {
    if status == 204 || status == 304 {
        return Framing::Empty;
    }
    if fields.get("transfer-encoding").is_some_and(|v| v.to_ascii_lowercase().contains("chunked")) {
        return Framing::Chunked;
    }
    match fields.get("content-length").map(|v| v.trim().parse()) {
        Some(Ok(length)) => Framing::Length(length),
        _ => Framing::Close,
    }
}

/// The head of a response.
pub struct Head {
    /// Status code.
    pub status: u16,
    /// The reason phrase as sent.
    pub reason: String,
    /// Header fields, their names in small letters.
    pub fields: BTreeMap<String, String>,
}

/// Reads responses from a connection. What was read and not used yet stays in the buffer.
pub struct Reader<'a> {
    /// Where they come from.
    pub connection: &'a mut Connection,
    /// What was read and not used yet.
    pub buffer: &'a mut Vec<u8>,
}

impl Reader<'_> {
    /// Reads more into the buffer; false at the end of the stream.
    async fn fill(&mut self) -> Result<bool, String> {
        let mut piece = [0u8; 4096];
        let n = match self.connection.read(&mut piece).await {
            Ok(n) => n,
            // Many servers close TLS without saying so.
            Err(e) if e.kind() == std::io::ErrorKind::UnexpectedEof => 0,
            Err(e) => return Err(format!("read: {}", system_text(&e))),
        };
        self.buffer.extend_from_slice(&piece[..n]);
        Ok(n > 0)
    }

    /// Reads a head.
    ///
    /// # Errors
    /// The connection ended, or sends something else.
    pub async fn head(&mut self) -> Result<Head, String> {
        loop {
            let mut fields = [httparse::EMPTY_HEADER; HEADERS_MAX];
            let mut response = httparse::Response::new(&mut fields);
            match response.parse(self.buffer) {
                Ok(httparse::Status::Complete(length)) => {
                    let head = Head {
                        status: response.code.unwrap_or_default(),
                        reason: response.reason.unwrap_or_default().to_owned(),
                        fields: response
                            .headers
                            .iter()
                            .map(|f| {
                                (f.name.to_ascii_lowercase(), String::from_utf8_lossy(f.value).into_owned())
                            })
                            .collect(),
                    };
                    self.buffer.drain(..length);
                    return Ok(head);
                }
                Ok(httparse::Status::Partial) => {}
                Err(e) => return Err(malformed(self.buffer, e)),
            }
            if self.buffer.len() > HEAD_MAX {
                return Err(format!("response header exceeds {HEAD_MAX} bytes"));
            }
            if !self.fill().await? {
                return Err("EOF".to_owned());
            }
        }
    }

    /// Reads a body. Of chunks, what follows the last one is left to be read.
    ///
    /// # Errors
    /// It breaks off.
    pub async fn body(&mut self, framing: Framing, out: &mut Tail) -> Result<(), String> {
        match framing {
            Framing::Empty => Ok(()),
            Framing::Length(length) => self.take(length, out).await,
            Framing::Close => loop {
                out.push(self.buffer);
                self.buffer.clear();
                if !self.fill().await? {
                    return Ok(());
                }
            },
            Framing::Chunked => {
                loop {
                    let line = self.line().await?;
                    let size = line.split(';').next().unwrap_or_default().trim();
                    let size = u64::from_str_radix(size, 16)
                        .map_err(|_| "invalid byte in chunk length".to_owned())?;
                    if size == 0 {
                        // Trailers, if any, are not looked at: the connection closes.
                        return Ok(());
                    }
                    self.take(size, out).await?;
                    self.line().await?;
                }
            }
        }
    }

    async fn take(&mut self, mut left: u64, out: &mut Tail) -> Result<(), String> {
        while left > 0 {
            if self.buffer.is_empty() && !self.fill().await? {
                return Err("unexpected EOF".to_owned());
            }
            let n = usize::try_from(left).unwrap_or(usize::MAX).min(self.buffer.len());
            out.push(&self.buffer[..n]);
            self.buffer.drain(..n);
            left -= n as u64;
        }
        Ok(())
    }

    /// Reads a line, without its end.
    ///
    /// # Errors
    /// The connection ended before it did, or it is too long.
    pub async fn line(&mut self) -> Result<String, String> {
        loop {
            if let Some(end) = self.buffer.iter().position(|b| *b == b'\n') {
                let line = String::from_utf8_lossy(&self.buffer[..end]).trim_end().to_owned();
                self.buffer.drain(..=end);
                return Ok(line);
            }
            if self.buffer.len() > CHUNK_LINE_MAX {
                return Err("chunk line too long".to_owned());
            }
            if !self.fill().await? {
                return Err("unexpected EOF".to_owned());
            }
        }
    }
}

/// What is wrong with a head, as Go says it of its first line.
fn malformed(head: &[u8], error: httparse::Error) -> String {
    let line = head.split(|b| *b == b'\n').next().unwrap_or_default();
    let line = String::from_utf8_lossy(line.trim_ascii_end());
    let why = match line.split_once(' ') {
        None => format!("malformed HTTP response {line:?}"),
        Some((version, rest)) => {
            let code = rest.trim_start().split(' ').next().unwrap_or_default();
            if code.len() != 3 || code.parse::<u16>().is_err() {
                format!("malformed HTTP status code {code:?}")
            } else if !version.starts_with("HTTP/") {
                format!("malformed HTTP version {version:?}")
            } else {
                format!("malformed HTTP response: {error}")
            }
        }
    };
    format!("net/http: HTTP/1.x transport connection broken: {why}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn locations_are_resolved_against_the_url() {
        let base: Uri = "http://h:1/a/b?c".parse().unwrap();
        assert_eq!(resolve_reference(&base, "https://x/y"), "https://x/y");
        assert_eq!(resolve_reference(&base, "//x/y"), "http://x/y");
        assert_eq!(resolve_reference(&base, "/200"), "http://h:1/200");
        assert_eq!(resolve_reference(&base, "c"), "http://h:1/a/c");
    }

    #[test]
    fn only_http_urls_are_asked() {
        assert!(parse_url("http://h/").is_ok());
        assert_eq!(parse_url("nonsense://x").unwrap_err(), "unsupported protocol scheme \"nonsense\"");
        assert!(parse_url("/just/a/path").is_err());
    }

    #[test]
    fn the_head_carries_consuls_defaults_and_the_definitions_fields() {
        let probe = HttpProbe {
            header: [("X-Golden".to_owned(), vec!["f".to_owned()])].into(),
            ..Default::default()
        };
        let uri: Uri = "http://user:pw@h:1/p?q=1".parse().unwrap();
        let head = String::from_utf8(request_head("PUT", &uri, &probe, 3).unwrap()).unwrap();
        assert!(head.starts_with("PUT /p?q=1 HTTP/1.1\r\n"), "{head}");
        for line in [
            "X-Golden: f",
            "Host: h:1",
            "User-Agent: Consul Health Check",
            "Accept: text/plain, text/*, */*",
            "Authorization: Basic dXNlcjpwdw==",
            "Content-Length: 3",
            "Connection: close",
        ] {
            assert!(head.contains(&format!("{line}\r\n")), "{line} missing in {head}");
        }
    }

    /// They went wherever a redirect of the checked server pointed.
    #[test]
    fn credentials_do_not_follow_a_redirect_to_another_host() {
        let probe = HttpProbe {
            url: "http://own:1/".to_owned(),
            header: ["Authorization", "X-Any"].map(|name| (name.to_owned(), vec!["v".to_owned()])).into(),
            ..Default::default()
        };
        let head = |url: &str| {
            let uri = url.parse().unwrap();
            String::from_utf8(request_head("GET", &uri, &probe, 0).unwrap()).unwrap()
        };
        assert!(head("http://OWN:2/other").contains("Authorization: v\r\n"));
        let foreign = head("http://elsewhere/");
        assert!(!foreign.contains("Authorization") && foreign.contains("X-Any: v\r\n"), "{foreign}");
    }

    #[test]
    fn what_is_not_http_is_quoted_as_in_go() {
        let broken = "net/http: HTTP/1.x transport connection broken: malformed HTTP ";
        for (head, why) in [
            ("+OK ready, say it\r\n", "status code \"ready,\""),
            ("nonsense\r\n\r\n", "response \"nonsense\""),
            ("SMTP 220 hi\r\n", "version \"SMTP\""),
        ] {
            assert_eq!(malformed(head.as_bytes(), httparse::Error::Version), format!("{broken}{why}"));
        }
    }

    #[test]
    fn header_injection_is_refused() {
        let probe = HttpProbe {
            header: [("X".to_owned(), vec!["a\r\nY: b".to_owned()])].into(),
            ..Default::default()
        };
        assert!(request_head("GET", &"http://h/".parse().unwrap(), &probe, 0).is_err());
        let plain = HttpProbe::default();
        let smuggled = "GET / HTTP/1.1\r\nX: y\r\n\r\nFLUSHALL\r\n";
        assert!(request_head(smuggled, &"http://h/".parse().unwrap(), &plain, 0).is_err());
    }
}
