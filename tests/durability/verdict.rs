//! Judges what the clients saw, key by key.

use std::collections::BTreeMap;
use std::path::PathBuf;

use histories::linear::{self, Verdict};
use histories::{Answer, Ask, Key, Operation, Value, witness};

/// Histories of one key that the search may give up on, in a hundred.
const UNDECIDED_MAX_PERCENT: usize = 5;

/// Fails with the story of what cannot be true. `context` says what else is known then.
pub fn judge(name: &str, history: &[Operation], context: impl Fn() -> String) {
    let mut keys: BTreeMap<Key, Vec<Operation>> = BTreeMap::new();
    for operation in history {
        keys.entry(key_of(&operation.ask)).or_default().push(operation.clone());
    }
    let mut undecided = 0;
    for (key, mut operations) in keys.clone() {
        place(&mut operations);
        if let Err(violation) = witness::check(&operations) {
            panic!("key {key}: {violation}\n{}\n{}", written_down(name, key, &operations), context());
        }
        match linear::check(&operations) {
            Verdict::Linearizable => {}
            Verdict::Undecided => undecided += 1,
            Verdict::Not(violation) => {
                panic!("key {key}: {violation}\n{}\n{}", written_down(name, key, &operations), context())
            }
        }
    }
    println!(
        "{name}: {} operations on {} keys judged, {undecided} keys undecided by search",
        history.len(),
        keys.len()
    );
    assert!(
        undecided * 100 <= keys.len() * UNDECIDED_MAX_PERCENT,
        "{undecided} of {} keys undecided",
        keys.len()
    );
}

/// The answer to a write does not say its index; those who read its value say it.
fn place(operations: &mut [Operation]) {
    let mut indexes: BTreeMap<Value, u64> = BTreeMap::new();
    for operation in operations.iter() {
        if let Answer::Row(Some(row)) = operation.answer {
            indexes.insert(row.value, row.modified);
        }
    }
    for operation in operations {
        if let (Ask::Set(_, value) | Ask::Cas(_, _, value), Answer::Done | Answer::Condition(true)) =
            (&operation.ask, operation.answer)
        {
            operation.index = indexes.get(value).copied();
        }
    }
}

fn key_of(ask: &Ask) -> Key {
    match ask {
        Ask::Get(key) | Ask::Set(key, _) | Ask::Cas(key, ..) | Ask::Delete(key) | Ask::DeleteCas(key, _) => {
            *key
        }
        Ask::DeleteAll(_) | Ask::Restore(_) => unreachable!("clients ask about one key"),
    }
}

/// Puts a history into a file for whoever looks into it; the file's name.
fn written_down(name: &str, key: Key, operations: &[Operation]) -> String {
    let path = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("durability-{name}-{key}.txt"));
    let mut operations = operations.to_vec();
    operations.sort_by_key(|operation| operation.called);
    let lines: Vec<String> = operations.iter().map(|operation| format!("{operation:?}")).collect();
    match std::fs::write(&path, lines.join("\n")) {
        Ok(()) => format!("its history is in {}", path.display()),
        Err(error) => format!("its history could not be written to {}: {error}", path.display()),
    }
}
