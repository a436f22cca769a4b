//! Where nodes are in the space of round trips: one coordinate for each node and segment (Consul's table `coordinates`).
//! Writes for nodes that are not in the catalog are passed over, as in Consul.

use std::sync::Arc;

use imbl::OrdMap;
use muster_protocol::gossip::coordinate::Coordinate;
use rkyv::{Archive, Serialize};

use super::catalog::Name;
use super::command::{Applied, ArchivedPlace};
use super::state::State;
use super::topic::{Topic, fold};
use super::touched::Touched;

/// The table.
#[derive(Clone, Debug, Default)]
pub(super) struct Coordinates {
    /// By folded name of the node and segment.
    rows: OrdMap<(Name, Arc<str>), Arc<Located>>,
    /// Newest change.
    pub changed: u64,
}

/// A node and where it is.
#[derive(Clone, Debug, PartialEq)]
pub struct Located {
    /// Its name, as in the catalog when this was written.
    pub node: Arc<str>,
    /// The network segment in which it was measured.
    pub segment: Arc<str>,
    /// Where it is.
    pub coordinate: Coordinate,
}

/// As a snapshot holds it. The first row of a table has no node, and says when the table last changed.
#[derive(Archive, Serialize)]
pub(super) struct LocatedRow {
    pub node: String,
    pub segment: String,
    pub parts: [f64; PARTS],
    pub changed: u64,
}

/// Numbers of a coordinate: eight of the position, then error, adjustment, height.
pub const PARTS: usize = 11;

/// A coordinate as numbers.
pub fn parts_of(coordinate: &Coordinate) -> [f64; PARTS] {
    let mut parts = [0.0; PARTS];
    parts[..8].copy_from_slice(&coordinate.position);
    parts[8..].copy_from_slice(&[coordinate.error, coordinate.adjustment, coordinate.height]);
    parts
}

/// The coordinate of these numbers, unless nothing can be there.
pub(super) fn coordinate_of(parts: [f64; PARTS]) -> Option<Coordinate> {
    let [position @ .., error, adjustment, height] = parts;
    Some(Coordinate { position, error, adjustment, height }).filter(Coordinate::is_plausible)
}

impl Coordinates {
    pub(super) fn set(&mut self, node: &str, segment: &str, coordinate: Coordinate) {
        let segment: Arc<str> = segment.into();
        let row = Located { node: node.into(), segment: segment.clone(), coordinate };
        self.rows.insert((fold(node).into(), segment), Arc::new(row));
    }

    /// All rows, and the newest change, as a snapshot holds them.
    pub fn archived(&self) -> impl Iterator<Item = LocatedRow> + Send + use<> {
        let changed = self.changed;
        let head = LocatedRow { node: String::new(), segment: String::new(), parts: [0.0; PARTS], changed };
        let rows = self.rows.clone().into_iter().map(move |(_, row)| LocatedRow {
            node: row.node.to_string(),
            segment: row.segment.to_string(),
            parts: parts_of(&row.coordinate),
            changed,
        });
        // A state that never had any is written as by programs that knew none.
        (changed > 0).then_some(head).into_iter().chain(rows)
    }

    /// For comparing servers.
    pub fn hash_into(&self, hasher: &mut impl std::hash::Hasher) {
        use std::hash::Hash;
        if self.changed > 0 {
            self.changed.hash(hasher);
        }
        for ((node, segment), row) in &self.rows {
            (node, segment, &row.node, parts_of(&row.coordinate).map(f64::to_bits)).hash(hasher);
        }
    }
}

impl State {
    /// All coordinates, in order of lower-case names of nodes.
    pub fn coordinates(&self) -> impl Iterator<Item = &Arc<Located>> {
        self.coordinates.rows.values()
    }

    /// Where a node is, in each segment that knows.
    pub fn coordinates_of(&self, node: &str) -> impl Iterator<Item = &Arc<Located>> {
        let name: Name = fold(node).into();
        let from = (name.clone(), Arc::<str>::from(""));
        self.coordinates.rows.range(from..).map_while(move |((node, _), row)| (*node == name).then_some(row))
    }

    pub(super) fn apply_coordinates(
        &mut self,
        index: u64,
        places: &[ArchivedPlace],
        touched: &mut Touched,
    ) -> Applied {
        let mut changed = false;
        for place in places {
            let Some(entry) = self.nodes.get(&*fold(&place.node)) else { continue };
            let parts = place.parts.each_ref().map(|part| part.to_native());
            let Some(coordinate) = coordinate_of(parts) else { continue };
            self.coordinates.set(&entry.row.node, &place.segment, coordinate);
            changed = true;
        }
        if changed {
            self.coordinates.changed = index;
            touched.add(Topic::Coordinates);
        }
        Applied::Done
    }

    /// A node has gone.
    pub(super) fn drop_coordinates(&mut self, index: u64, node: &Name, touched: &mut Touched) {
        let gone: Vec<_> = self.coordinates_of(node).map(|row| row.segment.clone()).collect();
        for segment in &gone {
            self.coordinates.rows.remove(&(node.clone(), segment.clone()));
        }
        if !gone.is_empty() {
            self.coordinates.changed = index;
            touched.add(Topic::Coordinates);
        }
    }
}
