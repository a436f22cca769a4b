//! Malformed input: refused or dropped, and the agent goes on.

use std::io::{Read, Write};
use std::net::{TcpStream, UdpSocket};
use std::time::Duration;

use serde_json::json;

use super::agent::Agent;
use super::support::dns::Question;
use super::support::ports::random;

const ROUNDS: usize = 300;
const READ_LIMIT: Duration = Duration::from_millis(50);

/// A generator of cheap noise with a seed that a failure can print.
struct Noise(u64);

impl Noise {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn bytes(&mut self, most: u64) -> Vec<u8> {
        (0..self.next() % most).map(|_| self.next() as u8).collect()
    }

    /// A copy of `whole` with a few bytes changed, cut somewhere.
    fn damaged(&mut self, whole: &[u8]) -> Vec<u8> {
        let mut copy = whole.to_vec();
        for _ in 0..1 + self.next() % 4 {
            let at = self.next() as usize % copy.len();
            copy[at] = self.next() as u8;
        }
        if self.next().is_multiple_of(2) {
            copy.truncate(self.next() as usize % copy.len());
        }
        copy
    }
}

#[test]
fn a_storm_of_broken_input_does_not_end_the_agent() {
    let mut agent = Agent::dev(json!({"services": [{"name": "web", "port": 80}]}));
    let seed = random() | 1;
    let mut noise = Noise(seed);
    let request = b"PUT /v1/agent/service/register?x=%20y HTTP/1.1\r\nHost: a\r\nContent-Length: 18\r\n\r\n{\"Name\": \"broken\"}";
    let question = Question::new("web.service.consul.", "SRV").encode(7);
    let udp = UdpSocket::bind("127.0.0.1:0").expect("a socket");
    for round in 0..ROUNDS {
        let http = if round % 3 == 0 { noise.bytes(2000) } else { noise.damaged(request) };
        throw(agent.ports.http, &http);
        let packet = if round % 3 == 0 { noise.bytes(600) } else { noise.damaged(&question) };
        udp.send_to(&packet, ("127.0.0.1", agent.ports.dns)).expect("sending a datagram");
        let mut framed = (noise.next() as u16 % 700).to_be_bytes().to_vec();
        framed.extend(&packet);
        throw(agent.ports.dns, &framed);
        assert!(agent.process.ended().is_none(), "seed {seed}, round {round}:\n{}", agent.process.log_tail());
    }
    assert_eq!(agent.get("/v1/catalog/service/web").json()[0]["ServicePort"], 80, "seed {seed}");
    assert_eq!(
        Question::new("web.service.consul.", "SRV").ask(agent.ports.dns).rcode,
        "NOERROR",
        "seed {seed}"
    );
    let log = agent.process.log();
    assert!(!log.contains("panicked"), "seed {seed}: something panicked:\n{log}");
}

/// Sends bytes, reads a moment, and closes.
fn throw(port: u16, bytes: &[u8]) {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).expect("a connection");
    stream.set_read_timeout(Some(READ_LIMIT)).expect("a timeout above zero");
    let _ = stream.write_all(bytes);
    let _ = stream.shutdown(std::net::Shutdown::Write);
    let _ = stream.read(&mut [0; 512]);
}

#[test]
fn a_client_that_says_nothing_does_not_hold_up_others() {
    let agent = Agent::dev(json!({}));
    let silent: Vec<TcpStream> =
        (0..50).map(|_| TcpStream::connect(("127.0.0.1", agent.ports.http)).expect("a connection")).collect();
    let mut slow = TcpStream::connect(("127.0.0.1", agent.ports.http)).expect("a connection");
    slow.write_all(b"GET /v1/status/lea").expect("half a request");
    let reply = agent.get("/v1/status/leader");
    assert_eq!(reply.status, 200);
    assert!(reply.elapsed < Duration::from_secs(1), "it took {:?}", reply.elapsed);
    drop(silent);
    slow.write_all(b"der HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").expect("the other half");
    let mut text = String::new();
    slow.read_to_string(&mut text).expect("a reply");
    assert!(text.starts_with("HTTP/1.1 200 "), "{text}");
}
