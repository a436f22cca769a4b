//! What was registered at an agent is there again after a restart.

use serde_json::{Value, json};

use super::agent::{Agent, SOON};
use super::support::wait;

#[test]
fn local_registrations_survive_a_restart() {
    let agent = Agent::server(json!({}));
    agent.put(
        "/v1/agent/service/register",
        &json!({"ID": "web-1", "Name": "web", "Port": 80, "Tags": ["a"], "Meta": {"k": "v"}}),
    );
    agent.put(
        "/v1/agent/check/register",
        &json!({"ID": "beat", "Name": "beat", "ServiceID": "web-1", "TTL": "1h"}),
    );
    agent.put("/v1/agent/check/pass/beat?note=fine", &Value::Null);
    agent.put("/v1/agent/service/register", &json!({"ID": "gone", "Name": "gone"}));
    agent.put("/v1/agent/service/deregister/gone", &Value::Null);

    let agent = agent.restart();
    assert_eq!(agent.service_ids(), ["web-1"]);
    let service = agent.get("/v1/agent/service/web-1").json();
    assert_eq!(service["Port"], 80);
    assert_eq!(service["Tags"], json!(["a"]));
    assert_eq!(service["Meta"], json!({"k": "v"}));
    let check = agent.get("/v1/agent/checks").json()["beat"].clone();
    assert_eq!(check["ServiceID"], "web-1");
    assert_eq!(check["Status"], "passing", "a TTL that has not run out keeps its state: {check}");
    wait::until_true("the catalog has it too", SOON, || {
        agent.get("/v1/catalog/service/web").json()[0]["ServiceID"] == "web-1"
    });
}

#[test]
fn maintenance_survives_a_restart() {
    let agent = Agent::server(json!({}));
    agent.put("/v1/agent/service/register", &json!({"ID": "web-1", "Name": "web"}));
    agent.put("/v1/agent/service/maintenance/web-1?enable=true&reason=disk", &Value::Null);
    let agent = agent.restart();
    let checks = agent.get("/v1/agent/checks").json();
    let check = &checks["_service_maintenance:web-1"];
    assert_eq!((&check["Status"], &check["Notes"]), (&json!("critical"), &json!("disk")), "{checks}");
}

/// A restored check took the status that its definition starts with, so that after a crash of the host whatever had been
/// registered as passing was handed out before anybody had looked at it.
#[test]
fn a_restored_check_is_critical_until_it_is_looked_at() {
    let agent = Agent::server(json!({}));
    let check = json!({"TCP": "127.0.0.1:1", "Interval": "10h", "Status": "passing"});
    agent.put("/v1/agent/service/register", &json!({"Name": "web", "Check": check}));
    assert_eq!(agent.get("/v1/agent/checks").json()["service:web"]["Status"], "passing");
    let agent = agent.restart();
    assert_eq!(agent.get("/v1/agent/checks").json()["service:web"]["Status"], "critical");
}
