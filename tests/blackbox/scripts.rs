//! Script checks: many of them, slower than their interval, and the agent neither piles them up nor leaves zombies.

use std::fs;
use std::time::{Duration, Instant};

use serde_json::json;

use super::agent::{Agent, SOON};
use super::support::wait;

const CHECKS: usize = 1000;
const WATCHED: Duration = Duration::from_secs(6);
const LOOK_PAUSE: Duration = Duration::from_millis(250);

/// The states of a process's children, as in /proc: `S`, `R`, `Z`, ...
fn children(parent: u32) -> Vec<char> {
    let processes = fs::read_dir("/proc").expect("/proc").filter_map(|entry| {
        let stat = fs::read_to_string(entry.ok()?.path().join("stat")).ok()?;
        let (_, rest) = stat.rsplit_once(") ")?;
        let mut words = rest.split(' ');
        let state = words.next()?.chars().next()?;
        (words.next()? == parent.to_string()).then_some(state)
    });
    processes.collect()
}

#[test]
fn a_thousand_slow_script_checks_do_not_pile_up() {
    let checks: Vec<_> = (0..CHECKS)
        .map(|number| {
            let id = format!("slow-{number}");
            json!({"id": id, "name": id, "args": ["/bin/sleep", "3"], "interval": "1s", "timeout": "10s"})
        })
        .collect();
    let mut agent = Agent::dev(json!({"checks": checks}));
    let pid = agent.process.pid();
    let (mut most, start) = (0, Instant::now());
    while start.elapsed() < WATCHED {
        most = most.max(children(pid).len());
        assert!(most <= CHECKS, "{most} children of {CHECKS} checks: they pile up");
        let reply = agent.get("/v1/status/leader");
        assert!(reply.elapsed < Duration::from_secs(2), "an answer took {:?} meanwhile", reply.elapsed);
        std::thread::sleep(LOOK_PAUSE);
    }
    assert!(most > 0, "no check ran");
    wait::until_true("checks pass", Duration::from_secs(60), || {
        let checks = agent.get("/v1/agent/checks").json();
        let all = checks.as_object().expect("an object");
        all.values().filter(|check| check["Status"] == "passing").count() >= CHECKS / 2
    });
    wait::until_true("ended children are reaped", SOON, || !children(pid).contains(&'Z'));
    agent.process.signal(libc::SIGTERM);
    assert!(agent.process.wait(SOON).is_some(), "the agent ends with checks under way");
}

#[test]
fn a_script_that_outlives_its_timeout_is_killed_with_its_children() {
    let agent = Agent::dev(json!({}));
    let marker = agent.folder().join("grandchild");
    let script = format!("sleep 300 & echo $! > {}; wait", marker.display());
    agent.put(
        "/v1/agent/check/register",
        &json!({"ID": "stuck", "Name": "stuck", "Args": ["/bin/sh", "-c", script], "Interval": "1s", "Timeout": "300ms"}),
    );
    let first = wait::until("the script ran", SOON, || {
        fs::read_to_string(&marker).ok().filter(|text| !text.is_empty())
    });
    wait::until_true("the check says that it timed out", SOON, || {
        let check = agent.get("/v1/agent/checks").json()["stuck"].clone();
        check["Status"] == "critical"
            && check["Output"].as_str().is_some_and(|text| text.contains("imed out"))
    });
    let stat = format!("/proc/{}/stat", first.trim());
    wait::until_true("the grandchild is dead", SOON, || {
        fs::read_to_string(&stat).map_or(true, |stat| stat.contains(") Z "))
    });
}
