//! One running agent: which task on which core, start and stop order.
//!
//! Start: limits, data folder, addresses (all taken before anything runs, so that a second agent is refused
//! cleanly), cores. Core 0 is *control*: consensus, the leader's duties, the agent's own services and checks, signals.
//! The other cores are *edge*: HTTP and DNS. With one core, both roles share it.
//!
//! Stop: one flag is raised; edges close their listeners and connections, the control core closes the agent's files,
//! then the cores end.

mod client;
mod control;
mod doors;
mod heed;
mod server;
mod signals;

use std::fmt;
use std::io;
use std::net::IpAddr;
use std::rc::Rc;
use std::sync::{Arc, Mutex, PoisonError};

use crate::agent::{self, Door, Doorway, LocalState, identity};
use crate::config::{Config, RuntimeChoice};
use crate::consensus::{self, Proposals};
use crate::edge::fresh::Leadership;
use crate::edge::{dns, http};
use crate::membership::{self, Roster};
use crate::runtime::cores::{self, CoreId, Driver, PerCore, Shutdown, StartError};
use crate::runtime::net::{BindError, Listener};
use crate::runtime::publish::Published;
use crate::runtime::tally::Tally;
use crate::runtime::{mesh, preflight, process, task};
use crate::server::rpc::{GUESTS_WAITING_MAX, Guest};
use crate::store::{State, Touched};
use crate::upstream::views::{self, Keeper, Views};
use crate::upstream::{self, Dialler, Upstream};
use doors::Doors;

/// Batches of changes that wait for an edge core; the control core waits for one that lags further behind.
const CHANGES_WAITING_MAX: usize = 1024;

/// How an agent ended, for its exit code.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum End {
    /// It left: exit code 0.
    Graceful,
    /// It was told to stop without leaving: exit code 1, as Consul's.
    Stopped,
}

/// Why an agent did not start, or ended early.
#[derive(Debug)]
pub enum Failure {
    /// The data folder cannot be used.
    DataDir(io::Error),
    /// An address cannot be taken.
    Bind(BindError),
    /// A listener or its certificate cannot be set up.
    Listener(String),
    /// The pid file cannot be written.
    PidFile(io::Error),
    /// The cores did not start.
    Cores(StartError),
    /// The agent's services, checks or files are refused.
    Agent(String),
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Failure::DataDir(error) => write!(f, "cannot use the data_dir: {error}"),
            Failure::Bind(error) => error.fmt(f),
            Failure::Listener(text) | Failure::Agent(text) => f.write_str(text),
            Failure::PidFile(error) => write!(f, "cannot write the pid_file: {error}"),
            Failure::Cores(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for Failure {}

/// Reads the configuration again from where it came from. The error is for the operator.
pub type Reload = Arc<dyn Fn() -> Result<Config, String> + Send + Sync>;

/// Runs an agent until it is told to stop. The caller has called [`crate::runtime::signal::block_in_main`] before any thread started.
///
/// # Errors
/// See [`Failure`].
pub fn run(config: Config, reload: Reload) -> Result<End, Failure> {
    preflight::raise_limits();
    let _data_dir = match &config.data_dir {
        Some(folder) => Some(identity::lock_data_dir(folder).map_err(Failure::DataDir)?),
        None => None,
    };
    let driver = choose_driver(config.runtime)?;
    let layout = Layout::of(&config);
    let edges = doors::open(&config, layout.edges)?;
    let gossip = doors::open_gossip(&config)?;
    let links = config.server.then(|| doors::open_server(&config)).transpose()?;
    let _pid_file = config.pid_file.clone().map(PidFile::write).transpose().map_err(Failure::PidFile)?;
    announce(&config, driver, &layout);

    let choice = config.runtime;
    let plan = Plan::new(config, reload, layout, edges, gossip, links);
    let ending = plan.ending.clone();
    let run_on = |driver| {
        let plan = plan.clone();
        cores::run(driver, layout.cores, move |core| Box::pin(core_main(plan.clone(), core)))
    };
    let ran = match run_on(driver) {
        // The probe asks for one small ring; here some limit ended at more of them, before any core ran its part.
        Err(StartError::Glommio(why)) if choice == RuntimeChoice::Auto => {
            tracing::warn!("agent: running on epoll because glommio did not start: {why}");
            run_on(Driver::Epoll)
        }
        ran => ran,
    };
    // Nobody waits for the checks that are still running.
    process::kill_all();
    ran.map_err(Failure::Cores)?;
    ending.outcome()
}

fn choose_driver(choice: RuntimeChoice) -> Result<Driver, Failure> {
    let requested = match choice {
        RuntimeChoice::Auto => None,
        RuntimeChoice::Glommio => Some(Driver::Glommio),
        RuntimeChoice::Epoll => Some(Driver::Epoll),
    };
    Driver::choose(requested).map_err(Failure::Cores)
}

/// How many cores there are and which of them are edges.
#[derive(Clone, Copy)]
struct Layout {
    cores: usize,
    edges: usize,
}

impl Layout {
    /// Servers take all CPUs they may, clients one, unless the configuration says how many.
    fn of(config: &Config) -> Layout {
        let cores = config.cores.unwrap_or(if config.server { cores::available() } else { 1 }).max(1);
        Layout { cores, edges: (cores - 1).max(1) }
    }

    /// The place of a core among the edges, if it is one.
    fn edge_of(self, core: CoreId) -> Option<usize> {
        let core = core.0 as usize;
        if self.cores == 1 { Some(0) } else { core.checked_sub(1) }
    }
}

fn announce(config: &Config, driver: Driver, layout: &Layout) {
    tracing::info!(
        node = %config.node_name,
        datacenter = %config.datacenter,
        server = config.server,
        runtime = %driver,
        cores = layout.cores,
        "agent: starting Muster"
    );
    if !config.unsupported_keys.is_empty() {
        tracing::warn!(keys = %config.unsupported_keys.join(", "), "agent: keys accepted whose feature is not there yet");
    }
    for warning in &config.warnings {
        tracing::warn!("agent: {warning}");
    }
}

/// Everything the cores need, made before they run. Each core has a clone.
#[derive(Clone)]
struct Plan {
    layout: Layout,
    config: Published<Config>,
    reload: Reload,
    state: Published<State>,
    local: Published<LocalState>,
    proposals: Proposals,
    /// The way to the servers, on an agent that is none.
    upstream: Option<Upstream>,
    /// On a client.
    views: Option<Views>,
    roster: Published<Roster>,
    door: Door,
    members: membership::Door,
    shutdown: Shutdown,
    /// Raised once the agent holds its services and checks: before that its answers would be wrong.
    ready: Shutdown,
    ending: Ending,
    control: PerCore<Control>,
    edges: PerCore<EdgeSeat>,
    /// HTTP connections of each client address, which the limit for one client is about.
    clients: Tally<IpAddr>,
}

/// What the control core alone owns.
struct Control {
    pool: PoolSeat,
    /// None on a client.
    server: Option<server::Seat>,
    /// What asks the servers of a client, and what keeps its state.
    asker: Option<(Dialler, Keeper)>,
    doorway: Doorway,
    changes: Vec<mesh::Sender<Arc<Touched>>>,
}

/// What membership alone owns before it starts.
struct PoolSeat {
    sockets: membership::Sockets,
    doorway: membership::Doorway,
}

/// What one edge core alone owns.
struct EdgeSeat {
    doors: Doors,
    /// Agents' connections, on a server.
    guests: Option<mesh::Receiver<Guest>>,
    changes: mesh::Receiver<Arc<Touched>>,
}

impl Plan {
    fn new(
        config: Config,
        reload: Reload,
        layout: Layout,
        doors: Vec<Doors>,
        gossip: membership::Sockets,
        links: Option<Listener>,
    ) -> Plan {
        let roster = Published::new(Roster::default());
        let published = Published::new(config.clone());
        let mut guests = Vec::new();
        let mut client = None;
        let (proposals, state, server) = match links {
            Some(links) => {
                let (proposals, state, opening) = consensus::door();
                let (senders, receivers) = doors.iter().map(|_| mesh::channel(GUESTS_WAITING_MAX)).unzip();
                guests = receivers;
                (proposals, state, Some(server::Seat { opening, links, guests: senders }))
            }
            None => {
                let (views, state, keeper) = views::views();
                let (upstream, dialler) = ask_servers(&config, &published, &roster);
                client = Some(((upstream, views), (dialler, keeper)));
                (Proposals::without_server(), state, None)
            }
        };
        let (members, doorway_of_pool) = membership::door();
        let pool = PoolSeat { sockets: gossip, doorway: doorway_of_pool };
        let (handles, asker) = client.unzip();
        let (upstream, views) = handles.unzip();
        let mut guests = guests.into_iter();
        let (door, doorway) = agent::door();
        let (senders, receivers): (Vec<_>, Vec<_>) =
            doors.iter().map(|_| mesh::channel(CHANGES_WAITING_MAX)).unzip();
        let seats = doors.into_iter().zip(receivers);
        let seats = seats.map(|(doors, changes)| EdgeSeat { doors, guests: guests.next(), changes });
        let seats: Vec<EdgeSeat> = seats.collect();
        let local = LocalState::of_node(&config.node_name);
        Plan {
            layout,
            config: published,
            reload,
            state,
            local: Published::new(local),
            proposals,
            upstream,
            views,
            roster,
            door,
            members,
            shutdown: Shutdown::new(),
            ready: Shutdown::new(),
            ending: Ending::default(),
            control: PerCore::new(vec![Control { pool, server, asker, doorway, changes: senders }]),
            edges: PerCore::new(seats),
            clients: Tally::new(),
        }
    }
}

/// The way to the servers that the roster names.
fn ask_servers(
    config: &Config,
    published: &Published<Config>,
    roster: &Published<Roster>,
) -> (Upstream, Dialler) {
    let settings = upstream::Settings {
        node: config.node_name.clone(),
        id: String::new(),
        datacenter: config.datacenter.clone(),
        from: Some(config.addresses.rpc_bind.ip()).filter(|ip| !ip.is_unspecified()),
    };
    let limits = published.clone();
    let (known, members, datacenter) = (roster.clone(), roster.clone(), config.datacenter.clone());
    let (upstream, dialler) =
        Upstream::new(settings, move || upstream::servers_of(&known.load(), &datacenter));
    (upstream, dialler.among(move || members.load().len()).limited(move || rate_of(&limits.load())))
}

fn rate_of(config: &Config) -> upstream::Rate {
    upstream::Rate { per_second: config.limits.rpc_rate, burst: config.limits.rpc_max_burst }
}

async fn core_main(plan: Plan, core: CoreId) {
    // However this core ends: without it the others are no agent, and a supervisor should start a new one.
    let _end = EndTogether(plan.clone());
    let edge = plan.layout.edge_of(core).and_then(|place| plan.edges.take(CoreId(place as u32)));
    let edge = edge.map(|seat| {
        let end = EndTogether(plan.clone());
        let running = run_edge(plan.clone(), seat);
        task::spawn(async move {
            let _end = end;
            running.await;
        })
    });
    if let Some(control) = plan.control.take(core) {
        control::run(plan, control).await;
    }
    if let Some(edge) = edge {
        edge.await;
    }
}

/// Dropped at the end of a core's main tasks, by a panic too: raises the order to stop.
struct EndTogether(Plan);

impl Drop for EndTogether {
    fn drop(&mut self) {
        if !self.0.shutdown.is_raised() {
            self.0.ending.failed("a part of the agent ended by a fault; the log says which".to_owned());
            self.0.shutdown.raise();
        }
    }
}

async fn run_edge(plan: Plan, seat: EdgeSeat) {
    let EdgeSeat { doors, guests, changes } = seat;
    // Clients wait in the listeners' backlogs meanwhile.
    let _ = cores::either(plan.ready.raised(), plan.shutdown.raised()).await;
    let edge = http::Edge::new(
        plan.config.clone(),
        plan.state.clone(),
        plan.proposals.clone(),
        plan.local.clone(),
        plan.door.clone(),
    );
    let edge = edge.with_members(plan.roster.clone(), plan.members.clone());
    let leadership = match plan.views {
        Some(views) => Leadership::Views(views),
        None => Leadership::Real(plan.proposals),
    };
    let edge = edge.with_leadership(leadership.clone());
    let edge = Rc::new(edge.with_upstream(plan.upstream.clone()));
    let shutdown = plan.shutdown.clone();
    let dns = task::spawn(async move {
        dns::serve(plan.config, plan.state, leadership, doors.dns, async move { shutdown.raised().await })
            .await;
    });
    let server = http::server::Server::new(edge, http::routes(), doors.http, plan.clients);
    server.with_guests(guests).run(changes, plan.shutdown).await;
    dns.await;
}

/// How it ends, told by whichever task knows.
#[derive(Clone, Default)]
struct Ending(Arc<Mutex<Option<Result<End, String>>>>);

impl Ending {
    fn graceful(&self) {
        self.set(Ok(End::Graceful));
    }

    fn failed(&self, why: String) {
        self.set(Err(why));
    }

    fn set(&self, how: Result<End, String>) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(how);
    }

    fn outcome(&self) -> Result<End, Failure> {
        let told = self.0.lock().unwrap_or_else(PoisonError::into_inner).take();
        told.unwrap_or(Ok(End::Stopped)).map_err(Failure::Agent)
    }
}

/// The file with the process's number, removed when the agent ends.
struct PidFile(std::path::PathBuf);

impl PidFile {
    fn write(path: std::path::PathBuf) -> io::Result<PidFile> {
        std::fs::write(&path, std::process::id().to_string())
            .map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", path.display())))?;
        Ok(PidFile(path))
    }
}

impl Drop for PidFile {
    fn drop(&mut self) {
        // The process ends; a file that stays behind is overwritten by the next one.
        let _ = std::fs::remove_file(&self.0);
    }
}
