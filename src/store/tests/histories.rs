//! Random histories: the tables against a naive model, and for every topic the law that its index moves, and its
//! watchers wake, exactly when its answer changed.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use proptest::sample::select;

use crate::store::Watchers;

use super::naive::Naive;
use super::*;

fn kv_op() -> impl Strategy<Value = Command> {
    let keys = || select(vec!["", "a", "a/", "a/b", "a/bc", "a/b/c", "b", "b/x", "\u{7f}"]);
    let entries = (keys(), select(vec!["1", "2"])).prop_map(|(name, value)| entry(name, value));
    let index = || 0u64..12;
    prop_oneof![
        4 => entries.clone().prop_map(KvOp::Set),
        2 => (entries, index()).prop_map(|(entry, index)| KvOp::Cas { entry, index }),
        2 => keys().prop_map(|key| KvOp::Delete { key: key.into() }),
        1 => (keys(), index()).prop_map(|(key, index)| KvOp::DeleteCas { key: key.into(), index }),
        1 => keys().prop_map(|prefix| KvOp::DeleteTree { prefix: prefix.into() }),
        4 => (keys(), session_id(), select(vec!["1", "2"])).prop_map(|(key, session, value)| {
            KvOp::Acquire(KvEntry { session, ..entry(key, value) })
        }),
        2 => (keys(), session_id(), select(vec!["1", "2"])).prop_map(|(key, session, value)| {
            KvOp::Release(KvEntry { session, ..entry(key, value) })
        }),
    ]
    .prop_map(Command::Kv)
}

fn txn() -> impl Strategy<Value = Command> {
    let writes = kv_op().prop_map(|command| match command {
        Command::Kv(op) => TxnOp::Kv(op),
        other => unreachable!("{other:?} writes no key"),
    });
    let looks = select(vec!["", "a/b", "b"]).prop_map(|key| TxnOp::Look(Look::Key(key.into())));
    prop::collection::vec(prop_oneof![4 => writes, 1 => looks], 0..4).prop_map(Command::Txn)
}

fn session_id() -> impl Strategy<Value = String> {
    select(vec!["s1", "s1", "s1", "s2", "s2", "none", ""]).prop_map(String::from)
}

fn session_op() -> impl Strategy<Value = Command> {
    let ids = || select(vec!["s1", "s2"]).prop_map(String::from);
    let checks = || {
        let some = prop::collection::vec(select(vec!["serfHealth", "c1", "c2"]).prop_map(String::from), 0..2);
        prop::option::weighted(0.3, some)
    };
    let session = (ids(), select(vec!["a", "B", "c"]), checks(), checks(), any::<bool>(), select(vec![0, 5]));
    let create = session.prop_map(|(id, node, checks, node_checks, deletes, lock_delay_ns)| {
        let behavior = if deletes { Behavior::Delete } else { Behavior::Release };
        let node = node.into();
        SessionOp::Create(Box::new(Session {
            id,
            node,
            checks,
            node_checks,
            behavior,
            lock_delay_ns,
            ..Session::default()
        }))
    });
    let end = (select(vec!["a", "a/b", "b"]), 1u64..40)
        .prop_map(|(key, since)| DelayEnd { key: key.into(), since });
    prop_oneof![
        5 => create,
        1 => ids().prop_map(|id| SessionOp::Destroy { id }),
        1 => ids().prop_map(|id| SessionOp::Expire { ids: vec![id], seen: u64::MAX }),
        1 => prop::collection::vec(end, 0..30).prop_map(SessionOp::EndDelays),
    ]
    .prop_map(Command::Session)
}

fn service() -> impl Strategy<Value = Service> {
    let tags = prop::collection::vec(select(vec!["x", "y"]).prop_map(String::from), 0..3);
    let address = select(vec!["", "10.1.1.1", "10.1.1.2"]);
    (select(vec!["s", "S", "t"]), select(vec!["web", "Web", "db"]), tags, address).prop_map(
        |(id, name, tags, address)| Service {
            id: id.into(),
            name: name.into(),
            tags,
            address: address.into(),
            ..Service::default()
        },
    )
}

fn checks() -> impl Strategy<Value = Vec<Check>> {
    let status = select(vec![Status::Passing, Status::Warning, Status::Critical]);
    let one = (select(vec!["serfHealth", "c1", "c2"]), select(vec!["", "", "s", "t"]), status)
        .prop_map(|(id, service_id, status)| check(id, service_id, status));
    prop::collection::vec(one, 0..3)
}

fn register() -> impl Strategy<Value = Register> {
    let row =
        (select(vec!["a", "A", "b", "c"]), select(vec!["", "i1", "i2"]), select(vec!["1.1.1.1", "2.2.2.2"]));
    (row, any::<bool>(), prop::option::of(service()), checks()).prop_map(
        |((name, id, address), skip, service, checks)| Register {
            skip_node_update: skip,
            service,
            checks,
            node: Node { id: id.into(), ..node(name, address).node },
        },
    )
}

fn catalog_op() -> impl Strategy<Value = CatalogOp> {
    let gone =
        (select(vec!["a", "B", "c"]), select(vec!["", "", "s", "t"]), select(vec!["", "c1", "serfHealth"]));
    prop_oneof![
        4 => register().prop_map(|register| CatalogOp::Register(Box::new(register))),
        1 => gone.prop_map(|(node, service, check)| CatalogOp::Deregister(Deregister {
            node: node.into(),
            service_id: service.into(),
            check_id: check.into(),
        })),
    ]
}

pub(super) fn command() -> impl Strategy<Value = Command> {
    prop_oneof![
        3 => kv_op(),
        2 => txn(),
        3 => session_op(),
        5 => catalog_op().prop_map(Command::Catalog),
        1 => prop::collection::vec(catalog_op(), 0..4).prop_map(Command::CatalogBatch),
    ]
}

/// Every topic that the generated commands can touch, and some that they cannot.
fn topics() -> Vec<Topic> {
    let mut topics = vec![Topic::Nodes, Topic::Services, Topic::Catalog, Topic::CheckState(None)];
    for status in [Status::Passing, Status::Warning, Status::Critical] {
        topics.push(Topic::CheckState(Some(status)));
    }
    for name in ["", "a", "a/", "a/b", "a/bc", "a/b/c", "a/b/", "b", "b/x", "\u{7f}", "zz"] {
        topics.extend([key(name), prefix(name)]);
    }
    for name in ["a", "b", "C", "none"] {
        topics.extend([Topic::Node(name.into()), Topic::NodeChecks(name.into())]);
    }
    topics.push(Topic::Sessions);
    topics.extend(["s1", "S2", "none"].map(|id| Topic::Session(id.into())));
    topics.extend(["A", "b", "c", "none"].map(|name| Topic::NodeSessions(name.into())));
    for name in ["web", "DB", "none"] {
        let name = || Box::from(name);
        topics.extend([
            Topic::ServiceInstances(name()),
            Topic::ServiceHealth(name()),
            Topic::ServiceChecks(name()),
        ]);
    }
    topics
}

/// All that a query on `topic` can see.
fn answer(state: &State, topic: &Topic) -> String {
    match topic {
        Topic::Key(name) => format!("{:?}", state.kv(name)),
        Topic::KeyPrefix(prefix) => format!("{:?}", state.kv_under(prefix).collect::<Vec<_>>()),
        Topic::Nodes => format!("{:?}", state.nodes().collect::<Vec<_>>()),
        Topic::Node(name) => {
            format!("{:?} {:?}", state.node(name), state.node_services(name).collect::<Vec<_>>())
        }
        Topic::Services => {
            format!(
                "{:?}",
                state.services().map(|(name, tags)| (name, tags.collect::<Vec<_>>())).collect::<Vec<_>>()
            )
        }
        Topic::ServiceInstances(name) => {
            format!("{:?}", state.instances(name).map(|it| (it.node, it.service)).collect::<Vec<_>>())
        }
        Topic::ServiceHealth(name) => format!("{:?}", state.instances(name).collect::<Vec<_>>()),
        Topic::ServiceChecks(name) => format!("{:?}", state.service_checks(name).collect::<Vec<_>>()),
        Topic::NodeChecks(name) => format!("{:?}", state.node_checks(name).collect::<Vec<_>>()),
        Topic::Coordinates => format!("{:?}", state.coordinates().collect::<Vec<_>>()),
        Topic::Sessions => format!("{:?}", state.sessions().collect::<Vec<_>>()),
        Topic::Session(id) => format!("{:?}", state.session(id)),
        Topic::NodeSessions(name) => format!("{:?}", state.node_sessions(name).collect::<Vec<_>>()),
        Topic::CheckState(None) => format!("{:?}", state.checks().collect::<Vec<_>>()),
        Topic::CheckState(Some(status)) => {
            format!("{:?}", state.checks_in_state(*status).collect::<Vec<_>>())
        }
        Topic::Catalog => {
            let services: Vec<_> = state
                .nodes()
                .map(|node| (node, state.node_services(&node.node).collect::<Vec<_>>()))
                .collect();
            format!("{services:?} {:?}", state.checks().collect::<Vec<_>>())
        }
        Topic::LocalService(_) | Topic::LockDelay(_) => String::new(),
    }
}

/// A new answer moves the index to this write and wakes; the same answer does neither. One thing may be told that is
/// no news: of a batch (or a node that changes hands) what came and went within it.
fn check_topic(
    before: &State,
    after: &State,
    touched: &Touched,
    woken: &[Topic],
    topic: &Topic,
    strict: bool,
) {
    let moved = after.last_change(topic) > before.last_change(topic);
    let news = answer(before, topic) != answer(after, topic);
    assert!(after.last_change(topic) >= before.last_change(topic), "{topic:?} went backwards");
    assert_eq!(moved, touched.touches(topic), "{topic:?}: moved or touched, but not both");
    assert_eq!(moved, woken.contains(topic), "{topic:?}: moved or woken, but not both");
    assert!(!moved || after.last_change(topic) == after.index(), "{topic:?} moved to another index");
    assert!(moved || !news, "{topic:?} has a new answer but stood still");
    assert!(!strict || news || !moved, "{topic:?} moved without news");
    assert!(after.blocking_index(topic) >= before.last_change(topic).max(1));
}

/// Whether nothing can come and go within the command.
fn writes_each_row_once(before: &State, command: &Command) -> bool {
    match command {
        Command::CatalogBatch(_) | Command::Txn(_) => false,
        Command::Catalog(CatalogOp::Register(register)) => {
            let renamed = before
                .node_by_id(&register.node.id)
                .is_some_and(|row| !row.node.eq_ignore_ascii_case(&register.node.node));
            let ids: BTreeSet<&str> = register.checks.iter().map(|check| check.check_id.as_str()).collect();
            !renamed && ids.len() == register.checks.len()
        }
        _ => true,
    }
}

fn replay(commands: &[Command]) -> (State, Vec<Applied>) {
    let mut state = State::new();
    let applied = commands.iter().map(|command| apply(&mut state, command, &mut Touched::new())).collect();
    (state, applied)
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn tables_agree_with_a_naive_model(commands in prop::collection::vec(command(), 0..60)) {
        let mut state = State::new();
        let mut naive = Naive::default();
        for command in &commands {
            let applied = apply(&mut state, command, &mut Touched::new());
            let applied = match applied {
                Applied::Txn(outcome) => Applied::Condition(outcome.is_ok()),
                other => other,
            };
            prop_assert_eq!(&applied, &naive.apply(state.index(), command), "{:?}", command);
            naive.compare(&state);
        }
    }

    #[test]
    fn indexes_move_and_watchers_wake_exactly_with_the_answers(
        commands in prop::collection::vec(command(), 0..40),
    ) {
        let topics = topics();
        let mut state = State::new();
        for command in &commands {
            let before = state.clone();
            let mut touched = Touched::new();
            apply(&mut state, command, &mut touched);
            let mut watchers = Watchers::new();
            for topic in &topics {
                watchers.insert(topic.clone(), topic.clone());
            }
            let mut woken = Vec::new();
            watchers.wake(&touched, &mut woken);
            let strict = writes_each_row_once(&before, command);
            for topic in &topics {
                check_topic(&before, &state, &touched, &woken, topic, strict);
            }
        }
    }

    #[test]
    fn the_same_commands_make_the_same_state(commands in prop::collection::vec(command(), 0..40)) {
        let (one, first) = replay(&commands);
        let (other, second) = replay(&commands);
        prop_assert_eq!(first, second);
        for topic in topics() {
            prop_assert_eq!(answer(&one, &topic), answer(&other, &topic));
            prop_assert_eq!(one.topic_index(&topic), other.topic_index(&topic));
            prop_assert_eq!(one.last_change(&topic), other.last_change(&topic));
        }
    }

    #[test]
    fn a_state_survives_its_sections(commands in prop::collection::vec(command(), 0..60)) {
        let half = commands.len() / 2;
        let (mut one, _) = replay(&commands[..half]);
        let mut other = rebuilt(&one);
        for command in commands[half..].iter().map(Some).chain([None]) {
            prop_assert_eq!(one.fingerprint(), other.fingerprint());
            for topic in topics() {
                prop_assert_eq!(answer(&one, &topic), answer(&other, &topic));
                prop_assert_eq!(one.topic_index(&topic), other.topic_index(&topic), "{:?}", topic);
                prop_assert_eq!(one.last_change(&topic), other.last_change(&topic), "{:?}", topic);
            }
            let Some(command) = command else { break };
            let (mut first, mut second) = (Touched::new(), Touched::new());
            prop_assert_eq!(apply(&mut one, command, &mut first), apply(&mut other, command, &mut second));
            prop_assert_eq!(first, second);
        }
    }

    #[test]
    fn a_published_state_is_not_disturbed_by_later_writes(commands in prop::collection::vec(command(), 1..40)) {
        let half = commands.len() / 2;
        let (mut state, _) = replay(&commands[..half]);
        let published = state.clone();
        let answers: BTreeMap<Topic, String> =
            topics().into_iter().map(|topic| (topic.clone(), answer(&published, &topic))).collect();
        for command in &commands[half..] {
            apply(&mut state, command, &mut Touched::new());
        }
        for (topic, text) in answers {
            prop_assert_eq!(answer(&published, &topic), text);
        }
    }
}
