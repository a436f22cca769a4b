//! How a cluster begins: once, by servers that are nobody's and agree on who they are.
//!
//! Every server that waits for others (`-bootstrap-expect`) looks at whom it knows. When there are as many as all expect,
//! all of them blank, and each knows the same ones, then the one with the lowest ID makes a cluster of them: it writes
//! the cluster's ID and servers down, tells the others, who do the same, and each begins its log with that list.
//! A server takes one such list in its life, so two of them cannot both win a majority of the same servers.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::Duration;

use muster_protocol::entry::{Configuration, Server, ServerId, Suffrage};
use muster_protocol::rpc::Card;

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

/// Decides for `own`, a server that is nobody's, which knows `others` alive, and of each of them whom it knows.
pub fn decide<'a>(
    own: &Card,
    others: impl Iterator<Item = (&'a Card, &'a BTreeSet<ServerId>)> + Clone,
) -> Decision {
    if own.bootstrap {
        return Decision::Found(configuration([own].into_iter()));
    }
    if own.expect == 0 {
        return Decision::Join("it is not told to begin one (bootstrap_expect)".to_owned());
    }
    for (other, _) in others.clone() {
        if other.has_log {
            return Decision::Join(format!(
                "Existing Raft peers reported by server, disabling bootstrap mode: server={}",
                other.name
            ));
        }
        if other.cluster.is_some() {
            return Decision::Wait(format!("server {} is about to join a cluster", other.name));
        }
        if other.bootstrap {
            return Decision::Wait(format!(
                "Member has bootstrap mode. Expect disabled.: member={}",
                other.name
            ));
        }
        if other.expect != own.expect && !other.non_voter {
            return Decision::Wait(format!(
                "Member has a conflicting expect value. All nodes should expect the same number.: member={} expect={} own={}",
                other.name, other.expect, own.expect
            ));
        }
    }
    if own.non_voter {
        return Decision::Wait("a non-voting server does not begin a cluster".to_owned());
    }
    let voters = others.clone().filter(|(other, _)| !other.non_voter);
    let known: BTreeSet<ServerId> = others.clone().map(|(other, _)| other.id).chain([own.id]).collect();
    let count = voters.clone().count() + 1;
    if count < own.expect as usize {
        return Decision::Wait(format!("waiting for {} servers, {count} are known", own.expect));
    }
    if let Some((other, _)) = others.clone().find(|(_, view)| **view != known) {
        return Decision::Wait(format!("server {} knows others than this one does", other.name));
    }
    let founders = voters.map(|(other, _)| other).chain([own]);
    if founders.clone().any(|founder| founder.id < own.id) {
        return Decision::Wait("the server with the lowest ID begins".to_owned());
    }
    Decision::Found(configuration(founders))
}

/// Why a founder does not begin its log now, if this server has been in `term` before and its log is empty: an operator has given up
/// what damage had taken. As long as somebody has the cluster's log, it is not to be begun a second time.
pub fn waits_for_log<'a>(
    term: u64,
    looked_for: Duration,
    mut others: impl Iterator<Item = &'a Card>,
) -> Option<String> {
    if term == 0 {
        return None;
    }
    if let Some(other) = others.find(|other| other.has_log) {
        return Some(format!(
            "its log is lost, and server {} has the cluster's: it comes from there",
            other.name
        ));
    }
    let early = looked_for < LOG_LOOKED_FOR;
    early.then(|| "its log is lost; looking for servers that have the cluster's".to_owned())
}

fn configuration<'a>(founders: impl Iterator<Item = &'a Card>) -> Configuration {
    let server = |card: &Card| Server {
        id: card.id,
        name: card.name.clone(),
        address: SocketAddr::new(card.ip, card.server_port).to_string(),
        suffrage: Suffrage::Voter,
    };
    Configuration::new(founders.map(server).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn card(n: u8) -> Card {
        Card {
            id: ServerId([n; 16]),
            name: format!("s{n}"),
            datacenter: "dc1".into(),
            segment: String::new(),
            ip: [10, 0, 0, n].into(),
            serf_lan_port: 8301,
            server_port: 8300,
            wan_join_port: None,
            bootstrap: false,
            expect: 3,
            non_voter: false,
            cluster: None,
            has_log: false,
            started_ms: 0,
            status: 1,
        }
    }

    fn view(ids: &[u8]) -> BTreeSet<ServerId> {
        ids.iter().map(|n| ServerId([*n; 16])).collect()
    }

    fn founds(own: &Card, others: &[(Card, BTreeSet<ServerId>)]) -> Option<Vec<u8>> {
        match decide(own, others.iter().map(|(card, view)| (card, view))) {
            Decision::Found(list) => Some(list.servers.iter().map(|server| server.id.0[0]).collect()),
            Decision::Wait(_) | Decision::Join(_) => None,
        }
    }

    #[test]
    fn the_lowest_of_those_who_agree_begins() {
        let all = view(&[1, 2, 3]);
        let others = |ids: [u8; 2]| ids.map(|n| (card(n), all.clone()));
        assert_eq!(founds(&card(1), &others([2, 3])), Some(vec![1, 2, 3]));
        assert_eq!(founds(&card(2), &others([1, 3])), None);
        assert_eq!(founds(&card(1), &others([2, 3])[..1]), None);
        let unaware = [(card(2), all.clone()), (card(3), view(&[3, 1]))];
        assert_eq!(founds(&card(1), &unaware), None);
    }

    #[test]
    fn whoever_knows_a_cluster_begins_none() {
        let all = view(&[1, 2, 3]);
        for other in [
            Card { has_log: true, ..card(3) },
            Card { cluster: Some(muster_protocol::wire::ClusterId([1; 16])), ..card(3) },
            Card { expect: 5, ..card(3) },
            Card { bootstrap: true, expect: 0, ..card(3) },
        ] {
            assert_eq!(founds(&card(1), &[(card(2), all.clone()), (other, all.clone())]), None);
        }
        assert_eq!(founds(&Card { expect: 0, ..card(1) }, &[]), None);
    }

    #[test]
    fn a_log_that_others_have_is_not_begun_a_second_time() {
        let (has, lacks) = (Card { has_log: true, ..card(2) }, card(3));
        let waits = |term, seconds, others: &[&Card]| {
            let time = Duration::from_secs(seconds);
            waits_for_log(term, time, others.iter().copied()).is_some()
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
        assert_eq!(founds(&Card { bootstrap: true, expect: 0, ..card(1) }, &[]), Some(vec![1]));
    }

    #[test]
    fn non_voters_are_neither_counted_nor_asked_to_begin() {
        let all = view(&[1, 2, 3]);
        let silent = Card { non_voter: true, expect: 0, ..card(3) };
        assert_eq!(founds(&card(1), &[(card(2), all.clone()), (silent.clone(), all.clone())]), None);
        let all = view(&[1, 2, 3, 4]);
        let others = [(card(2), all.clone()), (silent, all.clone()), (card(4), all.clone())];
        assert_eq!(founds(&card(1), &others), Some(vec![1, 2, 4]));
    }
}
