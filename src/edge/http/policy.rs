//! What the configuration says about every request, in the form in which requests need it.

use std::sync::Arc;

use bytes::Bytes;
use muster_protocol::http::{Framing, Head, Method, Target, clean_path, escape_path};

use super::exchange::{Peer, Request, Response};
use super::limits::{ARCHIVE_IN_MEMORY_MAX, ARCHIVE_MAX, BODY_MAX, WRITES_MAX};
use super::query::Query;
use super::router::{BodyLimit, Found, Route, Router, Scope};
use crate::config::Config;

/// What stands where Consul has its pages.
const NO_UI: &str =
    "There is no web UI here. What it would show is at /v1/internal/ui/services and /v1/internal/ui/nodes.\n";

/// The configuration's part in answering, made anew when the configuration changes.
pub struct Policy {
    /// The configuration.
    pub config: Arc<Config>,
    extra_head: Vec<u8>,
}

/// A request that may go to its handler once its body is there.
pub struct Admitted {
    /// The request; its body is empty yet.
    pub request: Request,
    /// Its route.
    pub route: Route,
    /// Largest body.
    pub body_max: usize,
    /// Where the operator reads about that bound.
    pub body_key: Option<&'static str>,
}

/// An answer given without asking any handler.
pub struct Early {
    /// The answer.
    pub response: Response,
    /// Whether it is an endpoint's (and carries [`Policy::extra_head`]).
    pub endpoint: bool,
    /// Whether the connection closes behind it.
    pub close: bool,
    /// The pattern of the route it was meant for, and its method.
    pub route: Option<(Method, &'static str)>,
}

impl Early {
    fn bare(response: Response) -> Early {
        Early { response, endpoint: false, close: false, route: None }
    }

    fn closing(status: u16) -> Early {
        Early { response: Response::empty(status), endpoint: false, close: true, route: None }
    }

    fn endpoint(response: Response, method: &Method, route: &Route) -> Early {
        let route = Some((method.clone(), route.pattern));
        Early { response, endpoint: true, close: false, route }
    }
}

impl Policy {
    /// From a configuration.
    pub fn new(config: Arc<Config>) -> Policy {
        let mut extra_head = b"Vary: Accept-Encoding\r\n".to_vec();
        if config.translate_wan_addrs {
            extra_head.extend_from_slice(b"X-Consul-Translate-Addresses: true\r\n");
        }
        for (name, value) in &config.http.response_headers {
            let clean = |text: &str| text.replace(['\r', '\n'], " ");
            extra_head.extend_from_slice(format!("{}: {}\r\n", clean(name), clean(value)).as_bytes());
        }
        Policy { config, extra_head }
    }

    /// Header lines that every answer of an endpoint carries to whoever is at the other end. An agent adds its own.
    pub fn extra_head(&self, peer: Peer) -> &[u8] {
        if peer == Peer::Agent { b"" } else { &self.extra_head }
    }

    /// Decides what becomes of a request before its body is looked at, in the order of Consul's own wrapping.
    ///
    /// # Errors
    /// The answer, where no handler is asked.
    pub fn admit(&self, router: &Router, head: Head, peer: Peer) -> Result<Admitted, Box<Early>> {
        let (path, raw_query) = match &head.target {
            Target::Asterisk if head.method == Method::Options => {
                return Err(Box::new(Early::bare(Response::empty(200))));
            }
            Target::Asterisk => return Err(Box::new(Early::closing(400))),
            Target::Path { path, raw_query } => (path, raw_query),
        };
        if head.expects_unknown {
            return Err(Box::new(Early::closing(417)));
        }
        if !self.config.http.disable_unprintable_char_filter && !is_printable(path) {
            return Err(Box::new(Early::bare(Response::empty(400))));
        }
        let clean = clean_path(path);
        let route = match router.find(&clean) {
            Found::AddSlash => {
                return Err(Box::new(redirect(&head, &[&clean[..], b"/"].concat(), raw_query)));
            }
            _ if clean != *path => return Err(Box::new(redirect(&head, &clean, raw_query))),
            Found::Route(route) if is_open(route.scope, peer) => route,
            Found::Nothing | Found::Route(_) => {
                // `/` leads there, as in Consul.
                let is_ui = self.config.ui.enabled && *path == self.config.ui.content_path.as_bytes();
                let nothing = if is_ui { Response::text(404, NO_UI) } else { Response::empty(404) };
                return Err(Box::new(Early::bare(nothing)));
            }
        };
        let refuse = |response| Box::new(Early::endpoint(response, &head.method, route));
        let query = self.check(&head, path, raw_query, route, peer).map_err(refuse)?;
        let (body_max, body_key) = self.body_limit(route.body);
        if let Framing::Length(length) = head.framing
            && length > body_max as u64
        {
            return Err(refuse(too_large(Some(length), body_max, body_key)));
        }
        let Head { method, headers, .. } = head;
        let path = Bytes::from(clean);
        let request = Request {
            method,
            path,
            pattern: route.pattern,
            query,
            headers,
            body: Bytes::new(),
            spool: None,
            peer,
        };
        Ok(Admitted { request, route: *route, body_max, body_key })
    }

    fn check(
        &self,
        head: &Head,
        path: &[u8],
        raw: &[u8],
        route: &Route,
        peer: Peer,
    ) -> Result<Query, Response> {
        let query = Query::parse(raw).ok_or_else(|| Response::empty(500))?;
        let by_agent = peer == Peer::Agent;
        if !by_agent
            && self.config.http.block_endpoints.iter().any(|prefix| path.starts_with(prefix.as_bytes()))
        {
            return Err(Response::text(403, "Endpoint is blocked by agent configuration"));
        }
        if !route.methods.is_empty() {
            if head.method == Method::Options {
                return Err(Response::empty(200).header("Allow", route.allow()));
            }
            if !route.methods.contains(&head.method) {
                let text = format!("method {} not allowed", head.method.as_str());
                return Err(Response::text(405, text).header("Allow", route.allow()));
            }
        }
        if !matches!(head.method, Method::Get | Method::Head | Method::Options) && !self.may_write(peer) {
            return Err(Response::text(403, "Access is restricted"));
        }
        Ok(query)
    }

    /// Whether `http_config.allow_write_http_from` lets a client write. Clients of a Unix socket have no address
    /// to be judged by; whoever can open the socket was let in by its file's permissions.
    fn may_write(&self, peer: Peer) -> bool {
        let allowed = &self.config.http.allow_write_http_from;
        match peer {
            Peer::Ip(ip) => allowed.is_empty() || allowed.iter().any(|network| network.contains(ip)),
            Peer::Unix | Peer::Agent => true,
        }
    }

    fn body_limit(&self, limit: BodyLimit) -> (usize, Option<&'static str>) {
        let limits = &self.config.limits;
        match limit {
            BodyLimit::General => (BODY_MAX, None),
            BodyLimit::KvValue => (limits.kv_max_value_size, Some("kv_max_value_size")),
            // The older key counts where it allows more.
            BodyLimit::Transaction => {
                (limits.txn_max_req_len.max(limits.kv_max_value_size), Some("txn_max_req_len"))
            }
            BodyLimit::Archive if self.config.data_dir.is_some() => (ARCHIVE_MAX, None),
            BodyLimit::Archive => (ARCHIVE_IN_MEMORY_MAX, None),
            BodyLimit::Writes => (WRITES_MAX, None),
        }
    }
}

/// Whether a route is there for whoever is at the other end.
fn is_open(scope: Scope, peer: Peer) -> bool {
    match scope {
        Scope::Server => true,
        Scope::Local => peer != Peer::Agent,
        Scope::Internal => peer == Peer::Agent,
    }
}

/// 413 in Consul's words. `length`: where the request says it.
pub fn too_large(length: Option<u64>, max: usize, key: Option<&str>) -> Response {
    let length = length.map(|length| format!("({length} bytes)")).unwrap_or_default();
    let text = format!("Request body{length} too large, max size: {max} bytes.");
    let hint = key.map(|key| format!(" See https://www.consul.io/docs/agent/options.html#{key}."));
    Response::text(413, text + &hint.unwrap_or_default())
}

/// 301 to the same place under its proper path, as Go's `ServeMux`.
fn redirect(head: &Head, path: &[u8], raw_query: &[u8]) -> Early {
    let mut location = escape_path(path);
    if !raw_query.is_empty() {
        location.push('?');
        location.push_str(&String::from_utf8_lossy(raw_query));
    }
    Early::bare(moved(&head.method, &location))
}

/// 301 as Go writes it: with a page for those who look at it.
pub fn moved(method: &Method, location: &str) -> Response {
    let response = match method {
        Method::Get | Method::Head => {
            let page = format!("<a href=\"{}\">Moved Permanently</a>.\n\n", html_escape(location));
            Response::with_type(301, "text/html; charset=utf-8", page)
        }
        _ => Response::empty(301),
    };
    response.header("Location", location)
}

fn html_escape(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&#34;")
        .replace('\'', "&#39;")
}

/// Whether a path holds printable characters only. Octets that are not UTF-8 pass, as in Go, where each stands for
/// U+FFFD.
fn is_printable(path: &[u8]) -> bool {
    if path.iter().all(|&byte| (0x20..0x7f).contains(&byte)) {
        return true;
    }
    // `str::escape_debug` knows which characters print; behind a letter it leaves combining marks alone.
    String::from_utf8_lossy(path).chars().all(|c| match c {
        '\\' | '"' | '\'' => true,
        c => !['a', c].iter().collect::<String>().escape_debug().any(|escaped| escaped == '\\'),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn printable_is_what_go_prints() {
        for good in ["/v1/kv/a b", "/é", "/日本", "/e\u{301}", "/a\"'\\b"] {
            assert!(is_printable(good.as_bytes()), "{good:?}");
        }
        for bad in ["/a\tb", "/a\0b", "/a\u{7f}", "/a\u{a0}b", "/a\u{200b}b", "/a\u{85}"] {
            assert!(!is_printable(bad.as_bytes()), "{bad:?}");
        }
        assert!(is_printable(b"/a\xff"));
    }

    #[test]
    fn redirects_have_go_s_page() {
        let response = moved(&Method::Get, "/x?a=b&c");
        assert_eq!(&response.body[..], b"<a href=\"/x?a=b&amp;c\">Moved Permanently</a>.\n\n");
        assert!(moved(&Method::Put, "/x").body.is_empty());
    }
}
