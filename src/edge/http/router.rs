//! From a path to its handler: exact paths first, then the longest prefix, as Go's `ServeMux` does for Consul.

use muster_protocol::http::Method;

use super::exchange::Handler;

/// The largest body a route takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BodyLimit {
    /// [`super::limits::BODY_MAX`].
    General,
    /// `limits.kv_max_value_size`.
    KvValue,
    /// `limits.txn_max_req_len`.
    Transaction,
    /// [`super::limits::ARCHIVE_MAX`].
    Archive,
    /// [`super::limits::WRITES_MAX`].
    Writes,
}

/// Who answers a route, and to whom.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Scope {
    /// A server, to everybody; an agent that is none asks one.
    #[default]
    Server,
    /// Every agent, about itself; nobody asks that of a server through another agent.
    Local,
    /// A server, to agents only: on public doors there is no such route.
    Internal,
}

/// One row of the table.
#[derive(Clone, Copy)]
pub struct Route {
    /// A whole path, or a prefix when it ends in `/` (but `/` itself is the whole path).
    pub pattern: &'static str,
    /// Methods taken, in the order in which `Allow` names them after `OPTIONS`. Empty: the handler takes all.
    pub methods: &'static [Method],
    /// The largest body.
    pub body: BodyLimit,
    /// Who answers.
    pub handler: Handler,
    /// Where, and to whom.
    pub scope: Scope,
}

impl Route {
    /// A route with the general body limit.
    pub const fn new(pattern: &'static str, methods: &'static [Method], handler: Handler) -> Route {
        Route { pattern, methods, body: BodyLimit::General, handler, scope: Scope::Server }
    }

    /// The same with another body limit.
    #[must_use]
    pub const fn body(mut self, limit: BodyLimit) -> Route {
        self.body = limit;
        self
    }

    /// The `Allow` header's value.
    pub fn allow(&self) -> String {
        let mut allow = "OPTIONS".to_owned();
        for method in self.methods {
            allow.push(',');
            allow.push_str(method.as_str());
        }
        allow
    }
}

/// Where a path leads.
pub enum Found<'a> {
    /// To a route.
    Route(&'a Route),
    /// To the same path with a slash added (`/v1/kv` where only `/v1/kv/` exists).
    AddSlash,
    /// Nowhere.
    Nothing,
}

/// The table. Rows are added by the areas ([`Router::add`]), then looked up.
#[derive(Default)]
pub struct Router {
    /// Sorted by pattern.
    exact: Vec<Route>,
    /// Sorted by length, longest first.
    prefixes: Vec<Route>,
}

impl Router {
    /// An empty table.
    pub fn new() -> Router {
        Router::default()
    }

    /// Adds an area's rows. A pattern given twice is a mistake in the table: the later row is ignored.
    pub fn add(&mut self, routes: &[Route], scope: Scope) {
        for route in routes {
            let route = &Route { scope, ..*route };
            if route.pattern.ends_with('/') && route.pattern != "/" {
                let at = self.prefixes.partition_point(|other| other.pattern.len() >= route.pattern.len());
                if self.prefixes.iter().all(|other| other.pattern != route.pattern) {
                    self.prefixes.insert(at, *route);
                }
            } else if let Err(at) = self.find_exact(route.pattern.as_bytes()) {
                self.exact.insert(at, *route);
            }
        }
    }

    /// Looks a decoded, cleaned path up.
    pub fn find(&self, path: &[u8]) -> Found<'_> {
        if let Ok(at) = self.find_exact(path) {
            return Found::Route(&self.exact[at]);
        }
        let slashed = |route: &Route| route.pattern.as_bytes().strip_suffix(b"/") == Some(path);
        if self.prefixes.iter().any(slashed) {
            return Found::AddSlash;
        }
        let leads_to = |route: &&Route| path.starts_with(route.pattern.as_bytes());
        self.prefixes.iter().find(leads_to).map_or(Found::Nothing, Found::Route)
    }

    fn find_exact(&self, path: &[u8]) -> Result<usize, usize> {
        self.exact.binary_search_by(|route| route.pattern.as_bytes().cmp(path))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::edge::http::exchange::{Handled, Request, Response};

    fn answer(_: &std::rc::Rc<crate::edge::http::Edge>, _: &Request) -> Handled {
        Ok(Response::empty(200).into())
    }

    #[test]
    fn exact_then_longest_prefix_then_slash() {
        let mut router = Router::new();
        let paths = [
            "/",
            "/v1/kv/",
            "/v1/query",
            "/v1/query/",
            "/v1/acl/token",
            "/v1/acl/token/",
            "/v1/acl/token/self",
        ];
        for pattern in paths {
            router.add(&[Route::new(pattern, &[Method::Get], answer)], Scope::Server);
        }
        let leads = |path: &str| match router.find(path.as_bytes()) {
            Found::Route(route) => route.pattern,
            Found::AddSlash => "add slash",
            Found::Nothing => "nothing",
        };
        for path in ["/", "/v1/query", "/v1/acl/token", "/v1/acl/token/self"] {
            assert_eq!(leads(path), path);
        }
        assert_eq!(leads("/v1/kv/a/b"), "/v1/kv/");
        assert_eq!(leads("/v1/kv/"), "/v1/kv/");
        assert_eq!(leads("/v1/kv"), "add slash");
        assert_eq!(leads("/v1/acl/token/selfish"), "/v1/acl/token/");
        assert_eq!(leads("/v1/agent"), "nothing");
        assert_eq!(leads("/V1/query"), "nothing");
        assert_eq!(Route::new("/x", &[Method::Get, Method::Put], answer).allow(), "OPTIONS,GET,PUT");
    }
}
