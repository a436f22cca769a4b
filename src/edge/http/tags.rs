//! `?tag=`: which instances carry all the tags asked for.

use super::exchange::Request;
use crate::store::model::Service;

/// The tags of a request, in lower case: an instance must carry all of them, in any letter case.
pub struct Tags(Vec<String>);

impl Tags {
    /// Reads them; an empty `?tag=` is a tag no instance has.
    pub fn of(request: &Request) -> Tags {
        Tags(request.query.all("tag").map(str::to_lowercase).collect())
    }

    /// Whether an instance carries all of them.
    pub fn on(&self, service: &Service) -> bool {
        self.0.iter().all(|wanted| service.tags.iter().any(|tag| tag.to_lowercase() == *wanted))
    }
}
