//! `/`: to the web UI, or a word about who is here; `/debug/pprof/`: whoever may not look into the process is told so.

use std::rc::Rc;

use super::Edge;
use super::exchange::{Handled, Request, Response};
use super::policy::moved;
use super::router::Route;

/// The rows of this area.
pub const ROUTES: &[Route] = &[Route::new("/", &[], index), Route::new("/debug/pprof/", &[], profiles)];

fn index(edge: &Rc<Edge>, request: &Request) -> Handled {
    let config = edge.config();
    let response = if config.ui.enabled {
        moved(&request.method, &config.ui.content_path)
    } else {
        Response::text(200, "Consul Agent")
    };
    Ok(response.into())
}

/// Profiles of the Go runtime are none of ours; without `enable_debug` even who has some does not show them.
fn profiles(edge: &Rc<Edge>, _request: &Request) -> Handled {
    let shown = edge.config().enable_debug;
    Err(if shown { Response::empty(404) } else { Response::text(401, "ACL support disabled") })
}
