//! Who is believed what.

use super::*;

const STARTED_MS: u64 = 1_000;

fn id(n: u8) -> ServerId {
    ServerId([n; 16])
}

fn card(n: u8, status: MemberStatus) -> Card {
    Card {
        id: id(n),
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
        started_ms: STARTED_MS,
        status: status as u8,
    }
}

fn said(own: Card, others: &[Card]) -> Introduction {
    Introduction { own, others: others.to_vec(), refusal: String::new() }
}

fn at(second: u64) -> Time {
    let start = crate::runtime::time::now();
    Time { now: start, unix: Duration::from_secs(second) }
}

use MemberStatus::{Alive, Failed, Left};

/// Server 1's table, which has met server 2.
fn met() -> Known {
    let mut known = Known::new(id(1));
    let heard = known.hear(&card(1, Alive), &said(card(2, Alive), &[]), at(1));
    assert_eq!(heard, Ok(News::Roster));
    known
}

fn status(known: &Known, n: u8) -> Option<MemberStatus> {
    known.members.get(&id(n)).map(|member| member.status)
}

/// A server was slow for a while, given up as dead and removed. It ran on and said hello, and nobody ever believed it again.
#[test]
fn who_is_taken_for_gone_and_runs_is_believed_again() {
    let (mut one, mut two) = (met(), Known::new(id(2)));
    (0..MISSES_MAX).for_each(|_| _ = one.miss(id(2), at(2)));
    assert_eq!(status(&one, 2), Some(Failed));
    assert_eq!(one.give_up("S2", Duration::from_secs(3)), Some(News::Roster));
    assert_eq!(status(&one, 2), Some(Left));
    // What it said before is not news.
    assert_eq!(one.hear(&card(1, Alive), &said(card(2, Alive), &[]), at(4)), Ok(News::None));
    assert_eq!(status(&one, 2), Some(Left));
    // It hears that it has left, and contradicts with a later word.
    let own = card(2, Alive);
    let told = said(card(1, Alive), &one.cards());
    two.hear(&own, &told, at(4)).expect("they know each other");
    assert_eq!(two.refuted_ms(), STARTED_MS + 1);
    let again = Card { started_ms: two.refuted_ms(), ..own.clone() };
    assert_eq!(one.hear(&card(1, Alive), &said(again.clone(), &[]), at(5)), Ok(News::Roster));
    assert_eq!(status(&one, 2), Some(Alive));
    // The old word, still under way, changes nothing; and its own, from before it contradicted, is no other server's.
    two.hear(&again, &told, at(6)).expect("nothing new");
    assert_eq!(two.refuted_ms(), STARTED_MS + 1, "it is contradicted once");
    assert_eq!(two.hear(&again, &said(own, &[]), at(6)), Ok(News::None));
}

#[test]
fn who_leaves_does_not_contradict() {
    let mut two = Known::new(id(2));
    two.hear(&card(2, Left), &said(card(1, Alive), &[card(2, Left)]), at(1)).expect("they know each other");
    assert_eq!(two.refuted_ms(), 0);
}

#[test]
fn a_second_process_with_the_same_id_is_told_so() {
    let mut known = met();
    let twin = Card { started_ms: STARTED_MS + 5, ..card(1, Alive) };
    let why = known.hear(&card(1, Alive), &said(twin, &[]), at(2)).expect_err("it is not itself");
    assert!(why.contains("same node ID"), "{why}");
}

#[test]
fn others_tell_that_somebody_left_only_of_whom_is_not_heard() {
    let mut known = met();
    known.hear(&card(1, Alive), &said(card(2, Alive), &[]), at(1)).expect("as before");
    known.hear(&card(1, Alive), &said(card(3, Alive), &[card(2, Left)]), at(2)).expect("a third one");
    assert_eq!(status(&known, 2), Some(Alive), "it answers here");
    (0..MISSES_MAX).for_each(|_| _ = known.miss(id(2), at(3)));
    let older = Card { started_ms: STARTED_MS - 1, ..card(2, Left) };
    known.hear(&card(1, Alive), &said(card(3, Alive), &[older]), at(4)).expect("a third one");
    assert_eq!(status(&known, 2), Some(Failed), "that was an earlier life");
    known.hear(&card(1, Alive), &said(card(3, Alive), &[card(2, Left)]), at(5)).expect("a third one");
    assert_eq!(status(&known, 2), Some(Left));
}
