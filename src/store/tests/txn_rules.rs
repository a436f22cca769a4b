//! Transactions by example: Consul's words as recorded (transcript `txn`) or asked of a real one.

use super::*;
use crate::store::command::{Failure, Found, RowVerb, TxnOutcome};

fn put(key: &str, value: &str) -> TxnOp {
    TxnOp::Kv(KvOp::Set(entry(key, value)))
}

fn lock(key: &str, session: &str) -> TxnOp {
    TxnOp::Kv(KvOp::Acquire(KvEntry { session: session.into(), ..entry(key, "held") }))
}

fn look(key: &str) -> TxnOp {
    TxnOp::Look(Look::Key(key.into()))
}

fn run(bench: &mut Bench, ops: &[TxnOp]) -> TxnOutcome {
    match bench.run(&Command::Txn(ops.to_vec())) {
        Applied::Txn(outcome) => outcome,
        other => panic!("a transaction ended as {other:?}"),
    }
}

fn failure(op: usize, what: &str) -> Failure {
    Failure { op, what: what.into() }
}

fn alive() -> Bench {
    let mut bench = Bench::new();
    bench.register(with_check("n", check("serfHealth", "", Status::Passing)));
    bench
}

#[test]
fn all_take_place_under_one_index() {
    let mut bench = Bench::new();
    bench.set("a", "1");
    let gone = TxnOp::Kv(KvOp::Delete { key: "a".into() });
    let ops = [
        put("b", "1"),
        put("c", "1"),
        put("b", "2"),
        gone,
        TxnOp::Look(Look::Absence("a".into())),
        look("b"),
    ];
    let found = run(&mut bench, &ops).expect("none fails");
    let index = bench.state.index();
    let b = bench.state.kv(b"b").expect("written").clone();
    assert_eq!((b.create_index, b.modify_index, &b.value[..]), (index, index, &b"2"[..]));
    assert_eq!(found.len(), 4, "what is deleted or absent says nothing");
    assert_eq!(
        (found.first(), found.last()),
        (
            Some(&Found::Key(KvEntry { value: "1".into(), ..KvEntry::clone(&b) }.into())),
            Some(&Found::Entry(b))
        )
    );
    for key in ["a", "b", "c"] {
        assert!(bench.touched.touches(&Topic::Key(key.as_bytes().into())));
        assert_eq!(bench.changed(Topic::Key(key.as_bytes().into())), index);
    }
}

#[test]
fn one_that_fails_undoes_all_and_each_that_fails_is_named() {
    let mut bench = alive();
    bench.set("a", "1");
    let before = bench.state.fingerprint();
    let stale = TxnOp::Kv(KvOp::Cas { entry: entry("a", "3"), index: 77 });
    let ops = [
        look("none"),
        put("a", "2"),
        TxnOp::Look(Look::Index { key: "a".into(), index: 7 }),
        stale,
        TxnOp::Kv(KvOp::DeleteTree { prefix: "".into() }),
        TxnOp::Node(RowVerb::Delete, Node { node: "n".into(), ..Node::default() }),
        look("a"),
        lock("l", "nobody"),
    ];
    let failures = run(&mut bench, &ops).expect_err("some fail");
    let index = bench.state.index();
    assert_eq!(
        failures,
        [
            failure(0, "key \"none\" doesn't exist"),
            failure(2, &format!("failed index check for key \"a\", current modify index {index} != 7")),
            failure(3, "failed to set key \"a\", index is stale"),
            failure(6, "key \"a\" doesn't exist"),
            failure(7, "invalid session \"nobody\""),
        ]
    );
    assert!(bench.touched.is_empty(), "nobody is woken");
    let mut untouched = alive();
    untouched.set("a", "1");
    assert_eq!(untouched.state.fingerprint(), before);
    untouched.run(&Command::Txn(vec![look("none")]));
    assert_eq!(untouched.state.fingerprint(), bench.state.fingerprint(), "only the index has moved");
}

#[test]
fn locks_are_taken_together_or_not_at_all() {
    let mut bench = alive();
    for id in ["s", "t"] {
        let row = Session { id: id.into(), node: "n".into(), lock_delay_ns: 1, ..Session::default() };
        bench.run(&Command::Session(SessionOp::Create(Box::new(row))));
    }
    run(&mut bench, &[lock("a", "s"), lock("b", "s")]).expect("both are free");
    let failures = run(&mut bench, &[lock("c", "t"), lock("b", "t")]).expect_err("one is held");
    assert_eq!(failures, [failure(1, "failed to lock key \"b\", lock is already held")]);
    assert!(bench.state.kv(b"c").is_none());
    let holder = |session: &str| TxnOp::Look(Look::Holder { key: "a".into(), session: session.into() });
    assert!(bench.state.look_at_all(&[holder("s")]).is_ok());
    let why = "failed session check for key \"a\", current session \"s\" != \"t\"";
    assert_eq!(bench.state.look_at_all(&[holder("t")]), Err(vec![failure(0, why)]));
    let free =
        |session: &str| TxnOp::Kv(KvOp::Release(KvEntry { session: session.into(), ..entry("a", "free") }));
    let why = "failed to unlock key \"a\", lock isn't held, or is held by another session";
    assert_eq!(run(&mut bench, &[free("t")]), Err(vec![failure(0, why)]));
    run(&mut bench, &[free("s"), lock("a", "t")]).expect("released in the same transaction");
    bench.run(&Command::Session(SessionOp::Destroy { id: "s".into() }));
    let failures = run(&mut bench, &[look("none"), lock("b", "t")]).expect_err("delayed");
    assert_eq!(failures, [failure(1, "failed to lock key \"b\" due to lock delay")], "before anything else");
}

#[test]
fn rows_of_the_catalog() {
    let mut bench = Bench::new();
    let node = Node { node: "n".into(), address: "10.0.0.1".into(), ..Node::default() };
    let service = Service { node: "N".into(), id: "s".into(), name: "s".into(), ..Service::default() };
    let probe = Check { node: "n".into(), check_id: "c".into(), service_id: "s".into(), ..Check::default() };
    let missing = [TxnOp::Service(RowVerb::Set, service.clone()), TxnOp::Check(RowVerb::Set, probe.clone())];
    let why = "Missing node registration";
    assert_eq!(run(&mut bench, &missing), Err(vec![failure(0, why), failure(1, why)]));
    let all = [
        TxnOp::Node(RowVerb::Cas, node.clone()),
        TxnOp::Service(RowVerb::Cas, service.clone()),
        TxnOp::Check(RowVerb::Cas, probe.clone()),
    ];
    let found = run(&mut bench, &all).expect("none was there");
    let index = bench.state.index();
    assert!(
        matches!(&found[..], [Found::Node(_), Found::Service(_), Found::Check(row)] if row.service_name == "s")
    );
    assert!(bench.touched.touches(&Topic::ServiceHealth("s".into())));
    let stale = "index is stale";
    assert_eq!(
        run(&mut bench, &all),
        Err(vec![
            failure(0, &format!("failed to set node \"n\", {stale}")),
            failure(1, &format!("failed to set service \"s\" on node \"N\", {stale}")),
            failure(2, &format!("failed to set check \"c\" on node \"n\", {stale}")),
        ])
    );
    let elsewhere = Check { service_id: "none".into(), ..probe.clone() };
    let failed = run(&mut bench, &[TxnOp::Check(RowVerb::Set, elsewhere)]);
    assert_eq!(failed, Err(vec![failure(0, "Missing service registration")]));
    let seen = Service { modify_index: index, port: 80, ..service.clone() };
    run(&mut bench, &[TxnOp::Service(RowVerb::Cas, seen.clone())]).expect("as it was seen");
    let failed = run(&mut bench, &[TxnOp::Service(RowVerb::DeleteCas, seen)]);
    assert_eq!(
        failed,
        Err(vec![failure(0, &format!("failed to delete service \"s\" on node \"N\", {stale}"))])
    );
    let looks = [
        TxnOp::Look(Look::Service { node: "n".into(), id: "S".into() }),
        TxnOp::Look(Look::Node { name: "other".into(), id: String::new() }),
        TxnOp::Look(Look::Check { node: "n".into(), id: "d".into() }),
    ];
    assert_eq!(
        bench.state.look_at_all(&looks),
        Err(vec![
            failure(1, "node \"other\" doesn't exist"),
            failure(2, "check \"d\" on node \"n\" doesn't exist"),
        ])
    );
    run(&mut bench, &[TxnOp::Node(RowVerb::Delete, node.clone()), TxnOp::Node(RowVerb::Delete, node)])
        .expect("what is gone may be deleted");
    assert_eq!(bench.state.node_count() + bench.state.instance_count(), 0);
}
