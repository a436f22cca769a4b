//! Drives the gossip of one agent: packets, streams, time; and carries out what it says.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use muster_protocol::entry::Now;
use muster_protocol::gossip::keyring::Keyring;
use muster_protocol::gossip::queries::QueryId;
use muster_protocol::gossip::{
    Effect, Gossip, INCARNATION_MAX, Identity, Input, NAME_LENGTH_MAX, Status, StreamId, Tags,
};

use super::door::{Doorway, PoolStats, Request};
use super::events::EventLog;
use super::facts::{self, OwnTags};
use super::memory::{self, Memory};
use super::roster::Roster;
use super::settings::{Own, Settings, Sockets};
use super::streams::{self, Kind};
use super::{begin, founding, join, keys, news, places};
use crate::metrics::{self, Amount, Counter, interval};
use crate::runtime::bell::{Bell, Turns};
use crate::runtime::mesh::OneSender;
use crate::runtime::net::{Listener, Peer, Stream, Udp};
use crate::runtime::publish::Published;
use crate::runtime::{cores, fs, random, task, time};

/// Streams of others at once. One more waits for a place for a moment, and is then closed: its sender tries another member or another time.
const STREAMS_MAX: usize = 128;
/// So long it waits: a stream takes milliseconds, and many come at once when a fleet starts.
const PLACE_PATIENCE: Duration = Duration::from_secs(1);
/// Bytes of all messages that are coming in on streams; what would go beyond is refused. Room for twenty states of ten thousand members.
const INCOMING_MAX: usize = 64 << 20;
/// Rest after the kernel could not give a connection out, or a socket is unusable.
const REST: Duration = Duration::from_millis(100);
/// Room for a datagram: what is longer is none of ours.
const DATAGRAM_MAX: usize = 2048;
/// So many datagrams are taken before others of this core get their turn.
const DATAGRAMS_AT_ONCE: usize = 64;
/// What is remembered over a restart is written this often at most.
const MEMORY_INTERVAL: Duration = Duration::from_secs(1);
/// And this often it is looked whether clocks have moved.
const MEMORY_INTERVAL_MAX: Duration = Duration::from_secs(60);
/// A coordinate alone, which always moves a little, is written this often: an agent at rest leaves the disk alone.
const COORDINATE_INTERVAL: Duration = Duration::from_secs(600);
/// Patience with the disk when the agent stops.
const KEEP_LIMIT: Duration = Duration::from_secs(1);
/// How often is shown how the core is.
const STATS_INTERVAL: Duration = Duration::from_secs(1);
/// Patience with somebody who has connected to us and says nothing.
const LISTEN_LIMIT: Duration = Duration::from_secs(10);

/// The membership of one agent, on the control core. Clones are handles to the same.
#[derive(Clone)]
pub struct Membership(pub(super) Rc<Inner>);

pub(super) struct Inner {
    pub settings: Settings,
    pub core: RefCell<Gossip>,
    /// What a server does besides.
    pub founder: Option<founding::Founder>,
    /// The end of the join that is under way.
    pub joined: RefCell<Option<join::Joined>>,
    /// Rung with it.
    pub join_done: Bell,
    /// One join at a time.
    pub joining: Turns,
    /// Rung when the beginning of a cluster may have come nearer.
    pub nearer: Bell,
    pub(super) roster: RefCell<Roster>,
    pub(super) published: Published<Roster>,
    /// Told of each new roster.
    pub(super) changed: Box<dyn Fn(&Roster)>,
    /// Rung when the members have changed.
    pub(super) moved: Bell,
    left: Bell,
    has_left: Cell<bool>,
    pub(super) answer: RefCell<Option<(StreamId, Bytes)>>,
    leaving: Cell<bool>,
    origin: Instant,
    /// The time since 1970 at `origin`.
    unix_origin: Duration,
    udp: Udp,
    tcp: RefCell<Option<(Listener, Doorway)>>,
    streams: Cell<usize>,
    /// Rung when one of them has ended.
    stream_ended: Bell,
    incoming: Cell<usize>,
    accepted: Cell<u64>,
    effects: RefCell<Vec<Effect>>,
    /// Questions under way, each with its token and, once it is asked, its name.
    pub(super) asking: RefCell<Vec<(u64, Option<QueryId>, keys::Asking)>>,
    pub(super) tokens: Cell<u64>,
    /// What a server is told of where nodes are.
    pub(super) places: RefCell<places::Waiting>,
    /// Rung when it was told.
    pub(super) place_told: Bell,
    pub(super) wan_keyring: RefCell<Option<Keyring>>,
    /// Events that this agent heeds.
    pub(super) events: Published<EventLog>,
    /// How the core is.
    stats: Published<PoolStats>,
    /// Who waits for the next one.
    pub(super) listeners: RefCell<Vec<OneSender<bool>>>,
    /// Until when the clock is waited for, and rung when that is too long.
    waits_until: Cell<Option<Instant>>,
    sooner: Bell,
    remembered: Memory,
    /// What was written last, and when.
    kept: RefCell<Option<(Memory, Instant)>>,
    /// Whoever writes the memory.
    writing: Turns,
    /// And the files of keys.
    pub(super) writing_keys: Turns,
}

impl Membership {
    /// Of an agent that is alone, with what it remembers. `changed` is told of each new roster, on this core. A server is a `founder`, too.
    ///
    /// # Errors
    /// For the operator: what it says of itself is too long.
    pub async fn open(
        settings: Settings,
        sockets: Sockets,
        founder: Option<founding::Founder>,
        roster: Published<Roster>,
        doorway: Doorway,
        changed: impl Fn(&Roster) + 'static,
    ) -> Result<Membership, String> {
        let remembered = match memory::path(settings.data_dir.as_deref()) {
            Some(path) => Memory::read(&path).await,
            None => Memory::default(),
        };
        let keyrings = keys::open(&settings).await?;
        let (events, stats) = (doorway.events.clone(), doorway.stats.clone());
        let (origin, unix_origin) = (time::now(), time::unix_now());
        check_name(&settings.own.name)?;
        let Own { id, name, address, tags } = &settings.own;
        let identity = Identity {
            name: name.clone(),
            id: *id,
            address: *address,
            tags: encode(tags)?,
            incarnation: first_incarnation(unix_origin, remembered.incarnation),
            keyring: keyrings.lan,
        };
        let mut core = Gossip::new(settings.pool.clone(), identity, random::seed(), Duration::ZERO);
        core.resume(remembered.former);
        let inner = Inner {
            settings,
            core: RefCell::new(core),
            founder,
            joined: RefCell::default(),
            join_done: Bell::default(),
            joining: Turns::default(),
            nearer: Bell::default(),
            roster: RefCell::default(),
            published: roster,
            changed: Box::new(changed),
            moved: Bell::default(),
            left: Bell::default(),
            has_left: Cell::new(false),
            answer: RefCell::default(),
            leaving: Cell::new(false),
            origin,
            unix_origin,
            udp: sockets.udp,
            tcp: RefCell::new(Some((sockets.tcp, doorway))),
            streams: Cell::new(0),
            stream_ended: Bell::default(),
            incoming: Cell::new(0),
            accepted: Cell::new(0),
            effects: RefCell::default(),
            asking: RefCell::default(),
            tokens: Cell::new(0),
            places: RefCell::default(),
            place_told: Bell::default(),
            wan_keyring: RefCell::new(keyrings.wan),
            events,
            stats,
            listeners: RefCell::default(),
            waits_until: Cell::new(None),
            sooner: Bell::default(),
            remembered,
            kept: RefCell::default(),
            writing: Turns::default(),
            writing_keys: Turns::default(),
        };
        inner.begin();
        Ok(Membership(Rc::new(inner)))
    }

    /// Runs until it must not go on; says why. Dropping the future ends everything but streams under way.
    pub async fn run(&self) -> String {
        let inner = self.0.clone();
        let Some((listener, doorway)) = inner.tcp.take() else { return "membership runs already".to_owned() };
        let _tasks = [
            task::spawn(listen(inner.clone(), listener)),
            task::spawn(receive(inner.clone())),
            task::spawn(keep_time(inner.clone())),
            task::spawn(obey(inner.clone(), doorway)),
            task::spawn(begin::run(inner.clone())),
            task::spawn(remember(inner.clone())),
            task::spawn(places::run(inner.clone())),
            task::spawn(join::rejoin(inner.clone(), inner.remembered.members.clone())),
        ];
        join::as_configured(&inner).await
    }

    /// Leaves the pool: tells everybody, and answers on until all have heard it.
    pub async fn leave(&self) {
        self.0.leaving.set(true);
        self.0.step(Input::Leave);
        // Two may ask at once (an operator and a signal), and the bell tells one.
        while !self.0.has_left.get() {
            let _ = cores::either(self.0.left.heard(), time::sleep(REST)).await;
        }
        self.0.keep_memory().await;
    }

    /// Writes what a later life wants to know, before the agent stops.
    pub async fn keep(&self) {
        if time::timeout(KEEP_LIMIT, self.0.keep_memory()).await.is_none() {
            tracing::warn!("agent: the members are not kept for the next start: the disk takes too long");
        }
    }
}

impl Inner {
    /// Feeds the core, and does what it says.
    pub fn step(self: &Rc<Self>, input: Input) {
        let mut effects = self.effects.take();
        self.core.borrow_mut().step(self.now(), input, &mut effects);
        // That others were contradicted is no event, but others here want to know it.
        let mut members_changed = self.keep_own();
        for effect in effects.drain(..) {
            members_changed |= matches!(effect, Effect::Member { .. });
            self.carry_out(effect);
        }
        self.effects.replace(effects);
        if members_changed {
            self.publish();
        }
        let next = self.core.borrow().next_deadline().map(|at| self.origin + at);
        if self.waits_until.get().is_none_or(|until| next.is_some_and(|next| next < until)) {
            self.sooner.ring();
        }
    }

    fn stats(&self) -> PoolStats {
        let core = self.core.borrow();
        let [intents, events, queries] = core.former().clocks.map(|time| time.0 + 1);
        PoolStats {
            coordinate: core.coordinate().copied().unwrap_or_default(),
            health_score: core.health_score(),
            encrypted: core.keyring().is_some(),
            clocks: [intents, events, queries],
        }
    }

    /// The time as the core sees it.
    fn now(&self) -> Now {
        time::now() - self.origin
    }

    /// A time of the core, since 1970.
    pub fn unix(&self, at: Now) -> Duration {
        self.unix_origin + at
    }

    /// Whether nobody else takes part.
    pub fn is_alone(&self) -> bool {
        self.core.borrow().live() <= 1
    }

    /// Whether this is a server that waits for others to begin a cluster, and knows fewer than it expects.
    pub fn misses_founders(&self) -> bool {
        let roster = self.roster.borrow();
        let own = roster.named(&self.settings.own.name).and_then(|own| own.server.as_deref());
        let expected = own.map_or(0, |own| own.expect as usize);
        self.founder.as_ref().is_some_and(|founder| founder.proposals.standing().blank)
            && roster.servers().filter(|member| member.is_alive()).count() < expected
    }

    /// Whether this agent is about to leave.
    pub fn is_leaving(&self) -> bool {
        self.leaving.get()
    }

    /// Says something else of this agent.
    pub fn restate(self: &Rc<Self>, tags: &OwnTags) {
        match encode(tags) {
            Ok(tags) => self.step(Input::SetTags(tags)),
            Err(why) => tracing::error!("agent: what this agent says of itself cannot be told: {why}"),
        }
    }

    fn carry_out(self: &Rc<Self>, effect: Effect) {
        match effect {
            Effect::Send { to, packet } => {
                // A full buffer of the kernel is one more way to lose a packet.
                self.udp.try_send_to(&packet, to);
                metrics::amount(Amount::MemberlistUdpSent, packet.len() as u64);
            }
            Effect::Dial { stream, to, frame, patience } => {
                metrics::count(Counter::MemberlistTcpConnect, 1);
                metrics::amount(Amount::MemberlistTcpSent, frame.len() as u64);
                let inner = self.clone();
                let dial = async move {
                    let input = match streams::exchange(to, Kind::Gossip, &frame, patience).await {
                        Ok(answer) => Input::Answered { stream, frame: answer.into() },
                        Err(why) => Input::StreamFailed { stream, why },
                    };
                    inner.step(input);
                };
                task::spawn(dial).detach();
            }
            Effect::Answer { stream, frame } => drop(self.answer.replace(Some((stream, frame)))),
            Effect::JoinDone { contacted, errors } => {
                self.joined.replace(Some(join::Joined { contacted, errors }));
                self.join_done.ring();
            }
            Effect::LeaveDone => {
                self.has_left.set(true);
                self.left.ring();
            }
            Effect::Asked { .. }
            | Effect::Reply { .. }
            | Effect::QueryDone { .. }
            | Effect::SaveKeyring { .. } => self.take_answer(effect),
            Effect::Event(heard) => {
                // What has come once shall not come again after a restart.
                self.moved.ring();
                self.take_event(&heard);
            }
            other => news::take(self, other),
        }
    }

    /// Writes what a later life wants to know, if it has changed.
    async fn keep_memory(&self) {
        let Some(path) = memory::path(self.settings.data_dir.as_deref()) else { return };
        let _turn = self.writing.take().await;
        let memory = self.memory();
        let is_kept = self.kept.borrow().as_ref().is_some_and(|(kept, at)| {
            let fresh = time::now() < *at + COORDINATE_INTERVAL;
            fresh && kept.without_coordinate() == memory.without_coordinate()
        });
        if is_kept {
            return;
        }
        match fs::write_atomically(path, memory.text().into_bytes(), 0o600).await {
            Ok(()) => drop(self.kept.replace(Some((memory, time::now())))),
            // The next change tries again.
            Err(error) => tracing::warn!("agent: the members are not kept for the next start: {error}"),
        }
    }

    fn memory(&self) -> Memory {
        let core = self.core.borrow();
        let own = core.own();
        let left = self.is_leaving() && !self.settings.gossip.rejoin_after_leave;
        // Who has failed may be back by then; when all have, they are all that is known.
        let may_be_there = |status: Status| status.is_live() || status == Status::Failed;
        let others = core.members().filter(|member| may_be_there(member.status) && member.name != own.name);
        let mut members: Vec<_> = others.map(|member| (member.name.to_string(), member.address)).collect();
        if members.is_empty() {
            // Nobody answers yet: what was known is still the best that is known.
            members.clone_from(&self.remembered.members);
        }
        Memory { members, former: core.former(), incarnation: own.incarnation, left }
    }
}

/// Above the last one, so that it says something newer than its former self. One that leaves no room for others was never ours.
fn first_incarnation(unix: Duration, last: u64) -> u64 {
    let last = if last < INCARNATION_MAX / 4 { last } else { 0 };
    unix.as_secs().min(INCARNATION_MAX / 4).max(last + 1)
}

fn check_name(name: &str) -> Result<(), String> {
    if (1..=NAME_LENGTH_MAX).contains(&name.len()) && !name.chars().any(char::is_control) {
        return Ok(());
    }
    Err(format!(
        "node_name {name:?} cannot be gossiped: it must have 1 to {NAME_LENGTH_MAX} bytes and no control characters"
    ))
}

fn encode(tags: &OwnTags) -> Result<Tags, String> {
    let tags = tags.iter().map(|(name, value)| (name.as_str(), value.as_str()));
    Tags::new(tags).map_err(|why| why.to_string())
}

/// Takes packets.
async fn receive(inner: Rc<Inner>) {
    let mut buffer = vec![0; DATAGRAM_MAX];
    loop {
        let mut outcome = inner.udp.ready().await;
        for _ in 0..DATAGRAMS_AT_ONCE {
            if outcome.is_err() {
                break;
            }
            match inner.udp.try_recv_from(&mut buffer) {
                Ok(Some((length, from))) => {
                    metrics::amount(Amount::MemberlistUdpReceived, length as u64);
                    let bytes = Bytes::copy_from_slice(&buffer[..length]);
                    inner.step(Input::Packet { from, bytes });
                }
                Ok(None) => break,
                Err(error) => outcome = Err(error),
            }
        }
        if let Err(error) = outcome {
            tracing::error!("agent: gossip cannot receive packets: {error}");
            time::sleep(REST).await;
        }
        task::yield_now().await;
    }
}

/// Tells the core when it is time.
async fn keep_time(inner: Rc<Inner>) {
    let mut told_at = time::now();
    loop {
        if time::now() >= told_at {
            told_at = time::now() + STATS_INTERVAL;
            inner.stats.store(inner.stats());
            // No timer of its own: an agent at rest is woken for this anyway.
            interval::turn(time::unix_now().as_secs());
        }
        let next = inner.core.borrow().next_deadline().map(|at| inner.origin + at);
        inner.waits_until.set(next);
        match next {
            Some(next) => drop(cores::either(inner.sooner.heard(), time::sleep_until(next)).await),
            None => inner.sooner.heard().await,
        }
        if next.is_some_and(|next| next <= time::now()) {
            inner.step(Input::Tick);
        }
    }
}

/// Keeps what a later life wants to know.
async fn remember(inner: Rc<Inner>) {
    loop {
        let _ = cores::either(inner.moved.heard(), time::sleep(MEMORY_INTERVAL_MAX)).await;
        inner.keep_memory().await;
        time::sleep(MEMORY_INTERVAL).await;
    }
}

/// Hears those who open a stream.
async fn listen(inner: Rc<Inner>, listener: Listener) {
    loop {
        let (socket, peer) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!("agent: gossip cannot take a connection: {error}");
                time::sleep(REST).await;
                continue;
            }
        };
        if inner.streams.get() >= STREAMS_MAX {
            let _ = cores::either(inner.stream_ended.heard(), time::sleep(PLACE_PATIENCE)).await;
        }
        if inner.streams.get() >= STREAMS_MAX {
            tracing::debug!("agent: {STREAMS_MAX} streams of gossip are open: one more is closed");
            continue;
        }
        metrics::count(Counter::MemberlistTcpAccept, 1);
        inner.streams.set(inner.streams.get() + 1);
        let place = Place(inner.clone());
        let Peer::Ip(from) = peer else { continue };
        task::spawn(async move {
            if time::timeout(LISTEN_LIMIT, serve(&place.0, socket.into(), from)).await.is_none() {
                tracing::debug!("agent: a stream of gossip from {from} brought nothing in time");
            }
        })
        .detach();
    }
}

/// One of the [`STREAMS_MAX`] places, given back when dropped.
struct Place(Rc<Inner>);

impl Drop for Place {
    fn drop(&mut self) {
        self.0.streams.set(self.0.streams.get() - 1);
        self.0.stream_ended.ring();
    }
}

/// Some of the [`INCOMING_MAX`] bytes, given back when dropped.
struct Share(Rc<Inner>, usize);

impl Share {
    fn of(inner: &Rc<Inner>, length: usize) -> Result<Share, String> {
        let taken = inner.incoming.get() + length;
        if taken > INCOMING_MAX {
            return Err(format!("too much is coming in for {length} bytes more"));
        }
        inner.incoming.set(taken);
        Ok(Share(inner.clone(), length))
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.0.incoming.set(self.0.incoming.get() - self.1);
    }
}

async fn serve(inner: &Rc<Inner>, mut stream: Stream, from: std::net::SocketAddr) {
    let heard = async {
        let head = streams::read_head(&mut stream).await?;
        let share = Share::of(inner, head.length)?;
        Ok((head.kind, streams::read(&mut stream, head).await?, share))
    };
    let (kind, message, _share) = match heard.await {
        Ok::<_, String>(heard) => heard,
        Err(why) => {
            // Whoever looks whether the port is open does so, too.
            tracing::debug!("agent: a stream of gossip from {from} brought nothing: {why}");
            return;
        }
    };
    let answer = match kind {
        Kind::Gossip => inner.answer_to(from, message.into()),
        Kind::Founding => Some(begin::answer(inner, &message).await.into()),
    };
    if let Some(answer) = answer {
        metrics::amount(Amount::MemberlistTcpSent, answer.len() as u64);
        // Whether it arrives is the other one's concern.
        let _ = streams::write(&mut stream, kind, &answer).await;
    }
}

impl Inner {
    fn answer_to(self: &Rc<Self>, from: std::net::SocketAddr, frame: Bytes) -> Option<Bytes> {
        self.accepted.set(self.accepted.get() + 1);
        let stream = StreamId(self.accepted.get());
        self.step(Input::Request { stream, from, frame });
        self.answer.take().filter(|(answered, _)| *answered == stream).map(|(_, frame)| frame)
    }
}

/// Does what other cores ask for.
async fn obey(inner: Rc<Inner>, mut doorway: Doorway) {
    while let Some(request) = doorway.requests.recv().await {
        match request {
            Request::Join(addresses, reply) => {
                let inner = inner.clone();
                task::spawn(async move {
                    tracing::info!("(LAN) joining: lan_addresses={addresses:?}");
                    // Who asked may have gone.
                    let _ = reply.send(join::join(&inner, &addresses).await);
                })
                .detach();
            }
            Request::ForceLeave { name, prune, reply } => {
                let known = inner.core.borrow().member(&name).is_some();
                if known {
                    inner.step(Input::ForceLeave { name, prune });
                }
                let _ = reply.send(known);
            }
            Request::Keyrings { request, relays, reply } => inner.ask_keyrings(&request, relays, reply),
            Request::WanKeyring { request, reply } => {
                let inner = inner.clone();
                task::spawn(async move {
                    let _ = reply.send(inner.ask_wan_keyring(&request).await);
                })
                .detach();
            }
            Request::Fire { event, reply } => {
                let fired = event.draft().map(|draft| inner.step(Input::Fire(draft)));
                let _ = reply.send(fired.map_err(|why| why.to_string()));
            }
            Request::NextEvent { seen, reply } => inner.await_event(seen, reply),
            Request::Locate { place, reply } => {
                let _ = reply.send(inner.places.borrow_mut().take(place));
                inner.place_told.ring();
            }
        }
    }
}

/// The digest of the servers that take part, as this agent knows them.
pub(super) fn known_servers(roster: &Roster) -> u64 {
    facts::digest(roster.servers().filter(|member| member.is_alive()).map(|member| member.id))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_life_begins_above_the_one_before() {
        let now = Duration::from_secs(1_000);
        assert_eq!(first_incarnation(now, 0), 1_000);
        assert_eq!(first_incarnation(now, 5_000), 5_001, "the clock was set back");
        assert_eq!(first_incarnation(now, u64::MAX), 1_000, "a file that was never ours");
    }

    #[test]
    fn a_name_that_cannot_be_told_is_refused_with_what_to_do() {
        assert!(check_name("node-1").is_ok());
        for name in ["", "a\nb", &"x".repeat(NAME_LENGTH_MAX + 1)] {
            assert!(check_name(name).is_err_and(|why| why.contains("node_name")), "{name:?}");
        }
    }
}
