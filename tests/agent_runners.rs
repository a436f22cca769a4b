//! Check runners against real sockets and programs on this host.

use std::io::{Read, Write};
use std::net::{TcpListener, UdpSocket};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use muster::health::plan::{Finding, HttpProbe, Plan, Probe, Thresholds, TlsProbe};
use muster::health::run::run;
use muster::health::tls::TlsConfigs;
use muster::runtime::cores::{self, Driver};
use muster::runtime::task;
use muster::store::model::Status;

/// Runs one check on a core of its own.
fn find(probe: Probe, timeout: Duration) -> Finding {
    let (sender, receiver) = mpsc::channel();
    let plan = Plan {
        probe,
        interval: Duration::from_secs(1),
        timeout,
        thresholds: Thresholds::default(),
        output_max: 64,
    };
    cores::run(Driver::Epoll, 1, move |_| {
        let (sender, plan) = (sender.clone(), plan.clone());
        Box::pin(async move {
            let finding = run(&plan, &TlsConfigs::default()).await;
            sender.send(finding).expect("the test waits");
        })
    })
    .expect("a core starts");
    receiver.recv().expect("a finding")
}

const LONG: Duration = Duration::from_secs(10);

/// Answers each connection with what `answer` makes of the request's head; the address to ask.
fn serve(answer: impl Fn(&str, &str) -> Vec<u8> + Send + 'static) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let own = address.clone();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut head = Vec::new();
            let mut piece = [0u8; 1024];
            while !head.windows(4).any(|w| w == b"\r\n\r\n") {
                match stream.read(&mut piece) {
                    Ok(0) | Err(_) => break,
                    Ok(n) => head.extend_from_slice(&piece[..n]),
                }
            }
            let _ = stream.write_all(&answer(&own, &String::from_utf8_lossy(&head)));
        }
    });
    address
}

fn ask(address: &str, path: &str) -> Finding {
    let url = format!("http://{address}{path}");
    find(Probe::Http(HttpProbe { url, ..HttpProbe::default() }), LONG)
}

fn closed_address() -> String {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string()
}

#[test]
fn http_statuses_bodies_and_redirects() {
    let address = serve(|own, head| {
        let path = head.split(' ').nth(1).unwrap_or_default();
        match path {
            "/redirect" => format!("HTTP/1.1 302 Found\r\nLocation: http://{own}/200\r\n\r\n").into(),
            "/relative" => b"HTTP/1.1 307 Temporary Redirect\r\nLocation: /200\r\n\r\n".to_vec(),
            "/loop" => b"HTTP/1.1 302 Found\r\nLocation: /loop\r\n\r\n".to_vec(),
            "/301" => b"HTTP/1.1 301 Moved Permanently\r\n\r\n".to_vec(),
            "/chunked" => {
                b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2;x=y\r\nde\r\n0\r\n\r\n"
                    .to_vec()
            }
            "/big" => [b"HTTP/1.1 200 OK\r\n\r\n".to_vec(), vec![b'a'; 100], vec![b'z'; 64]].concat(),
            "/cut" => b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nshort".to_vec(),
            "/junk" => b"SSH-2.0-OpenSSH\r\n\r\n".to_vec(),
            other => {
                let code = &other[1..];
                let reason = if code == "200" { "OK" } else { "Reason" };
                let body = format!("code {code}");
                format!("HTTP/1.1 {code} {reason}\r\nContent-Length: {}\r\n\r\n{body}", body.len()).into()
            }
        }
    });
    let url = |path: &str| format!("http://{address}{path}");
    let told = |path: &str, text: &str| format!("HTTP GET {}: {text}", url(path));
    for (path, status, output) in [
        ("/200", Status::Passing, told("/200", "200 OK Output: code 200")),
        ("/429", Status::Warning, told("/429", "429 Reason Output: code 429")),
        ("/503", Status::Critical, told("/503", "503 Reason Output: code 503")),
        ("/redirect", Status::Passing, told("/redirect", "200 OK Output: code 200")),
        ("/relative", Status::Passing, told("/relative", "200 OK Output: code 200")),
        ("/chunked", Status::Passing, told("/chunked", "200 OK Output: abcde")),
        ("/big", Status::Passing, told("/big", &format!("200 OK Output: {}", "z".repeat(64)))),
        ("/301", Status::Critical, format!("Get \"{}\": 301 response missing Location header", url("/301"))),
        ("/loop", Status::Critical, format!("Get \"{}\": stopped after 10 redirects", url("/loop"))),
        ("/cut", Status::Critical, format!("Get \"{}\": unexpected EOF", url("/cut"))),
    ] {
        assert_eq!(ask(&address, path), Finding { status, output }, "{path}");
    }
    let junk = ask(&address, "/junk");
    assert!(junk.output.contains("malformed HTTP response"), "{}", junk.output);
    let plain =
        Probe::Http(HttpProbe { url: url("/redirect"), disable_redirects: true, ..Default::default() });
    assert_eq!(find(plain, LONG).output, told("/redirect", "302 Found Output: "));
}

#[test]
fn http_method_header_and_body_arrive() {
    let (seen, heads) = mpsc::channel();
    let seen = std::sync::Mutex::new(seen);
    let address = serve(move |_, head| {
        seen.lock().unwrap().send(head.to_owned()).unwrap();
        b"HTTP/1.1 200 OK\r\n\r\n".to_vec()
    });
    let probe = HttpProbe {
        url: format!("http://{address}/x"),
        method: "put".into(),
        header: [("X-Golden".to_owned(), vec!["f".to_owned()])].into(),
        ..HttpProbe::default()
    };
    find(Probe::Http(probe), LONG);
    let head = heads.recv().unwrap();
    assert!(head.starts_with("PUT /x HTTP/1.1\r\n") && head.contains("X-Golden: f\r\n"), "{head}");
    assert!(head.contains("User-Agent: Consul Health Check\r\n"), "{head}");
}

#[test]
fn http_failures_are_worded_as_in_go() {
    let closed = closed_address();
    let finding = ask(&closed, "/");
    let expected = format!("Get \"http://{closed}/\": dial tcp {closed}: connect: connection refused");
    assert_eq!(finding, Finding::critical(expected));
    let finding = find(Probe::Http(HttpProbe { url: "nonsense://x".into(), ..Default::default() }), LONG);
    assert_eq!(finding.output, "Get \"nonsense://x\": unsupported protocol scheme \"nonsense\"");
    // A server that takes the connection and says nothing.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/", silent.local_addr().unwrap());
    let probe = Probe::Http(HttpProbe { url: url.clone(), ..Default::default() });
    let finding = find(probe, Duration::from_millis(200));
    assert!(finding.output.starts_with(&format!("Get \"{url}\": context deadline exceeded")), "{finding:?}");
}

#[test]
fn tcp_connects_or_says_why_not() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let finding = find(Probe::Tcp { address: address.clone(), tls: None }, LONG);
    assert_eq!(finding, Finding::passing(format!("TCP connect {address}: Success")));
    let closed = closed_address();
    let finding = find(Probe::Tcp { address: closed.clone(), tls: None }, LONG);
    assert_eq!(finding.output, format!("dial tcp {closed}: connect: connection refused"));
    let port = address.rsplit(':').next().unwrap();
    let named = format!("localhost:{port}");
    assert_eq!(find(Probe::Tcp { address: named, tls: None }, LONG).status, Status::Passing);
    assert_eq!(find(Probe::Tcp { address: "no-port".into(), tls: None }, LONG).status, Status::Critical);
}

#[test]
fn udp_fails_on_a_refusal_only() {
    let open = UdpSocket::bind("127.0.0.1:0").unwrap();
    let address = open.local_addr().unwrap().to_string();
    let finding = find(Probe::Udp { address: address.clone() }, Duration::from_millis(200));
    assert_eq!(finding, Finding::passing(format!("UDP connect {address}: Success")));
    // Not the port just used: children that other tests are starting may hold it open for a moment more.
    let finding = find(Probe::Udp { address: closed_address() }, LONG);
    assert_eq!(finding.status, Status::Critical, "{finding:?}");
}

fn script(line: &str, timeout: Duration) -> Finding {
    find(Probe::Script { args: ["/bin/sh", "-c", line].map(String::from).into() }, timeout)
}

#[test]
fn scripts_speak_by_exit_code_and_output() {
    assert_eq!(script("echo fine", LONG), Finding::passing("fine\n"));
    assert_eq!(script("echo hm >&2; exit 1", LONG).status, Status::Warning);
    assert_eq!(script("exit 2", LONG).status, Status::Critical);
    assert_eq!(script("kill -9 $$", LONG).status, Status::Critical);
    let long = script("printf 'a%.0s' $(seq 200)", LONG);
    assert_eq!(long.output, format!("Captured 64 of 200 bytes\n...\n{}", "a".repeat(64)));
    let missing = find(Probe::Script { args: vec!["/no/such/program".into()] }, LONG);
    assert_eq!(missing.status, Status::Critical);
    assert_eq!(missing.output, "fork/exec /no/such/program: no such file or directory");
    let unknown = find(Probe::Script { args: vec!["no-such-program".into()] }, LONG);
    assert_eq!(unknown.output, "exec: \"no-such-program\": executable file not found in $PATH");
    let folder = find(Probe::Script { args: vec!["/etc".into()] }, LONG);
    assert_eq!(folder.output, "fork/exec /etc: permission denied");
}

#[test]
fn a_script_is_killed_at_its_timeout_with_all_it_started() {
    let folder = tempfile::tempdir().unwrap();
    let pid_file = folder.path().join("pid");
    let started = Instant::now();
    let line = format!("sleep 600 & echo $! > {}; wait", pid_file.display());
    let finding = script(&line, Duration::from_millis(400));
    assert_eq!(finding, Finding::critical("Timed out (400ms) running check"));
    assert!(started.elapsed() < Duration::from_secs(5));
    let pid = std::fs::read_to_string(&pid_file).unwrap();
    let stat = format!("/proc/{}/stat", pid.trim());
    // Killed is killed, but whoever inherits it may take a moment to reap it.
    let dead = || std::fs::read_to_string(&stat).map_or(true, |stat| stat.contains(") Z "));
    while !dead() {
        assert!(started.elapsed() < Duration::from_secs(5), "a grandchild outlived the check");
        std::thread::yield_now();
    }
}

#[test]
fn grpc_and_ping_failures_are_critical() {
    let closed = closed_address();
    let finding = find(Probe::Grpc { address: closed.clone(), service: "s".into(), tls: None }, LONG);
    assert_eq!(finding.status, Status::Critical);
    assert!(finding.output.contains("connection refused"), "{}", finding.output);
    // A server of another protocol.
    let http1 = serve(|_, _| b"HTTP/1.1 400 Bad Request\r\n\r\n".to_vec());
    let finding = find(Probe::H2Ping { address: http1, tls: None }, LONG);
    assert_eq!(finding.status, Status::Critical);
    let finding = find(Probe::H2Ping { address: closed, tls: Some(TlsProbe::default()) }, LONG);
    assert!(finding.output.starts_with("HTTP2 ping failed: dial tcp"), "{}", finding.output);
}

/// The test that plays the agent below, in a process of its own: the search path belongs to a whole process.
const IN_CHILD: &str = "MUSTER_TEST_SYSTEMCTL";

#[test]
fn units_are_asked_of_systemctl() {
    if std::env::var_os(IN_CHILD).is_some() {
        return ask_fake_systemctl();
    }
    let folder = tempfile::tempdir().unwrap();
    let fake = folder.path().join("systemctl");
    let script = "#!/bin/sh\n[ \"$1 $2\" = 'is-active --' ] || exit 9\ncase $3 in up) echo active;; \
                  starting) echo activating; exit 3;; stuck) sleep 600;; *) echo inactive; exit 3;; esac\n";
    std::fs::write(&fake, script).unwrap();
    std::fs::set_permissions(&fake, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let path = format!("{}:{}", folder.path().display(), std::env::var("PATH").unwrap_or_default());
    let child = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "units_are_asked_of_systemctl", "--nocapture"])
        .env(IN_CHILD, "1")
        .env("PATH", path)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&child.stdout) + String::from_utf8_lossy(&child.stderr);
    assert!(child.status.success(), "{said}");
}

fn ask_fake_systemctl() {
    let ask = |name: &str, timeout| find(Probe::OsService { name: name.into() }, timeout);
    assert_eq!(ask("up", LONG), Finding::passing("Service \"up\" is healthy"));
    let starting = ask("starting", LONG);
    assert_eq!((starting.status, &*starting.output), (Status::Warning, "Service \"starting\" is activating"));
    assert_eq!(ask("gone", LONG), Finding::critical("Service \"gone\" is not healthy: inactive"));
    assert_eq!(ask("stuck", Duration::from_millis(300)).status, Status::Critical);
}

/// Processes with `marker` in their command line, and zombies that are ours to bury.
fn leftovers(marker: &str) -> Vec<String> {
    let ours = format!(" Z {} ", std::process::id());
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc").unwrap().flatten() {
        let read = |file: &str| std::fs::read(entry.path().join(file)).unwrap_or_default();
        let (line, stat) = (read("cmdline"), read("stat"));
        let (line, stat) = (String::from_utf8_lossy(&line), String::from_utf8_lossy(&stat));
        if line.contains(marker) || stat.contains(&ours) {
            found.push(format!("{stat} {line}"));
        }
    }
    found
}

#[test]
fn two_hundred_scripts_that_time_out_leave_nothing_behind() {
    // Nobody else sleeps this long.
    const MARKER: &str = "86461.25";
    let plan = Plan {
        probe: Probe::Script {
            args: ["/bin/sh", "-c", &format!("sleep {MARKER} & sleep {MARKER}")].map(String::from).into(),
        },
        interval: Duration::from_secs(1),
        timeout: Duration::from_millis(30),
        thresholds: Thresholds::default(),
        output_max: 64,
    };
    cores::run(Driver::Epoll, 1, move |_| {
        let plan = plan.clone();
        Box::pin(async move {
            for _ in 0..10 {
                let runs: Vec<_> = (0..20)
                    .map(|_| {
                        let plan = plan.clone();
                        task::spawn(async move { run(&plan, &TlsConfigs::default()).await })
                    })
                    .collect();
                for run in runs {
                    let finding = run.await.expect("no panic");
                    assert_eq!(finding, Finding::critical("Timed out (30ms) running check"));
                }
            }
        })
    })
    .expect("a core starts");
    let patience = Instant::now() + Duration::from_secs(10);
    loop {
        let left = leftovers(MARKER);
        if left.is_empty() {
            return;
        }
        assert!(Instant::now() < patience, "left behind: {left:#?}");
        std::thread::yield_now();
    }
}
