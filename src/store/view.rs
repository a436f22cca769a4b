//! What a server tells a client agent that keeps the rows of a service or a node: all of them, or what has changed since
//! an index, as bytes. A function of the state and the index alone, so all agents at one index share one answer.
//!
//! Of a service go out, whole, the rows (node, service, checks) that were written since; of an instance that any change
//! concerned the IDs of all its checks; and where instances may have gone, the places of those that stay. Whoever
//! puts that onto what it held at the index ([`super::mirror`]) has what the server has, and proves it by a count and
//! a digest: if they differ (the index was of another history), it asks for everything.

use std::hash::{Hash, Hasher};

use rkyv::rancor;
use rkyv::util::AlignedVec;
use rkyv::with::{Inline, Map};
use rkyv::{Archive, Serialize};

use super::catalog::{InstanceRow, Name, ServiceEntry};
use super::fingerprint::Fnv;
use super::model::{Check, Node, Service};
use super::state::State;
use super::topic::{Topic, fold};

/// Version of the bytes. An agent asks for the one that it reads.
pub const VIEW_FORMAT: u16 = 1;

/// What is kept together.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum View {
    /// The instances of a service with all that decides their health.
    Service(Name),
    /// A node's row and its services.
    Node(Name),
    /// The names of all services with their tags.
    Names,
}

impl View {
    /// The view of a service; letter case does not matter.
    pub fn service(name: &str) -> View {
        View::Service(fold(name).into())
    }

    /// The view of a node; letter case does not matter.
    pub fn node(name: &str) -> View {
        View::Node(fold(name).into())
    }

    /// The view that answers for a topic, if one does.
    pub fn of(topic: &Topic) -> Option<View> {
        match topic {
            Topic::ServiceInstances(name) | Topic::ServiceHealth(name) => Some(View::service(name)),
            Topic::Node(name) => Some(View::node(name)),
            Topic::Services => Some(View::Names),
            _ => None,
        }
    }

    /// What changes when the view does.
    pub fn topic(&self) -> Topic {
        match self {
            View::Service(name) => Topic::ServiceHealth((&**name).into()),
            View::Node(name) => Topic::Node((&**name).into()),
            View::Names => Topic::Services,
        }
    }

    /// The name that is asked for, in lower case; of [`View::Names`] nothing.
    pub fn name(&self) -> &str {
        match self {
            View::Service(name) | View::Node(name) => name,
            View::Names => "",
        }
    }
}

/// The indexes of a topic on the server.
#[derive(Archive, Serialize, rkyv::Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Indexes {
    /// [`State::topic_index`]
    pub shown: u64,
    /// [`State::last_change`], but at least 1: what is known is told apart from what is not.
    pub changed: u64,
}

/// A [`View::Service`].
#[derive(Archive, Serialize)]
pub(super) struct ServiceBody<'a> {
    pub name: String,
    /// What this is to be put onto; 0: nothing, it holds everything.
    pub since: u64,
    pub instances: Indexes,
    pub health: Indexes,
    /// How many instances there are.
    pub count: u64,
    pub digest: u64,
    /// All instances, if some may have gone.
    pub stay: Option<Vec<Place>>,
    pub changed: Vec<InstanceBody<'a>>,
}

/// Where an instance is.
#[derive(Archive, Serialize)]
pub(super) struct Place {
    /// Folded name of its node.
    pub node: String,
    /// Its folded ID.
    pub id: String,
}

/// An instance that is new or changed.
#[derive(Archive, Serialize)]
pub(super) struct InstanceBody<'a> {
    pub place: Place,
    #[rkyv(with = Map<Inline>)]
    pub node: Option<&'a Node>,
    #[rkyv(with = Map<Inline>)]
    pub service: Option<&'a Service>,
    #[rkyv(with = Map<Inline>)]
    pub checks: Vec<&'a Check>,
    /// IDs of the node's checks, in their order.
    pub node_checks: Vec<String>,
    /// IDs of its own checks, in their order.
    pub service_checks: Vec<String>,
}

/// A [`View::Node`]. It changes seldom: everything, always.
#[derive(Archive, Serialize)]
pub(super) struct NodeBody<'a> {
    pub name: String,
    pub indexes: Indexes,
    #[rkyv(with = Map<Inline>)]
    pub node: Option<&'a Node>,
    #[rkyv(with = Map<Inline>)]
    pub services: Vec<&'a Service>,
}

/// [`View::Names`]. It changes seldom: everything, always.
#[derive(Archive, Serialize)]
pub(super) struct NamesBody {
    pub indexes: Indexes,
    /// Names as spelled, each with its tags.
    pub names: Vec<(String, Vec<String>)>,
}

impl State {
    /// What has changed of a view since `since`, which is 0 for everything, else what [`State::view_index`] said where the
    /// answer goes. Everything, too, if the two have no history in common that this state remembers.
    pub fn view_since(&self, view: &View, since: u64) -> AlignedVec<16> {
        match view {
            View::Service(name) => self.service_since(name, since),
            View::Node(name) => self.node_now(name),
            View::Names => self.names_now(),
        }
    }

    fn service_since(&self, name: &Name, since: u64) -> AlignedVec<16> {
        let health = self.indexes(&Topic::ServiceHealth((&**name).into()));
        let instances = self.indexes(&Topic::ServiceInstances((&**name).into()));
        let since = if since < self.restored_at || since > health.changed { 0 } else { since };
        let none = ServiceEntry::default();
        // What is absent now has lost all it had.
        let (entry, shrunk) = match self.services.get(name) {
            Some(entry) => (&**entry, entry.shrunk),
            None => (&none, health.changed),
        };
        let place = |(node, id): &(Name, Name)| Place { node: node.to_string(), id: id.to_string() };
        let changed = entry.instances.iter().filter(|(_, row)| since == 0 || row.changed > since);
        let body = ServiceBody {
            name: name.to_string(),
            since,
            instances,
            health,
            count: entry.instances.len() as u64,
            digest: digest(entry),
            stay: (since != 0 && since < shrunk).then(|| entry.instances.keys().map(place).collect()),
            changed: changed.map(|(key, row)| instance_since(place(key), row, since)).collect(),
        };
        rkyv::api::high::to_bytes_in::<_, rancor::Error>(&body, AlignedVec::new()).expect(PLAIN)
    }

    fn node_now(&self, name: &Name) -> AlignedVec<16> {
        let entry = self.nodes.get(name);
        let body = NodeBody {
            name: name.to_string(),
            indexes: self.indexes(&Topic::Node((&**name).into())),
            node: entry.map(|entry| &*entry.row),
            services: entry.iter().flat_map(|entry| entry.services.values()).map(|row| &**row).collect(),
        };
        rkyv::api::high::to_bytes_in::<_, rancor::Error>(&body, AlignedVec::new()).expect(PLAIN)
    }

    fn names_now(&self) -> AlignedVec<16> {
        let names = self.services().map(|(name, tags)| (name.to_owned(), tags.map(str::to_owned).collect()));
        let body = NamesBody { indexes: self.indexes(&Topic::Services), names: names.collect() };
        rkyv::api::high::to_bytes_in::<_, rancor::Error>(&body, AlignedVec::new()).expect(PLAIN)
    }

    fn indexes(&self, topic: &Topic) -> Indexes {
        Indexes { shown: self.topic_index(topic), changed: self.last_change(topic).max(1) }
    }
}

const PLAIN: &str = "rows are plain data, which always encodes into memory";

/// The rows of an instance that were written after `since`. A service row that was written since may have come from
/// anywhere with what belongs to it (another name, a node that was not there): then all of them.
fn instance_since(place: Place, row: &InstanceRow, since: u64) -> InstanceBody<'_> {
    let since = if row.service.modify_index > since { 0 } else { since };
    let is_new = |index: u64| since == 0 || index > since;
    let ids = |checks: &[std::sync::Arc<Check>]| {
        checks.iter().map(|check| fold(&check.check_id).into_owned()).collect::<Vec<_>>()
    };
    let checks = row.view().checks().map(|check| &**check);
    InstanceBody {
        place,
        node: is_new(row.node.modify_index).then_some(&*row.node),
        service: is_new(row.service.modify_index).then_some(&*row.service),
        checks: checks.filter(|check| is_new(check.modify_index)).collect(),
        node_checks: ids(&row.node_checks),
        service_checks: ids(&row.service_checks),
    }
}

/// One number for the instances of a service: equal where places, rows and their indexes are.
pub(super) fn digest(entry: &ServiceEntry) -> u64 {
    let mut hasher = Fnv::default();
    for (place, row) in &entry.instances {
        (place, row.node.modify_index, row.service.modify_index).hash(&mut hasher);
        row.node_checks.len().hash(&mut hasher);
        for check in row.view().checks() {
            (&check.check_id, check.modify_index).hash(&mut hasher);
        }
    }
    hasher.finish()
}
