//! Restores in a cluster: all servers replace their tables at one index, or none does, whoever dies meanwhile.

use std::thread;
use std::time::Duration;

use serde_json::{Value, json};

use super::harness::{Cluster, SOON, Server};
use super::support::{http, wait};

/// Values that do not compress, enough of them for several large parts; a build for tests takes its time for each.
const KEYS: usize = 24;
const VALUE: usize = 120_000;

fn noise(seed: u64) -> Vec<u8> {
    let mut state = seed | 1;
    let mut bytes = Vec::with_capacity(VALUE);
    while bytes.len() < VALUE {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend(state.to_le_bytes());
    }
    bytes
}

/// A cluster that holds `now`, and an archive of when it held the noise.
fn prepared() -> (Cluster, Vec<u8>) {
    let mut cluster = Cluster::start(3);
    let leader = cluster.await_leader();
    for number in 0..KEYS {
        let port = cluster.servers[leader].http;
        let reply = http::put(port, &format!("/v1/kv/w/archived/{number}"), noise(number as u64 + 1));
        assert_eq!(reply.expect("a reply").text(), "true");
    }
    // From a follower: an archive is as fresh as a read.
    let archive = http::get(cluster.servers[(leader + 1) % 3].http, "/v1/snapshot").expect("an archive");
    assert_eq!(archive.status, 200, "{}", archive.text());
    let port = cluster.servers[leader].http;
    http::Request::new("DELETE", "/v1/kv/w/?recurse").send(port).expect("a reply");
    cluster.servers[leader].put("w/now", "1");
    (cluster, archive.body)
}

/// Waits until all servers hold the same, byte for byte; the keys.
fn keys(cluster: &mut Cluster) -> Value {
    wait::until("the same state on every server", SOON, || {
        cluster.check();
        let copy = |server: &Server| Some(server.get("/v1/kv/w/?recurse&stale")?.body);
        let first = copy(&cluster.servers[0])?;
        cluster.servers[1..].iter().all(|server| copy(server).as_ref() == Some(&first)).then_some(())
    });
    cluster.servers[0].ask("/v1/kv/w/?keys")
}

fn is_archive(keys: &Value) -> bool {
    let keys = keys.as_array().expect("a list");
    let whole = keys.len() == KEYS;
    assert!(whole || *keys == [json!("w/now")], "half a restore: {keys:?}");
    whole
}

#[test]
fn a_restore_through_a_follower_reaches_all() {
    let (mut cluster, archive) = prepared();
    let follower = (cluster.await_leader() + 1) % 3;
    let reply = http::put(cluster.servers[follower].http, "/v1/snapshot", archive).expect("a reply");
    assert_eq!((reply.status, reply.text().as_str()), (200, ""));
    assert!(is_archive(&keys(&mut cluster)));
    cluster.servers.iter_mut().for_each(|server| server.kill());
    cluster.servers.iter_mut().for_each(|server| server.start());
    cluster.await_leader();
    assert!(is_archive(&keys(&mut cluster)));
    cluster.servers[0].put("w/later", "1");
}

#[test]
fn a_leader_that_dies_in_a_restore_leaves_all_or_nothing() {
    let (mut cluster, archive) = prepared();
    for round in 0..4 {
        let leader = cluster.await_leader();
        let port = cluster.servers[(leader + 1) % 3].http;
        let body = archive.clone();
        let restoring = thread::spawn(move || http::put(port, "/v1/snapshot", body));
        // Somewhere in it; there is no moment at which it may go wrong.
        thread::sleep(Duration::from_millis(60 + 90 * round));
        cluster.servers[leader].kill();
        let reply = restoring.join().expect("the thread ends").expect("a reply");
        let after = cluster.await_leader();
        cluster.servers[leader].start();
        let whole = is_archive(&keys(&mut cluster));
        assert!(whole || reply.status != 200, "a confirmed restore is gone");
        // Back to the other state; a new restore is not in the way of an old one.
        let reply = wait::until("a restore", SOON, || {
            http::put(cluster.servers[after].http, "/v1/snapshot", archive.clone())
                .ok()
                .filter(|it| it.status == 200)
        });
        assert_eq!(reply.text(), "");
        assert!(is_archive(&keys(&mut cluster)));
        let leader = cluster.await_leader();
        http::Request::new("DELETE", "/v1/kv/w/?recurse")
            .send(cluster.servers[leader].http)
            .expect("a reply");
        cluster.servers[leader].put("w/now", "1");
    }
}
