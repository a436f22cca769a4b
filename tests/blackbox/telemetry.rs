//! `/v1/agent/metrics`: what came in the last ten seconds, under Consul's names.

use std::time::Duration;

use serde_json::{Value, json};

use super::agent::Agent;
use super::support::wait;

/// Two boundaries of intervals, and some.
const TWO_INTERVALS: Duration = Duration::from_secs(30);

fn row<'a>(shown: &'a Value, list: &str, name: &str) -> Option<&'a Value> {
    shown[list].as_array().expect("a list").iter().find(|row| row["Name"] == name)
}

/// It gave totals since the start, at the time of the question: no dashboard could tell a rate, and nothing ever left.
#[test]
fn an_interval_shows_what_came_in_it_and_nothing_else() {
    let agent = Agent::dev(json!({"log_level": "info"}));
    let shown = || agent.get("/v1/agent/metrics").json();
    // All of these in one interval: the first one is shown while it is under way, the second once it is over.
    let begun = shown()["Timestamp"].clone();
    let fresh = wait::until("an interval begins", TWO_INTERVALS, || {
        Some(shown()).filter(|now| now["Timestamp"] != begun)
    });
    for value in 0..7 {
        agent.put("/v1/kv/a", &json!(value));
        agent.get("/v1/health/service/consul?passing");
        agent.get("/v1/catalog/service/none");
    }
    let seen = wait::until("the interval of the writes is over", TWO_INTERVALS, || {
        let now = shown();
        row(&now, "Samples", "consul.http.PUT.v1.kv._").is_some().then_some(now)
    });
    assert_ne!(seen["Timestamp"], fresh["Timestamp"]);
    for name in ["consul.http.PUT.v1.kv._", "consul.kvs.apply"] {
        let kv = row(&seen, "Samples", name).expect("a row");
        let figure = |key: &str| kv[key].as_f64().expect("a number");
        assert_eq!(figure("Count"), 7.0, "{kv}");
        assert!((figure("Rate") - figure("Sum") / 10.0).abs() < 1e-9, "{kv}");
        assert!((figure("Mean") - figure("Sum") / 7.0).abs() < 1e-9, "{kv}");
        assert!(
            0.0 < figure("Min") && figure("Min") <= figure("Mean") && figure("Mean") <= figure("Max"),
            "{kv}"
        );
    }
    for (name, service) in
        [("consul.health.service.query", "consul"), ("consul.catalog.service.query", "none")]
    {
        let asked = row(&seen, "Counters", name).expect("a row");
        assert_eq!((&asked["Count"], &asked["Labels"]), (&json!(7), &json!({"service": service})), "{asked}");
    }
    let queries = row(&seen, "Counters", "consul.rpc.query").expect("a row");
    assert!(queries["Count"].as_u64() >= Some(14), "{queries}");
    let index = |name| row(&seen, "Gauges", name).and_then(|gauge| gauge["Value"].as_f64());
    assert!(index("consul.raft.applied_index") >= Some(7.0), "{seen}");
    assert!(index("consul.raft.last_index") >= index("consul.raft.applied_index"), "{seen}");
    assert_eq!(index("consul.session_ttl.active"), Some(0.0));
    assert_eq!(
        row(&seen, "Gauges", "consul.autopilot.healthy").map(|gauge| &gauge["Value"]),
        Some(&json!(1))
    );
    let counted = |list: &str| seen[list].as_array().expect("a list").iter().all(|row| row["Count"] != 0);
    assert!(counted("Counters") && counted("Samples"), "{seen}");
    let life = agent.get("/v1/agent/metrics?since=start").json();
    let kv = row(&life, "Samples", "consul.kvs.apply").expect("a row");
    assert_eq!((kv["Count"].as_u64(), kv.get("Rate")), (Some(7), None), "{kv}");
    wait::until_true("what is over leaves", TWO_INTERVALS, || {
        row(&shown(), "Samples", "consul.http.PUT.v1.kv._").is_none()
    });
    assert!(agent.get("/v1/agent/metrics?pretty").text().starts_with("{\n    \"Timestamp\": \""));
}

#[test]
fn gauges_bear_the_host_s_name_where_others_collect_them() {
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").expect("a host has a name");
    let host = host.trim();
    let plain = Agent::dev(json!({"log_level": "info"}));
    assert!(row(&plain.get("/v1/agent/metrics").json(), "Gauges", "consul.runtime.alloc_bytes").is_some());
    let telemetry = json!({"prometheus_retention_time": "60s"});
    let collected = Agent::dev(json!({"log_level": "info", "telemetry": telemetry}));
    let name = format!("consul.{host}.runtime.alloc_bytes");
    assert!(row(&collected.get("/v1/agent/metrics").json(), "Gauges", &name).is_some());
    let text = collected.get("/v1/agent/metrics?format=prometheus").text();
    let name = name.replace(['.', '-'], "_");
    assert!(text.contains(&format!("# TYPE {name} gauge\n{name} ")), "{text}");
    let telemetry = json!({"prometheus_retention_time": "60s", "disable_hostname": true});
    let nameless = Agent::dev(json!({"log_level": "info", "telemetry": telemetry}));
    let text = nameless.get("/v1/agent/metrics?format=prometheus").text();
    assert!(text.contains("\nconsul_runtime_alloc_bytes "), "{text}");
    nameless.put("/v1/kv/a", &json!(1));
    nameless.get("/v1/health/service/consul");
    let text = nameless.get("/v1/agent/metrics?format=prometheus").text();
    assert!(text.contains("\nconsul_kvs_apply_count 1\n"), "{text}");
    assert!(text.contains("\nconsul_health_service_query{service=\"consul\"} "), "{text}");
}

/// Only who has measured the way to somebody had a place, so that an agent alone was nowhere for ever.
#[test]
fn a_lone_agent_has_a_coordinate_too() {
    let agent = Agent::dev(json!({"log_level": "info"}));
    let path = "/v1/coordinate/node/blackbox";
    wait::until_true("it has one", TWO_INTERVALS, || agent.get(path).status == 200);
    let rows = agent.get(path).json();
    assert_eq!(rows[0]["Node"], "blackbox");
    assert_eq!(rows[0]["Coord"]["Error"], 1.5, "it has measured nothing: {rows}");
}
