//! Checks that hang or fall silent, and what the agent makes of it meanwhile.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::thread;
use std::time::Duration;

use serde_json::json;

use super::agent::{Agent, SOON};
use super::support::wait;

/// More than the programs that checks may run at a time.
const HANGING: usize = 300;

/// Listens, counts whom it accepts, and serves each with `serve` in turn; the address.
fn listen(serve: impl Fn(&mut TcpStream) + Send + 'static) -> (String, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("bound").to_string();
    let accepted = Arc::new(AtomicUsize::new(0));
    let count = accepted.clone();
    thread::spawn(move || {
        let mut kept = Vec::new();
        for stream in listener.incoming() {
            let mut stream = stream.expect("a connection");
            serve(&mut stream);
            count.fetch_add(1, SeqCst);
            kept.push(stream);
        }
    });
    (address, accepted)
}

/// The watched check ran once a minute rather than once a second, while the others sat in all the places there were.
#[test]
fn targets_that_hang_do_not_keep_a_healthy_check_from_running() {
    let (hole, hanging) = listen(|_| {});
    let (healthy, asked) = listen(|stream| {
        let _ = stream.read(&mut [0; 1024]);
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
    });
    let check = |name: &str, address: &str, interval: &str| json!({"id": name, "name": name, "http": format!("http://{address}/"), "interval": interval, "timeout": "60s"});
    let mut checks: Vec<_> = (0..HANGING).map(|n| check(&format!("hangs-{n}"), &hole, "2s")).collect();
    checks.push(check("watched", &healthy, "1s"));
    let agent = Agent::dev(json!({"checks": checks}));
    wait::until_true("all that hang are asked", SOON * 2, || hanging.load(SeqCst) >= HANGING);
    let before = asked.load(SeqCst);
    wait::until_true("the healthy one is asked all the while", SOON, || asked.load(SeqCst) >= before + 3);
    assert_eq!(agent.get("/v1/agent/checks").json()["watched"]["Status"], "passing");
    assert_eq!(hanging.load(SeqCst), HANGING, "each hangs in its first run");
}

/// The agent's own list showed it only when something else changed.
#[test]
fn a_critical_check_that_falls_silent_says_so_at_once() {
    let agent = Agent::dev(json!({}));
    agent.put("/v1/agent/check/register", &json!({"Name": "silent", "TTL": "1s"}));
    let shown = || agent.get("/v1/agent/checks").json()["silent"]["Output"].clone();
    assert_eq!(shown(), "");
    wait::until_true("its expiry is shown", Duration::from_secs(3), || shown() == "TTL expired");
}
