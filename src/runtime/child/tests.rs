//! Real children, real signals; deadlines of tenths of a second, and nothing that depends on how late the machine is.

use super::*;
use crate::runtime::time::boot_now;
use std::fs;

const LONG: Duration = Duration::from_secs(30);

fn sh(text: &str) -> Setup {
    Setup { argv: vec!["/bin/sh".into(), "-c".into(), text.into()], ..Setup::default() }
}

/// Waits until something is so.
fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + LONG;
    while !is_so() {
        assert!(Instant::now() < deadline, "waited in vain until {what}");
        thread::sleep(Duration::from_millis(2));
    }
}

/// A process of the group runs still: one that waits to be reaped does not.
fn runs(group: u32) -> bool {
    let all = fs::read_dir("/proc").expect("proc");
    all.filter_map(|entry| fs::read_to_string(entry.ok()?.path().join("stat")).ok()).any(|stat| {
        let mut fields = stat.rsplit(')').next().unwrap_or_default().split_whitespace();
        let state = fields.next().unwrap_or("Z");
        let of = fields.nth(1).and_then(|text| text.parse::<u32>().ok());
        state != "Z" && state != "X" && of == Some(group)
    })
}

fn parent_of(pid: u32) -> u32 {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).expect("the child's stat");
    let fields = stat.rsplit(')').next().expect("fields");
    fields.split_whitespace().nth(1).expect("parent").parse().expect("a number")
}

/// A lease of so many milliseconds, the last part of it grace.
fn lease(ms: u64, grace_ms: u64) -> Lease {
    let kill_at = boot_now() + Duration::from_millis(ms);
    Lease { stop_at: kill_at - Duration::from_millis(grace_ms), kill_at }
}

#[test]
fn ends_are_told_in_gos_words() {
    for (text, words) in [
        ("exit 3", "exit status 3"),
        ("kill -9 $$", "signal: killed"),
        ("kill $$", "signal: terminated"),
        ("exit 0", "exit status 0"),
    ] {
        for child in [Child::start(&sh(text)), Child::start_guarded(&sh(text), lease(60_000, 0), &[])] {
            let exit = child.expect("started").wait(Some(LONG)).expect("ended");
            assert_eq!(exit.to_string(), words, "{text}");
        }
    }
}

#[test]
fn what_cannot_be_run_is_said_in_gos_words() {
    for (program, words) in [
        ("no-such-program", "exec: \"no-such-program\": executable file not found in $PATH"),
        ("/no/such", "fork/exec /no/such: no such file or directory"),
        ("/etc/passwd", "fork/exec /etc/passwd: permission denied"),
    ] {
        let setup = Setup { argv: vec![program.into()], ..Setup::default() };
        for child in [Child::start(&setup), Child::start_guarded(&setup, lease(60_000, 0), &[])] {
            assert_eq!(child.err().expect("an error").to_string(), words);
        }
    }
}

#[test]
fn the_setup_is_kept() {
    let dir = tempfile::tempdir().expect("a folder");
    let setup = Setup {
        env: vec![("MUSTER_CHILD".into(), "here".into())],
        cwd: Some(dir.path().to_path_buf()),
        stdin: Stdin::Bytes(b"input".to_vec()),
        ..sh("test \"$MUSTER_CHILD\" = here && cat > told")
    };
    for guarded in [false, true] {
        let child = match guarded {
            false => Child::start(&setup),
            true => Child::start_guarded(&setup, lease(60_000, 0), &[]),
        };
        assert!(child.expect("started").wait(Some(LONG)).expect("ended").is_success());
        let told = dir.path().join("told");
        assert_eq!(fs::read(&told).expect("written"), b"input");
        fs::remove_file(&told).expect("removed");
    }
}

/// Starts a text both ways and waits until it has written its file `up`.
fn both(text: &str, check: impl Fn(Child, &Path)) {
    for guarded in [false, true] {
        let dir = tempfile::tempdir().expect("a folder");
        let setup = Setup { cwd: Some(dir.path().to_path_buf()), ..sh(text) };
        let child = match guarded {
            false => Child::start(&setup),
            true => Child::start_guarded(&setup, lease(60_000, 0), &[]),
        };
        let child = child.expect("started");
        until("the child is up", || dir.path().join("up").exists());
        check(child, dir.path());
    }
}

#[test]
fn stopping_ends_the_whole_group() {
    both("trap '' TERM; (trap '' TERM; sleep 600) & : > up; sleep 600", |child, _| {
        let group = child.id();
        assert!(child.wait(Some(Duration::ZERO)).is_none() && runs(group));
        let exit = child.stop(signal::TERM, Duration::from_millis(50));
        assert_eq!(exit.signal, Some(signal::KILL));
        assert!(!runs(group));
    });
}

#[test]
fn what_a_shell_ran_has_its_grace_after_the_shell() {
    let text = "(trap 'sleep 0.2; : > cleaned; exit' TERM; : > up; while :; do sleep 0.01; done) & wait";
    both(text, |child, dir| {
        let exit = child.stop(signal::TERM, LONG);
        assert_eq!(exit.signal, Some(signal::TERM));
        assert!(dir.join("cleaned").exists() && !runs(child.id()));
    });
}

#[test]
fn a_stopped_group_is_ended_too() {
    both(": > up; exec sleep 600", |child, _| {
        child.signal(libc::SIGSTOP);
        assert_eq!(child.stop(signal::TERM, LONG).signal, Some(signal::TERM));
    });
}

#[test]
fn an_ordinary_end_leaves_the_rest_of_the_group_alone() {
    both("sleep 600 & : > up; exit 0", |child, _| {
        let group = child.id();
        assert!(child.wait(Some(LONG)).expect("ended").is_success());
        drop(child);
        assert!(runs(group));
        sys::kill_group(group);
    });
}

#[test]
fn a_lease_that_is_not_renewed_ends_the_group() {
    let begun = boot_now();
    let gentle = Child::start_guarded(&sh("sleep 600"), lease(1_000, 900), &[]).expect("started");
    assert_eq!(gentle.wait(Some(LONG)).expect("ended").signal, Some(signal::TERM));
    let stubborn = sh("trap '' TERM; sleep 600 & wait; wait; sleep 600");
    let stubborn = Child::start_guarded(&stubborn, lease(300, 200), &[]).expect("started");
    assert_eq!(stubborn.wait(Some(LONG)).expect("ended").signal, Some(signal::KILL));
    assert!(!runs(stubborn.id()) && boot_now() - begun >= Duration::from_millis(400));
}

#[test]
fn a_renewed_lease_lets_it_live() {
    let first = lease(2_000, 1_000);
    let child = Child::start_guarded(&sh("sleep 600"), first, &[]).expect("started");
    child.extend(lease(60_000, 1_000));
    until("the first lease is over", || boot_now() > first.kill_at + Duration::from_millis(50));
    assert!(child.wait(Some(Duration::ZERO)).is_none() && runs(child.id()));
    child.extend(lease(0, 0));
    assert!(child.wait(Some(LONG)).is_some() && !runs(child.id()));
}

#[test]
fn nothing_is_started_when_the_lease_is_over() {
    let dir = tempfile::tempdir().expect("a folder");
    let setup = Setup { cwd: Some(dir.path().to_path_buf()), ..sh(": > started") };
    let kill_at = boot_now() + Duration::from_secs(60);
    for over in [lease(0, 0), Lease { stop_at: boot_now(), kill_at }] {
        // The child looks at the clock itself, but the guard may be faster, and has gentler means.
        if let Ok(child) = Child::start_guarded(&setup, over, &[]) {
            let signal = child.wait(Some(LONG)).expect("ended").signal;
            assert!(matches!(signal, Some(signal::KILL | signal::TERM)), "{signal:?}");
        }
    }
    assert!(!dir.path().join("started").exists());
}

/// An order that the guard has not read when it ends must not hide its last word.
#[test]
fn orders_at_the_end_change_nothing() {
    for _ in 0..50 {
        let child = Child::start_guarded(&sh("exit 7"), lease(60_000, 0), &[]).expect("started");
        while child.wait(Some(Duration::ZERO)).is_none() {
            child.extend(lease(60_000, 0));
        }
        assert_eq!(child.wait(None).expect("ended").code, Some(7));
    }
}

#[test]
fn what_a_killed_leader_ran_ends_with_it() {
    let text = "sleep 600 & kill -9 $$";
    let child = Child::start_guarded(&sh(text), lease(60_000, 30_000), &[]).expect("started");
    assert_eq!(child.wait(Some(LONG)).expect("ended").signal, Some(signal::KILL));
    assert!(!runs(child.id()) && !child.leaves_something());
}

#[test]
fn a_killed_guard_takes_the_group_along() {
    let text = "trap '' TERM; (trap '' TERM; sleep 600) & sleep 600";
    let child = Child::start_guarded(&sh(text), lease(60_000, 0), &[]).expect("started");
    sys::kill(parent_of(child.id()), signal::KILL);
    assert_eq!(child.wait(Some(LONG)).expect("ended").signal, Some(signal::KILL));
    assert!(!runs(child.id()));
}

#[test]
fn a_stopped_guard_is_stood_in_for() {
    let child = Child::start_guarded(&sh("sleep 600 & wait"), lease(300, 100), &[]).expect("started");
    let guard = parent_of(child.id());
    sys::kill(guard, libc::SIGSTOP);
    assert!(child.wait(Some(LONG)).is_some());
    assert!(!runs(child.id()) && !Path::new(&format!("/proc/{guard}")).exists());
}

#[test]
fn a_supervisor_that_is_heard_no_more_ends_the_group() {
    // Dropping the child is all the guard can see of a process that was killed.
    let child = Child::start_guarded(&sh("sleep 600 & wait"), lease(60_000, 30_000), &[]).expect("started");
    let group = child.id();
    assert!(runs(group));
    drop(child);
    until("the group is dead", || !runs(group));
}

#[test]
fn signals_have_names_and_numbers() {
    for text in ["SIGTERM", "TERM", "term", "15", " SIGTERM "] {
        assert_eq!(signal::number(text), Some(signal::TERM), "{text}");
    }
    assert_eq!((signal::number("SIGNO"), signal::number("0"), signal::number("65")), (None, None, None));
    assert_eq!(
        (signal::name(signal::HUP), signal::described(signal::HUP)),
        ("SIGHUP".into(), "hangup".into())
    );
}

/// Runs a text of the shell to its end, within so many milliseconds.
fn collected(text: &str, ms: u64, is_unwanted: &dyn Fn() -> bool) -> (Finish, String) {
    let bounds = Bounds { time: Duration::from_millis(ms), bytes: 1 << 20, is_unwanted };
    let (finish, output) = collect(&sh(text), &bounds).expect("started");
    // A read may take a little more than is asked for.
    assert!(output.stdout.len() <= bounds.bytes + (64 << 10), "{} bytes", output.stdout.len());
    (finish, String::from_utf8_lossy(&output.stdout).into_owned())
}

const LONG_MS: u64 = 30_000;

#[test]
fn what_a_program_prints_is_taken() {
    let bounds = Bounds { time: LONG, bytes: 1 << 20, is_unwanted: &|| false };
    let (finish, output) = collect(&sh("echo out; echo err >&2; exit 3"), &bounds).expect("started");
    assert_eq!((output.stdout.as_slice(), output.stderr.as_slice()), (&b"out\n"[..], &b"err\n"[..]));
    assert_eq!(finish, Finish::Ended(Exit { code: Some(3), signal: None }));
    // More than a pipe holds, on both.
    let text = "head -c 300000 /dev/zero; head -c 300000 /dev/zero >&2";
    let (_, output) = collect(&sh(text), &bounds).expect("started");
    assert_eq!((output.stdout.len(), output.stderr.len()), (300_000, 300_000));
    // It has nothing of ours, if that is asked for, and no signal is blocked in it.
    let setup = Setup {
        pristine: true,
        env: vec![("A".into(), "b".into())],
        ..sh("env; grep SigBlk /proc/self/status")
    };
    let blocked = thread::spawn(move || {
        sys::block_signals(&[signal::HUP, signal::TERM]);
        collect(&setup, &Bounds { time: LONG, bytes: 1 << 20, is_unwanted: &|| false }).expect("started").1
    });
    let text = String::from_utf8(blocked.join().expect("it ran").stdout).expect("text");
    assert!(text.contains("A=b\n") && !text.contains("HOME="), "{text}");
    assert!(text.contains("SigBlk:\t0000000000000000\n"), "{text}");
    assert!(collect(&Setup { argv: vec!["no-such-program".into()], ..Setup::default() }, &bounds).is_err());
}

#[test]
fn a_program_that_is_late_floods_or_is_unwanted_dies_with_its_group() {
    let ended = |pid: &str| {
        let pid: u32 = pid.trim().parse().expect("a number");
        until("what it started is gone", || {
            let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
            let state = stat.rsplit(')').next().unwrap_or_default().trim_start();
            state.is_empty() || state.starts_with(['Z', 'X'])
        });
    };
    let (finish, pid) = collected("sleep 1000 & echo $!; sleep 1000", 300, &|| false);
    assert_eq!(finish, Finish::Late);
    ended(&pid);
    let start = Instant::now();
    let is_unwanted = || start.elapsed() > Duration::from_millis(200);
    let (finish, pid) = collected("trap '' TERM; sleep 1000 & echo $!; wait", LONG_MS, &is_unwanted);
    assert_eq!(finish, Finish::Unwanted);
    ended(&pid);
    assert_eq!(collected("yes", LONG_MS, &|| false).0, Finish::Flooded);
}

#[test]
fn a_daemon_that_holds_the_output_open_holds_nothing_up() {
    let start = Instant::now();
    let (finish, pid) = collected("sleep 1000 & echo $!", LONG_MS, &|| false);
    assert!(matches!(finish, Finish::Ended(exit) if exit.is_success()), "{finish:?}");
    assert!(start.elapsed() < LONG / 2);
    // It lives on; this test ends it.
    let pid: u32 = pid.trim().parse().expect("a number");
    assert!(fs::read_to_string(format!("/proc/{pid}/cmdline")).is_ok_and(|line| line.starts_with("sleep")));
    sys::kill(pid, signal::KILL);
}
