//! How servers tell each other whom they begin a cluster with: one frame there, one frame back. It travels on the port of gossip,
//! sealed as gossip is.

use crate::entry::Configuration;
use crate::wire::{
    ClusterId, Frame, HELLO_LENGTH_MAX, Kind, Reader, WireError, encode_frame, put_bytes, put_text, put_u8,
};

/// Version of these frames.
const VERSION: u8 = 1;

/// The first servers of a cluster: each one that takes it begins its log with it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Founding {
    /// Name of the new cluster.
    pub cluster: ClusterId,
    /// Its servers.
    pub configuration: Configuration,
}

impl Founding {
    /// Appends it as a frame.
    ///
    /// # Errors
    /// More servers than a message has room for.
    pub fn encode(&self, out: &mut Vec<u8>) -> Result<(), WireError> {
        encode_frame(out, Kind::BOOTSTRAP, VERSION, 0, |out| {
            out.extend_from_slice(&self.cluster.0);
            put_u8(out, Configuration::VERSION);
            put_bytes(out, &self.configuration.encode());
        })
    }

    /// Reads it from a frame.
    ///
    /// # Errors
    /// The frame is something else.
    pub fn decode(frame: &Frame<'_>) -> Result<Founding, WireError> {
        if frame.kind != Kind::BOOTSTRAP {
            return Err(WireError::UnknownKind(frame.kind));
        }
        let mut reader = reader(frame)?;
        let cluster = ClusterId(reader.id()?.0);
        let version = reader.u8()?;
        let archive = reader.bytes(HELLO_LENGTH_MAX)?;
        reader.end()?;
        let configuration = Configuration::decode(version, archive);
        let configuration =
            configuration.map_err(|_| WireError::Malformed("a list of servers that cannot be read"))?;
        Ok(Founding { cluster, configuration })
    }

    /// Appends the answer: empty, or why it was not taken.
    pub fn encode_answer(refusal: &str, out: &mut Vec<u8>) {
        let encoded = encode_frame(out, Kind::BOOTSTRAPPED, VERSION, 0, |out| put_text(out, refusal));
        encoded.expect("texts are cut to their limit, so it is short");
    }

    /// Reads the answer.
    ///
    /// # Errors
    /// The frame is something else.
    pub fn decode_answer(frame: &Frame<'_>) -> Result<String, WireError> {
        match frame.kind {
            Kind::BOOTSTRAPPED => reader(frame)?.text(),
            kind => Err(WireError::UnknownKind(kind)),
        }
    }
}

fn reader<'a>(frame: &'a Frame<'_>) -> Result<Reader<'a>, WireError> {
    if frame.version > VERSION {
        return Err(WireError::NewerVersion { kind: frame.kind, version: frame.version, known: VERSION });
    }
    Ok(Reader::new(frame.payload()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::entry::{Server, ServerId, Suffrage};
    use crate::wire::Decoder;

    fn framed(bytes: &[u8], look: impl FnOnce(&Frame<'_>)) {
        let mut decoder = Decoder::new(HELLO_LENGTH_MAX);
        decoder.room()[..bytes.len()].copy_from_slice(bytes);
        decoder.filled(bytes.len());
        look(&decoder.next_frame().expect("a frame").expect("all of it"));
    }

    #[test]
    fn it_is_read_back_and_nothing_else_is() {
        let server = Server {
            id: ServerId([1; 16]),
            name: "s1".into(),
            address: "10.0.0.1:8300".into(),
            suffrage: Suffrage::Voter,
        };
        let founding =
            Founding { cluster: ClusterId([7; 16]), configuration: Configuration::new(vec![server]) };
        let (mut asked, mut answered) = (Vec::new(), Vec::new());
        founding.encode(&mut asked).expect("short");
        Founding::encode_answer("no", &mut answered);
        framed(&asked, |frame| {
            assert_eq!(Founding::decode(frame), Ok(founding.clone()));
            assert!(Founding::decode_answer(frame).is_err());
        });
        framed(&answered, |frame| {
            assert_eq!(Founding::decode_answer(frame).as_deref(), Ok("no"));
            assert!(Founding::decode(frame).is_err());
        });
    }
}
