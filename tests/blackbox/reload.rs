//! SIGHUP and `/v1/agent/reload` read the definitions again, without a restart.

use serde_json::{Value, json};

use super::agent::{Agent, SOON};
use super::support::wait;

#[test]
fn a_reload_adds_changes_and_removes_services() {
    let agent = Agent::dev(json!({}));
    let path = agent.define("web.json", &json!({"service": {"name": "web", "port": 80}}));
    agent.process.signal(libc::SIGHUP);
    wait::until_true("web is registered", SOON, || agent.service_ids() == ["web"]);

    agent.define("web.json", &json!({"service": {"name": "web", "port": 81}}));
    agent.process.signal(libc::SIGHUP);
    wait::until_true("web has its new port in the catalog", SOON, || {
        agent.get("/v1/catalog/service/web").json()[0]["ServicePort"] == 81
    });

    std::fs::remove_file(path).expect("removing a definition");
    agent.put("/v1/agent/reload", &Value::Null);
    wait::until_true("web is gone", SOON, || agent.service_ids().is_empty());
    wait::until_true("web is gone from the catalog", SOON, || {
        agent.get("/v1/catalog/service/web").json() == json!([])
    });
}

#[test]
fn a_reload_takes_new_node_metadata() {
    let agent = Agent::dev(json!({}));
    agent.define("meta.json", &json!({"node_meta": {"rack": "r9"}}));
    agent.process.signal(libc::SIGHUP);
    wait::until_true("the catalog has the node's new metadata", SOON, || {
        agent.get("/v1/catalog/nodes").json()[0]["Meta"]["rack"] == "r9"
    });
}

#[test]
fn a_reload_keeps_what_was_registered_over_http() {
    // A dev-mode Consul forgets them here, as it persists nothing; with a data folder they must stay.
    let agent = Agent::server(json!({}));
    agent.put("/v1/agent/service/register", &json!({"Name": "api", "Port": 90}));
    agent.define("web.json", &json!({"service": {"name": "web", "port": 80}}));
    agent.process.signal(libc::SIGHUP);
    wait::until_true("both are registered", SOON, || agent.service_ids() == ["api", "web"]);
}

#[test]
fn a_broken_file_changes_nothing() {
    let agent = Agent::dev(json!({}));
    agent.define("web.json", &json!({"service": {"name": "web", "port": 80}}));
    agent.process.signal(libc::SIGHUP);
    wait::until_true("web is registered", SOON, || agent.service_ids() == ["web"]);

    agent.define("web.json", &json!({"service": {"name": "web", "prt": 80}}));
    agent.process.signal(libc::SIGHUP);
    wait::until_true("the log names the key", SOON, || agent.process.log().contains("prt"));
    assert_eq!(agent.service_ids(), ["web"]);
    assert_eq!(agent.get("/v1/agent/service/web").json()["Port"], 80);
}

/// The definitions before the refused one were applied and the rest was not; and what the agent then took for the
/// configuration's was nothing at all, so that the next reload removed nothing.
#[test]
fn a_refused_definition_changes_nothing_either() {
    let agent = Agent::dev(json!({"enable_script_checks": false}));
    agent.define("a.json", &json!({"service": {"name": "old", "port": 80}}));
    agent.process.signal(libc::SIGHUP);
    wait::until_true("the first one is registered", SOON, || agent.service_ids() == ["old"]);

    let script = json!({"id": "s", "name": "s", "args": ["true"], "interval": "1s"});
    agent.define("a.json", &json!({"service": {"name": "new", "port": 80}, "check": script}));
    agent.process.signal(libc::SIGHUP);
    wait::until_true("the log says why", SOON, || agent.process.log().contains("Scripts are disabled"));
    assert_eq!(agent.service_ids(), ["old"]);

    agent.define("a.json", &json!({"service": {"name": "new", "port": 80}}));
    agent.process.signal(libc::SIGHUP);
    wait::until_true("the new one took its place", SOON, || agent.service_ids() == ["new"]);
}

/// What the configuration defines is there after a reload, whatever was done to it over HTTP.
#[test]
fn a_reload_brings_back_what_was_deregistered_over_http() {
    let agent = Agent::dev(json!({}));
    agent.define("web.json", &json!({"service": {"name": "web", "port": 80}}));
    agent.process.signal(libc::SIGHUP);
    wait::until_true("web is registered", SOON, || agent.service_ids() == ["web"]);
    agent.put("/v1/agent/service/deregister/web", &Value::Null);
    assert!(agent.service_ids().is_empty());
    agent.put("/v1/agent/reload", &Value::Null);
    assert_eq!(agent.service_ids(), ["web"]);
}
