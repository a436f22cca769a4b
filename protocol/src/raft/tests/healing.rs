//! Rules for disks that are damaged, full or stand still, and how soon a lost leader is replaced.

use super::super::*;
use super::one::*;

const T: u64 = 750;

fn damaged(terms: &[u64], until: u64) -> One {
    let mut restored = restored(&voters(3), terms);
    restored.repair_until = until;
    One::start(restored)
}

#[test]
fn a_damaged_server_neither_votes_nor_campaigns() {
    let mut one = damaged(&[1, 1], 5);
    assert!(sends(&one.pass(ms(5 * T))).is_empty());
    let ask = VoteRequest { term: 2, last: at(9, 1), transfer: None };
    assert!(!votes(&one.hear(1, Message::PreVote(ask)))[0].granted);
    assert!(!votes(&one.hear(1, Message::Vote(ask)))[0].granted);
    one.hear(1, Message::Append(append(2, at(2, 1), &[], 0)));
    one.hear(1, Message::TimeoutNow(TimeoutNow { term: 2, epoch: 0 }));
    assert_eq!((one.raft.role(), one.raft.repairing_until()), (Role::Follower, Some(5)));
}

#[test]
fn it_is_whole_again_when_it_has_durably_what_it_may_have_promised() {
    // Up to what it knows of, from the leader that it had.
    let mut one = damaged(&[1, 1], 5);
    one.hear(1, Message::Append(append(1, at(2, 1), &[1, 1, 1], 0)));
    assert_eq!(one.raft.repairing_until(), Some(5), "not yet durable");
    assert!(!one.input(Input::LogDurable { index: 4, term: 1 }).contains(&Effect::Repaired));
    assert!(one.input(Input::LogDurable { index: 5, term: 1 }).contains(&Effect::Repaired));
    let ask = VoteRequest { term: 2, last: at(5, 1), transfer: None };
    one.now += ms(T);
    one.hear(2, Message::Vote(ask));
    assert!(votes(&one.disk())[0].granted);

    // Up to an entry of a leader that was elected without it.
    let mut one = damaged(&[1, 1], 50);
    one.hear(1, Message::Append(append(1, at(2, 1), &[1], 0)));
    assert!(!one.disk().contains(&Effect::Repaired), "the old leader may count what it had promised before");
    one.hear(1, Message::Append(append(2, at(3, 1), &[], 0)));
    assert!(!one.disk().contains(&Effect::Repaired), "nothing of the new leader's own yet");
    one.hear(1, Message::Append(append(2, at(3, 1), &[2], 0)));
    assert!(one.disk().contains(&Effect::Repaired));

    // By a snapshot.
    let mut one = damaged(&[1, 1], 50);
    let configuration = voters(3);
    let snapshot = Input::SnapshotInstalled { index: 60, term: 1, configuration_index: 1, configuration };
    one.hear(1, Message::Append(append(1, at(2, 1), &[], 0)));
    assert!(one.input(snapshot).contains(&Effect::Repaired));
}

#[test]
fn its_leader_tells_it_when_it_is_whole() {
    let mut one = damaged(&[1, 1], 1000);
    let out = one.hear(1, Message::Append(append(1, at(2, 1), &[1], 0)));
    let out = [out, one.disk()].concat();
    let damage = replies(&out)[0].damage.expect("it tells");
    let heal =
        |damage, through| Append { heal: Some(Heal { damage, through }), ..append(1, at(3, 1), &[], 0) };
    let out = one.hear(1, Message::Append(heal(damage + 2, 3)));
    assert!(!out.contains(&Effect::Repaired), "that was said to an earlier life");
    let out = one.hear(1, Message::Append(heal(damage, 4)));
    assert!(!out.contains(&Effect::Repaired));
    one.hear(1, Message::Append(append(1, at(3, 1), &[1], 0)));
    assert!(one.disk().contains(&Effect::Repaired));

    let mut leader = One::leader(3);
    leader.propose(1);
    let reply =
        AppendReply { damage: Some(77), ..leader.reply(Outcome::Accepted { durable: 1, received: 1 }) };
    leader.hear(1, Message::AppendReply(reply));
    leader.propose(1);
    leader.hear(1, Message::AppendReply(reply));
    let out = leader.pass(ms(80));
    let told = sends(&out).into_iter().find_map(|(to, message)| match message {
        Message::Append(append) if to == id(1) => append.heal,
        _ => None,
    });
    assert_eq!(told, Some(Heal { damage: 77, through: 3 }), "its last entry when it first heard");
}

#[test]
fn a_follower_that_lost_what_it_had_acknowledged_is_filled_again() {
    let mut leader = One::leader(3);
    leader.propose(3);
    leader.disk();
    leader.acknowledge(1);
    let reply = leader.reply(Outcome::Rejected { prev: 5, hint: at(1, 1) });
    let out = leader.hear(1, Message::AppendReply(reply));
    assert_eq!(ranges(&out, 1), [(2, 5)]);
    assert_eq!(leader.raft.commit_index(), 5, "what is committed stays so");
}

#[test]
fn a_follower_with_a_full_disk_takes_no_entries_and_says_so() {
    let mut one = One::voter(3, &[1]);
    one.input(Input::DiskFull(true));
    let out = one.hear(1, Message::Append(append(1, at(1, 1), &[1, 1], 0)));
    assert!(replies(&out)[0].full);
    assert_eq!(replies(&out)[0].outcome, Outcome::Accepted { durable: 1, received: 1 });
    assert_eq!(one.raft.last(), at(1, 1));
    one.input(Input::DiskFull(false));
    one.hear(1, Message::Append(append(1, at(1, 1), &[1, 1], 0)));
    assert_eq!(one.raft.last(), at(3, 1));

    let mut leader = One::leader(3);
    leader.propose(1);
    let full = AppendReply { full: true, ..leader.reply(Outcome::Accepted { durable: 2, received: 2 }) };
    leader.hear(1, Message::AppendReply(full));
    for _ in 0..20 {
        let out = [leader.propose(1), leader.pass_with(ms(50), &[2])].concat();
        assert!(ranges(&out, 1).is_empty(), "nothing is wasted on it");
        leader.hear(1, Message::AppendReply(AppendReply { full: true, ..leader.reply(full.outcome) }));
    }
    let room = leader.reply(full.outcome);
    assert!(!ranges(&leader.hear(1, Message::AppendReply(room)), 1).is_empty());
}

#[test]
fn a_leader_with_a_full_disk_lets_another_lead_if_one_has_room() {
    let mut leader = One::leader(3);
    let full = AppendReply { full: true, ..leader.reply(Outcome::Accepted { durable: 2, received: 2 }) };
    leader.hear(1, Message::AppendReply(full));
    leader.hear(2, Message::AppendReply(full));
    assert!(sends(&leader.input(Input::DiskFull(true))).is_empty(), "all are full: it stays, for reads");
    assert!(matches!(&leader.propose(1)[..], [Effect::Refused { why: Refusal::DiskFull, .. }]));
    for _ in 0..30 {
        leader.pass(ms(75));
        for n in [1, 2] {
            let full = AppendReply { full: true, ..leader.reply(full.outcome) };
            leader.hear(n, Message::AppendReply(full));
        }
    }
    assert_eq!(leader.raft.role(), Role::Leader);
    assert!(leader.raft.lease_until().is_some());
    let out = leader.pass_with(ms(T), &[2]);
    assert!(sends(&out).iter().any(|(to, m)| *to == id(2) && matches!(m, Message::TimeoutNow(_))));
}

#[test]
fn a_leader_whose_disk_stands_still_is_gone_within_two_seconds() {
    // The others are ready: it hands over.
    let mut leader = One::leader(3);
    leader.propose(1);
    let began = leader.now;
    let mut sent = false;
    while !sent && leader.now < began + ms(2000) {
        let out = leader.pass_with(ms(20), &[1, 2]);
        sent = sends(&out).iter().any(|(_, message)| matches!(message, Message::TimeoutNow(_)));
    }
    assert!(sent, "an heir is told");
    // They do not take over: it steps down.
    let out = leader.pass_with(ms(1000), &[1, 2]);
    assert!(out.contains(&Effect::SteppedDown { why: StepDown::DiskStalled }));
    assert!(leader.now < began + ms(2200));
    assert!(sends(&leader.pass(ms(10 * T))).is_empty(), "and does not campaign");
    leader.disk();
    assert!(!sends(&leader.pass(ms(2 * T))).is_empty(), "before its disk goes on");
    // A disk that is slow but finishes one write after the other is no reason.
    let mut leader = One::leader(3);
    for _ in 0..30 {
        leader.propose(2);
        leader.pass_with(ms(300), &[1, 2]);
        let (index, term) = (leader.raft.last().index - 1, 2);
        leader.input(Input::LogDurable { index, term });
    }
    assert_eq!(leader.raft.role(), Role::Leader);
    // Nor is what only the driver sees, unless it goes on.
    leader.disk();
    leader.input(Input::DiskPending { age: ms(900) });
    leader.pass_with(ms(3000), &[1, 2]);
    assert!(leader.raft.leading.as_ref().unwrap().hand_over_at.is_none());
    leader.input(Input::DiskPending { age: ms(1100) });
    assert_eq!(leader.raft.leading.as_ref().unwrap().hand_over_at, Some(leader.now + ms(500)));
    let out = leader.pass_with(ms(200), &[1, 2]);
    assert!(sends(&out).iter().any(|(_, message)| matches!(message, Message::TimeoutNow(_))));
}

#[test]
fn a_leader_that_nobody_can_follow_stays_although_its_disk_stands_still() {
    let mut leader = One::leader(3);
    leader.propose(1);
    for _ in 0..30 {
        leader.pass(ms(100));
        let reply = leader.reply(Outcome::Accepted { durable: 2, received: 2 });
        leader.hear(1, Message::AppendReply(reply));
    }
    assert_eq!(leader.raft.role(), Role::Leader, "two are no quorum without its disk");
    let mut lone = One::voter(1, &[1]);
    lone.elect();
    lone.disk();
    lone.propose(1);
    lone.pass(ms(10_000));
    assert_eq!(lone.raft.role(), Role::Leader);
}
