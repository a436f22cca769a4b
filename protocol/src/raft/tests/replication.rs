//! Rules of replication.

use super::super::*;
use super::one::*;
use crate::entry::Suffrage;

/// Figure 7 of the paper, and the hints that save a leader from going back one by one.
#[test]
fn logs_agree_or_say_where_they_may() {
    let refuse = |prev, hint| Outcome::Rejected { prev, hint };
    let take = |received| Outcome::Accepted { durable: received, received };
    for (mine, prev, terms, outcome, log) in [
        // In order; a repetition; a part of it is new.
        (&[1, 1][..], at(2, 1), &[2, 2][..], take(4), &[1, 1, 2, 2][..]),
        (&[1, 1, 2], at(1, 1), &[1, 2], take(3), &[1, 1, 2]),
        (&[1, 1, 2], at(2, 1), &[2, 2], take(4), &[1, 1, 2, 2]),
        // More than the leader has sent stays.
        (&[1, 1, 1, 1], at(1, 1), &[1], take(2), &[1, 1, 1, 1]),
        // What differs goes, with all behind it.
        (&[1, 1, 1, 1], at(1, 1), &[2], take(2), &[1, 2]),
        (&[1, 1, 2, 2, 2], at(2, 1), &[3, 3], take(4), &[1, 1, 3, 3]),
        // Too short: its last. Another term there: the end of the last run that may agree.
        (&[1, 1], at(5, 2), &[3], refuse(5, at(2, 1)), &[1, 1]),
        (&[1, 1, 2, 2, 2], at(5, 3), &[3], refuse(5, at(5, 2)), &[1, 1, 2, 2, 2]),
        (&[1, 1, 3, 3, 3], at(5, 2), &[2], refuse(5, at(2, 1)), &[1, 1, 3, 3, 3]),
    ] {
        let mut one = One::voter(3, mine);
        let out = one.hear(1, Message::Append(append(4, prev, terms, 0)));
        let out = [out, one.disk()].concat();
        let reply = *replies(&out).last().unwrap_or_else(|| panic!("an answer for {mine:?} {prev:?}"));
        let case = format!("{mine:?} {prev:?} {terms:?}");
        assert_eq!(reply.term, 4);
        assert_eq!(reply.outcome, outcome, "{case}");
        let held: Vec<u64> = (1..=one.raft.last().index).map(|i| one.raft.log.term_at(i).unwrap()).collect();
        assert_eq!(held, log, "{case}");
        let lost = out.iter().find_map(|effect| match effect {
            Effect::Truncated { from } => Some(*from),
            _ => None,
        });
        let differs = (0..mine.len()).find(|place| log.get(*place) != mine.get(*place));
        assert_eq!(lost, differs.map(|place| place as u64 + 1), "{case}");
    }
}

#[test]
fn entries_are_acknowledged_when_durable_and_signs_of_life_at_once() {
    let mut one = One::voter(3, &[1]);
    one.hear(1, Message::Append(append(1, at(1, 1), &[], 0)));
    let out = one.hear(1, Message::Append(append(1, at(1, 1), &[1, 1], 0)));
    assert!(matches!(&out[0], Effect::Append { entries } if entries.len() == 2));
    assert!(replies(&out).is_empty(), "nothing is promised yet");
    let out = one.hear(1, Message::Append(Append { round: 7, ..append(1, at(1, 1), &[], 2) }));
    assert_eq!(replies(&out)[0].outcome, Outcome::Accepted { durable: 1, received: 3 });
    assert_eq!(replies(&out)[0].round, 7);
    assert!(out.contains(&Effect::Committed { index: 2 }), "others have it durably");
    let out = one.input(Input::LogDurable { index: 2, term: 1 });
    assert_eq!(replies(&out)[0].outcome, Outcome::Accepted { durable: 2, received: 3 });
    assert!(replies(&one.input(Input::LogDurable { index: 2, term: 1 })).is_empty(), "once");
    let out = one.hear(1, Message::Append(Append { answer: false, ..append(1, at(3, 1), &[], 3) }));
    assert!(replies(&out).is_empty() && out.contains(&Effect::Committed { index: 3 }));
}

#[test]
fn what_another_leader_has_replaced_is_durable_in_vain() {
    let mut one = One::voter(3, &[1]);
    one.hear(1, Message::Append(append(1, at(1, 1), &[1, 1], 0)));
    one.hear(2, Message::Append(append(2, at(1, 1), &[2], 0)));
    one.input(Input::VoteSaved { term: 2, vote: None });
    for stale in [at(3, 1), at(2, 1)] {
        let out = one.input(Input::LogDurable { index: stale.index, term: stale.term });
        assert!(out.is_empty(), "{stale:?}: {out:?}");
    }
    let out = one.input(Input::LogDurable { index: 2, term: 2 });
    assert_eq!(replies(&out)[0].outcome, Outcome::Accepted { durable: 2, received: 2 });
}

#[test]
fn nothing_is_acknowledged_in_a_term_that_is_not_durable() {
    let mut one = One::voter(3, &[1]);
    let out = one.hear(1, Message::Append(append(3, at(1, 1), &[3], 0)));
    assert_eq!(out[0], Effect::SaveVote { term: 3, vote: None }, "the term goes to disk before its entries");
    assert!(replies(&one.input(Input::LogDurable { index: 2, term: 3 })).is_empty());
    let out = one.hear(1, Message::Append(append(3, at(2, 3), &[], 0)));
    assert_eq!(replies(&out)[0].outcome, Outcome::Accepted { durable: 0, received: 2 }, "but it is alive");
    let out = one.input(Input::VoteSaved { term: 3, vote: None });
    assert_eq!(replies(&out)[0].outcome, Outcome::Accepted { durable: 2, received: 2 });
}

#[test]
fn a_follower_promises_nothing_of_entries_that_its_leader_may_not_have() {
    let mut one = One::voter(3, &[1, 1, 1, 1]);
    one.hear(1, Message::Append(append(2, at(2, 1), &[], 4)));
    let out = one.disk();
    assert_eq!(replies(&out)[0].outcome, Outcome::Accepted { durable: 2, received: 2 });
    assert_eq!(one.raft.commit_index(), 2);
}

#[test]
fn malformed_messages_are_dropped() {
    let mut one = One::voter(3, &[1]);
    let good = append(2, at(1, 1), &[2, 2], 0);
    let mut gap = good.clone();
    gap.entries[1].index = 9;
    let mut newer = good.clone();
    newer.entries[1].term = 3;
    let mut falling = good.clone();
    falling.entries[1].term = 1;
    for bad in [gap, newer, falling] {
        assert!(replies(&one.hear(1, Message::Append(bad))).is_empty());
        assert_eq!(one.raft.last(), at(1, 1));
    }
}

#[test]
fn a_leader_writes_and_sends_at_the_same_time_and_counts_itself_when_durable() {
    let mut leader = One::leader(3);
    let out = leader.propose(2);
    assert!(matches!(&out[0], Effect::Append { entries } if entries[1].index == 4 && entries[1].term == 2));
    assert_eq!((ranges(&out, 1), ranges(&out, 2)), (vec![(3, 4)], vec![(3, 4)]));
    assert!(!leader.acknowledge(1).contains(&Effect::Committed { index: 4 }), "one disk has it");
    let mut by_disk = leader.disk();
    assert!(by_disk.contains(&Effect::Committed { index: 4 }), "two have");
    by_disk.retain(|effect| matches!(effect, Effect::Send { .. }));
    let told = sends(&by_disk);
    assert!(
        matches!(&told[..], [(to, Message::Append(append))] if *to == id(1) && append.commit == 4 && !append.answer)
    );
    // Without its own disk, two others are a quorum.
    leader.propose(1);
    leader.acknowledge(1);
    assert!(leader.acknowledge(2).contains(&Effect::Committed { index: 5 }));
}

/// Figure 8 of the paper: a quorum has an entry of an older term, and yet it may be replaced.
#[test]
fn only_entries_of_the_own_term_are_counted() {
    let mut one = One::voter(5, &[1, 2]);
    one.elect();
    for n in [1, 2, 3] {
        let out = one.acknowledge_through(n, 2);
        assert!(!out.iter().any(|effect| matches!(effect, Effect::Committed { .. })));
    }
    one.acknowledge_through(1, 3);
    let out = one.acknowledge_through(2, 3);
    assert!(
        !out.iter().any(|effect| matches!(effect, Effect::Committed { .. })),
        "the own disk is not there yet"
    );
    assert!(one.disk().contains(&Effect::Committed { index: 3 }));
}

#[test]
fn a_leader_finds_where_a_follower_agrees_by_runs_of_terms() {
    let mut one = One::voter(3, &[1, 1, 1, 4, 4, 5, 5, 5]);
    let out = one.elect();
    assert_eq!(ranges(&out, 1), [(9, 9)]);
    one.propose(3);
    assert!(ranges(&one.propose(1), 1).is_empty(), "one message until it is known where they agree");
    // The follower has 1 1 1 4 and then 2 2 2 of a leader that was never heard of again... it says: term 4 at 4.
    let reply = one.reply(Outcome::Rejected { prev: 8, hint: at(7, 4) });
    let out = one.hear(1, Message::AppendReply(reply));
    assert_eq!(ranges(&out, 1), [(6, 13)], "the last entry of term 4 here is 5");
    assert!(ranges(&one.hear(1, Message::AppendReply(reply)), 1).is_empty(), "an answer counts once");
    let out = one.acknowledge_through(1, 13);
    assert!(ranges(&out, 1).is_empty());
    assert_eq!(ranges(&one.propose(1), 1), [(14, 14)], "from here on entries go out as they come");
}

#[test]
fn drafts_are_refused_whole_where_they_cannot_be_taken() {
    let mut follower = One::voter(3, &[1]);
    follower.hear(1, Message::Append(append(1, at(1, 1), &[], 0)));
    let refused = |out: &[Effect]| match out {
        [Effect::Refused { drafts, why }] => (drafts.len(), why.clone()),
        other => panic!("{other:?}"),
    };
    assert_eq!(refused(&follower.propose(2)), (2, Refusal::NotLeader { leader: Some(id(1)) }));
    let mut leader = One::leader(3);
    leader.raft.options.limits.uncommitted_bytes = 1000;
    while !matches!(leader.propose(1)[0], Effect::Refused { .. }) {}
    assert_eq!(refused(&leader.propose(2)), (2, Refusal::Overloaded));
    leader.disk();
    leader.acknowledge(1);
    assert!(matches!(leader.propose(2)[0], Effect::Append { .. }), "room again");
    leader.input(Input::DiskFull(true));
    // It hands over to one whose disk has room, and refuses meanwhile.
    assert_eq!(refused(&leader.propose(1)), (1, Refusal::Transferring));
}

#[test]
fn a_slow_follower_costs_little_and_holds_nobody_up() {
    let mut leader = One::leader(3);
    leader.raft.options.limits.in_flight_messages = 4;
    let mut to_slow = 0;
    for _ in 0..100 {
        let out = leader.propose(1);
        to_slow += ranges(&out, 2).len();
        leader.disk();
        leader.acknowledge(1);
    }
    assert_eq!(leader.raft.commit_index(), 102);
    assert_eq!(to_slow, 4, "no more than the window");
    let out = leader.acknowledge_through(2, 4);
    assert_eq!(ranges(&out, 2), [(7, 102)], "then the rest together");
}

#[test]
fn who_is_behind_takes_no_entries_and_is_sent_none() {
    let mut one = One::voter(3, &[1]);
    one.hear(1, Message::Append(append(1, at(1, 1), &[1], 1)));
    one.disk();
    one.input(Input::Behind(true));
    let out = one.hear(1, Message::Append(append(1, at(2, 1), &[1, 1], 2)));
    assert!(replies(&out)[0].full && out.contains(&Effect::Committed { index: 2 }), "{out:?}");
    assert_eq!(
        (replies(&out)[0].outcome, one.raft.last().index),
        (Outcome::Accepted { durable: 2, received: 2 }, 2)
    );
    one.input(Input::Behind(false));
    one.hear(1, Message::Append(append(1, at(2, 1), &[1, 1], 2)));
    assert!(!replies(&one.disk())[0].full);
    assert_eq!(one.raft.last().index, 4);

    let mut leader = One::leader(3);
    let taken = Outcome::Accepted { durable: 2, received: 2 };
    let mut sent = 0;
    for _ in 0..50 {
        sent += ranges(&leader.propose(1), 1).len();
        leader.pass(ms(75));
        leader.disk();
        leader.acknowledge(2);
        let reply = AppendReply { full: true, ..leader.reply(taken) };
        sent += ranges(&leader.hear(1, Message::AppendReply(reply)), 1).len();
    }
    assert_eq!(sent, 1, "what was on its way before the first answer");
    let reply = leader.reply(taken);
    assert_eq!(ranges(&leader.hear(1, Message::AppendReply(reply)), 1), [(3, 52)]);
}

#[test]
fn entries_that_were_lost_are_sent_again() {
    let mut leader = One::leader(3);
    leader.propose(1);
    let accepted = Outcome::Accepted { durable: 2, received: 2 };
    let reply = leader.reply(accepted);
    assert!(ranges(&leader.hear(1, Message::AppendReply(reply)), 1).is_empty(), "it may still arrive");
    let mut out = Vec::new();
    for _ in 0..12 {
        out = leader.pass(ms(75));
        let reply = leader.reply(accepted);
        out.extend(leader.hear(1, Message::AppendReply(reply)));
        if !ranges(&out, 1).is_empty() {
            break;
        }
    }
    assert_eq!(ranges(&out, 1), [(3, 3)], "a later round has arrived and the entry has not");
    // Received, not yet durable: a slow disk is no reason to send again.
    for _ in 0..20 {
        let out = leader.pass(ms(75));
        let reply = leader.reply(Outcome::Accepted { durable: 2, received: 3 });
        let out = [out, leader.hear(1, Message::AppendReply(reply))].concat();
        assert!(ranges(&out, 1).is_empty());
    }
}

#[test]
fn after_a_broken_link_a_follower_is_asked_first() {
    let mut leader = One::leader(3);
    leader.propose(2);
    leader.input(Input::Unreachable { to: id(1) });
    assert!(ranges(&leader.propose(2), 1).is_empty(), "nothing is wasted on a link that is not there");
    let reply = leader.reply(Outcome::Accepted { durable: 2, received: 3 });
    let out = leader.hear(1, Message::AppendReply(reply));
    assert_eq!(ranges(&out, 1), [(4, 6)], "what it has received is not sent again");
}

#[test]
fn a_busy_link_shows_that_the_follower_is_alive() {
    let mut one = One::voter(3, &[1]);
    let mut answers = Vec::new();
    for index in 1..=30 {
        one.now += ms(25);
        answers.extend(replies(&one.hear(1, Message::Append(append(1, at(index, 1), &[1], 0)))));
    }
    assert_eq!(answers.len(), 10, "one in a heartbeat's time although the disk has finished nothing");
    assert!(answers.iter().all(|reply| matches!(reply.outcome, Outcome::Accepted { durable: 1, .. })));
}

#[test]
fn who_lags_behind_the_log_gets_a_snapshot() {
    let mut leader = One::leader(3);
    leader.propose(50);
    leader.disk();
    leader.acknowledge(1);
    leader.input(Input::SnapshotTaken { index: 50, first_kept: 40 });
    leader.pass_with(ms(400), &[1]);
    let hint = at(2, 2);
    let out: Vec<Effect> = (0..4)
        .flat_map(|_| {
            let prev = leader.raft.leading.as_ref().unwrap().peers[&id(2)].prev(&leader.raft.log).index;
            let reply = leader.reply(Outcome::Rejected { prev, hint });
            leader.hear(2, Message::AppendReply(reply))
        })
        .collect();
    let asked = out.iter().filter(|effect| matches!(effect, Effect::SendSnapshot { .. })).count();
    assert_eq!(asked, 1, "{out:?}");
    assert!(ranges(&leader.propose(5), 2).is_empty(), "nothing else is sent meanwhile");
    leader.input(Input::SnapshotSent { to: id(2), index: None });
    let reply = leader.reply(Outcome::Rejected { prev: 39, hint });
    let out = leader.hear(2, Message::AppendReply(reply));
    assert!(out.contains(&Effect::SendSnapshot { to: id(2), term: 2 }), "again after a failure");
    let out = leader.input(Input::SnapshotSent { to: id(2), index: Some(50) });
    assert_eq!(ranges(&out, 2), [(51, 57)]);
}

#[test]
fn a_snapshot_is_taken_unless_it_is_old() {
    let three = voters(3);
    let install = |index, term| Input::SnapshotInstalled {
        index,
        term,
        configuration_index: 1,
        configuration: voters(3),
    };
    // Not in the log: all of it goes.
    let mut one = One::voter(3, &[1, 1, 1]);
    one.hear(1, Message::Append(append(5, at(1, 1), &[], 0)));
    one.disk();
    let out = one.input(install(10, 4));
    assert!(out.contains(&Effect::SnapshotAccepted { index: 10, term: 4, keep_log: false }));
    assert_eq!((one.raft.last(), one.raft.commit_index()), (at(10, 4), 10));
    assert_eq!(replies(&out)[0].outcome, Outcome::Accepted { durable: 10, received: 10 });
    assert_eq!(one.raft.configuration(), Some(&(1, three)));
    // In the log: what is behind it stays, as far as it is durable.
    let mut one = One::voter(3, &[1, 1, 1]);
    one.hear(1, Message::Append(append(1, at(3, 1), &[1, 1], 0)));
    let out = one.input(install(4, 1));
    assert!(out.contains(&Effect::SnapshotAccepted { index: 4, term: 1, keep_log: true }));
    assert_eq!((one.raft.last(), one.raft.durable, one.raft.commit_index()), (at(5, 1), 4, 4));
    assert_eq!(one.input(install(4, 1)), [Effect::SnapshotIgnored { index: 4 }]);
    let mut leader = One::leader(3);
    assert_eq!(leader.input(install(9, 9)), [Effect::SnapshotIgnored { index: 9 }]);
}

#[test]
fn a_configuration_of_a_newer_version_stops_the_server() {
    let mut one = One::voter(3, &[1]);
    let mut newer = append(1, at(1, 1), &[1], 0);
    newer.entries[0] = configuration(1, 2, &voters(4));
    newer.entries[0].version = 99;
    let out = one.hear(1, Message::Append(newer));
    assert!(
        matches!(out.iter().find(|e| matches!(e, Effect::Fatal { .. })), Some(Effect::Fatal { why }) if why.contains("upgrade"))
    );
    assert_eq!(one.raft.last(), at(1, 1));
}

#[test]
fn a_configuration_holds_from_when_it_is_appended_until_it_is_truncated() {
    let mut one = One::voter(3, &[1]);
    let four = Configuration::new([voters(3).servers, vec![server(3, Suffrage::Learner)]].concat());
    let mut with = append(1, at(1, 1), &[1], 0);
    with.entries[0] = configuration(1, 2, &four);
    let out = one.hear(1, Message::Append(with));
    assert!(out.contains(&Effect::Configuration { index: 2, configuration: four.clone() }));
    assert_eq!(one.raft.configuration(), Some(&(2, four)));
    let out = one.hear(2, Message::Append(append(2, at(1, 1), &[2], 0)));
    assert!(out.contains(&Effect::Configuration { index: 1, configuration: voters(3) }));
    assert_eq!(one.raft.configuration(), Some(&(1, voters(3))));
}
