//! A client agent that knows no server: its own services and checks work, and it does not pretend to know the catalog.

use serde_json::json;

use super::agent::{Agent, SOON};
use super::support::{http, wait};

#[test]
fn a_client_without_servers_runs_its_checks_and_refuses_the_rest() {
    let agent = Agent::client(json!({}));
    let check = json!({"Args": ["/bin/sh", "-c", "echo fine"], "Interval": "1s"});
    agent.put("/v1/agent/service/register", &json!({"Name": "web", "Port": 80, "Check": check}));
    wait::until_true("the check runs", SOON, || {
        agent.get("/v1/agent/checks").json()["service:web"]["Status"] == "passing"
    });
    for path in
        ["/v1/kv/x", "/v1/kv/x?stale", "/v1/catalog/nodes", "/v1/health/service/web", "/v1/status/leader"]
    {
        let reply = agent.get(path);
        assert_eq!((reply.status, reply.text().as_str()), (500, "No known Consul servers"), "{path}");
    }
    let write = http::put(agent.ports.http, "/v1/kv/x", "1").expect("an answer");
    assert_eq!((write.status, write.text().as_str()), (500, "No known Consul servers"));
}
