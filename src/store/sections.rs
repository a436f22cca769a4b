//! The state as sections: archives of rows, small enough to be written, checked and sent one by one. A snapshot of
//! the log's is made of them, and so is an archive for the operator.
//!
//! What follows from the rows (maps by other keys, gathered instances, counts of tags) is not written but made again by
//! [`super::StateBuilder`]; all that does not is: every index, the memory of deletions, the offset between the
//! log's index and ours. What a restore has gathered is not part of a state's sections.

use std::sync::Arc;

use rkyv::api::high::HighSerializer;
use rkyv::rancor;
use rkyv::ser::allocator::ArenaHandle;
use rkyv::util::AlignedVec;
use rkyv::with::Inline;
use rkyv::{Archive, Serialize};

use super::catalog::NodeEntry;
use super::coordinates::{LocatedRow, PARTS};
use super::limits::SECTION_LENGTH;
use super::model::{AutopilotConfig, Check, KvEntry, Node, Service, Session};
use super::state::{State, TableIndexes};

/// Some rows of one table, as bytes.
#[derive(Clone, Debug)]
pub struct Section {
    /// Which table.
    pub kind: u16,
    /// Version of the rows' format.
    pub version: u16,
    /// An archive of the rows; about [`SECTION_LENGTH`] bytes unless one row takes more.
    pub bytes: AlignedVec<16>,
}

impl Section {
    /// Name of the table, for people.
    pub fn table(&self) -> &'static str {
        const NAMES: [&str; 15] = [
            "Head",
            "Nodes",
            "Services",
            "Checks",
            "ServiceIndexes",
            "CheckIndexes",
            "Tombstones",
            "KVS",
            "KVSTombstones",
            "Coordinates",
            "SessionHead",
            "Sessions",
            "SessionIndexes",
            "SessionTombstones",
            "LockDelays",
        ];
        let place = usize::from(self.kind).checked_sub(SectionKind::Head as usize);
        place.and_then(|place| NAMES.get(place)).copied().unwrap_or("Unknown")
    }
}

/// Version of all kinds of sections that this program writes. Of each older one it keeps a reader.
pub(super) const SECTION_VERSION: u16 = 1;

/// What the rows of a section are. The numbers are on disks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u16)]
pub(super) enum SectionKind {
    /// One [`Head`]; the first section.
    Head = 1,
    Nodes = 2,
    Services = 3,
    Checks = 4,
    ServiceIndexes = 5,
    ServiceCheckIndexes = 6,
    /// Names that are gone, of all four graveyards.
    Graves = 7,
    /// Live keys, in order.
    Keys = 8,
    /// Tombstones of keys, in order.
    KeyGraves = 9,
    /// Where nodes are; only if that was ever known.
    Coordinates = 10,
    /// One [`SessionHead`], before all others of sessions; only if there ever was one.
    SessionHead = 11,
    Sessions = 12,
    /// Newest change of each node's sessions.
    SessionIndexes = 13,
    /// Sessions and nodes of sessions that are gone.
    SessionGraves = 14,
    LockDelays = 15,
}

/// What there is once.
#[derive(Archive, Serialize)]
pub(super) struct Head {
    pub index: u64,
    pub offset: u64,
    pub restored_at: u64,
    pub at: TableIndexes,
    pub key_floor: u64,
    pub grave_floors: [u64; 4],
    pub autopilot: Option<AutopilotConfig>,
    pub counts: Counts,
}

/// How many rows the other sections hold together.
#[derive(Archive, Serialize, Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[rkyv(derive(Debug))]
pub(super) struct Counts {
    pub nodes: u64,
    pub services: u64,
    pub checks: u64,
    pub service_indexes: u64,
    pub service_check_indexes: u64,
    pub graves: u64,
    pub keys: u64,
    pub key_graves: u64,
}

/// What there is once of sessions. The counts are of the other sections' rows.
#[derive(Archive, Serialize, Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct SessionHead {
    pub changed: u64,
    pub led_since: u64,
    pub grave_floors: [u64; 2],
    pub sessions: u64,
    pub indexes: u64,
    pub graves: u64,
    pub delays: u64,
}

#[derive(Archive, Serialize)]
pub(super) struct SessionRow<'a> {
    #[rkyv(with = Inline)]
    pub row: &'a Session,
}

#[derive(Archive, Serialize)]
pub(super) struct SessionIndexRow {
    pub node: String,
    pub changed: u64,
}

#[derive(Archive, Serialize)]
pub(super) struct DelayRow {
    pub key: Vec<u8>,
    pub length_ns: i64,
    pub since: u64,
}

#[derive(Archive, Serialize)]
pub(super) struct NodeRow<'a> {
    #[rkyv(with = Inline)]
    pub row: &'a Node,
    pub changed: u64,
    pub checks_changed: u64,
}

#[derive(Archive, Serialize)]
pub(super) struct ServiceRow<'a> {
    #[rkyv(with = Inline)]
    pub row: &'a Service,
}

#[derive(Archive, Serialize)]
pub(super) struct CheckRow<'a> {
    #[rkyv(with = Inline)]
    pub row: &'a Check,
}

#[derive(Archive, Serialize)]
pub(super) struct ServiceIndexRow {
    pub name: String,
    pub instances_changed: u64,
    pub health_changed: u64,
}

#[derive(Archive, Serialize)]
pub(super) struct ServiceCheckIndexRow {
    pub name: String,
    pub changed: u64,
}

#[derive(Archive, Serialize)]
pub(super) struct GraveRow {
    /// Place of the graveyard in [`State::graveyards`].
    pub yard: u8,
    pub name: String,
    pub index: u64,
}

#[derive(Archive, Serialize)]
pub(super) struct KeyRow<'a> {
    #[rkyv(with = Inline)]
    pub row: &'a KvEntry,
}

#[derive(Archive, Serialize)]
pub(super) struct KeyGraveRow {
    pub key: Vec<u8>,
    pub own_change: u64,
    pub changed: u64,
    pub shown: u64,
    pub solid: bool,
}

impl State {
    /// All tables, as sections in a fixed order. The same state makes the same bytes. The iterator holds this state by
    /// itself and makes one section at a time.
    pub fn sections(&self) -> impl Iterator<Item = Section> + Send + use<> {
        self.head_section()
            .chain(self.catalog_sections())
            .chain(self.name_sections())
            .chain(self.key_sections())
            .chain(self.coordinate_sections())
            .chain(self.session_sections())
    }

    fn head_section(&self) -> impl Iterator<Item = Section> + Send + use<> {
        let head = Head {
            index: self.index,
            offset: self.offset,
            restored_at: self.restored_at,
            at: self.at,
            key_floor: self.keys.floor(),
            grave_floors: self.graveyards().map(|yard| yard.floor()),
            autopilot: self.autopilot.as_deref().cloned(),
            counts: self.counts(),
        };
        sections(SectionKind::Head, std::iter::once(head), |_| 0, archive)
    }

    fn catalog_sections(&self) -> impl Iterator<Item = Section> + Send + use<> {
        let nodes = self.nodes.clone();
        let entries = move || nodes.clone().into_iter().map(|(_, entry)| entry);
        let services = entries().flat_map(|entry| entry.services.clone()).map(|(_, row)| row);
        let checks = entries().flat_map(|entry| entry.checks.clone()).map(|(_, row)| row);
        let nodes = sections(
            SectionKind::Nodes,
            entries(),
            |entry| node_length(&entry.row),
            |rows| archive(&rows.iter().map(node_row).collect::<Vec<_>>()),
        );
        let services = sections(
            SectionKind::Services,
            services,
            |row| service_length(row),
            |rows| archive(&rows.iter().map(|row| ServiceRow { row }).collect::<Vec<_>>()),
        );
        let checks = sections(
            SectionKind::Checks,
            checks,
            |row| check_length(row),
            |rows| archive(&rows.iter().map(|row| CheckRow { row }).collect::<Vec<_>>()),
        );
        nodes.chain(services).chain(checks)
    }

    fn name_sections(&self) -> impl Iterator<Item = Section> + Send + use<> {
        let services = self.services.clone().into_iter().map(|(name, entry)| ServiceIndexRow {
            name: name.to_string(),
            instances_changed: entry.instances_changed,
            health_changed: entry.health_changed,
        });
        let checks = self
            .service_checks
            .clone()
            .into_iter()
            .map(|(name, list)| ServiceCheckIndexRow { name: name.to_string(), changed: list.changed });
        let yards = (0u8..).zip(self.graveyards().map(|graves| graves.clone().into_rows()));
        let graves = yards.flat_map(|(yard, graves)| {
            graves.map(move |(name, index)| GraveRow { yard, name: name.to_string(), index })
        });
        sections(SectionKind::ServiceIndexes, services, |row| row.name.len(), archive)
            .chain(sections(SectionKind::ServiceCheckIndexes, checks, |row| row.name.len(), archive))
            .chain(sections(SectionKind::Graves, graves, |row| row.name.len(), archive))
    }

    fn key_sections(&self) -> impl Iterator<Item = Section> + Send + use<> {
        let graves = self.keys.graves().map(|grave| KeyGraveRow {
            key: grave.key.to_vec(),
            own_change: grave.own_change,
            changed: grave.changed,
            shown: grave.shown,
            solid: grave.solid,
        });
        let live = sections(
            SectionKind::Keys,
            self.keys.rows(),
            |row| row.key.len() + row.value.len() + row.session.len(),
            |rows| archive(&rows.iter().map(|row| KeyRow { row }).collect::<Vec<_>>()),
        );
        live.chain(sections(SectionKind::KeyGraves, graves, |grave| grave.key.len(), archive))
    }

    fn coordinate_sections(&self) -> impl Iterator<Item = Section> + Send + use<> {
        let length = |row: &LocatedRow| row.node.len() + row.segment.len() + 8 * PARTS;
        sections(SectionKind::Coordinates, self.coordinates.archived(), length, archive)
    }

    fn session_sections(&self) -> impl Iterator<Item = Section> + Send + use<> {
        let table = &self.sessions;
        let head = (!table.is_untouched()).then(|| self.session_head());
        let rows = table.rows.clone().into_iter().map(|(_, row)| row);
        let indexes =
            table.node_indexes().map(|(node, changed)| SessionIndexRow { node: node.to_string(), changed });
        let yards = (0u8..).zip(table.graveyards().map(|graves| graves.clone().into_rows()));
        let graves = yards.flat_map(|(yard, graves)| {
            graves.map(move |(name, index)| GraveRow { yard, name: name.to_string(), index })
        });
        let delays = table.delays.clone().into_iter().map(|(key, delay)| DelayRow {
            key: key.to_vec(),
            length_ns: delay.length_ns,
            since: delay.since,
        });
        let rows = sections(
            SectionKind::Sessions,
            rows,
            |row| session_length(row),
            |rows| archive(&rows.iter().map(|row| SessionRow { row }).collect::<Vec<_>>()),
        );
        sections(SectionKind::SessionHead, head.into_iter(), |_| 0, archive)
            .chain(rows)
            .chain(sections(SectionKind::SessionIndexes, indexes, |row| row.node.len(), archive))
            .chain(sections(SectionKind::SessionGraves, graves, |row| row.name.len(), archive))
            .chain(sections(SectionKind::LockDelays, delays, |row| row.key.len(), archive))
    }

    pub(super) fn session_head(&self) -> SessionHead {
        let table = &self.sessions;
        SessionHead {
            changed: table.changed,
            led_since: table.led_since,
            grave_floors: table.graveyards().map(|yard| yard.floor()),
            sessions: table.rows.len() as u64,
            indexes: table.nodes_len() as u64,
            graves: table.graveyards().map(|yard| yard.len() as u64).iter().sum(),
            delays: table.delays.len() as u64,
        }
    }

    pub(super) fn counts(&self) -> Counts {
        let count = |number: usize| number as u64;
        Counts {
            nodes: count(self.nodes.len()),
            services: count(self.nodes.values().map(|entry| entry.services.len()).sum()),
            checks: count(self.nodes.values().map(|entry| entry.checks.len()).sum()),
            service_indexes: count(self.services.len()),
            service_check_indexes: count(self.service_checks.len()),
            graves: count(self.graveyards().map(|yard| yard.len()).iter().sum()),
            keys: count(self.keys.len()),
            key_graves: count(self.keys.graves_len()),
        }
    }
}

/// Closes a section when its rows are estimated (`length`: what a row has on the heap) to fill it.
fn sections<R: Send>(
    kind: SectionKind,
    mut rows: impl Iterator<Item = R> + Send,
    length: fn(&R) -> usize,
    archive: fn(&Vec<R>) -> AlignedVec<16>,
) -> impl Iterator<Item = Section> + Send {
    std::iter::from_fn(move || {
        let mut some = Vec::new();
        let mut bytes = 0;
        while bytes < SECTION_LENGTH {
            let Some(row) = rows.next() else { break };
            bytes += ROW_LENGTH + length(&row);
            some.push(row);
        }
        let full = !some.is_empty();
        full.then(|| Section { kind: kind as u16, version: SECTION_VERSION, bytes: archive(&some) })
    })
}

/// What a row takes beside its texts, about, bytes.
const ROW_LENGTH: usize = 64;

fn archive<R>(rows: &Vec<R>) -> AlignedVec<16>
where
    R: for<'a> Serialize<HighSerializer<AlignedVec<16>, ArenaHandle<'a>, rancor::Error>>,
{
    let bytes = AlignedVec::with_capacity(SECTION_LENGTH + SECTION_LENGTH / 8);
    rkyv::api::high::to_bytes_in::<_, rancor::Error>(rows, bytes)
        .expect("rows are plain data, which always encodes into memory")
}

fn node_row(entry: &Arc<NodeEntry>) -> NodeRow<'_> {
    NodeRow { row: &entry.row, changed: entry.changed, checks_changed: entry.checks_changed }
}

fn node_length(row: &Node) -> usize {
    let maps = [&row.tagged_addresses, &row.meta].into_iter().flatten().flatten();
    row.node.len() + row.address.len() + maps.map(|(key, value)| key.len() + value.len() + 16).sum::<usize>()
}

fn service_length(row: &Service) -> usize {
    let meta = row.meta.iter().flatten().map(|(key, value)| key.len() + value.len() + 16).sum::<usize>();
    let tags = row.tags.iter().map(|tag| tag.len() + 8).sum::<usize>();
    row.node.len() + row.id.len() + row.name.len() + meta + tags
}

fn check_length(row: &Check) -> usize {
    let tags = row.service_tags.iter().map(|tag| tag.len() + 8).sum::<usize>();
    let definition = row.definition.http.len() + row.definition.body.len();
    row.node.len() + row.name.len() + row.output.len() + row.notes.len() + tags + definition
}

fn session_length(row: &Session) -> usize {
    row.id.len() + row.name.len() + row.node.len() + row.check_ids().map(|id| id.len() + 16).sum::<usize>()
}
