//! The end of the cores. Alone in its process: it kills every child there is.

mod runtime_support;

use muster::runtime::process::{self, Spec};
use muster::runtime::{task, time};
use runtime_support::on_both;
use std::ffi::OsString;
use std::sync::Mutex;
use std::time::{Duration, Instant};

static PIDS: Mutex<Vec<String>> = Mutex::new(Vec::new());

/// A core that ended with children running aborted the process on the epoll driver (a destructor started the task
/// that reaps, on a queue that was being taken apart), and left them running on glommio.
#[test]
fn children_that_run_when_the_cores_end_are_killed() {
    on_both(async || {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("pids");
        for _ in 0..20 {
            let script = format!("echo $$ >> {}; sleep 1000 & wait", file.display());
            let argv = ["/bin/sh", "-c", &script].map(OsString::from).to_vec();
            let spec = Spec { argv, ..Spec::default() };
            task::spawn(process::run(spec)).detach();
        }
        let started = || std::fs::read_to_string(&file).unwrap_or_default();
        while started().lines().count() < 20 {
            time::sleep(Duration::from_millis(5)).await;
        }
        PIDS.lock().expect("one test uses it").extend(started().lines().map(str::to_owned));
    });
    process::kill_all();
    let alive = || PIDS.lock().expect("one test uses it").iter().filter(|pid| lives(pid)).count();
    let give_up = Instant::now() + Duration::from_secs(10);
    while alive() > 0 {
        assert!(Instant::now() < give_up, "{} children are still there", alive());
        std::thread::yield_now();
    }
}

/// Whether a process is there and no zombie.
fn lives(pid: &str) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with('Z'))
}
