//! How an agent's connection to a server begins: the agent says who it is, the server says the same, or why not.

use crate::wire::{Frame, Kind, Reader, WireError, encode_frame, put_text, put_u16};

/// First bytes of an agent's connection to a server, which comes in on the same port as the links of servers.
pub const RPC_PREAMBLE: [u8; 16] = *b"Muster rpc\0\0\0\0\x01\0";

/// Version of the frames between agent and server that this program speaks; the two speak the lower one of theirs.
pub const RPC_VERSION: u16 = 1;

/// The oldest version that this program still speaks.
pub const RPC_VERSION_MIN: u16 = 1;

/// Version of the greetings themselves. It stays: what is new is added behind, and skipped by those who do not know it.
const GREETING_VERSION: u8 = 1;

/// What the agent says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RpcHello {
    /// The latest version of frames that it speaks.
    pub version: u16,
    /// The oldest one.
    pub version_min: u16,
    /// Its datacenter.
    pub datacenter: String,
    /// Name of its node.
    pub name: String,
    /// ID of its node.
    pub id: String,
}

/// What the server answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RpcWelcome {
    /// The version of frames to be spoken on this connection.
    pub version: u16,
    /// Name of the server's node.
    pub name: String,
    /// ID of the server's node.
    pub id: String,
    /// Empty, or why it wants nothing of the agent; the connection ends then.
    pub refusal: String,
}

impl RpcHello {
    /// Appends it as a frame.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let encoded = encode_frame(out, Kind::RPC_HELLO, GREETING_VERSION, 0, |out| {
            put_u16(out, self.version);
            put_u16(out, self.version_min);
            put_text(out, &self.datacenter);
            put_text(out, &self.name);
            put_text(out, &self.id);
        });
        encoded.expect("texts are cut to their limit, so it is short");
    }

    /// Reads it from a frame.
    ///
    /// # Errors
    /// The frame is something else.
    pub fn decode(frame: &Frame<'_>) -> Result<RpcHello, WireError> {
        let mut reader = expect(frame, Kind::RPC_HELLO)?;
        Ok(RpcHello {
            version: reader.u16()?,
            version_min: reader.u16()?,
            datacenter: reader.text()?,
            name: reader.text()?,
            id: reader.text()?,
        })
    }

    /// The version that both sides speak; `None` if there is none.
    pub fn common_version(&self) -> Option<u16> {
        let common = self.version.min(RPC_VERSION);
        (common >= self.version_min && common >= RPC_VERSION_MIN).then_some(common)
    }
}

impl RpcWelcome {
    /// Appends it as a frame.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let encoded = encode_frame(out, Kind::RPC_WELCOME, GREETING_VERSION, 0, |out| {
            put_u16(out, self.version);
            put_text(out, &self.name);
            put_text(out, &self.id);
            put_text(out, &self.refusal);
        });
        encoded.expect("texts are cut to their limit, so it is short");
    }

    /// Reads it from a frame.
    ///
    /// # Errors
    /// The frame is something else.
    pub fn decode(frame: &Frame<'_>) -> Result<RpcWelcome, WireError> {
        let mut reader = expect(frame, Kind::RPC_WELCOME)?;
        Ok(RpcWelcome {
            version: reader.u16()?,
            name: reader.text()?,
            id: reader.text()?,
            refusal: reader.text()?,
        })
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
    use crate::wire::{HELLO_LENGTH_MAX, split_frame};

    fn hello() -> RpcHello {
        RpcHello {
            version: 1,
            version_min: 1,
            datacenter: "dc1".into(),
            name: "web-1".into(),
            id: "9f3b".into(),
        }
    }

    #[test]
    fn greetings_survive_their_encoding() {
        let welcome = RpcWelcome { version: 1, name: "s1".into(), id: "7c".into(), refusal: "no".into() };
        let mut out = Vec::new();
        hello().encode(&mut out);
        let first = out.len();
        welcome.encode(&mut out);
        let (frame, length) = split_frame(&out, HELLO_LENGTH_MAX).expect("sound").expect("whole");
        assert_eq!(length, first);
        assert_eq!(RpcHello::decode(&frame), Ok(hello()));
        assert!(RpcWelcome::decode(&frame).is_err());
        let (frame, _) = split_frame(&out[first..], HELLO_LENGTH_MAX).expect("sound").expect("whole");
        assert_eq!(RpcWelcome::decode(&frame), Ok(welcome));
    }

    #[test]
    fn the_two_speak_the_lower_version_of_theirs() {
        assert_eq!(RpcHello { version: 9, ..hello() }.common_version(), Some(1));
        assert_eq!(RpcHello { version: 9, version_min: 5, ..hello() }.common_version(), None);
        assert_eq!(RpcHello { version: 0, version_min: 0, ..hello() }.common_version(), None);
    }
}
