//! Sessions and locks by example: Consul's rules as recorded (transcripts `session` and `lock`), and those of our own.

use super::*;
use crate::store::LockDelay;

fn session(id: &str) -> Session {
    let node_checks = Some(vec!["serfHealth".to_string()]);
    Session { id: id.into(), node: "n".into(), node_checks, ..Session::default() }
}

fn create(session: Session) -> Command {
    Command::Session(SessionOp::Create(Box::new(session)))
}

fn destroy(id: &str) -> Command {
    Command::Session(SessionOp::Destroy { id: id.into() })
}

fn acquire(key: &str, session: &str) -> Command {
    Command::Kv(KvOp::Acquire(KvEntry { session: session.into(), ..entry(key, "held") }))
}

fn release(key: &str, session: &str) -> Command {
    Command::Kv(KvOp::Release(KvEntry { session: session.into(), ..entry(key, "free") }))
}

/// A node whose agent is alive, with sessions on it.
fn with_sessions(ids: &[&str]) -> Bench {
    let mut bench = Bench::new();
    bench.register(with_check("n", check("serfHealth", "", Status::Passing)));
    ids.iter().for_each(|id| assert_eq!(bench.run(&create(session(id))), Applied::Done));
    bench
}

fn lock(bench: &Bench, key: &str) -> (String, u64, u64) {
    let row = bench.state.kv(key.as_bytes()).expect("the key is there");
    (row.session.clone(), row.lock_index, row.modify_index)
}

#[test]
fn a_session_needs_its_node_and_well_checks() {
    let mut bench = with_sessions(&[]);
    let refused = |text: &str| Applied::Refused(text.to_string());
    let elsewhere = Session { node: "other".into(), ..session("s") };
    assert_eq!(bench.run(&create(elsewhere)), refused("Missing node registration"));
    let unknown = Session { checks: Some(vec!["c".into()]), ..session("s") };
    assert_eq!(bench.run(&create(unknown.clone())), refused("Missing check 'c' registration"));
    bench.register(with_check("n", check("c", "", Status::Critical)));
    assert_eq!(bench.run(&create(unknown.clone())), refused("Check 'c' is in critical state"));
    bench.register(with_check("n", check("c", "", Status::Warning)));
    assert_eq!(bench.run(&create(unknown)), Applied::Done);
    assert!(bench.touched.touches(&Topic::Session("S".into())) && bench.touched.touches(&Topic::Sessions));
    assert!(bench.touched.touches(&Topic::NodeSessions("N".into())));
    assert_eq!(bench.run(&create(session("s"))), refused("session s is there already"));
}

#[test]
fn a_lock_goes_from_one_session_to_the_next() {
    let mut bench = with_sessions(&["s", "t"]);
    assert_eq!(bench.run(&acquire("k", "s")), Applied::Condition(true));
    let at = bench.state.index();
    assert_eq!(lock(&bench, "k"), ("s".into(), 1, at));
    assert_eq!(bench.run(&acquire("k", "s")), Applied::Condition(true));
    assert!(bench.touched.is_empty(), "its holder wrote what is there");
    assert_eq!(bench.run(&acquire("k", "t")), Applied::Condition(false));
    assert_eq!(bench.run(&release("k", "t")), Applied::Condition(false));
    assert_eq!(lock(&bench, "k"), ("s".into(), 1, at));
    assert_eq!(bench.run(&release("k", "s")), Applied::Condition(true));
    assert_eq!(bench.run(&acquire("k", "t")), Applied::Condition(true));
    assert_eq!(lock(&bench, "k"), ("t".into(), 2, bench.state.index()));
    assert_eq!(bench.state.locks_of("T").count(), 1);
    bench.set("k", "by anybody");
    assert_eq!(lock(&bench, "k"), ("t".into(), 0, bench.state.index()), "as Consul has it");
    let refused = |text: &str| Applied::Refused(text.to_string());
    assert_eq!(bench.run(&acquire("k", "none")), refused("invalid session \"none\""));
    assert_eq!(bench.run(&acquire("k", "")), refused("missing session"));
    assert_eq!(bench.run(&release("k", "")), refused("missing session"));
}

#[test]
fn the_end_of_a_session_frees_or_deletes_its_keys_in_the_same_commit() {
    let mut bench = with_sessions(&["stays"]);
    let deleting = Session { behavior: Behavior::Delete, ..session("goes") };
    bench.run(&create(deleting));
    for key in ["a", "b"] {
        bench.run(&acquire(key, "goes"));
    }
    bench.run(&acquire("c", "stays"));
    bench.run(&destroy("goes"));
    assert!(bench.state.kv(b"a").is_none() && bench.state.kv(b"b").is_none());
    assert!(bench.touched.touches(&key("a")) && bench.touched.touches(&Topic::Session("goes".into())));
    assert!(!bench.touched.touches(&key("c")));
    bench.register(with_check("n", check("serfHealth", "", Status::Critical)));
    assert_eq!(lock(&bench, "c"), (String::new(), 1, bench.state.index()));
    assert_eq!(bench.state.session_count(), 0);
    assert_eq!(bench.changed(Topic::NodeSessions("n".into())), bench.state.index());
    assert_eq!(bench.run(&destroy("stays")), Applied::Done, "absent is fine");
}

#[test]
fn a_session_goes_with_its_node_its_service_and_its_check() {
    for gone in [("n", "", ""), ("n", "web", ""), ("n", "", "c")] {
        let mut bench = with_sessions(&[]);
        let mut web = with_service("n", "web", "web", &[]);
        web.checks = vec![check("c", "web", Status::Passing)];
        bench.register(web);
        let of_service = crate::store::model::ServiceCheck { id: "c".into(), ..Default::default() };
        bench.run(&create(Session { service_checks: Some(vec![of_service]), ..session("s") }));
        bench.run(&acquire("k", "s"));
        bench.deregister(gone.0, gone.1, gone.2);
        assert_eq!(bench.state.session_count(), 0, "{gone:?}");
        assert_eq!(lock(&bench, "k"), (String::new(), 1, bench.state.index()));
    }
}

#[test]
fn a_lock_delay_holds_until_the_leader_ends_it() {
    let mut bench = with_sessions(&["next"]);
    bench.run(&create(Session { lock_delay_ns: 15_000_000_000, ..session("s") }));
    bench.run(&acquire("k", "s"));
    bench.run(&release("k", "s"));
    assert_eq!(bench.state.lock_delay(b"k"), None, "a release starts none");
    bench.run(&acquire("k", "s"));
    bench.run(&destroy("s"));
    let since = bench.state.index();
    let delay = LockDelay { length_ns: 15_000_000_000, since };
    assert_eq!(bench.state.lock_delay(b"k"), Some(delay));
    assert_eq!(bench.run(&acquire("k", "next")), Applied::Condition(false));
    let end = |since| Command::Session(SessionOp::EndDelays(vec![DelayEnd { key: "k".into(), since }]));
    bench.run(&end(since - 1));
    assert_eq!(bench.state.lock_delay(b"k"), Some(delay), "another one's end");
    assert_eq!(rebuilt(&bench.state).lock_delay(b"k"), Some(delay));
    bench.run(&end(since));
    assert!(bench.touched.touches(&Topic::LockDelay(b"k"[..].into())));
    assert!(!bench.touched.touches(&key("k")), "nothing to be read has changed");
    assert_eq!(bench.run(&acquire("k", "next")), Applied::Condition(true));
    let long = Session { lock_delay_ns: i64::MAX, ..session("x") };
    assert_eq!(long.delay_ns(), Session::DELAY_NS_MAX);
    assert_eq!(Session { lock_delay_ns: -1, ..long }.delay_ns(), 0);
}

/// The end that one leader proposed lay in its log, or on its way to the next leader, who had renewed the session.
#[test]
fn an_end_that_another_leader_measured_counts_for_nothing() {
    let mut bench = with_sessions(&["s"]);
    let expire = |seen| Command::Session(SessionOp::Expire { ids: vec!["s".into()], seen });
    let seen = bench.state.index();
    bench.state.new_term(bench.state.log_index() + 1);
    assert_eq!(bench.run(&expire(seen)), Applied::Condition(false));
    assert_eq!(rebuilt(&bench.state).fingerprint(), bench.state.fingerprint());
    let mut again = Bench { state: rebuilt(&bench.state), touched: Touched::new() };
    assert_eq!(again.run(&expire(seen)), Applied::Condition(false));
    let seen = bench.state.index();
    assert_eq!(bench.run(&expire(seen)), Applied::Condition(true));
    assert_eq!(bench.state.session_count(), 0);
}

#[test]
fn the_number_that_fences_always_grows() {
    let mut bench = with_sessions(&["s", "t"]);
    let mut last = 0;
    for round in 0..6 {
        let (holder, next) = if round % 2 == 0 { ("s", "t") } else { ("t", "s") };
        assert_eq!(bench.run(&acquire("k", holder)), Applied::Condition(true));
        let (_, _, fence) = lock(&bench, "k");
        assert!(fence > last, "whatever became of the key in between");
        last = fence;
        match round {
            0 => drop(bench.set("k", "by anybody")),
            1 => drop(bench.run(&Command::Kv(KvOp::Delete { key: "k".into() }))),
            2 => drop(bench.run(&Command::Kv(KvOp::DeleteTree { prefix: "".into() }))),
            _ => {}
        }
        if bench.state.kv(b"k").is_some() {
            assert_eq!(bench.run(&acquire("k", next)), Applied::Condition(false));
            last = last.max(lock(&bench, "k").2);
            bench.run(&release("k", holder));
        }
    }
}
