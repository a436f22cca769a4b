//! Servers of the same cluster that do not play by the rules, because their disks were exchanged or somebody has taken them over:
//! each of these messages once ended the process that received it, or could make its leader trust in a lie.

use super::super::*;
use super::one::*;

fn contradicted(out: &[Effect]) -> bool {
    matches!(out, [Effect::Contradicted { from, why }, ..] if *from == id(1) && !why.is_empty())
}

/// A follower whose first three entries are committed.
fn follower() -> One {
    let mut one = One::voter(3, &[1, 1, 1]);
    one.hear(2, Message::Append(append(1, at(3, 1), &[], 3)));
    assert_eq!(one.raft.commit_index(), 3);
    one
}

#[test]
fn who_has_something_else_where_an_entry_is_committed_is_not_followed() {
    for (prev, terms) in
        [(at(3, 2), &[][..]), (at(2, 2), &[2, 2]), (at(1, 1), &[2, 2]), (at(1, 1), &[1, 2, 2])]
    {
        let mut one = follower();
        let out = one.hear(1, Message::Append(append(5, prev, terms, 9)));
        assert!(contradicted(&out), "{prev:?} {terms:?}: {out:?}");
        assert!(replies(&out).is_empty(), "nor answered: no lease of its rests on this server");
        assert_eq!((one.raft.leader(), one.raft.commit_index(), one.raft.last()), (None, 3, at(3, 1)));
        // Whoever is elected next is.
        one.hear(2, Message::Append(append(6, at(3, 1), &[6], 4)));
        assert_eq!((one.raft.leader(), one.raft.commit_index()), (Some(id(2)), 4));
    }
}

#[test]
fn a_leader_cannot_take_back_what_it_has_sent() {
    let mut one = follower();
    one.hear(1, Message::Append(append(2, at(3, 1), &[2, 2], 3)));
    let out = one.hear(1, Message::Append(append(2, at(3, 1), &[1], 3)));
    assert!(contradicted(&out), "{out:?}");
    assert_eq!(one.raft.last(), at(5, 2));
    let out = one.hear(1, Message::Append(append(2, at(4, 1), &[2], 3)));
    assert!(contradicted(&out), "{out:?}");
}

#[test]
fn indexes_out_of_reach_are_no_entries() {
    let mut one = follower();
    let far = Append { prev: at(u64::MAX, 1), ..append(2, at(3, 1), &[], u64::MAX) };
    let wrapped = Append { entries: vec![command(2, 0)], ..far.clone() };
    assert!(replies(&one.hear(1, Message::Append(wrapped))).is_empty());
    let out = one.hear(1, Message::Append(far));
    assert!(matches!(replies(&out)[0].outcome, Outcome::Rejected { .. }));
    assert_eq!(one.raft.commit_index(), 3);
}

#[test]
fn no_lease_rests_on_a_round_that_is_still_to_come() {
    let mut leader = One::leader(3);
    let before = leader.raft.lease_until();
    for began in [leader.now + ms(1), ms(u64::MAX), Now::MAX] {
        let reply = leader.reply(Outcome::Accepted { durable: 2, received: 2 });
        leader.hear(1, Message::AppendReply(AppendReply { round_began: began, ..reply }));
        leader.hear(2, Message::AppendReply(AppendReply { round_began: began, ..reply }));
        assert_eq!(leader.raft.lease_until(), before);
    }
}
