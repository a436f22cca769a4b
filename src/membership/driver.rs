//! Drives the table of the known servers: talks, listens, publishes the roster, begins a cluster.

use std::cell::{Cell, RefCell};
use std::path::PathBuf;
use std::rc::Rc;
use std::time::Duration;

use muster_protocol::entry::ServerId;
use muster_protocol::rpc::{Card, Founding, Introduction, Overture};

use super::cluster::Cluster;
use super::door::{Doorway, Request};
use super::known::{Known, News, Time};
use super::memory::Memory;
use super::roster::{Difference, MemberStatus, Roster};
use super::{begin, join, talk};
use crate::config::GossipConfig;
use crate::consensus::Proposals;
use crate::runtime::bell::Bell;
use crate::runtime::net::{Listener, Stream};
use crate::runtime::publish::Published;
use crate::runtime::{cores, task, time};

/// Talks that others begin, at once; one more is closed.
const TALKS_MAX: usize = 64;
/// Rest after the kernel could not give a connection out.
const REST: Duration = Duration::from_millis(100);
/// How often the members of the last run are looked for while nobody answers.
const LOOK_FOR_INTERVAL: Duration = Duration::from_secs(5);
/// How often the table is looked at when nobody is due: members that are long gone are forgotten.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);

/// What membership needs to know.
pub struct Settings {
    /// This server.
    pub own: Card,
    /// It makes itself a cluster without saying so to others: development mode.
    pub alone: bool,
    /// Port of addresses that name none.
    pub default_port: u16,
    /// Joining, and how long who is gone stays in the roster.
    pub gossip: GossipConfig,
    /// Where the members are kept across restarts.
    pub data_dir: Option<PathBuf>,
}

/// The membership of this server, on the control core. Clones are handles to the same.
#[derive(Clone)]
pub struct Membership(Rc<Inner>);

pub(super) struct Inner {
    pub settings: Settings,
    pub cluster: Cluster,
    pub proposals: Proposals,
    pub known: RefCell<Known>,
    /// Rung when the beginning of a cluster may have come nearer.
    pub nearer: Bell,
    started: Duration,
    roster: Published<Roster>,
    /// Told of each new roster.
    changed: Box<dyn Fn(&Roster)>,
    /// Rung when somebody may be due.
    due: Bell,
    /// Rung when the roster has changed.
    moved: Bell,
    talks: Cell<usize>,
    leaving: Cell<bool>,
}

impl Membership {
    /// Of a server that knows nobody yet. `changed` is told of each new roster, on this core.
    pub fn new(
        settings: Settings,
        cluster: Cluster,
        proposals: Proposals,
        roster: Published<Roster>,
        changed: impl Fn(&Roster) + 'static,
    ) -> Membership {
        let inner = Inner {
            known: RefCell::new(Known::new(settings.own.id)),
            settings,
            cluster,
            proposals,
            nearer: Bell::default(),
            started: time::unix_now(),
            roster,
            changed: Box::new(changed),
            due: Bell::default(),
            moved: Bell::default(),
            talks: Cell::new(0),
            leaving: Cell::new(false),
        };
        inner.publish();
        Membership(Rc::new(inner))
    }

    /// Runs until it must not go on; says why. Dropping the future ends everything but talks under way.
    pub async fn run(&self, listener: Listener, doorway: Doorway) -> String {
        let inner = self.0.clone();
        let _tasks = [
            task::spawn(listen(inner.clone(), listener)),
            task::spawn(talk_to_all(inner.clone())),
            task::spawn(obey(inner.clone(), doorway)),
            task::spawn(begin::run(inner.clone())),
            task::spawn(remember(inner.clone())),
        ];
        if !inner.settings.gossip.start_join.is_empty() {
            tracing::info!("Joining cluster...: cluster=LAN");
            match join::join(&inner, &inner.settings.gossip.start_join).await {
                Ok(joined) => tracing::info!(
                    "Join completed. Initial agents synced with: cluster=LAN agent_count={joined}"
                ),
                Err(why) => return why.to_string(),
            }
        }
        join::retry(inner).await
    }

    /// Tells everybody that this server leaves. Whoever does not hear it now sees it fail.
    pub async fn leave(&self) {
        self.0.leaving.set(true);
        self.0.moved.ring();
        let said = self.0.introduction();
        let addresses = self.0.known.borrow().addresses();
        let talks: Vec<_> = addresses
            .into_iter()
            .map(|to| {
                let said = said.clone();
                task::spawn(async move { talk::introduce(to, &said).await })
            })
            .collect();
        for talk in talks {
            let _ = talk.await;
        }
    }
}

impl Inner {
    /// What this server says of itself and of others.
    pub fn introduction(&self) -> Introduction {
        Introduction { own: self.card(), others: self.known.borrow().cards(), refusal: String::new() }
    }

    /// This server, as it is now.
    pub fn card(&self) -> Card {
        let status = if self.leaving.get() { MemberStatus::Left } else { MemberStatus::Alive };
        let own = &self.settings.own;
        Card {
            started_ms: own.started_ms.max(self.known.borrow().refuted_ms()),
            cluster: self.cluster.id(),
            has_log: !self.proposals.standing().blank,
            status: status as u8,
            ..own.clone()
        }
    }

    /// Whether nobody else answers.
    pub fn is_alone(&self) -> bool {
        self.known.borrow().is_alone()
    }

    /// Takes in what somebody said.
    ///
    /// # Errors
    /// It cannot be a member here, or takes us for none.
    pub fn hear(&self, said: &Introduction) -> Result<(), String> {
        if !said.refusal.is_empty() {
            return Err(said.refusal.clone());
        }
        let own = self.card();
        let news = self.known.borrow_mut().hear(&own, said, clocks())?;
        self.react(news);
        Ok(())
    }

    /// Publishes what is new, and tells everybody.
    pub fn react(&self, news: News) {
        if news == News::Roster {
            self.publish();
            self.known.borrow_mut().spread(time::now());
        }
        self.due.ring();
        self.nearer.ring();
    }

    fn publish(&self) {
        let roster = self.known.borrow().roster(&self.card(), self.started);
        log_changes(&self.roster.load(), &roster);
        (self.changed)(&roster);
        self.roster.store(roster);
        self.moved.ring();
    }
}

fn clocks() -> Time {
    Time { now: time::now(), unix: time::unix_now() }
}

/// The lines that operators know from Consul.
fn log_changes(old: &Roster, new: &Roster) {
    for difference in new.changes_since(old) {
        let (what, member) = match difference {
            Difference::Changed { old, new } if old.status == new.status => continue,
            Difference::Came(new) | Difference::Changed { new, .. } => match new.status {
                MemberStatus::Alive => ("Join", new),
                MemberStatus::Left | MemberStatus::Leaving => ("Leave", new),
                MemberStatus::Failed => ("Failed", new),
            },
            Difference::Went(old) => ("Reap", old),
        };
        let (name, ip) = (&member.name, member.ip);
        tracing::info!(target: "agent.server.serf.lan", "serf: EventMember{what}: {name} {ip}");
    }
}

/// Looks for the members of the last run, then keeps those of this one. A server that has left is to be forgotten, and
/// forgets, unless it is told to come back by itself (`rejoin_after_leave`).
async fn remember(inner: Rc<Inner>) {
    let mut memory = Memory::open(inner.settings.data_dir.as_deref()).await;
    inner.known.borrow_mut().look_for(memory.addresses());
    inner.due.ring();
    loop {
        let _ = cores::either(inner.moved.heard(), time::sleep(LOOK_FOR_INTERVAL)).await;
        if inner.is_alone() && !inner.leaving.get() {
            inner.known.borrow_mut().look_for(memory.addresses());
            inner.due.ring();
        }
        let forgets = inner.leaving.get() && !inner.settings.gossip.rejoin_after_leave;
        let addresses = if forgets { Vec::new() } else { inner.known.borrow().addresses() };
        // Nobody answers yet: what was known is still the best that is known.
        if forgets || !addresses.is_empty() {
            memory.keep(addresses).await;
        }
    }
}

/// Talks to each one that is due, all at the same time.
async fn talk_to_all(inner: Rc<Inner>) {
    let mut due = Vec::new();
    loop {
        inner.known.borrow_mut().due(time::now(), &mut due);
        for (id, to) in due.drain(..) {
            let inner = inner.clone();
            task::spawn(async move {
                let answer = talk::introduce(to, &inner.introduction()).await;
                talked(&inner, id, answer);
            })
            .detach();
        }
        let forgotten = inner.settings.gossip.reconnect_timeout;
        let news = inner.known.borrow_mut().forget(time::unix_now(), forgotten);
        if news == News::Roster {
            inner.publish();
        }
        let look = time::now() + LOOK_INTERVAL;
        let next = inner.known.borrow().next_deadline().map_or(look, |next| next.min(look));
        let _ = cores::either(inner.due.heard(), time::sleep_until(next)).await;
    }
}

fn talked(inner: &Inner, id: Option<ServerId>, answer: Result<Introduction, String>) {
    let heard = match &answer {
        // Somebody else may have got its address: then it is not there.
        Ok(answer) if id.is_none_or(|id| id == answer.own.id) => inner.hear(answer),
        Ok(answer) => {
            let _ = inner.hear(answer);
            Err(format!("server {} ({}) is there instead", answer.own.name, answer.own.id))
        }
        Err(why) => Err(why.clone()),
    };
    let Some(id) = id else { return };
    inner.known.borrow_mut().talked(id);
    if let Err(why) = heard {
        tracing::debug!(target: "agent.server.serf.lan", "no word from {id}: {why}");
        let news = inner.known.borrow_mut().miss(id, clocks());
        inner.react(news);
    }
}

/// Hears those who talk to us.
async fn listen(inner: Rc<Inner>, listener: Listener) {
    loop {
        let (socket, peer) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(target: "agent.server.serf.lan", "cannot take a connection: {error}");
                time::sleep(REST).await;
                continue;
            }
        };
        if inner.talks.get() >= TALKS_MAX {
            continue;
        }
        inner.talks.set(inner.talks.get() + 1);
        let place = Place(inner.clone());
        let ip = peer.ip().map_or_else(String::new, |ip| ip.to_string());
        task::spawn(async move {
            if let Err(why) = answer(&place.0, socket.into()).await {
                tracing::warn!(target: "agent.server.serf.lan", "what {ip} said is refused: {why}");
            }
        })
        .detach();
    }
}

/// One of the [`TALKS_MAX`] places, given back when dropped.
struct Place(Rc<Inner>);

impl Drop for Place {
    fn drop(&mut self) {
        self.0.talks.set(self.0.talks.get() - 1);
    }
}

async fn answer(inner: &Rc<Inner>, mut stream: Stream) -> Result<(), String> {
    let mut out = Vec::new();
    let said = match talk::listen(&mut stream).await {
        Ok(said) => said,
        Err(why) => {
            // Whoever looks whether the port is open does so, too.
            tracing::debug!(target: "agent.server.serf.lan", "a connection brought nothing: {why}");
            return Ok(());
        }
    };
    let outcome = match said {
        Overture::Introduction(said) => {
            let outcome = inner.hear(&said);
            let refusal = outcome.as_ref().err().cloned().unwrap_or_default();
            Introduction { refusal, ..inner.introduction() }.encode(true, &mut out);
            outcome
        }
        Overture::Founding(founding) => {
            let outcome = begin::take(inner, founding).await;
            Founding::encode_answer(outcome.as_ref().err().map_or("", String::as_str), &mut out);
            outcome
        }
    };
    talk::answer(&mut stream, &out).await;
    outcome
}

/// Does what other cores ask for.
async fn obey(inner: Rc<Inner>, mut doorway: Doorway) {
    while let Some(request) = doorway.0.recv().await {
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
            Request::ForceLeave(name, reply) => {
                let own = name.eq_ignore_ascii_case(&inner.settings.own.name);
                let given_up = inner.known.borrow_mut().give_up(&name, time::unix_now());
                inner.react(given_up.unwrap_or(News::None));
                let _ = reply.send(own || given_up.is_some());
            }
        }
    }
}
