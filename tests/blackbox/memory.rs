//! An agent takes little memory while it holds little.

use serde_json::json;

use super::agent::{Agent, SOON};
use super::support::http::{Connection, Request};
use super::support::wait;

/// The longest value that a key may have.
const VALUE: usize = 512 << 10;
/// So many are more than twice what an agent may hold in small pages.
const VALUES: usize = 80;

/// What the kernel says of a process.
fn status(agent: &Agent, field: &str) -> Option<String> {
    let status = std::fs::read_to_string(format!("/proc/{}/status", agent.process.pid())).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix(field));
    line.map(|rest| rest.trim_start_matches(':').trim().to_owned())
}

#[test]
fn pages_are_small_until_an_agent_holds_much() {
    let agent = Agent::dev(json!({}));
    let may_be_huge = || status(&agent, "THP_enabled");
    if may_be_huge().is_none() {
        return eprintln!(
            "this kernel does not say of which size a process's pages may be: nothing was tried"
        );
    }
    assert_eq!(may_be_huge().as_deref(), Some("0"), "from the start");
    let mut writer = Connection::open(agent.ports.http).expect("a connection");
    for number in 0..VALUES {
        let request = Request::new("PUT", &format!("/v1/kv/large/{number}")).body(vec![7; VALUE]);
        assert_eq!(writer.exchange(&request).expect("a reply").status, 200);
    }
    wait::until_true("its pages may be huge", SOON, || may_be_huge().as_deref() == Some("1"));
}
