//! `explain`: the owner of an instance knows all of it, another agent what the catalog and gossip know.

use std::process::Command;

use serde_json::{Value, json};

use super::clients::Fleet;
use super::harness::SOON;
use super::support::http;
use super::support::wait;

fn explain(fleet: &Fleet, place: usize) -> Option<Value> {
    let reply = fleet.cluster.servers[place].get("/v1/agent/explain/service/web?id=web-1")?;
    let instances = (reply.status == 200).then(|| reply.json())?;
    instances["Instances"].as_array()?.first().cloned()
}

/// What the command says, asked of one agent.
fn told(fleet: &Fleet, place: usize, args: &[&str]) -> (i32, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_muster"))
        .args(["explain", "service"])
        .args(args)
        .env_clear()
        .env("CONSUL_HTTP_ADDR", format!("127.0.0.1:{}", fleet.cluster.servers[place].http))
        .output()
        .expect("the program runs");
    (output.status.code().expect("an exit code"), String::from_utf8_lossy(&output.stdout).into_owned())
}

#[test]
fn an_instance_is_explained_where_it_is_and_elsewhere() {
    let mut fleet = Fleet::start(1);
    let (server, client) = (0, fleet.client);
    let service = json!({"ID": "web-1", "Name": "web", "Port": 80, "Check": {
        "CheckID": "beat", "TTL": "1h", "Status": "passing", "DeregisterCriticalServiceAfter": "2h",
    }});
    let port = fleet.cluster.servers[client].http;
    wait::until_true("a registration", SOON, || {
        let put = http::put(port, "/v1/agent/service/register", service.to_string());
        put.is_ok_and(|reply| reply.status == 200)
    });
    let here = wait::until("an instance in sync", SOON, || {
        let here = explain(&fleet, client)?;
        (here["InCatalog"] == true && here["Sync"]["Lacking"] == json!([])).then_some(here)
    });
    assert_eq!((&here["Owner"]["Here"], &here["Sync"]["Source"]), (&json!(true), &json!("remote")));
    assert!(here["Sync"]["LastSyncSecondsAgo"].is_u64(), "{here}");
    assert_eq!(
        (&here["Answers"]["DNS"]["Included"], &here["Answers"]["Passing"]["Included"]),
        (&json!(true), &json!(true))
    );
    let why =
        |shown: &Value, place: usize| shown["Removal"][place]["Why"].as_str().unwrap_or_default().to_owned();
    assert_eq!(here["Removal"][0]["What"], "turns critical");
    assert!(
        here["Removal"][0]["InSeconds"].as_u64().is_some_and(|left| (3000..=3600).contains(&left)),
        "{here}"
    );
    assert!(why(&here, 1).contains("critical for 2h0m0s (it is not now)"), "{here}");

    let path = "/v1/agent/check/fail/beat?note=gone";
    assert!(http::put(port, path, String::new()).is_ok_and(|reply| reply.status == 200));
    let there = wait::until("the catalog's word for it", SOON, || {
        let there = explain(&fleet, server)?;
        (there["Answers"]["Passing"]["Included"] == false).then_some(there)
    });
    assert_eq!((&there["Owner"]["Here"], &there["Owner"]["Status"]), (&json!(false), &json!("alive")));
    assert_eq!((&there["Sync"], &there["Answers"]["DNS"]["Why"]), (&Value::Null, &json!("beat is critical")));
    let here = explain(&fleet, client).expect("an answer");
    let going = here["Removal"].as_array().expect("a list").iter().find(|it| it["What"] == "is deregistered");
    assert!(going.is_some_and(|it| it["InSeconds"].as_u64().is_some_and(|left| left > 7000)), "{here}");
    let (code, text) = told(&fleet, client, &["web"]);
    assert!(code == 0 && text.contains("this agent\n") && text.contains("critical beat, decides"), "{text}");
    let (code, text) = told(&fleet, client, &["-format=json", "web", "web-1"]);
    assert!(code == 0 && serde_json::from_str::<Value>(&text).is_ok(), "{text}");
    assert_eq!(told(&fleet, server, &["no-such-service"]).0, 1);

    fleet.cluster.servers[client].kill();
    let failed = wait::until("a failed owner", SOON, || {
        let there = explain(&fleet, server)?;
        (there["Owner"]["Status"] == "failed").then_some(there)
    });
    let reap = failed["Removal"].as_array().expect("a list").iter();
    let reap = reap.filter(|it| it["What"] == "is deregistered with its node").collect::<Vec<_>>();
    assert!(reap.len() == 1 && reap[0]["InSeconds"].as_u64().is_some_and(|left| left > 200_000), "{failed}");
    let (code, text) = told(&fleet, server, &["web", "web-1"]);
    assert!(
        code == 0 && text.contains(", failed for ") && text.contains("is reaped after 72h0m0s"),
        "{text}"
    );
}
