//! Sessions and locks on real servers: who renews keeps its lock whatever becomes of the leader, who does not loses it in
//! time, and those who wait for a lock get it one by one.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::clients::Fleet;
use super::harness::{Cluster, SOON, Server};
use super::support::http::{Reply, Request};
use super::support::wait;

const TTL: Duration = Duration::from_secs(3);
/// What a server adds to a TTL at most when nothing is in its way, on a busy machine.
const LATE: Duration = Duration::from_secs(2);

/// A running cluster that takes short TTLs.
fn cluster(count: usize) -> Cluster {
    let mut cluster = Cluster::new(count, &json!({"session_ttl_min": "1s"}));
    (0..count).for_each(|place| cluster.servers[place].start());
    cluster.await_leader();
    cluster
}

fn send(server: &Server, method: &str, path: &str, body: &str) -> Option<Reply> {
    Request::new(method, path).body(body).send(server.http).ok()
}

/// Creates a session that rests on nothing but its TTL; its ID.
fn create(server: &Server, mut fields: Value) -> String {
    fields["Checks"] = json!([]);
    wait::until("a session", SOON, || id_of(send(server, "PUT", "/v1/session/create", &fields.to_string())?))
}

fn id_of(created: Reply) -> Option<String> {
    (created.status == 200).then(|| created.json()["ID"].as_str().expect("an ID").to_owned())
}

fn acquire(server: &Server, key: &str, session: &str, more: &str) -> Option<bool> {
    let reply = send(server, "PUT", &format!("/v1/kv/{key}?acquire={session}{more}"), "held")?;
    (reply.status == 200).then(|| reply.text() == "true")
}

fn holder(server: &Server, key: &str) -> Option<String> {
    let rows = server.get(&format!("/v1/kv/{key}"))?.json();
    Some(rows[0]["Session"].as_str().unwrap_or("").to_owned())
}

fn renew(server: &Server, session: &str) -> Option<u16> {
    Some(send(server, "PUT", &format!("/v1/session/renew/{session}"), "")?.status)
}

#[test]
fn who_renews_keeps_its_lock_over_leaders_and_who_does_not_loses_it() {
    let mut cluster = cluster(3);
    let kept = create(&cluster.servers[0], json!({"TTL": "3s", "LockDelay": "0s"}));
    let sent = Instant::now();
    let left = create(&cluster.servers[1], json!({"TTL": "3s", "LockDelay": "0s", "Behavior": "delete"}));
    assert_eq!(acquire(&cluster.servers[2], "kept", &kept, ""), Some(true));
    assert_eq!(acquire(&cluster.servers[1], "left", &left, ""), Some(true));
    assert_eq!(acquire(&cluster.servers[0], "left", &kept, ""), Some(false));
    let mut lost = None;
    while sent.elapsed() < TTL + LATE && lost.is_none() {
        assert_eq!(renew(&cluster.servers[0], &kept), Some(200));
        let gone = cluster.servers[0].get("/v1/kv/left").is_none();
        lost = gone.then(|| sent.elapsed());
        thread::sleep(Duration::from_millis(50));
    }
    let lost = lost.expect("the session that nobody renews ends");
    assert!(lost >= TTL, "ended after {lost:?}");
    assert_eq!(renew(&cluster.servers[0], &left), Some(404));

    for _ in 0..2 {
        let leader = cluster.await_leader();
        cluster.servers[leader].kill();
        let until = Instant::now() + TTL + TTL;
        let other = (leader + 1) % 3;
        while Instant::now() < until {
            // None, or 500, while there is no leader: its owner does not count on the session then.
            let answer = renew(&cluster.servers[other], &kept);
            assert_ne!(answer, Some(404), "{}", cluster.servers[other].log());
            thread::sleep(Duration::from_millis(200));
        }
        assert_eq!(holder(&cluster.servers[other], "kept").as_ref(), Some(&kept));
        cluster.servers[leader].start();
        cluster.await_leader();
    }
    let renewed = Instant::now();
    assert_eq!(renew(&cluster.servers[0], &kept), Some(200));
    wait::until_true("the lock is free", SOON, || holder(&cluster.servers[0], "kept") == Some(String::new()));
    assert!(renewed.elapsed() >= TTL, "freed after {:?}", renewed.elapsed());
}

/// What came while the process stood still lies in the buffers of its sockets, and counts.
#[test]
fn a_leader_that_stood_still_expires_nobody_for_it() {
    let cluster = cluster(1);
    let server = &cluster.servers[0];
    let session = create(server, json!({"TTL": "3s"}));
    for _ in 0..2 {
        server.signal(libc::SIGSTOP);
        let renewing = thread::scope(|threads| {
            let renewing = threads.spawn(|| renew(server, &session));
            thread::sleep(TTL + TTL);
            server.signal(libc::SIGCONT);
            renewing.join().expect("a renewal")
        });
        assert_eq!(renewing, Some(200));
    }
}

#[test]
fn those_who_wait_get_a_lock_one_by_one() {
    const WAITERS: usize = 24;
    let mut cluster = cluster(3);
    let first = create(&cluster.servers[0], json!({"LockDelay": "0s"}));
    assert_eq!(acquire(&cluster.servers[0], "lock", &first, ""), Some(true));
    let leader = cluster.await_leader();
    let sessions: Vec<String> =
        (0..WAITERS).map(|n| create(&cluster.servers[n % 3], json!({"LockDelay": "0s"}))).collect();
    let written = || cluster.servers[leader].ask("/v1/agent/self")["Stats"]["raft"]["last_log_index"].clone();
    let number = |value: Value| value.as_str().and_then(|text| text.parse::<u64>().ok()).expect("a number");
    let (held, done) = (AtomicBool::new(false), AtomicUsize::new(0));
    let before = number(written());
    thread::scope(|threads| {
        for (n, session) in sessions.iter().enumerate() {
            let (server, held, done) = (&cluster.servers[n % 3], &held, &done);
            threads.spawn(move || {
                assert_eq!(acquire(server, "lock", session, "&wait=60s"), Some(true));
                assert!(!held.swap(true, Ordering::SeqCst), "two hold it");
                thread::sleep(Duration::from_millis(5));
                held.store(false, Ordering::SeqCst);
                let released = send(server, "PUT", &format!("/v1/kv/lock?release={session}"), "free");
                assert_eq!(released.map(|reply| reply.text()).as_deref(), Some("true"));
                done.fetch_add(1, Ordering::SeqCst);
            });
        }
        thread::sleep(Duration::from_millis(300));
        let destroyed = send(&cluster.servers[0], "PUT", &format!("/v1/session/destroy/{first}"), "");
        assert_eq!(destroyed.map(|reply| reply.status), Some(200));
    });
    assert_eq!(done.load(Ordering::SeqCst), WAITERS);
    let writes = number(written()) - before;
    // Acquired and released by each, and few attempts that came to nothing.
    assert!(writes <= 3 * WAITERS as u64 + 10, "{writes} writes");
}

#[test]
fn a_lock_delay_is_waited_for_and_a_wait_that_is_over_says_so() {
    let cluster = cluster(1);
    let server = &cluster.servers[0];
    let (one, other) = (create(server, json!({"LockDelay": "2s"})), create(server, json!({})));
    assert_eq!(acquire(server, "lock", &one, ""), Some(true));
    let began = Instant::now();
    let reply = send(server, "PUT", &format!("/v1/kv/lock?acquire={other}&wait=300ms"), "held");
    let reply = reply.expect("an answer");
    assert_eq!((reply.text().as_str(), reply.header("x-muster-waits")), ("false", Some("1")));
    assert!(began.elapsed() >= Duration::from_millis(300));
    // Who has the lock need not wait behind those who cannot have it.
    thread::scope(|threads| {
        threads.spawn(|| acquire(server, "lock", &other, "&wait=3s"));
        thread::sleep(Duration::from_millis(200));
        let again = Instant::now();
        assert_eq!(acquire(server, "lock", &one, "&wait=30s"), Some(true));
        assert!(again.elapsed() < Duration::from_secs(2), "after {:?}", again.elapsed());
    });
    // Nobody waits on with a session that has ended.
    let lost = create(server, json!({}));
    thread::scope(|threads| {
        let first = threads.spawn(|| acquire(server, "lock", &other, "&wait=20s"));
        thread::sleep(Duration::from_millis(200));
        let behind = threads.spawn(|| acquire(server, "lock", &lost, "&wait=60s"));
        thread::sleep(Duration::from_millis(200));
        send(server, "PUT", &format!("/v1/session/destroy/{lost}"), "").expect("an answer");
        let (ended, began) = (behind.join().expect("an answer"), Instant::now());
        assert_eq!(ended, None, "it is refused");
        assert!(began.elapsed() < Duration::from_secs(15));
        send(server, "PUT", &format!("/v1/kv/lock?release={one}"), "").expect("an answer");
        assert_eq!(first.join().expect("an answer"), Some(true));
    });
    send(server, "PUT", &format!("/v1/kv/lock?release={other}"), "").expect("an answer");
    assert_eq!(acquire(server, "lock", &one, ""), Some(true));
    let large = "x".repeat(20_000);
    let refused = send(server, "PUT", "/v1/session/create", &json!({"Name": large}).to_string());
    assert_eq!(refused.map(|reply| reply.status), Some(500), "renewals carry it between servers");
    let destroyed = Instant::now();
    send(server, "PUT", &format!("/v1/session/destroy/{one}"), "").expect("an answer");
    assert_eq!(acquire(server, "lock", &other, ""), Some(false));
    assert_eq!(acquire(server, "lock", &other, "&wait=30s"), Some(true));
    assert!(destroyed.elapsed() >= Duration::from_secs(2), "after {:?}", destroyed.elapsed());
    let unknown = send(server, "PUT", "/v1/kv/lock?acquire=11111111-2222-4333-8444-555555555555&wait=5s", "");
    let unknown = unknown.expect("an answer");
    let text = "invalid session \"11111111-2222-4333-8444-555555555555\"";
    assert_eq!((unknown.status, unknown.text().as_str()), (500, text));
}

#[test]
fn a_session_that_is_made_on_an_agent_lives_on_its_node() {
    let fleet = Fleet::start(1);
    let client = &fleet.cluster.servers[fleet.client];
    let session = wait::until("a session on the agent's node", SOON, || {
        id_of(send(client, "PUT", "/v1/session/create", "")?)
    });
    let info = client.ask(&format!("/v1/session/info/{session}"));
    assert_eq!(info[0]["Node"], json!(client.name));
    assert_eq!(renew(client, &session), Some(200));
    assert_eq!(acquire(client, "lock", &session, "&wait=5s"), Some(true));
    let other = create(client, json!({"Name": "waits", "Node": client.name}));
    // Who leaves while it waits is not given the lock.
    let leaving = Request::new("PUT", &format!("/v1/kv/lock?acquire={other}&wait=60s"));
    let mut connection = super::support::http::Connection::open(client.http).expect("a connection");
    connection.send(&leaving).expect("it is sent");
    assert_eq!(acquire(client, "lock", &other, "&wait=300ms"), Some(false));
    drop(connection);
    wait::until_true("nobody waits", SOON, || {
        let released = send(client, "PUT", &format!("/v1/kv/lock?release={session}"), "");
        released.is_some_and(|reply| reply.text() == "true")
    });
    thread::sleep(Duration::from_millis(300));
    assert_eq!(holder(client, "lock").as_deref(), Some(""));
}
