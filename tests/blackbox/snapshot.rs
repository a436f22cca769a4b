//! Archives of the whole state: saved, restored and refused, by our commands and by those of Consul.

use std::process::{Command, Output};

use serde_json::{Value, json};

use super::agent::{Agent, SOON};
use super::support::http::{self, Connection, Request};
use super::support::{process, wait};

/// Runs a command against the agent.
fn run(program: &str, agent: &Agent, args: &[&str]) -> std::io::Result<Output> {
    let address = format!("127.0.0.1:{}", agent.ports.http);
    Command::new(program).args(args).current_dir(agent.folder()).env("CONSUL_HTTP_ADDR", address).output()
}

/// Runs one of our commands, which must succeed.
fn muster(agent: &Agent, args: &[&str]) -> String {
    let program = process::binary();
    let output = run(&program.to_string_lossy(), agent, args).expect("our own program runs");
    assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn keys(agent: &Agent) -> Value {
    agent.get("/v1/kv/?keys").json()
}

fn put_key(agent: &Agent, key: &str, value: &str) {
    let reply = http::put(agent.ports.http, &format!("/v1/kv/{key}"), value).expect("a reply");
    assert_eq!(reply.text().trim(), "true");
}

#[test]
fn a_restore_brings_back_what_was_saved_and_wakes_all_who_wait() {
    let agent = Agent::dev(json!({}));
    put_key(&agent, "kept", "1");
    put_key(&agent, "tree/a", &"x".repeat(300_000));
    let saved = muster(&agent, &["snapshot", "save", "a.snap"]);
    assert!(saved.starts_with("Saved and verified snapshot to index "), "{saved}");
    put_key(&agent, "later", "2");
    http::put(agent.ports.http, "/v1/kv/kept", "changed").expect("a reply");
    agent.put("/v1/agent/service/register", &json!({"Name": "web", "Port": 80}));
    wait::until_true("web is in the catalog", SOON, || {
        agent.get("/v1/catalog/service/web").json() != json!([])
    });

    let mut waiting = Connection::open(agent.ports.http).expect("a connection");
    let before = waiting.exchange(&Request::new("GET", "/v1/kv/nothing/here")).expect("a reply").index();
    let blocking = format!("/v1/kv/nothing/here?index={before}&wait=120s");
    waiting.send(&Request::new("GET", &blocking)).expect("sending a blocking query");
    assert_eq!(muster(&agent, &["snapshot", "restore", "a.snap"]), "Restored snapshot\n");
    let woken = waiting.receive("GET").expect("it is woken");
    assert!((woken.status, woken.index() > before) == (404, true), "{} after {before}", woken.index());
    assert_eq!(keys(&agent), json!(["kept", "tree/a"]));
    assert_eq!(agent.get("/v1/kv/kept?raw").text(), "1");
    assert_eq!(agent.get("/v1/kv/tree/a?raw").text().len(), 300_000);
    assert!(agent.get("/v1/kv/kept").index() >= woken.index(), "no index goes back");
    // The archive knows nothing of the service; its agent does, and says so again when it next compares.
    assert_eq!(agent.get("/v1/catalog/service/web").json(), json!([]));
    put_key(&agent, "after", "3");
    assert!(agent.get("/v1/kv/after").index() > woken.index());
}

#[test]
fn a_damaged_archive_changes_nothing() {
    let agent = Agent::dev(json!({}));
    put_key(&agent, "a", "1");
    muster(&agent, &["snapshot", "save", "good.snap"]);
    put_key(&agent, "b", "1");
    let index = agent.get("/v1/kv/?recurse").index();
    let good = std::fs::read(agent.folder().join("good.snap")).expect("the saved file");
    let half = good.len() / 2;
    let mut flipped = good.clone();
    flipped[half] ^= 0x40;
    for damaged in [&good[..half], &flipped, b"", b"not a snapshot"] {
        let reply = http::put(agent.ports.http, "/v1/snapshot", damaged).expect("a reply");
        assert_eq!(reply.status, 500, "{}", reply.text());
    }
    assert_eq!(keys(&agent), json!(["a", "b"]));
    assert_eq!(agent.get("/v1/kv/?recurse").index(), index, "nothing was written");
}

/// Bytes that cannot be packed, in hexadecimal digits.
fn noise(seed: u64, length: usize) -> String {
    let mut state = seed | 1;
    let mut word = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        format!("{state:016x}")
    };
    std::iter::from_fn(|| Some(word())).take(length / 16).collect()
}

/// It goes through a file without a name, a MiB at a time, and the rest of it with the last piece.
#[test]
fn an_archive_that_is_too_large_for_memory_is_restored() {
    let agent = Agent::server(json!({}));
    for number in 0..20 {
        put_key(&agent, &format!("a/{number}"), &noise(number + 1, 400_000));
    }
    muster(&agent, &["snapshot", "save", "a.snap"]);
    let archive = std::fs::read(agent.folder().join("a.snap")).expect("the saved file");
    assert!(archive.len() > 3 << 20, "{}", archive.len());
    let before = keys(&agent);
    put_key(&agent, "gone", "1");
    let mut flipped = archive.clone();
    flipped[archive.len() - (1 << 20)] ^= 0x40;
    let mut one = Connection::open(agent.ports.http).expect("a connection");
    for (archive, status) in [(&flipped, 500), (&archive, 200), (&archive, 200)] {
        let restored =
            one.exchange(&Request::new("PUT", "/v1/snapshot").body(archive.clone())).expect("a reply");
        assert_eq!(restored.status, status, "{}", restored.text());
    }
    assert_eq!(keys(&agent), before);
    assert_eq!(agent.get("/v1/kv/a/7?raw").text(), noise(8, 400_000));
}

/// The log's own snapshots and its entries carry on what a restore began: rows, and an index ahead of the log's.
#[test]
fn a_restored_state_survives_restarts() {
    let mut agent = Agent::server(json!({"raft_snapshot_threshold": 50, "raft_snapshot_interval": "10ms"}));
    for number in 0..200 {
        put_key(&agent, &format!("a/{number}"), "1");
    }
    muster(&agent, &["snapshot", "save", "a.snap"]);
    put_key(&agent, "gone", "1");
    muster(&agent, &["snapshot", "restore", "a.snap"]);
    let restored = agent.get("/v1/kv/a/7").index();
    for round in 0..3 {
        for number in 0..60 {
            put_key(&agent, &format!("b/{round}/{number}"), "1");
        }
        let before = (keys(&agent), agent.get("/v1/kv/?recurse").text());
        agent = agent.restart();
        assert_eq!((keys(&agent), agent.get("/v1/kv/?recurse").text()), before);
        assert!(agent.get("/v1/kv/a/7").index() >= restored);
    }
    assert!(agent.process.log().contains("snapshot at index"), "the log took snapshots of its own");
}

/// `MUSTER_CONSUL` names Consul's program where it is not in the path.
#[test]
fn consul_s_own_commands_save_inspect_and_restore() {
    let agent = Agent::dev(json!({}));
    let program = std::env::var("MUSTER_CONSUL").unwrap_or_else(|_| "consul".into());
    put_key(&agent, "a", "1");
    let consul = |args: &[&str]| -> Option<String> {
        match run(&program, &agent, args) {
            Ok(output) if output.status.success() => {
                Some(String::from_utf8_lossy(&output.stdout).into_owned())
            }
            Ok(output) => panic!("{args:?}: {}", String::from_utf8_lossy(&output.stderr)),
            Err(error) => {
                eprintln!("skipped: {program} cannot run here: {error}");
                None
            }
        }
    };
    let Some(saved) = consul(&["snapshot", "save", "a.snap"]) else { return };
    assert!(saved.starts_with("Saved and verified snapshot to index "), "{saved}");
    let theirs = consul(&["snapshot", "inspect", "a.snap"]).expect("it ran a moment ago");
    let ours = muster(&agent, &["snapshot", "inspect", "a.snap"]);
    assert!(ours.starts_with(&theirs), "{ours}\nbut Consul says\n{theirs}");
    put_key(&agent, "b", "1");
    assert_eq!(consul(&["snapshot", "restore", "a.snap"]).as_deref(), Some("Restored snapshot\n"));
    assert_eq!(keys(&agent), json!(["a"]));
}
