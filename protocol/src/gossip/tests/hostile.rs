//! Members that break the rules, and floods.

use std::time::Duration;

use super::super::*;
use super::network::*;

fn hear(pool: &mut Pool, n: usize, message: &Message<'_>) {
    let mut body = Vec::new();
    put_message(&mut body, message);
    pool.step(n, Input::Packet { from: address(200), bytes: close_plain(&body) });
}

fn lines(pool: &Pool, n: usize) -> usize {
    pool.nodes[n].told.iter().filter(|(_, effect)| matches!(effect, Effect::Log { .. })).count()
}

#[test]
fn no_incarnation_can_be_so_high_that_a_member_cannot_contradict() {
    let mut pool = Pool::joined(4, 1);
    for incarnation in [settings::INCARNATION_MAX, 1 << 50] {
        hear(
            &mut pool,
            0,
            &Message::Dead(Dead {
                name: "n2",
                incarnation,
                by: "n3",
                suspected_by: "n3",
                confirmed_by: Names::default(),
            }),
        );
        hear(&mut pool, 2, &Message::Suspect(Suspect { name: "n2", incarnation, by: "n3" }));
    }
    pool.run(30);
    assert!(pool.all_hold(2, Some(Status::Alive)));
    assert_eq!(pool.core(2).own().incarnation, 1);
}

#[test]
fn forged_accusers_do_not_shorten_a_suspicion() {
    let mut pool = Pool::joined(10, 2);
    pool.kill(4);
    pool.kill(5);
    pool.run_until(30, |pool| pool.status(0, 4) == Some(Status::Suspect));
    for forged in 0..100 {
        let by = format!("forged{forged}");
        hear(&mut pool, 0, &Message::Suspect(Suspect { name: "n4", incarnation: 1, by: &by }));
    }
    pool.run_for(Duration::from_millis(200));
    assert_eq!(pool.status(0, 4), Some(Status::Suspect));
}

#[test]
fn garbage_is_told_once_in_a_while() {
    let mut pool = Pool::joined(2, 3);
    for n in 0..10_000u32 {
        pool.step(0, Input::Packet { from: address(9), bytes: n.to_le_bytes().to_vec().into() });
        pool.step(0, Input::Request { stream: StreamId(1), from: address(9), frame: vec![1, 0, 7].into() });
    }
    assert!(lines(&pool, 0) <= 4, "{}", lines(&pool, 0));
}

#[test]
fn the_table_takes_in_no_more_than_fit() {
    let mut core = Gossip::new(Settings::lan(), identity(0), 1, Duration::from_secs(1));
    let mut out = Vec::new();
    let who = identity(1);
    for n in 0..MEMBERS_MAX + 100 {
        let name = format!("x{n}");
        let mut id = [1; 16];
        id[..8].copy_from_slice(&(n as u64).to_be_bytes());
        let alive = Alive {
            name: &name,
            id: crate::entry::ServerId(id),
            address: who.address,
            incarnation: 1,
            versions: Versions::OWN,
            tags: who.tags.view(),
        };
        let mut body = Vec::new();
        put_message(&mut body, &Message::Alive(alive));
        core.step(
            Duration::from_secs(1),
            Input::Packet { from: address(1), bytes: close_plain(&body) },
            &mut out,
        );
        out.clear();
    }
    assert_eq!(core.members().count(), MEMBERS_MAX);
}

#[test]
fn nobody_is_made_to_ask_whom_it_does_not_know() {
    let mut pool = Pool::joined(3, 4);
    let mut body = Vec::new();
    put_message(&mut body, &Message::PingRequest(PingRequest { token: 7, target: "elsewhere", from: "n1" }));
    let mut out = Vec::new();
    let now = pool.now;
    let core = pool.nodes[0].core.as_mut().expect("it is up");
    core.step(now, Input::Packet { from: address(1), bytes: close_plain(&body) }, &mut out);
    let sent = out.iter().filter_map(|effect| match effect {
        Effect::Send { to, .. } => Some(*to),
        _ => None,
    });
    assert_eq!(sent.collect::<Vec<_>>(), [address(1)], "a word that it is there itself");
}

#[test]
fn members_without_a_common_version_are_refused() {
    let mut pool = Pool::joined(2, 5);
    let who = identity(9);
    let alive = Alive {
        name: &who.name,
        id: who.id,
        address: who.address,
        incarnation: 1,
        versions: Versions { min: 2, max: 3, current: 2 },
        tags: who.tags.view(),
    };
    hear(&mut pool, 0, &Message::Alive(alive));
    assert_eq!(pool.core(0).live(), 2);
    let told = |effect: &Effect| matches!(effect, Effect::Log { text, .. } if text.contains("speaks versions 2 to 3"));
    assert!(pool.nodes[0].told.iter().any(|(_, effect)| told(effect)));
}

fn keyring(byte: u8) -> Option<keyring::Keyring> {
    keyring::Keyring::new([keyring::Key::new(&[byte; 32]).expect("a key of 32 bytes")])
}

#[test]
fn only_who_has_the_key_takes_part() {
    let mut pool = Pool::strangers(5, 6);
    for (n, byte) in [(0, 1), (1, 1), (2, 1), (3, 2)] {
        pool.nodes[n].identity.keyring = keyring(byte);
        pool.start(n);
    }
    (1..5).for_each(|n| pool.join(n, 0));
    pool.run(60);
    assert_eq!((0..5).map(|n| pool.core(n).live()).collect::<Vec<_>>(), [3, 3, 3, 1, 1]);
    let told = |n: usize, part: &str| {
        let told = |effect: &Effect| matches!(effect, Effect::Log { text, .. } if text.contains(part));
        pool.nodes[n].told.iter().any(|(_, effect)| told(effect))
    };
    assert!(told(0, "not encrypted with any key of this agent"));
    pool.kill(2);
    pool.run(40);
    assert!(pool.status(1, 2) == Some(Status::Failed), "all the rest goes sealed, too");
}

#[test]
fn any_change_of_a_sealed_packet_is_noticed() {
    let mut pool = Pool::strangers(2, 7);
    pool.nodes[0].identity.keyring = keyring(1);
    pool.start(0);
    let mut body = Vec::new();
    put_message(&mut body, &Message::Ping(Ping { token: 1, to: "n0", from: "n1" }));
    let mut random = crate::random::Random::new(9);
    let mut sealer = seal::Sealer::new(keyring(1).expect("a key"), &mut random);
    let packet = packet::close_sealed(&mut sealer, &body);
    let mut answers = |bytes: Vec<u8>| {
        let (mut out, now) = (Vec::new(), pool.now);
        let core = pool.nodes[0].core.as_mut().expect("it is up");
        core.step(now, Input::Packet { from: address(1), bytes: bytes.into() }, &mut out);
        out.iter().any(|effect| matches!(effect, Effect::Send { .. }))
    };
    assert!(answers(packet.to_vec()));
    for place in 0..packet.len() {
        let mut damaged = packet.to_vec();
        damaged[place] ^= 1;
        assert!(!answers(damaged), "byte {place}");
    }
    assert!(!answers(close_plain(&body).to_vec()), "what is not sealed is not heard");
}
