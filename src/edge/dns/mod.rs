//! DNS: the names of Consul's catalog, over UDP and TCP, and recursion for everything else.
//!
//! A core serves its own sockets with its own answer cache; nothing is shared but the published state and
//! configuration. A query that is in the cache costs a hash, a copy, a shuffle and an id
//! ([`muster_protocol::dns::template`]); one that is not is looked up in the state ([`lookup`]) and compiled; one that
//! needs recursors becomes a task of its own, so the UDP loop never waits.

mod cache;
mod front;
pub mod lookup;
pub mod names;
mod proof;
mod recursion;
pub mod responder;
pub mod settings;
mod tcp;
#[cfg(test)]
mod tests;
mod views;

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use muster_protocol::dns::MESSAGE_SIZE_MAX;

use crate::config::Config;
use crate::consensus::Contact;
use crate::edge::fresh::{Leadership, Verdict};
use crate::runtime::net::{Listener, Udp};
use crate::runtime::publish::Published;
use crate::runtime::task::{self, Task};
use crate::runtime::{random, time};
use crate::store::State;
use crate::upstream::views::USE_INTERVAL;
use lookup::External;
use proof::Proofs;
use responder::{Circumstances, Later, Reply, Responder};
use settings::DnsSettings;

/// Most queries of a core that wait for recursors; further ones fail at once (SERVFAIL).
pub const RECURSIONS_MAX: usize = 512;

/// Most times that the servers are asked for one question: an alias may lead to the next name, and what was kept may go.
const ALIAS_ROUNDS_MAX: usize = 6;

/// Pause before a socket that the kernel reported broken is tried again.
const FAILED_SOCKET_PAUSE: Duration = Duration::from_secs(1);

/// The sockets of one core, bound before.
#[derive(Default)]
pub struct Sockets {
    /// One for each address.
    pub udp: Vec<Udp>,
    /// One for each address.
    pub tcp: Vec<Listener>,
}

/// Serves DNS on this core until `stop` ends; then all its sockets are closed.
pub async fn serve(
    config: Published<Config>,
    state: Published<State>,
    leadership: Leadership,
    sockets: Sockets,
    stop: impl Future<Output = ()>,
) {
    let service = Rc::new(Service::new(config, state, leadership));
    let mut tasks: Vec<Task<()>> = Vec::new();
    for socket in sockets.udp {
        let service = service.clone();
        let socket = Rc::new(socket);
        tasks.push(task::spawn(serve_datagrams(service, socket)));
    }
    for listener in sockets.tcp {
        tasks.push(task::spawn(tcp::serve(service.clone(), listener)));
    }
    stop.await;
}

/// Serves one socket for ever: a packet that brings a front down (a panic is logged where it happens) or an error of
/// the kernel costs what was in flight, not the service.
async fn serve_datagrams(service: Rc<Service>, socket: Rc<Udp>) {
    let address = socket.local_address();
    let address = address.map_or_else(|_| "an unknown address".to_owned(), |address| address.to_string());
    loop {
        if let Some(Err(error)) = task::spawn(front::serve(service.clone(), socket.clone())).await {
            tracing::error!(
                "DNS over UDP on {address} failed: {error}; trying again in {FAILED_SOCKET_PAUSE:?}"
            );
            time::sleep(FAILED_SOCKET_PAUSE).await;
        }
    }
}

/// What a query has to wait for.
enum Awaited {
    Recursors(Later),
    /// That the leader proves the state fresh that this question is about.
    Leader(Box<[u8]>),
    /// That the servers tell what this question is about.
    Servers(Box<[u8]>),
}

/// What the fronts of a core share.
pub(crate) struct Service {
    config: Published<Config>,
    /// The configuration that `responder` works by.
    seen: RefCell<Arc<Config>>,
    responder: RefCell<Responder>,
    state: Published<State>,
    /// Where replies over TCP are made, before they are cut to size.
    room: RefCell<Box<[u8]>>,
    /// Queries that wait for recursors.
    recursions: Cell<usize>,
    /// Queries that wait for the leader.
    proofs: Rc<Proofs>,
    /// When the answers were made anew last, on a client agent: only then is it told which rows are used.
    renewed: Cell<Instant>,
}

impl Service {
    fn new(config: Published<Config>, state: Published<State>, leadership: Leadership) -> Service {
        let seen = config.load_full();
        let responder = RefCell::new(Responder::new(DnsSettings::new(&seen), random::seed()));
        let room = RefCell::new(vec![0; MESSAGE_SIZE_MAX].into());
        let proofs = Proofs::new(leadership);
        Service {
            config,
            seen: RefCell::new(seen),
            responder,
            state,
            room,
            recursions: Cell::new(0),
            proofs,
            renewed: Cell::new(time::now()),
        }
    }

    /// Takes up a configuration that was published since.
    fn refresh(&self) {
        let is_new = !Arc::ptr_eq(&self.config.load(), &self.seen.borrow());
        if is_new {
            let config = self.config.load_full();
            self.responder.borrow_mut().configure(DnsSettings::new(&config));
            *self.seen.borrow_mut() = config;
        }
        if self.proofs.leadership().views().is_some() && self.renewed.get() + USE_INTERVAL < time::now() {
            self.responder.borrow_mut().forget();
            self.renewed.set(time::now());
        }
    }

    /// How questions stand that have just been read. To be asked behind the reading, for each batch: see
    /// [`crate::edge::fresh`].
    fn circumstances(&self, tcp: bool) -> Circumstances {
        let freshness = self.responder.borrow().freshness();
        let leadership = self.proofs.leadership();
        // What a client agent does not hold it asks for.
        let has_server = leadership.views().is_some() || leadership.contact().has_server;
        let verdict = freshness.judge(&Contact { has_server, ..leadership.contact() });
        Circumstances { unproven: matches!(verdict, Verdict::Behind(_)), ..proven(tcp) }
    }

    /// The reply to a question that could not be answered at once, if one is due.
    async fn wait(&self, awaited: Awaited, tcp: bool) -> Option<Vec<u8>> {
        match awaited {
            Awaited::Recursors(later) => self.complete(&later, tcp).await,
            Awaited::Leader(packet) => self.prove(&packet, tcp).await,
            Awaited::Servers(packet) => self.ask_servers(&packet, tcp).await,
        }
    }

    /// Answers a question of a client agent once the servers have told what it is about, or have not.
    async fn ask_servers(&self, packet: &[u8], tcp: bool) -> Option<Vec<u8>> {
        let patience = self.responder.borrow().hold_timeout();
        let asking = views::answer(self, packet, tcp);
        match time::timeout(patience, asking).await {
            Some(Some(reply)) => reply,
            _ => self.responder.borrow_mut().respond_alone(&self.state.load(), packet, proven(tcp)),
        }
    }

    /// Says which rows are in use, so that they are kept.
    fn note_uses(&self, responder: &mut Responder) {
        if let Some(views) = self.proofs.leadership().views() {
            responder.take_used().into_iter().for_each(|view| views.note(view));
        }
    }

    /// Answers a question once the state is proven fresh; the reply, if one is due.
    async fn prove(&self, packet: &[u8], tcp: bool) -> Option<Vec<u8>> {
        let patience = self.responder.borrow().hold_timeout();
        if !self.proofs.prove(patience).await {
            return self.responder.borrow_mut().respond_unproven(packet, proven(tcp));
        }
        let mut out = vec![0; MESSAGE_SIZE_MAX];
        let reply = self.responder.borrow_mut().respond(&self.state.load(), packet, proven(tcp), &mut out);
        match reply {
            Reply::Now(len) => {
                out.truncate(len);
                Some(out)
            }
            Reply::Later(later) => self.complete(&later, tcp).await,
            Reply::Unheld(_) => self.ask_servers(packet, tcp).await,
            Reply::Silence | Reply::Larger | Reply::Unproven => None,
        }
    }

    /// Asks the recursors what `later` waits for; the reply, if one is due.
    async fn complete(&self, later: &Later, tcp: bool) -> Option<Vec<u8>> {
        let how = || proven(tcp);
        let Some(_turn) = Turn::take(&self.recursions) else {
            tracing::debug!("{RECURSIONS_MAX} queries wait for recursors; one more was refused");
            return self.responder.borrow_mut().respond_failure(later, how());
        };
        if later.wanted.is_empty() {
            return match recursion::forward(&later.packet, &later.settings, tcp).await {
                Some(reply) => Some(reply),
                None => {
                    tracing::debug!("no recursor answered a query: it gets SERVFAIL");
                    self.responder.borrow_mut().respond_failure(later, how())
                }
            };
        }
        let asked = later.wanted.iter().map(|name| {
            let (name, settings) = (name.clone(), later.settings.clone());
            task::spawn(async move {
                let records = recursion::addresses(&name, &settings).await;
                (name, records)
            })
        });
        let mut external = External::new();
        for answered in asked.collect::<Vec<_>>() {
            if let Some((name, records)) = answered.await {
                external.insert(name, records);
            }
        }
        self.responder.borrow_mut().respond_with(&self.state.load(), later, &external, how())
    }
}

/// The circumstances of a question that the state here is fresh enough for.
fn proven(tcp: bool) -> Circumstances {
    Circumstances { tcp, unix_time: time::unix_now().as_secs() as u32, unproven: false }
}

/// A place among the queries that wait for recursors.
struct Turn<'a>(&'a Cell<usize>);

impl Turn<'_> {
    fn take(count: &Cell<usize>) -> Option<Turn<'_>> {
        (count.get() < RECURSIONS_MAX).then(|| {
            count.set(count.get() + 1);
            Turn(count)
        })
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
    }
}
