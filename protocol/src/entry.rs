//! What the replicated log is made of: entries, the servers that hold it, and the values of time that its cores are told.

use std::fmt;

use bytes::Bytes;
use rkyv::util::AlignedVec;
use rkyv::{Archive, Deserialize, Serialize, rancor};

/// Monotonic time as the deterministic cores see it: the time since an origin that their driver chose.
pub type Now = std::time::Duration;

/// Alignment of an entry's body in memory, in frames and on disk, bytes. More than any archived row needs.
pub const BODY_ALIGNMENT: usize = 16;

/// One entry of the replicated log. A clone shares the body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Term of the leader that made it.
    pub term: u64,
    /// Its place in the log; the first is 1.
    pub index: u64,
    /// What the body is.
    pub kind: EntryKind,
    /// Version of the body's format.
    pub version: u8,
    /// The bytes that its proposer made, at an address that is a multiple of [`BODY_ALIGNMENT`] unless empty.
    pub body: Bytes,
}

/// What an entry's body is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum EntryKind {
    /// Nothing: a leader's first entry of its term (Ongaro's thesis, section 6.4).
    Noop = 0,
    /// An archived command for the state machine.
    Command = 1,
    /// An archived [`Configuration`].
    Configuration = 2,
}

impl EntryKind {
    /// The kind with this number; `None` for numbers of a later version.
    pub fn of(number: u8) -> Option<EntryKind> {
        match number {
            0 => Some(EntryKind::Noop),
            1 => Some(EntryKind::Command),
            2 => Some(EntryKind::Configuration),
            _ => None,
        }
    }
}

/// Who a server is, for good: the 16 bytes of its node ID.
#[derive(Archive, Serialize, Deserialize, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[rkyv(derive(Debug, PartialEq, Eq))]
pub struct ServerId(pub [u8; 16]);

impl ServerId {
    /// Reads the 36 characters of a UUID, in either case.
    pub fn parse(text: &str) -> Option<ServerId> {
        const DASHES: [usize; 4] = [8, 13, 18, 23];
        let text = text.as_bytes();
        if text.len() != 36 || DASHES.iter().any(|place| text[*place] != b'-') {
            return None;
        }
        let mut digits = text.iter().enumerate().filter(|(place, _)| !DASHES.contains(place));
        let mut digit = || (*digits.next()?.1 as char).to_digit(16);
        let mut id = [0; 16];
        for byte in &mut id {
            *byte = (digit()? << 4 | digit()?) as u8;
        }
        Some(ServerId(id))
    }
}

impl fmt::Display for ServerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (place, byte) in self.0.iter().enumerate() {
            if matches!(place, 4 | 6 | 8 | 10) {
                f.write_str("-")?;
            }
            write!(f, "{byte:02x}")?;
        }
        Ok(())
    }
}

impl fmt::Debug for ServerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// What a server may decide.
#[derive(Archive, Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[rkyv(derive(Debug, PartialEq, Eq))]
pub enum Suffrage {
    /// Its vote and its copy count.
    Voter,
    /// It receives the log until it is fit to vote (thesis, section 4.2.1).
    Learner,
    /// It receives the log and never votes.
    NonVoter,
}

/// A server of the cluster.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
pub struct Server {
    /// Who it is.
    pub id: ServerId,
    /// Name of its node.
    pub name: String,
    /// Where other servers reach it, `ip:port`.
    pub address: String,
    /// What it may decide.
    pub suffrage: Suffrage,
}

/// The servers of a cluster, in order of their IDs.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
pub struct Configuration {
    /// Each ID once.
    pub servers: Vec<Server>,
}

impl Configuration {
    /// Version of the archive that [`Configuration::encode`] makes.
    pub const VERSION: u8 = 1;

    /// The servers of a cluster, put in order.
    pub fn new(mut servers: Vec<Server>) -> Configuration {
        servers.sort_by_key(|server| server.id);
        servers.dedup_by_key(|server| server.id);
        Configuration { servers }
    }

    /// The server with this ID.
    pub fn server(&self, id: ServerId) -> Option<&Server> {
        self.servers.binary_search_by_key(&id, |server| server.id).ok().map(|place| &self.servers[place])
    }

    /// Whether a server votes.
    pub fn is_voter(&self, id: ServerId) -> bool {
        self.server(id).is_some_and(|server| server.suffrage == Suffrage::Voter)
    }

    /// The voters, in order.
    pub fn voters(&self) -> impl Iterator<Item = ServerId> + '_ {
        self.servers.iter().filter(|server| server.suffrage == Suffrage::Voter).map(|server| server.id)
    }

    /// How many voters are a majority.
    pub fn quorum(&self) -> usize {
        self.voters().count() / 2 + 1
    }

    /// The body of an entry of kind [`EntryKind::Configuration`].
    pub fn encode(&self) -> Bytes {
        let bytes = rkyv::to_bytes::<rancor::Error>(self);
        body(bytes.expect("names and addresses are plain data, which always encodes into memory"))
    }

    /// Reads such a body.
    ///
    /// # Errors
    /// It is of another version, or damaged.
    pub fn decode(version: u8, bytes: &[u8]) -> Result<Configuration, String> {
        if version != Configuration::VERSION {
            return Err(format!("a list of servers of version {version}; this program reads version 1"));
        }
        let mut aligned = AlignedVec::<BODY_ALIGNMENT>::with_capacity(bytes.len());
        aligned.extend_from_slice(bytes);
        let read = rkyv::from_bytes::<Configuration, rancor::Error>(&aligned);
        read.map(|read| Configuration::new(read.servers))
            .map_err(|why| format!("a damaged list of servers: {why}"))
    }
}

/// The bytes of an archive as an entry's body, without a copy.
pub fn body(archive: AlignedVec<BODY_ALIGNMENT>) -> Bytes {
    Bytes::from_owner(archive)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_read_and_written_as_uuids() {
        let text = "aaaaaaaa-0000-4000-8000-00000000000f";
        let id = ServerId::parse(text).expect("a UUID");
        assert_eq!(id.to_string(), text);
        assert_eq!(ServerId::parse("AAAAAAAA-0000-4000-8000-00000000000F"), Some(id));
        for bad in ["", "aaaaaaaa-0000-4000-8000-00000000000", "aaaaaaaa-0000-4000-8000-00000000000g"] {
            assert_eq!(ServerId::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn configurations_survive_their_encoding_and_damage_is_told() {
        let server = |n: u8, suffrage| Server {
            id: ServerId([n; 16]),
            name: format!("s{n}"),
            address: format!("10.0.0.{n}:8300"),
            suffrage,
        };
        let servers =
            vec![server(3, Suffrage::Voter), server(1, Suffrage::Learner), server(2, Suffrage::Voter)];
        let configuration = Configuration::new(servers);
        assert_eq!(configuration.quorum(), 2);
        assert!(!configuration.is_voter(ServerId([1; 16])));
        let bytes = configuration.encode();
        assert_eq!(bytes.as_ptr() as usize % BODY_ALIGNMENT, 0);
        assert_eq!(Configuration::decode(1, &bytes), Ok(configuration));
        assert!(Configuration::decode(2, &bytes).is_err());
        assert!(Configuration::decode(1, &bytes[1..]).is_err());
    }
}
