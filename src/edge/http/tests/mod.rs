//! The reactor on real sockets, on both drivers of the runtime.

mod agents;
mod blocking;
mod exchange;
mod leader;
mod tls;

use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use futures_lite::{AsyncReadExt as _, AsyncWriteExt as _};

use super::exchange::{Handled, Outcome, Request, Response, Streaming};
use super::router::{BodyLimit, Route, Router, Scope};
use super::server::{Door, Server};
use super::{Edge, routes};
use crate::agent::{self, LocalState};
use crate::config::build::Host;
use crate::config::sources::{Sources, agent_flags};
use crate::config::{Config, flags};
use crate::consensus::{self, Contact, Proposals};
use crate::edge::fresh::Leadership;
use crate::edge::fresh::puppet::Puppet;
use crate::runtime::cores::{self, Driver, Shutdown};
use crate::runtime::net::{Endpoint, Listener, Stream, UnixAccess, guard_bind};
use crate::runtime::publish::Published;
use crate::runtime::tally::Tally;
use crate::runtime::{mesh, preflight, task, time};
use crate::server::rpc::Guest;
use crate::store::command::{Command, KvOp};
use crate::store::model::KvEntry;
use muster_protocol::http::Method;
use rustls::ServerConfig;

/// How long a test waits for what must come.
const PATIENCE: Duration = Duration::from_secs(20);

/// The configuration of a development agent.
pub(super) fn config() -> Config {
    let words = ["-dev", "-node=n", "-bind=127.0.0.1", "-advertise=127.0.0.1"].map(str::to_owned);
    let parsed = flags::parse(&agent_flags(), &words).expect("flags");
    let host = Host { name: "n".to_owned(), interfaces: Vec::new() };
    Sources::from_flags(&parsed).expect("sources").load_on(&host).expect("configuration")
}

/// A server on one core with everything behind it.
pub(super) struct Site {
    pub address: SocketAddr,
    pub config: Published<Config>,
    pub proposals: Proposals,
    pub puppet: Rc<Puppet>,
    pub shutdown: Shutdown,
    pub guests: mesh::Sender<Guest>,
    pub running: task::Task<()>,
    _consensus: task::Task<()>,
}

/// What a site is to be.
#[derive(Clone, Copy)]
pub(super) struct Setup {
    pub config: fn() -> Config,
    /// Whether the agent is a server.
    pub server: bool,
    /// For HTTPS.
    pub tls: Option<fn(&Config) -> Arc<ServerConfig>>,
    /// Who leads, where a test wants to say so itself.
    pub contact: Option<Contact>,
}

impl Setup {
    pub(super) const PLAIN: Setup = Setup { config, server: true, tls: None, contact: None };
}

impl Site {
    fn open(setup: Setup) -> Site {
        let config = (setup.config)();
        let (mut proposals, state, runner) = consensus::open("127.0.0.1:8300".into());
        if !setup.server {
            proposals = Proposals::without_server();
        }
        let tls = setup.tls.map(|make| make(&config));
        let (changed, changes) = mesh::channel(64);
        let consensus = task::spawn(runner.run(vec![changed]));
        let config = Published::new(config);
        let local = Published::new(LocalState::default());
        let mut edge = Edge::new(config.clone(), state, proposals.clone(), local, agent::door().0);
        let puppet = Rc::new(Puppet::new(setup.contact.unwrap_or_default()));
        if setup.contact.is_some() {
            edge.leadership = Leadership::Played(puppet.clone());
        }
        let endpoint = Endpoint::Tcp("127.0.0.1:0".parse().expect("address"));
        let listener: Listener =
            guard_bind(&endpoint, 1, &UnixAccess::default()).expect("a free port").remove(0);
        let Endpoint::Tcp(address) = *listener.endpoint() else { panic!("asked for TCP") };
        let shutdown = Shutdown::new();
        let server = Server::new(Rc::new(edge), router(), vec![Door { listener, tls }], Tally::new());
        let (guests, arriving) = mesh::channel(8);
        let running = task::spawn(server.with_guests(Some(arriving)).run(changes, shutdown.clone()));
        Site { address, config, proposals, puppet, shutdown, guests, running, _consensus: consensus }
    }

    pub(super) async fn client(&self) -> Client {
        let stream = Stream::connect(&Endpoint::Tcp(self.address), PATIENCE).await.expect("connects");
        Client { stream, unread: Vec::new() }
    }

    pub(super) async fn put(&self, key: &str, value: &str) {
        let entry = KvEntry { key: key.into(), value: value.into(), ..KvEntry::default() };
        self.proposals.propose(&Command::Kv(KvOp::Set(entry))).await.expect("applied");
    }
}

/// Runs a test with a server on each driver that this machine has.
pub(super) fn with_site<F: Future<Output = ()> + 'static>(test: fn(Site) -> F) {
    with_site_as(Setup::PLAIN, test);
}

pub(super) fn with_site_of<F: Future<Output = ()> + 'static>(config: fn() -> Config, test: fn(Site) -> F) {
    with_site_as(Setup { config, ..Setup::PLAIN }, test);
}

pub(super) fn with_site_as<F: Future<Output = ()> + 'static>(setup: Setup, test: fn(Site) -> F) {
    let mut drivers = vec![Driver::Epoll];
    if preflight::probe_io_uring().is_ok() {
        drivers.push(Driver::Glommio);
    }
    for driver in drivers {
        cores::run(driver, 1, move |_| -> Pin<Box<dyn Future<Output = ()>>> {
            Box::pin(async move {
                let site = Site::open(setup);
                time::timeout(PATIENCE, test(site)).await.expect("the test ends in time");
            })
        })
        .expect("the core runs to its end");
    }
}

/// A client that speaks bytes.
pub(super) struct Client {
    stream: Stream,
    unread: Vec<u8>,
}

/// An answer as read.
#[derive(Debug)]
pub(super) struct Answer {
    pub status: u16,
    pub head: String,
    pub body: Vec<u8>,
}

impl Answer {
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| {
            let (found, value) = line.split_once(": ")?;
            found.eq_ignore_ascii_case(name).then_some(value)
        })
    }

    pub(super) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

impl Client {
    pub(super) async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.stream.write_all(bytes.as_ref()).await.expect("sent");
    }

    pub(super) async fn get(&mut self, target: &str) -> Answer {
        self.send(format!("GET {target} HTTP/1.1\r\nHost: x\r\n\r\n")).await;
        self.answer().await
    }

    /// Reads one answer by its `Content-Length`, or up to the end when it has none.
    pub(super) async fn answer(&mut self) -> Answer {
        let end = loop {
            if let Some(at) = self.unread.windows(4).position(|w| w == b"\r\n\r\n") {
                break at + 4;
            }
            assert!(self.more().await, "closed within a head: {:?}", String::from_utf8_lossy(&self.unread));
        };
        let head = String::from_utf8(self.unread.drain(..end).collect()).expect("heads are text");
        let status = head[9..12].parse().expect("a status");
        let mut answer = Answer { status, head, body: Vec::new() };
        match answer.header("Content-Length").map(|length| length.parse::<usize>().expect("a length")) {
            Some(length) => {
                while self.unread.len() < length {
                    assert!(self.more().await, "closed within a body");
                }
                answer.body = self.unread.drain(..length).collect();
            }
            None if status == 100 => {}
            None => {
                while self.more().await {}
                answer.body = std::mem::take(&mut self.unread);
            }
        }
        answer
    }

    /// Whether the server has closed, once everything was read.
    pub(super) async fn is_closed(&mut self) -> bool {
        !self.more().await
    }

    async fn more(&mut self) -> bool {
        let mut buffer = [0; 16 << 10];
        let read = self.stream.read(&mut buffer).await.unwrap_or(0);
        self.unread.extend_from_slice(&buffer[..read]);
        read > 0
    }
}

/// The real table and a few routes that do what no area does.
fn router() -> Router {
    let mut router = routes();
    let routes = [
        Route::new("/test/panic", &[Method::Get], |_, _| panic!("a handler's mistake")),
        Route::new("/test/later", &[Method::Get], later),
        Route::new("/test/stream", &[Method::Get], stream),
        Route::new("/test/big", &[Method::Get], big),
        Route::new("/test/echo", &[Method::Put], echo).body(BodyLimit::KvValue),
    ];
    router.add(&routes, Scope::Server);
    router
}

fn later(_: &Rc<Edge>, request: &Request) -> Handled {
    let fails = request.query.has("panic");
    Ok(Outcome::later(async move {
        time::sleep(Duration::from_millis(5)).await;
        assert!(!fails, "a task's mistake");
        Ok(Response::text(200, "late"))
    }))
}

fn stream(_: &Rc<Edge>, _: &Request) -> Handled {
    let chunks = (0..3).map(|number| bytes::Bytes::from(format!("part {number}\n")));
    let source = Box::pin(futures_lite::stream::iter(chunks.map(Ok).collect::<Vec<_>>()));
    Ok(Outcome::Stream(Streaming { head: Response::text(200, ""), source }))
}

/// Larger than any socket buffer, so that it leaves in parts.
fn big(_: &Rc<Edge>, _: &Request) -> Handled {
    Ok(Response::json_bytes(vec![b'x'; BIG]).into())
}

pub(super) const BIG: usize = 24 << 20;

fn echo(_: &Rc<Edge>, request: &Request) -> Handled {
    Ok(Response::json_bytes(request.body.clone()).into())
}
