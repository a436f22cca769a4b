//! `/v1/acl/...`: there are no ACLs here, and each of these says so as a Consul without them does. Its clients look for that text.

use std::rc::Rc;

use muster_protocol::http::Method::{self, Delete, Get, Post, Put};

use super::Edge;
use super::exchange::{Handled, Request, Response};
use super::router::Route;

/// The area's routes.
pub const ROUTES: &[Route] = &[
    off("/v1/acl/bootstrap", &[Put]),
    off("/v1/acl/login", &[Post]),
    off("/v1/acl/logout", &[Post]),
    off("/v1/acl/replication", &[Get]),
    off("/v1/acl/tokens", &[Get]),
    off("/v1/acl/token", &[Put]),
    off("/v1/acl/token/self", &[Get]),
    off("/v1/acl/token/", &[Get, Put, Delete]),
    off("/v1/acl/policies", &[Get]),
    off("/v1/acl/policy", &[Put]),
    off("/v1/acl/policy/", &[Get, Put, Delete]),
    off("/v1/acl/policy/name/", &[Get]),
    off("/v1/acl/roles", &[Get]),
    off("/v1/acl/role", &[Put]),
    off("/v1/acl/role/", &[Get, Put, Delete]),
    off("/v1/acl/role/name/", &[Get]),
    off("/v1/acl/auth-methods", &[Get]),
    off("/v1/acl/auth-method", &[Put]),
    off("/v1/acl/auth-method/", &[Get, Put, Delete]),
    off("/v1/acl/binding-rules", &[Get]),
    off("/v1/acl/binding-rule", &[Put]),
    off("/v1/acl/binding-rule/", &[Get, Put, Delete]),
    off("/v1/acl/rules/translate", &[Post]),
    off("/v1/acl/rules/translate/", &[Get]),
    off("/v1/internal/acl/authorize", &[Post]),
    // Of the time before policies.
    off("/v1/acl/create", &[Put]),
    off("/v1/acl/update", &[Put]),
    off("/v1/acl/destroy/", &[Put]),
    off("/v1/acl/info/", &[Get]),
    off("/v1/acl/clone/", &[Put]),
    off("/v1/acl/list", &[Get]),
    // Of the agent's own tokens.
    off("/v1/agent/token/", &[Put]),
];

const fn off(pattern: &'static str, methods: &'static [Method]) -> Route {
    Route::new(pattern, methods, disabled)
}

fn disabled(_edge: &Rc<Edge>, _request: &Request) -> Handled {
    Err(Response::text(401, "ACL support disabled"))
}
