//! The commands as scripts see them: the real program against a small agent of the test's own that answers from a
//! script and keeps what it was asked.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::os::unix::net::UnixListener;
use std::process::{Command, Output, Stdio};
use std::thread::{self, JoinHandle};

/// What a command asked: method and target, then the body.
type Asked = Vec<(String, String)>;

/// Answers `replies` in order, one connection each, and returns what was asked.
fn serve<S: Read + Write>(accept: impl Fn() -> S, replies: &[(u16, &str)]) -> Asked {
    replies.iter().map(|(status, body)| exchange(accept(), *status, body)).collect()
}

/// One request and its answer; bodies are sent in two chunks.
fn exchange(stream: impl Read + Write, status: u16, body: &str) -> (String, String) {
    let mut stream = BufReader::new(stream);
    let mut lines = Vec::new();
    loop {
        let mut line = String::new();
        stream.read_line(&mut line).expect("request");
        let line = line.trim_end().to_owned();
        if line.is_empty() {
            break;
        }
        lines.push(line);
    }
    let length =
        lines.iter().find_map(|l| l.strip_prefix("Content-Length: ")).map_or(0, |n| n.parse().expect("n"));
    let mut sent = vec![0; length];
    stream.read_exact(&mut sent).expect("body");
    let (a, b) = body.split_at(body.len() / 2);
    let chunk =
        |text: &str| if text.is_empty() { String::new() } else { format!("{:x}\r\n{text}\r\n", text.len()) };
    let head = "Content-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n";
    write!(stream.get_mut(), "HTTP/1.1 {status} X\r\n{head}{}{}0\r\n\r\n", chunk(a), chunk(b))
        .expect("answer");
    let token = lines.iter().find_map(|l| l.strip_prefix("X-Consul-Token: ")).map_or("", |t| t);
    let target = lines[0].trim_end_matches(" HTTP/1.1");
    let asked = if token.is_empty() { target.to_owned() } else { format!("{target} token={token}") };
    (asked, String::from_utf8_lossy(&sent).into_owned())
}

/// An agent on a port of its own.
fn agent(replies: &'static [(u16, &'static str)]) -> (String, JoinHandle<Asked>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("port");
    let addr = listener.local_addr().expect("address").to_string();
    (addr, thread::spawn(move || serve(|| listener.accept().expect("connection").0, replies)))
}

/// Runs the program; the environment of the test does not count.
fn run(args: &[&str], addr: &str, stdin: &str) -> Output {
    let mut child = Command::new(env!("CARGO_BIN_EXE_muster"))
        .args(args)
        .env_clear()
        .env("CONSUL_HTTP_ADDR", addr)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("program");
    // A command that does not read its input may be gone already.
    let _ = child.stdin.take().expect("stdin").write_all(stdin.as_bytes());
    child.wait_with_output().expect("output")
}

/// Exit code, standard output, standard error.
fn seen(output: &Output) -> (i32, String, String) {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.code().expect("exit code"), text(&output.stdout), text(&output.stderr))
}

/// Runs one command against replies and compares everything.
fn check(
    args: &[&str],
    replies: &'static [(u16, &'static str)],
    asked: &[(&str, &str)],
    code: i32,
    stdout: &str,
    stderr: &str,
) {
    let (addr, server) = agent(replies);
    let output = run(args, &addr, "from stdin");
    let expected = (code, stdout.to_owned(), stderr.replace("ADDR", &addr));
    assert_eq!(seen(&output), expected, "{args:?}");
    let got = server.join().expect("server");
    let got: Vec<(&str, &str)> = got.iter().map(|(a, b)| (a.as_str(), b.as_str())).collect();
    assert_eq!(got, asked, "{args:?}");
}

#[test]
fn kv_writes_send_what_was_asked_and_say_how_it_went() {
    let put = |args: &[&str], reply, target: &str, body: &str, code, stdout: &str, stderr: &str| {
        check(args, reply, &[(target, body)], code, stdout, stderr);
    };
    put(
        &["kv", "put", "a/b", "x"],
        &[(200, "true")],
        "PUT /v1/kv/a/b",
        "x",
        0,
        "Success! Data written to: a/b\n",
        "",
    );
    put(
        &["kv", "put", "-flags=7", "-token=t", "a b", "-"],
        &[(200, "true\n")],
        "PUT /v1/kv/a%20b?flags=7 token=t",
        "from stdin",
        0,
        "Success! Data written to: a b\n",
        "",
    );
    put(
        &["kv", "put", "-cas", "-modify-index", "9", "a", "x"],
        &[(200, "false")],
        "PUT /v1/kv/a?cas=9",
        "x",
        1,
        "",
        "Error! Did not write to a: CAS failed\n",
    );
    put(
        &["kv", "put", "-acquire", "-session=s", "a"],
        &[(200, "true")],
        "PUT /v1/kv/a?acquire=s",
        "",
        0,
        "Success! Lock acquired on: a\n",
        "",
    );
    put(
        &["kv", "put", "-base64", "a", "aGk="],
        &[(413, "too large")],
        "PUT /v1/kv/a",
        "hi",
        1,
        "",
        "Error! Failed writing data: Unexpected response code: 413 (too large)\n",
    );
    put(
        &["kv", "delete", "-recurse", "--datacenter", "d2", "a"],
        &[(200, "true")],
        "DELETE /v1/kv/a?dc=d2&recurse=",
        "",
        0,
        "Success! Deleted keys with prefix: a\n",
        "",
    );
}

/// Two keys as the API answers them.
const TWO: &[(u16, &str)] = &[(
    200,
    r#"[{"LockIndex":0,"Key":"a","Flags":5,"Value":"aGk=","CreateIndex":3,"ModifyIndex":4},
        {"LockIndex":1,"Key":"b","Flags":0,"Value":null,"Session":"s","CreateIndex":5,"ModifyIndex":6}]"#,
)];

#[test]
fn kv_reads_print_as_consul_does() {
    check(&["kv", "get", "a"], TWO, &[("GET /v1/kv/a", "")], 0, "hi\n", "");
    check(&["kv", "get", "-base64", "a"], TWO, &[("GET /v1/kv/a", "")], 0, "aGk=\n", "");
    check(&["kv", "get", "-recurse", ""], TWO, &[("GET /v1/kv/?recurse=", "")], 0, "a:hi\nb:\n", "");
    let detailed = "CreateIndex      3\nFlags            5\nKey              a\nLockIndex        0\nModifyIndex      4\nSession          -\nValue            hi\n\nCreateIndex      5\nFlags            0\nKey              b\nLockIndex        1\nModifyIndex      6\nSession          s\nValue\n";
    check(&["kv", "get", "-recurse", "-detailed"], TWO, &[("GET /v1/kv/?recurse=", "")], 0, detailed, "");
    let asked: &[(&str, &str)] = &[("GET /v1/kv/none", "")];
    check(&["kv", "get", "none"], &[(404, "")], asked, 1, "", "Error! No key exists at: none\n");
    let asked: &[(&str, &str)] = &[("GET /v1/kv/x?keys=&separator=%2F&stale=", "")];
    check(&["kv", "get", "-stale", "-keys", "x"], &[(200, r#"["x/","xy"]"#)], asked, 0, "x/\nxy\n", "");
    let exported = "[\n\t{\n\t\t\"key\": \"a\",\n\t\t\"flags\": 5,\n\t\t\"value\": \"aGk=\"\n\t},\n\t{\n\t\t\"key\": \"b\",\n\t\t\"flags\": 0,\n\t\t\"value\": \"\"\n\t}\n]\n";
    check(&["kv", "export"], TWO, &[("GET /v1/kv/?recurse=", "")], 0, exported, "");
    check(
        &["kv", "import", r#"[{"key":"a","flags":5,"value":"aGk="},{"key":"b"}]"#],
        &[(200, "true"), (200, "true")],
        &[("PUT /v1/kv/a?flags=5", "hi"), ("PUT /v1/kv/b", "")],
        0,
        "Imported: a\nImported: b\n",
        "",
    );
}

#[test]
fn members_are_a_table_and_none_is_exit_code_two() {
    const MEMBERS: &[(u16, &str)] = &[(
        200,
        r#"[{"Name":"web-1","Addr":"fd00::1","Port":8301,"Tags":{"role":"node","build":"1.8.7:x","vsn":"2","dc":"dc1"},"Status":4},
            {"Name":"a","Addr":"10.0.0.1","Port":8301,"Tags":{"role":"consul","build":"1.8.7:x","vsn":"2","dc":"dc1","segment":""},"Status":1}]"#,
    )];
    let asked: &[(&str, &str)] = &[("GET /v1/agent/members?segment=_all", "")];
    let table = "Node   Address         Status  Type    Build  Protocol  DC   Segment\na      10.0.0.1:8301   alive   server  1.8.7  2         dc1  <all>\nweb-1  [fd00::1]:8301  failed  client  1.8.7  2         dc1  <default>\n";
    check(&["members"], MEMBERS, asked, 0, table, "");
    check(&["members", "-status=left"], MEMBERS, asked, 2, "", "");
}

#[test]
fn the_agent_is_told_and_asked() {
    check(
        &["maint", "-enable", "-reason=a b"],
        &[(200, "")],
        &[("PUT /v1/agent/maintenance?enable=true&reason=a+b", "")],
        0,
        "Node maintenance is now enabled\n",
        "",
    );
    check(
        &["maint"],
        &[
            (200, r#"{"Config":{"NodeName":"n"}}"#),
            (
                200,
                r#"{"_service_maintenance:x":{"ServiceID":"x","Notes":"r"},"_node_maintenance":{"Notes":"why"},"other":{}}"#,
            ),
        ],
        &[("GET /v1/agent/self", ""), ("GET /v1/agent/checks", "")],
        0,
        "Node:\n  Name:   n\n  Reason: why\n\nService:\n  ID:     x\n  Reason: r\n\n",
        "",
    );
    let asked: &[(&str, &str)] = &[("GET /v1/agent/self", "")];
    let stats: &[(u16, &str)] = &[(200, r#"{"Stats":{"b":{"y":"2","x":"1"},"a":{"z":"3"}}}"#)];
    check(&["info"], stats, asked, 0, "a:\n\tz = 3\nb:\n\tx = 1\n\ty = 2\n", "");
    let reload: &[(u16, &str)] = &[(500, "bad file")];
    let text = "Error reloading: Unexpected response code: 500 (bad file)\n";
    check(&["reload"], reload, &[("PUT /v1/agent/reload", "")], 1, "", text);
    let end = "line 1\nline 2\n\nRemote side ended the monitor! This usually means that the\nremote side has exited or crashed.\n";
    let asked: &[(&str, &str)] = &[("GET /v1/agent/monitor?logjson=true&loglevel=WARN", "")];
    check(&["monitor", "-log-level=WARN", "-log-json"], &[(200, "line 1\nline 2\n")], asked, 1, end, "");
}

#[test]
fn the_pool_is_joined_told_and_keyed() {
    let joined: &[(u16, &str)] = &[(200, ""), (500, "nobody")];
    let asked: &[(&str, &str)] =
        &[("PUT /v1/agent/join/10.0.0.1?wan=1", ""), ("PUT /v1/agent/join/10.0.0.2?wan=1", "")];
    let said = "Error joining address '10.0.0.2': Unexpected response code: 500 (nobody)\n";
    let done = "Successfully joined cluster by contacting 1 nodes.\n";
    check(&["join", "-wan", "10.0.0.1", "10.0.0.2"], joined, asked, 0, done, said);
    let asked: &[(&str, &str)] = &[("PUT /v1/agent/force-leave/n1?prune=1", "")];
    let unknown: &[(u16, &str)] = &[(500, "agent: No node found with name 'n1'")];
    let said = "Error force leaving: Unexpected response code: 500 (agent: No node found with name 'n1')\n";
    check(&["force-leave", "-prune", "n1"], unknown, asked, 1, "", said);

    const LISTED: &[(u16, &str)] = &[(
        200,
        r#"[{"WAN":true,"Datacenter":"dc1","Segment":"","Keys":{"k1":1},"PrimaryKeys":{"k1":1},"NumNodes":1},
            {"WAN":false,"Datacenter":"dc1","Segment":"","Messages":{"n1":"late"},"Keys":{"k1":1,"k2":2},"PrimaryKeys":{"k1":2},"NumNodes":2}]"#,
    )];
    let asked: &[(&str, &str)] = &[("GET /v1/operator/keyring?relay-factor=2", "")];
    let shown = "==> Gathering installed encryption keys...\n\nWAN:\n  k1 [1/1]\n\ndc1 (LAN):\n  n1: late\n  k1 [1/2]\n  k2 [2/2]\n";
    check(&["keyring", "-list", "-relay-factor=2"], LISTED, asked, 0, shown, "");
    let asked: &[(&str, &str)] = &[("POST /v1/operator/keyring?relay-factor=0", r#"{"Key":"k3"}"#)];
    let shown = "==> Installing new gossip encryption key...\n";
    check(&["keyring", "-install=k3"], &[(200, "")], asked, 0, shown, "");

    let fired: &[(u16, &str)] = &[(200, r#"{"ID":"u"}"#)];
    let asked: &[(&str, &str)] = &[("PUT /v1/event/fire/deploy?service=w.b", "now")];
    check(&["event", "-name=deploy", "-service=w.b", "now"], fired, asked, 0, "Event ID: u\n", "");
    const PLACES: &[(u16, &str)] = &[(
        200,
        r#"[{"Node":"a","Segment":"","Coord":{"Vec":[0,0,0,0,0,0,0,0],"Error":1,"Adjustment":0,"Height":0.0005}},
            {"Node":"b","Segment":"","Coord":{"Vec":[0.01,0,0,0,0,0,0,0],"Error":1,"Adjustment":0,"Height":0.0005}}]"#,
    )];
    let asked: &[(&str, &str)] = &[("GET /v1/coordinate/nodes", "")];
    let shown = "Estimated a <-> b rtt: 11.000 ms (using LAN coordinates)\n";
    check(&["rtt", "a", "b"], PLACES, asked, 0, shown, "");
    check(&["rtt", "a", "c"], PLACES, asked, 1, "", "Could not find a coordinate for node \"c\"\n");
}

#[test]
fn services_come_from_flags_and_files() {
    check(
        &[
            "services",
            "register",
            "-name=web",
            "-port=80",
            "-tag=a",
            "-meta=k=v",
            "-tagged-address=wan=1.1.1.1:8",
        ],
        &[(200, "")],
        &[(
            "PUT /v1/agent/service/register",
            r#"{"Name":"web","Tags":["a"],"Meta":{"k":"v"},"Port":80,"TaggedAddresses":{"wan":{"Address":"1.1.1.1","Port":8}}}"#,
        )],
        0,
        "Registered service: web\n",
        "",
    );
    let dir = tempfile::tempdir().expect("folder");
    let file = dir.path().join("s.hcl");
    std::fs::write(
        &file,
        "service { name = \"a\" check { ttl = \"90s\" } }\nservice { id = \"b-1\" name = \"b\" }",
    )
    .expect("file");
    let path = file.to_str().expect("path");
    check(
        &["services", "register", path],
        &[(200, ""), (200, "")],
        &[
            ("PUT /v1/agent/service/register", r#"{"Name":"a","Checks":[{"TTL":"1m30s"}]}"#),
            ("PUT /v1/agent/service/register", r#"{"ID":"b-1","Name":"b"}"#),
        ],
        0,
        "Registered service: a\nRegistered service: b\n",
        "",
    );
    check(
        &["services", "deregister", path],
        &[(200, ""), (200, "")],
        &[("PUT /v1/agent/service/deregister/a", ""), ("PUT /v1/agent/service/deregister/b-1", "")],
        0,
        "Deregistered service: a\nDeregistered service: b-1\n",
        "",
    );
}

#[test]
fn an_agent_on_a_unix_socket_answers_too() {
    let dir = tempfile::tempdir().expect("folder");
    let path = dir.path().join("agent.sock");
    let listener = UnixListener::bind(&path).expect("socket");
    let server =
        thread::spawn(move || serve(|| listener.accept().expect("connection").0, &[(200, r#"["dc1"]"#)]));
    let output = run(&["catalog", "datacenters"], &format!("unix://{}", path.display()), "");
    assert_eq!(seen(&output), (0, "dc1\n".to_owned(), String::new()));
    assert_eq!(server.join().expect("server"), [("GET /v1/catalog/datacenters".to_owned(), String::new())]);
}

#[test]
fn operators_see_and_change_the_cluster() {
    const PEERS: &[(u16, &str)] = &[(
        200,
        r#"{"Servers":[{"ID":"b6041961-ac79-d720-0c95-6af041d1eedb","Node":"cx","Address":"127.0.0.1:18300","Leader":true,"ProtocolVersion":"3","Voter":true},
            {"ID":"0e","Node":"(unknown)","Address":"127.0.0.2:8300","Leader":false,"ProtocolVersion":"","Voter":false}],"Index":0}"#,
    )];
    let table = "Node       ID                                    Address          State     Voter  RaftProtocol\ncx         b6041961-ac79-d720-0c95-6af041d1eedb  127.0.0.1:18300  leader    true   3\n(unknown)  0e                                    127.0.0.2:8300   follower  false  <=1\n";
    let asked: &[(&str, &str)] = &[("GET /v1/operator/raft/configuration?stale=", "")];
    check(&["operator", "raft", "list-peers", "-stale"], PEERS, asked, 0, table, "");
    let remove = ["operator", "raft", "remove-peer", "-id=x"];
    let asked: &[(&str, &str)] = &[("DELETE /v1/operator/raft/peer?id=x", "")];
    check(&remove, &[(200, "")], asked, 0, "Removed peer with id \"x\"\n", "");
    let refused: &[(u16, &str)] = &[(500, "id \"x\" was not found in the Raft configuration")];
    let text = "Error removing peer: Unexpected response code: 500 (id \"x\" was not found in the Raft configuration)\n";
    check(&remove, refused, asked, 1, "", text);
    let neither = "Error removing peer: an address or id is required for the peer to remove\n";
    check(&["operator", "raft", "remove-peer"], &[], &[], 1, "", neither);
    let both = "Error removing peer: cannot give both an address and id\n";
    check(&["operator", "raft", "remove-peer", "-id=x", "-address=y"], &[], &[], 1, "", both);
    let asked: &[(&str, &str)] = &[("POST /v1/operator/raft/transfer-leader?id=x", "")];
    let transfer = ["operator", "raft", "transfer-leader", "-id=x"];
    check(&transfer, &[(200, r#"{"Success":true}"#)], asked, 0, "Success\n", "");
}

#[test]
fn autopilot_is_shown_and_set_as_by_consul() {
    const CONFIG: (u16, &str) = (
        200,
        r#"{"CleanupDeadServers":true,"LastContactThreshold":"1s","MaxTrailingLogs":250,"MinQuorum":3,"ServerStabilizationTime":"10s","RedundancyZoneTag":"z","DisableUpgradeMigration":false,"UpgradeVersionTag":"","CreateIndex":4,"ModifyIndex":9}"#,
    );
    let get: (&str, &str) = ("GET /v1/operator/autopilot/configuration", "");
    let shown = "CleanupDeadServers = true\nLastContactThreshold = 1s\nMaxTrailingLogs = 250\nMinQuorum = 3\nServerStabilizationTime = 10s\nRedundancyZoneTag = \"z\"\nDisableUpgradeMigration = false\nUpgradeVersionTag = \"\"\n";
    check(&["operator", "autopilot", "get-config"], &[CONFIG], &[get], 0, shown, "");
    let put = (
        "PUT /v1/operator/autopilot/configuration?cas=9",
        r#"{"CleanupDeadServers":false,"LastContactThreshold":"1.5s","MaxTrailingLogs":250,"MinQuorum":3,"ServerStabilizationTime":"10s","RedundancyZoneTag":"z","DisableUpgradeMigration":false,"UpgradeVersionTag":"","CreateIndex":4,"ModifyIndex":9}"#,
    );
    let set = [
        "operator",
        "autopilot",
        "set-config",
        "-cleanup-dead-servers=false",
        "-last-contact-threshold=1500ms",
    ];
    check(&set, &[CONFIG, (200, "true")], &[get, put], 0, "Configuration updated!\n", "");
    let late = "Configuration could not be atomically updated, please try again\n";
    check(&set, &[CONFIG, (200, "false")], &[get, put], 1, late, "");
    let wrong = "Failed to parse args: invalid value \"x\" for flag -last-contact-threshold: time: invalid duration \"x\"\n";
    check(&["operator", "autopilot", "set-config", "-last-contact-threshold=x"], &[], &[], 1, "", wrong);
    const STATE: &[(u16, &str)] = &[(
        200,
        r#"{"Healthy":true,"FailureTolerance":0,"OptimisticFailureTolerance":0,"Servers":{"b":{"ID":"b","Name":"n2","Address":"10.0.0.2:8300","NodeStatus":"alive","Version":"1.8.7","LastContact":"2ms","LastTerm":3,"LastIndex":42,"Healthy":true,"StableSince":"2020-11-06T14:51:00Z","ReadReplica":true,"Status":"non-voter","Meta":{"k":"v"},"NodeType":"read-replica"}},"Leader":"a","Voters":["a"],"ReadReplicas":["b"]}"#,
    )];
    let asked: &[(&str, &str)] = &[("GET /v1/operator/autopilot/state", "")];
    let text = "Healthy:                      true\nFailure Tolerance:            0\nOptimistic Failure Tolerance: 0\nLeader:                       a\nVoters:\n   a\nRead Replicas:\n   b\nServers:\n   b\n      Name:            n2\n      Address:         10.0.0.2:8300\n      Version:         1.8.7\n      Status:          non-voter\n      Node Type:       read-replica\n      Node Status:     alive\n      Healthy:         true\n      Last Contact:    2ms\n      Last Term:       3\n      Last Index:      42\n      Read Replica:    true\n      Meta\n         \"k\": \"v\"\n\n";
    check(&["operator", "autopilot", "state"], STATE, asked, 0, text, "");
}

#[test]
fn mistakes_end_with_one_and_help_with_zero() {
    let closed = {
        let listener = TcpListener::bind("127.0.0.1:0").expect("port");
        listener.local_addr().expect("address").to_string()
    };
    for (args, code, stderr) in [
        (&["kv", "get"][..], 1, "Error! Missing KEY argument\n".to_owned()),
        (&["kv", "get", "a", "b"], 1, "Too many arguments (expected 1, got 2)\n".to_owned()),
        (&["kv", "put", "-cas", "a", "x"], 1, "Must specify -modify-index with -cas!\n".to_owned()),
        (
            &["kv", "put", "a", "@/nonexistent"],
            1,
            "Error! Failed to read file: open /nonexistent: no such file or directory\n".to_owned(),
        ),
        (
            &["kv", "get", "a"],
            1,
            format!(
                "Error querying Consul agent: Get \"http://{closed}/v1/kv/a\": dial tcp {closed}: connect: connection refused\n"
            ),
        ),
        (&["validate"], 1, "Must specify at least one config file or directory\n".to_owned()),
        (
            &["kv", "get", "-namespace=x", "a"],
            1,
            "Namespaces are not available: got -namespace=x\n".to_owned(),
        ),
    ] {
        let (got, stdout, text) = seen(&run(args, &closed, ""));
        assert_eq!((got, stdout.as_str(), text), (code, "", stderr), "{args:?}");
    }
    for (args, code) in [
        (&["kv", "get", "-h"][..], 0),
        (&["agent", "--help"], 0),
        (&["kv"], 1),
        (&["kv", "-help"], 0),
        (&["members", "-foo"], 1),
        (&["operator"], 1),
        (&["operator", "raft"], 1),
        (&["operator", "raft", "-h"], 0),
        (&["operator", "autopilot", "state", "-h"], 0),
        (&["nothing"], 127),
        (&[], 127),
        (&["--help"], 0),
    ] {
        let (got, stdout, stderr) = seen(&run(args, &closed, ""));
        assert_eq!(got, code, "{args:?}");
        assert!(format!("{stdout}{stderr}").contains("Usage: "), "{args:?}");
    }
}

#[test]
fn local_commands_need_no_agent() {
    let (code, stdout, _) = seen(&run(&["version"], "", ""));
    assert_eq!(code, 0);
    assert!(stdout.starts_with("Consul v1.8.7\nRevision muster-"), "{stdout}");
    let (code, stdout, _) = seen(&run(&["keygen"], "", ""));
    assert_eq!((code, stdout.len()), (0, 45));
    let dir = tempfile::tempdir().expect("folder");
    let write = |name: &str, text: &str| {
        let path = dir.path().join(name);
        std::fs::write(&path, text).expect("file");
        path.to_str().expect("path").to_owned()
    };
    let good =
        write("a.hcl", "data_dir = \"/nonexistent/muster\" bind_addr = \"127.0.0.1\" node_name = \"n\"");
    let bad = write("b.json", r#"{"data_dir":"/nonexistent/muster","foo":1}"#);
    let (code, stdout, _) = seen(&run(&["validate", &good], "", ""));
    assert_eq!((code, stdout.as_str()), (0, "Configuration is valid!\n"));
    assert_eq!(seen(&run(&["validate", "-quiet", &good], "", "")), (0, String::new(), String::new()));
    let text = format!(
        "Config validation failed: failed to parse {bad}: 1 error occurred:\n\t* invalid config key foo\n"
    );
    assert_eq!(seen(&run(&["validate", &bad], "", "")), (1, String::new(), text));
}
