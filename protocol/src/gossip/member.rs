//! Members of a pool, as others see them.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use crate::entry::Now;
pub use crate::entry::ServerId as NodeId;

use super::settings::TAGS_LENGTH_MAX;

/// One member. A clone shares name and tags.
#[derive(Clone, Debug, PartialEq)]
pub struct Member {
    /// Unique in the pool.
    pub name: Arc<str>,
    /// Who it is, for good.
    pub id: NodeId,
    /// Where it is reached, for packets and for streams.
    pub address: SocketAddr,
    /// What else it says of itself.
    pub tags: Tags,
    /// Counts what it says of itself: only the member moves it up.
    pub incarnation: u64,
    /// What this agent takes it for.
    pub status: Status,
    /// Since when.
    pub since: Now,
    /// Versions of this protocol that it speaks.
    pub versions: Versions,
    /// When it last answered a probe of this agent.
    pub last_ack: Option<Now>,
    /// How long that answer took.
    pub last_rtt: Option<Duration>,
}

impl Member {
    /// Whether it takes part: it is probed, and gets news.
    pub fn is_live(&self) -> bool {
        self.status.is_live()
    }
}

/// What an agent takes a member for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Status {
    /// It answers, or nobody has said otherwise.
    Alive = 1,
    /// Somebody got no answer; it has time to contradict.
    Suspect = 2,
    /// It has said that it is about to leave, or an operator has; if it is silent now, it has left.
    Leaving = 3,
    /// It left by its own will, or an operator has said so after it failed.
    Left = 4,
    /// It was suspected, and did not contradict in time.
    Failed = 5,
}

impl Status {
    /// Whether a member takes part: it is probed, and gets news.
    pub fn is_live(self) -> bool {
        matches!(self, Status::Alive | Status::Suspect | Status::Leaving)
    }
}

/// As Consul's API and command line write it; a suspect is shown as alive there, since it counts as that.
impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Status::Alive | Status::Suspect => "alive",
            Status::Leaving => "leaving",
            Status::Left => "left",
            Status::Failed => "failed",
        })
    }
}

/// Versions of this protocol that a member speaks. `min <= current <= max`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Versions {
    /// The oldest.
    pub min: u8,
    /// The newest.
    pub max: u8,
    /// What it speaks now.
    pub current: u8,
}

impl Versions {
    /// What this program speaks.
    pub const OWN: Versions = Versions { min: 1, max: 1, current: 1 };

    /// The newest version that both speak.
    pub fn common(self, other: Versions) -> Option<u8> {
        Some(self.max.min(other.max)).filter(|version| *version >= self.min.max(other.min))
    }
}

/// Names and values that a member says of itself: role, datacenter, ports and so on. Kept as they travel, so that what is heard again is
/// compared as bytes: for each tag in order of names, the name's length (one byte), the name, the value's length (two bytes,
/// little-endian), the value. At most [`TAGS_LENGTH_MAX`] bytes.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Tags(Arc<[u8]>);

/// Tags that lie in a packet.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct TagsView<'a>(&'a [u8]);

impl Tags {
    /// Encodes tags; the last of the same name counts.
    ///
    /// # Errors
    /// They are longer than [`TAGS_LENGTH_MAX`] bytes, encoded: by how much.
    pub fn new<'a>(tags: impl IntoIterator<Item = (&'a str, &'a str)>) -> Result<Tags, TagsTooLong> {
        let sorted: std::collections::BTreeMap<&str, &str> = tags.into_iter().collect();
        let length = sorted.iter().map(|(name, value)| 3 + name.len() + value.len()).sum();
        let too_long = TagsTooLong { length };
        let mut bytes = Vec::with_capacity(length);
        if length > TAGS_LENGTH_MAX {
            return Err(too_long);
        }
        for (name, value) in sorted {
            bytes.push(u8::try_from(name.len()).map_err(|_| too_long)?);
            bytes.extend_from_slice(name.as_bytes());
            bytes.extend_from_slice(&(value.len() as u16).to_le_bytes());
            bytes.extend_from_slice(value.as_bytes());
        }
        Ok(Tags(bytes.into()))
    }

    /// To look at.
    pub fn view(&self) -> TagsView<'_> {
        TagsView(&self.0)
    }

    /// The value of a tag.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.view().get(name)
    }

    /// All, in order of their names.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.view().iter()
    }
}

impl fmt::Debug for Tags {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.iter()).finish()
    }
}

impl<'a> TagsView<'a> {
    /// Believes bytes only when [`Tags::new`] could have made them.
    pub fn read(bytes: &'a [u8]) -> Option<TagsView<'a>> {
        let (mut rest, mut last) = (bytes, None);
        while !rest.is_empty() {
            let (name, _, after) = split_tag(rest)?;
            if last.is_some_and(|last| last >= name) {
                return None;
            }
            (rest, last) = (after, Some(name));
        }
        Some(TagsView(bytes)).filter(|_| bytes.len() <= TAGS_LENGTH_MAX)
    }

    /// As they travel.
    pub fn bytes(self) -> &'a [u8] {
        self.0
    }

    /// The value of a tag.
    pub fn get(self, name: &str) -> Option<&'a str> {
        self.iter().find(|(other, _)| *other == name).map(|(_, value)| value)
    }

    /// All, in order of their names.
    pub fn iter(self) -> impl Iterator<Item = (&'a str, &'a str)> {
        let mut rest = self.0;
        std::iter::from_fn(move || {
            let (name, value, after) = split_tag(rest)?;
            rest = after;
            Some((name, value))
        })
    }

    /// To keep.
    pub fn to_owned(self) -> Tags {
        Tags(self.0.into())
    }
}

impl fmt::Debug for TagsView<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.iter()).finish()
    }
}

fn split_tag(bytes: &[u8]) -> Option<(&str, &str, &[u8])> {
    let (length, rest) = bytes.split_first()?;
    let (name, rest) = rest.split_at_checked(usize::from(*length))?;
    let (length, rest) = rest.split_first_chunk()?;
    let (value, rest) = rest.split_at_checked(usize::from(u16::from_le_bytes(*length)))?;
    Some((std::str::from_utf8(name).ok()?, std::str::from_utf8(value).ok()?, rest))
}

/// Tags that do not fit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TagsTooLong {
    /// Their length, encoded, bytes.
    pub length: usize,
}

impl fmt::Display for TagsTooLong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "tags of {} bytes, where {TAGS_LENGTH_MAX} fit: shorten or remove some", self.length)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_are_sorted_and_read_back() {
        let tags = Tags::new([("role", "consul"), ("dc", "dc1"), ("role", "node")]).expect("short");
        assert_eq!(tags.iter().collect::<Vec<_>>(), [("dc", "dc1"), ("role", "node")]);
        assert_eq!(tags.get("role"), Some("node"));
        assert_eq!(tags.get("none"), None);
        assert_eq!(TagsView::read(tags.view().bytes()), Some(tags.view()));
    }

    #[test]
    fn tags_of_another_order_or_too_long_are_not_believed() {
        let long = "x".repeat(TAGS_LENGTH_MAX);
        assert_eq!(Tags::new([("a", long.as_str())]), Err(TagsTooLong { length: TAGS_LENGTH_MAX + 4 }));
        let fits = "x".repeat(TAGS_LENGTH_MAX - 4);
        assert!(Tags::new([("a", fits.as_str())]).is_ok());
        for bytes in
            [&b"\x01b\x00\x00\x01a\x00\x00"[..], b"\x01a\x00\x00\x01a\x00\x00", b"\x02a", b"\x01\xff\x00\x00"]
        {
            assert_eq!(TagsView::read(bytes), None, "{bytes:?}");
        }
    }

    #[test]
    fn the_newest_common_version_is_spoken() {
        let versions = |min, max| Versions { min, max, current: max };
        assert_eq!(versions(1, 3).common(versions(2, 5)), Some(3));
        assert_eq!(versions(1, 1).common(versions(2, 5)), None);
    }
}
