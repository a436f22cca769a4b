//! What operators do to a cluster and what it does by itself: the lead handed over, dead servers removed and taken in again,
//! servers that do not vote, a lost majority revived.

use std::process::Command;
use std::time::Duration;

use serde_json::{Value, json};

use super::harness::{Cluster, SOON, Server};
use super::support::http::{self, Request};
use super::support::{process, wait};

/// Dead servers are looked for every ten seconds, after they are known to have failed.
const PRUNED: Duration = Duration::from_secs(60);

/// Runs `muster` against a server; its output if it succeeds.
fn muster(server: &Server, words: &[&str]) -> Result<String, String> {
    let mut command = Command::new(process::binary());
    command.args(words).env("CONSUL_HTTP_ADDR", format!("127.0.0.1:{}", server.http));
    let output = command.output().expect("running a command");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    if output.status.success() { Ok(text(&output.stdout)) } else { Err(text(&output.stderr)) }
}

/// The row of a server in `raft/configuration`, as another one answers it.
fn row(asked: &Server, name: &str) -> Option<Value> {
    let configuration = asked.ask("/v1/operator/raft/configuration");
    let servers = configuration["Servers"].as_array().expect("a list").clone();
    servers.into_iter().find(|server| server["Node"] == name)
}

fn health(server: &Server) -> Option<(u16, Value)> {
    let reply = http::get(server.http, "/v1/operator/autopilot/health").ok()?;
    let known = matches!(reply.status, 200 | 429);
    known.then(|| (reply.status, reply.json()))
}

/// New servers vote soon.
fn impatient() -> Value {
    json!({"autopilot": {"server_stabilization_time": "1s"}})
}

fn started(count: usize, extra: &Value) -> Cluster {
    let mut cluster = Cluster::new(count, extra);
    (0..count).for_each(|place| cluster.servers[place].start());
    cluster.await_leader();
    cluster
}

#[test]
fn the_lead_is_handed_over_from_any_server_to_any() {
    let mut cluster = Cluster::start(3);
    let leader = cluster.await_leader();
    let (asked, heir) = ((leader + 1) % 3, (leader + 2) % 3);
    let id = row(&cluster.servers[asked], &cluster.servers[heir].name).expect("the heir")["ID"].clone();
    let id = format!("-id={}", id.as_str().expect("an ID"));
    let done = muster(&cluster.servers[asked], &["operator", "raft", "transfer-leader", &id]);
    assert_eq!(done.as_deref(), Ok("Success\n"));
    assert_eq!(cluster.await_leader(), heir);
    assert_eq!(
        muster(&cluster.servers[heir], &["operator", "raft", "transfer-leader"]),
        Ok("Success\n".into())
    );
    assert_ne!(cluster.await_leader(), heir);
    cluster.servers[asked].put("w/a", "value");

    let tables: Vec<_> = cluster
        .servers
        .iter()
        .map(|server| muster(server, &["operator", "raft", "list-peers"]).expect("a table"))
        .collect();
    assert!(tables.iter().all(|table| *table == tables[0]), "all servers tell the same: {tables:?}");
    assert_eq!(tables[0].matches(" leader ").count(), 1, "{}", tables[0]);
    let unknown =
        muster(&cluster.servers[asked], &["operator", "raft", "remove-peer", "-address=127.0.0.1:1"]);
    let why = unknown.expect_err("nobody is there");
    assert!(why.contains("address \"127.0.0.1:1\" was not found in the Raft configuration"), "{why}");
}

#[test]
fn a_dead_server_is_removed_and_taken_in_again() {
    let mut cluster = started(3, &impatient());
    wait::until_true("three healthy servers", SOON, || {
        health(&cluster.servers[0])
            .is_some_and(|(status, told)| status == 200 && told["FailureTolerance"] == 1)
    });
    let leader = cluster.await_leader();
    let (dead, other) = ((leader + 1) % 3, (leader + 2) % 3);
    let name = cluster.servers[dead].name.clone();
    cluster.servers[dead].kill();
    let asked = &cluster.servers[other];
    wait::until_true("the alarm", SOON, || health(asked).is_some_and(|(status, _)| status == 429));
    wait::until_true("the removal", PRUNED, || asked.voters().len() == 2);
    wait::until_true("peace", SOON, || health(asked).is_some_and(|(status, _)| status == 200));
    wait::until_true("the catalog", SOON, || {
        asked.ask("/v1/catalog/nodes").as_array().map(Vec::len) == Some(2)
    });
    asked.put("w/a", "meanwhile");

    cluster.servers[dead].start();
    let asked = &cluster.servers[other];
    wait::until_true("its vote", SOON, || asked.voters().contains(&name));
    let returned = &cluster.servers[dead];
    wait::until_true("its copy", SOON, || {
        returned.get("/v1/kv/w/a?raw&stale").is_some_and(|reply| reply.text() == "meanwhile")
    });
    wait::until_true("the catalog", SOON, || {
        asked.ask("/v1/catalog/nodes").as_array().map(Vec::len) == Some(3)
    });
}

#[test]
fn a_server_that_shall_not_vote_receives_all_and_decides_nothing() {
    let mut cluster = started(1, &impatient());
    let place = cluster.add();
    cluster.configure(place, &json!({"non_voting_server": true}));
    cluster.servers[place].start();
    cluster.servers[0].put("w/a", "value");
    let (voter, silent) = (&cluster.servers[0], &cluster.servers[place]);
    wait::until_true("its copy", SOON, || {
        silent.get("/v1/kv/w/a?raw&stale").is_some_and(|reply| reply.text() == "value")
    });
    silent.put("w/b", "forwarded");
    let counted = |state: &Value, list: &str| state[list].as_array().map_or(0, Vec::len);
    wait::until_true("its place in the state", SOON, || {
        let state = silent.ask("/v1/operator/autopilot/state");
        counted(&state, "Voters") == 1 && counted(&state, "ReadReplicas") == 1 && state["Healthy"] == true
    });
    assert_eq!(voter.voters(), [voter.name.as_str()]);
    // Without it the cluster goes on.
    cluster.servers[place].kill();
    cluster.servers[0].put("w/c", "alone");
}

#[test]
fn a_leader_that_leaves_hands_over_first() {
    let mut cluster = started(3, &json!({"performance": {"leave_drain_time": "1s"}}));
    let leader = cluster.await_leader();
    let left = cluster.servers[leader].name.clone();
    cluster.servers[leader].put("w/a", "before");
    muster(&cluster.servers[leader], &["leave"]).expect("it leaves");
    let log = cluster.servers[leader].await_end();
    assert!(log.contains("another server leads now"), "{log}");
    let heir = cluster.await_leader();
    assert_ne!(heir, leader);
    let heir = &cluster.servers[heir];
    heir.put("w/b", "after");
    wait::until_true("its removal", SOON, || heir.voters().len() == 2 && !heir.voters().contains(&left));
    wait::until_true("the catalog", SOON, || {
        heir.ask("/v1/catalog/nodes").as_array().map(Vec::len) == Some(2)
    });
}

#[test]
fn a_server_that_is_alive_can_be_removed() {
    let mut cluster = Cluster::start(3);
    let leader = cluster.await_leader();
    let (asked, removed) = ((leader + 1) % 3, (leader + 2) % 3);
    let id = row(&cluster.servers[asked], &cluster.servers[removed].name).expect("its row")["ID"].clone();
    let path = format!("/v1/operator/raft/peer?id={}", id.as_str().expect("an ID"));
    let reply = Request::new("DELETE", &path).send(cluster.servers[asked].http).expect("an answer");
    assert_eq!((reply.status, reply.text()), (200, String::new()));
    assert_eq!(cluster.servers[asked].voters().len(), 2);
    cluster.servers[asked].put("w/a", "value");
}

#[test]
fn a_lost_majority_is_revived_by_peers_json() {
    let mut cluster = Cluster::start(3);
    for n in 0..20 {
        cluster.servers[n % 3].put(&format!("w/{n}"), "value");
    }
    let kept = cluster.await_equal("w/");
    let survivor = cluster.await_leader();
    let id = row(&cluster.servers[survivor], &cluster.servers[survivor].name).expect("its row")["ID"].clone();
    cluster.servers.iter_mut().for_each(Server::kill);
    let folder = cluster.servers[survivor].data_folder().join("raft");
    assert!(folder.join("peers.info").exists(), "operators are told");
    let file = folder.join("peers.json");
    let address = format!("127.0.0.1:{}", cluster.servers[survivor].server_port);

    std::fs::write(&file, "[]").expect("writing a file");
    cluster.servers[survivor].start();
    let log = cluster.servers[survivor].await_end();
    assert!(log.contains("need at least one voter in configuration"), "{log}");

    std::fs::write(&file, json!([{"id": id, "address": address}]).to_string()).expect("writing a file");
    cluster.servers[survivor].start();
    let alone = &cluster.servers[survivor];
    alone.put("w/after", "value");
    assert_eq!(alone.voters(), [alone.name.as_str()]);
    wait::until_true("the file's end", SOON, || !file.exists());
    let copy = alone.ask("/v1/kv/w/?recurse");
    let keys = |list: &Value| list.as_array().expect("a list").len();
    assert_eq!(keys(&copy), keys(&kept) + 1);
}
