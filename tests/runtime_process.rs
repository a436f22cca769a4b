//! Child processes, signals and files, on both drivers.

mod runtime_support;

use muster::runtime::process::{self, Exit, Spec};
use muster::runtime::signal::{self, Signal};
use muster::runtime::{fs, task, time};
use runtime_support::on_both;
use std::ffi::OsString;
use std::time::Duration;

fn shell(script: &str) -> Spec {
    Spec { argv: ["/bin/sh", "-c", script].map(OsString::from).to_vec(), output_max: 4096, ..Spec::default() }
}

fn text(exit: &Exit) -> &str {
    std::str::from_utf8(&exit.output).expect("text")
}

/// The state letter of a process; `None` if there is none.
fn state_of(pid: &str) -> Option<char> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit_once(") ")?.1.chars().next()
}

/// Zombie children of this process: the mark of a child that nobody reaped.
fn zombies() -> Vec<u32> {
    let own = std::process::id().to_string();
    let processes = std::fs::read_dir("/proc").expect("proc is mounted").filter_map(|entry| {
        let name = entry.ok()?.file_name().into_string().ok()?;
        let stat = std::fs::read_to_string(format!("/proc/{name}/stat")).ok()?;
        let mut fields = stat.rsplit_once(") ")?.1.split(' ');
        (fields.next() == Some("Z") && fields.next() == Some(&own)).then(|| name.parse().ok())?
    });
    processes.collect()
}

#[test]
fn output_exit_code_and_environment_come_through() {
    on_both(async || {
        let mut spec = shell("echo out; echo err >&2; echo $WORD; pwd; exit 3");
        spec.env = vec![("WORD".into(), "hello".into())];
        spec.cwd = Some("/".into());
        let exit = process::run(spec).await.expect("sh is there");
        assert_eq!((exit.code, exit.signal, exit.timed_out), (Some(3), None, false));
        assert_eq!(text(&exit), "out\nerr\nhello\n/\n");
        assert_eq!(exit.total, 16);
    });
}

#[test]
fn input_reaches_the_child_and_only_the_last_output_is_kept() {
    on_both(async || {
        let mut spec = shell("cat; echo end");
        spec.stdin = vec![b'x'; 1 << 20];
        let exit = process::run(spec).await.expect("sh is there");
        assert_eq!(exit.total, (1 << 20) + 4);
        assert_eq!(exit.output.len(), 4096);
        assert!(text(&exit).ends_with("xxend\n"));
        let mut deaf = shell("exit 0");
        deaf.stdin = vec![b'x'; 1 << 20];
        assert_eq!(process::run(deaf).await.expect("sh is there").code, Some(0));
    });
}

#[test]
fn a_missing_program_is_named() {
    on_both(async || {
        let spec = Spec { argv: vec!["/no/such/program".into()], ..Spec::default() };
        let error = process::run(spec).await.expect_err("it does not exist");
        assert!(error.to_string().contains("/no/such/program"), "{error}");
        assert!(process::run(Spec::default()).await.is_err());
    });
}

#[test]
fn a_timeout_kills_the_grandchildren_too() {
    on_both(async || {
        let mut spec = shell("sleep 1000 & echo $!; sleep 1000");
        spec.timeout = Some(Duration::from_millis(200));
        let exit = process::run(spec).await.expect("sh is there");
        assert!(exit.timed_out);
        assert_eq!(exit.signal, Some(9));
        let grandchild = text(&exit).trim().to_owned();
        assert!(!grandchild.is_empty());
        // Whoever inherits it reaps it, or not: it must only be dead.
        while !matches!(state_of(&grandchild), None | Some('Z' | 'X')) {
            time::sleep(Duration::from_millis(2)).await;
        }
    });
}

#[test]
fn a_grandchild_that_keeps_the_pipe_open_does_not_hold_us() {
    on_both(async || {
        let start = time::now();
        let exit = process::run(shell("sleep 30 & echo $!; exit 0")).await.expect("sh is there");
        assert_eq!(exit.code, Some(0));
        assert!(start.elapsed() < Duration::from_secs(20));
        process::run(shell(&format!("kill {}", text(&exit).trim()))).await.expect("sh is there");
    });
}

#[test]
fn a_dropped_run_kills_and_reaps_its_child() {
    on_both(async || {
        let run = process::run(shell("sleep 1000"));
        assert_eq!(time::timeout(Duration::from_millis(50), run).await.map(|_| ()), None);
        let many: Vec<_> = (0..20).map(|_| task::spawn(process::run(shell("exit 0")))).collect();
        for child in many {
            assert_eq!(child.await.expect("no panic").expect("sh is there").code, Some(0));
        }
        // Children of tests that run beside this one may be zombies for a moment: only lasting ones count.
        let mut suspects = zombies();
        while !suspects.is_empty() {
            time::sleep(Duration::from_millis(10)).await;
            let still = zombies();
            suspects.retain(|pid| still.contains(pid));
        }
    });
}

#[test]
fn signals_arrive_as_events() {
    const ROLE: &str = "MUSTER_TEST_SIGNALS";
    if std::env::var_os(ROLE).is_none() {
        // The mask must be set before any thread starts, so a process of its own: it is this test again.
        on_both(async || {
            let program = std::env::current_exe().expect("this program").into_os_string();
            let arguments = ["--exact", "signals_arrive_as_events", "--nocapture", "--test-threads=1"];
            let mut spec =
                Spec { argv: vec![program], env: vec![(ROLE.into(), "1".into())], ..Spec::default() };
            spec.argv.extend(arguments.map(OsString::from));
            spec.output_max = 4096;
            let exit = process::run(spec).await.expect("this program runs");
            assert_eq!(exit.code, Some(0), "{}", text(&exit));
        });
        return;
    }
    signal::block_in_main();
    on_both(async || {
        let mut signals = signal::listen().expect("a descriptor is left");
        let expectations = [
            (libc::SIGHUP, Signal::Hangup),
            (libc::SIGINT, Signal::Interrupt),
            (libc::SIGTERM, Signal::Terminate),
        ];
        for (number, expected) in expectations {
            // SAFETY: takes no pointer. Directed at this very thread: the harness's main thread has not blocked it.
            assert_eq!(unsafe { libc::raise(number) }, 0);
            assert_eq!(signals.next().await.expect("the descriptor works"), expected);
        }
    });
}

#[test]
fn files_are_replaced_whole_and_listed() {
    on_both(async || {
        let directory = tempfile::tempdir().expect("a directory for the test");
        let path = directory.path().join("deep/down/file.json");
        fs::write_atomically(path.clone(), b"one".to_vec(), 0o600).await.expect("it can be written");
        fs::write_atomically(path.clone(), b"two".to_vec(), 0o600).await.expect("it can be written");
        assert_eq!(fs::read(path.clone()).await.expect("it is there"), b"two");
        assert_eq!(
            fs::list(directory.path().join("deep/down")).await.expect("it is there"),
            std::slice::from_ref(&path)
        );
        fs::remove(path.clone()).await.expect("it can be removed");
        fs::remove(path.clone()).await.expect("twice, too");
        let error = fs::read(path.clone()).await.expect_err("it is gone");
        assert!(error.to_string().contains("file.json"), "{error}");
        assert!(fs::list(directory.path().join("nowhere")).await.expect("missing is empty").is_empty());
    });
}

#[test]
fn a_lock_excludes_others_until_it_is_dropped() {
    let directory = tempfile::tempdir().expect("a directory for the test");
    let path = directory.path().join("lock");
    let lock = fs::lock(&path).expect("nobody has it");
    let error = fs::lock(&path).expect_err("it is held");
    assert!(
        error.kind() == std::io::ErrorKind::WouldBlock && error.to_string().contains("another agent"),
        "{error}"
    );
    drop(lock);
    fs::lock(&path).expect("it is free again");
}

/// An agent that was killed held its lock for a moment longer, and the next one refused to start.
#[test]
fn a_lock_whose_holder_is_just_ending_is_waited_for() {
    let directory = tempfile::tempdir().expect("a directory for the test");
    let path = directory.path().join("lock");
    let lock = fs::lock(&path).expect("nobody has it");
    let ending = std::thread::spawn(move || {
        std::thread::sleep(std::time::Duration::from_millis(200));
        drop(lock);
    });
    fs::lock(&path).expect("it becomes free");
    ending.join().expect("it has ended");
}
