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
