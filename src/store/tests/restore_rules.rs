//! Replacing all tables through the log.

use super::*;
use crate::store::command::RestoreOp;
use crate::store::{RESTORE_PART_LENGTH_MAX, Watchers};

fn begin(id: u64, sections: u64) -> Command {
    Command::Restore(RestoreOp::Begin { id, sections })
}

fn commit(id: u64) -> Command {
    Command::Restore(RestoreOp::Commit { id })
}

/// The commands that bring `state`, in parts of at most `length` bytes.
fn parts(id: u64, state: &State, length: usize) -> Vec<Command> {
    let sections: Vec<_> = state.sections().collect();
    let mut commands = vec![begin(id, sections.len() as u64)];
    let mut number = 0;
    for section in &sections {
        let pieces: Vec<&[u8]> = section.bytes.chunks(length).collect();
        for (at, piece) in pieces.iter().enumerate() {
            let (last, bytes) = (at + 1 == pieces.len(), piece.to_vec());
            let (kind, version) = (section.kind, section.version);
            commands.push(Command::Restore(RestoreOp::Part { id, number, kind, version, last, bytes }));
            number += 1;
        }
    }
    commands
}

fn archived() -> State {
    let mut bench = Bench::new();
    (0..40).for_each(|number| drop(bench.set(&format!("from/{number}"), "archive")));
    bench.register(with_service("n", "s", "web", &["x"]));
    bench.state
}

#[test]
fn a_restore_replaces_all_tables_at_its_commit_and_indexes_go_on() {
    for length in [100, RESTORE_PART_LENGTH_MAX] {
        for before in [1, 100] {
            let mut bench = Bench::new();
            (0..before).for_each(|number| drop(bench.set("old", &number.to_string())));
            let source = archived();
            for command in parts(7, &source, length) {
                assert_eq!(bench.run(&command), Applied::Done);
                assert!(bench.touched.is_empty() && bench.state.is_restoring());
                assert_eq!(bench.state.kv_count(), 1);
            }
            let last = bench.state.index();
            assert_eq!(bench.run(&commit(7)), Applied::Done);
            let index = bench.state.index();
            assert!(index > last && index > source.index() && !bench.state.is_restoring());
            assert!(bench.state.kv(b"old").is_none());
            assert_eq!(bench.state.kv(b"from/7"), source.kv(b"from/7"));
            assert_eq!(bench.state.instances_len("web"), 1);
            for topic in
                [key("old"), key("from/7"), prefix(""), Topic::Nodes, Topic::ServiceHealth("web".into())]
            {
                assert!(bench.touched.touches(&topic));
                assert_eq!((bench.changed(topic.clone()), bench.shown(topic)), (index, index));
            }
            let log = bench.state.log_index();
            bench.set("new", "1");
            assert_eq!((bench.state.index(), bench.state.log_index()), (index + 1, log + 1));
            assert_eq!(bench.state.kv(b"new").map(|row| row.modify_index), Some(index + 1));
            assert_eq!(rebuilt(&bench.state).fingerprint(), bench.state.fingerprint());
            assert_eq!(rebuilt(&bench.state).log_index(), log + 1);
        }
    }
}

#[test]
fn all_queries_wake_at_the_commit() {
    let mut bench = Bench::new();
    let mut watchers = Watchers::new();
    watchers.insert(key("nothing"), 1);
    watchers.insert(Topic::Services, 2);
    let mut woken = Vec::new();
    for command in parts(1, &archived(), RESTORE_PART_LENGTH_MAX) {
        bench.run(&command);
        watchers.wake(&bench.touched, &mut woken);
    }
    assert!(woken.is_empty());
    bench.run(&commit(1));
    watchers.wake(&bench.touched, &mut woken);
    assert_eq!(woken, [1, 2]);
}

#[test]
fn parts_that_come_twice_are_passed_over_and_gaps_end_the_restore() {
    let mut bench = Bench::new();
    let source = archived();
    for command in parts(1, &source, 200) {
        bench.run(&command);
        if !matches!(command, Command::Restore(RestoreOp::Begin { .. })) {
            assert_eq!(bench.run(&command), Applied::Done);
        }
    }
    assert_eq!(bench.run(&commit(1)), Applied::Done);
    assert_eq!(bench.state.kv_count(), 40);

    let commands = parts(2, &source, 200);
    bench.run(&commands[0]);
    assert!(matches!(bench.run(&commands[2]), Applied::Refused(_)));
    assert!(!bench.state.is_restoring());
    assert!(matches!(bench.run(&commit(2)), Applied::Refused(_)));
    assert_eq!(bench.state.kv_count(), 40);
}

#[test]
fn a_restore_that_is_incomplete_damaged_or_another_s_changes_nothing() {
    let mut bench = Bench::new();
    bench.set("old", "1");
    let commands = parts(1, &archived(), RESTORE_PART_LENGTH_MAX);
    for command in &commands[..commands.len() - 1] {
        bench.run(command);
    }
    assert!(matches!(bench.run(&commit(1)), Applied::Refused(_)));
    assert!(!bench.state.is_restoring());

    bench.run(&begin(1, 1));
    let nonsense = RestoreOp::Part { id: 1, number: 0, kind: 1, version: 1, last: true, bytes: vec![1; 100] };
    assert!(matches!(bench.run(&Command::Restore(nonsense)), Applied::Refused(_)));

    commands.iter().for_each(|command| drop(bench.run(command)));
    bench.run(&begin(2, 1));
    assert!(matches!(bench.run(&commit(1)), Applied::Refused(_)));
    assert_eq!(bench.state.kv(b"old").map(|row| row.modify_index), Some(1));
}

#[test]
fn an_abort_a_new_term_and_a_long_silence_end_a_restore() {
    let commands = parts(1, &archived(), RESTORE_PART_LENGTH_MAX);
    let staged = || {
        let mut bench = Bench::new();
        commands.iter().for_each(|command| drop(bench.run(command)));
        assert!(bench.state.is_restoring());
        bench
    };
    let mut bench = staged();
    bench.run(&Command::Restore(RestoreOp::Abort { id: 2 }));
    assert!(bench.state.is_restoring(), "another's");
    bench.run(&Command::Restore(RestoreOp::Abort { id: 1 }));
    assert!(!bench.state.is_restoring());

    let mut bench = staged();
    bench.state.new_term(bench.state.log_index() + 1);
    assert!(matches!(bench.run(&commit(1)), Applied::Refused(_)));

    let mut bench = staged();
    let index = bench.state.log_index();
    let write = rkyv::to_bytes::<rancor::Error>(&set("a", "1")).unwrap();
    let write = rkyv::access::<ArchivedCommand, rancor::Error>(&write).unwrap();
    bench.state.apply(index + super::super::limits::RESTORE_SILENCE_MAX, write, &mut Touched::new());
    assert!(bench.state.is_restoring());
    bench.set("b", "1");
    assert!(!bench.state.is_restoring());
}
