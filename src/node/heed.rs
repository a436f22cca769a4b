//! Which user events this agent heeds: their filters against its name, its services and their tags (Consul: `shouldProcessUserEvent`).

use regex::{Regex, RegexBuilder};

use muster_protocol::entry::ServerId;

use super::Plan;
use crate::agent::LocalState;
use crate::agent::rexec::{EVENT_NAME, RemoteExec};
use crate::membership::{EventFilters, Heed};

/// The most that a compiled filter may take, bytes: anybody in the pool may send one.
const FILTER_SIZE_MAX: usize = 1 << 20;

/// For the membership of this agent. Events that ask for a job go there, and to no client (Consul: `ingestUserEvent`).
pub(super) fn heed(plan: &Plan) -> Heed {
    let (local, exec) = (plan.local.clone(), RemoteExec::new(plan.config.clone()));
    Box::new(move |event| {
        if !heeds(&local.load(), &event.filters).unwrap_or(false) {
            return false;
        }
        let is_job = event.name == EVENT_NAME;
        if is_job {
            exec.called(&ServerId(event.id).to_string(), &event.payload);
        }
        !is_job
    })
}

/// `None` when a filter is no regular expression.
fn heeds(local: &LocalState, filters: &EventFilters) -> Option<bool> {
    let [node, service, tag] = [&filters.node, &filters.service, &filters.tag].map(|text| compile(text));
    if !fits(&node?, &local.node.node) {
        return Some(false);
    }
    let (service, tag) = (service?, tag?);
    if service.is_none() {
        return Some(true);
    }
    let rows = local.services.values().map(|service| &service.row);
    let mut named = rows.filter(|row| fits(&service, &row.name));
    Some(named.any(|row| tag.is_none() || row.tags.iter().any(|own| fits(&tag, own))))
}

/// The outer `None`: it is none; the inner: it fits all.
fn compile(text: &str) -> Option<Option<Regex>> {
    if text.is_empty() {
        return Some(None);
    }
    RegexBuilder::new(text).size_limit(FILTER_SIZE_MAX).build().ok().map(Some)
}

fn fits(filter: &Option<Regex>, text: &str) -> bool {
    filter.as_ref().is_none_or(|filter| filter.is_match(text))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::agent::{LocalService, Source};
    use crate::store::model::Service;

    #[test]
    fn filters_are_about_the_node_its_services_and_their_tags() {
        let row = Service { name: "web".into(), tags: vec!["blue".to_owned()], ..Service::default() };
        let service = LocalService {
            row: Arc::new(row),
            source: Source::Local,
            token: String::new(),
            hash: String::new(),
        };
        let mut local = LocalState::of_node("node1");
        local.services.insert("web".into(), Arc::new(service));
        let heeds = |node: &str, service: &str, tag: &str| {
            let filters = EventFilters { node: node.into(), service: service.into(), tag: tag.into() };
            heeds(&local, &filters)
        };
        assert_eq!(heeds("", "", ""), Some(true));
        assert_eq!((heeds("node[0-9]", "", ""), heeds("^x", "", "")), (Some(true), Some(false)));
        assert_eq!((heeds("", "w.b", ""), heeds("", "db", "")), (Some(true), Some(false)));
        assert_eq!((heeds("", "web", "bl"), heeds("", "web", "red")), (Some(true), Some(false)));
        assert_eq!(heeds("(", "", ""), None);
    }
}
