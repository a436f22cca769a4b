//! Rules of reads: rounds and the lease.

use super::super::*;
use super::one::*;

const T: u64 = 750;
const LEASE: u64 = 600;

fn ready(out: &[Effect]) -> Vec<(u64, u64)> {
    let ready = out.iter().filter_map(|effect| match effect {
        Effect::ReadReady { token, index } => Some((*token, *index)),
        _ => None,
    });
    ready.collect()
}

fn read(one: &mut One, token: u64) -> Vec<Effect> {
    one.input(Input::ReadIndex { token })
}

fn rounds(out: &[Effect], to: usize) -> Vec<u64> {
    let sent = sends(out).into_iter().filter_map(|(receiver, message)| match message {
        Message::Append(append) if receiver == id(to) && append.answer => Some(append.round),
        _ => None,
    });
    sent.collect()
}

#[test]
fn reads_share_rounds() {
    let mut leader = One::leader(3);
    let out = read(&mut leader, 1);
    assert_eq!(rounds(&out, 1).len(), 1, "the first asks at once");
    for token in 2..100 {
        assert!(read(&mut leader, token).is_empty(), "the others wait for the next round");
    }
    let out = leader.acknowledge(1);
    assert_eq!(ready(&out), [(1, 2)]);
    assert_eq!(rounds(&out, 1).len(), 1);
    let out = leader.acknowledge(2);
    assert_eq!(ready(&out).len(), 98);
    assert!(rounds(&out, 1).is_empty());
}

#[test]
fn an_answer_to_an_earlier_round_confirms_nothing() {
    let mut leader = One::leader(3);
    let earlier = leader.reply(Outcome::Accepted { durable: 2, received: 2 });
    read(&mut leader, 1);
    assert!(ready(&leader.hear(1, Message::AppendReply(earlier))).is_empty());
    let later = AppendReply { round: earlier.round + 9, ..earlier };
    assert!(ready(&leader.hear(1, Message::AppendReply(later))).is_empty(), "nor one that was never begun");
    let refused = leader.reply(Outcome::Rejected { prev: 2, hint: at(0, 0) });
    let out = leader.hear(1, Message::AppendReply(refused));
    assert_eq!(ready(&out), [(1, 2)], "who refuses entries still knows who leads");
}

#[test]
fn a_lost_round_is_made_up_for_by_the_next() {
    let mut leader = One::leader(3);
    read(&mut leader, 1);
    leader.pass(ms(80));
    assert_eq!(ready(&leader.acknowledge(2)), [(1, 2)]);
}

#[test]
fn reads_wait_for_the_first_commit_of_the_term() {
    let mut one = One::voter(3, &[1]);
    one.elect();
    assert!(read(&mut one, 1).is_empty());
    let reply = one.reply(Outcome::Accepted { durable: 1, received: 1 });
    assert!(ready(&one.hear(1, Message::AppendReply(reply))).is_empty());
    assert_eq!(one.raft.lease_until(), None);
    one.disk();
    let out = one.acknowledge(1);
    assert!(ready(&out).is_empty() && !rounds(&out, 1).is_empty(), "now they ask");
    assert_eq!(ready(&one.acknowledge(1)), [(1, 2)]);
    let mut lone = One::voter(1, &[1]);
    lone.input(Input::Tick);
    lone.input(Input::VoteSaved { term: 2, vote: Some(id(ME)) });
    assert!(read(&mut lone, 1).is_empty());
    assert_eq!(ready(&lone.disk()), [(1, 2)]);
    assert_eq!(ready(&read(&mut lone, 2)), [(2, 2)], "a lone voter asks nobody");
}

#[test]
fn reads_fail_with_their_leader_and_beyond_their_limit() {
    let mut leader = One::leader(3);
    leader.raft.options.limits.reads_waiting = 2;
    read(&mut leader, 1);
    read(&mut leader, 2);
    assert_eq!(read(&mut leader, 3), [Effect::ReadFailed { token: 3, why: Refusal::Overloaded }]);
    let out = leader.pass(ms(2 * T));
    let why = Refusal::NotLeader { leader: None };
    for token in [1, 2] {
        assert!(out.contains(&Effect::ReadFailed { token, why: why.clone() }), "{out:?}");
    }
    assert_eq!(read(&mut leader, 4), [Effect::ReadFailed { token: 4, why }]);
}

#[test]
fn the_lease_counts_from_when_an_answered_round_was_sent() {
    let mut leader = One::leader(5);
    leader.pass_with(ms(T), &[1, 2, 3, 4]);
    leader.pass(ms(80));
    let began = leader.raft.leading.as_ref().unwrap().round_began;
    leader.now += ms(50);
    leader.acknowledge(1);
    let before = leader.raft.lease_until().expect("from an earlier round");
    assert!(before < began + ms(LEASE), "two of five is no quorum");
    leader.acknowledge(2);
    assert_eq!(leader.raft.lease_until(), Some(began + ms(LEASE)));
    leader.now = began + ms(LEASE);
    leader.input(Input::DiskFull(false));
    assert_eq!(leader.raft.lease_until(), None, "it is over");
    assert!(ms(LEASE) * 11 <= ms(T) * 9, "clocks may differ by a tenth in either direction");
}

#[test]
fn a_transfer_ends_the_lease_and_a_given_up_one_needs_new_answers() {
    let mut leader = One::leader(3);
    leader.pass_with(ms(100), &[1, 2]);
    assert!(leader.raft.lease_until().is_some());
    let out = leader.input(Input::Transfer { to: Some(id(1)) });
    let order = TimeoutNow { term: 2, epoch: 0 };
    assert_eq!(sends(&out), [(id(1), Message::TimeoutNow(order))]);
    assert_eq!(leader.raft.lease_until(), None);
    let old = leader.reply(Outcome::Accepted { durable: 2, received: 2 });
    let out = leader.pass_with(ms(T + 1), &[1, 2]);
    assert!(out.contains(&Effect::TransferDone { result: Err(Refusal::TimedOut) }));
    let mut leader = One::leader(3);
    leader.input(Input::Transfer { to: Some(id(1)) });
    let out = loop {
        let out = leader.pass(ms(1));
        if !out.is_empty() && out.iter().any(|effect| matches!(effect, Effect::TransferDone { .. })) {
            break out;
        }
        if leader.now.subsec_millis().is_multiple_of(10) {
            let reply = leader.reply(Outcome::Accepted { durable: 2, received: 2 });
            leader.hear(2, Message::AppendReply(reply));
        }
    };
    assert_eq!(leader.raft.lease_until(), None, "they may have heard only of the transfer");
    leader.hear(2, Message::AppendReply(old));
    assert_eq!(leader.raft.lease_until(), None);
    let epochs: Vec<u64> = sends(&out)
        .into_iter()
        .filter_map(|(_, message)| match message {
            Message::Append(append) => Some(append.epoch),
            _ => None,
        })
        .collect();
    assert!(epochs.ends_with(&[1, 1]), "all are told that it is given up: {epochs:?}");
    leader.acknowledge(2);
    assert!(leader.raft.lease_until().is_some());
}
