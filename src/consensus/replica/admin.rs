//! Requests of operators and leader duties: changes of the cluster's servers, transfers, snapshots, the first
//! configuration.

use muster_protocol::entry::{Server, ServerId};
use muster_protocol::raft::{self, Change, Refusal, Role};

use super::{Effect, Replica};
use crate::consensus::{AdminError, AdminOp};

/// Requests under way. Raft takes one change at a time, so there are few.
#[derive(Default)]
pub(super) struct Admins {
    /// The change that is before Raft now.
    placing: Option<u64>,
    /// Changes in the log, until they are applied: index, term, token.
    waiting: Vec<(u64, u64, u64)>,
    transfers: Vec<u64>,
    /// Whoever waits for a snapshot.
    pub snapshots: Vec<u64>,
    /// Whoever waits for the first configuration to be durable.
    pub bootstrap: Option<u64>,
}

impl Admins {
    pub fn any_wait(&self) -> bool {
        !self.waiting.is_empty() || !self.transfers.is_empty() || !self.snapshots.is_empty()
    }

    /// The change is this entry now.
    pub fn placed(&mut self, index: u64, term: u64) {
        self.waiting.extend(self.placing.take().map(|token| (index, term, token)));
    }

    pub fn applied(&mut self, index: u64, term: u64, out: &mut Vec<Effect>) {
        let done: Vec<_> = self.waiting.extract_if(.., |(at, ..)| *at <= index).collect();
        for (at, of, token) in done {
            let same = at == index && of == term;
            let result = if same { Ok(()) } else { Err(AdminError::LeadershipLost) };
            out.push(Effect::AdminDone { token, result });
        }
    }

    pub fn truncated(&mut self, from: u64, out: &mut Vec<Effect>) {
        let lost: Vec<_> = self.waiting.extract_if(.., |(at, ..)| *at >= from).collect();
        for (_, _, token) in lost {
            out.push(Effect::AdminDone { token, result: Err(AdminError::LeadershipLost) });
        }
    }

    /// What is committed up to there is applied next, and then it is done: a leader that was told to remove itself leads no more
    /// before that.
    pub fn lead_lost(&mut self, commit: u64, out: &mut Vec<Effect>) {
        self.truncated(commit + 1, out);
    }
}

impl Replica {
    pub(super) fn administer(&mut self, token: u64, op: AdminOp, out: &mut Vec<Effect>) {
        match op {
            AdminOp::AddServer(server) => self.add_server(token, server, out),
            AdminOp::RemoveServer(id) => self.change(token, Change::Remove(id), out),
            AdminOp::Promote(id) => self.change(token, Change::Promote(id), out),
            AdminOp::Demote(id) => self.change(token, Change::Demote(id), out),
            AdminOp::Transfer(to) => self.transfer(token, to, out),
            AdminOp::Snapshot => {
                self.admins.snapshots.push(token);
                self.snapshots.want();
            }
            AdminOp::Bootstrap(configuration) => {
                if self.admins.bootstrap.is_some() {
                    return out.push(Effect::AdminDone { token, result: Err(AdminError::ChangePending) });
                }
                self.admins.bootstrap = Some(token);
                self.raft_inputs.push_back(raft::Input::Bootstrap { configuration });
            }
        }
    }

    fn add_server(&mut self, token: u64, server: Server, out: &mut Vec<Effect>) {
        let known = self.raft.configuration().and_then(|(_, servers)| servers.server(server.id));
        match known {
            Some(same) if same.name == server.name && same.address == server.address => {
                let result = if self.leads() { Ok(()) } else { Err(AdminError::NotLeader) };
                out.push(Effect::AdminDone { token, result });
            }
            Some(_) => self.change(token, Change::Update(server), out),
            None => self.change(token, Change::Add(server), out),
        }
    }

    fn change(&mut self, token: u64, change: Change, out: &mut Vec<Effect>) {
        if self.raft.role() != Role::Leader {
            out.push(Effect::AdminDone { token, result: Err(AdminError::NotLeader) });
            return;
        }
        self.admins.placing = Some(token);
        self.raft_inputs.push_back(raft::Input::ChangeConfiguration(change));
    }

    fn transfer(&mut self, token: u64, to: Option<ServerId>, out: &mut Vec<Effect>) {
        if self.raft.role() != Role::Leader {
            out.push(Effect::AdminDone { token, result: Err(AdminError::NotLeader) });
            return;
        }
        self.admins.transfers.push(token);
        self.raft_inputs.push_back(raft::Input::Transfer { to });
    }

    pub(super) fn bootstrap_refused(&mut self, why: Refusal, out: &mut Vec<Effect>) {
        if let Some(token) = self.admins.bootstrap.take() {
            out.push(Effect::AdminDone { token, result: Err(refusal(why)) });
        }
    }

    pub(super) fn change_refused(&mut self, why: Refusal, out: &mut Vec<Effect>) {
        if let Some(token) = self.admins.placing.take() {
            out.push(Effect::AdminDone { token, result: Err(refusal(why)) });
        }
    }

    /// The end of a transfer: Raft works at one at a time, so all that wait mean the same one or were refused with it.
    pub(super) fn transfer_done(&mut self, result: Result<(), Refusal>, out: &mut Vec<Effect>) {
        let result = result.map_err(refusal);
        for token in std::mem::take(&mut self.admins.transfers) {
            out.push(Effect::AdminDone { token, result: result.clone() });
        }
    }
}

fn refusal(why: Refusal) -> AdminError {
    match why {
        Refusal::NotLeader { .. } => AdminError::NotLeader,
        Refusal::Transferring | Refusal::ChangePending | Refusal::Overloaded => AdminError::ChangePending,
        Refusal::DiskFull => AdminError::Refused("the disk of the leader's data_dir is full".to_owned()),
        Refusal::Invalid(why) => AdminError::Refused(why.to_owned()),
        Refusal::TimedOut => AdminError::Refused(
            "the lead was not handed over: the other server did not take over in time; this one leads on"
                .to_owned(),
        ),
    }
}
