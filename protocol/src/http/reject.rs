//! Requests that are refused before anyone looks at them: the connection is answered once and closed.

/// Why a request was refused. [`Reject::bytes`] is the whole answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reject {
    /// Not HTTP, or nonsense in the request line, the target or the framing headers.
    Malformed,
    /// A version other than 1.x.
    Version,
    /// HTTP/1.1 without `Host`.
    MissingHost,
    /// `Host` twice.
    ManyHosts,
    /// `Host` holds octets that no host has.
    BadHost,
    /// A header's name is not a token.
    HeaderName,
    /// A header's value holds control characters.
    HeaderValue,
    /// More header bytes or fields than the limit.
    HeadTooLarge,
    /// A transfer coding other than `chunked`.
    TransferCoding,
    /// The request did not arrive in time.
    Timeout,
}

impl Reject {
    /// Status code.
    pub fn status(self) -> u16 {
        match self {
            Reject::HeadTooLarge => 431,
            Reject::TransferCoding => 501,
            Reject::Timeout => 408,
            _ => 400,
        }
    }

    /// The complete answer, which ends with the connection.
    pub fn bytes(self) -> Vec<u8> {
        let (line, text) = match self {
            Reject::Malformed => ("400 Bad Request", None),
            Reject::Version => ("400 Bad Request: unsupported protocol version", None),
            Reject::MissingHost => ("400 Bad Request: missing required Host header", None),
            Reject::ManyHosts => ("400 Bad Request: too many Host headers", None),
            Reject::BadHost => ("400 Bad Request: malformed Host header", None),
            Reject::HeaderName => ("400 Bad Request: invalid header name", None),
            Reject::HeaderValue => ("400 Bad Request: invalid header value", None),
            Reject::HeadTooLarge => ("431 Request Header Fields Too Large", None),
            Reject::TransferCoding => ("501 Not Implemented", Some("Unsupported transfer encoding")),
            Reject::Timeout => ("408 Request Timeout", None),
        };
        let text = text.unwrap_or(line);
        let head = "Content-Type: text/plain; charset=utf-8\r\nConnection: close\r\n\r\n";
        format!("HTTP/1.1 {line}\r\n{head}{text}").into_bytes()
    }
}
