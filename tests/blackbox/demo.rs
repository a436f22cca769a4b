//! The main job, end to end: two instances with HTTP checks on real web servers; one stops and is gone from every
//! answer; it starts again and is back.

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::agent::{Agent, SOON};
use super::clients;
use super::support::dns::Question;
use super::support::http;
use super::support::ports::free_port;
use super::support::process::Process;
use super::support::wait;

const INTERVAL: Duration = Duration::from_secs(1);
/// One check interval and a tenth of a second is the promise; a machine that runs other tests besides is given more.
const GONE_LIMIT: Duration = Duration::from_millis(1100 + 900);

/// Python's web server on `port`, once it answers.
fn web_server(folder: &std::path::Path, port: u16) -> Process {
    std::fs::create_dir_all(folder).expect("a folder for the web server");
    let mut command = Command::new("python3");
    command.args(["-m", "http.server", "--bind", "127.0.0.1", &port.to_string()]);
    let server = Process::spawn(folder, command).expect("starting python3 -m http.server");
    wait::until_true("the web server answers", SOON, || http::get(port, "/").is_ok());
    server
}

fn healthy_ports(agent: &Agent) -> Vec<u64> {
    let rows = agent.get("/v1/health/service/web-frontend?passing").json();
    let mut ports: Vec<u64> =
        rows.as_array().expect("an array").iter().filter_map(|row| row["Service"]["Port"].as_u64()).collect();
    ports.sort_unstable();
    ports
}

/// How many instances `/v1/services/NAME` lists: the healthy ones.
fn listed(agent: &Agent) -> usize {
    match agent.get("/v1/services/web-frontend").json() {
        Value::Array(rows) => rows.len(),
        other => panic!("not an array: {other}"),
    }
}

fn srv_ports(agent: &Agent) -> Vec<u64> {
    let reply = Question::new("web-frontend.service.consul.", "SRV").ask(agent.ports.dns);
    let port = |line: &String| line.split(' ').nth(6).and_then(|word| word.parse().ok());
    let mut ports: Vec<u64> = reply.answer().iter().filter_map(port).collect();
    ports.sort_unstable();
    ports
}

#[test]
fn an_instance_that_stops_is_gone_and_one_that_starts_is_back() {
    if Command::new("python3").arg("-V").stdout(Stdio::null()).status().is_err() {
        clients::run("python3", &["-V"]); // says why there is nothing to see
        return;
    }
    let agent = Agent::dev(json!({}));
    let mut both = [free_port(), free_port()];
    both.sort_unstable();
    let all = both.map(u64::from).to_vec();
    let folder = agent.folder().to_owned();
    let _first = web_server(&folder.join("one"), both[0]);
    let mut second = web_server(&folder.join("two"), both[1]);
    for port in both {
        agent.put(
            "/v1/agent/service/register",
            &json!({
                "ID": format!("web-{port}"), "Name": "web-frontend", "Port": port,
                "Check": {"HTTP": format!("http://127.0.0.1:{port}/"), "Interval": "1s", "Timeout": "1s"},
            }),
        );
    }
    wait::until_true("both are healthy", SOON, || healthy_ports(&agent) == all);
    assert_eq!(srv_ports(&agent), all);
    assert_eq!(listed(&agent), 2);

    let start = Instant::now();
    second.kill();
    wait::until_true("the stopped one is gone from DNS", SOON, || srv_ports(&agent) == all[..1]);
    wait::until_true("the stopped one is gone from HTTP", SOON, || healthy_ports(&agent) == all[..1]);
    wait::until_true("the stopped one is gone from /v1/services", SOON, || listed(&agent) == 1);
    let took = start.elapsed();
    assert!(took < GONE_LIMIT, "gone after {took:?}, with an interval of {INTERVAL:?}");

    let _second = web_server(&folder.join("two"), both[1]);
    wait::until_true("it is back in DNS", SOON, || srv_ports(&agent) == all);
    assert_eq!(healthy_ports(&agent), all);
    assert_eq!(listed(&agent), 2);
}
