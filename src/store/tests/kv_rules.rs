use super::*;

fn keys_under(state: &State, prefix: &str) -> Vec<String> {
    state.kv_under(prefix.as_bytes()).map(|row| String::from_utf8(row.key.clone()).unwrap()).collect()
}

fn delete(key: &str) -> Command {
    Command::Kv(KvOp::Delete { key: key.into() })
}

fn delete_tree(prefix: &str) -> Command {
    Command::Kv(KvOp::DeleteTree { prefix: prefix.into() })
}

#[test]
fn create_index_survives_an_update_but_not_a_deletion() {
    let mut bench = Bench::new();
    bench.set("a", "1");
    bench.set("a", "2");
    let row = bench.state.kv(b"a").unwrap().clone();
    assert_eq!((row.create_index, row.modify_index), (1, 2));
    bench.run(&delete("a"));
    assert_eq!(bench.shown(key("a")), 3);
    bench.set("a", "3");
    assert_eq!(bench.state.kv(b"a").unwrap().create_index, 4);
}

#[test]
fn the_same_value_again_moves_nothing() {
    let mut bench = Bench::new();
    bench.set("a", "1");
    bench.set("a", "1");
    assert!(bench.touched.is_empty());
    assert_eq!((bench.shown(key("a")), bench.changed(key("a")), bench.changed(prefix(""))), (1, 1, 1));
    assert_eq!(bench.state.index(), 2);
}

#[test]
fn conditional_writes_follow_the_modify_index() {
    let mut bench = Bench::new();
    let cas = |value: &str, index| Command::Kv(KvOp::Cas { entry: entry("c", value), index });
    let delete_cas = |index| Command::Kv(KvOp::DeleteCas { key: "c".into(), index });
    assert_eq!(bench.run(&cas("x", 5)), Applied::Condition(false));
    assert_eq!(bench.run(&cas("x", 0)), Applied::Condition(true));
    assert_eq!(bench.run(&cas("y", 0)), Applied::Condition(false));
    assert_eq!(bench.run(&cas("y", 2)), Applied::Condition(true));
    assert_eq!(bench.run(&delete_cas(2)), Applied::Condition(false));
    assert_eq!(bench.run(&delete_cas(4)), Applied::Condition(true));
    assert_eq!(bench.run(&delete_cas(4)), Applied::Condition(true));
    assert_eq!(bench.changed(key("c")), 6);
}

/// The transcript `kv.list-index-semantics`: what Consul shows for lists, missing keys and deletions.
#[test]
fn shown_indexes_are_those_of_consul() {
    let mut bench = Bench::new();
    bench.set("g/li/a", "1");
    bench.set("g/li/b", "2");
    bench.set("g/other", "3");
    assert_eq!(bench.shown(prefix("g/li")), 2);
    assert_eq!(bench.shown(key("g/li/a")), 1);
    assert_eq!((bench.shown(key("g/li/none")), bench.shown(prefix("g/lx"))), (3, 3));
    bench.run(&delete("g/li/b"));
    assert_eq!(
        (bench.shown(prefix("g/li")), bench.shown(key("g/li/a")), bench.shown(key("g/li/b"))),
        (4, 1, 4)
    );
    bench.run(&delete_tree("g/"));
    assert_eq!(
        bench.shown(prefix("g/li")),
        4,
        "Consul's tombstone of a tree does not lie under a longer prefix"
    );
    assert_eq!(bench.changed(prefix("g/li")), 5, "but a blocking query must not miss it");
    assert_eq!(bench.state.blocking_index(&prefix("g/li")), 5);
}

#[test]
fn an_absent_key_changed_never_or_when_it_went() {
    let mut bench = Bench::new();
    bench.set("a", "1");
    bench.set("b", "1");
    assert_eq!(bench.changed(key("none")), 0);
    assert_eq!(bench.changed(prefix("none")), 0);
    bench.run(&delete_tree("a"));
    assert_eq!((bench.changed(key("a")), bench.changed(key("b"))), (3, 2));
    bench.run(&delete("none"));
    assert_eq!(bench.changed(prefix("")), 3);
}

#[test]
fn a_deleted_tree_does_not_change_the_key_named_as_its_prefix() {
    let mut bench = Bench::new();
    bench.set("t/a", "1");
    bench.run(&delete_tree("t/"));
    assert_eq!(bench.changed(key("t/")), 0);
    assert!(!bench.touched.touches(&key("t/")));
    assert!(bench.touched.touches(&key("t/a")) && bench.touched.touches(&prefix("t")));
}

#[test]
fn lists_are_in_key_order_and_end_with_their_prefix() {
    let mut bench = Bench::new();
    for name in ["r/b", "r/a", "r/c/1", "r", "rz", "r/A", "q", "s"] {
        bench.set(name, "x");
    }
    assert_eq!(keys_under(&bench.state, "r"), ["r", "r/A", "r/a", "r/b", "r/c/1", "rz"]);
    assert_eq!(keys_under(&bench.state, "r/"), ["r/A", "r/a", "r/b", "r/c/1"]);
    assert_eq!(bench.state.kv_count(), 8);
}

#[test]
fn forgotten_tombstones_raise_a_floor() {
    let mut state = State::new();
    let mut touched = Touched::new();
    apply(&mut state, &set("kept", "1"), &mut touched);
    for number in 0..=crate::store::KEY_GRAVES_MAX {
        let name = format!("gone/{number}");
        apply(&mut state, &set(&name, "1"), &mut touched);
        apply(&mut state, &delete(&name), &mut touched);
    }
    let first_gone = 3;
    assert!(state.last_change(&key("gone/0")) >= first_gone);
    assert!(state.last_change(&prefix("kept")) >= first_gone, "the floor holds for every prefix");
    assert_eq!(state.last_change(&key("kept")), 1, "a live key knows its own index");
    assert_eq!(state.kv_count(), 1);
    assert_eq!(state.last_change(&prefix("gone/")), state.index());
}
