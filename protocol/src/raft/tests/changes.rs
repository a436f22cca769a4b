//! Rules of membership and of handing over.

use super::super::*;
use super::one::*;
use crate::entry::{Server, Suffrage};

const T: u64 = 750;

fn refusal(out: &[Effect]) -> Refusal {
    match out {
        [Effect::ChangeRefused { why, .. }] => why.clone(),
        other => panic!("not refused: {other:?}"),
    }
}

fn suffrage(one: &One, n: usize) -> Option<Suffrage> {
    let (_, configuration) = one.raft.configuration().expect("it has one");
    configuration.server(id(n)).map(|server| server.suffrage)
}

/// The change is committed.
fn settle(one: &mut One, others: &[usize]) {
    one.disk();
    for n in others {
        if one.raft.role() == Role::Leader {
            one.acknowledge(*n);
        }
    }
}

#[test]
fn changes_that_make_no_sense_are_refused() {
    let mut leader = One::leader(3);
    leader.change(Change::Add(server(7, Suffrage::NonVoter)));
    settle(&mut leader, &[1, 2]);
    for change in [
        Change::Add(server(1, Suffrage::Learner)),
        Change::Add(server(8, Suffrage::Voter)),
        Change::Promote(id(1)),
        Change::Promote(id(9)),
        Change::Promote(id(7)),
        Change::Demote(id(7)),
        Change::Demote(id(9)),
        Change::Remove(id(9)),
        Change::Update(server(9, Suffrage::Voter)),
    ] {
        let out = leader.change(change.clone());
        assert!(matches!(refusal(&out), Refusal::Invalid(_)), "{change:?}");
    }
    let mut lone = One::voter(1, &[1]);
    lone.elect();
    lone.disk();
    for change in [Change::Remove(id(ME)), Change::Demote(id(ME))] {
        assert!(matches!(refusal(&lone.change(change)), Refusal::Invalid(_)));
    }
    let mut leader = One::leader(3);
    let kind = crate::entry::EntryKind::Configuration;
    let out = leader.input(Input::Propose { drafts: vec![Draft { kind, ..draft() }] });
    assert!(matches!(&out[..], [Effect::Refused { why: Refusal::Invalid(_), .. }]));
    let mut follower = One::voter(3, &[1]);
    let out = follower.change(Change::Remove(id(1)));
    assert_eq!(refusal(&out), Refusal::NotLeader { leader: None });
}

#[test]
fn one_change_at_a_time_and_none_before_the_first_commit() {
    let mut one = One::start(Restored { committed: 1, ..restored(&voters(3), &[1]) });
    one.elect();
    assert_eq!(refusal(&one.change(Change::Remove(id(1)))), Refusal::ChangePending);
    let mut leader = One::leader(3);
    let out = leader.change(Change::Add(server(3, Suffrage::Learner)));
    assert!(matches!(out[0], Effect::Configuration { index: 3, .. }), "in force at once");
    assert_eq!(refusal(&leader.change(Change::Remove(id(1)))), Refusal::ChangePending);
    settle(&mut leader, &[1]);
    leader.change(Change::Remove(id(1)));
    assert_eq!(suffrage(&leader, 1), None);
}

#[test]
fn who_leads_alone_rests_until_somebody_is_taken_in() {
    let mut lone = One::voter(1, &[1]);
    lone.elect();
    lone.disk();
    let (heartbeat, timeout) = (lone.raft.options.heartbeat_interval, lone.raft.options.election_timeout);
    let rest = |one: &One| one.raft.next_deadline().expect("a timer") - one.now;
    lone.pass(rest(&lone));
    assert_eq!(rest(&lone), timeout);
    lone.pass(heartbeat);
    lone.change(Change::Add(server(1, Suffrage::Learner)));
    assert_eq!(rest(&lone), heartbeat);
    assert!(sends(&lone.pass(heartbeat)).iter().any(|(to, _)| *to == id(1)));
    assert_eq!(rest(&lone), heartbeat);
}

#[test]
fn learners_receive_and_do_not_count_until_they_are_promoted() {
    let mut lone = One::voter(1, &[1]);
    lone.elect();
    lone.disk();
    let out = lone.change(Change::Add(server(1, Suffrage::Learner)));
    assert_eq!(ranges(&out, 1), [(3, 3)]);
    lone.disk();
    assert_eq!((lone.raft.commit_index(), lone.raft.lease_until()), (3, Some(Now::MAX)));
    assert!(
        matches!(refusal(&lone.change(Change::Promote(id(1)))), Refusal::Invalid(_)),
        "it has nothing yet"
    );
    let reply = lone.reply(Outcome::Rejected { prev: 2, hint: at(0, 0) });
    assert_eq!(ranges(&lone.hear(1, Message::AppendReply(reply)), 1), [(1, 3)]);
    lone.acknowledge(1);
    lone.change(Change::Promote(id(1)));
    assert_eq!(suffrage(&lone, 1), Some(Suffrage::Voter));
    lone.disk();
    assert_eq!(lone.raft.commit_index(), 3, "the new voter counts for its own promotion");
    assert_ne!(lone.raft.lease_until(), Some(Now::MAX));
    lone.acknowledge(1);
    assert_eq!(lone.raft.commit_index(), 4);
    lone.change(Change::Update(Server { address: "10.9.9.9:1".into(), ..server(1, Suffrage::NonVoter) }));
    let (_, configuration) = lone.raft.configuration().unwrap();
    let updated = configuration.server(id(1)).unwrap();
    assert_eq!((updated.address.as_str(), updated.suffrage), ("10.9.9.9:1", Suffrage::Voter));
}

#[test]
fn a_leader_may_remove_or_demote_itself() {
    for change in [Change::Remove(id(ME)), Change::Demote(id(ME))] {
        let mut leader = One::leader(3);
        leader.change(change);
        leader.disk();
        leader.acknowledge(1);
        assert_eq!(
            (leader.raft.role(), leader.raft.commit_index()),
            (Role::Leader, 2),
            "it does not count itself"
        );
        let out = leader.acknowledge(2);
        assert!(out.contains(&Effect::Committed { index: 3 }));
        assert!(out.contains(&Effect::SteppedDown { why: StepDown::Removed }));
        let sent = sends(&out);
        let told = |to| {
            sent.iter().position(|(receiver, message)| {
                *receiver == id(to) && matches!(message, Message::Append(append) if append.commit == 3)
            })
        };
        assert!(told(1).is_some() && told(2).is_some(), "the others hear of it");
        let heir = sent.iter().any(|(_, message)| matches!(message, Message::TimeoutNow(_)));
        assert!(heir, "and one is to lead at once");
        assert!(sends(&leader.pass(ms(10 * T))).is_empty(), "then it is silent");
    }
}

#[test]
fn a_removed_server_hears_of_it_and_is_forgotten() {
    let mut leader = One::leader(3);
    let out = leader.change(Change::Remove(id(2)));
    assert_eq!(ranges(&out, 2), [(3, 3)]);
    assert!(leader.raft.peers().all(|(peer, _)| peer != id(2)));
    leader.disk();
    let out = leader.acknowledge(1);
    assert!(out.contains(&Effect::Committed { index: 3 }));
    let out = leader.acknowledge(2);
    assert!(
        sends(&out).iter().any(|(to, m)| *to == id(2) && matches!(m, Message::Append(a) if a.commit == 3))
    );
    leader.acknowledge(2);
    assert!(!leader.raft.leading.as_ref().unwrap().peers.contains_key(&id(2)));
    // One that does not answer is forgotten too.
    let mut leader = One::leader(3);
    leader.change(Change::Remove(id(2)));
    settle(&mut leader, &[1]);
    leader.pass_with(ms(5 * T), &[1]);
    assert!(!leader.raft.leading.as_ref().unwrap().peers.contains_key(&id(2)));
}

#[test]
fn an_heir_catches_up_before_it_is_told() {
    let mut leader = One::leader(3);
    leader.propose(1);
    leader.disk();
    leader.acknowledge(1);
    let out = leader.input(Input::Transfer { to: Some(id(2)) });
    assert!(sends(&out).is_empty());
    assert!(matches!(&leader.propose(1)[..], [Effect::Refused { why: Refusal::Transferring, .. }]));
    let again = leader.input(Input::Transfer { to: None });
    assert_eq!(again, [Effect::TransferDone { result: Err(Refusal::Transferring) }]);
    let out = leader.acknowledge(2);
    let order = Message::TimeoutNow(TimeoutNow { term: 2, epoch: 0 });
    assert!(sends(&out).contains(&(id(2), order)));
    // Its request is granted, although this leader is alive; another's would not be.
    let ask = VoteRequest { term: 3, last: at(3, 2), transfer: Some(0) };
    leader.hear(1, Message::Vote(ask));
    assert_eq!(leader.raft.role(), Role::Leader);
    let out = leader.hear(2, Message::Vote(ask));
    assert!(out.contains(&Effect::TransferDone { result: Ok(()) }));
    assert!(votes(&leader.disk())[0].granted);
}

#[test]
fn a_transfer_needs_an_heir_that_can_lead() {
    let mut leader = One::leader(3);
    leader.change(Change::Add(server(3, Suffrage::Learner)));
    settle(&mut leader, &[1, 2]);
    for to in [ME, 3, 9] {
        let out = leader.input(Input::Transfer { to: Some(id(to)) });
        assert!(matches!(&out[..], [Effect::TransferDone { result: Err(Refusal::Invalid(_)) }]), "{to}");
    }
    let mut follower = One::voter(3, &[1]);
    let out = follower.input(Input::Transfer { to: None });
    assert!(matches!(&out[..], [Effect::TransferDone { result: Err(Refusal::NotLeader { .. }) }]));
    // The best prepared is chosen.
    let mut leader = One::leader(3);
    leader.propose(1);
    leader.disk();
    leader.acknowledge(2);
    let out = leader.input(Input::Transfer { to: None });
    assert_eq!(sends(&out)[0].0, id(2));
}

#[test]
fn who_is_told_campaigns_at_once_and_says_why() {
    let mut one = One::voter(3, &[1, 1]);
    one.hear(1, Message::Append(Append { epoch: 4, ..append(1, at(2, 1), &[], 0) }));
    let order = |term, epoch| Message::TimeoutNow(TimeoutNow { term, epoch });
    for bad in [(2, order(1, 4)), (1, order(0, 4)), (1, order(1, 3))] {
        one.hear(bad.0, bad.1.clone());
        assert_eq!(one.raft.role(), Role::Follower, "{bad:?}");
    }
    one.hear(1, order(1, 4));
    assert_eq!((one.raft.role(), one.raft.term()), (Role::Candidate, 2));
    let asked = Message::Vote(VoteRequest { term: 2, last: at(2, 1), transfer: Some(4) });
    assert!(sends(&one.disk()).contains(&(id(2), asked)));
}
