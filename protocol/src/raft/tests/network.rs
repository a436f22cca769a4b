//! Small clusters on a bad network. One seed draws everything: loss, delay, reordering, duplication, partitions (also of
//! one direction), crashes that lose what was not durable, pauses, slow and full disks, damage, clocks of different rates, and changes
//! of the servers. In the end all is healed, and the cluster must agree and go on.

use bytes::Bytes;

use super::super::*;
use super::cluster::{Cluster, Node, number};
use super::one::{id, server};
use crate::entry::{EntryKind, Suffrage};

impl Cluster {
    fn leader(&self) -> Option<usize> {
        let leads = |n: &usize| self.nodes[*n].raft.as_ref().is_some_and(|raft| raft.role() == Role::Leader);
        (0..self.nodes.len()).filter(leads).max_by_key(|n| self.raft(*n).term())
    }

    fn propose(&mut self, n: usize, count: u64) {
        let drafts = (0..count).map(|_| {
            self.proposed += 1;
            let body = format!("{}{}", self.proposed, "x".repeat((self.proposed % 50) as usize));
            Draft { kind: EntryKind::Command, version: 1, body: Bytes::from(body) }
        });
        let drafts = drafts.collect();
        self.step(n, Input::Propose { drafts });
    }

    fn read(&mut self, n: usize) {
        self.tokens += 1;
        let newest = self.committed.last_key_value().map_or(0, |(index, _)| *index);
        if self.nodes[n].raft.is_some() {
            self.nodes[n].reads.insert(self.tokens, newest);
            self.step(n, Input::ReadIndex { token: self.tokens });
        }
    }

    /// One random event.
    fn disturb(&mut self) {
        let count = self.nodes.len() as u64;
        let n = self.dice.below(count) as usize;
        let m = self.dice.below(count) as usize;
        match self.dice.below(22) {
            0 => self.cut[n][m] = true,
            1 => (self.cut[n][m], self.cut[m][n]) = (true, true),
            2 => (0..count as usize).for_each(|m| (self.cut[n][m], self.cut[m][n]) = (true, true)),
            3..=5 => self.cut.iter_mut().for_each(|row| row.fill(false)),
            6 => self.crash(n),
            7 => {
                if let Some(leader) = self.leader() {
                    self.crash(leader);
                }
            }
            8 => self.nodes[n].paused_until = self.now + self.dice.below(1500),
            9 => {
                let until = self.now + self.dice.below(3000);
                self.nodes[n].disk.stalled_until = until;
            }
            10 => {
                let full = self.dice.percent(30);
                self.nodes[n].disk.full = full;
                self.step(n, Input::DiskFull(full));
            }
            // While one voter of three is damaged, no other may be missing for good: so not in runs that change voters.
            11 if self.damages && self.nodes.iter().all(|node| node.disk.repair_until == 0) => self.damage(n),
            12 => self.loss = self.dice.below(30),
            13 => self.delay = 1 + self.dice.below(60),
            14..=15 => {
                if let Some(leader) = self.leader() {
                    let to = self.dice.percent(50).then(|| id(n));
                    self.step(leader, Input::Transfer { to });
                }
            }
            16..=18 if !self.damages => self.change(n),
            19 => self.forgetful_bridge(),
            _ => {
                for n in 0..count as usize {
                    if self.nodes[n].raft.is_none() {
                        self.start(n);
                    }
                }
            }
        }
    }

    /// The leader is cut from all but one server, which the others ask for its vote; it forgets the leader by a restart and is
    /// cut from it, too.
    fn forgetful_bridge(&mut self) {
        let Some(leader) = self.leader() else { return };
        let count = self.nodes.len();
        let bridge = (leader + 1 + self.dice.below(count as u64 - 1) as usize) % count;
        let cut =
            |cluster: &mut Cluster, n: usize| (cluster.cut[leader][n], cluster.cut[n][leader]) = (true, true);
        (0..count).filter(|n| *n != leader && *n != bridge).for_each(|n| cut(self, n));
        for _ in 0..30 {
            self.run(20);
            self.propose_if_up(leader, 1);
        }
        self.crash(bridge);
        cut(self, bridge);
        self.start(bridge);
        for _ in 0..30 {
            self.run(10);
            (0..count).for_each(|n| self.propose_if_up(n, 1));
        }
    }

    fn change(&mut self, n: usize) {
        let Some(leader) = self.leader() else { return };
        let change = match self.dice.below(6) {
            0 => Change::Add(server(n, Suffrage::Learner)),
            1..=3 => Change::Promote(id(n)),
            4 => Change::Demote(id(n)),
            _ => Change::Remove(id(n)),
        };
        self.step(leader, Input::ChangeConfiguration(change));
    }

    fn heal(&mut self) {
        self.chaos = false;
        (self.loss, self.doubles, self.delay) = (0, 0, 5);
        self.cut.iter_mut().for_each(|row| row.fill(false));
        for n in 0..self.nodes.len() {
            self.nodes[n].paused_until = 0;
            self.nodes[n].disk.stalled_until = 0;
            for (at, _) in &mut self.nodes[n].disk.queue {
                *at = (*at).min(self.now + 10);
            }
            self.nodes[n].disk.full = false;
            if self.nodes[n].raft.is_some() {
                self.step(n, Input::DiskFull(false));
            } else {
                self.start(n);
            }
        }
    }

    fn picture(&self) -> String {
        let line = |(n, node): (usize, &Node)| {
            let raft = node.raft.as_ref();
            let facts = raft.map(|raft| {
                (
                    raft.role(),
                    raft.term(),
                    raft.leader(),
                    raft.commit_index(),
                    raft.last(),
                    raft.repairing_until(),
                )
            });
            let voters = raft.and_then(Raft::configuration).map(|(index, configuration)| {
                (*index, configuration.voters().map(number).collect::<Vec<_>>())
            });
            format!("{n}: {facts:?} voters {voters:?} disk queue {}", node.disk.queue.len())
        };
        self.nodes.iter().enumerate().map(line).collect::<Vec<_>>().join("\n")
    }

    /// All servers of the newest configuration agree, and an entry that is proposed now is committed by them.
    fn converge(&mut self) {
        self.run(6000);
        let leader =
            self.leader().unwrap_or_else(|| panic!("seed {}: no leader\n{}", self.seed, self.picture()));
        for _ in 0..40 {
            self.propose(leader, 1);
            self.read(leader);
            self.run(20);
        }
        self.run(4000);
        assert_eq!(self.leader(), Some(leader), "seed {}: a healthy leader is replaced", self.seed);
        assert!(self.nodes[leader].reads.is_empty(), "seed {}: reads are left over", self.seed);
        let (_, configuration) = self.raft(leader).configuration().expect("it leads").clone();
        let state = self.nodes[leader].state.clone();
        assert_eq!(state.at, self.raft(leader).last(), "seed {}: not all is committed", self.seed);
        for server in &configuration.servers {
            let n = number(server.id);
            assert_eq!(self.nodes[n].state, state, "seed {}: {n} differs from {leader}", self.seed);
            assert_eq!(self.nodes[n].disk.repair_until, 0, "seed {}: {n} is not repaired", self.seed);
        }
    }
}

fn wild(seed: u64, voters: usize, blank: usize) -> Cluster {
    let mut cluster = Cluster::new(seed, voters, blank);
    cluster.chaos = true;
    cluster.loss = cluster.dice.below(20);
    cluster.doubles = cluster.dice.below(20);
    for _ in 0..60 {
        let pause = cluster.dice.below(400);
        cluster.run(pause);
        for _ in 0..3 {
            let n = cluster.dice.below((voters + blank) as u64) as usize;
            let count = cluster.dice.below(6);
            cluster.propose_if_up(n, count);
            cluster.read(n);
        }
        if let Some(leader) = cluster.leader() {
            let count = cluster.dice.below(8);
            cluster.propose_if_up(leader, count);
            cluster.read(leader);
        }
        cluster.disturb();
        if blank > 0 && cluster.dice.percent(40) {
            let n = cluster.dice.below((voters + blank) as u64) as usize;
            cluster.change(n);
        }
    }
    cluster.heal();
    cluster.converge();
    cluster
}

impl Cluster {
    fn propose_if_up(&mut self, n: usize, count: u64) {
        if self.nodes[n].raft.is_some() {
            self.propose(n, count);
        }
    }
}

/// Runs seeds and requires that they were not idle.
fn seeds(range: std::ops::Range<u64>, voters: usize, blank: usize) {
    let (mut elections, mut reads, mut leases, mut commits, mut changes) = (0, 0, 0, 0, 0);
    for seed in range.clone() {
        let cluster = wild(seed, voters, blank);
        elections += cluster.elections;
        reads += cluster.reads_done;
        leases += cluster.leases_seen;
        commits += cluster.committed.len();
        let changed = cluster.committed.values().filter(|(_, entry)| entry.kind == EntryKind::Configuration);
        changes += changed.count();
    }
    let runs = range.end - range.start;
    println!(
        "{runs} runs: {elections} elections, {commits} commits, {reads} reads, {leases} lease checks, {changes} configurations"
    );
    assert!(elections >= 3 * runs && reads >= 10 * runs && leases >= 100 * runs, "the runs were idle");
    assert!(commits as u64 >= 50 * runs, "the runs were idle");
}

#[test]
fn a_lost_leader_is_replaced_within_two_seconds_at_default_timing() {
    let mut worst = 0;
    for seed in 0..100 {
        let mut cluster = Cluster::stopped(seed, if seed % 3 == 0 { 5 } else { 3 }, 0);
        cluster.multiplier = Options::MULTIPLIER;
        cluster.bootstrap(cluster.nodes.len());
        cluster.run(4000);
        let lost = cluster.leader().expect("four seconds are enough");
        for _ in 0..cluster.dice.below(20) {
            cluster.propose(lost, 3);
            let pause = cluster.dice.below(20);
            cluster.run(pause);
        }
        let (began, committed) = (cluster.now, cluster.committed.len());
        cluster.crash(lost);
        while cluster.committed.len() <= committed + 3 {
            cluster.run(1);
            if let Some(leader) = cluster.leader() {
                cluster.propose(leader, 1);
            }
            assert!(cluster.now < began + 2000, "seed {seed}: nothing is written for two seconds");
        }
        worst = worst.max(cluster.now - began);
    }
    println!("first write at most {worst} ms after the loss");
}

#[test]
fn three_servers_stay_safe_and_recover() {
    seeds(0..60, 3, 0);
}

#[test]
fn five_servers_stay_safe_and_recover() {
    seeds(1000..1060, 5, 0);
}

#[test]
fn changing_clusters_stay_safe_and_recover() {
    seeds(2000..2060, 3, 3);
}
