//! Where io_uring is forbidden, the agent says so in one line and runs all the same.

use std::os::unix::process::CommandExt;
use std::process::Command;

use serde_json::json;

use super::agent::{self, Ports, START_LIMIT};
use super::support::http;
use super::support::process::{self, Process};
use super::support::wait;

/// `io_uring_setup` has this number on every architecture that has it at all.
const IO_URING_SETUP: u32 = 425;

/// Makes `io_uring_setup` fail with EPERM in this process and its children, as container runtimes do by default.
/// Called between fork and exec: system calls only.
fn forbid_io_uring() -> std::io::Result<()> {
    let step = |code: u32, jt: u8, jf: u8, k: u32| libc::sock_filter { code: code as u16, jt, jf, k };
    let deny = libc::SECCOMP_RET_ERRNO | libc::EPERM as u32;
    let mut filter = [
        step(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0, 0), // the system call's number
        step(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, 0, 1, IO_URING_SETUP),
        step(libc::BPF_RET | libc::BPF_K, 0, 0, deny),
        step(libc::BPF_RET | libc::BPF_K, 0, 0, libc::SECCOMP_RET_ALLOW),
    ];
    let program = libc::sock_fprog { len: filter.len() as u16, filter: filter.as_mut_ptr() };
    // SAFETY: both calls take plain numbers and a pointer to `program`, which outlives them.
    let done = unsafe {
        libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0
            && libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &program) == 0
    };
    if done { Ok(()) } else { Err(std::io::Error::last_os_error()) }
}

#[test]
fn an_agent_without_io_uring_falls_back_and_answers() {
    let folder = agent::new_folder();
    let ports = Ports::free();
    agent::write_config(folder.path(), ports, json!({"services": [{"name": "web", "port": 80}]}));
    let mut command = Command::new(process::binary());
    command.arg("agent").args(agent::arguments(folder.path(), &["-dev"]));
    // SAFETY: the function makes two system calls and allocates nothing.
    unsafe { command.pre_exec(forbid_io_uring) };
    let mut process = Process::spawn(folder.path(), command).expect("starting the agent under the filter");
    wait::until_true("the agent answers without io_uring", START_LIMIT, || {
        if let Some(status) = process.ended() {
            panic!("it ended with {}\n{}", process::describe(status), process.log_tail());
        }
        let reply = http::get(ports.http, "/v1/catalog/service/web");
        reply.is_ok_and(|reply| reply.status == 200 && reply.text().contains("web"))
    });
    let log = process.log();
    let lines: Vec<&str> = log.lines().filter(|line| line.contains("io_uring")).collect();
    assert_eq!(lines.len(), 1, "one plain line about io_uring, not {}:\n{log}", lines.len());
}
