//! What a thousand nodes cost one server: a real process on loopback, and for each node the agent's own way to it (a connection of its own, writes
//! as the agent's driver sends them). Each figure is for all thousand together.

#![allow(missing_docs)] // criterion's macro makes a public function

use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};
use std::process::{Child, Command as Process, Stdio};
use std::sync::{Arc, Mutex, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use muster::agent::Catalog;
use muster::membership::Roster;
use muster::runtime::cores::{self, Driver};
use muster::runtime::publish::Published;
use muster::runtime::task::{self, Task};
use muster::runtime::{mesh, preflight, time};
use muster::store::command::{CatalogOp, Command, Deregister, Register};
use muster::store::model::{Check, Node, Service, Status};
use muster::upstream::{ServerAddress, Settings, Upstream};
use muster_protocol::entry::ServerId;

const NODES: u32 = 1000;
const SERVICES: usize = 3;
/// Of the first service; the others have one less.
const CHECKS: usize = 2;
const SERVER: Ipv4Addr = Ipv4Addr::new(127, 17, 0, 1);
const PORT: u16 = 8300;
const SERVER_ID: &str = "01010101-0101-4101-8101-010101010101";
/// The server has elected itself by then.
const STARTS_WITHIN: Duration = Duration::from_secs(20);
const ANSWERS_WITHIN: Duration = Duration::from_secs(20);
/// Who was not let in tries again after this.
const AGAIN_AFTER: Duration = Duration::from_millis(50);

/// Something that all nodes do; how long it takes is the answer.
#[derive(Clone, Copy)]
enum Deed {
    Register,
    /// Each asks whether the catalog still holds what it believes.
    Compare,
    /// Each has a check that changes.
    Storm,
    /// The server notes that all have failed.
    Fail,
    /// Each connects anew and compares; the server notes that all are back.
    Rejoin,
    /// None is there any more; not timed.
    Forget,
}

type Job = (Deed, mpsc::Sender<Duration>);

/// The server's process, ended when dropped.
struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended by itself; then there is nothing to end.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Server {
    fn start() -> Server {
        let address = SERVER.to_string();
        let line = ["agent", "-dev", "-node", "fan-in", "-node-id", SERVER_ID, "-bind", &address];
        let process = Process::new(env!("CARGO_BIN_EXE_muster"))
            .args(line)
            .args(["-client", &address, "-log-level", "err"])
            .stdout(Stdio::null())
            .spawn()
            .expect("the server starts");
        let (server, began) = (Server(process), Instant::now());
        while TcpStream::connect(SocketAddr::from((SERVER, PORT))).is_err() {
            assert!(began.elapsed() < STARTS_WITHIN, "no server within {STARTS_WITHIN:?}");
            thread::sleep(Duration::from_millis(50));
        }
        server
    }
}

/// One node's way to the server.
struct Way {
    catalog: Catalog,
    _dialling: Task<()>,
}

struct Fleet {
    ways: Vec<Way>,
    flipped: bool,
}

fn name(n: u32) -> String {
    format!("node-{n:04}")
}

fn address(n: u32) -> IpAddr {
    IpAddr::V4(Ipv4Addr::new(127, 18, (n / 250) as u8, (n % 250) as u8 + 1))
}

fn way(n: u32) -> Way {
    let id = format!("00000000-0000-4000-8000-{n:012x}");
    let settings = Settings { node: name(n), id, datacenter: "dc1".into(), from: Some(address(n)) };
    let servers = || {
        let address = SocketAddr::from((SERVER, PORT));
        let id = ServerId::parse(SERVER_ID).expect("a UUID");
        vec![ServerAddress { id, name: "fan-in".into(), address, is_suspected: false }]
    };
    let (upstream, dialler) = Upstream::new(settings, servers);
    let dialling = task::spawn(dialler.run());
    Way {
        catalog: Catalog::Remote { upstream, roster: Published::new(Roster::default()) },
        _dialling: dialling,
    }
}

fn node(n: u32) -> Node {
    Node { node: name(n), address: address(n).to_string(), ..Node::default() }
}

fn check(n: u32, id: &str, service: &str, status: Status) -> Check {
    let (node, id, service) = (name(n), id.to_owned(), service.to_owned());
    Check { node, check_id: id.clone(), name: id, status, service_id: service, ..Check::default() }
}

fn registrations(n: u32) -> Vec<Command> {
    let of = |s: usize| {
        let id = format!("service-{s}");
        let service =
            Service { id: id.clone(), name: id.clone(), port: 9000 + s as i64, ..Service::default() };
        let count = if s == 0 { CHECKS } else { CHECKS - 1 };
        let checks = (0..count).map(|c| check(n, &format!("{id}:{c}"), &id, Status::Passing)).collect();
        register(Register { node: node(n), service: Some(service), checks, ..Register::default() })
    };
    (0..SERVICES).map(of).map(Command::Catalog).collect()
}

fn register(register: Register) -> CatalogOp {
    CatalogOp::Register(Box::new(register))
}

fn told(n: u32, check: Check) -> CatalogOp {
    register(Register { node: node(n), skip_node_update: true, checks: vec![check], ..Register::default() })
}

/// What the leader writes when gossip tells it of all nodes at once.
fn health_of_all(status: Status) -> Vec<Command> {
    let ops = (0..NODES).map(|n| told(n, check(n, "serfHealth", "", status))).collect();
    vec![Command::CatalogBatch(ops)]
}

impl Fleet {
    fn new() -> Fleet {
        Fleet { ways: (0..NODES).map(way).collect(), flipped: false }
    }

    async fn all(&self, commands: impl Fn(u32) -> Vec<Command>) {
        let writing: Vec<_> = (0..NODES)
            .map(|n| {
                let (catalog, commands) = (self.ways[n as usize].catalog.clone(), commands(n));
                task::spawn(async move { catalog.write(&commands).await.map(drop) })
            })
            .collect();
        for written in writing {
            written.await.expect("no write panics").expect("the server takes it");
        }
    }

    async fn compare(&self) {
        let began = Instant::now();
        let asking: Vec<_> = (0..NODES)
            .map(|n| {
                let catalog = self.ways[n as usize].catalog.clone();
                task::spawn(async move {
                    // A server takes so many strangers at a time; the others come again, as agents do.
                    while let Err(why) = catalog.stamp(&name(n)).await {
                        assert!(began.elapsed() < ANSWERS_WITHIN, "{why}");
                        time::sleep(AGAIN_AFTER).await;
                    }
                })
            })
            .collect();
        for stamp in asking {
            stamp.await.expect("no question is without an answer");
        }
    }

    async fn first(&self, commands: Vec<Command>) {
        self.ways[0].catalog.write(&commands).await.expect("the server takes it");
    }

    async fn carry_out(&mut self, deed: Deed) {
        match deed {
            Deed::Register => self.all(registrations).await,
            Deed::Compare => self.compare().await,
            Deed::Storm => {
                self.flipped = !self.flipped;
                let status = if self.flipped { Status::Critical } else { Status::Passing };
                let flip = |n| vec![Command::Catalog(told(n, check(n, "service-0:0", "service-0", status)))];
                self.all(flip).await;
            }
            Deed::Fail => self.first(health_of_all(Status::Critical)).await,
            Deed::Rejoin => {
                self.ways = (0..NODES).map(way).collect();
                self.compare().await;
                self.first(health_of_all(Status::Passing)).await;
            }
            Deed::Forget => {
                let gone = |n| {
                    CatalogOp::Deregister(Deregister {
                        node: name(n),
                        service_id: String::new(),
                        check_id: String::new(),
                    })
                };
                self.first(vec![Command::CatalogBatch((0..NODES).map(gone).collect())]).await;
            }
        }
    }
}

/// The core on which all nodes live; it ends with the sender.
fn core() -> mesh::Sender<Job> {
    preflight::raise_limits();
    let (jobs, todo) = mesh::channel::<Job>(1);
    let todo = Arc::new(Mutex::new(Some(todo)));
    thread::spawn(move || {
        let ran = cores::run(Driver::Epoll, 1, move |_| {
            let todo = todo.clone();
            Box::pin(async move {
                let mut todo = todo.lock().expect("nobody else has it").take().expect("there is one core");
                let mut fleet = Fleet::new();
                while let Some((deed, done)) = todo.recv().await {
                    let began = Instant::now();
                    fleet.carry_out(deed).await;
                    done.send(began.elapsed()).expect("the bench waits");
                }
            })
        });
        ran.expect("the core runs");
    });
    jobs
}

fn fan_in(c: &mut Criterion) {
    let _server = Server::start();
    let jobs = core();
    let carry_out = |deed| {
        let (done, took) = mpsc::channel();
        assert!(jobs.try_send((deed, done)).is_ok(), "the core takes a job at a time");
        took.recv().expect("the core has done it")
    };
    let mut group = c.benchmark_group(format!("fan-in/{NODES} nodes"));
    group.throughput(Throughput::Elements(NODES.into()));
    group.sample_size(10).measurement_time(Duration::from_secs(5)).warm_up_time(Duration::from_millis(500));
    let mut measure = |name: &str, before: Option<Deed>, deed: Deed| {
        group.bench_function(name, |b| {
            b.iter_custom(|times| {
                let once = |_| {
                    before.map(carry_out);
                    carry_out(deed)
                };
                (0..times).map(once).sum()
            });
        });
    };
    carry_out(Deed::Register);
    measure("registration", Some(Deed::Forget), Deed::Register);
    measure("steady state: all compare", None, Deed::Compare);
    measure("storm: each has a check that changes", None, Deed::Storm);
    measure("all fail", Some(Deed::Rejoin), Deed::Fail);
    measure("all are back", Some(Deed::Fail), Deed::Rejoin);
    group.finish();
}

criterion_group!(benches, fan_in);
criterion_main!(benches);
