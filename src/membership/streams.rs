//! Streams between agents: one message there, one message back. Gossip's frames and the beginning of a cluster share a port.
//!
//! ```text
//! 0  kind    4 bytes: MuG1, a frame of gossip, or MuF1, the first servers of a cluster
//! 4  length  u32, little-endian
//! 8  the message
//! ```

use std::net::SocketAddr;
use std::time::Duration;

use futures_lite::io::{AsyncReadExt, AsyncWriteExt};
use muster_protocol::gossip::FRAME_LENGTH_MAX;
use muster_protocol::wire::HELLO_LENGTH_MAX;

use crate::runtime::net::{Endpoint, Stream};
use crate::runtime::time;

/// What is read at once: a stranger who says that much is to come, and sends nothing, takes no more memory.
const READ_LENGTH: usize = 64 << 10;

/// What a message is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Gossip.
    Gossip,
    /// The first servers of a cluster.
    Founding,
}

impl Kind {
    fn mark(self) -> [u8; 4] {
        match self {
            Kind::Gossip => *b"MuG1",
            Kind::Founding => *b"MuF1",
        }
    }

    /// The longest message.
    fn length_max(self) -> usize {
        match self {
            Kind::Gossip => FRAME_LENGTH_MAX,
            Kind::Founding => 2 * HELLO_LENGTH_MAX,
        }
    }

    fn of(mark: &[u8]) -> Option<Kind> {
        [Kind::Gossip, Kind::Founding].into_iter().find(|kind| kind.mark() == mark)
    }
}

/// Sends a message and waits for the answer; all of it may take so long.
///
/// # Errors
/// It cannot be reached, does not answer in time, or is no Muster.
pub async fn exchange(
    to: SocketAddr,
    kind: Kind,
    message: &[u8],
    patience: Duration,
) -> Result<Vec<u8>, String> {
    let talk = async {
        let connected = Stream::connect(&Endpoint::Tcp(to), patience).await;
        let mut stream = connected.map_err(|error| dial_error(to, &error))?;
        let sent = write(&mut stream, kind, message).await;
        sent.map_err(|error| format!("write tcp {to}: {error}"))?;
        let answer = async {
            let head = read_head(&mut stream).await?;
            if head.kind != kind {
                return Err("it answers what it was not asked".to_owned());
            }
            read(&mut stream, head).await
        };
        answer.await.map_err(|why| format!("{to}: {why}"))
    };
    time::timeout(patience, talk).await.unwrap_or_else(|| Err(format!("dial tcp {to}: i/o timeout")))
}

/// Sends a message.
///
/// # Errors
/// The other side has gone.
pub async fn write(stream: &mut Stream, kind: Kind, message: &[u8]) -> std::io::Result<()> {
    assert!(message.len() <= kind.length_max(), "a message has a longest length");
    let mut out = Vec::with_capacity(8 + message.len());
    out.extend_from_slice(&kind.mark());
    out.extend_from_slice(&(message.len() as u32).to_le_bytes());
    out.extend_from_slice(message);
    stream.write_all(&out).await
}

/// What comes in front of a message.
#[derive(Clone, Copy, Debug)]
pub struct Head {
    /// What it is about.
    pub kind: Kind,
    /// How long it is.
    pub length: usize,
}

/// Waits for what comes in front of a message.
///
/// # Errors
/// There is none, or it is none of ours.
pub async fn read_head(stream: &mut Stream) -> Result<Head, String> {
    let mut head = [0; 8];
    stream.read_exact(&mut head).await.map_err(|_| "it closed the connection".to_owned())?;
    let (mark, length) = head.split_at(4);
    let kind = Kind::of(mark).ok_or("it is no agent of Muster")?;
    let length = length.first_chunk().map_or(0, |length| u32::from_le_bytes(*length) as usize);
    if length > kind.length_max() {
        return Err(format!("a message of {length} bytes, where {} are the most", kind.length_max()));
    }
    Ok(Head { kind, length })
}

/// Waits for the message itself.
///
/// # Errors
/// It is cut off.
pub async fn read(stream: &mut Stream, head: Head) -> Result<Vec<u8>, String> {
    let length = head.length;
    let mut message = Vec::new();
    while message.len() < length {
        let had = message.len();
        message.resize(length.min(had + READ_LENGTH), 0);
        let read = stream.read_exact(&mut message[had..]).await;
        read.map_err(|_| "it closed the connection within a message".to_owned())?;
    }
    Ok(message)
}

/// As Go's programs say it.
fn dial_error(to: SocketAddr, error: &std::io::Error) -> String {
    match error.kind() {
        std::io::ErrorKind::ConnectionRefused => format!("dial tcp {to}: connect: connection refused"),
        std::io::ErrorKind::TimedOut => format!("dial tcp {to}: i/o timeout"),
        _ => format!("dial tcp {to}: {error}"),
    }
}
