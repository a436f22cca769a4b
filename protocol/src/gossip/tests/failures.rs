//! Who fails is declared failed by all, in time, on grounds that are named; and nobody else is.

use std::time::Duration;

use super::super::*;
use super::network::*;

/// Until all know of a failure in a pool of so many at good health: a round of probes may pass before it is asked at all by somebody (in
/// practice much less), then the longest suspicion, and the spreading.
fn bound(live: usize) -> u64 {
    let scale = (live as f64).log10().max(1.0);
    (4.0 * scale * 6.0) as u64 + 10
}

#[test]
fn the_dead_are_declared_failed_by_all_within_the_bound() {
    for (count, seed) in [(3, 1), (5, 2), (10, 3), (30, 4), (100, 5)] {
        let mut pool = Pool::joined(count, seed);
        pool.kill(count / 2);
        let took = pool.run_until(bound(count), |pool| pool.all_hold(count / 2, Some(Status::Failed)));
        assert!(took > Duration::from_secs(4), "{count}: no sooner than a suspicion lasts: {took:?}");
        pool.run(30);
        assert_eq!(pool.failures().len(), count - 1, "each says so once, and of nobody else");
    }
}

#[test]
fn a_failure_names_who_suspected_who_confirmed_and_the_last_answer() {
    let mut pool = Pool::joined(10, 7);
    pool.run(60);
    pool.kill(4);
    pool.run(60);
    let mut confirmed = 0;
    for (_, n, of, change) in pool.changes() {
        let Change::Failed(evidence) = change else { continue };
        assert_eq!(of, "n4");
        assert!(evidence.suspected_by.is_some() && evidence.declared_by.starts_with('n'));
        assert!(!evidence.confirmed_by.contains(evidence.suspected_by.as_ref().expect("it is named")));
        confirmed += evidence.confirmed_by.len();
        assert_eq!(evidence.last_ack.is_some(), evidence.last_rtt.is_some());
        assert!(evidence.last_ack.is_some(), "{n} has asked everybody within a minute");
    }
    assert!(confirmed > 0, "others have confirmed it");
}

#[test]
fn many_fail_at_once() {
    let mut pool = Pool::joined(60, 8);
    (30..50).for_each(|n| pool.kill(n));
    pool.run_until(120, |pool| (30..50).all(|n| pool.all_hold(n, Some(Status::Failed))));
    pool.run(60);
    assert!(pool.failures().iter().all(|(_, of)| (30..50).any(|n| *of == name(n))), "and nobody else");
}

#[test]
fn no_healthy_member_is_declared_failed_at_a_quarter_of_packets_lost() {
    for (count, seed) in [(3, 11), (10, 12), (40, 13)] {
        let mut pool = Pool::joined(count, seed);
        (pool.loss, pool.doubles, pool.delay) = (25, 10, Duration::from_millis(80));
        for _ in 0..30 {
            // Shorter than the shortest suspicion.
            let n = pool.random.below(count);
            pool.pause(n, 3000);
            pool.run(20);
        }
        assert_eq!(pool.failures(), [], "{count}");
        let suspicions =
            pool.changes().filter(|(.., change)| matches!(change, Change::Suspected { .. })).count();
        let refuted = pool.changes().filter(|(.., change)| matches!(change, Change::Refuted { .. })).count();
        assert!(suspicions > 0 && refuted > 0, "{count}: it was not idle");
    }
}

#[test]
fn a_third_that_stands_still_for_long_accuses_nobody_else() {
    let mut pool = Pool::joined(12, 14);
    (0..4).for_each(|n| pool.pause(n, 90_000));
    pool.run(91);
    let sleepers: Vec<String> = (0..4).map(name).collect();
    assert!(pool.failures().iter().all(|(_, of)| sleepers.contains(of)), "they were silent for 90 s");
    pool.forget_told();
    pool.run(90);
    assert_eq!(pool.failures(), [], "who wakes declares nobody failed for its own silence");
    for n in 0..12 {
        assert!(pool.all_hold(n, Some(Status::Alive)), "{n} is back");
    }
}

#[test]
fn who_is_suspected_contradicts_with_the_next_incarnation() {
    let mut pool = Pool::joined(5, 15);
    let mut body = Vec::new();
    put_message(&mut body, &Message::Suspect(Suspect { name: "n2", incarnation: 1, by: "n4" }));
    pool.step(0, Input::Packet { from: address(4), bytes: close_plain(&body) });
    assert_eq!(pool.status(0, 2), Some(Status::Suspect));
    pool.run_until(2, |pool| (0..5).all(|n| pool.core(n).member("n2").is_some_and(|m| m.incarnation == 2)));
    pool.run(1);
    assert!(pool.all_hold(2, Some(Status::Alive)));
    assert!(pool.core(2).health_score() <= 1);
    pool.run(30);
    assert_eq!(pool.failures(), []);
}

#[test]
fn who_is_declared_failed_but_is_there_comes_back_by_its_own_word() {
    let mut pool = Pool::joined(6, 16);
    pool.pause(3, 20_000);
    pool.run_until(20, |pool| (0..6).filter(|n| *n != 3).all(|n| pool.status(n, 3) == Some(Status::Failed)));
    pool.run_until(30, |pool| pool.all_hold(3, Some(Status::Alive)));
    assert!(pool.core(0).member("n3").is_some_and(|member| member.incarnation > 1));
}

#[test]
fn one_who_hears_nothing_harms_nobody() {
    let mut pool = Pool::joined(8, 17);
    // Nothing reaches it; all it says reaches the others.
    (1..8).for_each(|n| pool.cut[n][0] = true);
    pool.run(90);
    let of_others = pool.failures().into_iter().filter(|(n, of)| *n != 0 && *of != "n0").collect::<Vec<_>>();
    assert_eq!(of_others, [], "its accusations are contradicted in time");
    pool.heal();
    pool.run_until(120, |pool| (0..8).all(|n| pool.all_hold(n, Some(Status::Alive))));
}

#[test]
fn one_whom_one_other_cannot_reach_is_vouched_for() {
    let mut pool = Pool::joined(6, 18);
    pool.settings.stream_probes = false;
    pool.part(&[1], &[2]);
    pool.run(120);
    assert_eq!(pool.failures(), [], "others ask for them");
}

#[test]
fn partitions_heal() {
    for seed in 20..24 {
        let mut pool = Pool::joined(10, seed);
        pool.part(&[0, 1, 2, 3, 4], &[5, 6, 7, 8, 9]);
        pool.run(90);
        for n in 0..10 {
            assert_eq!(pool.core(n).live(), 5, "each side knows who is left");
        }
        pool.heal();
        pool.forget_told();
        pool.run_until(90, |pool| (0..10).all(|n| pool.all_hold(n, Some(Status::Alive))));
        pool.run(60);
        assert_eq!(pool.failures(), [], "nobody is declared failed for what the other side believed");
    }
}

#[test]
fn a_lonely_member_finds_back() {
    let mut pool = Pool::joined(7, 25);
    pool.part(&[3], &[0, 1, 2, 4, 5, 6]);
    pool.run(200);
    assert_eq!((pool.core(3).live(), pool.core(0).live()), (1, 6));
    pool.heal();
    pool.run_until(60, |pool| (0..7).all(|n| pool.core(n).live() == 7));
}

#[test]
fn pools_are_the_same_with_the_same_seed() {
    let story = || {
        let mut pool = Pool::joined(9, 26);
        pool.loss = 20;
        pool.kill(2);
        pool.run(60);
        let changes = pool.changes().map(|(at, n, of, change)| format!("{at:?} {n} {of} {change:?}"));
        (changes.collect::<Vec<_>>(), pool.packets)
    };
    assert_eq!(story(), story());
}

#[test]
fn a_quiet_pool_says_little() {
    let mut pool = Pool::joined(20, 27);
    pool.run(60);
    pool.packets = 0;
    pool.run(60);
    // A question and an answer for each in each second, and nothing else.
    assert!(pool.packets <= 20 * 60 * 2 + 200, "{} packets", pool.packets);
}

/// Who missed that a suspicion was contradicted took the next one, of a later incarnation, for its confirmation, and declared a member failed
/// that stood still for a moment only. Found by the simulator (100 members, a quarter of packets lost, seed 2).
#[test]
fn a_suspicion_of_a_newer_incarnation_is_another_one() {
    let mut pool = Pool::joined(10, 28);
    pool.part(&[0], &[1, 2, 3, 4, 5, 6, 7, 8, 9]);
    pool.forget_told();
    for (incarnation, by) in [(1, "n4"), (2, "n5"), (2, "n6")] {
        let mut body = Vec::new();
        put_message(&mut body, &Message::Suspect(Suspect { name: "n2", incarnation, by }));
        pool.step(0, Input::Packet { from: address(4), bytes: close_plain(&body) });
    }
    let suspected_by: Vec<&str> = pool
        .changes()
        .filter_map(|(.., of, change)| match change {
            Change::Suspected { by } if of == "n2" => Some(&**by),
            _ => None,
        })
        .collect();
    assert_eq!(suspected_by, ["n4", "n5"]);
}

#[test]
fn who_suspects_what_is_contradicted_is_told_by_anybody() {
    let mut pool = Pool::joined(6, 29);
    pool.part(&[1], &[2]);
    let mut body = Vec::new();
    put_message(&mut body, &Message::Suspect(Suspect { name: "n2", incarnation: 1, by: "n1" }));
    pool.step(2, Input::Packet { from: address(3), bytes: close_plain(&body) });
    pool.run(2);
    pool.step(1, Input::Packet { from: address(3), bytes: close_plain(&body) });
    assert_eq!(pool.status(1, 2), Some(Status::Alive), "it has heard the contradiction");
    let mut told = Vec::new();
    let now = pool.now;
    let other = pool.nodes[3].core.as_mut().expect("it is up");
    other.step(now, Input::Packet { from: address(1), bytes: close_plain(&body) }, &mut told);
    let answered = |effect: &Effect| matches!(effect, Effect::Send { to, .. } if *to == address(1));
    assert!(told.iter().any(answered), "{told:?}");
}
