//! The pool of servers and clients: who joins, dies, leaves, comes back; keys and events.

use std::time::Duration;

use serde_json::{Value, json};

use super::harness::{Cluster, SOON};
use super::support::http::{self, Reply, Request};
use super::support::wait;

/// A key, as operators write it, and another one.
const OLD_KEY: &str = "Z29sZGVuLWtleXJpbmc9PQ==";
const NEW_KEY: &str = "Z29sZGVuLWtleXJpbmctMg==";

/// One more agent, a client, not started.
fn client(cluster: &mut Cluster, extra: &Value) -> usize {
    let place = cluster.add();
    let mut config = json!({"server": false});
    let fields = config.as_object_mut().expect("an object");
    fields.extend(extra.as_object().expect("an object").clone());
    cluster.configure(place, &config);
    place
}

/// A member as an agent sees it.
fn seen(cluster: &Cluster, by: usize, name: &str) -> Option<Value> {
    let members = cluster.servers[by].get("/v1/agent/members?evidence")?.json();
    members.as_array()?.iter().find(|member| member["Name"] == name).cloned()
}

fn await_status(cluster: &Cluster, by: usize, name: &str, status: i64) {
    wait::until_true(&format!("{name} is {status} to s{by}"), SOON, || {
        seen(cluster, by, name).is_some_and(|member| member["Status"] == status)
    });
}

fn ask(cluster: &Cluster, place: usize, method: &str, path: &str, body: &str) -> Reply {
    Request::new(method, path).body(body.to_owned()).send(cluster.servers[place].http).expect("an answer")
}

#[test]
fn who_dies_has_failed_with_evidence_and_may_be_forced_out() {
    let mut cluster = Cluster::start(3);
    let client = client(&mut cluster, &json!({}));
    cluster.servers[client].start();
    let name = cluster.servers[client].name.clone();
    (0..=client).for_each(|by| await_status(&cluster, by, &name, 1));
    cluster.servers[client].kill();
    for by in 0..3 {
        await_status(&cluster, by, &name, 4);
        let evidence = seen(&cluster, by, &name).expect("a member")["Evidence"].clone();
        assert!(evidence["DeclaredBy"].is_string() && evidence["SuspectedBy"].is_string(), "{evidence}");
        let log = cluster.servers[by].log();
        assert!(log.contains(&format!("serf: EventMemberFailed: {name} 127.0.0.1")), "{log}");
        assert!(log.contains(&format!("Marking {name} as failed: declared_by=")), "{log}");
    }
    let unknown = ask(&cluster, 0, "PUT", "/v1/agent/force-leave/nobody", "");
    assert_eq!((unknown.status, unknown.text().as_str()), (500, "agent: No node found with name 'nobody'"));
    assert_eq!(ask(&cluster, 0, "PUT", &format!("/v1/agent/force-leave/{name}"), "").status, 200);
    (0..3).for_each(|by| await_status(&cluster, by, &name, 3));
    assert_eq!(ask(&cluster, 1, "PUT", &format!("/v1/agent/force-leave/{name}?prune"), "").status, 200);
    for by in 0..3 {
        wait::until_true("it is forgotten", SOON, || seen(&cluster, by, &name).is_none());
    }
    // Its own word brings it back.
    cluster.servers[client].start();
    (0..=client).for_each(|by| await_status(&cluster, by, &name, 1));
}

#[test]
fn a_member_finds_the_others_again_unless_it_left() {
    let mut cluster = Cluster::start(1);
    let client = client(&mut cluster, &json!({"retry_join": [], "skip_leave_on_interrupt": true}));
    cluster.servers[client].start();
    let name = cluster.servers[client].name.clone();
    wait::until_true("the client answers", SOON, || cluster.servers[client].get("/v1/agent/self").is_some());
    let address = format!("127.0.0.1:{}", cluster.servers[0].serf_lan);
    assert_eq!(ask(&cluster, client, "PUT", &format!("/v1/agent/join/{address}"), "").status, 200);
    await_status(&cluster, 0, &name, 1);
    let snapshot = cluster.servers[client].data_folder().join("serf/local.snapshot");
    wait::until_true("what it remembers", SOON, || {
        std::fs::read_to_string(&snapshot).is_ok_and(|text| text.contains(&format!("alive: s0 {address}")))
    });

    cluster.servers[client].kill();
    await_status(&cluster, 0, &name, 4);
    cluster.servers[client].start();
    await_status(&cluster, 0, &name, 1);
    await_status(&cluster, client, "s0", 1);

    assert_eq!(ask(&cluster, client, "PUT", "/v1/agent/leave", "").status, 200);
    cluster.servers[client].await_end();
    await_status(&cluster, 0, &name, 3);
    let kept = std::fs::read_to_string(&snapshot).expect("what it remembers");
    assert!(kept.contains("\nleave\n"), "who left does not look for the others: {kept}");
}

#[test]
fn keys_are_changed_while_all_run() {
    let sealed = json!({"encrypt": OLD_KEY});
    let mut cluster = Cluster::new(3, &sealed);
    (0..3).for_each(|place| cluster.servers[place].start());
    cluster.await_leader();
    let member = client(&mut cluster, &sealed);
    cluster.servers[member].start();
    (0..=member).for_each(|by| await_status(&cluster, by, "s3", 1));
    let key = |key: &str| json!({ "Key": key }).to_string();
    for (method, which) in [("POST", NEW_KEY), ("PUT", NEW_KEY), ("DELETE", OLD_KEY)] {
        let done = ask(&cluster, 0, method, "/v1/operator/keyring", &key(which));
        assert_eq!(done.status, 200, "{method}: {}", done.text());
    }
    let listed = cluster.servers[1].ask("/v1/operator/keyring?local-only=true");
    assert_eq!((&listed[0]["Keys"], &listed[0]["NumNodes"]), (&json!({NEW_KEY: 4}), &json!(4)));
    let kept = std::fs::read_to_string(cluster.servers[member].data_folder().join("serf/local.keyring"));
    assert!(kept.is_ok_and(|kept| kept.contains(NEW_KEY) && !kept.contains(OLD_KEY)));

    // It was configured with a key that is gone; its keyring knows better.
    cluster.servers[member].kill();
    cluster.servers[2].kill();
    cluster.servers[member].start();
    cluster.servers[2].start();
    cluster.await_leader();
    (0..=member).for_each(|by| await_status(&cluster, by, "s3", 1));
    for config in [json!({"encrypt": OLD_KEY}), json!({})] {
        let stranger = client(&mut cluster, &config);
        cluster.servers[stranger].start();
        wait::until_true("the stranger has tried", SOON, || {
            cluster.servers[stranger].log().contains("only this agent itself has answered, will retry")
        });
        let name = cluster.servers[stranger].name.clone();
        assert!(seen(&cluster, 0, &name).is_none() && seen(&cluster, stranger, "s0").is_none());
    }
}

#[test]
fn events_reach_those_who_heed_them() {
    let mut cluster = Cluster::start(1);
    let service = json!({"services": [{"name": "web", "tags": ["blue"]}]});
    let web = client(&mut cluster, &service);
    let idle = client(&mut cluster, &json!({}));
    for place in [web, idle] {
        cluster.servers[place].start();
        let name = cluster.servers[place].name.clone();
        await_status(&cluster, 0, &name, 1);
    }
    let fire = |path: &str| {
        let fired = wait::until("a fired event", SOON, || {
            let fired = http::put(cluster.servers[idle].http, path, "now").ok()?;
            (fired.status == 200).then_some(fired)
        });
        fired.json()["ID"].clone()
    };
    let path = "/v1/event/list?name=deploy";
    assert_eq!(cluster.servers[web].ask(path), json!([]));
    let index = "1";
    let waiting = std::thread::spawn({
        let (port, path) = (cluster.servers[web].http, format!("{path}&index={index}&wait=60s"));
        move || http::get(port, &path).expect("an answer").json()
    });
    let id = fire("/v1/event/fire/deploy?service=we.&tag=bl");
    let heard = waiting.join().expect("no panic");
    assert_eq!(
        (heard.as_array().map(Vec::len), &heard[0]["ID"], &heard[0]["Payload"]),
        (Some(1), &id, &json!("bm93"))
    );
    let all = fire("/v1/event/fire/all");
    wait::until_true("what all heed", SOON, || cluster.servers[idle].ask("/v1/event/list")[0]["ID"] == all);
    assert_eq!(cluster.servers[idle].ask(path), json!([]), "it has no such service");
}

#[test]
fn two_of_one_name_are_both_named() {
    let mut cluster = Cluster::start(1);
    let first = client(&mut cluster, &json!({"node_name": "twin"}));
    cluster.servers[first].start();
    await_status(&cluster, 0, "twin", 1);
    let second = client(&mut cluster, &json!({"node_name": "twin"}));
    cluster.servers[second].start();
    wait::until_true("the conflict in both logs", SOON, || {
        let refused = cluster.servers[second].log();
        cluster.servers[0].log().contains("Name conflict for 'twin'") && refused.contains("twin")
    });
    let log = cluster.servers[0].log();
    let line = log.lines().find(|line| line.contains("Name conflict for 'twin'")).unwrap_or_default();
    let addresses = [first, second].map(|place| format!("127.0.0.1:{}", cluster.servers[place].serf_lan));
    assert!(addresses.iter().all(|address| line.contains(address.as_str())), "{line}");
    assert_eq!(
        seen(&cluster, 0, "twin").map(|twin| twin["Port"].clone()),
        Some(json!(cluster.servers[first].serf_lan))
    );
}

/// Who had found one other looked for nobody else any more, and two halves of a pool never met.
#[test]
fn who_was_not_there_at_the_start_is_found_later() {
    let mut cluster = Cluster::new(0, &json!({}));
    let places = [cluster.add(), cluster.add(), cluster.add()];
    for place in places {
        cluster.configure(place, &json!({"server": false, "retry_interval": "1s"}));
    }
    cluster.configure(2, &json!({"server": false, "retry_join": []}));
    (0..2).for_each(|place| cluster.servers[place].start());
    await_status(&cluster, 0, "s1", 1);
    cluster.servers[2].start();
    for by in places {
        await_status(&cluster, by, &format!("s{}", (by + 2) % 3), 1);
    }
}

#[test]
fn an_event_is_not_told_again_after_a_restart() {
    for killed in [true, false] {
        let mut cluster = Cluster::start(1);
        let client = client(&mut cluster, &json!({"skip_leave_on_interrupt": true}));
        cluster.servers[client].start();
        let name = cluster.servers[client].name.clone();
        await_status(&cluster, 0, &name, 1);
        // What is written of the member that came is written by then.
        std::thread::sleep(Duration::from_secs(4));
        let fired = ask(&cluster, 0, "PUT", "/v1/event/fire/deploy", "");
        assert_eq!(fired.status, 200);
        wait::until_true("the event", SOON, || {
            cluster.servers[client].ask("/v1/event/list").as_array().is_some_and(|all| all.len() == 1)
        });
        if killed {
            let heard = cluster.servers[client].ask("/v1/event/list")[0]["LTime"].clone();
            let snapshot = cluster.servers[client].data_folder().join("serf/local.snapshot");
            wait::until_true("its time in the file", Duration::from_secs(10), || {
                let line = format!("\nevent-clock: {heard}\n");
                std::fs::read_to_string(&snapshot).is_ok_and(|text| text.contains(&line))
            });
            cluster.servers[client].kill();
        } else {
            cluster.servers[client].signal(2);
            cluster.servers[client].await_end();
        }
        cluster.servers[client].start();
        await_status(&cluster, client, "s0", 1);
        std::thread::sleep(Duration::from_secs(2));
        assert_eq!(cluster.servers[client].ask("/v1/event/list"), json!([]), "killed: {killed}");
    }
}
