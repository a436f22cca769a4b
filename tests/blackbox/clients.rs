//! Clients that somebody else wrote, and listeners other than TCP.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::process::Command;

use serde_json::json;

use super::agent::{Agent, SOON};
use super::support::http;
use super::support::wait;

/// Runs a program and gives its standard output; None, and a line that says so, when it is not on this machine.
pub fn run(program: &str, args: &[&str]) -> Option<String> {
    match Command::new(program).args(args).output() {
        Ok(output) => Some(String::from_utf8_lossy(&output.stdout).into_owned()),
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "skipped: {program} cannot run here: {error}");
            None
        }
    }
}

#[test]
fn curl_writes_and_reads_a_key() {
    let agent = Agent::dev(json!({}));
    let url = format!("http://127.0.0.1:{}/v1/kv/foo", agent.ports.http);
    let Some(written) = run("curl", &["-s", "-X", "PUT", "-d", "bar", &url]) else { return };
    assert_eq!(written.trim(), "true");
    assert_eq!(run("curl", &["-s", &format!("{url}?raw")]).as_deref(), Some("bar"));
    let json = run("curl", &["-s", "--compressed", &url]).expect("it ran a moment ago");
    assert!(json.contains("\"YmFy\""), "{json}");
    // Two requests on one connection, and a body large enough for `Expect: 100-continue`.
    let large = agent.folder().join("large");
    std::fs::write(&large, vec![b'x'; 300_000]).expect("writing a file");
    let data = format!("@{}", large.display());
    let put = ["-s", "-X", "PUT", "-H", "Expect: 100-continue", "--data-binary", &data, &url, &url];
    assert_eq!(run("curl", &put).expect("it ran a moment ago").matches("true").count(), 2);
    assert_eq!(run("curl", &["-s", &format!("{url}?raw")]).map(|text| text.len()), Some(300_000));
}

#[test]
fn dig_finds_services_and_nodes() {
    let agent = Agent::dev(
        json!({"services": [{"name": "web", "port": 8080, "address": "10.1.2.3", "tags": ["v1"]}]}),
    );
    wait::until_true("web is in the catalog", SOON, || {
        agent.get("/v1/catalog/service/web").text().contains("10.1.2.3")
    });
    let port = agent.ports.dns.to_string();
    let dig = |args: &[&str]| {
        let mut all = vec!["@127.0.0.1", "-p", &port, "+time=2", "+tries=2"];
        all.extend(args);
        run("dig", &all)
    };
    let Some(short) = dig(&["+short", "web.service.consul"]) else { return };
    assert_eq!(short.trim(), "10.1.2.3");
    assert_eq!(
        dig(&["+short", "+tcp", "v1.web.service.consul"]).expect("it ran a moment ago").trim(),
        "10.1.2.3"
    );
    let srv = dig(&["+short", "web.service.consul", "SRV"]).expect("it ran a moment ago");
    assert!(srv.starts_with("1 1 8080 "), "{srv}");
    let node = dig(&["+short", "blackbox.node.consul"]).expect("it ran a moment ago");
    assert_eq!(node.trim(), "127.0.0.1");
    let missing = dig(&["nothing.service.consul"]).expect("it ran a moment ago");
    assert!(missing.contains("status: NXDOMAIN") && missing.contains("SOA"), "{missing}");
}

#[test]
fn a_unix_socket_answers_http() {
    let folder = super::agent::new_folder();
    let path = folder.path().join("http.sock");
    let extra = json!({
        "addresses": {"http": format!("127.0.0.1 unix://{}", path.display())},
        "unix_sockets": {"mode": "0700"},
    });
    let agent = Agent::dev(extra);
    assert_eq!(http::get(agent.ports.http, "/v1/status/leader").map(|reply| reply.status).ok(), Some(200));
    let mut stream = UnixStream::connect(&path).expect("the agent listens on its unix socket");
    stream
        .write_all(b"GET /v1/agent/self HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        .expect("writing");
    let mut text = String::new();
    stream.read_to_string(&mut text).expect("a reply");
    assert!(text.starts_with("HTTP/1.1 200 OK") && text.contains("blackbox"), "{text}");
    use std::os::unix::fs::PermissionsExt;
    let mode = std::fs::metadata(&path).expect("the socket's mode").permissions().mode();
    assert_eq!(mode & 0o777, 0o700);
}
