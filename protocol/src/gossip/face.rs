//! What goes into a [`Gossip`](super::Gossip) and what comes out of it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::coordinate::Coordinate;
use super::events::{self, UserEvent};
use super::keyring::Key;
use super::member::{Member, NodeId, Tags};
use super::queries::{self, Query, QueryError, QueryId};
use crate::entry::Now;

/// Names a stream between the core and its driver. Of the two kinds the driver keeps apart which were dialled and which were accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct StreamId(pub u64);

/// Something that happened.
#[derive(Clone, Debug)]
pub enum Input {
    /// The time that [`Gossip::next_deadline`](super::Gossip::next_deadline) named has come. At other times it does no harm.
    Tick,
    /// A datagram has arrived.
    Packet {
        /// Where it came from, as the system says.
        from: SocketAddr,
        /// All of it.
        bytes: Bytes,
    },
    /// A whole frame has arrived on a stream that was accepted. Ends in at most one [`Effect::Answer`] in the same step; without one
    /// the stream is to be closed.
    Request {
        /// Chosen by the driver.
        stream: StreamId,
        /// The other side.
        from: SocketAddr,
        /// The frame.
        frame: Bytes,
    },
    /// The answer on a stream of [`Effect::Dial`] has arrived.
    Answered {
        /// As in the effect.
        stream: StreamId,
        /// The frame.
        frame: Bytes,
    },
    /// A stream of [`Effect::Dial`] has ended without an answer.
    StreamFailed {
        /// As in the effect.
        stream: StreamId,
        /// For the operator.
        why: String,
    },
    /// Join the pool through these. Ends in [`Effect::JoinDone`].
    Join(Vec<SocketAddr>),
    /// Leave the pool for good. Ends in [`Effect::LeaveDone`].
    Leave,
    /// An operator takes a member for gone: if it has failed, it has left.
    ForceLeave {
        /// Its name.
        name: String,
        /// Forget it at once, for ever.
        prune: bool,
    },
    /// What this agent says of itself is now this.
    SetTags(Tags),
    /// Tell all members of an event.
    Fire(events::Draft),
    /// Ask the members, this one too. Comes back at once as [`Effect::Asked`].
    Ask {
        /// Chosen by the driver.
        token: u64,
        /// The question.
        draft: queries::Draft,
    },
    /// The tags of this agent match what a query asks for.
    Matches(QueryId),
    /// This agent's answer to a query; only the first counts.
    Respond {
        /// The query.
        query: QueryId,
        /// The answer.
        payload: Bytes,
    },
    /// No more answers to a query are wanted.
    CloseQuery(QueryId),
    /// The keyring of [`Effect::SaveKeyring`] is on disk, or could not be written.
    KeyringSaved {
        /// As in the effect.
        query: QueryId,
        /// Why not.
        error: Option<String>,
    },
}

/// What the driver is to do, in this order.
#[derive(Clone, Debug, PartialEq)]
pub enum Effect {
    /// Send a datagram. It may be lost.
    Send {
        /// The receiver.
        to: SocketAddr,
        /// At most [`PACKET_LENGTH_MAX`](super::PACKET_LENGTH_MAX) bytes.
        packet: Bytes,
    },
    /// Open a stream, send the frame, and wait for one frame: [`Input::Answered`], or [`Input::StreamFailed`] after `patience` at the latest.
    Dial {
        /// Chosen by the core.
        stream: StreamId,
        /// The other side.
        to: SocketAddr,
        /// At most [`FRAME_LENGTH_MAX`](super::FRAME_LENGTH_MAX) bytes.
        frame: Bytes,
        /// How long all of it may take.
        patience: Duration,
    },
    /// Send this frame on a stream that was accepted, and close it.
    Answer {
        /// As in [`Input::Request`].
        stream: StreamId,
        /// At most [`FRAME_LENGTH_MAX`](super::FRAME_LENGTH_MAX) bytes.
        frame: Bytes,
    },
    /// A member is now this.
    Member {
        /// What has changed.
        change: Change,
        /// The member.
        member: Box<Member>,
    },
    /// The end of a join.
    JoinDone {
        /// How many addresses answered.
        contacted: usize,
        /// What the others said, or why they could not be reached.
        errors: Vec<(SocketAddr, String)>,
    },
    /// All that could be told is told: the process may end.
    LeaveDone,
    /// Two claim what only one can have. What was known stays.
    Conflict(Box<Conflict>),
    /// How long a member took to answer, and its network coordinate, if it sent one.
    Rtt {
        /// Its name.
        peer: Arc<str>,
        /// From ping to answer.
        rtt: Duration,
        /// Where it is, if it says so and that can be.
        coordinate: Option<Coordinate>,
    },
    /// An event that was fired, here or elsewhere; each comes once.
    Event(UserEvent),
    /// A question that this agent may answer, by [`Input::Respond`]. When it asks for tags, the driver sees whether they match, and says
    /// [`Input::Matches`] if so, or nothing.
    Query(Box<Query>),
    /// What has become of an [`Input::Ask`].
    Asked {
        /// As in the input.
        token: u64,
        /// The query, or why it is not asked.
        query: Result<QueryId, QueryError>,
    },
    /// A member has got a question of this agent. Each comes once.
    Acked {
        /// The query.
        query: QueryId,
        /// Who.
        from: Arc<str>,
    },
    /// A member has answered a question of this agent. Each comes once.
    Reply {
        /// The query.
        query: QueryId,
        /// Who.
        from: Arc<str>,
        /// The answer.
        payload: Bytes,
    },
    /// There will be no more answers to a question of this agent.
    QueryDone {
        /// The query.
        query: QueryId,
    },
    /// The keyring has changed: write it, and say [`Input::KeyringSaved`].
    SaveKeyring {
        /// Who wanted that.
        query: QueryId,
        /// All keys, the primary one first.
        keys: Vec<Key>,
    },
    /// For the log.
    Log {
        /// How much it matters.
        level: Level,
        /// The line.
        text: String,
    },
}

/// What has changed about a member.
#[derive(Clone, Debug, PartialEq)]
pub enum Change {
    /// It is new, or has come back.
    Joined,
    /// It says something else of itself.
    Updated,
    /// Somebody got no answer from it. Others still count it as alive.
    Suspected {
        /// Who.
        by: Arc<str>,
    },
    /// It was suspected, and has contradicted.
    Refuted {
        /// Who had suspected it.
        suspected_by: Arc<str>,
    },
    /// It did not contradict in time.
    Failed(Evidence),
    /// It is about to leave.
    Leaving,
    /// It has left, or an operator has said so.
    Left,
    /// It is forgotten.
    Reaped,
}

/// On what grounds a member was declared failed.
#[derive(Clone, Debug, PartialEq)]
pub struct Evidence {
    /// Who suspected it first, as far as known here; nobody when its failure was learned with the state of another.
    pub suspected_by: Option<Arc<str>>,
    /// Who said so independently.
    pub confirmed_by: Vec<Arc<str>>,
    /// Who declared it.
    pub declared_by: Arc<str>,
    /// When it last answered this agent.
    pub last_ack: Option<Now>,
    /// How long that answer took.
    pub last_rtt: Option<Duration>,
}

/// Two that claim the same.
#[derive(Clone, Debug, PartialEq)]
pub struct Conflict {
    /// What both claim.
    pub claim: Claim,
    /// Who has it, as known here.
    pub ours: Party,
    /// Who else claims it.
    pub theirs: Party,
}

/// What only one can have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Claim {
    /// The name.
    Name,
    /// The node ID.
    Id,
}

/// One side of a conflict.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Party {
    /// Its name.
    pub name: Arc<str>,
    /// Its ID.
    pub id: NodeId,
    /// Where it is.
    pub address: SocketAddr,
}

/// How much a line of the log matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// Somebody should look at it.
    Warn,
    /// Good to know.
    Info,
    /// To find out what happened.
    Debug,
}
