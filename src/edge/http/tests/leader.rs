//! Reads and writes where nobody leads.

use super::*;

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
