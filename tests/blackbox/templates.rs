//! `muster template` against a real agent: what changes is written, once, and its command runs once.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use serde_json::json;
use tempfile::TempDir;

use super::agent::{self, Agent, SOON};
use super::support::http;
use super::support::process::{self, Process};
use super::support::wait;

/// A folder with templates, what they are rendered to, and the program that does it.
struct Rendering {
    folder: TempDir,
    http: u16,
}

impl Rendering {
    fn of(agent: &Agent) -> Rendering {
        Rendering { folder: agent::new_folder(), http: agent.ports.http }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn write(&self, name: &str, text: &str) {
        fs::write(self.path(name), text).expect("a file of the test");
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = process::command();
        let addr = format!("-http-addr=127.0.0.1:{}", self.http);
        command.arg("template").arg(addr).args(args).current_dir(self.folder.path());
        command
    }

    fn start(&self, args: &[&str]) -> Process {
        Process::spawn(self.folder.path(), self.command(args)).expect("the program starts")
    }

    fn await_text(&self, name: &str, text: &str, program: &Process) {
        let what = format!("{name} is {text:?}");
        let read = || fs::read_to_string(self.path(name)).unwrap_or_default();
        let start = std::time::Instant::now();
        while read() != text {
            let log = program.log_tail();
            assert!(start.elapsed() < SOON, "{what}; it is {:?}\n{log}", read());
            std::thread::sleep(wait::PAUSE);
        }
    }

    fn lines(&self, name: &str) -> usize {
        fs::read_to_string(self.path(name)).unwrap_or_default().lines().count()
    }
}

fn register(agent: &Agent, id: &str, port: u16) {
    let check = json!({"TTL": "1h", "Status": "passing"});
    let body = json!({"ID": id, "Name": "web", "Port": port, "Tags": ["v1"], "Check": check});
    let reply =
        http::put(agent.ports.http, "/v1/agent/service/register", body.to_string()).expect("an answer");
    assert_eq!(reply.status, 200, "{}", reply.text());
}

fn put(agent: &Agent, path: &str, body: &str) {
    let reply = http::put(agent.ports.http, path, body.to_owned()).expect("an answer");
    assert_eq!(reply.status, 200, "{path}: {}", reply.text());
}

#[test]
fn a_flip_changes_the_file_and_the_command_runs_once() {
    let agent = Agent::dev(json!({}));
    register(&agent, "web-1", 81);
    register(&agent, "web-2", 82);
    let files = Rendering::of(&agent);
    files.write("in", "{{range service \"web\"}}{{.ID}}:{{.Port}} {{end}}");
    files.write("other", "{{key \"a\"}}");
    let mut program = files.start(&[
        "-template",
        "in:out: cat out >> ran; echo >> ran",
        "-template",
        "other:other.out:echo other >> ran",
    ]);
    files.await_text("out", "web-1:81 web-2:82 ", &program);
    // A key that is not there is waited for, and holds nothing else up.
    assert!(!files.path("other.out").exists());
    files.await_text("ran", "web-1:81 web-2:82 \n", &program);
    let inode =
        || std::os::unix::fs::MetadataExt::ino(&fs::metadata(files.path("out")).expect("it is there"));
    let before = inode();
    put(&agent, "/v1/agent/check/fail/service:web-2", "");
    files.await_text("ran", "web-1:81 web-2:82 \nweb-1:81 \n", &program);
    assert_ne!(inode(), before, "the file is replaced as a whole");
    let before = inode();
    // The output of a check that passes changes the answer, but not the file: nothing is written, nothing runs.
    put(&agent, "/v1/agent/check/update/service:web-1", r#"{"Status": "passing", "Output": "new"}"#);
    put(&agent, "/v1/kv/a", "first");
    files.await_text("other.out", "first", &program);
    files.await_text("ran", "web-1:81 web-2:82 \nweb-1:81 \nother\n", &program);
    assert_eq!(inode(), before);
    program.signal(libc::SIGTERM);
    let status = program.wait(SOON).expect("it ends");
    assert_eq!(process::describe(status), "exit code 11");
}

#[test]
fn once_waits_for_all_and_dry_writes_nothing() {
    let agent = Agent::dev(json!({"node_meta": {"rack": "r1"}}));
    register(&agent, "web-1", 81);
    put(&agent, "/v1/kv/conf/a", "1");
    put(&agent, "/v1/kv/conf/b/c", "2");
    let files = Rendering::of(&agent);
    files.write("in", "{{range services}}{{.Name}}={{range service .Name}}{{.ID}},{{end}} {{end}}{{with node}}{{.Node.Meta.rack}}{{end}} {{tree \"conf\" | explode | toJSON}}");
    let expected = "consul=consul, web=web-1, r1 {\"a\":\"1\",\"b\":{\"c\":\"2\"}}";
    let output = files.command(&["-once", "-dry", "-template", "in:out"]).output().expect("it runs");
    assert_eq!(String::from_utf8_lossy(&output.stdout), format!("> out\n{expected}\n"));
    assert!(output.status.success() && !files.path("out").exists());
    let output = files.command(&["-once", "-template", "in:made/out"]).output().expect("it runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!((output.stdout.len(), output.stderr.len()), (0, 0), "quiet in a pipe");
    assert_eq!(fs::read_to_string(files.path("made/out")).expect("rendered"), expected);
    // Mistakes end it, and say where they are.
    for (text, message) in [
        ("a\n{{nosuch}}", "template: in:2:3: function \"nosuch\" not defined\n"),
        (
            "{{range services}}\n{{.Nope}}{{end}}",
            "template: in:2:3: executing \"\" at <.Nope>: can't evaluate field Nope in type *dependency.CatalogSnippet\n",
        ),
    ] {
        files.write("in", text);
        let output = files.command(&["-once", "-template", "in:out"]).output().expect("it runs");
        assert_eq!(
            (output.status.code(), String::from_utf8_lossy(&output.stderr).as_ref()),
            (Some(14), message)
        );
    }
    // What cannot be read is told without anything being asked.
    files.write("in", "{{key \"never\"}}");
    let output = files.command(&["-parse-only", "-template", "in:out"]).output().expect("it runs");
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    files.write("in", "{{if}}");
    let output = files.command(&["-parse-only", "-template", "in:out"]).output().expect("it runs");
    assert_eq!(output.status.code(), Some(14));
    let output = files.command(&["-once", "-template", "in"]).output().expect("it runs");
    assert_eq!(output.status.code(), Some(10));
    files.write("in", "x");
    let output = files.command(&["-once", "-template", "in:out:exit 3"]).output().expect("it runs");
    assert_eq!(output.status.code(), Some(14));
    assert_eq!(
        String::from_utf8_lossy(&output.stderr),
        "failed to execute command \"exit 3\": exit status 3\n"
    );
}

#[test]
fn a_program_lives_as_long_as_its_file_is_rendered() {
    let agent = Agent::dev(json!({}));
    put(&agent, "/v1/kv/a", "one");
    let files = Rendering::of(&agent);
    files.write("in", "{{key \"a\"}}");
    files.write(
        "server",
        "echo start $(cat out) >> log.txt\ntrap 'echo reload $(cat out) >> log.txt' HUP\ntrap 'echo end >> log.txt; exit 0' TERM\ntrap 'exit 7' USR1\nwhile :; do sleep 0.02; done\n",
    );
    let args = [
        "-template",
        "in:out",
        "-exec",
        "exec sh server",
        "-exec-reload-signal",
        "SIGHUP",
        "-exec-kill-signal",
        "SIGTERM",
    ];
    let mut program = files.start(&args);
    files.await_text("log.txt", "start one\n", &program);
    put(&agent, "/v1/kv/a", "two");
    files.await_text("log.txt", "start one\nreload two\n", &program);
    program.signal(libc::SIGTERM);
    assert_eq!(process::describe(program.wait(SOON).expect("it ends")), "exit code 11");
    assert_eq!(fs::read_to_string(files.path("log.txt")).expect("a log"), "start one\nreload two\nend\n");

    // Its end is ours, with its code; other signals are handed on to it.
    let mut program = files.start(&args);
    wait::until_true("it is started again", SOON, || files.lines("log.txt") == 4);
    program.signal(libc::SIGUSR1);
    assert_eq!(process::describe(program.wait(SOON).expect("it ends")), "exit code 7");
}

#[test]
fn changes_settle_before_they_are_written() {
    let agent = Agent::dev(json!({}));
    put(&agent, "/v1/kv/a", "0");
    let files = Rendering::of(&agent);
    files.write("in", "{{key \"a\"}}");
    let program = files.start(&["-template", "in:out:echo >> ran", "-wait", "400ms:10s"]);
    files.await_text("out", "0", &program);
    wait::until_true("the first run", SOON, || files.lines("ran") == 1);
    for number in 1..=20 {
        put(&agent, "/v1/kv/a", &number.to_string());
    }
    files.await_text("out", "20", &program);
    wait::until_true("one run for twenty changes", SOON, || files.lines("ran") == 2);
}

#[test]
fn settings_are_read_again() {
    let agent = Agent::dev(json!({}));
    put(&agent, "/v1/kv/a", "one");
    let files = Rendering::of(&agent);
    files.write(
        "conf.hcl",
        "template { contents = \"{{ key \\\"a\\\" }}\"  destination = \"out\"  perms = 0600 }",
    );
    let mut program = files.start(&["-config", "conf.hcl"]);
    files.await_text("out", "one", &program);
    // What is wrong changes nothing.
    files.write("conf.hcl", "template {");
    program.signal(libc::SIGHUP);
    wait::until_true("it says what is wrong", SOON, || {
        program.log().contains("the settings stay as they were")
    });
    put(&agent, "/v1/kv/a", "two");
    files.await_text("out", "two", &program);
    files.write(
        "conf.hcl",
        "template { contents = \"<{{ key \\\"a\\\" }}>\"  destination = \"out\"  backup = true }",
    );
    program.signal(libc::SIGHUP);
    files.await_text("out", "<two>", &program);
    files.await_text("out.bak", "two", &program);
    let mode = |path: &Path| {
        std::os::unix::fs::PermissionsExt::mode(&fs::metadata(path).expect("it is there").permissions())
    };
    assert_eq!(mode(&files.path("out")) & 0o777, 0o600, "the mode of the file before");
    assert!(program.ended().is_none());
}

#[test]
fn more_is_watched_than_there_are_connections() {
    let agent = Agent::dev(json!({"limits": {"http_max_conns_per_client": 200}}));
    let files = Rendering::of(&agent);
    let mut text = String::new();
    for number in 0..260 {
        text += &format!("{{{{ key \"k/{number}\" }}}},");
    }
    files.write("in", &text);
    files.write("file", "x");
    files.write("in2", "{{file \"file\"}}{{range datacenters}}{{.}}{{end}}");
    let program = files.start(&["-template", "in:out", "-template", "in2:out2"]);
    files.await_text("out2", "xdc1", &program);
    for number in 0..260 {
        put(&agent, &format!("/v1/kv/k/{number}"), "v");
    }
    files.await_text("out", &"v,".repeat(260), &program);
    put(&agent, "/v1/kv/k/259", "w");
    files.await_text("out", &format!("{}w,", "v,".repeat(259)), &program);
    files.write("file", "changed");
    files.await_text("out2", "changeddc1", &program);
}

#[test]
fn an_agent_that_is_away_is_waited_for() {
    let agent = Agent::server(json!({}));
    put(&agent, "/v1/kv/a", "one");
    let files = Rendering::of(&agent);
    files.write("in", "{{key \"a\"}}");
    let mut program = files.start(&["-template", "in:out"]);
    files.await_text("out", "one", &program);
    let agent = agent.restart();
    wait::until_true("it takes writes again", Duration::from_secs(20), || {
        http::put(agent.ports.http, "/v1/kv/a", "two").is_ok_and(|reply| reply.status == 200)
    });
    files.await_text("out", "two", &program);
    assert!(program.ended().is_none());
}

/// Sends a signal again and again until the program ends: what it does about the second one counts, too.
fn ends_when_told(program: &mut Process, signal: i32) -> String {
    let start = std::time::Instant::now();
    loop {
        program.signal(signal);
        if let Some(status) = program.wait(Duration::from_millis(200)) {
            return process::describe(status);
        }
        assert!(start.elapsed() < SOON, "it does not end:\n{}", program.log_tail());
    }
}

#[test]
fn what_runs_for_long_ends_when_it_is_told_to() {
    let agent = Agent::dev(json!({}));
    put(&agent, "/v1/kv/a", "one");
    let files = Rendering::of(&agent);
    // A template that takes minutes.
    files.write("long", "{{range loop 400000000}}{{end}}");
    let mut program = files.start(&["-template", "long:out", "-pid-file", "pid"]);
    wait::until_true("it runs", SOON, || files.path("pid").exists());
    program.signal(libc::SIGINT);
    assert_eq!(process::describe(program.wait(SOON).expect("it ends")), "exit code 11");
    assert!(!files.path("out").exists());
    // A command, when the signal is one of our own choice.
    files.write("in", "{{key \"a\"}}");
    let mut program =
        files.start(&["-kill-signal", "SIGQUIT", "-template", "in:out:echo > started; exec sleep 1000"]);
    wait::until_true("its command runs", SOON, || files.path("started").exists());
    program.signal(libc::SIGQUIT);
    assert_eq!(process::describe(program.wait(SOON).expect("it ends")), "exit code 11");
}

#[test]
fn who_waits_for_a_program_hears_signals() {
    let agent = Agent::dev(json!({}));
    put(&agent, "/v1/kv/a", "one");
    let files = Rendering::of(&agent);
    files.write("in", "{{key \"a\"}}");
    files.write(
        "server",
        "trap 'echo term >> log.txt' TERM\ntrap 'echo usr1 >> log.txt' USR1\necho start >> log.txt\nwhile :; do sleep 0.02; done\n",
    );
    let exec = ["-template", "in:out", "-exec", "exec sh server"];
    // A change is told some time within days.
    let mut program =
        files.start(&[&exec[..], &["-exec-splay", "1000h", "-exec-reload-signal", "SIGUSR1"]].concat());
    files.await_text("log.txt", "start\n", &program);
    put(&agent, "/v1/kv/a", "two");
    files.await_text("out", "two", &program);
    program.signal(libc::SIGUSR1);
    files.await_text("log.txt", "start\nusr1\n", &program);
    program.signal(libc::SIGINT);
    assert_eq!(process::describe(program.wait(SOON).expect("it ends")), "exit code 11");
    // It is to be started anew, and takes its time.
    fs::remove_file(files.path("log.txt")).expect("a log");
    let kill = ["-exec-kill-signal", "SIGTERM", "-exec-kill-timeout", "1000h"];
    let mut program = files.start(&[&exec[..], &kill].concat());
    files.await_text("log.txt", "start\n", &program);
    put(&agent, "/v1/kv/a", "three");
    files.await_text("log.txt", "start\nterm\n", &program);
    program.signal(libc::SIGUSR1);
    files.await_text("log.txt", "start\nterm\nusr1\n", &program);
    assert_eq!(ends_when_told(&mut program, libc::SIGINT), "exit code 11");
    assert_eq!(files.lines("log.txt"), 3, "it is killed, and not started again");
}

#[test]
fn a_program_is_started_anew_when_the_one_before_is_gone() {
    let agent = Agent::dev(json!({}));
    put(&agent, "/v1/kv/a", "one");
    let files = Rendering::of(&agent);
    files.write("in", "{{key \"a\"}}");
    files.write(
        "server",
        "trap 'sleep 0.2; echo end >> log.txt; exit 0' TERM\necho start $(cat out) $TOKEN >> log.txt\nwhile :; do sleep 0.02; done\n",
    );
    let exec =
        ["-exec", "exec sh server", "-exec-kill-signal", "SIGTERM", "-exec-env-custom", "TOKEN=secret"];
    let mut program = files.start(&[&["-template", "in:out"], &exec[..]].concat());
    files.await_text("log.txt", "start one secret\n", &program);
    put(&agent, "/v1/kv/a", "two");
    files.await_text("log.txt", "start one secret\nend\nstart two secret\n", &program);
    program.signal(libc::SIGTERM);
    assert_eq!(process::describe(program.wait(SOON).expect("it ends")), "exit code 11");
    files.await_text("log.txt", "start one secret\nend\nstart two secret\nend\n", &program);
}

#[test]
fn plugins_start_as_from_a_shell() {
    let agent = Agent::dev(json!({}));
    let files = Rendering::of(&agent);
    files.write("plugin", "sleep 1000 &\necho $! > daemon\nexec grep SigBlk /proc/self/status\n");
    files.write("in", "{{plugin \"sh\" \"plugin\"}}");
    let start = std::time::Instant::now();
    let output =
        files.command(&["-once", "-allow-plugins", "-template", "in:out"]).output().expect("it runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(fs::read_to_string(files.path("out")).expect("rendered"), "SigBlk:\t0000000000000000");
    assert!(start.elapsed() < Duration::from_secs(25), "its daemon holds nothing up");
    // The daemon lives on; this test ends it.
    let daemon = fs::read_to_string(files.path("daemon")).expect("its number");
    let killed = Command::new("kill").args(["-9", daemon.trim()]).status().expect("kill");
    assert!(killed.success(), "the daemon lives on");
}
