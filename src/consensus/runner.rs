//! The control core's side of the door: drives the replica over a real disk and real links.

mod edges;
mod gathering;
mod sections;

use std::future::Future;
use std::path::PathBuf;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use muster_protocol::entry::{Configuration, ServerId};
use muster_protocol::log::FileName;
use muster_protocol::rpc::PeerMessage;

use crate::metrics::{self, Counter, Sample};
use crate::runtime::mesh::{self, Full, OneSender, Receiver, Sender};
use crate::runtime::publish::Published;
use crate::runtime::time::Sleep;
use crate::runtime::{fs, task, time};
use crate::store::command::Applied;
use crate::store::{State, Touched};

use super::admin::{AdminError, AdminOp};
use super::ask::{Asking, Event};
use super::disk::Disk;
use super::error::ProposeError;
use super::gauges::Gauges;
use super::limits::{BATCH_MAX, UNDER_WAY_MAX};
use super::links::{Links, PeerEvent};
use super::proposals::{Job, Proposal, Room};
use super::replica::{self, Effect, Input, Kinds, Replica};
use super::standing::Role;
pub use edges::Edges;
use gathering::{Gathering, Lazy};
use sections::{Loading, Sections};

/// Orders and applies what is proposed. Dropping it, or its future, ends all waiting writers as stopping.
pub struct Runner {
    replica: Replica,
    disk: Disk,
    jobs: Receiver<Job>,
    asks: Sender<Event>,
    asking: Option<Asking>,
    published: Published<State>,
    gauges: Arc<Gauges>,
    waiting: Slots,
    sections: Option<Sections>,
    loading: Option<Loading>,
    /// Named to the links last.
    linked: u64,
    /// Counted last.
    role: Role,
    leader: Option<ServerId>,
    /// When the last turn began.
    turned: Instant,
    inputs: Vec<Input>,
    effects: Vec<Effect>,
    alarm: Option<Pin<Box<Sleep>>>,
    gathering: Gathering,
    lazy: Lazy,
    /// No handle is left.
    closed: bool,
    /// To be removed when the replica has started.
    remove_when_started: Option<PathBuf>,
    /// The gauges say already that this server leads.
    presumed: bool,
}

/// What is on the other side of the control core's channels while it runs.
struct Surroundings {
    edges: Edges,
    links: Rc<dyn Links>,
    events: Receiver<PeerEvent>,
    /// Whether the links have ended: then there are no events any more.
    alone: bool,
}

impl Runner {
    pub(super) fn new(
        replica: Replica,
        disk: Disk,
        jobs: Receiver<Job>,
        asks: Sender<Event>,
        asking: Asking,
        published: Published<State>,
        gauges: Arc<Gauges>,
    ) -> Runner {
        Runner {
            replica,
            disk,
            jobs,
            asks,
            asking: Some(asking),
            published,
            gauges,
            waiting: Slots::default(),
            sections: None,
            loading: None,
            linked: 0,
            role: Role::Follower,
            leader: None,
            turned: time::now(),
            inputs: Vec::with_capacity(BATCH_MAX),
            effects: Vec::with_capacity(BATCH_MAX),
            alarm: None,
            gathering: Gathering::default(),
            lazy: Lazy::default(),
            closed: false,
            remove_when_started: None,
            presumed: false,
        }
    }

    /// A file that has had its effect once what the disk holds is put right.
    pub(super) fn when_started(&mut self, remove: Option<PathBuf>) {
        self.remove_when_started = remove;
    }

    /// Makes this blank server the only one of its cluster; the gauges have said so from the start.
    pub(super) fn presume_lead(&mut self, configuration: Configuration) {
        let (answer, _) = mesh::oneshot();
        self.begin(Job::Admin(AdminOp::Bootstrap(configuration), answer));
        self.presumed = true;
    }

    /// Runs until the last [`super::Proposals`] is gone. `edges` are the registries of parked queries, one per edge
    /// core; one that is full hears later, one that is closed is passed over. `links` and `events` are the ways to other
    /// servers and back.
    ///
    /// # Errors
    /// The disk failed, or holds what this program cannot use: the process must end, with this text for the operator.
    pub async fn run(
        mut self,
        edges: Vec<Sender<Arc<Touched>>>,
        links: Rc<dyn Links>,
        events: Receiver<PeerEvent>,
    ) -> Result<(), String> {
        let _stop = Stop(self.gauges.clone());
        self.answer_questions(links.clone());
        let mut around = Surroundings { edges: Edges::new(edges), links, events, alone: false };
        loop {
            around.edges.retry();
            self.turn(&mut around).await?;
            if !self.inputs.is_empty() {
                // What the turn itself has brought, as a disk in memory does.
                continue;
            }
            // Under load there is always something to do, but others live on this core too.
            task::yield_now().await;
            std::future::poll_fn(|cx| self.poll_inputs(cx, &mut around)).await;
            if self.closed {
                around.edges.finish().await;
                return Ok(());
            }
        }
    }

    fn answer_questions(&mut self, links: Rc<dyn Links>) {
        if let Some(asking) = self.asking.take() {
            let gauges = self.gauges.clone();
            let send = move |to, message| links.send(to, message).is_ok();
            task::spawn(asking.run(Rc::new(send), move || gauges.standing())).detach();
        }
    }

    /// One step of the replica with all that has come, and what follows from it.
    async fn turn(&mut self, around: &mut Surroundings) -> Result<(), String> {
        let started = time::now();
        let mut effects = std::mem::take(&mut self.effects);
        self.replica.step(self.gauges.now(), &mut self.inputs, &mut effects);
        let took = time::now() - started;
        self.turned = started;
        self.presumed &= self.replica.lease().is_none();
        if !self.presumed {
            self.gauges.shorten_lease(&self.replica);
        }
        for effect in effects.drain(..) {
            if let Effect::Disk(request) = effect {
                self.disk.ask(request, &mut self.inputs);
                continue;
            }
            self.disk.flush();
            match effect {
                Effect::Publish(batch) => {
                    let replica::Published { state, touched, kinds, .. } = *batch;
                    count(kinds, took);
                    self.published.store(state);
                    around.edges.tell(touched);
                }
                Effect::Fatal(why) => return Err(why),
                effect => self.obey(effect, around),
            }
        }
        self.disk.flush();
        self.effects = effects;
        if !self.presumed {
            self.gauges.update(&self.replica);
        }
        metrics::sample(Sample::RaftTurn, time::now() - started);
        if self.replica.has_started()
            && let Some(file) = self.remove_when_started.take()
            && let Err(why) = fs::remove(file).await
        {
            tracing::warn!(target: "agent.server.raft", "{why}; remove it by hand, or it holds at the next start too");
        }
        Ok(())
    }

    fn obey(&mut self, effect: Effect, around: &Surroundings) {
        match effect {
            Effect::Send { to, message } => {
                if let Err(message) = around.links.send(to, message) {
                    self.unsent(to, message);
                }
            }
            Effect::Answers(answers) => {
                let mut since = None;
                for (token, outcome) in answers {
                    let begun = self.waiting.answer(token, outcome.map(|done| done.applied));
                    since = since.or(begun);
                }
                // The oldest of the batch speaks for all.
                since.iter().for_each(|since| metrics::sample(Sample::RaftCommitTime, self.turned - *since));
            }
            Effect::Barriers { tokens, result } => {
                tokens.into_iter().for_each(|token| self.waiting.pass(token, result));
            }
            Effect::AdminDone { token, result } => self.waiting.finish(token, result),
            Effect::Standing(standing) => {
                if standing.role != self.role {
                    self.role = standing.role;
                    metrics::count(counter(self.role), 1);
                    let role = word(self.role);
                    tracing::info!(target: "agent.server.raft", term = standing.term, "entering {role} state");
                }
                if standing.leader != self.leader {
                    self.leader = standing.leader;
                    if let Some(leader) = standing.leader() {
                        let (payload, term) = (&leader.name, standing.term);
                        tracing::info!(target: "agent.server", payload, term, "New leader elected");
                    }
                }
                if standing.configuration_index != self.linked {
                    self.linked = standing.configuration_index;
                    around.links.servers(&standing.configuration);
                }
                if !self.presumed {
                    self.gauges.set_standing(*standing);
                }
            }
            Effect::TakeSnapshot { id, state } => self.sections = Some(Sections::of(id, *state)),
            Effect::NextSection { id } => self.sections.iter_mut().for_each(|sections| sections.want(id)),
            Effect::DropSnapshot { id } => drop(self.sections.take_if(|sections| sections.is(id))),
            Effect::LoadSnapshot { term, index } => {
                let file = FileName::SnapshotDraft { term, index };
                self.loading = Some(Loading::of(term, index, self.disk.draft(file)));
            }
            Effect::Log { warning: true, text } => tracing::warn!(target: "agent.server.raft", "{text}"),
            Effect::Log { warning: false, text } => tracing::info!(target: "agent.server.raft", "{text}"),
            Effect::Disk(_) | Effect::Publish(_) | Effect::Fatal(_) => unreachable!("taken before"),
        }
    }

    /// Only of writes and reads must the replica know that they were not sent; all else it repeats by itself.
    fn unsent(&mut self, to: ServerId, message: PeerMessage) {
        if matches!(message, PeerMessage::Forward(_) | PeerMessage::ReadIndex { .. }) {
            self.inputs.push(Input::Unsent { to, message });
        }
    }

    /// Gathers all that has come; ready as soon as there is something, or the replica's own time has come.
    fn poll_inputs(&mut self, cx: &mut Context<'_>, around: &mut Surroundings) -> Poll<()> {
        self.disk.poll(cx, &mut self.inputs);
        self.poll_events(cx, around);
        self.poll_jobs(cx);
        if let Some(sections) = &mut self.sections {
            sections.poll(cx, &mut self.inputs);
        }
        if let Some(loading) = &mut self.loading
            && let Poll::Ready(input) = loading.poll(cx)
        {
            self.loading = None;
            self.inputs.push(input);
        }
        self.poll_alarm(cx);
        around.edges.poll(cx);
        if self.inputs.is_empty() && !self.closed { Poll::Pending } else { Poll::Ready(()) }
    }

    fn poll_events(&mut self, cx: &mut Context<'_>, around: &mut Surroundings) {
        while !around.alone && self.inputs.len() < BATCH_MAX {
            match around.events.poll_recv(cx) {
                Poll::Ready(Some(event)) => self.hear(event, &*around.links),
                Poll::Ready(None) => around.alone = true,
                Poll::Pending => break,
            }
        }
        if self.inputs.len() >= BATCH_MAX {
            cx.waker().wake_by_ref();
        }
    }

    fn hear(&mut self, event: PeerEvent, links: &dyn Links) {
        match event {
            PeerEvent::Message {
                from,
                message: message @ (PeerMessage::Ask { .. } | PeerMessage::Told { .. }),
            } => {
                let refused = self.asks.try_send(Event::Peer(from, message));
                // Where too many ask, whoever asks does so again.
                if let Err(Full::Full(Event::Peer(from, PeerMessage::Ask { token, .. }))) = refused {
                    let _ = links.send(from, PeerMessage::Told { token, answer: None });
                }
            }
            PeerEvent::Message { from, message: PeerMessage::Forward(writes) } => {
                self.gathering.forwarded(from, writes);
            }
            PeerEvent::Message { from, message } => self.inputs.push(Input::Peer { from, message }),
            PeerEvent::Lost(peer) => {
                self.take_forwarded();
                let _ = self.asks.try_send(Event::Lost(peer));
                self.inputs.push(Input::PeerLost(peer));
            }
        }
    }

    fn poll_jobs(&mut self, cx: &mut Context<'_>) {
        self.turned = time::now();
        // With nobody else to send them to, what comes while the disk writes would only be a waking more: all of it shares
        // the next write anyway. The disk's report brings us back here.
        if self.disk.is_writing() && self.gauges.is_alone() {
            return;
        }
        if self.gathering.poll(cx, self.turned).is_pending() {
            return;
        }
        let mut taken = self.take_forwarded();
        for proposal in self.lazy.poll(cx, self.turned) {
            self.begin(Job::Propose(proposal));
            taken += 1;
        }
        // Past the limit jobs stay in their queue, and past that one's limit writers are told to come again.
        while self.waiting.len() + self.lazy.len() < UNDER_WAY_MAX {
            match self.jobs.poll_recv(cx) {
                Poll::Ready(Some(Job::Propose(proposal))) if proposal.lazy => {
                    let Some(proposal) = self.lazy.take(cx, proposal, self.turned) else { continue };
                    self.begin(Job::Propose(proposal));
                }
                Poll::Ready(Some(job)) => self.begin(job),
                Poll::Ready(None) => {
                    self.closed = true;
                    return;
                }
                Poll::Pending => break,
            }
            taken += 1;
        }
        self.gathering.took(taken, self.turned, self.disk.last_write(), self.gauges.is_alone());
    }

    /// Writes that other servers have sent; returns how many.
    fn take_forwarded(&mut self) -> usize {
        let mut taken = 0;
        for (from, writes) in self.gathering.take_forwarded() {
            taken += writes.len();
            self.inputs.push(Input::Peer { from, message: PeerMessage::Forward(writes) });
        }
        taken
    }

    fn begin(&mut self, job: Job) {
        let input = match job {
            Job::Propose(Proposal { encoded, answer, room, .. }) => {
                let token = self.waiting.insert(Waiter::Write(answer, room, self.turned));
                Input::Propose { token, body: encoded.into_bytes() }
            }
            Job::Barrier(consistency, answer) => {
                Input::Barrier { token: self.waiting.insert(Waiter::Read(answer)), consistency }
            }
            Job::Admin(op, answer) => Input::Admin { token: self.waiting.insert(Waiter::Admin(answer)), op },
        };
        self.inputs.push(input);
    }

    /// An alarm that goes off early does no harm; so it is only set again when it would be late.
    fn poll_alarm(&mut self, cx: &mut Context<'_>) {
        let Some(due) = self.replica.next_deadline().and_then(|due| self.gauges.instant(due)) else { return };
        if self.alarm.as_ref().is_none_or(|alarm| alarm.deadline() > due) {
            self.alarm = Some(Box::pin(Sleep::until(due)));
        }
        while let Some(alarm) = &mut self.alarm
            && alarm.as_mut().poll(cx).is_ready()
        {
            self.alarm = None;
            if due <= time::now() {
                self.inputs.push(Input::Tick);
            } else {
                self.alarm = Some(Box::pin(Sleep::until(due)));
            }
        }
    }
}

/// Raised when the runner ends, in whatever way: no reader may trust the lease any more.
struct Stop(Arc<Gauges>);

impl Drop for Stop {
    fn drop(&mut self) {
        self.0.stop();
    }
}

/// Who waits for what, by the token that the replica knows it by.
#[derive(Default)]
struct Slots {
    slots: Vec<Option<Waiter>>,
    free: Vec<usize>,
}

enum Waiter {
    Write(OneSender<Result<Applied, ProposeError>>, #[allow(dead_code)] Room, Instant),
    Read(OneSender<Result<(), ProposeError>>),
    Admin(OneSender<Result<(), AdminError>>),
}

impl Slots {
    fn len(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    fn insert(&mut self, waiter: Waiter) -> u64 {
        let place = match self.free.pop() {
            Some(place) => place,
            None => {
                self.slots.push(None);
                self.slots.len() - 1
            }
        };
        self.slots[place] = Some(waiter);
        place as u64
    }

    fn take(&mut self, token: u64) -> Option<Waiter> {
        let waiter = self.slots[token as usize].take();
        debug_assert!(waiter.is_some(), "each token is answered once");
        self.free.push(token as usize);
        waiter
    }

    // Who has left meanwhile does not want to know.

    /// Returns since when the write was under way.
    fn answer(&mut self, token: u64, outcome: Result<Applied, ProposeError>) -> Option<Instant> {
        let Some(Waiter::Write(answer, _, since)) = self.take(token) else { return None };
        let _ = answer.send(outcome);
        Some(since)
    }

    fn pass(&mut self, token: u64, result: Result<(), ProposeError>) {
        if let Some(Waiter::Read(answer)) = self.take(token) {
            let _ = answer.send(result);
        }
    }

    fn finish(&mut self, token: u64, result: Result<(), AdminError>) {
        if let Some(Waiter::Admin(answer)) = self.take(token) {
            let _ = answer.send(result);
        }
    }
}

fn word(role: Role) -> &'static str {
    match role {
        Role::Leader => "leader",
        Role::Candidate => "candidate",
        Role::Follower => "follower",
    }
}

fn counter(role: Role) -> Counter {
    match role {
        Role::Leader => Counter::RaftLeader,
        Role::Candidate => Counter::RaftCandidate,
        Role::Follower => Counter::RaftFollower,
    }
}

/// Counts what a step has applied; the step's time is shared out among its writes.
fn count(kinds: Kinds, took: Duration) {
    let Kinds { kv, register, deregister, autopilot, restore, coordinates, sessions, txn } = kinds;
    let all = kv + register + deregister + autopilot + restore + coordinates + sessions + txn;
    metrics::count(Counter::RaftApply, all);
    let share = |some: u64| took.mul_f64(some as f64 / all.max(1) as f64);
    metrics::samples(Sample::RaftFsmApply, all, took);
    metrics::samples(Sample::FsmKvs, kv, share(kv));
    metrics::samples(Sample::FsmRegister, register, share(register));
    metrics::samples(Sample::FsmDeregister, deregister, share(deregister));
    metrics::samples(Sample::FsmAutopilot, autopilot, share(autopilot));
    metrics::samples(Sample::FsmRestore, restore, share(restore));
    metrics::samples(Sample::FsmCoordinates, coordinates, share(coordinates));
    metrics::samples(Sample::FsmSession, sessions, share(sessions));
    metrics::samples(Sample::FsmTxn, txn, share(txn));
}

/// The configuration of no cluster, for whoever has no links.
#[derive(Debug, Default)]
pub(super) struct NoLinks;

impl Links for NoLinks {
    fn send(&self, _: ServerId, message: PeerMessage) -> Result<(), PeerMessage> {
        Err(message)
    }

    fn servers(&self, _: &Configuration) {}
}
