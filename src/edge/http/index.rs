//! `/`: to the web UI, or a word about who is here.

use std::rc::Rc;

use super::Edge;
use super::exchange::{Handled, Request, Response};
use super::policy::moved;
use super::router::Route;

/// The rows of this area.
pub const ROUTES: &[Route] = &[Route::new("/", &[], index)];

fn index(edge: &Rc<Edge>, request: &Request) -> Handled {
    let config = edge.config();
    let response = if config.ui.enabled {
        moved(&request.method, &config.ui.content_path)
    } else {
        Response::text(200, "Consul Agent")
    };
    Ok(response.into())
}
