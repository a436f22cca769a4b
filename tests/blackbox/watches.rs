//! `watches` of the configuration: each change is told once, by programs, by the shell and over HTTP.

use std::fs;
use std::io::{BufReader, Write};
use std::net::TcpListener;
use std::path::Path;
use std::process::Command;
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use serde_json::{Value, json};

use super::agent::{self, Agent, Ports, SOON, START_LIMIT};
use super::support::http;
use super::support::process::{self, Process};
use super::support::wait;

/// A program that adds its index and what it reads to a file.
fn note(path: &Path) -> Value {
    let script = format!("echo \"$CONSUL_INDEX $(cat)\" >> {}", path.display());
    json!(["/bin/sh", "-c", script])
}

/// What was told so far: indexes and JSON.
fn told(path: &Path) -> Vec<(u64, Value)> {
    let text = fs::read_to_string(path).unwrap_or_default();
    let whole = text.rfind('\n').map_or("", |end| &text[..end]);
    let line = |line: &str| {
        let (index, json) = line.split_once(' ').expect("an index");
        (index.parse().expect("a number"), serde_json::from_str(json).expect("JSON"))
    };
    whole.lines().map(line).collect()
}

fn await_told(path: &Path, count: usize) -> Vec<(u64, Value)> {
    wait::until(&format!("{count} lines in {}", path.display()), SOON, || {
        let lines = told(path);
        (lines.len() >= count).then_some(lines)
    })
}

fn put_key(agent: &Agent, key: &str, value: &str) {
    let put = http::put(agent.ports.http, &format!("/v1/kv/{key}"), value.to_owned()).expect("an answer");
    assert_eq!((put.status, put.text().trim()), (200, "true"));
}

fn value_of(row: &Value) -> String {
    use base64::Engine;
    let bytes = base64::engine::general_purpose::STANDARD.decode(row["Value"].as_str().expect("a value"));
    String::from_utf8(bytes.expect("base64")).expect("text")
}

#[test]
fn each_type_tells_its_changes_once() {
    let folder = agent::new_folder();
    let file = |name: &str| folder.path().join(name);
    let watch = |name: &str, params: Value| {
        let mut watch = json!({"args": note(&file(name))});
        watch.as_object_mut().expect("an object").extend(params.as_object().expect("an object").clone());
        watch
    };
    // Handlers of watches are the operator's own: switches about scripts of checks do not stop them.
    let agent = Agent::dev(json!({"enable_script_checks": false, "watches": [
        watch("key", json!({"type": "key", "key": "a/b"})),
        watch("keyprefix", json!({"type": "keyprefix", "prefix": "a/"})),
        watch("services", json!({"type": "services"})),
        watch("nodes", json!({"type": "nodes"})),
        watch("service", json!({"type": "service", "service": "web", "tag": ["x"], "passingonly": true})),
        watch("checks", json!({"type": "checks", "state": "critical", "stale": true})),
        watch("event", json!({"type": "event", "name": "deploy"})),
    ]}));
    for name in ["key", "keyprefix", "services", "nodes", "service", "checks", "event"] {
        await_told(&file(name), 1);
    }
    assert_eq!((&told(&file("key"))[0].1, &told(&file("keyprefix"))[0].1), (&Value::Null, &Value::Null));
    assert_eq!(told(&file("event"))[0].1, json!([]));

    for (count, value) in ["1", "2", "3"].into_iter().enumerate() {
        put_key(&agent, "a/b", value);
        put_key(&agent, "other", value);
        let lines = await_told(&file("key"), count + 2);
        assert_eq!(value_of(&lines[count + 1].1), value);
        assert_eq!(lines[count + 1].0, lines[count + 1].1["ModifyIndex"].as_u64().expect("a number"));
        await_told(&file("keyprefix"), count + 2);
    }
    let check = json!({"TTL": "60s", "Status": "critical"});
    agent.put("/v1/agent/service/register", &json!({"Name": "web", "Tags": ["x", "y"], "Check": check}));
    agent.put("/v1/agent/service/register", &json!({"Name": "other"}));
    wait::until_true("a critical check is told", SOON, || {
        told(&file("checks")).last().is_some_and(|(_, checks)| checks[0]["CheckID"] == "service:web")
    });
    agent.put("/v1/agent/check/pass/service:web", &Value::Null);
    wait::until_true("a passing instance is told", SOON, || {
        told(&file("service")).last().is_some_and(|(_, found)| found[0]["Service"]["ID"] == "web")
    });
    wait::until_true("no critical check is told", SOON, || {
        told(&file("checks")).last().is_some_and(|(_, checks)| *checks == json!([]))
    });
    wait::until_true("both services are told", SOON, || {
        told(&file("services"))
            .last()
            .is_some_and(|(_, list)| list["web"] == json!(["x", "y"]) && list["other"] == json!([]))
    });

    for payload in ["one", "two"] {
        http::put(agent.ports.http, "/v1/event/fire/deploy", payload.to_owned()).expect("an answer");
        http::put(agent.ports.http, "/v1/event/fire/else", payload.to_owned()).expect("an answer");
        wait::until_true("the event is told", SOON, || {
            told(&file("event")).last().is_some_and(|(_, events)| {
                events.as_array().is_some_and(|events| {
                    events.last().is_some_and(|event| {
                        use base64::Engine;
                        event["Payload"] == base64::engine::general_purpose::STANDARD.encode(payload)
                    })
                })
            })
        });
    }
    // Nothing was told twice: all lines of a file differ from the ones before them.
    for name in ["key", "keyprefix", "services", "nodes", "service", "checks"] {
        let lines = told(&file(name));
        assert!(lines.windows(2).all(|pair| pair[0].1 != pair[1].1), "{name}: {lines:?}");
    }
    let events: Vec<Value> = told(&file("event"))
        .into_iter()
        .flat_map(|(_, list)| list.as_array().cloned().unwrap_or_default())
        .collect();
    assert_eq!(events.len(), 2, "{events:?}");
    assert_eq!(told(&file("key")).len(), 4);
}

#[test]
fn a_reload_adds_and_removes_watches_and_leaves_the_rest_alone() {
    let folder = agent::new_folder();
    let file = |name: &str| folder.path().join(name);
    let watch = |name: &str| json!({"type": "key", "key": "k", "args": note(&file(name))});
    let agent = Agent::dev(json!({}));
    agent.define("w.json", &json!({"watches": [watch("kept"), watch("gone")]}));
    agent.process.signal(libc::SIGHUP);
    await_told(&file("kept"), 1);
    await_told(&file("gone"), 1);

    agent.define("w.json", &json!({"watches": [watch("new"), watch("kept")]}));
    agent.process.signal(libc::SIGHUP);
    await_told(&file("new"), 1);
    put_key(&agent, "k", "x");
    await_told(&file("new"), 2);
    await_told(&file("kept"), 2);
    assert_eq!((told(&file("kept")).len(), told(&file("gone")).len()), (2, 1));

    // A mistake changes nothing.
    agent.define("w.json", &json!({"watches": [{"type": "key", "args": ["true"]}]}));
    agent.process.signal(libc::SIGHUP);
    wait::until_true("the log says why", SOON, || {
        agent.process.log().contains("Failed reloading watches: Failed to parse watch (map[string]interface {}{\"args\":\"true\"}): Must specify a single key to watch")
    });
    put_key(&agent, "k", "y");
    await_told(&file("kept"), 3);
}

#[test]
fn a_file_of_hcl_and_the_shell_do_as_well() {
    let folder = agent::new_folder();
    let path = folder.path().join("told");
    let agent = Agent::dev(json!({}));
    let text = format!(
        "watches = [\n  {{\n    type = \"keyprefix\"\n    prefix = \"p/\"\n    handler = \"echo \\\"$CONSUL_INDEX $(cat)\\\" >> {}\"\n  }}\n]\n",
        path.display()
    );
    fs::write(agent.folder().join("conf.d/w.hcl"), text).expect("writing a file");
    agent.process.signal(libc::SIGHUP);
    await_told(&path, 1);
    put_key(&agent, "p/a", "x");
    assert_eq!(await_told(&path, 2)[1].1[0]["Key"], "p/a");
    assert!(agent.process.log().contains("The 'handler' field in watches has been deprecated"));
}

/// Takes requests on a port of its own and answers each with 200; gives heads and bodies.
fn listener() -> (u16, Receiver<(String, Value)>) {
    use std::io::{BufRead, Read};
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = listener.local_addr().expect("bound").port();
    let (sender, heard) = channel();
    std::thread::spawn(move || {
        while let Ok((mut stream, _)) = listener.accept() {
            let mut reader = BufReader::new(stream.try_clone().expect("a clone"));
            let (mut head, mut length) = (String::new(), 0);
            loop {
                let mut line = String::new();
                if reader.read_line(&mut line).unwrap_or(0) == 0 || line == "\r\n" {
                    break;
                }
                if let Some(text) = line.to_ascii_lowercase().strip_prefix("content-length: ") {
                    length = text.trim().parse().expect("a length");
                }
                head.push_str(&line);
            }
            let mut body = vec![0; length];
            // An agent that is gone has nothing to say.
            if length == 0 || reader.read_exact(&mut body).is_err() {
                continue;
            }
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
            if sender.send((head, serde_json::from_slice(&body).expect("JSON"))).is_err() {
                return;
            }
        }
    });
    (port, heard)
}

#[test]
fn a_url_is_told_with_its_headers() {
    let (port, heard) = listener();
    let agent = Agent::dev(json!({"watches": [{
        "type": "key", "key": "k", "handler_type": "http",
        "http_handler_config": {
            "path": format!("http://127.0.0.1:{port}/hook"), "method": "PUT", "timeout": "5s",
            "header": {"x-foo": ["bar", "baz"]},
        },
    }]}));
    let next = || heard.recv_timeout(SOON).expect("a request");
    assert_eq!(next().1, Value::Null);
    put_key(&agent, "k", "v");
    let (head, body) = next();
    assert!(head.starts_with("PUT /hook HTTP/1.1\r\n"), "{head}");
    let index = format!("X-Consul-Index: {}\r\n", body["ModifyIndex"]);
    for line in ["Content-Type: application/json\r\n", "x-foo: bar\r\n", "x-foo: baz\r\n", &index] {
        assert!(head.contains(line), "{line} missing in {head}");
    }
    assert_eq!(value_of(&body), "v");
    assert!(heard.recv_timeout(Duration::from_millis(100)).is_err());
}

#[test]
fn a_service_of_the_agent_itself_is_told_by_its_hash() {
    let folder = agent::new_folder();
    let path = folder.path().join("told");
    let agent = Agent::dev(json!({}));
    agent.put("/v1/agent/service/register", &json!({"Name": "web", "Port": 80}));
    let watch = json!({"type": "agent_service", "service_id": "web", "args": note(&path)});
    agent.define("w.json", &json!({ "watches": [watch] }));
    agent.process.signal(libc::SIGHUP);
    assert_eq!((await_told(&path, 1)[0].0, &await_told(&path, 1)[0].1["Port"]), (0, &json!(80)));
    agent.put("/v1/agent/service/register", &json!({"Name": "web", "Port": 81}));
    let lines = await_told(&path, 2);
    assert_eq!((lines.len(), &lines[1].1["Port"]), (2, &json!(81)));
    assert_ne!(lines[0].1["ContentHash"], lines[1].1["ContentHash"]);
}

/// An agent that serves HTTPS only, to whom it knows, is known to itself.
#[test]
fn watches_ask_over_tls_when_there_is_nothing_else() {
    let folder = agent::new_folder();
    let path = folder.path().join("told");
    let tls = |name: &str| format!("{}/tests/fixtures/tls/{name}", env!("CARGO_MANIFEST_DIR"));
    let ports = Ports::free();
    let config = json!({
        "ports": {"http": -1, "https": ports.http, "dns": -1, "server": ports.server, "serf_lan": ports.serf_lan,
            "serf_wan": ports.serf_wan, "grpc": -1},
        "cert_file": tls("cert.pem"), "key_file": tls("key.pem"), "ca_file": tls("cert.pem"),
        "verify_incoming_https": true,
        "watches": [{"type": "services", "args": note(&path)}],
    });
    agent::write_config(folder.path(), ports, config);
    let process =
        Process::agent(folder.path(), &agent::arguments(folder.path(), &["-dev"])).expect("starting it");
    wait::until(&format!("an answer\n{}", process.log_tail()), START_LIMIT, || {
        told(&path).last().filter(|(_, list)| list["consul"] == json!([])).map(drop)
    });
}

/// `muster watch` of the key `k`, its child a script; `before` is what it is run by.
fn command(agent: &Agent, before: &[&str], script: &str) -> Process {
    let address = format!("-http-addr=127.0.0.1:{}", agent.ports.http);
    let program = process::binary().display().to_string();
    let words = [&program, "watch", &address, "-type=key", "-key=k", script];
    let words: Vec<&str> = before.iter().copied().chain(words).collect();
    let mut command = Command::new(words[0]);
    command.args(&words[1..]);
    let folder = agent.folder().join(format!("command-{}", before.len()));
    fs::create_dir_all(&folder).expect("a folder");
    Process::spawn(&folder, command).expect("starting a watch")
}

#[test]
fn a_command_ends_with_its_child_told_and_lives_on_when_hangups_are_ignored() {
    let agent = Agent::dev(json!({}));
    let path = agent.folder().join("told");
    let lines = || fs::read_to_string(&path).unwrap_or_default();
    let script = format!(
        "trap 'echo end >> {0}; exit 0' TERM; echo up >> {0}; while :; do sleep 0.05; done",
        path.display()
    );
    let mut watch = command(&agent, &[], &script);
    wait::until_true("the child runs", SOON, || lines() == "up\n");
    watch.signal(libc::SIGTERM);
    assert_eq!(watch.wait(SOON).and_then(|status| status.code()), Some(0), "{}", watch.log());
    wait::until_true("the child was told", SOON, || lines() == "up\nend\n");

    let told = agent.folder().join("nohup");
    let mut watch = command(&agent, &["nohup"], &format!("cat >> {}", told.display()));
    wait::until_true("the first answer", SOON, || {
        fs::read_to_string(&told).is_ok_and(|text| text == "null\n")
    });
    watch.signal(libc::SIGHUP);
    put_key(&agent, "k", "x");
    wait::until_true("the second answer", SOON, || {
        fs::read_to_string(&told).unwrap_or_default().lines().count() == 2
    });
    assert!(watch.ended().is_none());
}

#[test]
fn an_agent_with_a_watch_that_is_wrong_does_not_start() {
    for (watch, text) in [
        (
            json!({"type": "connect_roots", "args": ["a"]}),
            "Watch type connect_roots is not allowed in agent config",
        ),
        (json!({"type": "nodes"}), "Must define a watch handler"),
        (json!({"type": "nodes", "handler": "a", "args": ["a"]}), "Only one watch handler allowed"),
    ] {
        let folder = agent::new_folder();
        agent::write_config(folder.path(), Ports::free(), json!({"watches": [watch]}));
        let mut process =
            Process::agent(folder.path(), &agent::arguments(folder.path(), &["-dev"])).expect("starting it");
        let status = process.wait(START_LIMIT).expect("it ends");
        assert_eq!(status.code(), Some(1), "{}", process.log());
        assert!(process.log().contains(text), "{text} missing in {}", process.log());
    }
}
