//! What clients that others have published take for granted, found by running them (`tools/clients`).

use std::io::{Read, Write};
use std::net::TcpStream;

use serde_json::json;

use super::agent::{self, Agent, Ports, SOON, START_LIMIT};
use super::support::ports::free_port;
use super::support::process::Process;
use super::support::{http, wait};

/// HashiCorp's own test harness (`sdk/testutil`) turns the HTTPS port on and names no certificate.
#[test]
fn an_https_port_without_a_certificate_stops_nobody() {
    let (folder, ports, https) = (agent::new_folder(), Ports::free(), free_port());
    agent::write_config(folder.path(), ports, json!({}));
    let args = agent::arguments(folder.path(), &["-dev", &format!("-https-port={https}")]);
    let process = Process::agent(folder.path(), &args).expect("starting it");
    let answers = || http::get(ports.http, "/v1/status/leader").is_ok_and(|reply| reply.status == 200);
    wait::until_true(&format!("an answer\n{}", process.log_tail()), START_LIMIT, answers);
    assert!(process.log().contains("cert_file or key_file is not set"), "{}", process.log());
    let mut stream = TcpStream::connect(("127.0.0.1", https)).expect("it listens");
    // A greeting of TLS 1.2 that offers one cipher suite and names nobody.
    let hello: Vec<u8> = [
        &[0x16, 3, 1, 0, 63, 1, 0, 0, 59, 3, 3][..],
        &[7; 32],
        &[0, 0, 2, 0xc0, 0x2f, 1, 0, 0, 16],
        &[0, 10, 0, 4, 0, 2, 0, 0x17, 0, 13, 0, 4, 0, 2, 4, 3],
    ]
    .concat();
    stream.write_all(&hello).expect("sent");
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    assert_eq!(answer.first(), Some(&0x15), "an alert: {answer:?}");
    assert!(answers(), "the others are served on");
}

/// A client that waits for its first write to be taken begins a session next (`test/acceptance` of npm's `consul`).
#[test]
fn a_session_can_be_had_as_soon_as_anything_is_written() {
    for _ in 0..5 {
        let (folder, ports) = (agent::new_folder(), Ports::free());
        let data = json!({"data_dir": folder.path().join("data"), "bootstrap": true, "server": true});
        agent::write_config(folder.path(), ports, data);
        let process =
            Process::agent(folder.path(), &agent::arguments(folder.path(), &[])).expect("starting it");
        wait::until("a write", START_LIMIT, || {
            http::put(ports.http, "/v1/kv/check", "ok").ok().filter(|reply| reply.status == 200).map(drop)
        });
        let session = http::put(ports.http, "/v1/session/create", "").expect("an answer");
        assert_eq!(session.status, 200, "{}\n{}", session.text(), process.log_tail());
    }
}

/// HashiCorp's Go tests know this number by heart.
#[test]
fn a_service_has_consuls_content_hash() {
    let agent = Agent::dev(json!({}));
    agent.put("/v1/agent/service/register", &json!({"Name": "foo", "Tags": ["bar", "baz"], "Port": 8000}));
    assert_eq!(agent.get("/v1/agent/service/foo").json()["ContentHash"], "6b13684bfe179e67");
}

/// HashiCorp's Go tests find the address to join here, others the ports.
#[test]
fn programs_read_addresses_and_settings_from_self() {
    let agent = Agent::dev(json!({"log_level": "warn"}));
    let about = agent.get("/v1/agent/self").json();
    let config = &about["DebugConfig"];
    let tcp = |port: u16| json!(format!("tcp://127.0.0.1:{port}"));
    assert_eq!(config["SerfAdvertiseAddrLAN"], tcp(agent.ports.serf_lan));
    assert_eq!(config["SerfAdvertiseAddrWAN"], tcp(agent.ports.serf_wan));
    assert_eq!(config["RPCAdvertiseAddr"], tcp(agent.ports.server));
    assert_eq!(config["ClientAddrs"], json!(["127.0.0.1"]));
    assert_eq!((&config["Logging"]["LogLevel"], &config["PidFile"]), (&json!("WARN"), &json!("")));
}

/// `py-consul` asks for a node's coordinate right after it has told it, and for the number that Consul has always answered.
#[test]
fn a_coordinate_is_there_soon_and_the_list_of_servers_has_no_index() {
    let agent = Agent::dev(json!({}));
    let coordinate = json!({"Vec": [0, 0, 0, 0, 0, 0, 0, 0], "Error": 1.5, "Adjustment": 0, "Height": 0});
    let told = agent.put("/v1/coordinate/update", &json!({"Node": "blackbox", "Coord": coordinate}));
    assert_eq!(told.status, 200);
    let told = std::time::Instant::now();
    wait::until_true("the coordinate", SOON, || agent.get("/v1/coordinate/node/blackbox").status == 200);
    assert!(told.elapsed().as_secs() < 4, "it waited for others: {:?}", told.elapsed());
    assert_eq!(agent.get("/v1/operator/raft/configuration").json()["Index"], 0);
}
