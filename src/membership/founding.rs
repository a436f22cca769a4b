//! How a cluster begins: once, by servers that are nobody's and agree on who they are.
//!
//! Every server that waits for others (`-bootstrap-expect`) looks at whom it knows. When there are as many as all expect,
//! all of them blank, and each knows the same ones, then the one with the lowest ID makes a cluster of them: it writes
//! the cluster's ID and servers down, tells the others, who do the same, and each begins its log with that list.
//! A server takes one such list in its life, so two of them cannot both win a majority of the same servers.

use std::time::Duration;

use muster_protocol::entry::{Configuration, Server, Suffrage};

use super::cluster::Cluster;
use super::driver::known_servers;
use super::facts::ServerFacts;
use super::roster::{Member, Roster};
use crate::consensus::Proposals;

/// How long a founder whose log is lost looks for others that have it: its last members are asked every few seconds.
const LOG_LOOKED_FOR: Duration = Duration::from_secs(10);

/// What a server that is nobody's does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Nothing yet; the reason, in Consul's words where it has some.
    Wait(String),
    /// It does not begin a cluster: there is one, which takes it in.
    Join(String),
    /// It begins a cluster of these.
    Found(Configuration),
}

/// What membership needs to begin a cluster.
pub struct Founder {
    /// Which one this server belongs to.
    pub cluster: Cluster,
    /// The door to its log.
    pub proposals: Proposals,
    /// It makes itself a cluster without saying so to others: development mode.
    pub alone: bool,
}

/// Decides for the server `own`, which is nobody's and knows this roster. `bootstrap`: it begins a cluster alone.
pub fn decide(own: &Member, bootstrap: bool, roster: &Roster) -> Decision {
    let Some(facts) = own.server.as_deref() else {
        return Decision::Wait("it is no server".to_owned());
    };
    if bootstrap {
        return Decision::Found(configuration([own].into_iter()));
    }
    if facts.expect == 0 {
        return Decision::Join("it is not told to begin one (bootstrap_expect)".to_owned());
    }
    let others = || {
        let alive = roster.servers().filter(|member| member.is_alive() && member.name != own.name);
        alive.filter_map(|member| Some((&**member, member.server.as_deref()?)))
    };
    if let Some(obstacle) = others().find_map(|(other, theirs)| obstacle(facts, other, theirs)) {
        return obstacle;
    }
    if facts.non_voter {
        return Decision::Wait("a non-voting server does not begin a cluster".to_owned());
    }
    let voters = || others().filter(|(_, theirs)| !theirs.non_voter).map(|(other, _)| other);
    let count = voters().count() + 1;
    if count < facts.expect as usize {
        return Decision::Wait(format!("waiting for {} servers, {count} are known", facts.expect));
    }
    let known = Some(known_servers(roster));
    if let Some((other, _)) = others().find(|(_, theirs)| theirs.knows != known) {
        return Decision::Wait(format!("server {} knows others than this one does", other.name));
    }
    if voters().any(|founder| founder.id < own.id) {
        return Decision::Wait("the server with the lowest ID begins".to_owned());
    }
    Decision::Found(configuration(voters().chain([own])))
}

/// Why another server keeps this one from beginning a cluster.
fn obstacle(own: &ServerFacts, other: &Member, theirs: &ServerFacts) -> Option<Decision> {
    let name = &other.name;
    if theirs.has_log {
        return Some(Decision::Join(format!(
            "Existing Raft peers reported by server, disabling bootstrap mode: server={name}"
        )));
    }
    let why = if theirs.cluster.is_some() {
        format!("server {name} is about to join a cluster")
    } else if theirs.bootstrap {
        format!("Member has bootstrap mode. Expect disabled.: member={name}")
    } else if theirs.expect != own.expect && !theirs.non_voter {
        format!(
            "Member has a conflicting expect value. All nodes should expect the same number.: member={name} expect={} own={}",
            theirs.expect, own.expect
        )
    } else {
        return None;
    };
    Some(Decision::Wait(why))
}

/// Why a founder does not begin its log now, if this server has been in `term` before and its log is empty: an operator has given up
/// what damage had taken. As long as somebody has the cluster's log, it is not to be begun a second time.
pub fn waits_for_log(term: u64, looked_for: Duration, own: &str, roster: &Roster) -> Option<String> {
    if term == 0 {
        return None;
    }
    let has_log = |member: &Member| member.server.as_ref().is_some_and(|facts| facts.has_log);
    let mut others = roster.servers().filter(|member| member.is_alive() && *member.name != *own);
    if let Some(other) = others.find(|member| has_log(member)) {
        return Some(format!(
            "its log is lost, and server {} has the cluster's: it comes from there",
            other.name
        ));
    }
    let early = looked_for < LOG_LOOKED_FOR;
    early.then(|| "its log is lost; looking for servers that have the cluster's".to_owned())
}

fn configuration<'a>(founders: impl Iterator<Item = &'a Member>) -> Configuration {
    let server = |member: &Member| {
        Some(Server {
            id: member.id,
            name: member.name.to_string(),
            address: member.server_address()?.to_string(),
            suffrage: Suffrage::Voter,
        })
    };
    Configuration::new(founders.filter_map(server).collect())
}

#[cfg(test)]
mod tests {
    use muster_protocol::entry::ServerId;
    use muster_protocol::gossip::Tags;
    use muster_protocol::wire::ClusterId;

    use super::*;
    use crate::membership::facts::digest;
    use crate::membership::roster::MemberStatus;

    /// A server that expects three, and knows these.
    fn member(n: u8, knows: &[u8], change: impl FnOnce(&mut ServerFacts)) -> Member {
        let knows = digest(knows.iter().map(|n| ServerId([*n; 16])));
        let mut facts = ServerFacts { port: 8300, expect: 3, knows: Some(knows), ..ServerFacts::default() };
        change(&mut facts);
        Member {
            id: ServerId([n; 16]),
            name: format!("s{n}").into(),
            ip: [10, 0, 0, n].into(),
            serf_lan_port: 8301,
            tags: Tags::default(),
            server: Some(facts.into()),
            incarnation: 1,
            status: MemberStatus::Alive,
            since: Duration::ZERO,
            evidence: None,
        }
    }

    fn founds(own: &Member, others: &[Member]) -> Option<Vec<u8>> {
        let roster = Roster::new([own.clone()].into_iter().chain(others.iter().cloned()));
        let bootstrap = own.server.as_ref().is_some_and(|facts| facts.bootstrap);
        match decide(own, bootstrap, &roster) {
            Decision::Found(list) => Some(list.servers.iter().map(|server| server.id.0[0]).collect()),
            Decision::Wait(_) | Decision::Join(_) => None,
        }
    }

    #[test]
    fn the_lowest_of_those_who_agree_begins() {
        let all = [1, 2, 3];
        let of = |n| member(n, &all, |_| {});
        assert_eq!(founds(&of(1), &[of(2), of(3)]), Some(vec![1, 2, 3]));
        assert_eq!(founds(&of(2), &[of(1), of(3)]), None);
        assert_eq!(founds(&of(1), &[of(2)]), None);
        assert_eq!(founds(&of(1), &[of(2), member(3, &[3, 1], |_| {})]), None);
        let gone = Member { status: MemberStatus::Failed, ..of(3) };
        assert_eq!(founds(&of(1), &[of(2), gone]), None);
    }

    #[test]
    fn whoever_knows_a_cluster_begins_none() {
        let all = [1, 2, 3];
        let of = |n| member(n, &all, |_| {});
        for other in [
            member(3, &all, |facts| facts.has_log = true),
            member(3, &all, |facts| facts.cluster = Some(ClusterId([1; 16]))),
            member(3, &all, |facts| facts.expect = 5),
            member(3, &all, |facts| (facts.bootstrap, facts.expect) = (true, 0)),
        ] {
            assert_eq!(founds(&of(1), &[of(2), other]), None);
        }
        assert_eq!(founds(&member(1, &[1], |facts| facts.expect = 0), &[]), None);
    }

    #[test]
    fn a_log_that_others_have_is_not_begun_a_second_time() {
        let (has, lacks) = (member(2, &[], |facts| facts.has_log = true), member(3, &[], |_| {}));
        let waits = |term, seconds, others: &[&Member]| {
            let roster = Roster::new(others.iter().copied().cloned());
            waits_for_log(term, Duration::from_secs(seconds), "s1", &roster).is_some()
        };
        assert!(
            !waits(0, 0, &[&has]),
            "a crash before the first entry: all founders begin with the same one"
        );
        assert!(waits(7, 9, &[]) && waits(7, 9, &[&lacks]), "somebody may come");
        assert!(waits(7, 99, &[&lacks, &has]));
        assert!(!waits(7, 10, &[]) && !waits(7, 10, &[&lacks]), "it is the last one there is");
    }

    #[test]
    fn one_that_is_told_to_begins_alone() {
        let own = member(1, &[1], |facts| (facts.bootstrap, facts.expect) = (true, 0));
        assert_eq!(founds(&own, &[]), Some(vec![1]));
    }

    #[test]
    fn non_voters_are_neither_counted_nor_asked_to_begin() {
        let silent = |n, knows: &[u8]| member(n, knows, |facts| (facts.non_voter, facts.expect) = (true, 0));
        let all = [1, 2, 3];
        let of = |n| member(n, &all, |_| {});
        assert_eq!(founds(&of(1), &[of(2), silent(3, &all)]), None);
        let all = [1, 2, 3, 4];
        let of = |n| member(n, &all, |_| {});
        assert_eq!(founds(&of(1), &[of(2), silent(3, &all), of(4)]), Some(vec![1, 2, 4]));
    }
}
