use super::*;

fn serf(status: Status) -> Check {
    check("serfHealth", "", status)
}

fn health(name: &str) -> Topic {
    Topic::ServiceHealth(name.into())
}

fn instances(name: &str) -> Topic {
    Topic::ServiceInstances(name.into())
}

fn refusal(applied: Applied) -> String {
    match applied {
        Applied::Refused(text) => text,
        other => panic!("expected a refusal, got {other:?}"),
    }
}

#[test]
fn registering_the_same_again_moves_nothing() {
    let mut bench = Bench::new();
    let mut register = with_service("n", "s", "s", &["t"]);
    register.checks.push(check("c", "s", Status::Passing));
    bench.register(register.clone());
    bench.register(register.clone());
    assert!(bench.touched.is_empty());
    assert_eq!(bench.shown(health("s")), 1);
    register.checks[0].output = "changed".into();
    bench.register(register);
    assert_eq!((bench.shown(health("s")), bench.changed(instances("s"))), (3, 1));
    assert_eq!(bench.state.node("n").unwrap().modify_index, 1);
}

#[test]
fn names_ignore_letter_case() {
    let mut bench = Bench::new();
    bench.register(with_service("Web-1", "Main", "Shop", &[]));
    assert_eq!(bench.state.node("wEB-1").unwrap().node, "Web-1");
    assert_eq!(bench.state.instances("SHOP").count(), 1);
    assert!(bench.state.node_service("web-1", "MAIN").is_some());
    bench.register(with_service("WEB-1", "MAIN", "Shop", &[]));
    assert_eq!(bench.state.nodes().count(), 1);
    assert_eq!(bench.state.instances("shop").count(), 1);
    let names: Vec<_> = bench.state.services().map(|(name, _)| name.to_string()).collect();
    assert_eq!(names, ["Shop"]);
}

/// The transcript `agent-service.register-again-updates`.
#[test]
fn a_service_check_learns_name_and_tags_of_its_service_when_it_is_written() {
    let mut bench = Bench::new();
    let mut register = with_service("n", "id", "old", &["a"]);
    register.checks.push(check("c", "id", Status::Passing));
    bench.register(register);
    bench.register(with_service("n", "id", "new", &["b"]));
    let label = |state: &State| {
        let row = state.node_check("n", "c").unwrap();
        (row.service_name.clone(), row.service_tags.join(","), row.modify_index)
    };
    let checks = |name: &str| Topic::ServiceChecks(name.into());
    let listed = |state: &State| (state.service_checks("old").count(), state.service_checks("new").count());
    assert_eq!(label(&bench.state), ("old".into(), "a".into(), 1));
    assert_eq!(listed(&bench.state), (1, 0));
    assert_eq!(bench.state.instances("new").next().unwrap().service_checks.len(), 1);
    assert!(!bench.touched.touches(&checks("old")));
    bench.register(with_check("n", check("c", "id", Status::Warning)));
    assert_eq!(label(&bench.state), ("new".into(), "b".into(), 3));
    assert_eq!(listed(&bench.state), (0, 1));
    assert_eq!((bench.changed(checks("old")), bench.changed(checks("new"))), (3, 3));
    assert!(bench.touched.touches(&checks("old")) && bench.touched.touches(&checks("new")));
}

/// The same transcript: the index that a query of checks shows.
#[test]
fn writing_a_check_again_shows_as_a_write_but_wakes_nobody() {
    let mut bench = Bench::new();
    let mut register = with_service("n", "s", "s", &[]);
    register.checks.push(check("c", "s", Status::Passing));
    bench.register(register.clone());
    bench.register(register);
    let checks = || Topic::ServiceChecks("s".into());
    assert_eq!((bench.shown(checks()), bench.changed(checks())), (2, 1));
    assert!(bench.touched.is_empty());
}

#[test]
fn addresses_find_services() {
    let mut bench = Bench::new();
    let at = |node: &str, address: &str| {
        let mut register = with_service(node, "s", "s", &[]);
        register.service.as_mut().unwrap().address = address.into();
        register
    };
    bench.register(at("a", "10.0.0.9"));
    bench.register(at("b", "10.0.0.9"));
    bench.register(at("a", "10.0.0.8"));
    let found = |state: &State, address: &str| -> Vec<String> {
        state.services_by_address(address).map(|row| row.node.clone()).collect()
    };
    assert_eq!(found(&bench.state, "10.0.0.9"), ["b"]);
    assert_eq!(found(&bench.state, "10.0.0.8"), ["a"]);
    bench.deregister("a", "s", "");
    bench.deregister("b", "", "");
    assert!(found(&bench.state, "10.0.0.8").is_empty() && found(&bench.state, "10.0.0.9").is_empty());
}

#[test]
fn a_check_for_an_absent_service_is_refused_and_leaves_no_trace() {
    let mut bench = Bench::new();
    let mut register = with_service("n", "s", "s", &[]);
    register.checks.push(check("c", "other", Status::Passing));
    let text = refusal(bench.register(register.clone()));
    assert_eq!(text, "failed inserting check: Missing service registration on node \"n\"");
    assert!(bench.state.node("n").is_none() && bench.touched.is_empty());
    register.checks[0] = Check { node: "else".into(), ..check("c", "s", Status::Passing) };
    assert_eq!(refusal(bench.register(register)), "check node \"else\" does not match node \"n\"");
}

#[test]
fn a_name_belongs_to_the_node_whose_agent_is_alive() {
    let mut bench = Bench::new();
    let mut holder = with_id("id-1", "web");
    holder.checks.push(serf(Status::Passing));
    bench.register(holder);
    assert_eq!(
        refusal(bench.register(with_id("id-2", "WEB"))),
        "failed inserting node: Error while renaming Node ID: \"id-2\": \
         Node name WEB is reserved by node id-1 with name web (10.0.0.1)"
    );
    bench.register(with_id("id-2", "other"));
    assert_eq!(
        refusal(bench.register(with_id("id-2", "web"))),
        "failed inserting node: Error while renaming Node ID: \"id-2\" (10.0.0.1): \
         Node name web is reserved by node id-1 with name web (10.0.0.1)"
    );
    let mut dead = with_id("id-1", "web");
    dead.checks.push(serf(Status::Critical));
    bench.register(dead);
    assert_eq!(bench.register(with_id("id-2", "web")), Applied::Done);
    assert_eq!(bench.state.node_by_id("id-2").unwrap().node, "web");
    assert!(bench.state.node("other").is_none() && bench.state.node_by_id("id-1").is_none());
}

#[test]
fn a_renamed_node_keeps_its_create_index_and_loses_what_was_on_it() {
    let mut bench = Bench::new();
    let mut register = with_service("old", "s", "s", &[]);
    register.node.id = "id".into();
    bench.register(register);
    bench.register(with_id("id", "new"));
    let row = bench.state.node("new").unwrap();
    assert_eq!((row.create_index, row.modify_index), (1, 2));
    assert!(bench.state.node("old").is_none());
    assert_eq!(bench.state.instances("s").count(), 0);
    assert_eq!(bench.changed(Topic::Node("old".into())), 2);
}

#[test]
fn skip_node_update_creates_but_does_not_change() {
    let mut bench = Bench::new();
    bench.register(node("n", "10.0.0.1"));
    let skipping = Register { skip_node_update: true, ..with_service("n", "s", "s", &[]) };
    let mut moved = skipping.clone();
    moved.node.address = "10.9.9.9".into();
    bench.register(moved);
    assert_eq!(bench.state.node("n").unwrap().address, "10.0.0.1");
    assert_eq!(bench.state.instances("s").count(), 1);
    let mut fresh = skipping;
    fresh.node.node = "fresh".into();
    bench.register(fresh);
    assert!(bench.state.node("fresh").is_some());
}

#[test]
fn addresses_find_nodes() {
    let mut bench = Bench::new();
    bench.register(node("a", "10.0.0.1"));
    bench.register(node("b", "10.0.0.1"));
    bench.register(node("a", "10.0.0.2"));
    let at = |state: &State, address: &str| -> Vec<String> {
        state.nodes_by_address(address).map(|node| node.node.clone()).collect()
    };
    assert_eq!(at(&bench.state, "10.0.0.1"), ["b"]);
    assert_eq!(at(&bench.state, "10.0.0.2"), ["a"]);
    bench.deregister("b", "", "");
    assert!(at(&bench.state, "10.0.0.1").is_empty());
}

/// The transcript `catalog.index-semantics`.
#[test]
fn service_indexes_are_those_of_consul() {
    let mut bench = Bench::new();
    bench.register(with_service("ix", "ixa", "ixa", &[]));
    assert_eq!((bench.shown(instances("ixa")), bench.shown(instances("none"))), (1, 1));
    bench.register(with_service("ix", "b", "ixb", &[]));
    assert_eq!((bench.shown(instances("ixa")), bench.shown(instances("ixb"))), (1, 2));
    bench.deregister("ix", "b", "");
    assert_eq!((bench.shown(instances("ixa")), bench.shown(instances("ixb"))), (1, 3));
    assert_eq!(bench.shown(Topic::Node("ix".into())), 3);
    bench.deregister("ix", "", "");
    assert_eq!((bench.shown(instances("ixa")), bench.shown(Topic::Node("ix".into()))), (4, 1));
    bench.deregister("ix", "", "");
    assert!(bench.touched.is_empty());
}

#[test]
fn a_node_check_concerns_the_health_of_all_services_on_the_node_and_of_no_others() {
    let mut bench = Bench::new();
    bench.register(with_service("n1", "a", "a", &[]));
    bench.register(with_service("n2", "b", "b", &[]));
    bench.register(with_check("n1", serf(Status::Critical)));
    assert_eq!((bench.changed(health("a")), bench.changed(health("b"))), (3, 2));
    assert_eq!(bench.changed(instances("a")), 1);
    assert!(bench.touched.touches(&health("A")) && !bench.touched.touches(&health("b")));
    let instance = bench.state.instances("a").next().unwrap();
    assert_eq!(instance.checks().next().unwrap().status, Status::Critical);
}

#[test]
fn the_list_of_services_moves_with_names_and_tags_only() {
    let mut bench = Bench::new();
    bench.register(with_service("n1", "a", "a", &["t"]));
    bench.register(with_service("n2", "a", "a", &["t"]));
    assert_eq!(bench.changed(Topic::Services), 1);
    bench.register(with_service("n2", "a", "a", &["u"]));
    assert_eq!(bench.changed(Topic::Services), 3);
    bench.deregister("n2", "", "");
    assert_eq!(bench.changed(Topic::Services), 4, "tag u is gone");
}

#[test]
fn states_list_the_checks_in_them() {
    let mut bench = Bench::new();
    bench.register(with_check("n", check("c", "", Status::Passing)));
    bench.register(with_check("n", check("c", "", Status::Warning)));
    assert_eq!(bench.state.checks_in_state(Status::Passing).count(), 0);
    assert_eq!(bench.state.checks_in_state(Status::Warning).count(), 1);
    assert_eq!(bench.changed(Topic::CheckState(Some(Status::Critical))), 0);
    assert_eq!(bench.changed(Topic::CheckState(Some(Status::Passing))), 2);
    assert_eq!(bench.shown(Topic::CheckState(Some(Status::Critical))), 2, "Consul shows the table's index");
}

#[test]
fn a_batch_goes_under_one_index_and_answers_with_its_first_refusal() {
    let mut bench = Bench::new();
    let ok = |name: &str| CatalogOp::Register(Box::new(with_service(name, "s", "s", &[])));
    let bad = CatalogOp::Register(Box::new(with_check("n2", check("c", "none", Status::Passing))));
    let applied = bench.run(&Command::CatalogBatch(vec![ok("n1"), bad, ok("n3")]));
    assert!(matches!(applied, Applied::Refused(_)));
    let indexes: Vec<_> = bench.state.instances("s").map(|instance| instance.service.create_index).collect();
    assert_eq!(indexes, [1, 1]);
    assert!(bench.state.node("n2").is_none());
}
