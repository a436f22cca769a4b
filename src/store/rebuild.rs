//! A state from its sections.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use imbl::{OrdMap, OrdSet, Vector};
use rkyv::Portable;
use rkyv::api::high::HighValidator;
use rkyv::bytecheck::CheckBytes;
use rkyv::rancor;
use rkyv::util::AlignedVec;
use rkyv::vec::ArchivedVec;

use super::apply::thaw;
use super::catalog::{Name, NodeEntry};
use super::coordinates::{ArchivedLocatedRow, coordinate_of};
use super::keys::{Grave, OutOfOrder};
use super::model::{AutopilotConfig, Check, KvEntry, Node, Service, Session};
use super::sections::{
    ArchivedCheckRow, ArchivedDelayRow, ArchivedGraveRow, ArchivedHead, ArchivedKeyGraveRow, ArchivedKeyRow,
    ArchivedNodeRow, ArchivedServiceCheckIndexRow, ArchivedServiceIndexRow, ArchivedServiceRow,
    ArchivedSessionHead, ArchivedSessionIndexRow, ArchivedSessionRow, Counts, SECTION_VERSION, SectionKind,
    SessionHead,
};
use super::sessions::LockDelay;
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

/// Makes a state of its sections, which come in the order in which [`State::sections`] made them. Each goes into the tables at
/// once, so that little is left to do behind the last. The bytes are checked: whatever they are, the answer is
/// a state or an error. A clone shares the tables.
#[derive(Clone, Debug, Default)]
pub struct StateBuilder {
    head: Option<Arc<HeadRow>>,
    state: State,
    came: Counts,
    service_indexes: Vector<(Name, u64, u64)>,
    service_check_indexes: Vector<(Name, u64)>,
    session_head: Option<SessionHead>,
    session_indexes: u64,
    broken: bool,
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
    autopilot: Option<Arc<AutopilotConfig>>,
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
    /// It is of a later version, or not what its kind says. No other can follow then.
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
        if self.broken {
            return Err(incomplete("one before this was damaged"));
        }
        let put = known(kind, version).and_then(|kind| self.put(kind, bytes));
        self.broken = put.is_err();
        put
    }

    fn put(&mut self, kind: SectionKind, bytes: &[u8]) -> Result<(), SectionError> {
        let number = kind as u16;
        match kind {
            SectionKind::Head => self.put_head(rows(number, bytes)?),
            SectionKind::Nodes => self.put_nodes(rows(number, bytes)?),
            SectionKind::Services => self.put_services(rows(number, bytes)?),
            SectionKind::Checks => self.put_checks(rows(number, bytes)?),
            SectionKind::ServiceIndexes => {
                let rows = rows::<ArchivedServiceIndexRow>(number, bytes)?;
                self.came.service_indexes += rows.len() as u64;
                self.service_indexes.extend(rows.iter().map(|row| {
                    let (instances, health) = (&row.instances_changed, &row.health_changed);
                    (row.name.as_str().into(), instances.to_native(), health.to_native())
                }));
                Ok(())
            }
            SectionKind::ServiceCheckIndexes => {
                let rows = rows::<ArchivedServiceCheckIndexRow>(number, bytes)?;
                self.came.service_check_indexes += rows.len() as u64;
                let rows = rows.iter().map(|row| (row.name.as_str().into(), row.changed.to_native()));
                self.service_check_indexes.extend(rows);
                Ok(())
            }
            SectionKind::Graves => self.put_graves(rows(number, bytes)?),
            SectionKind::Keys => self.put_keys(rows(number, bytes)?),
            SectionKind::KeyGraves => self.put_key_graves(rows(number, bytes)?),
            SectionKind::Coordinates => self.put_coordinates(rows(number, bytes)?),
            SectionKind::SessionHead => self.put_session_head(rows(number, bytes)?),
            SectionKind::Sessions => self.put_sessions(rows(number, bytes)?),
            SectionKind::SessionIndexes => self.put_session_indexes(rows(number, bytes)?),
            SectionKind::SessionGraves => self.put_session_graves(rows(number, bytes)?),
            SectionKind::LockDelays => self.put_delays(rows(number, bytes)?),
        }
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
            SectionKind::Coordinates => rows::<ArchivedLocatedRow>(kind, bytes).map(|rows| rows.len()),
            SectionKind::SessionHead => rows::<ArchivedSessionHead>(kind, bytes).map(|rows| rows.len()),
            SectionKind::Sessions => rows::<ArchivedSessionRow>(kind, bytes).map(|rows| rows.len()),
            SectionKind::SessionIndexes => {
                rows::<ArchivedSessionIndexRow>(kind, bytes).map(|rows| rows.len())
            }
            SectionKind::SessionGraves => rows::<ArchivedGraveRow>(kind, bytes).map(|rows| rows.len()),
            SectionKind::LockDelays => rows::<ArchivedDelayRow>(kind, bytes).map(|rows| rows.len()),
        }
    }

    /// The state that the sections hold.
    ///
    /// # Errors
    /// They are not all there, or contradict each other.
    pub fn finish(mut self) -> Result<State, SectionError> {
        let head = self.head.take().ok_or_else(|| incomplete("the first one"))?;
        if self.broken || self.came != head.counts {
            return Err(incomplete(&format!("{:?} were announced, {:?} came", head.counts, self.came)));
        }
        self.gather_instances(head.index);
        self.put_indexes()?;
        let mut state = self.state;
        let kept = state.counts();
        if kept != head.counts {
            return Err(damaged(SectionKind::Head, format!("of {:?} only {kept:?} differ", head.counts)));
        }
        let announced = self.session_head.unwrap_or_default();
        let yards = state.sessions.graveyards_mut().into_iter().zip(announced.grave_floors);
        let sessions = yards.fold(true, |fine, (graves, floor)| graves.set_floor(floor, head.index) && fine)
            && state.sessions.are_sane(head.index);
        let kept = SessionHead { indexes: self.session_indexes, ..state.session_head() };
        if announced != kept {
            return Err(incomplete(&format!("of sessions {announced:?} were announced, {kept:?} came")));
        }
        // What the tables take for granted, so that no archive, whoever made it, can stop a server later.
        let graves = state.graveyards_mut().into_iter().zip(head.grave_floors);
        let floors = graves.fold(true, |fine, (graves, floor)| graves.set_floor(floor, head.index) && fine);
        let keys = state.keys.set_floor(head.key_floor, head.index).is_ok();
        let sane = head.index <= INDEX_MAX && head.offset <= head.index && head.restored_at <= head.index;
        if !(floors && keys && sane && sessions) {
            return Err(damaged(SectionKind::Head, "its indexes contradict each other".into()));
        }
        state.index = head.index;
        state.offset = head.offset;
        state.restored_at = head.restored_at;
        state.at = head.at;
        state.autopilot = head.autopilot.clone();
        Ok(state)
    }

    /// Adds what is gathered so far to a hash.
    pub(super) fn hash_into(&self, hasher: &mut impl Hasher) {
        self.state.fingerprint().hash(hasher);
        self.came.hash(hasher);
        (&self.service_indexes, &self.service_check_indexes, self.broken).hash(hasher);
        (self.session_head, self.session_indexes).hash(hasher);
    }

    fn put_head(&mut self, rows: &ArchivedVec<ArchivedHead>) -> Result<(), SectionError> {
        let [head] = &rows[..] else { return Err(damaged(SectionKind::Head, "there is one".into())) };
        if self.head.is_some() {
            return Err(incomplete("the first one came twice"));
        }
        let counts = &head.counts;
        self.head = Some(Arc::new(HeadRow {
            index: head.index.to_native(),
            offset: head.offset.to_native(),
            restored_at: head.restored_at.to_native(),
            at: thaw(&head.at),
            key_floor: head.key_floor.to_native(),
            grave_floors: std::array::from_fn(|yard| head.grave_floors[yard].to_native()),
            autopilot: thaw::<Option<AutopilotConfig>>(&head.autopilot).map(Arc::new),
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
        }));
        Ok(())
    }

    fn put_nodes(&mut self, rows: &ArchivedVec<ArchivedNodeRow>) -> Result<(), SectionError> {
        self.came.nodes += rows.len() as u64;
        for archived in rows.iter() {
            let row: Node = thaw(&archived.row);
            let key: Name = fold(&row.node).into();
            self.state.link_node(&key, &row);
            let entry = NodeEntry {
                row: Arc::new(row),
                services: OrdMap::new(),
                checks: OrdMap::new(),
                checks_by_service: OrdSet::new(),
                own_checks: Arc::new([]),
                changed: archived.changed.to_native(),
                checks_changed: archived.checks_changed.to_native(),
            };
            self.state.nodes.insert(key, Arc::new(entry));
        }
        Ok(())
    }

    fn put_services(&mut self, rows: &ArchivedVec<ArchivedServiceRow>) -> Result<(), SectionError> {
        self.came.services += rows.len() as u64;
        let mut scratch = Touched::new();
        for archived in rows.iter() {
            let row: Service = thaw(&archived.row);
            let (node, id): (Name, Name) = (fold(&row.node).into(), fold(&row.id).into());
            if !self.state.nodes.contains_key(&node) {
                return Err(orphan(SectionKind::Services, &row.id, &row.node));
            }
            self.state.count_spelling(0, &row, &mut scratch);
            self.state.link_service_address(&node, &id, &row);
            self.state.node_mut(&node).services.insert(id, Arc::new(row));
        }
        Ok(())
    }

    fn put_checks(&mut self, rows: &ArchivedVec<ArchivedCheckRow>) -> Result<(), SectionError> {
        self.came.checks += rows.len() as u64;
        let mut scratch = Touched::new();
        for archived in rows.iter() {
            let row: Check = thaw(&archived.row);
            let (node, id): (Name, Name) = (fold(&row.node).into(), fold(&row.check_id).into());
            if !self.state.nodes.contains_key(&node) {
                return Err(orphan(SectionKind::Checks, &row.check_id, &row.node));
            }
            let row = Arc::new(row);
            self.state.link_check(0, &node, &id, &row, &mut scratch);
            self.state.node_mut(&node).checks.insert(id, row);
        }
        Ok(())
    }

    fn put_graves(&mut self, rows: &ArchivedVec<ArchivedGraveRow>) -> Result<(), SectionError> {
        self.came.graves += rows.len() as u64;
        let mut yards = self.state.graveyards_mut();
        for row in rows.iter() {
            let graves = yards.get_mut(usize::from(row.yard)).ok_or_else(|| unknown_name(&row.name))?;
            graves.bury(row.name.as_str().into(), row.index.to_native());
        }
        Ok(())
    }

    fn put_keys(&mut self, rows: &ArchivedVec<ArchivedKeyRow>) -> Result<(), SectionError> {
        self.came.keys += rows.len() as u64;
        let rows: Vec<_> = rows.iter().map(|row| Arc::new(thaw::<KvEntry>(&row.row))).collect();
        for row in &rows {
            self.state.sessions.moves(&row.key, "", &row.session);
        }
        let appended = self.state.keys.append(rows);
        appended.map_err(|OutOfOrder| damaged(SectionKind::Keys, "keys out of order".into()))
    }

    fn put_key_graves(&mut self, rows: &ArchivedVec<ArchivedKeyGraveRow>) -> Result<(), SectionError> {
        self.came.key_graves += rows.len() as u64;
        for row in rows.iter() {
            let added = self.state.keys.add_grave(grave(row));
            added.map_err(|OutOfOrder| damaged(SectionKind::KeyGraves, "a key came twice".into()))?;
        }
        Ok(())
    }

    fn put_coordinates(&mut self, rows: &ArchivedVec<ArchivedLocatedRow>) -> Result<(), SectionError> {
        let table = &mut self.state.coordinates;
        for row in rows.iter() {
            table.changed = row.changed.to_native();
            if row.node.is_empty() {
                continue;
            }
            if !self.state.nodes.contains_key(&*fold(&row.node)) {
                return Err(orphan(SectionKind::Coordinates, "coordinate", &row.node));
            }
            let parts = row.parts.each_ref().map(|part| part.to_native());
            let coordinate = coordinate_of(parts)
                .ok_or_else(|| damaged(SectionKind::Coordinates, "a place that cannot be".into()))?;
            table.set(&row.node, &row.segment, coordinate);
        }
        Ok(())
    }

    fn put_session_head(&mut self, rows: &ArchivedVec<ArchivedSessionHead>) -> Result<(), SectionError> {
        let [head] = &rows[..] else {
            return Err(damaged(SectionKind::SessionHead, "there is one".into()));
        };
        if self.session_head.is_some() {
            return Err(incomplete("that of the sessions came twice"));
        }
        let table = &mut self.state.sessions;
        (table.changed, table.led_since) = (head.changed.to_native(), head.led_since.to_native());
        self.session_head = Some(SessionHead {
            changed: table.changed,
            led_since: table.led_since,
            grave_floors: head.grave_floors.each_ref().map(|floor| floor.to_native()),
            sessions: head.sessions.to_native(),
            indexes: head.indexes.to_native(),
            graves: head.graves.to_native(),
            delays: head.delays.to_native(),
        });
        Ok(())
    }

    fn put_sessions(&mut self, rows: &ArchivedVec<ArchivedSessionRow>) -> Result<(), SectionError> {
        for archived in rows.iter() {
            let row: Session = thaw(&archived.row);
            if !self.state.nodes.contains_key(&*fold(&row.node)) {
                return Err(orphan(SectionKind::Sessions, &row.id, &row.node));
            }
            if self.state.session(&row.id).is_some() {
                return Err(damaged(SectionKind::Sessions, format!("session {} came twice", row.id)));
            }
            self.state.sessions.link(row);
        }
        Ok(())
    }

    fn put_session_indexes(
        &mut self,
        rows: &ArchivedVec<ArchivedSessionIndexRow>,
    ) -> Result<(), SectionError> {
        self.session_indexes += rows.len() as u64;
        for row in rows.iter() {
            if !self.state.sessions.set_node_index(&row.node, row.changed.to_native()) {
                return Err(unknown_name(&row.node));
            }
        }
        Ok(())
    }

    fn put_session_graves(&mut self, rows: &ArchivedVec<ArchivedGraveRow>) -> Result<(), SectionError> {
        let mut yards = self.state.sessions.graveyards_mut();
        for row in rows.iter() {
            let graves = yards.get_mut(usize::from(row.yard)).ok_or_else(|| unknown_name(&row.name))?;
            graves.bury(row.name.as_str().into(), row.index.to_native());
        }
        Ok(())
    }

    fn put_delays(&mut self, rows: &ArchivedVec<ArchivedDelayRow>) -> Result<(), SectionError> {
        for row in rows.iter() {
            let delay = LockDelay { length_ns: row.length_ns.to_native(), since: row.since.to_native() };
            self.state.sessions.delays.insert(row.key[..].into(), delay);
        }
        Ok(())
    }

    /// `index` is that of the state: nothing tells when an instance changed last.
    fn gather_instances(&mut self, index: u64) {
        let names: Vec<Name> = self.state.nodes.keys().cloned().collect();
        for name in names {
            let entry = self.state.node_mut(&name);
            let own = entry.checks_of("").into_iter().filter_map(|id| entry.checks.get(&id).cloned());
            entry.own_checks = own.collect();
            for id in self.state.service_ids(&name) {
                self.state.gather(index, &name, &id);
            }
        }
    }

    fn put_indexes(&mut self) -> Result<(), SectionError> {
        for (name, instances_changed, health_changed) in &self.service_indexes {
            let entry = self.state.services.get_mut(name).ok_or_else(|| unknown_name(name))?;
            let entry = Arc::make_mut(entry);
            (entry.instances_changed, entry.health_changed) = (*instances_changed, *health_changed);
        }
        for (name, changed) in &self.service_check_indexes {
            self.state.service_checks.get_mut(name).ok_or_else(|| unknown_name(name))?.changed = *changed;
        }
        Ok(())
    }
}

fn known(kind: u16, version: u16) -> Result<SectionKind, SectionError> {
    const KINDS: [SectionKind; 15] = [
        SectionKind::Head,
        SectionKind::Nodes,
        SectionKind::Services,
        SectionKind::Checks,
        SectionKind::ServiceIndexes,
        SectionKind::ServiceCheckIndexes,
        SectionKind::Graves,
        SectionKind::Keys,
        SectionKind::KeyGraves,
        SectionKind::Coordinates,
        SectionKind::SessionHead,
        SectionKind::Sessions,
        SectionKind::SessionIndexes,
        SectionKind::SessionGraves,
        SectionKind::LockDelays,
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
