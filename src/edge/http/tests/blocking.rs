//! Blocking queries.

use super::*;

fn index(answer: &Answer) -> u64 {
    answer.header("X-Consul-Index").and_then(|index| index.parse().ok()).expect("an index")
}

/// Waits until so many queries are parked, as far as a client can tell: by asking for something else after them.
async fn settle(site: &Site) {
    assert_eq!(site.client().await.get("/v1/status/leader").await.status, 200);
}

#[test]
fn all_who_wait_for_a_key_hear_of_its_write() {
    fn unlimited() -> Config {
        let mut config = config();
        config.limits.http_max_conns_per_client = None;
        config
    }
    with_site_of(unlimited, |site| async move {
        site.put("k", "1").await;
        let mut watchers = Vec::new();
        for _ in 0..300 {
            watchers.push(site.client().await);
        }
        let before = index(&watchers[0].get("/v1/kv/k?raw").await);
        for watcher in &mut watchers {
            let head = format!("GET /v1/kv/k?raw&wait=60s&index={before} HTTP/1.1\r\nHost: x\r\n\r\n");
            watcher.send(head).await;
        }
        settle(&site).await;
        site.put("other", "x").await;
        site.put("k", "2").await;
        for watcher in &mut watchers {
            let answer = watcher.answer().await;
            assert_eq!(answer.text(), "2");
            assert!(index(&answer) > before);
        }
        // The connections serve on.
        for watcher in &mut watchers {
            assert_eq!(watcher.get("/v1/kv/k?raw").await.text(), "2");
        }
    });
}

#[test]
fn a_wait_ends_with_what_there_is() {
    with_site(|site| async move {
        site.put("k", "1").await;
        let mut client = site.client().await;
        let before = index(&client.get("/v1/kv/k?raw").await);
        let started = time::now();
        for ahead in [0, 1000] {
            let answer = client.get(&format!("/v1/kv/k?raw&wait=50ms&index={}", before + ahead)).await;
            assert_eq!((answer.text(), index(&answer)), ("1".to_owned(), before));
        }
        assert!(started.elapsed() >= Duration::from_millis(100));
    });
}

#[test]
fn requests_behind_a_parked_one_wait_for_it() {
    with_site(|site| async move {
        site.put("k", "1").await;
        let mut client = site.client().await;
        let before = index(&client.get("/v1/kv/k?raw").await);
        client
            .send(format!(
                "GET /v1/kv/k?raw&wait=60s&index={before} HTTP/1.1\r\nHost: x\r\n\r\n\
                 GET /v1/kv/k?raw HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
            ))
            .await;
        settle(&site).await;
        site.put("k", "2").await;
        assert_eq!(client.answer().await.text(), "2");
        assert_eq!(client.answer().await.text(), "2");
        assert!(client.is_closed().await);
    });
}

#[test]
fn a_client_that_leaves_frees_its_place() {
    with_site_of(
        || {
            let mut config = config();
            config.limits.http_max_conns_per_client = Some(3);
            config
        },
        |site| async move {
            site.put("k", "1").await;
            let before = index(&site.client().await.get("/v1/kv/k?raw").await);
            for _ in 0..50 {
                let mut client = site.client().await;
                client
                    .send(format!("GET /v1/kv/k?wait=60s&index={before} HTTP/1.1\r\nHost: x\r\n\r\n"))
                    .await;
                drop(client);
                // Only when the parked ones are let go is there room for another connection.
                while site.client().await.get("/v1/status/leader").await.status != 200 {
                    task::yield_now().await;
                }
            }
            site.put("k", "2").await;
        },
    );
}

#[test]
fn stopping_ends_parked_queries() {
    with_site(|site| async move {
        let mut client = site.client().await;
        client.send("GET /v1/kv/none?wait=300s&index=100 HTTP/1.1\r\nHost: x\r\n\r\n").await;
        settle(&site).await;
        site.shutdown.raise();
        assert!(client.is_closed().await);
    });
}

#[test]
fn requests_are_noted_by_route_and_method() {
    // Totals: the other form shows the last ten seconds that are over.
    const TOTALS: &str = "/v1/agent/metrics?format=prometheus";
    fn count(metrics: &str, name: &str) -> u64 {
        let name = format!("consul_{}_count ", name.replace('.', "_"));
        let found = metrics.lines().find_map(|line| line.strip_prefix(&name));
        found.map_or(0, |count| count.parse().expect("a count"))
    }
    fn collected() -> Config {
        let mut config = config();
        config.telemetry.prometheus_retention_time = Duration::from_secs(60);
        config
    }
    with_site_of(collected, |site| async move {
        site.put("k", "1").await;
        let mut client = site.client().await;
        let before = client.get(TOTALS).await.text();
        for _ in 0..3 {
            client.get("/v1/kv/k").await;
        }
        client.send("PUT /v1/kv/k HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\n\r\n2").await;
        assert_eq!(client.answer().await.status, 200);
        client.send("BREW /v1/kv/k HTTP/1.1\r\nHost: x\r\n\r\n").await;
        assert_eq!(client.answer().await.status, 405);
        let seen = index(&client.get("/v1/kv/k").await);
        client.get(&format!("/v1/kv/k?wait=1ms&index={seen}")).await;
        let after = client.get(TOTALS).await.text();
        // Other tests ask, too.
        for (name, least) in [("http.GET.v1.kv._", 5), ("http.PUT.v1.kv._", 1), ("http.OTHER.v1.kv._", 1)] {
            assert!(count(&after, name) >= count(&before, name) + least, "{name}: {after}");
        }
    });
}
