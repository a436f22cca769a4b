//! What an agent remembers over a restart: who the members were, its clocks, its incarnation, its coordinate. So one that was told of one
//! other only finds all of them again, even when all have stopped; and what it says counts more than what it said before.
//!
//! `DATA/serf/local.snapshot` has the lines of serf's snapshot, so that of a Consul agent is read, too. Ours is
//! written as a whole, not appended to.

use std::fmt::Write;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use muster_protocol::gossip::Former;
use muster_protocol::gossip::clock::Time;
use muster_protocol::gossip::coordinate::{Coordinate, DIMENSIONS};
use serde_json::{Value, json};

use crate::runtime::fs;

/// The file within the data folder.
const FILE: &str = "serf/local.snapshot";

/// A file longer than this is not one of ours, bytes.
const LENGTH_MAX: usize = 64 << 20;

/// What is remembered.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Memory {
    /// Where the other members were.
    pub members: Vec<(String, SocketAddr)>,
    /// Clocks and coordinate.
    pub former: Former,
    /// The last incarnation.
    pub incarnation: u64,
    /// The agent left, and was not to come back by itself.
    pub left: bool,
}

/// Where it is kept; nowhere without a data folder.
pub(super) fn path(data_dir: Option<&Path>) -> Option<PathBuf> {
    data_dir.map(|folder| folder.join(FILE))
}

impl Memory {
    /// Reads a file. One that cannot be read is as good as none: others may find this agent.
    pub async fn read(path: &Path) -> Memory {
        match fs::read(path).await {
            Ok(bytes) if bytes.len() <= LENGTH_MAX => parse(&String::from_utf8_lossy(&bytes)),
            Ok(_) => Memory::default(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Memory::default(),
            Err(error) => {
                tracing::warn!("agent: the members of the last run are not known: {error}");
                Memory::default()
            }
        }
    }

    /// The rest of it.
    pub fn without_coordinate(&self) -> Memory {
        let former = Former { coordinate: None, ..self.former };
        Memory { former, ..self.clone() }
    }

    /// As the file holds it.
    pub fn text(&self) -> String {
        let mut text = String::new();
        for (name, address) in &self.members {
            // Writing to a string does not fail.
            let _ = writeln!(text, "alive: {name} {address}");
        }
        let [clock, events, queries] = self.former.clocks;
        let _ = writeln!(text, "clock: {clock}\nevent-clock: {events}\nquery-clock: {queries}");
        let _ = writeln!(text, "incarnation: {}", self.incarnation);
        if let Some(at) = &self.former.coordinate {
            let Coordinate { position, error, adjustment, height } = at;
            let at = json!({"Vec": position, "Error": error, "Adjustment": adjustment, "Height": height});
            let _ = writeln!(text, "coordinate: {at}");
        }
        if self.left {
            text.push_str("leave\n");
        }
        text
    }
}

/// Lines that say nothing are passed over; what is said later counts.
fn parse(text: &str) -> Memory {
    let mut memory = Memory::default();
    for line in text.lines() {
        let (what, rest) = line.split_once(": ").unwrap_or((line, ""));
        let number = || rest.parse().ok().map(Time);
        match what {
            "alive" => {
                let member = rest.rsplit_once(' ');
                if let Some((name, Ok(address))) = member.map(|(name, at)| (name, at.parse())) {
                    memory.members.retain(|(known, _)| known != name);
                    memory.members.push((name.to_owned(), address));
                }
                memory.left = false;
            }
            "not-alive" => memory.members.retain(|(known, _)| known != rest),
            "clock" => set(&mut memory.former.clocks[0], number()),
            "event-clock" => set(&mut memory.former.clocks[1], number()),
            "query-clock" => set(&mut memory.former.clocks[2], number()),
            "incarnation" => memory.incarnation = rest.parse().unwrap_or(0),
            "coordinate" => memory.former.coordinate = coordinate(rest),
            "leave" => {
                memory.members.clear();
                memory.left = true;
            }
            _ => {}
        }
    }
    memory
}

fn set(clock: &mut Time, read: Option<Time>) {
    *clock = read.unwrap_or(*clock);
}

fn coordinate(text: &str) -> Option<Coordinate> {
    let value: Value = serde_json::from_str(text).ok()?;
    let parts = value["Vec"].as_array().filter(|parts| parts.len() == DIMENSIONS)?;
    let mut coordinate = Coordinate::default();
    for (place, part) in coordinate.position.iter_mut().zip(parts) {
        *place = part.as_f64()?;
    }
    coordinate.error = value["Error"].as_f64()?;
    coordinate.adjustment = value["Adjustment"].as_f64()?;
    coordinate.height = value["Height"].as_f64()?;
    Some(coordinate).filter(Coordinate::is_plausible)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_kept_is_read_back() {
        let memory = Memory {
            members: vec![
                ("a b".to_owned(), "10.0.0.1:8301".parse().expect("an address")),
                ("c".to_owned(), "[::1]:8301".parse().expect("an address")),
            ],
            former: Former {
                clocks: [Time(3), Time(4), Time(5)],
                coordinate: Some(Coordinate { height: 0.25, ..Coordinate::default() }),
            },
            incarnation: 77,
            left: false,
        };
        assert_eq!(parse(&memory.text()), memory);
        let left = parse(&Memory { left: true, ..memory }.text());
        assert_eq!((left.left, left.members.len(), left.incarnation), (true, 0, 77));
    }

    #[test]
    fn a_snapshot_of_serf_is_understood() {
        let text = "alive: n1 127.0.0.1:8301\nclock: 7\nalive: n2 127.0.0.2:8301\nnot-alive: n1\nevent-clock: 9\n\
                    # nothing\nalive: n3 nowhere\ncoordinate: {\"Vec\":[1],\"Error\":1}\n";
        let memory = parse(text);
        assert_eq!(memory.members, [("n2".to_owned(), "127.0.0.2:8301".parse().expect("an address"))]);
        assert_eq!(memory.former.clocks, [Time(7), Time(9), Time(0)]);
        assert_eq!(memory.former.coordinate, None);
    }
}
