//! Which servers there are: one change at a time, in force as soon as it is in the log (thesis, sections 4.1 and 4.2).

use super::leader::Leading;
use super::progress::{Leave, Progress};
use super::{Change, Draft, Effect, PeerState, Raft, Refusal};
use crate::entry::{Configuration, Entry, EntryKind, Server, ServerId, Suffrage};

/// The configurations of the last snapshot and of the log behind it, by index.
#[derive(Debug)]
pub(super) struct Configurations(Vec<(u64, Configuration)>);

impl Configurations {
    pub fn new(list: Vec<(u64, Configuration)>) -> Configurations {
        assert!(
            list.is_sorted_by(|one, next| one.0 < next.0),
            "configurations come in order of their indexes"
        );
        Configurations(list)
    }

    pub fn latest(&self) -> Option<&(u64, Configuration)> {
        self.0.last()
    }

    /// Whether nobody but these voted in any of them.
    pub fn all_have_voters<const N: usize>(&self, voters: [ServerId; N]) -> bool {
        self.0.iter().all(|(_, configuration)| configuration.voters().eq(voters))
    }

    pub fn at(&self, index: u64) -> Option<&(u64, Configuration)> {
        self.0.iter().rev().find(|(at, _)| *at <= index)
    }

    fn push(&mut self, index: u64, configuration: Configuration) {
        assert!(self.latest().is_none_or(|(last, _)| *last < index), "configurations come in order");
        self.0.push((index, configuration));
    }

    /// Takes away those from `from` on; whether there were any.
    pub fn truncate(&mut self, from: u64) -> bool {
        let kept = self.0.partition_point(|(index, _)| *index < from);
        let changed = kept < self.0.len();
        self.0.truncate(kept);
        changed
    }

    /// Forgets those that were replaced at or before a snapshot.
    pub fn forget_before(&mut self, snapshot: u64) {
        let behind = self.0.partition_point(|(index, _)| *index <= snapshot);
        self.0.drain(..behind.saturating_sub(1));
    }

    /// Only this one, of a snapshot, and what the log has behind it.
    pub fn replace_through(&mut self, snapshot: u64, at: (u64, Configuration)) {
        self.0.retain(|(index, _)| *index > snapshot);
        self.0.insert(0, at);
    }
}

/// What the newest configuration means to this leader.
#[derive(PartialEq, Eq)]
pub(super) enum Applied {
    /// It is not committed yet.
    NotYet,
    /// It has this server as a voter.
    WithMe,
    /// This server no longer votes.
    WithoutMe,
}

impl Raft {
    pub(super) fn on_change(&mut self, change: Change, out: &mut Vec<Effect>) {
        match self.changed(&change) {
            Ok(configuration) => self.propose_configuration(configuration, out),
            Err(why) => out.push(Effect::ChangeRefused { change, why }),
        }
    }

    /// The configuration after a change.
    fn changed(&self, change: &Change) -> Result<Configuration, Refusal> {
        if let Some(why) = self.refusal() {
            return Err(why);
        }
        let (Some(leading), Some((index, current))) = (&self.leading, self.configurations.latest()) else {
            return Err(Refusal::NotLeader { leader: self.leader });
        };
        // Before an entry of this term is committed, an earlier leader's change may still be (Ongaro, raft-dev 2015).
        if *index > self.commit || self.commit < leading.first_index {
            return Err(Refusal::ChangePending);
        }
        let mut servers = current.servers.clone();
        let find = |id: ServerId| servers.iter().position(|server| server.id == id);
        let there = |id| find(id).ok_or(Refusal::Invalid("there is no such server"));
        match change {
            Change::Add(server) => {
                if find(server.id).is_some() {
                    return Err(Refusal::Invalid("this server is there already"));
                }
                if server.suffrage == Suffrage::Voter {
                    return Err(Refusal::Invalid("a new server does not vote before it is promoted"));
                }
                servers.push(server.clone());
            }
            Change::Update(Server { id, name, address, .. }) => {
                let place = there(*id)?;
                servers[place].name.clone_from(name);
                servers[place].address.clone_from(address);
            }
            Change::Promote(id) => {
                let place = there(*id)?;
                self.check_promotion(leading, &servers[place])?;
                servers[place].suffrage = Suffrage::Voter;
            }
            Change::Demote(id) => {
                let place = there(*id)?;
                if servers[place].suffrage != Suffrage::Voter {
                    return Err(Refusal::Invalid("this server does not vote"));
                }
                servers[place].suffrage = Suffrage::NonVoter;
            }
            Change::Remove(id) => {
                servers.remove(there(*id)?);
            }
        }
        let next = Configuration::new(servers);
        if next.voters().next().is_none() {
            return Err(Refusal::Invalid("the last voter must stay"));
        }
        Ok(next)
    }

    /// A voter that lags, or is not there, could stop the cluster.
    fn check_promotion(&self, leading: &Leading, server: &Server) -> Result<(), Refusal> {
        if server.suffrage == Suffrage::Voter {
            return Err(Refusal::Invalid("this server votes already"));
        }
        let recent = self.now.saturating_sub(self.options.election_timeout);
        let peer = leading.peers.get(&server.id);
        let fit = peer.is_some_and(|peer| peer.contact >= recent && peer.state == PeerState::Replicate);
        if fit { Ok(()) } else { Err(Refusal::Invalid("this server does not follow the log yet")) }
    }

    fn propose_configuration(&mut self, configuration: Configuration, out: &mut Vec<Effect>) {
        let (_, current) = self.configurations.latest().expect("a leader has a configuration");
        let moved = |one: &Configuration, other: &Configuration| {
            one.voters().filter(|id| !other.is_voter(*id)).count()
        };
        let voters_moved = moved(current, &configuration) + moved(&configuration, current);
        assert!(voters_moved <= 1, "a change moves one voter, not {voters_moved}");
        let body = configuration.encode();
        let draft = Draft { kind: EntryKind::Configuration, version: Configuration::VERSION, body };
        let index = self.log.last().index + 1;
        // In force first: the servers that it adds are sent to, and its quorum counts.
        self.take_configuration(index, configuration, out);
        self.append_drafts(vec![draft], out);
        self.advance_commit(out);
        self.confirm_reads(out);
    }

    /// A configuration is in force from when it is in the log.
    pub(super) fn take_configuration(
        &mut self,
        index: u64,
        configuration: Configuration,
        out: &mut Vec<Effect>,
    ) {
        self.configurations.push(index, configuration.clone());
        out.push(Effect::Configuration { index, configuration });
        self.align_peers(index);
    }

    /// A leader sends to the servers of the newest configuration; those that it misses are told so before they are forgotten.
    pub(super) fn align_peers(&mut self, next: u64) {
        let Some((index, configuration)) = self.configurations.latest() else { return };
        let Some(leading) = &mut self.leading else { return };
        if leading.peers.is_empty() {
            leading.heartbeat_at = leading.heartbeat_at.min(self.now + self.options.heartbeat_interval);
        }
        for server in &configuration.servers {
            if server.id != self.options.id {
                let peer = leading.peers.entry(server.id).or_insert_with(|| Progress::new(self.now, next));
                peer.leaves = None;
            }
        }
        let until = self.now + self.options.election_timeout * 4;
        for (id, peer) in &mut leading.peers {
            if configuration.server(*id).is_none() && peer.leaves.is_none() {
                peer.leaves = Some(Leave { index: *index, until });
            }
        }
    }

    /// Forgets a removed server that knows it.
    pub(super) fn let_leave(&mut self, id: ServerId) {
        let Some(leading) = &mut self.leading else { return };
        let Some(peer) = leading.peers.get(&id) else { return };
        if peer.leaves.is_some_and(|leave| peer.durable >= leave.index && peer.commit_told >= leave.index) {
            leading.peers.remove(&id);
        }
    }

    /// Whether the newest configuration is committed, and has this server as a voter.
    pub(super) fn applied_configuration(&self) -> Applied {
        match self.configurations.latest() {
            Some((index, _)) if *index > self.commit => Applied::NotYet,
            Some((_, configuration)) if !configuration.is_voter(self.options.id) => Applied::WithoutMe,
            _ => Applied::WithMe,
        }
    }

    /// Why this server cannot begin a log. One that has lost its log to damage, and has voted with others before, could elect
    /// a leader that lacks what it had acknowledged itself: it takes the log of a leader. A lone voter has nobody to ask.
    fn bars_bootstrap(&self, configuration: &Configuration) -> Option<Refusal> {
        if self.configurations.latest().is_some() || self.log.last().index > 0 {
            return Some(Refusal::Invalid("this server holds the log of a cluster already"));
        }
        if configuration.voters().next().is_none() {
            return Some(Refusal::Invalid("a cluster needs a voter"));
        }
        let alone = configuration.voters().eq([self.options.id]);
        (self.term > 0 && !alone).then_some(Refusal::Invalid(
            "this server has voted in its cluster already, and takes the log of its leader",
        ))
    }

    /// The first entry of a new cluster: the same on all of its servers, so that their logs agree.
    pub(super) fn on_bootstrap(&mut self, configuration: Configuration, out: &mut Vec<Effect>) {
        if let Some(why) = self.bars_bootstrap(&configuration) {
            return out.push(Effect::BootstrapRefused { why });
        }
        if self.term == 0 {
            self.set_term(1, None);
        }
        let entry = Entry {
            term: 1,
            index: 1,
            kind: EntryKind::Configuration,
            version: Configuration::VERSION,
            body: configuration.encode(),
        };
        self.append_to_log(vec![entry], out);
        self.take_configuration(1, configuration, out);
        self.arm_election_timer();
        if self.is_lone_voter() {
            self.on_election_timeout(out);
        }
    }
}
