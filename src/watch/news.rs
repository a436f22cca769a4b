//! What a handler is told: an answer of the HTTP API in the shape that Consul's programs give it (`api` structures:
//! every field, in their order), and of events only the new ones.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::course::Answer;
use super::gotext;
use super::plan::Subject;

/// Turns answers into what is told.
#[derive(Debug)]
pub struct Reader {
    subject: Subject,
    /// The events of the last answer; `None` before the first.
    seen: Option<BTreeSet<String>>,
}

/// What is told.
#[derive(Debug, Serialize)]
#[serde(untagged)]
pub enum News {
    /// A key; `None` when there is none.
    Key(Option<KvPair>),
    /// Keys below a prefix; `None` when there are none.
    Keys(Option<Vec<KvPair>>),
    /// Services with their tags.
    Services(BTreeMap<String, Vec<String>>),
    /// Nodes.
    Nodes(Vec<Node>),
    /// Instances of a service.
    Instances(Vec<Instance>),
    /// Checks.
    Checks(Vec<Check>),
    /// Events that are new.
    Events(Vec<Event>),
    /// A service of the agent itself.
    Own(Box<Service>),
}

impl Reader {
    /// A reader for answers about `subject`.
    pub fn new(subject: Subject) -> Reader {
        Reader { subject, seen: None }
    }

    /// What an answer says; `None` when nothing of it is new.
    ///
    /// # Errors
    /// It is no answer to this question.
    pub fn read(&mut self, answer: &Answer) -> Result<Option<News>, String> {
        let body = &answer.body[..];
        let is_there = answer.status == 200;
        Ok(Some(match &self.subject {
            Subject::Key(_) if !is_there => News::Key(None),
            Subject::KeyPrefix(_) if !is_there => News::Keys(None),
            _ if !is_there => return Err(format!("Unexpected response code: {}", answer.status)),
            Subject::Key(_) => News::Key(decoded::<Vec<KvPair>>(body)?.into_iter().next()),
            Subject::KeyPrefix(_) => News::Keys(Some(decoded(body)?)),
            Subject::Services => News::Services(decoded(body)?),
            Subject::Nodes => News::Nodes(decoded(body)?),
            Subject::Service { .. } => News::Instances(decoded(body)?),
            Subject::ChecksInState(_) | Subject::ChecksOfService(_) => News::Checks(decoded(body)?),
            Subject::Event(_) => match self.new_events(decoded(body)?) {
                Some(events) => News::Events(events),
                None => return Ok(None),
            },
            Subject::AgentService(_) => News::Own(Box::new(decoded(body)?)),
            Subject::Mesh(kind) => return Err(format!("watches of type {kind} are not available")),
        }))
    }

    /// The events that were not in the last answer. The first answer counts even if it is empty, as in Consul.
    fn new_events(&mut self, mut events: Vec<Event>) -> Option<Vec<Event>> {
        let now: BTreeSet<String> = events.iter().map(|event| event.id.clone()).collect();
        let before = self.seen.replace(now);
        if let Some(before) = &before {
            events.retain(|event| !before.contains(&event.id));
        }
        (before.is_none() || !events.is_empty()).then_some(events)
    }
}

impl News {
    /// As a handler reads it: JSON on one line.
    pub fn line(&self) -> Vec<u8> {
        gotext::line(self)
    }

    /// As a person reads it.
    pub fn indented(&self) -> Vec<u8> {
        gotext::indented(self)
    }
}

fn decoded<'a, T: Deserialize<'a>>(body: &'a [u8]) -> Result<T, String> {
    serde_json::from_slice(body).map_err(|why| format!("the answer cannot be read: {why}"))
}

/// A key.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct KvPair {
    key: String,
    create_index: u64,
    modify_index: u64,
    lock_index: u64,
    flags: u64,
    value: Option<String>,
    session: String,
}

/// A node.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Node {
    #[serde(rename = "ID")]
    id: String,
    node: String,
    address: String,
    datacenter: String,
    tagged_addresses: Option<BTreeMap<String, String>>,
    meta: Option<BTreeMap<String, String>>,
    create_index: u64,
    modify_index: u64,
}

/// An instance of a service, with its node and its checks.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Instance {
    node: Option<Node>,
    service: Option<Service>,
    checks: Option<Vec<Check>>,
}

/// A service.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Service {
    #[serde(skip_serializing_if = "String::is_empty")]
    kind: String,
    #[serde(rename = "ID")]
    id: String,
    service: String,
    tags: Option<Vec<String>>,
    meta: Option<BTreeMap<String, String>>,
    port: i64,
    address: String,
    #[serde(skip_serializing_if = "is_empty")]
    tagged_addresses: Option<BTreeMap<String, Address>>,
    weights: Weights,
    enable_tag_override: bool,
    #[serde(skip_serializing_if = "is_zero")]
    create_index: u64,
    #[serde(skip_serializing_if = "is_zero")]
    modify_index: u64,
    #[serde(skip_serializing_if = "String::is_empty")]
    content_hash: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    proxy: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    connect: Option<Value>,
}

#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct Address {
    address: String,
    port: i64,
}

#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct Weights {
    passing: i64,
    warning: i64,
}

/// A check.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Check {
    node: String,
    #[serde(rename = "CheckID")]
    check_id: String,
    name: String,
    status: String,
    notes: String,
    output: String,
    #[serde(rename = "ServiceID")]
    service_id: String,
    service_name: String,
    service_tags: Option<Vec<String>>,
    r#type: String,
    definition: Definition,
    create_index: u64,
    modify_index: u64,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct Definition {
    interval: String,
    timeout: String,
    deregister_critical_service_after: String,
    #[serde(rename = "HTTP")]
    http: String,
    header: Option<BTreeMap<String, Option<Vec<String>>>>,
    method: String,
    body: String,
    #[serde(rename = "TLSSkipVerify")]
    tls_skip_verify: bool,
    #[serde(rename = "TCP")]
    tcp: String,
}

impl Default for Definition {
    fn default() -> Definition {
        let none = || "0s".to_owned();
        Definition {
            interval: none(),
            timeout: none(),
            deregister_critical_service_after: none(),
            http: String::new(),
            header: None,
            method: String::new(),
            body: String::new(),
            tls_skip_verify: false,
            tcp: String::new(),
        }
    }
}

/// A user event.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Event {
    #[serde(rename = "ID")]
    id: String,
    name: String,
    payload: Option<String>,
    node_filter: String,
    service_filter: String,
    tag_filter: String,
    version: i64,
    #[serde(rename = "LTime")]
    l_time: u64,
}

fn is_zero(number: &u64) -> bool {
    *number == 0
}

fn is_empty<T>(map: &Option<BTreeMap<String, T>>) -> bool {
    map.as_ref().is_none_or(BTreeMap::is_empty)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::watch::plan::Plan;

    fn answer(status: u16, body: &str) -> Answer {
        Answer { index: 1, status, body: body.as_bytes().into() }
    }

    /// Recorded of Consul 1.8.7: what its agent answered, and what its `watch` made of it.
    #[test]
    fn answers_are_told_as_consul_tells_them() {
        #[derive(Deserialize)]
        struct Case {
            params: serde_json::Map<String, Value>,
            status: u16,
            body: String,
            shown: String,
            told: String,
        }
        for line in include_str!("../../tests/fixtures/watches.jsonl").lines() {
            let mut case: Case = serde_json::from_str(line).expect("a case");
            let subject = Plan::parse(&mut case.params, &[]).expect("a watch").subject;
            let read = Reader::new(subject).read(&answer(case.status, &case.body));
            let news = read.expect("an answer").expect("news");
            assert_eq!(String::from_utf8_lossy(&news.line()), case.told, "{line}");
            assert_eq!(String::from_utf8_lossy(&news.indented()) + "\n", case.shown, "{line}");
        }
    }

    #[test]
    fn only_new_events_are_told() {
        let mut reader = Reader::new(Subject::Event(String::new()));
        let mut told = |ids: &[&str]| {
            let events: Vec<String> = ids.iter().map(|id| format!(r#"{{"ID":"{id}","LTime":1}}"#)).collect();
            let news = reader.read(&answer(200, &format!("[{}]", events.join(",")))).expect("read");
            news.map(|news| match news {
                News::Events(events) => events.into_iter().map(|event| event.id).collect::<Vec<_>>(),
                other => panic!("{other:?}"),
            })
        };
        assert_eq!(told(&[]), Some(vec![]));
        assert_eq!(told(&["a", "b"]), Some(vec!["a".to_owned(), "b".to_owned()]));
        assert_eq!(told(&["b", "c"]), Some(vec!["c".to_owned()]));
        // An agent that was started anew has none; that is no event.
        assert_eq!(told(&[]), None);
        assert_eq!(told(&["d"]), Some(vec!["d".to_owned()]));
    }
}
