//! Duties of the leader: the members' rows in the catalog (check `serfHealth`, service `consul` of servers), autopilot's configuration
//! and its steps. On every server one task waits for the lead and works while it has it; there is never more than one
//! leader whose writes count, so the duties need no lock.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use muster_protocol::entry::{Server, ServerId};

use super::autopilot::{self, Step, View};
use super::desk;
use super::health::ClusterHealth;
use super::members::{self, Facts};
use super::rest::Rest;
use super::sessions::Sessions;
use super::witness::Witness;
use crate::config::Config;
use crate::consensus::{AdminError, AdminOp, Consistency, Proposals, ProposeError, Standing};
use crate::membership::{self, Roster};
use crate::metrics;
use crate::runtime::bell::Bell;
use crate::runtime::publish::Published;
use crate::runtime::{cores, task, time};
use crate::store::State;
use crate::store::command::{Applied, AutopilotOp, CatalogOp, Command, Deregister};
use crate::store::model::AutopilotConfig;

/// The version of Consul that clients are told; they compare it to know what they may ask for.
pub const COMPATIBLE_VERSION: &str = "1.8.7";
/// How often the catalog is compared with the members when neither seems to have changed, as in Consul.
pub const RECONCILE_INTERVAL: Duration = Duration::from_secs(60);
/// When it is compared once more after a difference was put right: what an earlier leader or a server that leaves had
/// written before may arrive after that.
const SECOND_LOOK: Duration = Duration::from_secs(5);
/// How often the leader looks at what consensus tells it, and at membership without being rung for.
const LOOK_INTERVAL: Duration = Duration::from_millis(500);
/// Members that change within this time share a command.
const LOOK_PAUSE: Duration = Duration::from_millis(50);
/// How often a server looks whether it leads now. Each wake of a core at rest costs it 0.2 ms.
const LEAD_INTERVAL: Duration = Duration::from_millis(250);
/// The same while nobody leads: clients that have waited for a leader look for this server's row next.
const LEADERLESS_INTERVAL: Duration = Duration::from_millis(20);
/// How often the servers' health is judged: Consul's `ServerHealthInterval`.
const HEALTH_INTERVAL: Duration = Duration::from_secs(2);
/// How often dead servers are looked for: Consul's `AutopilotInterval`. So a server that restarts has time to come back.
const PRUNE_INTERVAL: Duration = Duration::from_secs(10);
/// Members whose rows share a command, at most. A row takes a few hundred bytes; with a thousand of them the command stays well below
/// what one may have.
const OPS_MAX: usize = 1024;
/// Pause before a failed write is tried again.
const RETRY_PAUSE: Duration = Duration::from_millis(250);

/// The duties of one server. Clones are handles to the same.
#[derive(Clone)]
pub struct Duties(Rc<Shared>);

struct Shared {
    config: Arc<Config>,
    state: Published<State>,
    roster: Published<Roster>,
    membership: membership::Door,
    /// Rung when the roster has changed.
    members_changed: Rc<Bell>,
    proposals: Proposals,
    health: RefCell<ClusterHealth>,
    witness: RefCell<Witness>,
}

/// What one term of leading knows.
struct Lead {
    term: u64,
    since: Instant,
    /// The members as they are in the catalog already, and until when that is believed.
    reconciled: Option<(Arc<Roster>, Instant)>,
    judged: Option<Instant>,
    pruned: Instant,
    denied: Option<autopilot::Stay>,
    /// After a write that was refused for now.
    rest: Rest,
    /// The servers of the cluster at the last look.
    servers: BTreeSet<ServerId>,
    expelled: BTreeMap<ServerId, Instant>,
}

impl Duties {
    /// From what the control core has. `members_changed` is to be rung for each new roster.
    pub fn new(
        config: Arc<Config>,
        state: Published<State>,
        roster: Published<Roster>,
        membership: membership::Door,
        members_changed: Rc<Bell>,
        proposals: Proposals,
    ) -> Duties {
        let (health, witness) = (RefCell::default(), RefCell::default());
        let shared =
            Shared { config, state, roster, membership, members_changed, proposals, health, witness };
        Duties(Rc::new(shared))
    }

    /// Does them whenever this server leads, for as long as it is polled.
    pub async fn run(self) {
        // Ends with this function.
        let mut _sessions = None;
        if let Some(asked) = self.0.proposals.open_desk() {
            let duties = self.clone();
            let health = move || duties.0.health.borrow().clone();
            let sessions = Sessions::new(self.0.state.clone(), self.0.proposals.clone());
            task::spawn(desk::serve(asked, self.0.proposals.clone(), sessions.clone(), health)).detach();
            _sessions = Some(task::spawn(sessions.run()));
        }
        loop {
            self.0.witness.borrow_mut().look(&self.0.roster.load_full());
            let standing = self.0.proposals.standing();
            if !standing.leads() {
                let pause = if standing.leader.is_some() { LEAD_INTERVAL } else { LEADERLESS_INTERVAL };
                time::sleep(pause).await;
                continue;
            }
            match self.0.lead().await {
                Ok(()) => tracing::info!(target: "agent.server", "cluster leadership lost"),
                Err(ProposeError::Stopping) => return,
                Err(why) => {
                    tracing::warn!(target: "agent.server", "a duty of the leader failed: {why}; trying again");
                    time::sleep(RETRY_PAUSE).await;
                }
            }
        }
    }
}

impl Shared {
    /// Leads until another server does.
    async fn lead(&self) -> Result<(), ProposeError> {
        // What earlier leaders wrote must be here before anything is concluded from it.
        self.proposals.barrier(Consistency::Consistent).await?;
        let now = time::now();
        let term = self.proposals.standing().term;
        tracing::info!(target: "agent.server", term, "cluster leadership acquired");
        let mut lead = Lead::begun(term, now);
        *self.health.borrow_mut() = ClusterHealth::default();
        loop {
            let standing = self.proposals.standing();
            if !standing.leads() || standing.term != lead.term {
                return Ok(());
            }
            let roster = self.roster.load_full();
            self.witness.borrow_mut().look(&roster);
            let rules = self.state.load().autopilot().map(|rules| AutopilotConfig::clone(rules));
            self.judge_if_due(&mut lead, &rules.unwrap_or_default(), &standing, &roster);
            if !lead.rest.lasts(time::now()) {
                let done = self.work(&mut lead, &standing, &roster).await;
                lead.rest.after(done, time::now())?;
            }
            let rung = cores::either(self.members_changed.heard(), time::sleep(LOOK_INTERVAL)).await.is_ok();
            // The others of a mass failure come within moments of the first.
            if rung {
                time::sleep(LOOK_PAUSE).await;
            }
        }
    }

    /// All that is to be written now.
    async fn work(
        &self,
        lead: &mut Lead,
        standing: &Standing,
        roster: &Arc<Roster>,
    ) -> Result<(), ProposeError> {
        self.keep_configuration().await?;
        self.reconcile(lead, standing, roster).await?;
        self.pilot(lead, standing, roster).await
    }

    /// The first leader of a cluster writes what its own configuration says about autopilot.
    async fn keep_configuration(&self) -> Result<(), ProposeError> {
        if self.state.load().autopilot().is_some() {
            return Ok(());
        }
        let first = initial(&self.config);
        self.proposals.propose(&Command::Autopilot(AutopilotOp::Init(first))).await.map(drop)
    }

    /// Makes the catalog say of the members what membership says.
    async fn reconcile(
        &self,
        lead: &mut Lead,
        standing: &Standing,
        roster: &Arc<Roster>,
    ) -> Result<(), ProposeError> {
        let now = time::now();
        let known = lead.reconciled.as_ref().filter(|(_, until)| now < *until);
        if known.is_some_and(|(seen, _)| Arc::ptr_eq(seen, roster)) {
            return Ok(());
        }
        let ops = {
            let (state, witness) = (&self.state.load_full(), &self.witness.borrow());
            let facts = Facts { config: &self.config, state, roster, standing, witness };
            match known {
                Some((seen, _)) => members::differences_since(&facts, seen),
                // A leader that has just come may not have met all members yet.
                None => members::differences(&facts, now.duration_since(lead.since) >= RECONCILE_INTERVAL),
            }
        };
        let look = now + if ops.is_empty() { RECONCILE_INTERVAL } else { SECOND_LOOK };
        let until = known.map_or(look, |(_, until)| look.min(*until));
        self.write(ops).await?;
        lead.reconciled = Some((roster.clone(), until));
        Ok(())
    }

    /// The edges of many members share a command: an index and a log write.
    async fn write(&self, mut ops: Vec<CatalogOp>) -> Result<(), ProposeError> {
        while !ops.is_empty() {
            let later = ops.split_off(ops.len().min(OPS_MAX));
            let command = match ops.len() {
                1 => Command::Catalog(ops.remove(0)),
                _ => Command::CatalogBatch(ops),
            };
            if let Applied::Refused(why) = self.proposals.propose(&command).await? {
                tracing::error!(target: "agent.server", "the catalog refused the rows of a member: {why}");
            }
            ops = later;
        }
        Ok(())
    }

    /// Takes the next step that the judgement of the servers asks for.
    async fn pilot(&self, lead: &mut Lead, standing: &Standing, roster: &Roster) -> Result<(), ProposeError> {
        let now = time::now();
        let rules = self.state.load().autopilot().map(|rules| AutopilotConfig::clone(rules));
        let rules = rules.unwrap_or_default();
        let prune = now.duration_since(lead.pruned) >= PRUNE_INTERVAL;
        if prune {
            lead.pruned = now;
        }
        lead.note_expelled(standing, roster, now);
        let step = {
            let (health, expelled) = (&self.health.borrow(), &lead.expelled);
            View { rules: &rules, standing, roster, health, expelled, now: time::unix_now(), prune }
                .next_step()
        };
        match step {
            Ok(Some(step)) => {
                // The judgement is about other servers then.
                lead.judged = None;
                if let Some(why) = self.take(step).await? {
                    lead.rest.refused(&why, now);
                }
                Ok(())
            }
            Ok(None) => Ok(()),
            Err(why) => {
                if lead.denied.replace(why) != Some(why) {
                    tracing::info!(target: "agent.server.autopilot", "dead servers stay: {why}");
                }
                Ok(())
            }
        }
    }

    fn judge_if_due(&self, lead: &mut Lead, rules: &AutopilotConfig, standing: &Standing, roster: &Roster) {
        let now = time::now();
        if lead.judged.is_none_or(|at| now.duration_since(at) >= HEALTH_INTERVAL) {
            lead.judged = Some(now);
            self.judge(rules, standing, roster);
        }
    }

    fn judge(&self, rules: &AutopilotConfig, standing: &Standing, roster: &Roster) {
        let before = self.health.borrow().clone();
        let health = ClusterHealth::judge(rules, standing, roster, &before, time::unix_now());
        if before.healthy != health.healthy {
            let unwell: BTreeSet<&str> =
                health.servers.iter().filter(|server| !server.healthy).map(|s| s.name.as_str()).collect();
            tracing::info!(target: "agent.server.autopilot", healthy = health.healthy,
                ?unwell,
                "the cluster's health changed"
            );
        }
        metrics::autopilot(health.healthy, health.failure_tolerance);
        *self.health.borrow_mut() = health;
    }

    /// Gives why the step was refused, if it was.
    async fn take(&self, step: Step) -> Result<Option<String>, ProposeError> {
        tracing::info!(target: "agent.server.autopilot", "{step}");
        let (op, gone) = match step {
            Step::Add(server) => (AdminOp::AddServer(server), None),
            Step::Promote(id) => (AdminOp::Promote(id), None),
            Step::Demote(id) => (AdminOp::Demote(id), None),
            Step::RemoveLeft(server) | Step::RemoveReplaced(server) => {
                (AdminOp::RemoveServer(server.id), None)
            }
            Step::RemoveDead(server) => (AdminOp::RemoveServer(server.id), Some(server)),
        };
        match self.proposals.admin(op).await {
            Ok(()) => {}
            // Looked at again in a moment, with new facts.
            Err(AdminError::ChangePending | AdminError::NotLeader | AdminError::LeadershipLost) => {
                return Ok(None);
            }
            Err(AdminError::Stopping) => return Err(ProposeError::Stopping),
            Err(AdminError::Refused(why)) => return Ok(Some(why)),
        }
        if let Some(gone) = gone {
            self.forget(gone).await?;
        }
        Ok(None)
    }

    /// A dead server that was removed counts as having left: for membership, which tells it to all, and in the catalog.
    async fn forget(&self, gone: Server) -> Result<(), ProposeError> {
        self.membership.force_leave(&gone.name, false).await;
        if !members::is_of(&self.state.load(), &gone.name, gone.id) {
            return Ok(());
        }
        let node = Deregister { node: gone.name, ..Deregister::default() };
        self.write(vec![CatalogOp::Deregister(node)]).await
    }
}

impl Lead {
    fn begun(term: u64, now: Instant) -> Lead {
        Lead {
            term,
            since: now,
            reconciled: None,
            judged: None,
            pruned: now,
            denied: None,
            rest: Rest::default(),
            servers: BTreeSet::new(),
            expelled: BTreeMap::new(),
        }
    }

    /// Notes servers that went although they are alive: an operator removed them. They may come back when the members are
    /// looked at anew, as in Consul, so that removing a server that is still running is no trap.
    fn note_expelled(&mut self, standing: &Standing, roster: &Roster, now: Instant) {
        self.expelled.retain(|_, since| now.duration_since(*since) < RECONCILE_INTERVAL);
        let servers = &standing.configuration.servers;
        let here: BTreeSet<ServerId> = servers.iter().map(|server| server.id).collect();
        let gone = self.servers.difference(&here);
        let alive = gone.filter(|id| roster.server(**id).is_some_and(|member| member.is_alive()));
        self.expelled.extend(alive.map(|id| (*id, now)));
        self.servers = here;
    }
}

/// What the configuration says about autopilot, as a row.
fn initial(config: &Config) -> AutopilotConfig {
    let config = &config.autopilot;
    let ns = |time: Duration| i64::try_from(time.as_nanos()).unwrap_or(i64::MAX);
    AutopilotConfig {
        cleanup_dead_servers: config.cleanup_dead_servers,
        last_contact_threshold_ns: ns(config.last_contact_threshold),
        max_trailing_logs: config.max_trailing_logs,
        min_quorum: config.min_quorum,
        server_stabilization_time_ns: ns(config.server_stabilization_time),
        redundancy_zone_tag: config.redundancy_zone_tag.clone(),
        disable_upgrade_migration: config.disable_upgrade_migration,
        upgrade_version_tag: config.upgrade_version_tag.clone(),
        create_index: 0,
        modify_index: 0,
    }
}
