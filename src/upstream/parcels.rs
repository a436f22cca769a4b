//! Bodies of the routes that only agents ask: writes to be proposed and what became of them; what the catalog holds of a node.

use bytes::Bytes;
use muster_protocol::wire::{Reader, WireError, put_bytes, put_text, put_u8, put_u32};
use rkyv::util::AlignedVec;
use rkyv::{Archive, Deserialize, Serialize, rancor};

use crate::consensus::{COMMAND_LENGTH_MAX, Encoded, ProposeError};
use crate::store::State;
use crate::store::command::Applied;
use crate::store::model::{Check, Node, Service};
use crate::store::topic::Topic;

/// Writes in one request.
pub const WRITES_MAX: usize = 1024;

/// Bytes of writes in one request; a single one may be longer.
pub const REQUEST_LENGTH_MAX: usize = 2 << 20;

/// Path of the route that proposes writes.
pub const PROPOSE: &str = "/v1/internal/rpc/propose";
/// Path of the route that tells when what the catalog holds of a node has changed last; `?node=`.
pub const STAMP: &str = "/v1/internal/rpc/stamp";
/// Path of the route that tells what the catalog holds of a node; `?node=`.
pub const NODE: &str = "/v1/internal/rpc/node";

/// What the catalog holds of a node.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
pub struct Holding {
    /// The index of the last change of any of it.
    pub stamp: u64,
    /// The node.
    pub node: Option<Node>,
    /// Its services.
    pub services: Vec<Service>,
    /// Its checks, and those of its services.
    pub checks: Vec<Check>,
}

impl Holding {
    /// What a state holds of a node.
    pub fn of(state: &State, node: &str) -> Holding {
        Holding {
            stamp: Holding::stamp_of(state, node),
            node: state.node(node).map(|row| Node::clone(row)),
            services: state.node_services(node).map(|row| Service::clone(row)).collect(),
            checks: state.node_checks(node).map(|row| Check::clone(row)).collect(),
        }
    }

    /// The index of the last change of anything that a state holds of a node.
    pub fn stamp_of(state: &State, node: &str) -> u64 {
        let [row, checks] = [Topic::Node(node.into()), Topic::NodeChecks(node.into())];
        state.last_change(&row).max(state.last_change(&checks))
    }

    /// As bytes.
    pub fn encode(&self) -> Bytes {
        let archive = rkyv::to_bytes::<rancor::Error>(self);
        Bytes::from_owner(archive.expect("rows are plain data, which always encodes into memory"))
    }

    /// From bytes that came from elsewhere.
    ///
    /// # Errors
    /// They are something else; the text says what.
    pub fn decode(bytes: &[u8]) -> Result<Holding, String> {
        let mut aligned = AlignedVec::<16>::with_capacity(bytes.len());
        aligned.extend_from_slice(bytes);
        rkyv::from_bytes::<Holding, rancor::Error>(&aligned).map_err(|error| error.to_string())
    }
}

/// Puts writes into one body.
pub fn put_writes(writes: &[Encoded]) -> Bytes {
    let mut out = Vec::new();
    put_u32(&mut out, writes.len() as u32);
    writes.iter().for_each(|write| put_bytes(&mut out, write.bytes()));
    out.into()
}

/// Takes writes out of a body, and checks that they are some.
///
/// # Errors
/// They are not; the text says why.
pub fn take_writes(body: &Bytes) -> Result<Vec<Encoded>, String> {
    let mut reader = Reader::new(body);
    let wrong = |error: WireError| error.to_string();
    let count = reader.count(WRITES_MAX, 4).map_err(wrong)?;
    let mut writes = Vec::with_capacity(count);
    for _ in 0..count {
        let bytes = reader.bytes(COMMAND_LENGTH_MAX).map_err(wrong)?;
        writes.push(Encoded::check(&body.slice_ref(bytes)).map_err(|damaged| damaged.to_string())?);
    }
    reader.end().map_err(wrong)?;
    Ok(writes)
}

/// What became of one write.
pub type Outcome = Result<Applied, ProposeError>;

const DONE: u8 = 0;
const CONDITION_MET: u8 = 1;
const CONDITION_NOT_MET: u8 = 2;
const REFUSED: u8 = 3;
const NO_LEADER: u8 = 16;
const NO_SERVERS: u8 = 17;
const LEADERSHIP_LOST: u8 = 18;
const DISK_FULL: u8 = 19;
const TOO_BUSY: u8 = 20;
const TOO_LARGE: u8 = 21;
const STOPPING: u8 = 22;

/// Puts outcomes into one body, in the order of the writes.
pub fn put_outcomes(outcomes: &[Outcome]) -> Bytes {
    let mut out = Vec::new();
    put_u32(&mut out, outcomes.len() as u32);
    for outcome in outcomes {
        let code = match outcome {
            Ok(Applied::Done) => DONE,
            Ok(Applied::Condition(true)) => CONDITION_MET,
            Ok(Applied::Condition(false)) => CONDITION_NOT_MET,
            // Agents write no transactions of their own.
            Ok(Applied::Refused(_) | Applied::Txn(_)) => REFUSED,
            Err(ProposeError::NoLeader) => NO_LEADER,
            Err(ProposeError::NoServers) => NO_SERVERS,
            Err(ProposeError::LeadershipLost) => LEADERSHIP_LOST,
            Err(ProposeError::DiskFull) => DISK_FULL,
            Err(ProposeError::TooBusy) => TOO_BUSY,
            Err(ProposeError::TooLarge { .. }) => TOO_LARGE,
            Err(ProposeError::Stopping) => STOPPING,
        };
        put_u8(&mut out, code);
        match outcome {
            Ok(Applied::Refused(why)) => put_text(&mut out, why),
            Ok(Applied::Txn(_)) => put_text(&mut out, "a transaction is not an agent's write"),
            Err(ProposeError::TooLarge { length, .. }) => {
                put_u32(&mut out, u32::try_from(*length).unwrap_or(u32::MAX));
            }
            _ => {}
        }
    }
    out.into()
}

/// Takes outcomes out of a body.
///
/// # Errors
/// It holds something else.
pub fn take_outcomes(body: &[u8]) -> Result<Vec<Outcome>, WireError> {
    let mut reader = Reader::new(body);
    let count = reader.count(WRITES_MAX, 1)?;
    let mut outcomes = Vec::with_capacity(count);
    for _ in 0..count {
        outcomes.push(match reader.u8()? {
            DONE => Ok(Applied::Done),
            CONDITION_MET => Ok(Applied::Condition(true)),
            CONDITION_NOT_MET => Ok(Applied::Condition(false)),
            REFUSED => Ok(Applied::Refused(reader.text()?)),
            NO_LEADER => Err(ProposeError::NoLeader),
            NO_SERVERS => Err(ProposeError::NoServers),
            LEADERSHIP_LOST => Err(ProposeError::LeadershipLost),
            DISK_FULL => Err(ProposeError::DiskFull),
            TOO_BUSY => Err(ProposeError::TooBusy),
            TOO_LARGE => {
                Err(ProposeError::TooLarge { length: reader.u32()? as usize, max: COMMAND_LENGTH_MAX })
            }
            STOPPING => Err(ProposeError::Stopping),
            _ => return Err(WireError::Malformed("an unknown outcome of a write")),
        });
    }
    reader.end()?;
    Ok(outcomes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::command::{Command, KvOp};
    use crate::store::model::KvEntry;

    #[test]
    fn writes_and_outcomes_survive_the_way() {
        let write = |key: &str| {
            let entry = KvEntry { key: key.into(), value: b"v".to_vec(), ..KvEntry::default() };
            Encoded::of(&Command::Kv(KvOp::Set(entry)))
        };
        let body = put_writes(&[write("a"), write("a longer key")]);
        let taken = take_writes(&body).expect("sound");
        assert_eq!(taken.len(), 2);
        assert_eq!(taken[1].bytes(), write("a longer key").bytes());
        assert!(take_writes(&body.slice(..body.len() - 1)).is_err());
        assert!(take_writes(&Bytes::from_static(b"\x01\0\0\0\x04\0\0\0abcd")).is_err());

        let outcomes: Vec<Outcome> = vec![
            Ok(Applied::Done),
            Ok(Applied::Condition(true)),
            Ok(Applied::Condition(false)),
            Ok(Applied::Refused("no".into())),
            Err(ProposeError::NoLeader),
            Err(ProposeError::NoServers),
            Err(ProposeError::LeadershipLost),
            Err(ProposeError::DiskFull),
            Err(ProposeError::TooBusy),
            Err(ProposeError::TooLarge { length: 9 << 20, max: COMMAND_LENGTH_MAX }),
            Err(ProposeError::Stopping),
        ];
        assert_eq!(take_outcomes(&put_outcomes(&outcomes)), Ok(outcomes));
        assert!(take_outcomes(b"\x01\0\0\0\xff").is_err());
    }

    #[test]
    fn holdings_survive_the_way_and_nothing_else_is_one() {
        let node = Node { node: "n".into(), address: "10.0.0.1".into(), ..Node::default() };
        let holding = Holding { stamp: 7, node: Some(node), ..Holding::default() };
        assert_eq!(Holding::decode(&holding.encode()), Ok(holding.clone()));
        assert!(Holding::decode(b"").is_err());
        assert!(Holding::decode(&holding.encode()[1..]).is_err());
    }
}
