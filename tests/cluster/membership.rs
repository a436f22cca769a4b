//! Who belongs to a cluster: servers that come later, that leave, that do not belong.

use serde_json::json;

use super::harness::{Cluster, SOON};
use super::support::wait;

#[test]
fn a_later_server_is_taken_in_and_catches_up() {
    let mut cluster = Cluster::start(3);
    cluster.servers[0].put("w/a", "value");
    let place = cluster.add();
    // What an operator writes who adds one: no expectation.
    cluster.configure(place, &json!({"autopilot": {"server_stabilization_time": "1s"}}));
    cluster.servers[place].start();
    wait::until_true("the new server's copy", SOON, || {
        cluster.servers[place].get("/v1/kv/w/a?raw&stale").is_some_and(|reply| reply.text() == "value")
    });
    cluster.servers[place].put("w/b", "value");
    let alive = |name: &str| (name.to_owned(), 1);
    let everybody: Vec<_> = ["s0", "s1", "s2", "s3"].map(alive).into();
    for server in &cluster.servers {
        wait::until_true("all members", SOON, || server.members() == everybody);
    }
    let ids = cluster.servers[0].ask("/v1/status/peers");
    assert!(ids.as_array().is_some_and(|peers| peers.len() >= 3), "{ids}");
}

#[test]
fn a_server_that_leaves_is_taken_out() {
    let mut cluster = Cluster::start(3);
    let leader = cluster.await_leader();
    let leaver = (leader + 1) % 3;
    super::support::http::put(cluster.servers[leaver].http, "/v1/agent/leave", "").expect("an answer");
    cluster.servers[leaver].await_end();
    let name = cluster.servers[leaver].name.clone();
    let left = (name.clone(), 3);
    for server in cluster.servers.iter().filter(|server| server.runs()) {
        wait::until_true("the news", SOON, || server.members().contains(&left));
        wait::until_true("two voters", SOON, || {
            let voters = server.voters();
            voters.len() == 2 && !voters.contains(&name)
        });
    }
    cluster.await_leader();
    cluster.servers[leader].put("w/a", "value");
}

#[test]
fn a_server_of_another_cluster_is_refused_and_told_why() {
    let mut one = Cluster::start(1);
    let mut other = Cluster::start(1);
    one.servers[0].put("w/a", "one");
    other.servers[0].put("w/a", "other");
    let address = format!("127.0.0.1:{}", other.servers[0].serf_lan);
    let path = format!("/v1/agent/join/{address}");
    let refused = super::support::http::put(one.servers[0].http, &path, "").expect("an answer");
    assert!(refused.status == 500 && refused.text().contains("bootstrapped apart"), "{}", refused.text());
    // Neither takes the other's data.
    for (cluster, value) in [(&mut one, "one"), (&mut other, "other")] {
        cluster.check();
        let read = cluster.servers[0].get("/v1/kv/w/a?raw").expect("an answer");
        assert_eq!(read.text(), value);
    }
}

#[test]
fn servers_that_expect_different_numbers_do_not_begin() {
    let mut cluster = Cluster::new(3, &json!({}));
    cluster.configure(2, &json!({"bootstrap_expect": 5}));
    cluster.servers.iter_mut().for_each(|server| server.start());
    wait::until_true("the reason in the log", SOON, || {
        cluster.servers[0]
            .log()
            .contains("Member has a conflicting expect value. All nodes should expect the same number.")
    });
    assert_eq!(cluster.servers[0].ask("/v1/status/leader"), json!(""));
}
