//! What members say to each other. Messages that were received borrow from the packet that they lie in.

use std::net::SocketAddr;

use super::member::{NodeId, Status, TagsView, Versions};

/// One message. Several travel in a packet.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Message<'a> {
    /// Are you there?
    Ping(Ping<'a>),
    /// Ask another whether it is there (SWIM, 3.1).
    PingRequest(PingRequest<'a>),
    /// The answer to a ping, or to a request for one.
    Ack(Ack<'a>),
    /// Whom was asked to ask has got no answer so far, but is there itself (Lifeguard, IV-A).
    Nack {
        /// As in the request.
        token: u32,
    },
    /// A member is there, and says this of itself.
    Alive(Alive<'a>),
    /// A member does not answer.
    Suspect(Suspect<'a>),
    /// A member has failed, or left.
    Dead(Dead<'a>),
    /// A member is about to leave, or has joined again.
    Intent(Intent<'a>),
}

/// Are you there?
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Ping<'a> {
    /// Chosen by the sender.
    pub token: u32,
    /// Who is meant: an address may have another owner now, who does not answer for it.
    pub to: &'a str,
    /// Who asks. The answer goes where the packet came from.
    pub from: &'a str,
}

/// Ask another whether it is there.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PingRequest<'a> {
    /// Chosen by the sender.
    pub token: u32,
    /// Who is to be asked, at the address that the receiver knows: nobody makes it send elsewhere.
    pub target: &'a str,
    /// Who wants to know.
    pub from: &'a str,
}

/// The answer to a ping.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Ack<'a> {
    /// As in the ping.
    pub token: u32,
    /// The answerer's network coordinate, encoded; empty when it has none.
    pub coordinate: &'a [u8],
}

/// A member is there.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Alive<'a> {
    /// Its name.
    pub name: &'a str,
    /// Who it is.
    pub id: NodeId,
    /// Where it is reached.
    pub address: SocketAddr,
    /// Its incarnation.
    pub incarnation: u64,
    /// What it speaks.
    pub versions: Versions,
    /// What else it says.
    pub tags: TagsView<'a>,
}

/// A member does not answer.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Suspect<'a> {
    /// Its name.
    pub name: &'a str,
    /// The incarnation that is suspected; a higher one contradicts.
    pub incarnation: u64,
    /// Who suspects it.
    pub by: &'a str,
}

/// A member has failed, or left.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Dead<'a> {
    /// Its name.
    pub name: &'a str,
    /// The incarnation that it was.
    pub incarnation: u64,
    /// Who says so: the member itself when it left.
    pub by: &'a str,
    /// Who suspected it first; empty when it left.
    pub suspected_by: &'a str,
    /// Who confirmed that, as far as known.
    pub confirmed_by: Names<'a>,
}

impl Dead<'_> {
    /// Whether the member left by its own word.
    pub fn is_leave(&self) -> bool {
        self.by == self.name
    }
}

/// A few names, each with its length (one byte) in front.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Names<'a>(pub(super) &'a [u8]);

impl<'a> Names<'a> {
    /// In the order in which they were said.
    pub fn iter(self) -> impl Iterator<Item = &'a str> {
        let mut rest = self.0;
        std::iter::from_fn(move || {
            let (length, after) = rest.split_first()?;
            let (name, after) = after.split_at_checked(usize::from(*length))?;
            rest = after;
            std::str::from_utf8(name).ok()
        })
    }
}

/// A member joins or leaves, on the pool's Lamport clock: of two intents for one member the later counts (serf: `messageJoin`,
/// `messageLeave`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Intent<'a> {
    /// When, on the clock of intents.
    pub ltime: u64,
    /// Who.
    pub name: &'a str,
    /// What.
    pub kind: IntentKind,
}

/// What a member is about to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum IntentKind {
    /// It takes part.
    Join = 1,
    /// It leaves, or an operator takes it for gone.
    Leave = 2,
    /// An operator takes it for gone, and it is to be forgotten at once.
    Prune = 3,
}

/// What goes over a stream: one frame there, one back.
#[derive(Clone, Debug, PartialEq)]
pub enum Frame<'a> {
    /// All that one side knows; the answer is the same of the other side.
    State(State<'a>),
    /// Are you there? Answered by [`Frame::Here`] when the name is right.
    Call(Call<'a>),
    /// The answer to a call: what the called one says of itself.
    Here(Alive<'a>),
    /// The other side's state was not taken; says why, and what to do.
    Refused(&'a str),
}

/// Are you there?
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Call<'a> {
    /// Who is meant.
    pub to: &'a str,
    /// Who asks.
    pub from: &'a str,
    /// The incarnation that is suspected; 0: none is.
    pub suspected: u64,
}

/// All that one side knows.
#[derive(Clone, Debug, PartialEq)]
pub struct State<'a> {
    /// Whether the dialler joins by it.
    pub join: bool,
    /// The clocks of intents, events and queries.
    pub clocks: [u64; 3],
    /// The sender first.
    pub members: Vec<Known<'a>>,
    /// Members that are gone for good.
    pub tombstones: Vec<Tombstone<'a>>,
}

/// What one side knows of a member.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Known<'a> {
    /// What the member says of itself.
    pub alive: Alive<'a>,
    /// What the sender takes it for.
    pub status: Status,
    /// For how long, seconds: so all forget the failed at about the same time.
    pub age_s: u32,
    /// The clock of the newest intent for it.
    pub ltime: u64,
}

/// What remains of a member that was pruned or reaped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tombstone<'a> {
    /// Its name.
    pub name: &'a str,
    /// Incarnations up to this one stay gone.
    pub incarnation: u64,
    /// For how long it has been gone, seconds.
    pub age_s: u32,
}
