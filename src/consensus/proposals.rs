//! The door of consensus, held by whoever writes, reads or asks how things stand, on any core.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;

use crate::runtime::mesh::{self, Full, OneReceiver, OneSender, Receiver, Sender};
use crate::runtime::publish::Published;
use crate::runtime::time;
use crate::store::State;
use crate::store::command::{Applied, Command};

use super::admin::{AdminError, AdminOp};
use super::ask::{Asked, Asking, DESK_MAX, Event, Question};
use super::encoded::Encoded;
use super::error::ProposeError;
use super::gauges::Gauges;
use super::limits::{COMMAND_LENGTH_MAX, QUEUE_BYTES_MAX, QUEUE_MAX};
use super::opening::Opening;
use super::standing::Standing;
use super::status::{Contact, Status};

/// How long writes and reads wait for a leader before a server has started: Consul's default of
/// `performance.rpc_hold_timeout`.
const HOLD_TIMEOUT: Duration = Duration::from_secs(7);

/// A handle to propose writes from any core, to make sure that reads are fresh, and to ask who leads.
#[derive(Clone)]
pub struct Proposals(Option<Arc<Handle>>);

struct Handle {
    jobs: Sender<Job>,
    waiting: Arc<AtomicUsize>,
    asks: Sender<Event>,
    gauges: Arc<Gauges>,
}

/// Something for the control core to do, with the way back.
pub(super) enum Job {
    Propose(Proposal),
    Barrier(Consistency, OneSender<Result<(), ProposeError>>),
    Admin(AdminOp, OneSender<Result<(), AdminError>>),
}

/// A write on its way to the control core.
pub(super) struct Proposal {
    pub encoded: Encoded,
    pub answer: OneSender<Result<Applied, ProposeError>>,
    pub room: Room,
    /// It may wait for others of its kind.
    pub lazy: bool,
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

/// The door of a server, before it has started: the handle for writers, the state for readers, and what is to be opened on
/// the control core for anything to happen.
pub fn door() -> (Proposals, Published<State>, Opening) {
    let (jobs, receiver) = mesh::channel(QUEUE_MAX);
    let (asks, asking) = Asking::new();
    let state = Published::new(State::new());
    let gauges = Arc::new(Gauges::new(HOLD_TIMEOUT));
    let opening =
        Opening { jobs: receiver, asks: asks.clone(), asking, state: state.clone(), gauges: gauges.clone() };
    (Proposals(Some(Arc::new(Handle { jobs, waiting: Arc::default(), asks, gauges }))), state, opening)
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

    /// Proposes a write, here or at the leader; resolves once it is committed, applied here and visible on every core.
    ///
    /// # Errors
    /// See [`ProposeError`].
    pub async fn propose(&self, command: &Command) -> Result<Applied, ProposeError> {
        let handle = self.0.as_deref().ok_or(ProposeError::NoServers)?;
        let (job, applied) = handle.proposal(Encoded::of(command), false)?;
        handle.hand_over(job, applied).await?
    }

    /// Proposes writes of agents, in order; they are under way together, and may wait a moment for those of other agents. As
    /// many outcomes as writes.
    pub async fn propose_lazily(&self, writes: Vec<Encoded>) -> Vec<Result<Applied, ProposeError>> {
        let Some(handle) = self.0.as_deref() else { return vec![Err(ProposeError::NoServers); writes.len()] };
        let begun: Vec<_> = writes
            .into_iter()
            .map(|encoded| {
                let (job, applied) = handle.proposal(encoded, true)?;
                handle.begin(job).map(|()| applied)
            })
            .collect();
        let mut outcomes = Vec::with_capacity(begun.len());
        for write in begun {
            outcomes.push(match write {
                Ok(applied) => applied.await.unwrap_or(Err(ProposeError::Stopping)),
                Err(refused) => Err(refused),
            });
        }
        outcomes
    }

    /// Waits until the published state holds everything that was acknowledged before the call, by whichever server. A
    /// reader that finds [`Contact::leads`] need not ask for [`Consistency::Default`].
    ///
    /// # Errors
    /// There is no leader to say so within the hold time, or no server.
    pub async fn barrier(&self, consistency: Consistency) -> Result<(), ProposeError> {
        let handle = self.0.as_deref().ok_or(ProposeError::NoServers)?;
        let (answer, passed) = mesh::oneshot();
        handle.hand_over(Job::Barrier(consistency, answer), passed).await?
    }

    /// Asks this server for a change of the cluster, a transfer of the lead or a snapshot; resolves once it is done (a
    /// change of servers: committed).
    ///
    /// # Errors
    /// See [`AdminError`].
    pub async fn admin(&self, op: AdminOp) -> Result<(), AdminError> {
        let handle = self.0.as_deref().ok_or(AdminError::Stopping)?;
        let (answer, done) = mesh::oneshot();
        handle.hand_over(Job::Admin(op, answer), done).await.unwrap_or(Err(AdminError::Stopping))
    }

    /// Asks what only the leader can answer: the desk there ([`Proposals::open_desk`]) reads the question. One that is
    /// not `repeatable` is sent to one leader only, even when nobody knows what became of it there.
    ///
    /// # Errors
    /// There is no leader within the hold time, it was lost on the way, or no server is known.
    pub async fn ask(&self, question: Bytes, repeatable: bool) -> Result<Bytes, ProposeError> {
        let handle = self.0.as_deref().ok_or(ProposeError::NoServers)?;
        let (answer, told) = mesh::oneshot();
        let until = time::now() + handle.gauges.hold();
        match handle.asks.try_send(Event::Ask(Question { question, repeatable, answer, until })) {
            Ok(()) => told.await.unwrap_or(Err(ProposeError::Stopping)),
            Err(Full::Full(_)) => Err(ProposeError::TooBusy),
            Err(Full::Closed(_)) => Err(ProposeError::Stopping),
        }
    }

    /// Opens the desk of this server: whatever is asked while it leads comes in there. `None` on an agent that is no
    /// server, or is stopping.
    pub fn open_desk(&self) -> Option<Receiver<Asked>> {
        let (desk, asked) = mesh::channel(DESK_MAX);
        self.0.as_deref()?.asks.try_send(Event::Desk(desk)).ok()?;
        Some(asked)
    }

    /// How reads stand. Reads a few atomics and, where a lease runs, the clock: cheap enough for every request.
    pub fn contact(&self) -> Contact {
        self.0.as_deref().map_or_else(Contact::default, |handle| handle.gauges.contact())
    }

    /// What is known about leadership, the servers and the log.
    pub fn standing(&self) -> Standing {
        self.0.as_deref().map_or_else(Standing::default, |handle| handle.gauges.standing())
    }

    /// The same for `/v1/status/...` and the statistics of `/v1/agent/self`.
    pub fn status(&self) -> Status {
        let standing = self.standing();
        let servers = standing.configuration.servers.iter();
        let mut peers: Vec<String> = servers.map(|server| server.address.clone()).collect();
        peers.sort();
        Status {
            is_leader: standing.leads(),
            leader: standing.leader().map(|server| server.address.clone()),
            peers,
            term: standing.term,
            last_log_index: standing.last_log_index,
            last_log_term: standing.last_log_term,
            commit_index: standing.commit_index,
            applied_index: standing.applied_index,
        }
    }
}

/// The way back of a write.
type Applying = OneReceiver<Result<Applied, ProposeError>>;

impl Handle {
    fn proposal(&self, encoded: Encoded, lazy: bool) -> Result<(Job, Applying), ProposeError> {
        let length = encoded.bytes().len();
        if length > COMMAND_LENGTH_MAX {
            return Err(ProposeError::TooLarge { length, max: COMMAND_LENGTH_MAX });
        }
        let room = Room::take(&self.waiting, length).ok_or(ProposeError::TooBusy)?;
        let (answer, applied) = mesh::oneshot();
        Ok((Job::Propose(Proposal { encoded, answer, room, lazy }), applied))
    }

    fn begin(&self, job: Job) -> Result<(), ProposeError> {
        self.jobs.try_send(job).map_err(|refused| match refused {
            Full::Full(_) => ProposeError::TooBusy,
            Full::Closed(_) => ProposeError::Stopping,
        })
    }

    async fn hand_over<T: Send>(&self, job: Job, answer: OneReceiver<T>) -> Result<T, ProposeError> {
        self.begin(job)?;
        answer.await.ok_or(ProposeError::Stopping)
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
