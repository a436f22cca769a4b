//! A second agent must not share the first one's ports or data.

use serde_json::json;

use super::agent::{self, Agent, Ports, START_LIMIT};
use super::support::process::{self, Process};

/// Starts an agent that must refuse to run, and gives what it wrote.
fn refused(folder: &std::path::Path, mode: &[&str]) -> String {
    let mut second =
        Process::agent(folder, &agent::arguments(folder, mode)).expect("starting the second agent");
    let status = second.wait(START_LIMIT).expect("the second agent refuses to start");
    let code = status.code().unwrap_or_else(|| panic!("it ended with {}", process::describe(status)));
    assert_ne!(code, 0, "a refusal is an error\n{}", second.log_tail());
    second.log()
}

#[test]
fn a_second_agent_on_the_same_http_port_is_refused_with_the_address() {
    let first = Agent::dev(json!({}));
    let folder = agent::new_folder();
    agent::write_config(folder.path(), Ports { http: first.ports.http, ..Ports::free() }, json!({}));
    let log = refused(folder.path(), &["-dev"]);
    let address = format!("127.0.0.1:{}", first.ports.http);
    assert!(
        log.contains(&address) && log.contains("ddress already in use"),
        "no word of {address} in\n{log}"
    );
    assert_eq!(first.get("/v1/status/leader").status, 200);
}

#[test]
fn a_second_agent_on_the_same_dns_port_is_refused_with_the_address() {
    let first = Agent::dev(json!({}));
    let folder = agent::new_folder();
    agent::write_config(folder.path(), Ports { dns: first.ports.dns, ..Ports::free() }, json!({}));
    let log = refused(folder.path(), &["-dev"]);
    let address = format!("127.0.0.1:{}", first.ports.dns);
    assert!(
        log.contains(&address) && log.contains("ddress already in use"),
        "no word of {address} in\n{log}"
    );
}

#[test]
fn a_second_agent_on_the_same_data_folder_is_refused() {
    let first = Agent::server(json!({}));
    let data = first.folder().join("data");
    let folder = agent::new_folder();
    let extra = json!({"data_dir": data, "bootstrap_expect": 1});
    agent::write_config(folder.path(), Ports::free(), extra);
    let log = refused(folder.path(), &["-server"]);
    assert!(log.contains(&data.display().to_string()), "no word of {} in\n{log}", data.display());
    assert_eq!(first.get("/v1/status/leader").status, 200);
}
