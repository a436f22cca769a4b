//! Rules of elections.

use super::super::*;
use super::one::*;
use crate::entry::Suffrage;

const T: u64 = 750;

fn request(term: u64, last: Position) -> VoteRequest {
    VoteRequest { term, last, transfer: None }
}

#[test]
fn timers_are_drawn_from_the_seed_within_bounds() {
    let mut draws = Vec::new();
    for seed in 0..200 {
        let raft = Raft::new(ms(0), Options::new(id(ME), 5, seed), restored(&voters(3), &[1]));
        draws.push(raft.next_deadline().unwrap());
    }
    assert!(draws.iter().all(|draw| (ms(T)..ms(T * 3 / 2)).contains(draw)), "{draws:?}");
    draws.sort();
    draws.dedup();
    assert!(draws.len() > 190, "draws differ");
    let timing = |multiplier| Options::new(id(0), multiplier, 0).election_timeout;
    assert_eq!([1, 5, 10].map(timing), [ms(300), ms(750), ms(1500)]);
}

#[test]
fn a_lone_voter_leads_at_once_and_commits_when_its_disk_has_it() {
    let mut one = One::voter(1, &[1]);
    assert_eq!(one.raft.next_deadline(), Some(ms(0)));
    let out = one.input(Input::Tick);
    assert_eq!(out[0], Effect::SaveVote { term: 2, vote: Some(id(ME)) });
    assert_eq!(one.raft.role(), Role::Candidate, "not before its vote is durable");
    one.input(Input::VoteSaved { term: 2, vote: Some(id(ME)) });
    assert_eq!((one.raft.role(), one.raft.commit_index(), one.raft.lease_until()), (Role::Leader, 0, None));
    one.disk();
    assert_eq!((one.raft.commit_index(), one.raft.lease_until()), (2, Some(Now::MAX)));
    one.pass(ms(10_000));
    assert_eq!(one.raft.role(), Role::Leader, "it needs nobody");
    one.propose(3);
    assert_eq!(one.raft.commit_index(), 2);
    assert!(one.disk().contains(&Effect::Committed { index: 5 }));
}

#[test]
fn a_lone_voter_that_was_one_of_several_waits_for_the_others_lease() {
    let mut restored = restored(&voters(2), &[1, 1]);
    restored.configurations.push((2, voters(1)));
    let mut one = One::start(restored);
    one.now = ms(T - 1);
    assert!(one.raft.next_deadline().unwrap() >= ms(T));
    one.pass(ms(T));
    assert_eq!(one.raft.role(), Role::Candidate);
}

#[test]
fn nobody_asks_for_votes_before_a_quorum_has_promised_them() {
    let mut one = One::voter(3, &[1, 1]);
    let wait = one.raft.next_deadline().unwrap() - one.now;
    let out = one.pass(wait);
    let asked = Message::PreVote(request(2, at(2, 1)));
    assert_eq!(sends(&out), [(id(1), asked.clone()), (id(2), asked)]);
    assert_eq!((one.raft.term(), one.raft.role()), (1, Role::PreCandidate), "the term stays");
    // Answers to another question do not count.
    let reply = |asked, granted| Message::PreVoteReply(VoteReply { term: 1, asked, granted });
    one.hear(1, reply(3, true));
    assert_eq!(one.raft.role(), Role::PreCandidate);
    one.hear(1, reply(2, false));
    assert_eq!(one.raft.role(), Role::PreCandidate);
    one.hear(2, reply(2, false));
    assert_eq!((one.raft.term(), one.raft.role()), (1, Role::Follower), "a quorum will not elect it");
    assert!(one.raft.next_deadline().unwrap() <= one.now + ms(T / 2), "it asks again soon");
    one.pass(ms(T * 3 / 2));
    let out = one.hear(2, reply(2, true));
    assert_eq!(out[0], Effect::SaveVote { term: 2, vote: Some(id(ME)) });
    assert!(sends(&out).is_empty(), "requests wait for the own vote to be durable");
    let asked = Message::Vote(request(2, at(2, 1)));
    assert_eq!(sends(&one.disk()), [(id(1), asked.clone()), (id(2), asked)]);
}

#[test]
fn of_two_that_ask_at_the_same_time_one_goes_on() {
    let mut one = One::voter(3, &[1, 1]);
    one.raft.options.id = id(1);
    one.now = one.raft.next_deadline().unwrap();
    one.input(Input::Tick);
    let grants =
        |one: &mut One, from| votes(&one.hear(from, Message::PreVote(request(2, at(2, 1)))))[0].granted;
    assert!(!grants(&mut one, 0) && grants(&mut one, 2), "the one with the greater ID");
    let better = Message::PreVote(request(2, at(3, 1)));
    assert!(votes(&one.hear(0, better))[0].granted, "or with more of the log");
    one.now = one.raft.next_deadline().unwrap();
    one.input(Input::Tick);
    assert!(grants(&mut one, 0), "but only once: it may be the one that can be elected");
}

#[test]
fn who_has_given_a_promise_or_a_vote_gives_no_other_a_promise_at_once() {
    let mut one = One::voter(5, &[1, 1]);
    let grants = |one: &mut One, from, term| {
        votes(&one.hear(from, Message::PreVote(request(term, at(2, 1)))))[0].granted
    };
    assert!(grants(&mut one, 1, 2) && grants(&mut one, 1, 2) && !grants(&mut one, 2, 2));
    one.now += ms(T / 10);
    assert!(grants(&mut one, 2, 2));
    one.hear(2, Message::Vote(request(2, at(2, 1))));
    one.disk();
    one.now += ms(T / 2 - 1);
    assert!(!grants(&mut one, 3, 3), "it is just being elected");
    one.now += ms(1);
    assert!(grants(&mut one, 3, 3));
}

#[test]
fn a_candidate_waits_for_a_slow_disk() {
    let mut one = One::voter(1, &[1]);
    one.input(Input::Tick);
    one.pass(ms(20 * T));
    assert_eq!((one.raft.role(), one.raft.term()), (Role::Candidate, 2));
    one.disk();
    assert_eq!(one.raft.role(), Role::Leader);
}

#[test]
fn a_candidate_counts_each_vote_of_its_term_once() {
    let mut one = One::voter(5, &[1]);
    one.pass(ms(T * 3 / 2));
    for from in [1, 2] {
        one.hear(from, Message::PreVoteReply(VoteReply { term: 1, asked: 2, granted: true }));
    }
    one.disk();
    let vote = |asked, granted| Message::VoteReply(VoteReply { term: asked, asked, granted });
    one.hear(1, vote(2, true));
    one.hear(1, vote(2, true));
    one.hear(2, vote(1, true));
    one.hear(9, vote(2, true));
    assert_eq!(
        one.raft.role(),
        Role::Candidate,
        "own, one other; twice, stale and strange ones do not count"
    );
    one.hear(3, vote(2, true));
    assert_eq!(one.raft.role(), Role::Leader);
}

#[test]
fn a_vote_is_durable_before_it_is_told_and_given_once_a_term() {
    let mut one = One::voter(3, &[1, 1]);
    let ask = |term| Message::Vote(request(term, at(2, 1)));
    let out = one.hear(1, ask(2));
    assert_eq!(out[0], Effect::SaveVote { term: 2, vote: Some(id(1)) });
    assert!(votes(&out).is_empty());
    assert!(!votes(&one.hear(2, ask(2)))[0].granted, "only one");
    let given = VoteReply { term: 2, asked: 2, granted: true };
    assert_eq!(sends(&one.disk()), [(id(1), Message::VoteReply(given))]);
    assert_eq!(sends(&one.hear(1, ask(2))), [(id(1), Message::VoteReply(given))], "the same again");
    assert!(!votes(&one.hear(2, ask(1)))[0].granted, "an old term");
    // A vote that became durable after the term had gone on is not told.
    let mut one = One::voter(3, &[1, 1]);
    one.hear(1, ask(2));
    one.hear(2, ask(3));
    assert!(votes(&one.input(Input::VoteSaved { term: 2, vote: Some(id(1)) })).is_empty());
    let out = one.input(Input::VoteSaved { term: 3, vote: Some(id(2)) });
    assert_eq!(sends(&out)[0].0, id(2));
}

#[test]
fn a_term_that_has_a_leader_has_no_more_votes() {
    let mut one = One::voter(3, &[1, 1]);
    one.hear(1, Message::Append(append(2, at(2, 1), &[], 0)));
    one.disk();
    one.now += ms(2 * T);
    assert!(!votes(&one.hear(2, Message::Vote(request(2, at(2, 1)))))[0].granted);
}

#[test]
fn the_log_tells_of_a_term_that_the_vote_does_not() {
    let mut restored = restored(&voters(3), &[1, 4]);
    (restored.term, restored.vote) = (3, Some(id(1)));
    let mut one = One::start(restored);
    assert_eq!(one.raft.term(), 4);
    one.hear(2, Message::Vote(request(4, at(2, 4))));
    assert!(votes(&one.disk())[0].granted, "it has not voted in that one");
}

#[test]
fn votes_go_to_logs_that_are_as_complete() {
    for (mine, theirs, granted) in [
        (&[1, 1, 2][..], at(3, 2), true),
        (&[1, 1, 2], at(4, 2), true),
        (&[1, 1, 2], at(2, 2), false),
        (&[1, 1, 2], at(9, 1), false),
        (&[1, 1, 2], at(1, 3), true),
    ] {
        for pre in [true, false] {
            let mut one = One::voter(3, mine);
            let asked = request(5, theirs);
            let out = one.hear(1, if pre { Message::PreVote(asked) } else { Message::Vote(asked) });
            let out = [out, one.disk()].concat();
            assert_eq!(votes(&out)[0].granted, granted, "{mine:?} {theirs:?}");
            assert_eq!(one.raft.term(), if pre { 2 } else { 5 }, "a promise moves no term");
        }
    }
}

#[test]
fn a_leader_that_is_heard_is_not_voted_out() {
    let mut one = One::voter(3, &[1, 1]);
    one.hear(1, Message::Append(append(1, at(2, 1), &[], 0)));
    let (pre, vote) = (Message::PreVote(request(7, at(9, 6))), Message::Vote(request(7, at(9, 6))));
    for time in [0, T - 1] {
        one.now = ms(T + time);
        assert!(!votes(&one.hear(2, pre.clone()))[0].granted);
        assert!(!votes(&one.hear(2, vote.clone()))[0].granted);
        assert_eq!(one.raft.term(), 1, "nor does its term move");
    }
    one.now = ms(T + T);
    assert!(votes(&one.hear(2, pre))[0].granted);
    one.hear(2, vote);
    assert!(votes(&one.disk())[0].granted);
    // The leader itself goes on, too.
    let mut leader = One::leader(3);
    assert!(!votes(&leader.hear(2, Message::Vote(request(7, at(9, 6)))))[0].granted);
    assert_eq!((leader.raft.role(), leader.raft.term()), (Role::Leader, 2));
}

#[test]
fn after_a_start_a_leader_may_still_rely_on_what_was_answered_before() {
    let mut one = One::voter(3, &[1, 1]);
    one.now = ms(T - 1);
    let transfer = Some(0);
    for asked in [request(2, at(2, 1)), VoteRequest { transfer, ..request(2, at(2, 1)) }] {
        assert!(!votes(&one.hear(1, Message::Vote(asked)))[0].granted);
        assert!(!votes(&one.hear(1, Message::PreVote(asked)))[0].granted);
    }
    one.now = ms(T);
    assert!(votes(&one.hear(1, Message::PreVote(request(2, at(2, 1)))))[0].granted);
}

/// A new server answered its first leader, crashed before its first term was on disk, and could then vote at once for another
/// while that leader still answered reads by its lease.
#[test]
fn who_would_forget_a_leader_gives_it_no_lease() {
    let mut blank = One::start(Restored::default());
    let sign = |round| Message::Append(Append { round, ..append(1, at(0, 0), &[], 0) });
    let rounds = |out: &[Effect]| -> Vec<u64> { replies(out).iter().map(|reply| reply.round).collect() };
    assert_eq!(rounds(&blank.hear(1, sign(3))), [0], "it is alive, and promises nothing");
    blank.input(Input::VoteSaved { term: 1, vote: None });
    assert_eq!(rounds(&blank.hear(1, sign(4))), [4]);
    // What is durable now keeps it silent after a crash.
    let restored = Restored { term: 1, ..Restored::default() };
    let mut again = One { raft: Raft::new(ms(0), Options::new(id(ME), 5, 1), restored), now: ms(T - 1) };
    assert!(!votes(&again.hear(2, Message::Vote(request(2, at(1, 1)))))[0].granted);
}

/// Damage had taken all of its log, and the operator had accepted the loss: it never led again.
#[test]
fn a_lone_voter_begins_anew_in_whatever_term() {
    let lost = || Restored { term: 7, vote: Some(id(ME)), ..Restored::default() };
    let mut lone = One::start(lost());
    lone.input(Input::Bootstrap { configuration: voters(1) });
    lone.disk();
    lone.disk();
    assert_eq!((lone.raft.role(), lone.raft.term()), (Role::Leader, 8));
    assert_eq!(lone.raft.commit_index(), 2);
    // With others it could elect one that lacks what it had acknowledged.
    let mut one = One::start(lost());
    let out = one.input(Input::Bootstrap { configuration: voters(3) });
    assert!(matches!(out[..], [Effect::BootstrapRefused { why: Refusal::Invalid(_) }]), "{out:?}");
    assert_eq!(one.raft.configuration(), None);
}

#[test]
fn a_transfer_that_the_leader_wants_is_voted_for_and_one_it_has_given_up_is_not() {
    for (epoch, asked_epoch, term, granted) in [
        (0, Some(0), 2, true),
        (1, Some(0), 2, false),
        (1, Some(1), 2, true),
        (0, Some(0), 3, false),
        (0, None, 2, false),
    ] {
        let mut one = One::voter(3, &[1, 1]);
        let sign = Append { epoch, ..append(1, at(2, 1), &[], 0) };
        one.hear(1, Message::Append(sign));
        let out = one.hear(2, Message::Vote(VoteRequest { term, last: at(2, 1), transfer: asked_epoch }));
        let out = [out, one.disk()].concat();
        assert_eq!(votes(&out)[0].granted, granted, "{epoch} {asked_epoch:?} {term}");
    }
}

#[test]
fn who_does_not_vote_does_not_campaign() {
    let with_me_as = |suffrage| {
        Configuration::new(vec![server(ME, suffrage), server(1, Suffrage::Voter), server(2, Suffrage::Voter)])
    };
    let removed = Configuration::new(vec![server(1, Suffrage::Voter), server(2, Suffrage::Voter)]);
    for configuration in [with_me_as(Suffrage::Learner), with_me_as(Suffrage::NonVoter), removed] {
        let mut one = One::start(restored(&configuration, &[1, 1]));
        assert!(sends(&one.pass(ms(10 * T))).is_empty(), "{configuration:?}");
        // But votes when asked: the other may know better.
        one.hear(1, Message::Vote(request(2, at(2, 1))));
        assert!(votes(&one.disk())[0].granted);
    }
    let mut blank = One::start(Restored::default());
    assert!(sends(&blank.pass(ms(10 * T))).is_empty(), "a blank server waits");
    blank.input(Input::Bootstrap { configuration: voters(3) });
    assert_eq!(blank.raft.last(), at(1, 1));
    assert!(!sends(&blank.pass(ms(2 * T))).is_empty(), "until it is told");
    let before = blank.raft.configuration().cloned();
    blank.input(Input::Bootstrap { configuration: voters(1) });
    assert_eq!(blank.raft.configuration().cloned(), before, "once");
}

#[test]
fn who_is_removed_by_what_is_not_committed_may_still_be_needed() {
    let mut restored = restored(&voters(3), &[1, 1, 1]);
    let removed = Configuration::new(vec![server(1, Suffrage::Voter), server(2, Suffrage::Voter)]);
    restored.configurations.push((3, removed));
    let mut one = One::start(restored);
    one.pass(ms(T));
    assert_eq!(one.raft.role(), Role::PreCandidate);
    one.hear(1, Message::PreVoteReply(VoteReply { term: 1, asked: 2, granted: true }));
    assert_eq!(one.raft.role(), Role::PreCandidate, "its own vote does not count");
    one.hear(2, Message::PreVoteReply(VoteReply { term: 1, asked: 2, granted: true }));
    assert_eq!(one.raft.role(), Role::Candidate);
}

#[test]
fn newer_terms_are_followed_and_older_ones_corrected() {
    let mut leader = One::leader(3);
    let out = leader.hear(1, Message::AppendReply(AppendReply { term: 9, ..leader.reply(rejected()) }));
    assert!(out.contains(&Effect::SteppedDown { why: StepDown::NewerTerm }));
    assert!(out.contains(&Effect::SaveVote { term: 9, vote: None }));
    assert_eq!((leader.raft.role(), leader.raft.term(), leader.raft.leader()), (Role::Follower, 9, None));
    // A leader of an old term, and a candidate of one, learn of the new one.
    let out = leader.hear(1, Message::Append(append(3, at(2, 2), &[], 0)));
    assert_eq!(replies(&out)[0].term, 9);
    assert_eq!(leader.raft.leader(), None);
    let out = leader.hear(1, Message::PreVote(request(4, at(9, 9))));
    assert_eq!(votes(&out)[0], VoteReply { term: 9, asked: 4, granted: false });
}

fn rejected() -> Outcome {
    Outcome::Rejected { prev: 0, hint: Position::default() }
}

#[test]
fn a_candidate_yields_to_the_leader_of_its_term() {
    let mut one = One::voter(3, &[1]);
    one.pass(ms(T * 3 / 2));
    one.hear(1, Message::PreVoteReply(VoteReply { term: 1, asked: 2, granted: true }));
    one.disk();
    assert_eq!(one.raft.role(), Role::Candidate);
    one.hear(2, Message::Append(append(2, at(1, 1), &[], 0)));
    assert_eq!((one.raft.role(), one.raft.leader()), (Role::Follower, Some(id(2))));
}

#[test]
fn a_second_leader_of_one_term_is_not_heard() {
    let mut leader = One::leader(3);
    let out = leader.hear(1, Message::Append(append(2, at(1, 1), &[], 0)));
    assert_eq!(out, []);
    assert_eq!((leader.raft.role(), leader.raft.term()), (Role::Leader, 2));
}

#[test]
fn a_term_out_of_reach_is_not_taken() {
    let mut leader = One::leader(3);
    let out = leader.hear(1, Message::Append(append(u64::MAX, at(1, 1), &[], 0)));
    assert_eq!(out, []);
    assert_eq!((leader.raft.role(), leader.raft.term()), (Role::Leader, 2));
}

#[test]
fn a_leader_that_no_quorum_hears_steps_down() {
    let mut leader = One::leader(5);
    leader.pass_with(ms(3 * T), &[1, 2]);
    assert_eq!(leader.raft.role(), Role::Leader, "two others are enough");
    leader.pass_with(ms(T), &[1]);
    assert_eq!(leader.raft.role(), Role::Leader, "for an election timeout");
    let out = leader.pass_with(ms(T / 5), &[1]);
    assert!(out.contains(&Effect::SteppedDown { why: StepDown::QuorumLost }));
    assert_eq!((leader.raft.role(), leader.raft.leader(), leader.raft.term()), (Role::Follower, None, 2));
}
