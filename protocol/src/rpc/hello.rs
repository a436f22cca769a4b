//! How a link between two servers begins: who dials says who it is, who was dialled says the same, or why not.

use crate::entry::ServerId;
use crate::wire::{
    ClusterId, Frame, Kind, Reader, WireError, encode_frame, put_id, put_text, put_u8, put_u16,
};

/// First bytes of a link from the dialling side, so that what is not Muster is known at once.
pub const PREAMBLE: [u8; 16] = *b"Muster link\0\0\0\x01\0";

/// Version of the messages between servers that this program speaks; two servers speak the lower one of theirs.
pub const LINK_VERSION: u16 = 1;

/// The oldest version that this program still speaks.
pub const LINK_VERSION_MIN: u16 = 1;

/// Version of the hellos themselves. It stays: what is new is added behind, and skipped by those who do not know it.
const HELLO_VERSION: u8 = 1;

/// What the dialling server says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LinkHello {
    /// The latest version of messages that it speaks.
    pub version: u16,
    /// The oldest one.
    pub version_min: u16,
    /// Its cluster.
    pub cluster: ClusterId,
    /// Its datacenter.
    pub datacenter: String,
    /// Who it is.
    pub id: ServerId,
    /// Whom it means to dial.
    pub to: ServerId,
    /// Name of its node.
    pub name: String,
    /// Where it is reached itself, `ip:port`.
    pub address: String,
}

/// What the dialled server answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LinkWelcome {
    /// The version of messages to be spoken on this link.
    pub version: u16,
    /// Who it is.
    pub id: ServerId,
    /// Name of its node.
    pub name: String,
    /// Empty, or why it wants nothing of the other; the link ends then.
    pub refusal: String,
}

impl LinkHello {
    /// Appends it as a frame.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let encoded = encode_frame(out, Kind::LINK_HELLO, HELLO_VERSION, 0, |out| {
            put_u16(out, self.version);
            put_u16(out, self.version_min);
            out.extend_from_slice(&self.cluster.0);
            put_id(out, self.id);
            put_id(out, self.to);
            put_text(out, &self.datacenter);
            put_text(out, &self.name);
            put_text(out, &self.address);
        });
        encoded.expect("texts are cut to their limit, so it is short");
    }

    /// Reads it from a frame.
    ///
    /// # Errors
    /// The frame is something else.
    pub fn decode(frame: &Frame<'_>) -> Result<LinkHello, WireError> {
        let mut reader = expect(frame, Kind::LINK_HELLO)?;
        let (version, version_min) = (reader.u16()?, reader.u16()?);
        let cluster = ClusterId(reader.id()?.0);
        let (id, to) = (reader.id()?, reader.id()?);
        let (datacenter, name, address) = (reader.text()?, reader.text()?, reader.text()?);
        Ok(LinkHello { version, version_min, cluster, datacenter, id, to, name, address })
    }

    /// The version that both sides speak; `None` if there is none.
    pub fn common_version(&self) -> Option<u16> {
        let common = self.version.min(LINK_VERSION);
        (common >= self.version_min && common >= LINK_VERSION_MIN).then_some(common)
    }
}

impl LinkWelcome {
    /// Appends it as a frame.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let encoded = encode_frame(out, Kind::LINK_WELCOME, HELLO_VERSION, 0, |out| {
            put_u16(out, self.version);
            put_u8(out, 0);
            put_id(out, self.id);
            put_text(out, &self.name);
            put_text(out, &self.refusal);
        });
        encoded.expect("texts are cut to their limit, so it is short");
    }

    /// Reads it from a frame.
    ///
    /// # Errors
    /// The frame is something else.
    pub fn decode(frame: &Frame<'_>) -> Result<LinkWelcome, WireError> {
        let mut reader = expect(frame, Kind::LINK_WELCOME)?;
        let version = reader.u16()?;
        reader.u8()?;
        Ok(LinkWelcome { version, id: reader.id()?, name: reader.text()?, refusal: reader.text()? })
    }
}

/// The fields of a frame of this kind.
fn expect<'a>(frame: &'a Frame<'_>, kind: Kind) -> Result<Reader<'a>, WireError> {
    if frame.kind != kind {
        return Err(WireError::Malformed("something else was to come first"));
    }
    Ok(Reader::new(frame.payload()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::Decoder;

    fn hello() -> LinkHello {
        LinkHello {
            version: 1,
            version_min: 1,
            cluster: ClusterId([7; 16]),
            datacenter: "dc1".into(),
            id: ServerId([1; 16]),
            to: ServerId([2; 16]),
            name: "a".into(),
            address: "10.0.0.1:8300".into(),
        }
    }

    #[test]
    fn hellos_survive_their_encoding() {
        let welcome =
            LinkWelcome { version: 1, id: ServerId([2; 16]), name: "b".into(), refusal: "no".into() };
        let mut out = Vec::new();
        hello().encode(&mut out);
        welcome.encode(&mut out);
        let mut decoder = Decoder::default();
        decoder.room()[..out.len()].copy_from_slice(&out);
        decoder.filled(out.len());
        let frame = decoder.next_frame().expect("sound").expect("whole");
        assert_eq!(LinkHello::decode(&frame), Ok(hello()));
        assert!(LinkWelcome::decode(&frame).is_err());
        let frame = decoder.next_frame().expect("sound").expect("whole");
        assert_eq!(LinkWelcome::decode(&frame), Ok(welcome));
    }

    #[test]
    fn two_servers_speak_the_lower_version_of_theirs() {
        assert_eq!(hello().common_version(), Some(1));
        assert_eq!(LinkHello { version: 9, ..hello() }.common_version(), Some(1));
        assert_eq!(LinkHello { version: 9, version_min: 5, ..hello() }.common_version(), None);
        assert_eq!(LinkHello { version: 0, version_min: 0, ..hello() }.common_version(), None);
    }
}
