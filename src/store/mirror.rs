//! A partial state on a client agent: the rows of the services and nodes that were asked of it, with the indexes
//! that they have on the servers. Reads, topics and watchers work on it as on a whole one; what it does not hold
//! ([`State::holds`]) it says nothing about.
//!
//! Each view is the server's at one index, by itself: instances carry their nodes' rows and checks with them, so two
//! views never mix what a node was at different times. [`State::index`] counts the changes of the mirror itself.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use imbl::{OrdMap, OrdSet};
use rkyv::rancor;
use rkyv::util::AlignedVec;

use super::apply::thaw;
use super::catalog::{InstanceRow, Name, NodeEntry, ServiceEntry, Spelling};
use super::model::{Check, Node, Service};
use super::state::State;
use super::topic::{Topic, fold};
use super::touched::Touched;
use super::view::{
    ArchivedInstanceBody, ArchivedNamesBody, ArchivedNodeBody, ArchivedPlace, ArchivedServiceBody, Indexes,
    View, digest,
};

/// What an agent knows of its own node without any server.
#[derive(Clone, Debug, Default)]
pub struct OwnRows {
    /// Its node.
    pub node: Arc<Node>,
    /// Checks of the node.
    pub node_checks: Vec<Arc<Check>>,
    /// Its services, each with its checks.
    pub services: Vec<(Arc<Service>, Vec<Arc<Check>>)>,
}

/// Why an answer was not put into a mirror.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MirrorError {
    /// It is not what it should be.
    Damaged(String),
    /// It does not continue what is held: everything has to be asked for.
    Disjoint,
}

impl fmt::Display for MirrorError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            MirrorError::Damaged(why) => write!(f, "an answer that cannot be read: {why}"),
            MirrorError::Disjoint => f.write_str("an answer that does not continue what is held"),
        }
    }
}

impl std::error::Error for MirrorError {}

/// What a mirror holds, and the indexes of it.
#[derive(Clone, Debug, Default)]
pub(super) struct Mirrored {
    services: OrdMap<Name, ServiceIndexes>,
    nodes: OrdMap<Name, Indexes>,
    names: Option<Indexes>,
    /// Counts the clusters that it was a mirror of.
    history: u64,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct ServiceIndexes {
    instances: Indexes,
    health: Indexes,
}

/// Of what only the agent itself knows.
const ALONE: ServiceIndexes = {
    let first = Indexes { shown: 1, changed: 1 };
    ServiceIndexes { instances: first, health: first }
};

impl Mirrored {
    /// The indexes of a topic; zeros if it is none that is held.
    pub(super) fn indexes(&self, topic: &Topic) -> (u64, u64) {
        let service = |name: &str| self.services.get(&*fold(name)).copied().unwrap_or_default();
        let Indexes { shown, changed } = match topic {
            Topic::ServiceInstances(name) => service(name).instances,
            Topic::ServiceHealth(name) => service(name).health,
            Topic::Node(name) => self.nodes.get(&*fold(name)).copied().unwrap_or_default(),
            Topic::Services => self.names.unwrap_or_default(),
            _ => Indexes::default(),
        };
        (shown, changed)
    }

    fn holds(&self, view: &View) -> bool {
        match view {
            View::Service(name) => self.services.contains_key(name),
            View::Node(name) => self.nodes.contains_key(name),
            View::Names => self.names.is_some(),
        }
    }
}

impl State {
    /// An empty mirror.
    pub fn mirror() -> State {
        State { mirrored: Some(Mirrored::default()), ..State::new() }
    }

    /// Whether it is a mirror.
    pub fn is_mirror(&self) -> bool {
        self.mirrored.is_some()
    }

    /// Whether reads of a view may be answered: always, but on a mirror that lacks it.
    pub fn holds(&self, view: &View) -> bool {
        self.mirrored.as_ref().is_none_or(|mirrored| mirrored.holds(view))
    }

    /// Differs between states whose indexes have nothing to do with each other: mirrors of other clusters.
    pub fn history(&self) -> u64 {
        self.mirrored.as_ref().map_or(0, |mirrored| mirrored.history)
    }

    /// What is put into the mirror from now on is another cluster's, whose indexes may be the same by chance.
    ///
    /// # Panics
    /// This is no mirror.
    pub fn begin_history(&mut self) {
        self.mirrored.as_mut().expect(MIRROR).history += 1;
        self.index += 1;
    }

    /// The index at which a mirror holds a view, at least 1; 0 if it does not.
    pub fn view_index(&self, view: &View) -> u64 {
        self.last_change(&view.topic())
    }

    /// Whether there is anything in a view: a service without instances is as good as none.
    pub fn is_empty_view(&self, view: &View) -> bool {
        match view {
            View::Service(name) => !self.services.contains_key(name),
            View::Node(name) => !self.nodes.contains_key(name),
            View::Names => false,
        }
    }

    /// The same mirror with the rows of the agent's own node as the agent itself has them, for while no server tells: in the
    /// services that are held, and beside them. No index moves: to who waits it is news all the same, see
    /// [`State::begin_history`].
    ///
    /// # Panics
    /// This is no mirror.
    #[must_use]
    pub fn with_own(&self, own: &OwnRows, touched: &mut Touched) -> State {
        let mut state = self.clone();
        let node: Name = fold(&own.node.node).into();
        let holders: Vec<Name> = state.services.keys().cloned().collect();
        for name in holders {
            let entry = state.service_mut(&name);
            let here: Vec<_> = entry.instances.keys().filter(|(on, _)| *on == node).cloned().collect();
            here.iter().for_each(|key| {
                entry.instances.remove(key);
                touched.instances(&name);
            });
        }
        let node_checks: Arc<[Arc<Check>]> = own.node_checks.clone().into();
        for (service, checks) in &own.services {
            let name: Name = fold(&service.name).into();
            let row = InstanceRow {
                node: own.node.clone(),
                service: service.clone(),
                node_checks: node_checks.clone(),
                service_checks: checks.clone(),
                changed: 0,
            };
            let entry = Arc::make_mut(state.services.entry(name.clone()).or_default());
            entry.instances.insert((node.clone(), fold(&service.id).into()), Arc::new(row));
            state.mirrored.as_mut().expect(MIRROR).services.entry(name.clone()).or_insert(ALONE);
            touched.instances(&name);
        }
        let mirrored = state.mirrored.as_mut().expect(MIRROR);
        mirrored.nodes.entry(node.clone()).or_insert(ALONE.health);
        let services = own.services.iter().map(|(row, _)| (Name::from(fold(&row.id)), row.clone()));
        let entry = NodeEntry {
            row: own.node.clone(),
            services: services.collect(),
            checks: OrdMap::new(),
            checks_by_service: OrdSet::new(),
            own_checks: Arc::new([]),
            changed: 0,
            checks_changed: 0,
        };
        state.nodes.insert(node.clone(), Arc::new(entry));
        touched.node(&node);
        state
    }

    /// The same state as the `index`-th of those that are published, of a history of its own if `apart`.
    #[must_use]
    pub fn as_published(&self, index: u64, apart: bool) -> State {
        let mut state = self.clone();
        state.index = index;
        if let Some(mirrored) = state.mirrored.as_mut().filter(|_| apart) {
            // Mirrors count their histories from 0.
            mirrored.history = u64::MAX - index;
        }
        state
    }

    /// Puts what a server said of a view ([`State::view_since`]) into a mirror. What it changed is added to `touched`.
    ///
    /// # Errors
    /// See [`MirrorError`]; nothing has changed then.
    ///
    /// # Panics
    /// This is no mirror.
    pub fn put_view(&mut self, view: &View, bytes: &[u8], touched: &mut Touched) -> Result<(), MirrorError> {
        let mut aligned = AlignedVec::<16>::with_capacity(bytes.len());
        aligned.extend_from_slice(bytes);
        let moved = match view {
            View::Service(name) => self.put_service(name, access(&aligned)?, touched),
            View::Node(name) => self.put_node(name, access(&aligned)?, touched),
            View::Names => self.put_names(access(&aligned)?, touched),
        }?;
        self.index += u64::from(moved);
        Ok(())
    }

    /// Drops a view and its rows. Whoever asks again finds it unknown.
    ///
    /// # Panics
    /// This is no mirror.
    pub fn drop_view(&mut self, view: &View, touched: &mut Touched) {
        let mirrored = self.mirrored.as_mut().expect(MIRROR);
        let held = match view {
            View::Service(name) => {
                self.services.remove(name);
                mirrored.services.remove(name).is_some()
            }
            View::Node(name) => {
                self.nodes.remove(name);
                mirrored.nodes.remove(name).is_some()
            }
            View::Names => {
                self.spellings = OrdMap::new();
                mirrored.names.take().is_some()
            }
        };
        if held {
            touch(view, touched);
            self.index += 1;
        }
    }

    fn put_service(
        &mut self,
        name: &Name,
        body: &ArchivedServiceBody<'_>,
        touched: &mut Touched,
    ) -> Result<bool, MirrorError> {
        let held = self.mirrored.as_ref().expect(MIRROR).services.get(name).copied();
        let whole = body.since == 0;
        if *body.name != **name {
            return Err(damaged("it is about another service"));
        }
        if !whole && held.is_none_or(|held| held.health.changed != body.since) {
            return Err(MirrorError::Disjoint);
        }
        let old = self.services.get(name).map(|entry| entry.instances.clone()).unwrap_or_default();
        let mut instances = match body.stay.as_ref() {
            _ if whole => OrdMap::new(),
            None => old.clone(),
            Some(stay) => {
                let kept = stay.iter().map(key).filter_map(|key| old.get(&key).map(|row| (key, row.clone())));
                kept.collect()
            }
        };
        for changed in body.changed.iter() {
            let key = key(&changed.place);
            let before = instances.get(&key);
            let row = instance(changed, before.map(|row| &**row))?;
            instances.insert(key, Arc::new(row));
        }
        let indexes = ServiceIndexes { instances: thaw(&body.instances), health: thaw(&body.health) };
        let entry = ServiceEntry {
            instances,
            instances_changed: indexes.instances.changed,
            health_changed: indexes.health.changed,
            shrunk: indexes.health.changed,
        };
        if entry.instances.len() as u64 != body.count || digest(&entry) != body.digest {
            return Err(if whole { damaged("its digest is wrong") } else { MirrorError::Disjoint });
        }
        if entry.instances.is_empty() {
            self.services.remove(name);
        } else {
            self.services.insert(name.clone(), Arc::new(entry));
        }
        let mirrored = self.mirrored.as_mut().expect(MIRROR);
        mirrored.services.insert(name.clone(), indexes);
        let news = |of: fn(&ServiceIndexes) -> Indexes| {
            held.is_none_or(|held| whole || of(&held).changed != of(&indexes).changed)
        };
        if news(|indexes| indexes.instances) {
            touched.instances(name);
        } else if news(|indexes| indexes.health) {
            touched.health(name);
        }
        Ok(held != Some(indexes) || whole)
    }

    fn put_node(
        &mut self,
        name: &Name,
        body: &ArchivedNodeBody<'_>,
        touched: &mut Touched,
    ) -> Result<bool, MirrorError> {
        if *body.name != **name {
            return Err(damaged("it is about another node"));
        }
        let indexes: Indexes = thaw(&body.indexes);
        let mirrored = self.mirrored.as_mut().expect(MIRROR);
        let held = mirrored.nodes.insert(name.clone(), indexes);
        match body.node.as_ref() {
            None => {
                self.nodes.remove(name);
            }
            Some(row) => {
                let services = body.services.iter().map(|archived| {
                    let row: Service = thaw(archived);
                    (Name::from(fold(&row.id)), Arc::new(row))
                });
                let entry = NodeEntry {
                    row: Arc::new(thaw::<Node>(row)),
                    services: services.collect(),
                    checks: OrdMap::new(),
                    checks_by_service: OrdSet::new(),
                    own_checks: Arc::new([]),
                    changed: indexes.changed,
                    checks_changed: 0,
                };
                self.nodes.insert(name.clone(), Arc::new(entry));
            }
        }
        // An answer to a question that waited in vain brings nothing new.
        let moved = held.is_none_or(|held| held.changed != indexes.changed);
        if moved {
            touched.node(name);
        }
        Ok(moved || held != Some(indexes))
    }

    fn put_names(&mut self, body: &ArchivedNamesBody, touched: &mut Touched) -> Result<bool, MirrorError> {
        let names = body.names.iter().map(|pair| {
            let tags = pair.1.iter().map(|tag| (Arc::from(tag.as_str()), 1usize)).collect();
            (Arc::from(pair.0.as_str()), Spelling { instances: 1, tags })
        });
        self.spellings = names.collect();
        let indexes: Indexes = thaw(&body.indexes);
        let held = self.mirrored.as_mut().expect(MIRROR).names.replace(indexes);
        let moved = held.is_none_or(|held| held.changed != indexes.changed);
        if moved {
            touched.services();
        }
        Ok(moved || held != Some(indexes))
    }
}

const MIRROR: &str = "only mirrors are given views";

fn access<T>(bytes: &[u8]) -> Result<&T, MirrorError>
where
    T: rkyv::Portable
        + for<'a> rkyv::bytecheck::CheckBytes<rkyv::api::high::HighValidator<'a, rancor::Error>>,
{
    rkyv::access::<T, rancor::Error>(bytes).map_err(|why| MirrorError::Damaged(why.to_string()))
}

fn damaged(why: &str) -> MirrorError {
    MirrorError::Damaged(why.to_owned())
}

fn key(place: &ArchivedPlace) -> (Name, Name) {
    (place.node.as_str().into(), place.id.as_str().into())
}

fn touch(view: &View, touched: &mut Touched) {
    match view {
        View::Service(name) => touched.instances(name),
        View::Node(name) => touched.node(name),
        View::Names => touched.services(),
    }
}

/// An instance from what was told of it and what was held of it before.
fn instance(
    body: &ArchivedInstanceBody<'_>,
    before: Option<&InstanceRow>,
) -> Result<InstanceRow, MirrorError> {
    let mut told: BTreeMap<Name, Arc<Check>> = BTreeMap::new();
    for check in body.checks.iter() {
        let row: Check = thaw(check);
        told.insert(fold(&row.check_id).into(), Arc::new(row));
    }
    let known = before.into_iter().flat_map(|row| row.view().checks());
    let known: BTreeMap<Name, &Arc<Check>> =
        known.map(|check| (fold(&check.check_id).into(), check)).collect();
    let find =
        |id: &str| told.get(id).or_else(|| known.get(id).copied()).cloned().ok_or(MirrorError::Disjoint);
    let node_checks = body.node_checks.iter().map(|id| find(id)).collect::<Result<Vec<_>, _>>()?;
    let service_checks = body.service_checks.iter().map(|id| find(id)).collect::<Result<Vec<_>, _>>()?;
    let node = match body.node.as_ref() {
        Some(row) => Arc::new(thaw::<Node>(row)),
        None => before.ok_or(MirrorError::Disjoint)?.node.clone(),
    };
    let service = match body.service.as_ref() {
        Some(row) => Arc::new(thaw::<Service>(row)),
        None => before.ok_or(MirrorError::Disjoint)?.service.clone(),
    };
    Ok(InstanceRow { node, service, node_checks: node_checks.into(), service_checks, changed: 0 })
}
