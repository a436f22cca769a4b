//! Request methods.

/// A request method. Names are case-sensitive, as in HTTP.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Method {
    /// GET
    Get,
    /// PUT
    Put,
    /// POST
    Post,
    /// DELETE
    Delete,
    /// HEAD
    Head,
    /// OPTIONS
    Options,
    /// PATCH
    Patch,
    /// Any other token.
    Other(Box<str>),
}

impl Method {
    /// Parses a method; `None` if it is not a token.
    pub fn parse(token: &[u8]) -> Option<Method> {
        Some(match token {
            b"GET" => Method::Get,
            b"PUT" => Method::Put,
            b"POST" => Method::Post,
            b"DELETE" => Method::Delete,
            b"HEAD" => Method::Head,
            b"OPTIONS" => Method::Options,
            b"PATCH" => Method::Patch,
            _ if !token.is_empty() && token.iter().all(|&byte| is_token(byte)) => {
                Method::Other(std::str::from_utf8(token).ok()?.into())
            }
            _ => return None,
        })
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        match self {
            Method::Get => "GET",
            Method::Put => "PUT",
            Method::Post => "POST",
            Method::Delete => "DELETE",
            Method::Head => "HEAD",
            Method::Options => "OPTIONS",
            Method::Patch => "PATCH",
            Method::Other(name) => name,
        }
    }
}

/// RFC 9110 `tchar`.
pub(super) fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}
