//! The door of consensus, held by whoever writes, reads or asks how things stand, on any core.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;

use crate::runtime::mesh::{self, Full, OneSender, Receiver, Sender};
use crate::runtime::publish::Published;
use crate::runtime::time;
use crate::store::State;
use crate::store::command::{Applied, Command};

use super::admin::{AdminError, AdminOp};
use super::ask::{ASKED_MAX, Asked, Asking, Event, Question};
use super::encoded::Encoded;
use super::error::ProposeError;
use super::limits::{COMMAND_LENGTH_MAX, QUEUE_BYTES_MAX, QUEUE_MAX};
use super::runner::Runner;
use super::standing::{Role, Standing};
use super::status::{Contact, Status};

/// Term of a voter that has bootstrapped itself and then elected itself.
const LONE_VOTER_TERM: u64 = 2;

/// How long a question waits for a leader: Consul's default of `performance.rpc_hold_timeout`.
const RPC_HOLD_TIMEOUT: Duration = Duration::from_secs(7);

/// A handle to propose writes from any core, to make sure that reads are fresh, and to ask who leads.
#[derive(Clone)]
pub struct Proposals(Option<Arc<Handle>>);

struct Handle {
    queue: Sender<Proposal>,
    waiting: Arc<AtomicUsize>,
    asks: Sender<Event>,
    state: Published<State>,
    address: String,
}

/// A write on its way to the control core.
pub(super) struct Proposal {
    pub encoded: Encoded,
    pub answer: OneSender<Applied>,
    pub room: Room,
}

/// A share of [`QUEUE_BYTES_MAX`], given back when dropped.
pub(super) struct Room {
    waiting: Arc<AtomicUsize>,
    length: usize,
}

/// How fresh a read must be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Consistency {
    /// No older than the leader's lease allows: Consul's default.
    Default,
    /// A majority confirms the leader after the question came: `?consistent`.
    Consistent,
}

/// Opens consensus with a lone voter known by `address` (`ip:port` of its server port): the handle for
/// writers, the state for readers, and what must run on the control core for anything to happen.
pub fn open(address: String) -> (Proposals, Published<State>, Runner) {
    let (queue, proposed) = mesh::channel(QUEUE_MAX);
    let state = Published::new(State::new());
    let (asks, asking) = Asking::new();
    let handle = Handle { queue, waiting: Arc::default(), asks, state: state.clone(), address };
    (Proposals(Some(Arc::new(handle))), state.clone(), Runner::new(proposed, asking, state))
}

impl Proposals {
    /// The handle of an agent that knows no server: each write ends as [`ProposeError::NoServers`].
    pub fn without_server() -> Proposals {
        Proposals(None)
    }

    /// Whether a server is known. Without one the state is empty and says nothing: reads of it must be refused too.
    pub fn has_server(&self) -> bool {
        self.0.is_some()
    }

    /// Proposes a write; resolves once it is applied and visible on every core.
    ///
    /// # Errors
    /// See [`ProposeError`].
    pub async fn propose(&self, command: &Command) -> Result<Applied, ProposeError> {
        let handle = self.0.as_deref().ok_or(ProposeError::NoServers)?;
        let encoded = Encoded::of(command);
        let length = encoded.bytes().len();
        if length > COMMAND_LENGTH_MAX {
            return Err(ProposeError::TooLarge { length, max: COMMAND_LENGTH_MAX });
        }
        let room = Room::take(&handle.waiting, length).ok_or(ProposeError::TooBusy)?;
        let (answer, applied) = mesh::oneshot();
        match handle.queue.try_send(Proposal { encoded, answer, room }) {
            Ok(()) => applied.await.ok_or(ProposeError::Stopping),
            Err(Full::Full(_)) => Err(ProposeError::TooBusy),
            Err(Full::Closed(_)) => Err(ProposeError::Stopping),
        }
    }

    /// Waits until the published state holds everything that was acknowledged before the call, by whichever server. A
    /// reader that finds [`Contact::leads`] need not ask for [`Consistency::Default`].
    ///
    /// # Errors
    /// There is no leader to say so within the hold time, or no server.
    pub async fn barrier(&self, _consistency: Consistency) -> Result<(), ProposeError> {
        self.0.as_deref().ok_or(ProposeError::NoServers)?;
        Ok(())
    }

    /// Asks for a change of the cluster, a transfer of the lead or a snapshot; resolves once it is done (a change of
    /// servers: committed).
    ///
    /// # Errors
    /// See [`AdminError`].
    pub async fn admin(&self, op: AdminOp) -> Result<(), AdminError> {
        self.0.as_deref().ok_or(AdminError::Stopping)?;
        Err(AdminError::Refused(format!("a lone voter in memory cannot do this: {op:?}")))
    }

    /// Asks what only the leader can answer: the desk there ([`Proposals::open_desk`]) reads the question. One that is
    /// not `repeatable` is sent to one leader only, even when nobody knows what became of it there.
    ///
    /// # Errors
    /// There is no leader within the hold time, it was lost on the way, or no server is known.
    pub async fn ask(&self, question: Bytes, repeatable: bool) -> Result<Bytes, ProposeError> {
        let handle = self.0.as_deref().ok_or(ProposeError::NoServers)?;
        let (answer, told) = mesh::oneshot();
        let until = time::now() + RPC_HOLD_TIMEOUT;
        match handle.asks.try_send(Event::Ask(Question { question, repeatable, answer, until })) {
            Ok(()) => told.await.unwrap_or(Err(ProposeError::Stopping)),
            Err(Full::Full(_)) => Err(ProposeError::TooBusy),
            Err(Full::Closed(_)) => Err(ProposeError::Stopping),
        }
    }

    /// Opens the desk of this server: whatever is asked while it leads comes in there. `None` on an agent that is no
    /// server, or is stopping.
    pub fn open_desk(&self) -> Option<Receiver<Asked>> {
        let (desk, asked) = mesh::channel(ASKED_MAX);
        self.0.as_deref()?.asks.try_send(Event::Desk(desk)).ok()?;
        Some(asked)
    }

    /// How reads stand. Reads a few atomics; cheap enough for every request.
    pub fn contact(&self) -> Contact {
        match &self.0 {
            Some(_) => Contact {
                has_server: true,
                known_leader: true,
                leads: true,
                alone: true,
                last: Some(Duration::ZERO),
            },
            None => Contact::default(),
        }
    }

    /// What is known about leadership, the servers and the log.
    pub fn standing(&self) -> Standing {
        let Some(handle) = self.0.as_deref() else { return Standing::default() };
        let index = handle.state.load().index();
        Standing {
            role: Role::Leader,
            term: LONE_VOTER_TERM,
            last_log_index: index,
            last_log_term: LONE_VOTER_TERM,
            commit_index: index,
            applied_index: index,
            last_contact: Some(Duration::ZERO),
            ..Standing::default()
        }
    }

    /// The same for `/v1/status/...` and the statistics of `/v1/agent/self`.
    pub fn status(&self) -> Status {
        let Some(handle) = self.0.as_deref() else { return Status::default() };
        let standing = self.standing();
        Status {
            is_leader: true,
            leader: Some(handle.address.clone()),
            peers: vec![handle.address.clone()],
            term: standing.term,
            last_log_index: standing.last_log_index,
            last_log_term: standing.last_log_term,
            commit_index: standing.commit_index,
            applied_index: standing.applied_index,
        }
    }
}

impl Room {
    fn take(waiting: &Arc<AtomicUsize>, length: usize) -> Option<Room> {
        let before = waiting.fetch_add(length, Ordering::Relaxed);
        let room = Room { waiting: waiting.clone(), length };
        (before + length <= QUEUE_BYTES_MAX).then_some(room)
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        self.waiting.fetch_sub(self.length, Ordering::Relaxed);
    }
}
