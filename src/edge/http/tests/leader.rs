//! Reads and writes where nobody leads.

use super::*;
use crate::consensus::{Consistency, ProposeError};
use crate::edge::fresh::puppet::{FOLLOWER, LEADER};

const NO_SERVER: Setup = Setup { server: false, ..Setup::PLAIN };

#[test]
fn an_agent_that_knows_no_server_says_so() {
    with_site_as(NO_SERVER, |site| async move {
        let mut client = site.client().await;
        let ways = ["", "?consistent", "?stale", "?max_stale=5m", "?index=1&wait=60s"];
        // The second time around, nothing may be answered from memory.
        for way in ways.iter().chain(&ways) {
            for path in ["/v1/kv/x", "/v1/catalog/nodes", "/v1/health/service/x"] {
                let answer = client.get(&format!("{path}{way}")).await;
                let seen = (answer.status, answer.text());
                assert_eq!(seen, (500, "No known Consul servers".to_owned()), "{path}{way}");
                let discovery = path != "/v1/kv/x";
                for (name, value) in [
                    ("X-Consul-Index", "1"),
                    ("X-Consul-KnownLeader", "false"),
                    ("X-Consul-LastContact", "0"),
                ] {
                    assert_eq!(answer.header(name), discovery.then_some(value), "{path}{way}");
                }
            }
        }
        for path in ["/v1/status/leader", "/v1/status/peers", "/v1/catalog/datacenters"] {
            let answer = client.get(path).await;
            assert_eq!((answer.status, answer.text()), (500, "No known Consul servers".to_owned()), "{path}");
            assert_eq!(answer.header("X-Consul-Index"), None);
        }
        client.send("PUT /v1/kv/x HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\n\r\n1").await;
        let answer = client.answer().await;
        assert_eq!((answer.status, answer.text()), (500, "No known Consul servers".to_owned()));
        // What the agent knows itself needs nobody.
        assert_eq!(client.get("/v1/agent/services").await.status, 200);
    });
}

const LED: Setup = Setup { contact: Some(FOLLOWER), ..Setup::PLAIN };

fn request(target: &str) -> String {
    format!("GET {target} HTTP/1.1\r\nHost: x\r\n\r\n")
}

/// Waits until the server has read what was sent to it before.
async fn settle(site: &Site) {
    assert_eq!(site.client().await.get("/v1/status/leader").await.status, 200);
}

fn said(answer: &Answer) -> (Option<&str>, Option<&str>, Option<&str>) {
    (
        answer.header("X-Consul-Effective-Consistency"),
        answer.header("X-Consul-KnownLeader"),
        answer.header("X-Consul-LastContact"),
    )
}

#[test]
fn a_follower_answers_behind_a_barrier_and_says_nothing_of_its_own_age() {
    with_site_as(LED, |site| async move {
        let mut client = site.client().await;
        // The second time the question is remembered, and waits all the same.
        for (query, kind, word) in [
            ("", Consistency::Default, "leader"),
            ("", Consistency::Default, "leader"),
            ("?consistent", Consistency::Consistent, "consistent"),
            ("?consistent", Consistency::Consistent, "consistent"),
            ("?max_stale=39ms", Consistency::Default, "leader"),
            ("?max_stale=39ms", Consistency::Default, "leader"),
        ] {
            client.send(request(&format!("/v1/catalog/nodes{query}"))).await;
            site.puppet.end(&[kind], Ok(())).await;
            let answer = client.answer().await;
            assert_eq!(answer.status, 200);
            assert_eq!(said(&answer), (Some(word), Some("true"), Some("0")), "{query}");
        }
    });
}

#[test]
fn stale_reads_are_answered_at_once_and_tell_their_age() {
    with_site_as(LED, |site| async move {
        let mut client = site.client().await;
        for (age, known, shown) in
            [(30, true, "30"), (31, true, "31"), (12_345, false, "12345"), (0, true, "0")]
        {
            let last = Some(Duration::from_millis(age));
            site.puppet.contact.set(Contact { known_leader: known, last, ..FOLLOWER });
            for query in ["?stale", "?max_stale=20s"] {
                let answer = client.get(&format!("/v1/catalog/nodes{query}")).await;
                let known = if known { "true" } else { "false" };
                assert_eq!(said(&answer), (Some("stale"), Some(known), Some(shown)), "{query}");
            }
        }
        assert!(site.puppet.idles());
    });
}

#[test]
fn a_leader_asks_nobody_until_its_lease_is_over() {
    with_site_as(LED, |site| async move {
        let mut client = site.client().await;
        site.puppet.contact.set(LEADER);
        for _ in 0..2 {
            assert_eq!(client.get("/v1/kv/none").await.status, 404);
        }
        client.send(request("/v1/kv/none?consistent")).await;
        site.puppet.end(&[Consistency::Consistent], Ok(())).await;
        assert_eq!(client.answer().await.status, 404);
        site.puppet.contact.set(Contact { leads: false, ..LEADER });
        client.send(request("/v1/kv/none")).await;
        site.puppet.end(&[Consistency::Default], Ok(())).await;
        assert_eq!(client.answer().await.status, 404);
        site.puppet.contact.set(Contact { alone: true, ..LEADER });
        assert_eq!(client.get("/v1/kv/none?consistent").await.status, 404);
        assert!(site.puppet.idles());
    });
}

#[test]
fn reads_of_all_connections_share_barriers() {
    with_site_as(LED, |site| async move {
        let mut first = site.client().await;
        first.send(request("/v1/kv/k?raw")).await;
        while site.puppet.idles() {
            task::yield_now().await;
        }
        // Whoever comes now has to wait for the next one.
        let mut others = Vec::new();
        for _ in 0..50 {
            let mut client = site.client().await;
            client.send(request("/v1/kv/k?raw")).await;
            others.push(client);
        }
        settle(&site).await;
        site.put("k", "new").await;
        site.puppet.end(&[Consistency::Default], Ok(())).await;
        assert_eq!(first.answer().await.text(), "new");
        site.puppet.end(&[Consistency::Default], Ok(())).await;
        for other in &mut others {
            assert_eq!(other.answer().await.text(), "new");
        }
        assert!(site.puppet.idles());
    });
}

#[test]
fn a_blocking_query_passes_a_barrier_and_parks_here() {
    with_site_as(LED, |site| async move {
        site.put("k", "old").await;
        let mut client = site.client().await;
        // A log begins with its servers and the first leader's own entry.
        client.send(request("/v1/kv/k?raw&index=3&wait=60s")).await;
        site.puppet.end(&[Consistency::Default], Ok(())).await;
        settle(&site).await;
        site.put("k", "new").await;
        let answer = client.answer().await;
        assert_eq!((answer.text(), said(&answer)), ("new".to_owned(), (None, Some("true"), Some("0"))));
        // Nobody leads any more when it wakes: what it shows is new all the same.
        let index = answer.header("X-Consul-Index").expect("an index").to_owned();
        client.send(request(&format!("/v1/kv/k?raw&index={index}&wait=60s"))).await;
        site.puppet.end(&[Consistency::Default], Ok(())).await;
        settle(&site).await;
        site.puppet.contact.set(Contact { known_leader: false, ..FOLLOWER });
        site.put("k", "newer").await;
        let answer = client.answer().await;
        assert_eq!((answer.text(), said(&answer)), ("newer".to_owned(), (None, Some("false"), Some("0"))));
    });
}

#[test]
fn without_a_leader_reads_wait_for_one_and_then_fail() {
    fn impatient() -> Config {
        let mut config = config();
        config.performance.rpc_hold_timeout = Duration::from_millis(150);
        config
    }
    const NEVER_LED: Contact = Contact { known_leader: false, last: None, ..FOLLOWER };
    with_site_as(Setup { config: impatient, contact: Some(NEVER_LED), ..LED }, |site| async move {
        let mut client = site.client().await;
        for path in ["/v1/kv/x", "/v1/kv/x?stale", "/v1/catalog/nodes?max_stale=5m"] {
            let started = time::now();
            client.send(request(path)).await;
            site.puppet.end(&[Consistency::Default], Err(ProposeError::NoLeader)).await;
            let answer = client.answer().await;
            assert_eq!((answer.status, answer.text()), (500, "No cluster leader".to_owned()));
            let blank = path.starts_with("/v1/catalog").then_some("0");
            assert_eq!(answer.header("X-Consul-LastContact"), blank);
            assert!(started.elapsed() >= Duration::from_millis(150), "{:?}", started.elapsed());
            // The next try is under way already, or will be.
            while !site.puppet.idles() {
                site.puppet.end(&[Consistency::Default], Err(ProposeError::NoLeader)).await;
            }
        }
        // One comes in time.
        client.send(request("/v1/kv/x")).await;
        site.puppet.end(&[Consistency::Default], Err(ProposeError::LeadershipLost)).await;
        site.puppet.end(&[Consistency::Default], Ok(())).await;
        assert_eq!(client.answer().await.status, 404);
    });
}

#[test]
fn readers_who_leave_are_not_answered_and_not_kept() {
    with_site_as(LED, |site| async move {
        for _ in 0..10 {
            let mut client = site.client().await;
            client.send(request("/v1/kv/k")).await;
        }
        let mut client = site.client().await;
        client.send(request("/v1/kv/k")).await;
        settle(&site).await;
        while !site.puppet.idles() {
            site.puppet.end(&[Consistency::Default], Ok(())).await;
            settle(&site).await;
        }
        assert_eq!(client.answer().await.status, 404);
    });
}
