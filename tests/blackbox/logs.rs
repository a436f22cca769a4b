//! The log: what an operator can tell from it, at info and at debug, in Consul's words where Consul has them.

use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;
use std::time::Instant;

use serde_json::{Value, json};

use super::agent::{Agent, SOON};
use super::support::{http, wait};

/// Waits until a line of the log has this text behind its time.
fn told(agent: &Agent, text: &str) {
    let start = Instant::now();
    while !agent.process.log().lines().any(|line| line.contains(text)) {
        assert!(start.elapsed() < SOON, "no line has {text:?}:\n{}", agent.process.log());
        std::thread::sleep(wait::PAUSE);
    }
}

/// A registration, over HTTP or from a file, a deregistration and a reload that went well left no line at all.
#[test]
fn what_happens_is_told_at_info() {
    let agent = Agent::dev(json!({"log_level": "info"}));
    told(&agent, "[INFO]  agent: Started HTTP server: address=127.0.0.1:");
    told(&agent, "[INFO]  agent: Synced node info");
    let check = json!({"CheckID": "beat", "TTL": "1h"});
    agent.put("/v1/agent/service/register", &json!({"Name": "p1", "Port": 80, "Check": check}));
    told(&agent, "[INFO]  agent: Synced service: service=p1");
    agent.put("/v1/agent/check/pass/beat", &Value::Null);
    told(&agent, "[INFO]  agent: Check is now passing: check=beat from=critical");
    told(&agent, "[INFO]  agent: Synced check: check=beat");
    agent.put("/v1/agent/check/fail/beat?note=no+answer", &Value::Null);
    told(&agent, "[WARN]  agent: Check is now critical: check=beat from=passing output=\"no answer\"");
    agent.put("/v1/agent/service/maintenance/p1?enable=true&reason=x", &Value::Null);
    told(&agent, "[INFO]  agent: Service entered maintenance mode: service=p1 reason=x");
    agent.put("/v1/agent/service/deregister/p1", &Value::Null);
    told(&agent, "[INFO]  agent: Deregistered service: service=p1");
    agent.put("/v1/agent/check/register", &json!({"Name": "alone", "TTL": "1h"}));
    agent.put("/v1/agent/check/deregister/alone", &Value::Null);
    told(&agent, "[INFO]  agent: Deregistered check: check=alone");

    agent.define("web.json", &json!({"service": {"name": "web", "port": 80}}));
    agent.process.signal(libc::SIGHUP);
    told(&agent, "[INFO]  agent: registered from the configuration: service=web checks=0");
    told(&agent, "[INFO]  agent: Synced service: service=web");
    told(&agent, "[INFO]  agent: the configuration was reloaded: services=1 checks=0");
    let agent = agent.restart();
    told(&agent, "[INFO]  agent: registered from the configuration: service=web checks=0");
}

#[test]
fn what_failed_is_told_and_what_was_asked_wrongly_is_not() {
    let agent = Agent::dev(json!({"log_level": "info", "enable_script_checks": false}));
    let script = json!({"Name": "s", "Args": ["true"], "Interval": "1s"}).to_string();
    let path = "/v1/agent/check/register?token=secret";
    assert_eq!(http::put(agent.ports.http, path, script).expect("an answer").status, 500);
    assert_eq!(agent.get("/v1/kv/absent").status, 404);
    told(
        &agent,
        "[ERROR] agent.http: Request error: method=PUT url=/v1/agent/check/register?token=<hidden> from=127.0.0.1:",
    );
    told(&agent, "error=\"Scripts are disabled on this agent");
    let log = agent.process.log();
    assert!(!log.contains("secret") && !log.contains("/v1/kv/absent"), "{log}");
}

#[test]
fn what_no_server_answers_is_told_of_too() {
    let agent = Agent::client(json!({}));
    for _ in 0..3 {
        assert_eq!(agent.get("/v1/kv/a?raw").status, 500);
    }
    let line = "Request error: method=GET url=/v1/kv/a?raw from=127.0.0.1:";
    wait::until_true("each is told of", SOON, || agent.process.log().matches(line).count() == 3);
}

#[test]
fn each_request_is_told_to_whoever_asks_for_debug() {
    let agent = Agent::dev(json!({"log_level": "info"}));
    agent.put("/v1/kv/a", &json!(1));
    let mut monitor = TcpStream::connect(("127.0.0.1", agent.ports.http)).expect("connecting");
    monitor.set_read_timeout(Some(SOON)).expect("a time limit");
    let ask = "GET /v1/agent/monitor?loglevel=debug HTTP/1.1\r\nHost: agent\r\n\r\n";
    monitor.write_all(ask.as_bytes()).expect("asking");
    let mut lines = BufReader::new(monitor).lines().map(|line| line.expect("a line of the log"));
    assert!(lines.by_ref().any(|line| line.is_empty()), "the answer's head ends");
    // The second is answered from what is remembered of the first, the last waits.
    for path in ["/v1/kv/a?raw&x=1", "/v1/kv/a?raw&x=1", "/v1/kv/a?index=1000&wait=10ms"] {
        agent.get(path);
    }
    agent.put("/v1/agent/service/register", &json!({"Name": "p1"}));
    let mut wanted = vec![
        "[DEBUG] agent.http: Request finished: method=GET url=/v1/kv/a?raw&x=1 from=127.0.0.1:",
        "[DEBUG] agent.http: Request finished: method=GET url=/v1/kv/a?raw&x=1 from=127.0.0.1:",
        "[DEBUG] agent.http: Request finished: method=GET url=/v1/kv/a?index=1000&wait=10ms from=127.0.0.1:",
        "[INFO]  agent: Synced service: service=p1",
        "[DEBUG] agent.http: Request finished: method=PUT url=/v1/agent/service/register from=127.0.0.1:",
    ];
    while !wanted.is_empty() {
        let line = lines.next().unwrap_or_else(|| panic!("the log ended before {wanted:?}"));
        assert!(!line.contains("Request finished") || line.contains(" latency="), "{line}");
        if let Some(at) = wanted.iter().position(|text| line.contains(text)) {
            wanted.remove(at);
        }
    }
    assert!(!agent.process.log().contains("Request finished"), "the operator asked for info");
}

#[test]
fn an_agent_at_debug_tells_of_requests_and_runs_of_checks() {
    let agent = Agent::dev(json!({"log_level": "debug"}));
    let check = json!({"Name": "c1", "TCP": format!("127.0.0.1:{}", agent.ports.http), "Interval": "1s"});
    agent.put("/v1/agent/check/register", &check);
    told(
        &agent,
        "[DEBUG] agent.http: Request finished: method=PUT url=/v1/agent/check/register from=127.0.0.1:",
    );
    told(&agent, "[DEBUG] agent: Check status updated: check=c1 status=passing held=false");
}
