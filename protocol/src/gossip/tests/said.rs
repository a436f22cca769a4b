//! Events, queries, keys and coordinates in small pools.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;

use super::super::keyring::{self, Key, Keyring, Tally};
use super::super::queries::{Filters, QueryId};
use super::super::*;
use super::network::{Pool, address, name};

fn fire(pool: &mut Pool, n: usize, name: &str) {
    let draft = events::Draft::new(name, Bytes::from_static(b"payload"), false).expect("it is short");
    pool.step(n, Input::Fire(draft));
}

/// The names of the events that a member has delivered, in order.
fn delivered(pool: &Pool, n: usize) -> Vec<String> {
    let told = pool.nodes[n].told.iter();
    told.filter_map(|(_, effect)| match effect {
        Effect::Event(event) => Some(event.name.to_string()),
        _ => None,
    })
    .collect()
}

fn ask(pool: &mut Pool, n: usize, draft: queries::Draft) -> QueryId {
    pool.step(n, Input::Ask { token: 7, draft });
    let asked = pool.nodes[n].told.iter().rev().find_map(|(_, effect)| match effect {
        Effect::Asked { token: 7, query } => Some(*query),
        _ => None,
    });
    asked.expect("it is answered at once").expect("it may be asked")
}

/// The queries that a member was asked and has not answered yet.
fn asked(pool: &mut Pool, n: usize) -> Vec<queries::Query> {
    let told = std::mem::take(&mut pool.nodes[n].told);
    let query = |(_, effect)| match effect {
        Effect::Query(query) => Some(*query),
        _ => None,
    };
    told.into_iter().filter_map(query).collect()
}

fn answer_all(pool: &mut Pool, members: impl Iterator<Item = usize>) {
    for n in members {
        for query in asked(pool, n) {
            let payload = Bytes::from(name(n));
            pool.step(n, Input::Respond { query: query.id, payload });
        }
    }
}

/// Who has answered, and what; and whether the query is over.
fn answers(pool: &Pool, n: usize, id: QueryId) -> (BTreeMap<String, Bytes>, bool) {
    let (mut answers, mut done) = (BTreeMap::new(), false);
    for (_, effect) in &pool.nodes[n].told {
        match effect {
            Effect::Reply { query, from, payload } if *query == id => {
                assert!(!done, "no answer comes after the end");
                let again = answers.insert(from.to_string(), payload.clone());
                assert_eq!(again, None, "each answer comes once");
            }
            Effect::QueryDone { query } if *query == id => done = true,
            _ => {}
        }
    }
    (answers, done)
}

#[test]
fn an_event_reaches_everybody_once_on_a_bad_network() {
    for seed in 0..5 {
        let mut pool = Pool::joined(30, 100 + seed);
        (pool.loss, pool.doubles) = (25, 25);
        fire(&mut pool, 3, "one");
        fire(&mut pool, 9, "two");
        pool.run(40);
        for n in 0..30 {
            let mut names = delivered(&pool, n);
            names.sort();
            assert_eq!(names, ["one", "two"], "seed {seed}: {n}");
        }
    }
}

#[test]
fn what_was_said_during_a_partition_is_told_after_it() {
    let mut pool = Pool::joined(6, 5);
    pool.part(&[0, 1, 2], &[3, 4, 5]);
    fire(&mut pool, 0, "left");
    fire(&mut pool, 3, "right");
    pool.run(60);
    assert_eq!((delivered(&pool, 1), delivered(&pool, 4)), (vec!["left".into()], vec!["right".into()]));
    pool.heal();
    pool.run(400);
    for n in 0..6 {
        let mut names = delivered(&pool, n);
        names.sort();
        assert_eq!(names, ["left", "right"], "{n}");
    }
}

#[test]
fn who_joins_hears_of_later_events_only() {
    let mut pool = Pool::strangers(4, 6);
    (1..3).for_each(|n| pool.join(n, 0));
    pool.run(5);
    fire(&mut pool, 0, "before");
    pool.run(5);
    pool.join(3, 0);
    pool.run(70);
    fire(&mut pool, 1, "after");
    pool.run(5);
    assert_eq!(delivered(&pool, 2), ["before", "after"]);
    assert_eq!(delivered(&pool, 3), ["after"]);
}

#[test]
fn a_later_life_goes_on_where_the_former_ended() {
    let mut pool = Pool::joined(3, 7);
    fire(&mut pool, 0, "seen");
    pool.run(60);
    assert_eq!(delivered(&pool, 2), ["seen"]);
    let former = pool.core(2).former();
    assert!(former.coordinate.is_some_and(|place| place != coordinate::Coordinate::default()));
    pool.kill(2);
    pool.forget_told();
    pool.start(2);
    pool.nodes[2].core.as_mut().expect("it is up").resume(former);
    assert_eq!(pool.core(2).former(), former);
    // Another exchanges states with it: that is no join of its own.
    pool.join(0, 2);
    pool.run(40);
    assert_eq!(delivered(&pool, 2), Vec::<String>::new());
    fire(&mut pool, 2, "new");
    pool.run(5);
    assert_eq!(delivered(&pool, 0), ["new"], "its clock is not behind");
}

#[test]
fn all_who_are_asked_answer_and_then_the_query_ends() {
    let mut pool = Pool::joined(12, 8);
    let draft = queries::Draft { name: "who".into(), ack: true, ..queries::Draft::default() };
    let id = ask(&mut pool, 4, draft);
    pool.run(3);
    let acked = pool.nodes[4].told.iter().filter(|(_, effect)| matches!(effect, Effect::Acked { .. }));
    assert_eq!(acked.count(), 12);
    answer_all(&mut pool, 0..12);
    pool.run(1);
    let (heard, done) = answers(&pool, 4, id);
    assert!(!done);
    let expected = (0..12).map(|n| (name(n), Bytes::from(name(n))));
    assert_eq!(heard, expected.collect());
    pool.run(3);
    assert!(answers(&pool, 4, id).1);
}

#[test]
fn only_who_is_meant_is_asked() {
    let mut pool = Pool::joined(5, 9);
    let filters = Filters { nodes: vec![name(1), name(3)], tags: vec![("role".into(), "^node$".into())] };
    let draft = queries::Draft { name: "who".into(), filters, ack: true, ..queries::Draft::default() };
    let id = ask(&mut pool, 0, draft);
    pool.run(2);
    for n in 0..5 {
        assert_eq!(asked(&mut pool, n).len(), usize::from(n == 1 || n == 3), "{n}");
    }
    pool.step(1, Input::Matches(id));
    pool.run(1);
    let acked = pool.nodes[0].told.iter().find_map(|(_, effect)| match effect {
        Effect::Acked { from, .. } => Some(from.to_string()),
        _ => None,
    });
    assert_eq!(acked, Some(name(1)), "who has not seen to its tags says nothing");
    pool.step(0, Input::CloseQuery(id));
    pool.run(60);
    assert_eq!(answers(&pool, 0, id), (BTreeMap::new(), false), "who gave it up is not bothered");
}

#[test]
fn an_answer_finds_its_way_through_others() {
    let mut pool = Pool::joined(6, 10);
    let draft = queries::Draft { name: "who".into(), relays: 3, ..queries::Draft::default() };
    let id = ask(&mut pool, 0, draft);
    pool.run(2);
    pool.part(&[0], &[5]);
    answer_all(&mut pool, 5..6);
    pool.run(1);
    assert!(answers(&pool, 0, id).0.contains_key(&name(5)));
}

#[test]
fn answers_to_strangers_are_not_sent() {
    let mut pool = Pool::joined(3, 11);
    let mut stranger = queries::Queries::new("stranger".into());
    let mut out = Vec::new();
    let draft = queries::Draft { name: "who".into(), ack: true, relays: 1, ..queries::Draft::default() };
    let interval = Duration::from_millis(200);
    let mut random = crate::random::Random::new(1);
    stranger.ask(pool.now, draft, 3, interval, &mut random, &mut out).expect("it may be asked");
    let Some(queries::Outcome::Spread(body)) = out.first() else { panic!("{out:?}") };
    let mut packet = Vec::new();
    put_message(&mut packet, &Message::Query(body));
    pool.step(1, Input::Packet { from: address(99), bytes: close_plain(&packet) });
    // The network panics at an address that nobody has; here it only must stay quiet.
    pool.run(5);
    assert_eq!((asked(&mut pool, 0).len(), asked(&mut pool, 1).len()), (1, 1));
}

fn key(byte: u8) -> Key {
    Key::new(&[byte; 32]).expect("32 bytes")
}

/// A new life with a key.
fn seal(pool: &mut Pool, n: usize, byte: u8) {
    pool.nodes[n].identity.keyring = Keyring::new([key(byte)]);
    pool.start(n);
}

fn sealed(count: usize, seed: u64) -> Pool {
    let mut pool = Pool::strangers(count, seed);
    (0..count).for_each(|n| seal(&mut pool, n, 1));
    (1..count).for_each(|n| pool.join(n, 0));
    pool.run(20);
    pool
}

/// Asks all keyrings, and saves what has changed.
fn change_keys(pool: &mut Pool, request: keyring::Request) -> Tally {
    let count = pool.nodes.len();
    let payload = Bytes::from(request.encode());
    let draft = queries::Draft { name: keyring::QUERY.into(), payload, ..queries::Draft::default() };
    let id = ask(pool, 0, draft);
    for _ in 0..30 {
        pool.run_for(Duration::from_millis(100));
        for n in 0..count {
            let saves = pool.nodes[n].told.iter().filter_map(|(_, effect)| match effect {
                Effect::SaveKeyring { query, .. } if *query == id => Some(*query),
                _ => None,
            });
            for query in saves.collect::<Vec<_>>() {
                let error = (n == 2).then(|| "disk full".to_owned());
                pool.step(n, Input::KeyringSaved { query, error });
                pool.nodes[n].told.retain(|(_, effect)| !matches!(effect, Effect::SaveKeyring { .. }));
            }
        }
    }
    let mut tally = Tally::new(count);
    for (from, payload) in answers(pool, 0, id).0 {
        tally.take(&from, &payload);
    }
    tally
}

#[test]
fn keys_are_rotated_while_the_pool_runs() {
    let mut pool = sealed(5, 12);
    (0..5).for_each(|n| assert_eq!(pool.core(n).live(), 5, "{n}"));
    let bytes = |byte: u8| key(byte).bytes().into();
    let installed = change_keys(&mut pool, keyring::Request::Install(bytes(2)));
    assert_eq!(installed.verdict(), Err("1/5 nodes reported failure".into()));
    assert_eq!(installed.messages, BTreeMap::from([(name(2), "disk full".to_owned())]));
    assert_eq!(change_keys(&mut pool, keyring::Request::Use(bytes(2))).responses, 5);
    assert_eq!(change_keys(&mut pool, keyring::Request::Remove(bytes(1))).responses, 5);
    let listed = change_keys(&mut pool, keyring::Request::List);
    assert_eq!(listed.verdict(), Ok(()));
    assert_eq!((&listed.keys, &listed.primary_keys), (&[(key(2), 5)].into(), &[(key(2), 5)].into()));
    pool.run(60);
    assert_eq!(pool.failures(), []);
}

#[test]
fn a_pool_goes_over_to_keys_while_it_runs() {
    let mut pool = Pool::strangers(3, 14);
    (pool.settings.verify_incoming, pool.settings.verify_outgoing) = (false, false);
    pool.start(2);
    (0..2).for_each(|n| seal(&mut pool, n, 1));
    (1..3).for_each(|n| pool.join(n, 0));
    pool.run(30);
    assert_eq!((0..3).map(|n| pool.core(n).live()).collect::<Vec<_>>(), [3, 3, 3]);
}

#[test]
fn round_trips_are_estimated_without_measuring_them() {
    let mut pool = Pool::joined(8, 15);
    pool.delay = Duration::from_millis(40);
    pool.run(600);
    let place = |n: usize| *pool.core(n).coordinate().expect("coordinates are on");
    let mut worst: f64 = 0.0;
    for one in 0..8 {
        for other in 0..one {
            // A way takes 20 ms in the middle of its spread, there and back.
            let estimated = place(one).distance_to(&place(other)).as_secs_f64();
            worst = worst.max((estimated - 0.040).abs());
        }
    }
    assert!(worst < 0.025, "off by {worst} s");
    let mut off = Pool::strangers(2, 16);
    off.settings.coordinates = false;
    (0..2).for_each(|n| off.start(n));
    off.join(1, 0);
    off.run(30);
    assert_eq!(off.core(0).coordinate(), None);
    let rtts = off.nodes[0].told.iter().filter_map(|(_, effect)| match effect {
        Effect::Rtt { coordinate, .. } => Some(*coordinate),
        _ => None,
    });
    assert!(rtts.clone().count() > 0 && rtts.flatten().count() == 0);
}
