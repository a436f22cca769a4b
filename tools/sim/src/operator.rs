//! The operator and autopilot of a run: changes of the cluster's servers, transfers of the lead, snapshots.

use std::collections::VecDeque;

use muster::consensus::{AdminError, AdminOp};
use muster_protocol::entry::{Configuration, Server as Member, ServerId, Suffrage};

use crate::clock::Clock;
use crate::disk::Disk;
use crate::plan::Fault;
use crate::queue::{MILLI, SECOND, Time};
use crate::server::Server;
use crate::trace;
use crate::world::{Event, World};

/// Tokens of the operator begin here; those of clients are below.
pub const OPERATOR: u64 = 1 << 40;

/// What the operator wants and has not got yet.
#[derive(Default)]
pub struct Operator {
    tasks: VecDeque<Task>,
    /// The request under way, and since when.
    asked: Option<(u64, Time)>,
    /// The wish that it is for.
    about: Option<Wish>,
    next: u64,
}

#[derive(Clone, Debug)]
struct Task {
    what: Wish,
    tries: u32,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Wish {
    Add(usize),
    Promote(ServerId),
    Demote(ServerId),
    Remove(usize),
    Transfer,
    Snapshot(usize),
}

/// How often the operator looks.
const LOOK: Time = 150 * MILLI;
/// After how many tries a wish is given up.
const TRIES_MAX: u32 = 30;
/// When a request that was not answered counts as lost.
const LOST: Time = 3 * SECOND;

/// The row of a server in a configuration.
pub fn member(number: usize, id: ServerId, suffrage: Suffrage) -> Member {
    Member { id, name: format!("s{number}"), address: format!("10.0.0.{number}:8300"), suffrage }
}

/// Who the server of a number is.
pub fn id_of(number: usize) -> ServerId {
    let mut id = [0; 16];
    id[0] = number as u8 + 1;
    id[15] = number as u8;
    ServerId(id)
}

impl World {
    /// Bootstraps the first servers, not all at the same time, and now and then not all.
    pub fn bootstrap(&mut self) {
        self.introduce();
        self.queue.push(LOOK, Event::Operate);
    }

    /// Tells servers who they all are. Until a first leader was seen, it is told again: who was told may have died of it.
    pub fn introduce(&mut self) {
        if self.tally.get("elections") > 0 {
            return;
        }
        let size = self.plan.servers;
        let members = (0..size).map(|number| member(number, id_of(number), Suffrage::Voter)).collect();
        let configuration = Configuration::new(members);
        let told = if self.random.chance(0.7) { size } else { size / 2 + 1 };
        for server in 0..told {
            self.ask_operator(server, AdminOp::Bootstrap(configuration.clone()));
        }
        self.operator.asked = None;
    }

    /// Whether a change of the servers is wished for.
    pub fn changes_pending(&self) -> bool {
        self.operator.tasks.iter().any(|task| !matches!(task.what, Wish::Transfer | Wish::Snapshot(_)))
    }

    /// Notes a wish of a kind of fault.
    pub fn operate(&mut self, kind: Fault) -> Option<&'static str> {
        if kind == Fault::Transfer {
            self.wish(Wish::Transfer);
            return Some("operator: transfer");
        }
        if kind == Fault::Snapshot {
            let server = self.any_up()?;
            self.wish(Wish::Snapshot(server));
            return Some("operator: snapshot");
        }
        if self.plan.haste >= 1.0 {
            return self.replace_others();
        }
        // While a server lacks what it promised, the others must all be there to give it back.
        if !self.nemesis.hurt.is_empty() || self.changes_pending() {
            return None;
        }
        let configuration = self.agreed_configuration()?;
        let members: Vec<usize> = (0..self.servers.len())
            .filter(|server| configuration.server(self.servers[*server].id).is_some())
            .collect();
        let victim = *self.nemesis.random.one(&members);
        let (voters, most) = (configuration.voters().count(), self.plan.servers + 2);
        match kind {
            Fault::Add if members.len() < most => {
                self.add_blank();
                Some("operator: add")
            }
            Fault::Replace if voters >= 3 => {
                self.wish(Wish::Remove(victim));
                self.add_blank();
                Some("operator: replace by an empty server")
            }
            Fault::Remove if voters >= 3 || voters == 2 && self.nemesis.random.chance(0.2) => {
                self.wish(Wish::Remove(victim));
                Some("operator: remove")
            }
            Fault::Demote if voters >= 3 => {
                self.wish(Wish::Demote(self.servers[victim].id));
                Some("operator: demote")
            }
            _ => None,
        }
    }

    /// All voters but the leader are to be replaced, at once.
    fn replace_others(&mut self) -> Option<&'static str> {
        let leader = self.leader()?;
        let configuration = self.servers[leader].standing()?.configuration.clone();
        let others = (0..self.servers.len())
            .filter(|server| *server != leader && configuration.is_voter(self.servers[*server].id));
        let others: Vec<usize> = others.collect();
        if others.len() < 2 || self.changes_pending() || self.servers.len() > 12 {
            return None;
        }
        others.iter().for_each(|server| self.wish(Wish::Remove(*server)));
        others.iter().for_each(|_| self.add_blank());
        Some("operator: replace all others at once")
    }

    fn wish(&mut self, what: Wish) {
        if self.operator.tasks.len() < 8 {
            self.operator.tasks.push_back(Task { what, tries: 0 });
        }
    }

    /// A blank server that wishes to belong.
    fn add_blank(&mut self) {
        let number = self.servers.len();
        let rate = self.random.within(900_000, 1_100_000);
        let clock = Clock::new(rate, self.random.below(1000 * SECOND));
        let disk = Disk::new(self.plan.disk.clone(), self.random.fork());
        self.servers.push(Server::new(id_of(number), disk, clock));
        self.network.grow();
        self.start(number);
        self.wish(Wish::Add(number));
    }

    /// The operator looks what is to do.
    pub fn operate_on(&mut self) {
        if self.healed {
            return;
        }
        self.queue.push(self.now + LOOK, Event::Operate);
        match self.operator.asked {
            // A hasty operator asks for the next thing before the one before is done.
            Some((_, since)) if self.now < since + LOST && !self.random.chance(self.plan.haste) => return,
            _ => self.operator.asked = None,
        }
        let Some(leader) = self.leader() else {
            if self.random.chance(0.1) {
                self.introduce();
            }
            return;
        };
        if self.operator.tasks.is_empty() {
            return self.promote_one(leader);
        }
        if self.plan.haste >= 1.0 {
            // Whatever became of the last wish, the next one comes at once.
            self.operator.tasks.rotate_left(1);
        }
        let Some(task) = self.operator.tasks.front_mut() else { return };
        task.tries += 1;
        if task.tries > TRIES_MAX {
            self.operator.tasks.pop_front();
            return;
        }
        let what = task.what.clone();
        self.operator.about = Some(what.clone());
        let (server, op) = match what {
            Wish::Add(number) => {
                (leader, AdminOp::AddServer(member(number, id_of(number), Suffrage::Learner)))
            }
            Wish::Promote(id) => (leader, AdminOp::Promote(id)),
            Wish::Demote(id) => (leader, AdminOp::Demote(id)),
            Wish::Remove(number) => (leader, AdminOp::RemoveServer(id_of(number))),
            Wish::Transfer => (leader, AdminOp::Transfer(self.heir(leader))),
            Wish::Snapshot(server) => (server, AdminOp::Snapshot),
        };
        self.ask_operator(server, op);
    }

    fn heir(&mut self, leader: usize) -> Option<ServerId> {
        if self.random.chance(0.5) {
            return None;
        }
        let standing = self.servers[leader].standing()?;
        let voters: Vec<ServerId> = standing.configuration.voters().collect();
        (!voters.is_empty()).then(|| *self.random.one(&voters))
    }

    /// What autopilot does: a learner that has caught up gets the vote.
    fn promote_one(&mut self, leader: usize) {
        let Some(standing) = self.servers[leader].standing() else { return };
        let learner = standing.configuration.servers.iter().find(|server| {
            let caught_up = |progress: &&muster::consensus::PeerProgress| {
                progress.id == server.id && progress.match_index + 20 >= standing.commit_index
            };
            server.suffrage == Suffrage::Learner && standing.peers.iter().any(|peer| caught_up(&peer))
        });
        if let Some(id) = learner.map(|server| server.id) {
            self.wish(Wish::Promote(id));
        }
    }

    fn ask_operator(&mut self, server: usize, op: AdminOp) {
        self.operator.next += 1;
        let token = OPERATOR + self.operator.next;
        trace!(self, "operator asks s{server} {token:x} {op:?}");
        self.operator.asked = Some((token, self.now));
        self.administer(server, token, op);
    }

    /// A request of the operator is done, or not.
    pub fn admin_done(&mut self, token: u64, result: Result<(), AdminError>) {
        trace!(self, "operator {token:x}: {result:?}");
        if self.operator.asked.is_none_or(|(asked, _)| asked != token) {
            return;
        }
        self.operator.asked = None;
        match result {
            Ok(()) => {
                self.tally.one("operator: done");
                let place = self
                    .operator
                    .tasks
                    .iter()
                    .position(|task| Some(&task.what) == self.operator.about.as_ref());
                if let Some(task) = place.and_then(|place| self.operator.tasks.remove(place)) {
                    self.fulfilled(task.what);
                }
            }
            Err(AdminError::Refused(_)) => {
                self.operator.tasks.retain(|task| Some(&task.what) != self.operator.about.as_ref());
            }
            Err(_) => {}
        }
    }

    fn fulfilled(&mut self, what: Wish) {
        let Wish::Remove(server) = what else { return };
        // Some go at once, some stay up and may disturb the others.
        if self.random.chance(0.5) {
            self.stop(server, true);
            self.servers[server].gone = true;
        }
    }
}
