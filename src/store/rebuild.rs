//! A state from its sections.

use std::fmt;
use std::sync::Arc;

use imbl::{OrdMap, OrdSet};
use rkyv::Portable;
use rkyv::api::high::HighValidator;
use rkyv::bytecheck::CheckBytes;
use rkyv::rancor;
use rkyv::util::AlignedVec;
use rkyv::vec::ArchivedVec;

use super::apply::thaw;
use super::catalog::{Name, NodeEntry};
use super::keys::{Grave, KeyTree, Place};
use super::model::{AutopilotConfig, Check, KvEntry, Node, Service};
use super::sections::{
    ArchivedCheckRow, ArchivedGraveRow, ArchivedHead, ArchivedKeyGraveRow, ArchivedKeyRow, ArchivedNodeRow,
    ArchivedServiceCheckIndexRow, ArchivedServiceIndexRow, ArchivedServiceRow, Counts, SECTION_VERSION,
    SectionKind,
};
use super::state::{State, TableIndexes};
use super::topic::fold;
use super::touched::Touched;

/// Why sections make no state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SectionError {
    /// A later program wrote it.
    Unknown {
        /// Kind of the section.
        kind: u16,
        /// Version of its format.
        version: u16,
    },
    /// It does not hold what its kind says.
    Damaged {
        /// Kind of the section.
        kind: u16,
        /// What is wrong.
        why: String,
    },
    /// Sections are missing, or one came twice.
    Incomplete {
        /// What does not add up.
        why: String,
    },
}

impl fmt::Display for SectionError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SectionError::Unknown { kind, version } => write!(
                f,
                "a section of kind {kind}, version {version}, was written by a later version of this program; \
                 upgrade this server to read it"
            ),
            SectionError::Damaged { kind, why } => write!(f, "a damaged section of kind {kind}: {why}"),
            SectionError::Incomplete { why } => write!(f, "sections are missing: {why}"),
        }
    }
}

impl std::error::Error for SectionError {}

/// Gathers the sections of a state, in the order in which [`State::sections`] made them. The bytes are checked: whatever
/// they are, the answer is a state or an error.
#[derive(Debug, Default)]
pub struct StateBuilder {
    head: Option<HeadRow>,
    nodes: Vec<(Node, u64, u64)>,
    services: Vec<Service>,
    checks: Vec<Check>,
    service_indexes: Vec<(Name, u64, u64)>,
    service_check_indexes: Vec<(Name, u64)>,
    graves: Vec<(u8, Name, u64)>,
    keys: Vec<Place>,
    key_graves: Vec<Place>,
}

/// Largest index of a state that is taken: the indexes of all writes to come must find room above it.
const INDEX_MAX: u64 = 1 << 62;

/// What [`Head`] says.
#[derive(Debug)]
struct HeadRow {
    index: u64,
    offset: u64,
    restored_at: u64,
    at: TableIndexes,
    key_floor: u64,
    grave_floors: [u64; 4],
    autopilot: Option<AutopilotConfig>,
    counts: Counts,
}

impl StateBuilder {
    /// Nothing gathered.
    pub fn new() -> StateBuilder {
        StateBuilder::default()
    }

    /// Takes the next section. Bytes that are not aligned to 16 are copied first.
    ///
    /// # Errors
    /// It is of a later version, or not what its kind says.
    pub fn section(&mut self, kind: u16, version: u16, bytes: &[u8]) -> Result<(), SectionError> {
        let copy;
        let bytes = if bytes.as_ptr().addr().is_multiple_of(16) {
            bytes
        } else {
            let mut aligned = AlignedVec::<16>::with_capacity(bytes.len());
            aligned.extend_from_slice(bytes);
            copy = aligned;
            &copy
        };
        match known(kind, version)? {
            SectionKind::Head => {
                for head in rows::<ArchivedHead>(kind, bytes)?.iter() {
                    self.take_head(head)?;
                }
            }
            SectionKind::Nodes => {
                for row in rows::<ArchivedNodeRow>(kind, bytes)?.iter() {
                    let (changed, checks) = (row.changed.to_native(), row.checks_changed.to_native());
                    self.nodes.push((thaw(&row.row), changed, checks));
                }
            }
            SectionKind::Services => {
                let rows = rows::<ArchivedServiceRow>(kind, bytes)?;
                self.services.extend(rows.iter().map(|row| thaw::<Service>(&row.row)));
            }
            SectionKind::Checks => {
                let rows = rows::<ArchivedCheckRow>(kind, bytes)?;
                self.checks.extend(rows.iter().map(|row| thaw::<Check>(&row.row)));
            }
            SectionKind::ServiceIndexes => {
                let rows = rows::<ArchivedServiceIndexRow>(kind, bytes)?;
                self.service_indexes.extend(rows.iter().map(|row| {
                    (
                        row.name.as_str().into(),
                        row.instances_changed.to_native(),
                        row.health_changed.to_native(),
                    )
                }));
            }
            SectionKind::ServiceCheckIndexes => {
                let rows = rows::<ArchivedServiceCheckIndexRow>(kind, bytes)?;
                let rows = rows.iter().map(|row| (row.name.as_str().into(), row.changed.to_native()));
                self.service_check_indexes.extend(rows);
            }
            SectionKind::Graves => {
                let rows = rows::<ArchivedGraveRow>(kind, bytes)?;
                let rows = rows.iter().map(|row| (row.yard, row.name.as_str().into(), row.index.to_native()));
                self.graves.extend(rows);
            }
            SectionKind::Keys => {
                let rows = rows::<ArchivedKeyRow>(kind, bytes)?;
                self.keys.extend(rows.iter().map(|row| Place::live(thaw::<KvEntry>(&row.row))));
            }
            SectionKind::KeyGraves => {
                let rows = rows::<ArchivedKeyGraveRow>(kind, bytes)?;
                self.key_graves.extend(rows.iter().map(|row| Place::gone(grave(row))));
            }
        }
        Ok(())
    }

    /// How many rows a section has, if [`StateBuilder::section`] would take it. The bytes are aligned to 16.
    ///
    /// # Errors
    /// See there.
    pub fn check(kind: u16, version: u16, bytes: &[u8]) -> Result<usize, SectionError> {
        match known(kind, version)? {
            SectionKind::Head => rows::<ArchivedHead>(kind, bytes).map(|rows| rows.len()),
            SectionKind::Nodes => rows::<ArchivedNodeRow>(kind, bytes).map(|rows| rows.len()),
            SectionKind::Services => rows::<ArchivedServiceRow>(kind, bytes).map(|rows| rows.len()),
            SectionKind::Checks => rows::<ArchivedCheckRow>(kind, bytes).map(|rows| rows.len()),
            SectionKind::ServiceIndexes => {
                rows::<ArchivedServiceIndexRow>(kind, bytes).map(|rows| rows.len())
            }
            SectionKind::ServiceCheckIndexes => {
                rows::<ArchivedServiceCheckIndexRow>(kind, bytes).map(|rows| rows.len())
            }
            SectionKind::Graves => rows::<ArchivedGraveRow>(kind, bytes).map(|rows| rows.len()),
            SectionKind::Keys => rows::<ArchivedKeyRow>(kind, bytes).map(|rows| rows.len()),
            SectionKind::KeyGraves => rows::<ArchivedKeyGraveRow>(kind, bytes).map(|rows| rows.len()),
        }
    }

    /// The state that the sections hold.
    ///
    /// # Errors
    /// They are not all there, or contradict each other.
    pub fn finish(mut self) -> Result<State, SectionError> {
        let head = self.head.take().ok_or_else(|| incomplete("the first one"))?;
        let came = self.counts();
        if came != head.counts {
            return Err(incomplete(&format!("{:?} were announced, {came:?} came", head.counts)));
        }
        self.check_indexes(&head)?;
        let mut state = State::new();
        let mut scratch = Touched::new();
        self.put_nodes(&mut state)?;
        self.put_services(&mut state, &mut scratch)?;
        self.put_checks(&mut state, &mut scratch)?;
        self.gather_instances(&mut state);
        self.put_indexes(&mut state)?;
        self.put_graves(&mut state, &head)?;
        self.put_keys(&mut state, &head)?;
        state.index = head.index;
        state.offset = head.offset;
        state.restored_at = head.restored_at;
        state.at = head.at;
        state.autopilot = head.autopilot.map(Arc::new);
        let kept = state.counts();
        if kept != head.counts {
            return Err(damaged(SectionKind::Head, format!("of {:?} only {kept:?} differ", head.counts)));
        }
        Ok(state)
    }

    fn counts(&self) -> Counts {
        let count = |number: usize| number as u64;
        Counts {
            nodes: count(self.nodes.len()),
            services: count(self.services.len()),
            checks: count(self.checks.len()),
            service_indexes: count(self.service_indexes.len()),
            service_check_indexes: count(self.service_check_indexes.len()),
            graves: count(self.graves.len()),
            keys: count(self.keys.len()),
            key_graves: count(self.key_graves.len()),
        }
    }

    /// What the tables take for granted of indexes, so that no archive, whoever made it, can stop a server later.
    fn check_indexes(&self, head: &HeadRow) -> Result<(), SectionError> {
        let sane = head.index <= INDEX_MAX && head.offset <= head.index && head.restored_at <= head.index;
        let floors = head.grave_floors;
        let graves = self.graves.iter().all(|(yard, _, index)| {
            floors.get(usize::from(*yard)).is_some_and(|floor| (*floor..=head.index).contains(index))
        });
        let of_keys =
            |place: &Place| place.grave_index().is_none_or(|at| (head.key_floor..=head.index).contains(&at));
        if sane && graves && self.key_graves.iter().all(of_keys) {
            return Ok(());
        }
        Err(damaged(SectionKind::Head, "its indexes contradict each other".into()))
    }

    fn take_head(&mut self, head: &ArchivedHead) -> Result<(), SectionError> {
        if self.head.is_some() {
            return Err(incomplete("the first one came twice"));
        }
        let counts = &head.counts;
        self.head = Some(HeadRow {
            index: head.index.to_native(),
            offset: head.offset.to_native(),
            restored_at: head.restored_at.to_native(),
            at: thaw(&head.at),
            key_floor: head.key_floor.to_native(),
            grave_floors: std::array::from_fn(|yard| head.grave_floors[yard].to_native()),
            autopilot: thaw(&head.autopilot),
            counts: Counts {
                nodes: counts.nodes.to_native(),
                services: counts.services.to_native(),
                checks: counts.checks.to_native(),
                service_indexes: counts.service_indexes.to_native(),
                service_check_indexes: counts.service_check_indexes.to_native(),
                graves: counts.graves.to_native(),
                keys: counts.keys.to_native(),
                key_graves: counts.key_graves.to_native(),
            },
        });
        Ok(())
    }

    fn put_nodes(&mut self, state: &mut State) -> Result<(), SectionError> {
        for (row, changed, checks_changed) in self.nodes.drain(..) {
            let key: Name = fold(&row.node).into();
            state.link_node(&key, &row);
            let entry = NodeEntry {
                row: Arc::new(row),
                services: OrdMap::new(),
                checks: OrdMap::new(),
                checks_by_service: OrdSet::new(),
                own_checks: Arc::new([]),
                changed,
                checks_changed,
            };
            state.nodes.insert(key, Arc::new(entry));
        }
        Ok(())
    }

    fn put_services(&mut self, state: &mut State, scratch: &mut Touched) -> Result<(), SectionError> {
        for row in self.services.drain(..) {
            let (node, id): (Name, Name) = (fold(&row.node).into(), fold(&row.id).into());
            if !state.nodes.contains_key(&node) {
                return Err(orphan(SectionKind::Services, &row.id, &row.node));
            }
            state.count_spelling(0, &row, scratch);
            state.link_service_address(&node, &id, &row);
            state.node_mut(&node).services.insert(id, Arc::new(row));
        }
        Ok(())
    }

    fn put_checks(&mut self, state: &mut State, scratch: &mut Touched) -> Result<(), SectionError> {
        for row in self.checks.drain(..) {
            let (node, id): (Name, Name) = (fold(&row.node).into(), fold(&row.check_id).into());
            if !state.nodes.contains_key(&node) {
                return Err(orphan(SectionKind::Checks, &row.check_id, &row.node));
            }
            let row = Arc::new(row);
            state.link_check(0, &node, &id, &row, scratch);
            state.node_mut(&node).checks.insert(id, row);
        }
        Ok(())
    }

    fn gather_instances(&self, state: &mut State) {
        let names: Vec<Name> = state.nodes.keys().cloned().collect();
        for name in names {
            let entry = state.node_mut(&name);
            let own = entry.checks_of("").into_iter().filter_map(|id| entry.checks.get(&id).cloned());
            entry.own_checks = own.collect();
            for id in state.service_ids(&name) {
                state.gather(&name, &id);
            }
        }
    }

    fn put_indexes(&mut self, state: &mut State) -> Result<(), SectionError> {
        for (name, instances_changed, health_changed) in self.service_indexes.drain(..) {
            let entry = state.services.get_mut(&name).ok_or_else(|| unknown_name(&name))?;
            let entry = Arc::make_mut(entry);
            (entry.instances_changed, entry.health_changed) = (instances_changed, health_changed);
        }
        for (name, changed) in self.service_check_indexes.drain(..) {
            state.service_checks.get_mut(&name).ok_or_else(|| unknown_name(&name))?.changed = changed;
        }
        Ok(())
    }

    fn put_graves(&mut self, state: &mut State, head: &HeadRow) -> Result<(), SectionError> {
        let mut yards = state.graveyards_mut();
        for (yard, name, index) in self.graves.drain(..) {
            let graves = yards.get_mut(usize::from(yard)).ok_or_else(|| unknown_name(&name))?;
            graves.bury(name, index);
        }
        for (graves, floor) in yards.into_iter().zip(head.grave_floors) {
            graves.set_floor(floor);
        }
        Ok(())
    }

    /// Live keys and tombstones, each in order, make one order.
    fn put_keys(&mut self, state: &mut State, head: &HeadRow) -> Result<(), SectionError> {
        let live = std::mem::take(&mut self.keys);
        let places = if self.key_graves.is_empty() { live } else { merged(live, self.key_graves.drain(..)) };
        if !places.is_sorted_by(|one, next| one.key() < next.key()) {
            return Err(damaged(SectionKind::Keys, "keys out of order".into()));
        }
        state.keys = KeyTree::of(places, head.key_floor);
        Ok(())
    }
}

fn merged(live: Vec<Place>, gone: impl Iterator<Item = Place>) -> Vec<Place> {
    let mut places = Vec::with_capacity(live.len());
    let mut live = live.into_iter().peekable();
    for grave in gone {
        while let Some(place) = live.next_if(|place| place.key() < grave.key()) {
            places.push(place);
        }
        places.push(grave);
    }
    places.extend(live);
    places
}

fn known(kind: u16, version: u16) -> Result<SectionKind, SectionError> {
    const KINDS: [SectionKind; 9] = [
        SectionKind::Head,
        SectionKind::Nodes,
        SectionKind::Services,
        SectionKind::Checks,
        SectionKind::ServiceIndexes,
        SectionKind::ServiceCheckIndexes,
        SectionKind::Graves,
        SectionKind::Keys,
        SectionKind::KeyGraves,
    ];
    let known = KINDS.into_iter().find(|known| *known as u16 == kind && version == SECTION_VERSION);
    known.ok_or(SectionError::Unknown { kind, version })
}

fn rows<R>(kind: u16, bytes: &[u8]) -> Result<&ArchivedVec<R>, SectionError>
where
    R: Portable + for<'a> CheckBytes<HighValidator<'a, rancor::Error>>,
{
    rkyv::access::<ArchivedVec<R>, rancor::Error>(bytes)
        .map_err(|why| SectionError::Damaged { kind, why: why.to_string() })
}

fn grave(row: &ArchivedKeyGraveRow) -> Grave {
    Grave {
        key: row.key[..].into(),
        own_change: row.own_change.to_native(),
        changed: row.changed.to_native(),
        shown: row.shown.to_native(),
        solid: row.solid,
    }
}

fn incomplete(why: &str) -> SectionError {
    SectionError::Incomplete { why: why.into() }
}

fn damaged(kind: SectionKind, why: String) -> SectionError {
    SectionError::Damaged { kind: kind as u16, why }
}

fn orphan(kind: SectionKind, id: &str, node: &str) -> SectionError {
    SectionError::Damaged {
        kind: kind as u16,
        why: format!("{id:?} is on node {node:?}, which is not there"),
    }
}

fn unknown_name(name: &str) -> SectionError {
    let why = format!("an index of {name:?}, which is not there");
    SectionError::Damaged { kind: SectionKind::ServiceIndexes as u16, why }
}
