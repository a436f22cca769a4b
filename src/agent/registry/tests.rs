//! The registry's rules, in virtual time.

use std::time::{Duration, Instant};

use super::*;
use crate::agent::AgentError;
use crate::agent::local::{NODE_MAINTENANCE, Source};
use crate::agent::persist::StoredState;
use crate::agent::sync::Held;
use crate::config::definition::{CheckDefinition, ServiceDefinition};
use crate::health::plan::Finding;
use crate::store::command::{CatalogOp, Deregister};
use crate::store::model::{Node, Service, Weights};

const SECOND: Duration = Duration::from_secs(1);
const WALL: Duration = Duration::from_secs(1_700_000_000);

struct Bench {
    registry: Registry,
    start: Instant,
    node: Node,
}

impl Bench {
    fn new() -> Bench {
        Bench::with(|_| {})
    }

    fn with(change: impl FnOnce(&mut Rules)) -> Bench {
        let mut rules = Rules {
            scripts_from_api: false,
            scripts_from_files: true,
            output_max: 4096,
            update_interval: Duration::from_secs(300),
            discard_output: false,
            deregister_after_min: Duration::from_secs(60),
            reap_interval: Duration::from_secs(30),
        };
        change(&mut rules);
        let start = Instant::now();
        let node = Node { node: "n1".into(), address: "10.0.0.1".into(), ..Node::default() };
        Bench { registry: Registry::new(node.clone(), rules, Bounds::within(1 << 20), start, 7), start, node }
    }

    fn service(&mut self, json: &str) -> Result<(), AgentError> {
        let definition = ServiceDefinition::from_api(json.as_bytes()).expect("the test's JSON");
        self.registry.put_service(self.start, &definition, Source::Remote, false)
    }

    fn check(&mut self, json: &str) -> Result<(), AgentError> {
        let definition = CheckDefinition::from_api(json.as_bytes()).expect("the test's JSON");
        self.registry.put_check(self.start, &definition, Source::Remote)
    }

    fn tell(&mut self, after: Duration, id: &str, status: Status, output: &str) -> Result<(), AgentError> {
        self.registry.tell(self.start + after, WALL + after, id, status, output.into())
    }

    fn shown(&self, id: &str) -> (Status, &str) {
        let row = &self.registry.view().checks[id].row;
        (row.status, row.output.as_str())
    }

    fn sync(&mut self) -> Vec<CatalogOp> {
        let batch = self.registry.collect();
        self.registry.settle(&batch);
        batch.ops
    }
}

#[test]
fn checks_of_a_service_get_ids_and_names() {
    let mut bench = Bench::new();
    bench
        .service(
            r#"{"Name":"multi","Check":{"TTL":"30s"},"Checks":[{"TTL":"20s","Name":"second"},{"CheckID":"named","TTL":"10s"}]}"#,
        )
        .unwrap();
    let view = bench.registry.view();
    assert_eq!(view.checks.keys().collect::<Vec<_>>(), ["named", "service:multi:1", "service:multi:2"]);
    assert_eq!(view.checks["service:multi:1"].row.name, "Service 'multi' check");
    assert_eq!(view.checks["service:multi:2"].row.name, "second");
    assert_eq!(view.ttls, 3);
    bench.service(r#"{"Name":"one","Check":{"TTL":"30s"}}"#).unwrap();
    assert!(bench.registry.view().checks.contains_key("service:one"));
}

#[test]
fn refusals_change_nothing_and_carry_consuls_words() {
    let mut bench = Bench::new();
    for (json, status, text) in [
        (r#"{}"#, 400, "Missing check name"),
        (r#"{"Name":"v"}"#, 400, "Invalid check: TTL must be > 0 for TTL checks"),
        (r#"{"Name":"v","TTL":"10s","Status":"sideways"}"#, 400, "Bad check status"),
        (r#"{"Name":"v","TTL":"10s","ServiceID":"gone"}"#, 500, "ServiceID \"gone\" does not exist"),
        (
            r#"{"Name":"v","Args":["true"],"Interval":"10s"}"#,
            500,
            "Scripts are disabled on this agent from remote calls; to enable, configure 'enable_script_checks' to true",
        ),
    ] {
        assert_eq!(bench.check(json), Err(AgentError { status, text: text.into() }), "{json}");
    }
    let refused = bench.service(r#"{"Name":"s","Checks":[{"TTL":"1s"},{"Args":["x"],"Interval":"1s"}]}"#);
    assert_eq!(refused.unwrap_err().status, 500);
    assert!(bench.registry.view().services.is_empty() && bench.registry.view().checks.is_empty());
    assert_eq!(bench.registry.remove_check(""), Err(AgentError::failed("CheckID missing")));
    assert_eq!(bench.registry.remove_service(""), Err(AgentError::failed("ServiceID missing")));
    assert_eq!(bench.registry.remove_check("none"), Ok(()));
    assert_eq!(bench.registry.remove_service("none"), Ok(()));
}

#[test]
fn a_ttl_check_expires_and_quotes_its_last_words() {
    let mut bench = Bench::new();
    bench.check(r#"{"Name":"mem","TTL":"30s"}"#).unwrap();
    assert_eq!(bench.shown("mem"), (Status::Critical, ""));
    bench.tell(10 * SECOND, "mem", Status::Passing, "fine").unwrap();
    bench.registry.tick(bench.start + 39 * SECOND);
    assert_eq!(bench.shown("mem"), (Status::Passing, "fine"));
    bench.registry.tick(bench.start + 40 * SECOND);
    let expired = "TTL expired (last output before timeout follows): fine";
    assert_eq!(bench.shown("mem"), (Status::Critical, expired));
    // Told again, it starts anew.
    bench.tell(50 * SECOND, "mem", Status::Passing, "").unwrap();
    bench.registry.tick(bench.start + 80 * SECOND);
    assert_eq!(bench.shown("mem"), (Status::Critical, "TTL expired"));
    // Registered again and not told, it does not quote its own expiry.
    bench.check(r#"{"Name":"mem","TTL":"30s"}"#).unwrap();
    bench.registry.tick(bench.start + 200 * SECOND);
    assert_eq!(bench.shown("mem"), (Status::Critical, "TTL expired"));
}

#[test]
fn only_ttl_checks_can_be_told() {
    let mut bench = Bench::new();
    bench.check(r#"{"Name":"tcpchk","TCP":"127.0.0.1:1","Interval":"1h"}"#).unwrap();
    for id in ["none", "tcpchk", "serfHealth", ""] {
        let refused = bench.tell(SECOND, id, Status::Passing, "").unwrap_err();
        assert_eq!(refused.text, format!("CheckID \"{id}\" does not have associated TTL"));
    }
}

#[test]
fn registering_again_keeps_status_and_output_and_one_alarm() {
    let mut bench = Bench::new();
    for round in 0..50 {
        bench.service(r#"{"Name":"k","Check":{"TTL":"60s","Status":"warning"}}"#).unwrap();
        if round == 0 {
            assert_eq!(bench.shown("service:k").0, Status::Warning);
            bench.tell(SECOND, "service:k", Status::Passing, "hi").unwrap();
        }
        assert_eq!(bench.shown("service:k"), (Status::Passing, "hi"));
    }
    for second in 2..600 {
        bench.tell(second * SECOND, "service:k", Status::Passing, "hi").unwrap();
        bench.registry.tick(bench.start + second * SECOND);
    }
    assert!(bench.registry.alarms.len() <= 1, "{} alarms", bench.registry.alarms.len());
    assert_eq!(bench.shown("service:k"), (Status::Passing, "hi"));
}

#[test]
fn told_output_is_bounded_by_definition_and_configuration() {
    let mut bench = Bench::with(|rules| rules.output_max = 64);
    bench.check(r#"{"Name":"a","TTL":"1h"}"#).unwrap();
    bench.check(r#"{"Name":"b","TTL":"1h","OutputMaxSize":10}"#).unwrap();
    bench.tell(SECOND, "a", Status::Passing, &"y".repeat(100)).unwrap();
    bench.tell(SECOND, "b", Status::Passing, "0123456789abcdef").unwrap();
    assert_eq!(bench.shown("a").1, format!("{} ... (captured 64 of 100 bytes)", "y".repeat(64)));
    assert_eq!(bench.shown("b").1, "0123456789 ... (captured 10 of 16 bytes)");
}

#[test]
fn maintenance_keeps_its_first_reason_and_has_a_default_one() {
    let mut bench = Bench::new();
    bench.service(r#"{"ID":"m-1","Name":"m","Tags":["t"]}"#).unwrap();
    let now = bench.start;
    bench.registry.set_service_maintenance(now, "m-1", true, "because").unwrap();
    bench.registry.set_service_maintenance(now, "m-1", true, "changed").unwrap();
    let row = bench.registry.view().checks["_service_maintenance:m-1"].row.clone();
    assert_eq!((row.notes.as_str(), row.kind.as_str()), ("because", "maintenance"));
    assert_eq!((row.service_name.as_str(), row.status), ("m", Status::Critical));
    bench.registry.set_service_maintenance(now, "m-1", false, "").unwrap();
    assert!(bench.registry.view().checks.is_empty());
    let refused = bench.registry.set_service_maintenance(now, "none", true, "").unwrap_err();
    assert_eq!(refused, AgentError::not_found("No service registered with ID \"none\""));
    bench.registry.set_node_maintenance(now, true, "");
    let row = &bench.registry.view().checks[NODE_MAINTENANCE].row;
    assert!(row.notes.ends_with("no reason was provided. This is a default message."));
}

#[test]
fn a_critical_service_is_reaped_after_its_time_and_not_before() {
    let mut bench = Bench::new();
    // One second is raised to the minimum of a minute.
    let json = r#"{"Name":"dcsa","Check":{"TTL":"1h","DeregisterCriticalServiceAfter":"1s"}}"#;
    bench.service(json).unwrap();
    for second in [30, 45, 60] {
        bench.registry.tick(bench.start + second * SECOND);
        assert!(bench.registry.view().services.contains_key("dcsa"), "gone after {second} s");
    }
    bench.registry.tick(bench.start + 91 * SECOND);
    assert!(bench.registry.view().services.is_empty() && bench.registry.view().checks.is_empty());
    // Healthy in between: the time starts again.
    bench.service(json).unwrap();
    bench.tell(100 * SECOND, "service:dcsa", Status::Passing, "").unwrap();
    bench.registry.tick(bench.start + 170 * SECOND);
    assert!(bench.registry.view().services.contains_key("dcsa"));
}

#[test]
fn a_change_of_status_is_written_once_and_a_healthy_check_never() {
    let mut bench = Bench::new();
    bench.check(r#"{"Name":"c","HTTP":"http://h/","Interval":"1s"}"#).unwrap();
    assert_eq!(bench.sync().len(), 2, "the node, then the check");
    let mut runs = Vec::new();
    let mut writes = 0;
    for second in 1..=60 {
        let now = bench.start + second * SECOND;
        bench.registry.take_due(now, &mut runs);
        for run in runs.drain(..) {
            bench.registry.finished(now, run.ticket, Finding::passing("200 OK"));
        }
        writes += bench.sync().len();
    }
    assert_eq!(writes, 1, "critical to passing, and nothing after it");
}

#[test]
fn output_alone_waits_and_a_change_of_status_takes_it_along() {
    let mut bench = Bench::new();
    bench.check(r#"{"Name":"t","TTL":"1h"}"#).unwrap();
    bench.tell(SECOND, "t", Status::Passing, "one").unwrap();
    bench.sync();
    bench.tell(2 * SECOND, "t", Status::Passing, "two").unwrap();
    assert_eq!(bench.shown("t"), (Status::Passing, "two"), "the agent itself shows it at once");
    assert!(bench.sync().is_empty());
    // Between half and one and a half of five minutes later it is written, once.
    bench.registry.tick(bench.start + 140 * SECOND);
    assert!(bench.sync().is_empty());
    bench.registry.tick(bench.start + 460 * SECOND);
    assert_eq!(bench.sync().len(), 1);
    bench.tell(470 * SECOND, "t", Status::Passing, "three").unwrap();
    bench.tell(471 * SECOND, "t", Status::Warning, "four").unwrap();
    assert_eq!(bench.sync().len(), 1);
    bench.registry.tick(bench.start + 1000 * SECOND);
    assert!(bench.sync().is_empty(), "the deferred write was taken along");
}

#[test]
fn without_an_update_interval_output_is_written_at_once_and_it_can_be_discarded() {
    let mut bench = Bench::with(|rules| rules.update_interval = Duration::ZERO);
    bench.check(r#"{"Name":"t","TTL":"1h","Status":"passing"}"#).unwrap();
    bench.sync();
    bench.tell(SECOND, "t", Status::Passing, "news").unwrap();
    assert_eq!(bench.sync().len(), 1);
    let mut bench = Bench::with(|rules| rules.discard_output = true);
    bench.check(r#"{"Name":"t","TTL":"1h","Status":"passing"}"#).unwrap();
    bench.tell(SECOND, "t", Status::Passing, "news").unwrap();
    assert_eq!(bench.shown("t"), (Status::Passing, ""));
}

#[test]
fn a_service_travels_with_its_checks_and_its_removal_takes_them_along() {
    let mut bench = Bench::new();
    bench.service(r#"{"ID":"w1","Name":"web","Checks":[{"TTL":"1h"},{"TTL":"2h"}]}"#).unwrap();
    let ops = bench.sync();
    let [CatalogOp::Register(node), CatalogOp::Register(service)] = &ops[..] else { panic!("{ops:?}") };
    assert!(!node.skip_node_update && service.skip_node_update);
    assert_eq!((service.service.as_ref().unwrap().id.as_str(), service.checks.len()), ("w1", 2));
    bench.registry.remove_service("w1").unwrap();
    let gone = Deregister { node: "n1".into(), service_id: "w1".into(), check_id: String::new() };
    assert_eq!(bench.sync(), [CatalogOp::Deregister(gone)]);
    assert!(bench.sync().is_empty());
}

#[test]
fn a_change_during_a_write_is_not_lost() {
    let mut bench = Bench::new();
    bench.check(r#"{"Name":"t","TTL":"1h"}"#).unwrap();
    let batch = bench.registry.collect();
    bench.tell(SECOND, "t", Status::Passing, "").unwrap();
    bench.registry.settle(&batch);
    assert_eq!(bench.sync().len(), 1, "the newer status is still to be written");
    assert!(bench.registry.is_synced());
}

#[test]
fn replacing_checks_removes_those_not_named() {
    let mut bench = Bench::new();
    bench
        .service(r#"{"Name":"up","Checks":[{"CheckID":"a","TTL":"1h"},{"CheckID":"b","TTL":"1h"}]}"#)
        .unwrap();
    let definition =
        ServiceDefinition::from_api(br#"{"Name":"up","Check":{"CheckID":"b","TTL":"9s"}}"#).unwrap();
    bench.registry.put_service(bench.start, &definition, Source::Remote, true).unwrap();
    assert_eq!(bench.registry.view().checks.keys().collect::<Vec<_>>(), ["b"]);
}

#[test]
fn the_compare_repairs_both_sides_and_leaves_the_servers_rows_alone() {
    let mut bench = Bench::new();
    bench.service(r#"{"Name":"mine","Check":{"TTL":"1h"}}"#).unwrap();
    bench.service(r#"{"Name":"shared","Tags":["own"],"EnableTagOverride":true}"#).unwrap();
    bench.sync();
    let view = bench.registry.view().clone();
    let shared = Service { tags: vec!["theirs".into()], ..Service::clone(&view.services["shared"].row) };
    let row = |id: &str| Service { id: id.into(), name: id.into(), ..Service::default() };
    let (stranger, consul) = (row("stranger"), row("consul"));
    let check = |id: &str, service: &str| Check {
        check_id: id.into(),
        service_id: service.into(),
        ..Check::default()
    };
    let (serf, odd, of_stranger) = (check("serfHealth", ""), check("odd", ""), check("s", "stranger"));
    let node = bench.node.clone();
    let mut held = Held { node: Some(&node), ..Held::default() };
    held.services.extend([("shared", &shared), ("stranger", &stranger), ("consul", &consul)]);
    held.checks.extend([("serfHealth", &serf), ("odd", &odd), ("s", &of_stranger)]);
    let repair = bench.registry.compare(&held, 1);
    let expected = Repair {
        node: false,
        services: vec!["mine".into()],
        checks: vec!["service:mine".into()],
        strange_services: vec!["stranger".into()],
        strange_checks: vec!["odd".into()],
    };
    assert_eq!(repair, expected);
    assert_eq!(bench.registry.view().services["shared"].row.tags, ["theirs"]);
    assert_eq!(bench.sync().len(), 3, "two removals, and the service with its check");
}

#[test]
fn a_compare_that_agrees_settles_without_a_write() {
    let mut bench = Bench::new();
    bench.service(r#"{"Name":"mine"}"#).unwrap();
    let row = bench.registry.view().services["mine"].row.clone();
    let node = bench.node.clone();
    let held = Held { node: Some(&node), services: [("mine", &*row)].into(), ..Held::default() };
    assert!(!bench.registry.agrees_with(4));
    assert!(bench.registry.compare(&held, 4).is_empty());
    assert!(bench.registry.agrees_with(4) && !bench.registry.agrees_with(5));
    assert!(bench.sync().is_empty());
}

#[test]
fn a_restored_state_counts_until_it_expires() {
    let mut bench = Bench::new();
    bench.check(r#"{"Name":"a","TTL":"30s"}"#).unwrap();
    bench.check(r#"{"Name":"b","TTL":"30s"}"#).unwrap();
    for (id, left) in [("a", 10), ("b", -1)] {
        let state = StoredState {
            check_id: id.into(),
            output: "kept".into(),
            status: Status::Passing,
            expires_unix: WALL.as_secs() as i64 + left,
        };
        bench.registry.restore_state(bench.start, WALL, &state);
    }
    assert_eq!(bench.shown("a"), (Status::Passing, "kept"));
    assert_eq!(bench.shown("b"), (Status::Critical, ""));
}

#[test]
fn literal_addresses_stand_for_their_family() {
    let mut bench = Bench::new();
    bench
        .service(
            r#"{"Name":"w","Port":8080,"Address":"10.60.0.2","TaggedAddresses":{"wan":{"Address":"198.51.100.60","Port":80}},"Weights":{"Passing":5,"Warning":2}}"#,
        )
        .unwrap();
    let row = bench.registry.view().services["w"].row.clone();
    let tagged = row.tagged_addresses.clone().unwrap();
    assert_eq!(tagged.keys().collect::<Vec<_>>(), ["lan_ipv4", "wan", "wan_ipv4"]);
    assert_eq!((tagged["lan_ipv4"].port, tagged["wan"].port), (8080, 80));
    assert_eq!(row.weights, Weights { passing: 5, warning: 2 });
}

#[test]
fn a_thousand_checks_cost_a_thousand_entries_and_one_run_each_per_interval() {
    let mut bench = Bench::new();
    for n in 0..1000 {
        bench.check(&format!(r#"{{"Name":"c{n}","TCP":"127.0.0.1:1","Interval":"10s"}}"#)).unwrap();
    }
    assert_eq!(bench.registry.view().monitors, 1000);
    let (mut runs, mut ran) = (Vec::new(), 0);
    for step in 0..3000 {
        let now = bench.start + step * Duration::from_millis(10);
        bench.registry.take_due(now, &mut runs);
        for run in runs.drain(..) {
            ran += 1;
            bench.registry.finished(now, run.ticket, Finding::passing(""));
        }
    }
    assert!((2990..=3000).contains(&ran), "{ran} runs in 30 s");
    assert_eq!(bench.registry.runs_skipped(), 0);
}

#[test]
fn the_catalog_hears_of_services_in_the_order_of_their_registration() {
    let mut bench = Bench::new();
    bench.sync();
    for name in ["zeta", "alpha", "mid"] {
        bench.service(&format!(r#"{{"Name":"{name}"}}"#)).unwrap();
    }
    let names: Vec<_> = bench
        .sync()
        .into_iter()
        .map(|op| match op {
            CatalogOp::Register(register) => register.service.unwrap().name,
            CatalogOp::Deregister(_) => panic!("nothing is gone"),
        })
        .collect();
    assert_eq!(names, ["zeta", "alpha", "mid"]);
}

/// The transcript `agent-service.register-again-updates`.
#[test]
fn a_check_registered_again_is_written_again_and_its_service_is_not() {
    let mut bench = Bench::new();
    let text = r#"{"Name":"up","Tags":["a"],"Check":{"TTL":"30s"}}"#;
    bench.service(text).unwrap();
    bench.sync();
    bench.service(text).unwrap();
    let ops = bench.sync();
    let [CatalogOp::Register(register)] = &ops[..] else { panic!("{ops:?}") };
    assert!(register.service.is_none());
    assert_eq!(register.checks.len(), 1);
    // A new row of the service leaves the labels of its checks alone.
    bench.service(r#"{"Name":"up","Tags":["b"]}"#).unwrap();
    let ops = bench.sync();
    let [CatalogOp::Register(register)] = &ops[..] else { panic!("{ops:?}") };
    assert!(register.service.is_some() && register.checks.is_empty());
    assert_eq!(bench.registry.view().checks["service:up"].row.service_tags, ["a"]);
}

#[test]
fn a_storm_of_edges_is_one_operation_and_large_outputs_are_split() {
    let mut bench = Bench::new();
    for number in 0..1000 {
        bench.check(&format!(r#"{{"Name":"c{number}","TTL":"1h"}}"#)).unwrap();
    }
    bench.sync();
    for number in 0..1000 {
        bench.tell(SECOND, &format!("c{number}"), Status::Passing, "").unwrap();
    }
    let ops = bench.sync();
    assert!(matches!(&ops[..], [CatalogOp::Register(register)] if register.checks.len() == 1000));
    assert!(bench.registry.is_synced());
    let output = "x".repeat(4096);
    for number in 0..1000 {
        bench.tell(SECOND, &format!("c{number}"), Status::Warning, &output).unwrap();
    }
    let mut batches = 0;
    while !bench.registry.is_synced() {
        bench.sync();
        batches += 1;
    }
    assert!((4..=6).contains(&batches), "{batches} batches of about a megabyte");
}

#[test]
fn aliases_follow_what_they_name_and_each_other() {
    let mut bench = Bench::new();
    bench.service(r#"{"Name":"db","Check":{"CheckID":"db","TTL":"1h"}}"#).unwrap();
    bench.service(r#"{"Name":"web","Check":{"CheckID":"web","AliasService":"db"}}"#).unwrap();
    bench.service(r#"{"Name":"top","Check":{"CheckID":"top","AliasService":"web"}}"#).unwrap();
    let follow = |bench: &mut Bench| {
        bench.registry.follow_aliases(bench.start);
        ["web", "top"].map(|id| bench.shown(id).0)
    };
    assert_eq!(follow(&mut bench), [Status::Critical; 2]);
    bench.tell(SECOND, "db", Status::Passing, "").unwrap();
    assert_eq!(follow(&mut bench), [Status::Passing; 2]);
    bench.check(r#"{"Name":"disk","TTL":"1h","Status":"warning"}"#).unwrap();
    assert_eq!(follow(&mut bench), [Status::Warning; 2]);
    bench.registry.remove_check("disk").unwrap();
    assert_eq!(follow(&mut bench), [Status::Passing; 2]);
    bench.registry.remove_service("db").unwrap();
    assert_eq!(follow(&mut bench), [Status::Critical; 2]);
}

/// The transcript `agent-check.node-level-alias-sees-itself`.
#[test]
fn an_alias_that_sees_itself_quotes_itself_once() {
    let mut bench = Bench::new();
    bench.check(r#"{"Name":"own","AliasNode":"n1"}"#).unwrap();
    for _ in 0..3 {
        bench.registry.follow_aliases(bench.start);
        assert_eq!(bench.shown("own"), (Status::Critical, "Aliased check \"own\" failing: "));
    }
}

/// Its text grew by a quotation of itself with every change of another check, to 4 KiB.
#[test]
fn an_alias_that_sees_itself_does_not_grow() {
    let mut bench = Bench::new();
    bench.check(r#"{"Name":"own","AliasNode":"n1","Status":"passing"}"#).unwrap();
    bench.check(r#"{"Name":"disk","TTL":"1h","Status":"passing"}"#).unwrap();
    bench.registry.follow_aliases(bench.start);
    assert_eq!(bench.shown("own"), (Status::Passing, "All checks passing."));
    for round in 0..5 {
        bench.tell(SECOND, "disk", Status::Critical, &format!("full {round}")).unwrap();
        bench.registry.follow_aliases(bench.start);
        let quoted = format!("Aliased check \"disk\" failing: full {round}");
        assert_eq!(bench.shown("own"), (Status::Critical, &*quoted));
        bench.tell(SECOND, "disk", Status::Passing, "").unwrap();
        bench.registry.follow_aliases(bench.start);
        assert_eq!(bench.shown("own"), (Status::Critical, "Aliased check \"own\" failing: "));
    }
}
