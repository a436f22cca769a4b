//! Ending an agent: at once, however many clients wait.

use std::time::{Duration, Instant};

use serde_json::json;

use super::agent::Agent;
use super::support::http::{Connection, Request};
use super::support::process;

const PARKED: usize = 100;
const STOP_LIMIT: Duration = Duration::from_secs(1);

#[test]
fn sigterm_ends_an_agent_with_parked_queries_within_a_second() {
    ends_within_a_second(libc::SIGTERM);
}

#[test]
fn sigint_ends_an_agent_with_parked_queries_within_a_second() {
    ends_within_a_second(libc::SIGINT);
}

fn ends_within_a_second(signal: i32) {
    let mut agent = Agent::dev(json!({}));
    agent.put("/v1/kv/parked", &json!("value"));
    let plain = Request::new("GET", "/v1/kv/parked");
    let _parked: Vec<Connection> = (0..PARKED)
        .map(|_| {
            let mut connection = Connection::open(agent.ports.http).expect("a connection");
            // The first reply proves that the agent serves this connection.
            let index = connection.exchange(&plain).expect("a reply").index();
            let blocking = Request::new("GET", &format!("/v1/kv/parked?index={index}&wait=60s"));
            connection.send(&blocking).expect("sending a blocking query");
            connection
        })
        .collect();
    let start = Instant::now();
    agent.process.signal(signal);
    let status = agent.process.wait(Duration::from_secs(20)).expect("the agent ends on a signal");
    let took = start.elapsed();
    assert!(status.code().is_some(), "it did not exit by itself: {}", process::describe(status));
    assert!(took < STOP_LIMIT, "it took {took:?} to end with {PARKED} parked queries");
}
