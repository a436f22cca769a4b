//! One agent of the load: the agent's own membership, way to the servers, registry and driver, without HTTP and DNS of its own.

use std::future::pending;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;

use muster::agent::{self, Agent, Catalog, Door, Hooks, LocalState, Parts, identity};
use muster::config::definition::{CheckDefinition, ServiceDefinition};
use muster::config::sources::{Sources, agent_flags};
use muster::config::{Config, flags};
use muster::membership::{self, Membership, Roster, Sockets};
use muster::runtime::net::{Endpoint, UnixAccess, guard_bind, guard_bind_udp};
use muster::runtime::publish::Published;
use muster::runtime::random;
use muster::runtime::task::{self, Task};
use muster::upstream::{self, Upstream};
use muster_protocol::entry::ServerId;

/// Where agents gossip, each at an address of its own.
const PORT: u16 = 8301;
/// TTL of the checks: nobody but the load tells their status.
const TTL_NS: i64 = 24 * 3600 * 1_000_000_000;
/// Agents in one third byte of the address.
const PER_NET: u32 = 250;
/// Agents at most: 127.20.0.1 to 127.219.255.250.
pub const AGENTS_MAX: u32 = 32_000;

/// What the load is.
#[derive(Clone, Debug)]
pub struct Load {
    /// Servers, as `retry_join` takes them.
    pub servers: Vec<String>,
    pub datacenter: String,
    pub services: usize,
    pub checks: usize,
    /// Share of the gossip packets to each agent that are lost.
    pub loss: f64,
}

/// A running agent. Dropping it ends it without a word, as `kill -9` does.
pub struct Running {
    pub door: Door,
    pub upstream: Upstream,
    pub roster: Published<Roster>,
    _tasks: Vec<Task<()>>,
}

/// The name of an agent's node.
pub fn name(n: u32) -> String {
    format!("load-{n:05}")
}

/// The tag by which DNS tells one agent's services from those of the others.
pub fn tag(n: u32) -> String {
    format!("a{n}")
}

/// The name of a service; each agent has one of each.
pub fn service(s: usize) -> String {
    format!("load-service-{s}")
}

/// The ID of a check.
pub fn check(c: usize) -> String {
    format!("load-check-{c}")
}

/// Where an agent is.
pub fn address(n: u32) -> IpAddr {
    let [_, high, low, _] = ((n / PER_NET) << 8).to_be_bytes();
    IpAddr::V4(Ipv4Addr::new(127, 20 + high, low, (n % PER_NET) as u8 + 1))
}

/// Starts an agent.
///
/// # Errors
/// Its address is taken, or its configuration refused.
pub async fn start(n: u32, load: &Load, id: &str) -> Result<Running, String> {
    let config = config(n, load)?;
    let sockets = sockets(SocketAddr::new(address(n), PORT), load.loss)?;
    let roster = Published::new(Roster::default());
    let (upstream, dialler) = ask_servers(n, load, id, &roster);
    let server_id = ServerId::parse(id).ok_or("a node ID is a UUID")?;
    let settings = membership::Settings::of(&config, server_id);
    let node = identity::node_row(&config, id.to_owned());
    let catalog = Catalog::Remote { upstream: upstream.clone(), roster: roster.clone() };
    let local = Published::new(LocalState::of_node(&name(n)));
    let parts = Parts { config: Arc::new(config), node, local, catalog, hooks: hooks() };
    let agent = Agent::start(parts).await?;
    let (met, doubted) = (agent.doubts(), agent.doubts());
    let said = std::cell::Cell::new(None);
    let own = name(n);
    let heard = move |roster: &Roster| {
        let incarnation = roster.named(&own).map(|own| own.incarnation);
        if said.replace(incarnation).is_some_and(|before| Some(before) != incarnation) {
            doubted();
        }
    };
    let (_, joins) = membership::door();
    let membership = Membership::open(settings, sockets, None, roster.clone(), joins, heard).await?;
    let (door, doorway) = agent::door();
    let tasks = vec![
        task::spawn(async move {
            let why = membership.run().await;
            eprintln!("agent {n}: membership has ended: {why}");
        }),
        task::spawn(dialler.run_telling(met)),
        task::spawn(agent.run(doorway, pending())),
    ];
    Ok(Running { door, upstream, roster, _tasks: tasks })
}

fn config(n: u32, load: &Load) -> Result<Config, String> {
    let address = address(n).to_string();
    let (name, dc) = (name(n), load.datacenter.as_str());
    // Nothing is read from or written to a data folder: it is dropped below.
    let mut line = vec!["-node", &name, "-bind", &address, "-datacenter", dc, "-data-dir", "/nonexistent"];
    load.servers.iter().for_each(|server| line.extend(["-retry-join", server]));
    let line: Vec<String> = line.into_iter().map(str::to_owned).collect();
    let parsed = flags::parse(&agent_flags(), &line).map_err(|error| format!("{error:?}"))?;
    let sources = Sources::from_flags(&parsed).map_err(|error| error.to_string())?;
    let mut config = sources.load().map_err(|error| error.to_string())?;
    config.data_dir = None;
    config.services = (0..load.services).map(|s| service_of(n, s, load)).collect();
    Ok(config)
}

fn service_of(n: u32, s: usize, load: &Load) -> ServiceDefinition {
    let checks = (0..load.checks).filter(|c| c % load.services == s).map(|c| CheckDefinition {
        id: check(c),
        name: format!("check {c} of the load"),
        status: "passing".to_owned(),
        ttl_ns: TTL_NS,
        ..CheckDefinition::default()
    });
    ServiceDefinition {
        id: service(s),
        name: service(s),
        tags: vec![tag(n)],
        port: 9000 + s as i64,
        checks: checks.collect(),
        ..ServiceDefinition::default()
    }
}

fn sockets(address: SocketAddr, loss: f64) -> Result<Sockets, String> {
    let udp = guard_bind_udp(address, 1).map_err(|error| error.to_string())?.pop();
    let tcp = guard_bind(&Endpoint::Tcp(address), 1, &UnixAccess::default());
    let tcp = tcp.map_err(|error| error.to_string())?.pop();
    let (Some(udp), Some(tcp)) = (udp, tcp) else { return Err("no socket".to_owned()) };
    if loss > 0.0 {
        udp.lose(loss).map_err(|error| format!("packets cannot be lost: {error}"))?;
    }
    Ok(Sockets { udp, tcp })
}

fn ask_servers(n: u32, load: &Load, id: &str, roster: &Published<Roster>) -> (Upstream, upstream::Dialler) {
    let settings = upstream::Settings {
        node: name(n),
        id: id.to_owned(),
        datacenter: load.datacenter.clone(),
        from: Some(address(n)),
    };
    let (known, members, datacenter) = (roster.clone(), roster.clone(), load.datacenter.clone());
    let (upstream, dialler) =
        Upstream::new(settings, move || upstream::servers_of(&known.load(), &datacenter));
    (upstream, dialler.among(move || members.load().len()))
}

fn hooks() -> Hooks {
    Hooks {
        reload: Box::new(|| Box::pin(async { Err("agents of the load have no files".to_owned()) })),
        publish: Box::new(|_| {}),
        leave: Box::new(|| Box::pin(async {})),
        end: Box::new(|| {}),
    }
}

/// A node ID.
pub fn new_id() -> String {
    random::uuid()
}
