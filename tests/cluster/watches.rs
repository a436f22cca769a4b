//! Watches and remote execution over a cluster: each change once, while leaders die and servers are started anew.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};

use super::harness::{Cluster, SOON};
use super::support::http;
use super::support::process::{self, Process};
use super::support::wait;

/// A client agent, started.
fn client(cluster: &mut Cluster, extra: &Value) -> usize {
    let place = cluster.add();
    let mut config = json!({"server": false});
    config.as_object_mut().expect("an object").extend(extra.as_object().expect("an object").clone());
    cluster.configure(place, &config);
    cluster.servers[place].start();
    wait::until_true("the client reaches a server", SOON, || {
        cluster.servers[place].get("/v1/catalog/nodes").is_some()
    });
    place
}

/// The values that were told, from a file of lines of JSON; null is an empty one.
fn values(path: &Path) -> Vec<String> {
    use base64::Engine;
    let text = fs::read_to_string(path).unwrap_or_default();
    let whole = text.rfind('\n').map_or("", |end| &text[..end]);
    let value = |line: &str| {
        let row: Value = serde_json::from_str(line).expect("JSON");
        let coded = row["Value"].as_str().unwrap_or_default().to_owned();
        let bytes = base64::engine::general_purpose::STANDARD.decode(coded).expect("base64");
        String::from_utf8(bytes).expect("text")
    };
    whole.lines().map(value).collect()
}

/// `muster watch` of a key, its child adding what it is told to a file.
fn command(folder: &Path, name: &str, http: u16) -> (Process, PathBuf) {
    let path = folder.join(name);
    let mut command = Command::new(process::binary());
    let address = format!("-http-addr=127.0.0.1:{http}");
    let script = format!("cat >> {}", path.display());
    command.args(["watch", &address, "-type=key", "-key=k", &script]);
    (Process::spawn(folder, command).expect("starting a watch"), path)
}

#[test]
fn each_change_is_told_once_while_leaders_die() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let by_client = folder.path().join("by-client");
    let mut cluster = Cluster::start(3);
    let script = format!("cat >> {}", by_client.display());
    let client = client(
        &mut cluster,
        &json!({
            "watches": [{"type": "key", "key": "k", "args": ["/bin/sh", "-c", script]}],
        }),
    );
    let (_at_client, first) = command(folder.path(), "first", cluster.servers[client].http);
    let (_at_server, second) = command(folder.path(), "second", cluster.servers[0].http);
    let files = [by_client, first, second];
    let mut due = vec![String::new()];
    let await_due = |due: &Vec<String>| {
        for path in &files {
            wait::until_true(&format!("{due:?} in {}: {:?}", path.display(), values(path)), SOON, || {
                values(path).len() >= due.len()
            });
            assert_eq!(values(path), *due, "{}", path.display());
        }
    };
    await_due(&due);
    let mut turn = 0;
    for _ in 0..3 {
        for _ in 0..3 {
            turn += 1;
            let value = format!("v{turn}");
            cluster.servers[client].put("k", &value);
            due.push(value);
            await_due(&due);
            // What has nothing to do with it.
            cluster.servers[client].put(&format!("other/{turn}"), "x");
        }
        let leader = cluster.await_leader();
        cluster.servers[leader].kill();
        turn += 1;
        let value = format!("v{turn}");
        cluster.servers[client].put("k", &value);
        due.push(value);
        if leader != 0 {
            await_due(&due);
        }
        cluster.servers[leader].start();
        cluster.await_leader();
        await_due(&due);
    }
    assert_eq!(due.len(), 13);
}

#[test]
fn a_command_runs_on_all_nodes_that_allow_it() {
    let extra = json!({"disable_remote_exec": false});
    let mut cluster = Cluster::new(3, &extra);
    (0..3).for_each(|place| cluster.servers[place].start());
    cluster.await_leader();
    let willing = client(&mut cluster, &extra);
    let refusing = client(&mut cluster, &json!({}));
    wait::until_true("all are members", SOON, || cluster.servers[willing].members().len() == 5);
    // The leader enters what it sees in the pool a moment later, and a session lives on a node that is entered.
    wait::until_true("all are in the catalog", SOON, || {
        let nodes = cluster.servers[willing].get("/v1/catalog/nodes").map(|reply| reply.json());
        nodes.and_then(|nodes| nodes.as_array().map(Vec::len)) == Some(5)
    });
    let run = |place: usize, args: &[&str]| {
        let address = format!("-http-addr=127.0.0.1:{}", cluster.servers[place].http);
        let output = Command::new(process::binary()).arg("exec").arg(address).args(args).output();
        let output = output.expect("running exec");
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        (output.status.code(), text(&output.stdout), text(&output.stderr))
    };
    let (code, out, err) = run(willing, &["-verbose", "-wait=4s", "echo one; echo two >&2"]);
    assert_eq!(code, Some(0), "{out}{err}");
    for name in ["s0", "s1", "s2", "s3"] {
        for line in [
            format!("==> {name}: acknowledged"),
            format!("    {name}: one"),
            format!("    {name}: two"),
            format!("==> {name}: finished with exit code 0"),
        ] {
            assert!(out.contains(&line), "{line} missing in {out}");
        }
    }
    assert!(!out.contains("s4:") && out.contains("4 / 4 node(s) completed / acknowledged"), "{out}");
    wait::until_true("who refuses says so", SOON, || {
        cluster.servers[refusing].log().contains("ignoring remote exec event, disabled.")
    });

    // One node alone, a script, a bad end, more output than goes into one key.
    let script = "-shell=false";
    let (code, out, err) = run(0, &["-node=^s3$", "-wait=4s", script, "/bin/sh", "-c", "seq 1 5000; exit 3"]);
    assert_eq!(code, Some(2), "{out}{err}");
    let numbers: Vec<u32> =
        out.lines().filter_map(|line| line.strip_prefix("    s3: ")?.parse().ok()).collect();
    assert!(numbers.len() > 4900 && out.contains("==> s3: finished with exit code 3"), "{}", numbers.len());

    // Who says a little all the time is heard of, and not given up.
    let script = "for i in 1 2 3 4 5 6 7 8; do echo line $i; sleep 0.3; done";
    let (code, out, err) = run(willing, &["-node=^s0$", "-wait=900ms", script]);
    assert_eq!(code, Some(0), "{out}{err}");
    assert!((1..=8).all(|line| out.contains(&format!("    s0: line {line}"))), "{out}");

    let (code, _, err) = run(willing, &["-prefix=/x", "true"]);
    assert_eq!(code, Some(1));
    assert!(
        err.contains("Failed to create job file: Invalid key. Key must not begin with a '/': /x/"),
        "{err}"
    );

    // It leaves nothing behind, and its events are nobody else's.
    let left = http::get(cluster.servers[0].http, "/v1/kv/_rexec?keys").expect("an answer");
    assert_eq!(left.status, 404, "{}", left.text());
    assert_eq!(cluster.servers[0].ask("/v1/session/list"), json!([]));
    assert_eq!(cluster.servers[0].ask("/v1/event/list"), json!([]));
}
