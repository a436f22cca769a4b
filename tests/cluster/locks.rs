//! `muster lock` as those use it who run a standby: never two children at a time, whatever happens to whoever holds the lock.
//!
//! Each child writes down when it lived, by the machine's own clock since its start (`/proc/uptime`), into a file of its own:
//! nothing but these files is the proof. What fails is found by the children, not by what `lock` says about itself.

use std::collections::BTreeSet;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use serde_json::json;
use tempfile::TempDir;

use super::harness::{Cluster, SOON, Server};
use super::support::http;
use super::support::process::{Process, command};
use super::support::wait;

/// Of the sessions that `lock` makes, and what its locks are closed for after a session's end.
const TTL: f64 = 15.0;
const LOCK_DELAY: f64 = 15.0;
/// For a machine that is busy with other tests.
const SLACK: f64 = 10.0;
/// Nothing that is waited for here may take longer.
const LONG: Duration = Duration::from_secs(120);

/// A child that writes down that it lives, every 20 ms, and ends when it is told to.
const GENTLE: &str = "trap 'read up _ </proc/uptime; echo $up >>$OUT/$$; exit 0' TERM
while :; do read up _ </proc/uptime; echo $up >>$OUT/$$; sleep 0.02; done";
/// One that does not end when it is told to.
const STUBBORN: &str = "trap '' TERM
while :; do read up _ </proc/uptime; echo $up >>$OUT/$$; sleep 0.02; done";

/// Seconds since the machine started.
fn uptime() -> f64 {
    let text = fs::read_to_string("/proc/uptime").expect("the kernel's clock");
    text.split(' ').next().and_then(|word| word.parse().ok()).expect("seconds")
}

/// Servers that are in the catalog: sessions belong to a node.
fn registered(count: usize) -> Cluster {
    let cluster = Cluster::start(count);
    wait::until_true("all nodes in the catalog", SOON, || {
        let nodes = |server: &Server| server.get("/v1/catalog/nodes")?.json().as_array().map(Vec::len);
        cluster.servers.iter().all(|server| nodes(server) == Some(count))
    });
    cluster
}

/// A life of a child: its first and its last word.
#[derive(Clone, Copy, PartialEq, PartialOrd, Debug)]
struct Life {
    first: f64,
    last: f64,
}

/// Servers and some who want one lock.
struct Stage {
    cluster: Cluster,
    copies: Vec<Process>,
    folder: TempDir,
}

impl Stage {
    fn new(servers: usize) -> Stage {
        let folder = tempfile::Builder::new().prefix("locks-").tempdir().expect("a folder");
        fs::create_dir(folder.path().join("lives")).expect("a folder");
        Stage { cluster: registered(servers), copies: Vec::new(), folder }
    }

    fn out(&self) -> PathBuf {
        self.folder.path().join("lives")
    }

    /// One more that waits for the lock at one of the servers.
    fn join(&mut self, script: &str) -> usize {
        let place = self.copies.len();
        let folder = self.folder.path().join(format!("copy{place}"));
        fs::create_dir(&folder).expect("a folder");
        let server = &self.cluster.servers[place % self.cluster.servers.len()];
        let mut command = command();
        command.arg("lock").arg(format!("-http-addr=127.0.0.1:{}", server.http));
        command.args(["-verbose", "-name", &format!("copy{place}"), "service/db", script]);
        command.env("OUT", self.out()).env("SHELL", "/bin/sh");
        self.copies.push(Process::spawn(&folder, command).expect("started"));
        place
    }

    /// The lives of all children so far, in order, of which no two overlap.
    fn lives(&self) -> Vec<Life> {
        let mut lives: Vec<Life> = fs::read_dir(self.out())
            .expect("the folder of lives")
            .filter_map(|entry| life_in(&entry.expect("an entry").path()))
            .collect();
        lives.sort_by(|a, b| a.first.total_cmp(&b.first));
        for pair in lives.windows(2) {
            assert!(pair[0].last < pair[1].first, "two at a time: {lives:?}\n{}", self.logs());
        }
        lives
    }

    fn logs(&self) -> String {
        let logs = self.copies.iter().enumerate().map(|(i, copy)| format!("copy{i}:\n{}", copy.log()));
        logs.collect::<Vec<_>>().join("\n")
    }

    /// Waits until so many have lived.
    fn await_lives(&mut self, count: usize) -> Vec<Life> {
        wait::until(&format!("{count} children, one after another"), LONG, || {
            for place in 0..self.copies.len() {
                let failed = self.copies[place].ended().is_some_and(|status| status.code() == Some(1));
                assert!(!failed, "copy{place} has given up:\n{}", self.logs());
            }
            Some(self.lives()).filter(|lives| lives.len() >= count)
        })
    }

    /// The one whose child runs.
    fn holder(&self) -> usize {
        wait::until("one that holds the lock", SOON, || {
            self.copies.iter().position(|copy| {
                copy.log().contains("Starting handler") && !copy.log().contains("Error running handler")
            })
        })
    }

    fn signal_servers(&self, signal: i32) {
        self.cluster.servers.iter().for_each(|server| server.signal(signal));
    }
}

/// How many connections to a port are open.
fn connections(port: u16) -> usize {
    let table = fs::read_to_string("/proc/net/tcp").expect("the kernel's table");
    let (to, established) = (format!("0100007F:{port:04X}"), "01");
    let fields = table.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    fields.filter(|row| row.get(2) == Some(&to.as_str()) && row.get(3) == Some(&established)).count()
}

fn life_in(path: &Path) -> Option<Life> {
    let text = fs::read_to_string(path).ok()?;
    // The last line may be half written.
    let whole = text.rsplit_once('\n')?.0;
    let times: Vec<f64> = whole.lines().filter_map(|line| line.parse().ok()).collect();
    Some(Life { first: *times.first()?, last: *times.last()? })
}

/// Three copies; what happens to the holder; how late the next one may be. Returns how late it was.
fn fails_over(script: &str, happens: impl FnOnce(&mut Stage, usize), limit: f64) -> f64 {
    let mut stage = Stage::new(3);
    stage.join(script);
    stage.await_lives(1);
    stage.join(script);
    stage.join(script);
    wait::until_true("three sessions", SOON, || {
        stage.cluster.servers[0].ask("/v1/session/list").as_array().is_some_and(|all| all.len() == 3)
    });
    let holder = stage.holder();
    assert_eq!(holder, 0);
    let begun = uptime();
    happens(&mut stage, holder);
    let lives = stage.await_lives(2);
    let late = lives[1].first - begun;
    assert!(late < limit, "{late} s: {lives:?}\n{}", stage.logs());
    assert!(lives[0].last < begun + TTL, "{lives:?}");
    // It stays so, with whoever was stopped back again.
    stage.copies[holder].signal(libc::SIGCONT);
    let end = stage.copies[holder].wait(LONG);
    assert!(end.is_some(), "it should have ended:\n{}", stage.logs());
    let next = stage.lives()[1].last;
    wait::until_true("a second in which the next one lives", SOON, || stage.lives()[1].last > next + 1.0);
    assert_eq!(stage.lives().len(), 2);
    late
}

#[test]
fn a_killed_holder_is_replaced_by_one() {
    let late = fails_over(GENTLE, |stage, holder| stage.copies[holder].signal(libc::SIGKILL), 10.0);
    println!("kill -9 of lock, a child that ends when told: the next one after {late:.2} s");
}

#[test]
fn a_killed_holder_with_a_stubborn_child_is_replaced_by_one() {
    let late = fails_over(STUBBORN, |stage, holder| stage.copies[holder].signal(libc::SIGKILL), 5.0 + SLACK);
    println!("kill -9 of lock, a child that does not: the next one after {late:.2} s");
}

#[test]
fn a_stopped_holder_is_replaced_by_one() {
    let stop = |stage: &mut Stage, holder: usize| stage.copies[holder].signal(libc::SIGSTOP);
    let late = fails_over(STUBBORN, stop, TTL + LOCK_DELAY + SLACK);
    println!("SIGSTOP of lock: the next one after {late:.2} s");
}

#[test]
fn a_stopped_holder_that_is_cut_off_is_replaced_by_one() {
    let cut = |stage: &mut Stage, holder: usize| {
        let begun = uptime();
        stage.copies[holder].signal(libc::SIGSTOP);
        stage.signal_servers(libc::SIGSTOP);
        wait::until_true("the lease is over", LONG, || uptime() > begun + TTL);
        let lives = stage.lives();
        assert!(lives.len() == 1 && lives[0].last < begun + TTL, "{lives:?}");
        stage.signal_servers(libc::SIGCONT);
    };
    let late = fails_over(STUBBORN, cut, TTL + TTL + LOCK_DELAY + SLACK);
    println!("SIGSTOP of lock and of all servers for {TTL} s: the next one after {late:.2} s");
}

#[test]
fn a_holder_without_servers_ends_its_child_in_time() {
    let mut stage = Stage::new(1);
    stage.join(STUBBORN);
    stage.await_lives(1);
    let begun = uptime();
    stage.cluster.servers[0].signal(libc::SIGSTOP);
    assert!(stage.copies[0].wait(LONG).is_some(), "{}", stage.logs());
    let lives = stage.lives();
    assert!(lives[0].last < begun + TTL && lives[0].last > begun + 5.0, "{begun} {lives:?}");
    assert!(stage.copies[0].log().contains("Lock lost, killing child"), "{}", stage.logs());
    stage.cluster.servers[0].signal(libc::SIGCONT);
}

#[test]
fn a_holder_rides_out_an_election() {
    let mut stage = Stage::new(3);
    stage.join(GENTLE);
    stage.await_lives(1);
    let leader = stage.cluster.await_leader();
    if leader == 0 {
        // The holder asks the first server; the lead moves all the same when that one stands still for a moment.
        stage.cluster.servers[0].signal(libc::SIGSTOP);
        wait::until("another leader", SOON, || {
            let named = stage.cluster.servers[1].get("/v1/status/leader")?.json();
            let own = format!("127.0.0.1:{}", stage.cluster.servers[0].server_port);
            named.as_str().filter(|named| !named.is_empty() && *named != own).map(drop)
        });
        stage.cluster.servers[0].signal(libc::SIGCONT);
    } else {
        stage.cluster.servers[leader].kill();
    }
    stage.cluster.await_leader();
    let begun = stage.lives()[0].last;
    wait::until_true("longer than any lease", LONG, || {
        assert!(stage.copies[0].ended().is_none(), "{}", stage.logs());
        stage.lives()[0].last > begun + TTL
    });
    assert_eq!(stage.lives().len(), 1);
}

/// One that waits is stopped, gets the lock meanwhile, loses it with its session, and goes on when another holds it.
#[test]
fn who_stood_still_while_it_got_the_lock_starts_nothing() {
    let mut stage = Stage::new(1);
    stage.join(GENTLE);
    stage.await_lives(1);
    let late = stage.join(GENTLE);
    let holder = |stage: &Stage| -> Option<String> {
        let row = stage.cluster.servers[0].get("/v1/kv/service/db/.lock")?.json();
        row[0]["Session"].as_str().map(str::to_owned)
    };
    let first = holder(&stage).expect("a holder");
    wait::until_true("two sessions", SOON, || {
        stage.cluster.servers[0].ask("/v1/session/list").as_array().is_some_and(|all| all.len() == 2)
    });
    // The holder watches and the other one waits, each on a connection that stays, unlike those of renewals.
    let mut looks = 0;
    wait::until_true("it waits in line", SOON, || {
        looks = if connections(stage.cluster.servers[0].http) >= 2 { looks + 1 } else { 0 };
        looks == 20
    });
    stage.copies[late].signal(libc::SIGSTOP);
    stage.copies[0].signal(libc::SIGTERM);
    wait::until_true("the lock is the stopped one's", SOON, || holder(&stage).is_some_and(|id| id != first));
    wait::until_true("its session has ended", LONG, || holder(&stage).is_none());
    stage.join(GENTLE);
    stage.await_lives(2);
    stage.copies[late].signal(libc::SIGCONT);
    let mark = stage.lives()[1].last;
    wait::until_true("another two seconds", SOON, || stage.lives()[1].last > mark + 2.0);
    assert_eq!(stage.lives().len(), 2, "{}", stage.logs());
    assert!(!stage.copies[late].log().contains("Starting handler"), "{}", stage.logs());
}

/// A lock that one test has for itself, on one server.
struct One {
    cluster: Cluster,
    folder: TempDir,
}

impl One {
    fn new() -> One {
        One { cluster: registered(1), folder: tempfile::tempdir().expect("a folder") }
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = command();
        command.arg("lock").arg(format!("-http-addr=127.0.0.1:{}", self.cluster.servers[0].http)).args(args);
        command.env("SHELL", "/bin/sh").current_dir(self.folder.path());
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    fn run(&self, args: &[&str]) -> Output {
        self.command(args).output().expect("it runs")
    }

    fn keys(&self, prefix: &str) -> Vec<String> {
        let reply = http::get(self.cluster.servers[0].http, &format!("/v1/kv/{prefix}?keys"));
        match reply.expect("an answer") {
            reply if reply.status == 404 => Vec::new(),
            reply => serde_json::from_value(reply.json()).expect("keys"),
        }
    }

    fn sessions(&self) -> usize {
        self.cluster.servers[0].ask("/v1/session/list").as_array().expect("a list").len()
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn lock_says_and_ends_as_consul_s() {
    let one = One::new();
    let verbose = one.run(&["-verbose", "a/b", "echo", "$CONSUL_LOCK_HELD"]);
    assert_eq!(
        text(&verbose.stdout),
        "Setting up lock at path: a/b/.lock\nAttempting lock acquisition\nStarting handler\ntrue\n\
         Child terminated, releasing lock\nCleanup succeeded\n"
    );
    assert!(verbose.status.success() && verbose.stderr.is_empty());
    assert!(one.keys("a").is_empty() && one.sessions() == 0);

    let cases: [(&[&str], i32, &str, &str); 7] = [
        (&["x", "exit 3"], 0, "", "Error running handler: exit status 3\n"),
        (&["-child-exit-code", "x", "exit 3"], 2, "", "Error running handler: exit status 3\n"),
        (&["-child-exit-code", "-n=2", "x", "true"], 0, "", ""),
        (&["-shell=false", "x", "printf", "%s|", "a b", "$HOME"], 0, "a b|$HOME|", ""),
        (
            &["-shell=false", "-child-exit-code", "x", "no-such-program"],
            2,
            "",
            "Error starting handler: exec: \"no-such-program\": executable file not found in $PATH\n",
        ),
        (&["-n=2", "/", "true"], 1, "", "Lock setup failed: missing prefix\n"),
        (&["-try=-1s", "x", "true"], 1, "", "Timeout must be positive\n"),
    ];
    for (args, code, stdout, stderr) in cases {
        let out = one.run(args);
        let told = (out.status.code(), text(&out.stdout), text(&out.stderr));
        assert_eq!(told, (Some(code), stdout.to_owned(), stderr.to_owned()), "{args:?}");
    }

    let mut child = one.command(&["-pass-stdin", "x", "cat"]).stdin(Stdio::piped()).spawn().expect("it runs");
    child.stdin.take().expect("a pipe").write_all(b"through").expect("written");
    assert_eq!(text(&child.wait_with_output().expect("it ends").stdout), "through");
    assert_eq!((one.keys(""), one.sessions()), (Vec::new(), 0));
}

#[test]
fn a_lock_that_is_not_free_is_waited_for_in_vain() {
    let one = One::new();
    let mut holder = one.command(&["a", ": > held; sleep 600"]).spawn().expect("it runs");
    wait::until_true("a holder", SOON, || one.folder.path().join("held").exists());
    for option in ["-timeout=300ms", "-try=300ms"] {
        let out = one.run(&[option, "a", "echo no"]);
        assert_eq!((out.status.code(), text(&out.stdout).as_str()), (Some(1), ""));
        assert_eq!(text(&out.stderr), "Shutdown triggered or timeout during lock acquisition\n");
    }
    let out = one.run(&["-n=2", "a", "echo no"]);
    assert_eq!(
        text(&out.stderr),
        "Lock acquisition failed: Existing key does not match semaphore use\n",
        "a semaphore where a lock is"
    );
    assert_eq!(one.sessions(), 1);

    // The signal reaches the child, and the lock is free at once.
    // SAFETY: kill with the number of our own child, which is not reaped yet.
    unsafe { libc::kill(holder.id() as i32, libc::SIGTERM) };
    assert_eq!(holder.wait().expect("it ends").code(), Some(0));
    assert!(one.run(&["-timeout=5s", "a", "true"]).status.success());
    assert_eq!((one.keys(""), one.sessions()), (Vec::new(), 0));
}

#[test]
fn the_child_gets_the_signals() {
    let one = One::new();
    let script = "trap 'echo hup' HUP; trap 'echo usr1; exit 0' USR1; : > up; while :; do sleep 0.01; done";
    let child = one.command(&["-child-exit-code", "a", script]).spawn().expect("it runs");
    wait::until_true("the child is up", SOON, || one.folder.path().join("up").exists());
    for signal in [libc::SIGHUP, libc::SIGUSR1] {
        // SAFETY: kill with the number of our own child, which is not reaped yet.
        unsafe { libc::kill(child.id() as i32, signal) };
    }
    let out = child.wait_with_output().expect("it ends");
    assert_eq!((out.status.code(), text(&out.stdout).as_str()), (Some(0), "hup\nusr1\n"));
}

#[test]
fn whoever_waits_ends_by_the_signals_that_end_others() {
    let one = One::new();
    let mut holder = one.command(&["a", ": > held; exec sleep 600"]).spawn().expect("it runs");
    wait::until_true("a holder", SOON, || one.folder.path().join("held").exists());
    for (signal, code) in [(libc::SIGHUP, 129), (libc::SIGUSR1, 138), (libc::SIGTERM, 1)] {
        let mut waiting = one.command(&["a", "echo no"]).spawn().expect("it runs");
        wait::until_true("two sessions", SOON, || one.sessions() == 2);
        // SAFETY: kill with the number of our own child, which is not reaped yet.
        unsafe { libc::kill(waiting.id() as i32, signal) };
        assert_eq!(waiting.wait().expect("it ends").code(), Some(code));
        assert_eq!(one.sessions(), 1);
    }
    // SAFETY: as above.
    unsafe { libc::kill(holder.id() as i32, libc::SIGTERM) };
    assert_eq!(holder.wait().expect("it ends").code(), Some(0));
}

/// Perl's daemons ignore the ends of their children, and whoever they start inherits that.
#[test]
fn a_parent_that_ignores_its_children_changes_nothing() {
    let one = One::new();
    let mut command = one.command(&["-child-exit-code", "a", "exit 7"]);
    // SAFETY: signal is async-signal-safe and touches nothing but the child itself.
    unsafe {
        std::os::unix::process::CommandExt::pre_exec(&mut command, || {
            libc::signal(libc::SIGCHLD, libc::SIG_IGN);
            Ok(())
        });
    }
    let out = command.output().expect("it ends");
    assert_eq!(
        (out.status.code(), text(&out.stderr).as_str()),
        (Some(2), "Error running handler: exit status 7\n")
    );
}

#[test]
fn a_lock_that_is_taken_away_ends_the_child_at_once() {
    let one = One::new();
    let child = one.command(&["-verbose", "a", ": > up; exec sleep 600"]).spawn().expect("it runs");
    wait::until_true("the child is up", SOON, || one.folder.path().join("up").exists());
    let begun = uptime();
    http::Request::new("DELETE", "/v1/kv/a/.lock").send(one.cluster.servers[0].http).expect("an answer");
    let out = child.wait_with_output().expect("it ends");
    assert!(uptime() - begun < 5.0);
    let told = text(&out.stdout);
    assert!(told.contains("Lock lost, killing child\nTerminating child pid "), "{told}");
    assert!(told.contains("\nChild terminated\n"), "{told}");
    assert_eq!(text(&out.stderr), "Error running handler: signal: terminated\n");
}

/// Six restarts, two at a time: each writes down when it began and when it was done.
#[test]
fn two_of_six_restart_at_a_time() {
    let one = One::new();
    let script = "read a _ </proc/uptime; sleep 0.3; read b _ </proc/uptime; echo $a $b > restart$N";
    let all: Vec<_> = (0..6)
        .map(|n| {
            let mut command = one.command(&["-n=2", "-child-exit-code", "restart/web", script]);
            command.env("N", n.to_string()).spawn().expect("it runs")
        })
        .collect();
    for child in all {
        let out = child.wait_with_output().expect("it ends");
        assert_eq!((out.status.code(), text(&out.stderr).as_str()), (Some(0), ""));
    }
    let mut edges: Vec<(f64, i32)> = Vec::new();
    for n in 0..6 {
        let path = one.folder.path().join(format!("restart{n}"));
        let line = fs::read_to_string(path).expect("it was restarted");
        let times: Vec<f64> = line.split_whitespace().map(|word| word.parse().expect("seconds")).collect();
        edges.extend([(times[0], 1), (times[1], -1)]);
    }
    // An end before a beginning at the same moment: the clock has hundredths.
    edges.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
    let mut most = BTreeSet::new();
    edges.iter().fold(0, |now, (_, step)| {
        most.insert(now + step);
        now + step
    });
    assert_eq!(most.last(), Some(&2), "{edges:?}");
    assert_eq!((one.keys(""), one.sessions()), (Vec::new(), 0));
}

#[test]
fn a_semaphore_is_laid_out_as_consul_s() {
    let one = One::new();
    let mut holder = one.command(&["-n=2", "s", ": > up; exec sleep 600"]).spawn().expect("it runs");
    wait::until_true("the child is up", SOON, || one.folder.path().join("up").exists());
    let rows = one.cluster.servers[0].ask("/v1/kv/s?recurse");
    let rows = rows.as_array().expect("rows");
    let session = rows[1]["Session"].as_str().expect("a holder's key is held");
    assert_eq!(
        (rows[0]["Key"].as_str(), rows[1]["Key"].as_str()),
        (Some("s/.lock"), Some(&*format!("s/{session}")))
    );
    assert!(rows.iter().all(|row| row["Flags"] == json!(0xe0f6_9a2b_aa41_4de0_u64)));
    let list = one.cluster.servers[0].get("/v1/kv/s/.lock?raw").expect("the list").text();
    assert_eq!(list, format!("{{\"Limit\":2,\"Holders\":{{\"{session}\":true}}}}"));
    let other = one.run(&["-n=3", "s", "true"]);
    assert_eq!(
        text(&other.stderr),
        "Lock acquisition failed: semaphore limit conflict (lock: 2, local: 3)\n"
    );
    // SAFETY: kill with the number of our own child, which is not reaped yet.
    unsafe { libc::kill(holder.id() as i32, libc::SIGINT) };
    assert_eq!(holder.wait().expect("it ends").code(), Some(0));
    assert_eq!((one.keys(""), one.sessions()), (Vec::new(), 0));
}
