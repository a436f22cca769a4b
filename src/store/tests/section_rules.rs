//! Sections by example: old ones are read for ever, damaged and foreign ones are told apart.

use rkyv::util::AlignedVec;

use super::*;
use crate::store::SectionError;
use crate::store::command::AutopilotOp;
use crate::store::model::{AutopilotConfig, ServiceCheck, Weights};

/// Rows of every table, with every field set somewhere, tombstones of all sorts, and a restore in the past.
fn of_everything() -> State {
    let mut bench = Bench::new();
    let map = |key: &str| Some([(key.to_string(), "v".to_string())].into());
    let mut full = with_service("alpha", "web-1", "web", &["v1", "blue"]);
    full.node.id = "aaaaaaaa-0000-4000-8000-000000000001".into();
    full.node.tagged_addresses = map("lan");
    full.node.meta = map("rack");
    if let Some(service) = &mut full.service {
        service.kind = "connect-proxy".into();
        service.address = "10.1.1.1".into();
        service.meta = map("build");
        service.port = 8080;
        service.weights = Weights { passing: 3, warning: 2 };
        service.enable_tag_override = true;
        let address = crate::store::model::ServiceAddress { address: "1.2.3.4".into(), port: 80 };
        service.tagged_addresses = Some([("wan".to_string(), address)].into());
    }
    let mut http = check("service:web-1", "web-1", Status::Warning);
    http.notes = "note".into();
    http.output = "200 OK".into();
    http.kind = "http".into();
    http.definition.http = "http://localhost/".into();
    http.definition.header = [("X".to_string(), vec!["1".to_string(), "2".to_string()])].into();
    http.definition.interval_ns = 10_000_000_000;
    full.checks = vec![http, check("serfHealth", "", Status::Passing)];
    bench.register(full);
    bench.register(with_service("Beta", "db", "DB", &[]));
    bench.register(with_service("beta", "db2", "db", &["x"]));
    bench.register(with_check("gone", check("c", "", Status::Critical)));
    bench.register(with_service("gone", "s", "lost", &[]));
    bench.deregister("gone", "", "");
    for (key, value) in
        [("a", "1"), ("a/b", "2"), ("a/b/c", "3"), ("tree/x", "4"), ("tree/y", "5"), ("z", "")]
    {
        bench.set(key, value);
    }
    bench.run(&Command::Kv(KvOp::Set(KvEntry { flags: 42, ..entry("flagged", "\u{0}\u{ff}") })));
    bench.run(&Command::Kv(KvOp::Delete { key: b"a/b".into() }));
    bench.run(&Command::Kv(KvOp::DeleteTree { prefix: b"tree/".into() }));
    let config =
        AutopilotConfig { min_quorum: 3, upgrade_version_tag: "tag".into(), ..AutopilotConfig::default() };
    bench.run(&Command::Autopilot(AutopilotOp::Set(config)));
    bench.state
}

/// The same with sessions: one that holds a lock, one that is gone and left a lock-delay.
fn of_sessions() -> State {
    let mut bench = Bench { state: of_everything(), touched: Touched::new() };
    let texts = |text: &str| Some(vec![text.to_string()]);
    let full = Session {
        id: "11111111-0000-4000-8000-000000000001".into(),
        name: "name".into(),
        node: "alpha".into(),
        lock_delay_ns: 15_000_000_000,
        behavior: Behavior::Delete,
        ttl: "1m".into(),
        ttl_ns: 60_000_000_000,
        checks: texts("serfHealth"),
        node_checks: texts("serfHealth"),
        service_checks: Some(vec![ServiceCheck { id: "service:web-1".into(), namespace: "default".into() }]),
        ..Session::default()
    };
    let bare = Session {
        id: "22222222-0000-4000-8000-000000000002".into(),
        node: "beta".into(),
        ..Session::default()
    };
    let gone = Session { id: "33333333-0000-4000-8000-000000000003".into(), ..full.clone() };
    for session in [full, bare, gone] {
        assert_eq!(bench.run(&Command::Session(SessionOp::Create(Box::new(session)))), Applied::Done);
    }
    for (key, session) in
        [("held", "11111111-0000-4000-8000-000000000001"), ("lost", "33333333-0000-4000-8000-000000000003")]
    {
        let entry = KvEntry { session: session.into(), ..entry(key, "v") };
        assert_eq!(bench.run(&Command::Kv(KvOp::Acquire(entry))), Applied::Condition(true));
    }
    let id = "33333333-0000-4000-8000-000000000003".into();
    bench.run(&Command::Session(SessionOp::Destroy { id }));
    bench.state.new_term(bench.state.log_index() + 1);
    bench.state
}

/// All sections in one file: kind, version and length of each before its bytes, little-endian.
fn bundled(state: &State) -> Vec<u8> {
    let mut out = Vec::new();
    for section in state.sections() {
        out.extend_from_slice(&section.kind.to_le_bytes());
        out.extend_from_slice(&section.version.to_le_bytes());
        out.extend_from_slice(&(section.bytes.len() as u32).to_le_bytes());
        out.extend_from_slice(&section.bytes);
    }
    out
}

fn opened(mut bundle: &[u8]) -> State {
    let mut builder = StateBuilder::new();
    while let Some((head, rest)) = bundle.split_at_checked(8) {
        let number = |range: std::ops::Range<usize>| u16::from_le_bytes(head[range].try_into().unwrap());
        let length = u32::from_le_bytes(head[4..8].try_into().unwrap()) as usize;
        builder.section(number(0..2), number(2..4), &rest[..length]).unwrap();
        bundle = &rest[length..];
    }
    builder.finish().unwrap()
}

#[test]
fn sections_of_version_1_are_read_for_ever() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/sections-1.bin");
    let bundle = std::fs::read(path).expect("the fixture of version 1, which is never made anew");
    let state = opened(&bundle);
    assert_eq!(state.fingerprint(), of_everything().fingerprint());
    let web = state.instances("web").next().expect("the service of the fixture");
    assert_eq!((web.service.port, web.service.weights.passing, web.checks().count()), (8080, 3, 2));
    assert_eq!(state.kv(b"flagged").map(|row| row.flags), Some(42));
    assert_eq!(state.autopilot().map(|row| row.min_quorum), Some(3));
}

#[test]
fn sections_of_sessions_are_read_for_ever() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/sections-1-sessions.bin");
    let bundle = std::fs::read(path).expect("the fixture with sessions, which is never made anew");
    let state = opened(&bundle);
    assert_eq!(state.fingerprint(), of_sessions().fingerprint());
    let full = state.session("11111111-0000-4000-8000-000000000001").expect("the session of the fixture");
    assert_eq!((full.ttl.as_str(), full.delay_ns(), full.check_ids().count()), ("1m", 15_000_000_000, 3));
    assert_eq!(state.kv(b"held").map(|row| row.session == full.id), Some(true));
    assert_eq!(state.lock_delays().count(), 1);
}

#[test]
fn the_same_state_makes_the_same_bytes() {
    let state = of_sessions();
    assert_eq!(bundled(&state), bundled(&rebuilt(&state)));
    assert_eq!(state.fingerprint(), rebuilt(&state).fingerprint());
}

#[test]
fn a_large_table_is_cut_into_sections() {
    let mut bench = Bench::new();
    let value = "v".repeat(100_000);
    (0..50).for_each(|number| drop(bench.set(&format!("key/{number}"), &value)));
    let lengths: Vec<usize> = bench.state.sections().map(|section| section.bytes.len()).collect();
    assert!(lengths.len() > 5 && lengths.iter().all(|length| *length < 1_300_000), "{lengths:?}");
    assert_eq!(rebuilt(&bench.state).fingerprint(), bench.state.fingerprint());
}

#[test]
fn fingerprints_tell_states_apart() {
    let (mut one, mut other) = (Bench::new(), Bench::new());
    one.set("a", "1");
    other.set("a", "2");
    assert_ne!(one.state.fingerprint(), other.state.fingerprint());
    other.set("a", "1");
    one.set("b", "1");
    one.run(&Command::Kv(KvOp::Delete { key: b"b".into() }));
    other.set("c", "1");
    assert_ne!(one.state.fingerprint(), other.state.fingerprint(), "a deletion is remembered");
}

#[test]
fn later_versions_damage_and_gaps_are_told_apart() {
    let state = of_sessions();
    let taken = |kind, version, bytes: &[u8]| StateBuilder::new().section(kind, version, bytes);
    assert_eq!(taken(1, 2, &[]), Err(SectionError::Unknown { kind: 1, version: 2 }));
    assert_eq!(taken(99, 1, &[]), Err(SectionError::Unknown { kind: 99, version: 1 }));
    assert!(matches!(taken(1, 1, &[0xff; 64]), Err(SectionError::Damaged { kind: 1, .. })));
    assert!(matches!(StateBuilder::new().finish(), Err(SectionError::Incomplete { .. })));
    let sections: Vec<_> = state.sections().collect();
    for missing in 0..sections.len() {
        let mut builder = StateBuilder::new();
        let mut others = sections.iter().enumerate().filter(|(number, _)| *number != missing);
        let taken = others.try_for_each(|(_, it)| builder.section(it.kind, it.version, &it.bytes));
        assert!(taken.and_then(|()| builder.finish()).is_err(), "without section {missing}");
    }
}

#[test]
fn no_flipped_bit_makes_a_panic() {
    let state = of_sessions();
    let sections: Vec<_> = state.sections().collect();
    for damaged in 0..sections.len() {
        for at in 0..sections[damaged].bytes.len() {
            let mut builder = StateBuilder::new();
            let all = sections.iter().enumerate().map(|(number, it)| {
                let mut bytes = AlignedVec::<16>::new();
                bytes.extend_from_slice(&it.bytes);
                if number == damaged {
                    bytes[at] ^= 1 << (at % 8);
                }
                builder.section(it.kind, it.version, &bytes)
            });
            // Not every flip is found here: files and archives carry checksums for that.
            let _ = all.collect::<Result<(), _>>().and_then(|()| builder.finish());
        }
    }
}
