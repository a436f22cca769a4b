//! A blocking query wakes for a change of its own answer, and for nothing else.

use std::time::Duration;

use serde_json::{Value, json};

use super::agent::Agent;
use super::support::http::{Connection, Reply, Request};

const WATCHERS: usize = 50;
const WRITES: usize = 2000;
/// An answer to a waiting client is on its way within milliseconds.
const WAKE_LIMIT: Duration = Duration::from_secs(5);

struct Watcher {
    connection: Connection,
    index: u64,
}

/// Parks a query for `path` behind its present index.
fn park(agent: &Agent, path: &str) -> Watcher {
    let mut connection = Connection::open(agent.ports.http).expect("a connection");
    let index = connection.exchange(&Request::new("GET", path)).expect("a reply").index();
    let joint = if path.contains('?') { '&' } else { '?' };
    let blocking = Request::new("GET", &format!("{path}{joint}index={index}&wait=120s"));
    connection.send(&blocking).expect("sending a blocking query");
    Watcher { connection, index }
}

fn silent(watchers: &mut [(String, Watcher)]) {
    let woken: Vec<&str> = watchers
        .iter_mut()
        .filter_map(|(path, watcher)| (!watcher.connection.is_silent()).then_some(path.as_str()))
        .collect();
    assert!(woken.is_empty(), "woken by writes that do not concern them: {woken:?}");
}

fn woken(watcher: &mut Watcher) -> Reply {
    let reply = watcher.connection.receive("GET").expect("the watcher is answered");
    assert!(reply.index() > watcher.index, "index {} after {}", reply.index(), watcher.index);
    reply
}

#[test]
fn unrelated_writes_wake_nobody() {
    let agent = Agent::dev(json!({}));
    for number in 0..WATCHERS {
        agent.put(&format!("/v1/kv/watched/{number}"), &json!(0));
    }
    agent.put("/v1/agent/service/register", &json!({"Name": "web", "Port": 80}));
    let mut paths: Vec<String> = (0..WATCHERS).map(|number| format!("/v1/kv/watched/{number}")).collect();
    paths.push("/v1/kv/watched/?recurse".into());
    paths.push("/v1/health/service/web".into());
    paths.push("/v1/catalog/service/web".into());
    paths.push("/v1/health/service/web?passing".into());
    // The registration above may still be on its way into the catalog.
    super::support::wait::until_true("web is in the catalog", super::agent::SOON, || {
        agent.get("/v1/catalog/service/web").json() != json!([])
    });
    let mut watchers: Vec<(String, Watcher)> =
        paths.into_iter().map(|path| (path.clone(), park(&agent, &path))).collect();

    let mut writer = Connection::open(agent.ports.http).expect("a connection");
    for number in 0..WRITES {
        let request = match number % 4 {
            0 => register("other", number),
            _ => Request::new("PUT", &format!("/v1/kv/noise/{}", number % 100)).body(number.to_string()),
        };
        let reply = writer.exchange(&request).expect("a reply to a write");
        assert_eq!(reply.status, 200, "{}", reply.text());
    }
    silent(&mut watchers);

    // Each is answered for its own write, and only for that.
    let (path, mut first) = watchers.remove(7);
    agent.put(&path, &json!("changed"));
    assert_eq!(woken(&mut first).json()[0]["Value"], "ImNoYW5nZWQi");
    let at = watchers.iter().position(|(path, _)| path.contains("recurse")).expect("it is parked");
    assert_eq!(woken(&mut watchers.remove(at).1).json().as_array().map(Vec::len), Some(WATCHERS));
    silent(&mut watchers);
    agent.put("/v1/agent/service/register", &json!({"Name": "web", "Port": 81}));
    for (path, mut watcher) in watchers.split_off(WATCHERS - 1) {
        let start = std::time::Instant::now();
        let reply = woken(&mut watcher);
        assert!(reply.text().contains("81"), "{path}: {}", reply.text());
        assert!(start.elapsed() < WAKE_LIMIT, "{path} took {:?}", start.elapsed());
    }
    silent(&mut watchers);
}

/// A write to the catalog under another node and service.
fn register(service: &str, port: usize) -> Request {
    let body: Value = json!({"Node": "elsewhere", "Address": "10.0.0.9", "Service": {"Service": service, "Port": port % 60_000 + 1}});
    Request::new("PUT", "/v1/catalog/register").body(body.to_string())
}
