//! Members join, say what they are, come back, and get into each other's way.

use std::time::Duration;

use super::super::*;
use super::network::*;

fn done(pool: &Pool, n: usize) -> Option<(usize, Vec<String>)> {
    pool.nodes[n].told.iter().rev().find_map(|(_, effect)| match effect {
        Effect::JoinDone { contacted, errors } => {
            Some((*contacted, errors.iter().map(|(_, why)| why.clone()).collect()))
        }
        _ => None,
    })
}

fn conflicts(pool: &Pool) -> Vec<(usize, Claim, String, String)> {
    let told =
        pool.nodes.iter().enumerate().flat_map(|(n, node)| node.told.iter().map(move |(_, told)| (n, told)));
    told.filter_map(|(n, effect)| match effect {
        Effect::Conflict(conflict) => {
            let party = |party: &Party| format!("{}@{}", party.name, number(party.address));
            Some((n, conflict.claim, party(&conflict.ours), party(&conflict.theirs)))
        }
        _ => None,
    })
    .collect()
}

#[test]
fn all_learn_of_who_joins_within_seconds() {
    for (count, seed) in [(3, 1), (10, 2), (100, 3)] {
        let mut pool = Pool::strangers(count, seed);
        (1..count).for_each(|n| pool.join(n, n - 1));
        pool.run_until(30, |pool| (0..count).all(|n| pool.core(n).live() == count));
        assert_eq!(done(&pool, 1), Some((1, Vec::new())));
        let joined = pool.changes().filter(|(.., change)| **change == Change::Joined).count();
        assert_eq!(joined, count * (count - 1), "each is told once of each other");
    }
}

#[test]
fn a_join_tells_what_it_could_not_reach() {
    let mut pool = Pool::strangers(3, 4);
    pool.kill(2);
    pool.step(0, Input::Join(vec![address(1), address(2), address(200)]));
    pool.run(15);
    let (contacted, errors) = done(&pool, 0).expect("it is done");
    assert_eq!((contacted, errors.len()), (1, 2), "{errors:?}");
    let many = (0..500).map(|_| address(1)).collect();
    pool.step(0, Input::Join(many));
    pool.run(15);
    let (contacted, errors) = done(&pool, 0).expect("it is done");
    assert!(contacted > 0 && contacted + errors.len() == 500);
}

#[test]
fn what_a_member_says_of_itself_reaches_all() {
    let mut pool = Pool::joined(12, 5);
    let tags = Tags::new([("dc", "dc1"), ("role", "consul")]).expect("short");
    pool.step(3, Input::SetTags(tags.clone()));
    pool.run(3);
    for n in 0..12 {
        assert_eq!(pool.core(n).member("n3").map(|member| &member.tags), Some(&tags), "{n}");
    }
    let updated = pool.changes().filter(|(.., change)| **change == Change::Updated).count();
    assert_eq!(updated, 12);
}

#[test]
fn who_starts_again_comes_back_with_a_higher_incarnation() {
    let mut pool = Pool::joined(5, 6);
    // Sooner than anybody has missed it.
    pool.kill(2);
    pool.start(2);
    pool.join(2, 0);
    pool.run(5);
    assert!(pool.all_hold(2, Some(Status::Alive)));
    assert_eq!(pool.failures(), []);
    // And after all have.
    pool.kill(2);
    pool.run(40);
    assert!(pool.all_hold(2, Some(Status::Failed)));
    pool.start(2);
    pool.join(2, 4);
    pool.run(5);
    assert!(pool.all_hold(2, Some(Status::Alive)));
    let incarnation = pool.core(2).own().incarnation;
    assert!(incarnation > 1);
    assert!(
        (0..5).all(|n| pool.core(n).member("n2").is_some_and(|member| member.incarnation == incarnation))
    );
}

#[test]
fn who_has_failed_is_known_to_those_who_join_later() {
    let mut pool = Pool::joined(6, 7);
    pool.kill(5);
    pool.kill(4);
    pool.run(60);
    pool.start(4);
    pool.join(4, 1);
    pool.run(5);
    assert_eq!(pool.status(4, 5), Some(Status::Failed));
}

#[test]
fn of_two_with_one_name_the_first_keeps_it_and_both_are_named() {
    let mut pool = Pool::joined(5, 8);
    pool.kill(4);
    pool.run(40);
    pool.forget_told();
    pool.nodes[4].identity.name = name(2).into();
    pool.nodes[4].identity.incarnation = 99;
    pool.start(4);
    pool.join(4, 0);
    pool.run(60);
    let (contacted, errors) = done(&pool, 4).expect("it is done");
    assert_eq!(contacted, 0);
    assert!(
        errors[0].contains("node name 'n2' is taken by the agent with ID")
            && errors[0].contains(&address(2).to_string())
    );
    assert!(
        conflicts(&pool).contains(&(0, Claim::Name, "n2@2".into(), "n2@4".into())),
        "{:?}",
        conflicts(&pool)
    );
    for n in 0..4 {
        assert_eq!(pool.core(n).member("n2").map(|member| number(member.address)), Some(2));
    }
    // Once the first is gone, the other may have it.
    pool.kill(2);
    pool.run(40);
    pool.join(4, 0);
    pool.run(5);
    assert_eq!(
        pool.core(1).member("n2").map(|member| (number(member.address), member.status)),
        Some((4, Status::Alive))
    );
}

#[test]
fn of_two_with_one_id_the_first_keeps_it_and_both_are_named() {
    let mut pool = Pool::joined(5, 9);
    pool.kill(4);
    pool.nodes[4].identity.name = "clone".into();
    pool.nodes[4].identity.id = identity(2).id;
    pool.start(4);
    pool.join(4, 0);
    pool.run(5);
    let (contacted, errors) = done(&pool, 4).expect("it is done");
    assert_eq!(contacted, 0);
    assert!(
        errors[0].contains("conflicting node ID")
            && errors[0].contains("'n2'")
            && errors[0].contains("'clone'")
    );
    assert!(conflicts(&pool).contains(&(0, Claim::Id, "n2@2".into(), "clone@4".into())));
    assert!((0..4).all(|n| pool.core(n).member("clone").is_none()));
}

#[test]
fn a_machine_that_was_installed_anew_takes_its_name_back_at_once() {
    let mut pool = Pool::joined(5, 10);
    pool.kill(3);
    pool.nodes[3].identity.id = crate::entry::ServerId([77; 16]);
    pool.start(3);
    pool.join(3, 1);
    pool.run(5);
    for n in 0..5 {
        let member = pool.core(n).member("n3").expect("it is known");
        assert_eq!((member.id, member.status), (crate::entry::ServerId([77; 16]), Status::Alive), "{n}");
    }
    assert_eq!(conflicts(&pool), []);
}

#[test]
fn a_member_may_come_back_elsewhere_once_it_has_failed_there() {
    let mut pool = Pool::joined(5, 11);
    pool.kill(3);
    pool.kill(4);
    pool.run(60);
    // It has the address of another that is gone now.
    let identity = pool.nodes[3].identity.clone();
    pool.nodes[4].identity = Identity { address: address(4), ..identity };
    pool.start(4);
    pool.join(4, 0);
    pool.run(5);
    assert_eq!(
        pool.core(2).member("n3").map(|member| (number(member.address), member.status)),
        Some((4, Status::Alive))
    );
    assert_eq!(pool.status(2, 4), Some(Status::Failed));
}

#[test]
fn who_is_of_another_datacenter_is_refused() {
    let mut pool = Pool::strangers(2, 12);
    pool.nodes[1].identity.tags = Tags::new([("dc", "dc2")]).expect("short");
    pool.start(1);
    pool.join(1, 0);
    pool.run(2);
    let (contacted, errors) = done(&pool, 1).expect("it is done");
    assert_eq!((contacted, &*errors[0]), (0, "Member 'n1' part of wrong datacenter 'dc2': this is 'dc1'"));
    assert_eq!((pool.core(0).live(), pool.core(1).live()), (1, 1));
}

#[test]
fn who_says_something_else_where_members_agree_is_refused_and_told_what_to_do() {
    let mut pool = Pool::strangers(3, 14);
    let agreed = |tag: &str, noun: &str, advice: &str| AgreedTag {
        tag: tag.into(),
        noun: noun.into(),
        advice: advice.into(),
    };
    pool.settings.agreed_tags = vec![agreed("cluster", "cluster", "choose one")];
    for (n, tags) in
        [vec![("dc", "dc1"), ("cluster", "a")], vec![("dc", "dc1"), ("cluster", "b")]].into_iter().enumerate()
    {
        pool.nodes[n].identity.tags = Tags::new(tags).expect("short");
    }
    (0..3).for_each(|n| pool.start(n));
    pool.join(1, 0);
    pool.run(2);
    let (contacted, errors) = done(&pool, 1).expect("it is done");
    let why = "Member 'n1' is of cluster b and 'n0' of cluster a: choose one";
    assert_eq!((contacted, &*errors[0]), (0, why));
    pool.join(2, 0);
    pool.run(2);
    assert_eq!((pool.core(0).live(), pool.core(1).live()), (2, 1), "who says nothing of it is welcome");
}

#[test]
fn who_is_of_no_allowed_network_is_refused() {
    let mut pool = Pool::strangers(2, 13);
    pool.settings.allowed_networks = vec![Network { address: address(0).ip(), prefix: 32 }];
    pool.start(0);
    pool.join(1, 0);
    pool.run(2);
    let (contacted, errors) = done(&pool, 1).expect("it is done");
    assert!(contacted == 0 && errors[0].contains("none of the allowed networks"), "{errors:?}");
}

#[test]
fn a_pool_of_thousands_is_cheap() {
    let mut core = Gossip::new(Settings::lan(), identity(0), 1, Duration::from_secs(100));
    let mut out = Vec::new();
    for n in 1..10_000 {
        let who = identity(n);
        let mut body = Vec::new();
        let alive = Alive {
            name: &who.name,
            id: who.id,
            address: who.address,
            incarnation: 1,
            versions: Versions::OWN,
            tags: who.tags.view(),
        };
        put_message(&mut body, &Message::Alive(alive));
        core.step(
            Duration::from_secs(100),
            Input::Packet { from: address(n), bytes: close_plain(&body) },
            &mut out,
        );
    }
    assert_eq!(core.live(), 10_000);
    out.clear();
    // Ten minutes of it alone: each probe fails, and each failure is told.
    let (mut now, end) = (Duration::from_secs(100), Duration::from_secs(700));
    let mut steps = 0;
    while let Some(deadline) = core.next_deadline().filter(|deadline| *deadline < end) {
        now = now.max(deadline);
        core.step(now, Input::Tick, &mut out);
        out.clear();
        steps += 1;
    }
    assert!(steps < 10_000, "{steps} wakes");
}
