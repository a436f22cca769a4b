//! Requests and answers.

use super::*;

#[test]
fn keep_alive_pipelining_and_closing() {
    with_site(|site| async move {
        let mut client = site.client().await;
        let get = "GET /v1/status/leader HTTP/1.1\r\nHost: x\r\n\r\n";
        client
            .send(format!("{get}PUT /test/echo HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabc{get}"))
            .await;
        assert_eq!(client.answer().await.text(), "\"127.0.0.1:8300\"\n");
        assert_eq!(client.answer().await.text(), "abc");
        assert_eq!(client.answer().await.text(), "\"127.0.0.1:8300\"\n");
        client.send("GET /v1/status/leader HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").await;
        assert_eq!(client.answer().await.header("Connection"), Some("close"));
        assert!(client.is_closed().await);

        let mut client = site.client().await;
        client.send("GET /v1/status/leader HTTP/1.0\r\nConnection: keep-alive\r\n\r\n").await;
        let answer = client.answer().await;
        assert!(answer.head.starts_with("HTTP/1.0 200 OK\r\n"));
        assert_eq!(answer.header("Connection"), Some("keep-alive"));
        client.send("GET /v1/status/leader HTTP/1.0\r\n\r\n").await;
        assert_eq!(client.answer().await.status, 200);
        assert!(client.is_closed().await);
    });
}

#[test]
fn more_pipelined_requests_than_fit_a_turn() {
    with_site(|site| async move {
        site.put("k", "v").await;
        let mut client = site.client().await;
        const REQUESTS: usize = 1000;
        client.send("GET /v1/kv/k?raw HTTP/1.1\r\nHost: x\r\n\r\n".repeat(REQUESTS)).await;
        for _ in 0..REQUESTS {
            assert_eq!(client.answer().await.text(), "v");
        }
    });
}

#[test]
fn a_request_in_single_bytes() {
    with_site(|site| async move {
        let mut client = site.client().await;
        let request =
            "PUT /test/echo HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n";
        for byte in request.bytes() {
            client.send([byte]).await;
            task::yield_now().await;
        }
        assert_eq!(client.answer().await.text(), "ok");
    });
}

#[test]
fn malformed_requests_are_answered_once_and_closed() {
    with_site(|site| async move {
        for (request, status) in [
            ("NONSENSE\r\n\r\n", 400),
            ("GET / HTTP/1.1\r\n\r\n", 400),
            ("PUT /v1/kv/x HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: bogus\r\n\r\n", 501),
            ("GET * HTTP/1.1\r\nHost: x\r\n\r\n", 400),
            ("PUT /v1/kv/x HTTP/1.1\r\nHost: x\r\nExpect: zork\r\nContent-Length: 2\r\n\r\nok", 417),
            ("PUT /v1/kv/x HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", 400),
        ] {
            let mut client = site.client().await;
            client.send(request).await;
            assert_eq!(client.answer().await.status, status, "{request:?}");
            assert!(client.is_closed().await);
        }
    });
}

#[test]
fn heads_and_bodies_have_limits() {
    with_site(|site| async move {
        let mut client = site.client().await;
        client
            .send(format!("GET /v1/status/leader HTTP/1.1\r\nHost: x\r\nA: {}\r\n\r\n", "f".repeat(20_000)))
            .await;
        assert_eq!(client.answer().await.status, 200);
        // The server may stop reading before all is sent: that is the point.
        let endless = format!("GET / HTTP/1.1\r\nHost: x\r\nA: {}", "f".repeat((1 << 20) + 1));
        client.send(endless).await;
        assert_eq!(client.answer().await.status, 431);

        let mut client = site.client().await;
        let max = site.config.load().limits.kv_max_value_size;
        client
            .send(format!("PUT /test/echo HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n\r\n", max + 1))
            .await;
        let answer = client.answer().await;
        assert_eq!(answer.status, 413);
        assert!(
            answer.text().starts_with("Request body(524289 bytes) too large, max size: 524288 bytes. See ")
        );

        let mut client = site.client().await;
        client.send("PUT /test/echo HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n").await;
        let piece = format!("10000\r\n{}\r\n", "x".repeat(0x10000));
        client.send(piece.repeat(9)).await;
        assert_eq!(client.answer().await.status, 413);
    });
}

#[test]
fn an_unwanted_short_body_is_skipped() {
    with_site(|site| async move {
        let mut client = site.client().await;
        client.send("POST /v1/kv/x HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n\r\n").await;
        assert_eq!(client.answer().await.status, 405);
        client.send("bodyGET /v1/status/leader HTTP/1.1\r\nHost: x\r\n\r\n").await;
        assert_eq!(client.answer().await.status, 200);
    });
}

#[test]
fn continue_comes_before_the_body() {
    with_site(|site| async move {
        let mut client = site.client().await;
        client
            .send("PUT /test/echo HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n")
            .await;
        assert_eq!(client.answer().await.status, 100);
        client.send("ok").await;
        assert_eq!(client.answer().await.text(), "ok");
    });
}

#[test]
fn a_panic_costs_one_request() {
    with_site(|site| async move {
        let mut client = site.client().await;
        for target in ["/test/panic", "/test/later?panic"] {
            assert_eq!(client.get(target).await.status, 500);
        }
        assert_eq!(client.get("/test/later").await.text(), "late");
    });
}

#[test]
fn streams_are_chunked() {
    with_site(|site| async move {
        let mut client = site.client().await;
        client.send("GET /test/stream HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").await;
        let answer = client.answer().await;
        assert_eq!(answer.header("Transfer-Encoding"), Some("chunked"));
        assert_eq!(answer.text(), "7\r\npart 0\n\r\n7\r\npart 1\n\r\n7\r\npart 2\n\r\n0\r\n\r\n");
        let mut client = site.client().await;
        client.send("GET /test/stream HTTP/1.0\r\n\r\n").await;
        assert_eq!(client.answer().await.text(), "part 0\npart 1\npart 2\n");
    });
}

#[test]
fn a_large_answer_leaves_in_parts() {
    with_site(|site| async move {
        let mut client = site.client().await;
        client
            .send(
                "GET /test/big HTTP/1.1\r\nHost: x\r\n\r\nGET /v1/status/leader HTTP/1.1\r\nHost: x\r\n\r\n",
            )
            .await;
        assert_eq!(client.answer().await.body.len(), BIG);
        assert_eq!(client.answer().await.status, 200);
    });
}

#[test]
fn an_acknowledged_write_is_seen_by_the_next_read() {
    with_site(|site| async move {
        let (mut writer, mut reader) = (site.client().await, site.client().await);
        for round in 0..200 {
            let value = format!("value {round}");
            let head = format!("PUT /v1/kv/w HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n\r\n", value.len());
            writer.send(head + &value).await;
            assert_eq!(writer.answer().await.text(), "true\n");
            assert_eq!(reader.get("/v1/kv/w?raw").await.text(), value);
            assert_eq!(reader.get("/v1/kv/w?raw").await.text(), value);
        }
    });
}

#[test]
fn too_many_connections_of_one_client_are_refused() {
    with_site_of(
        || {
            let mut config = config();
            config.limits.http_max_conns_per_client = Some(2);
            config
        },
        |site| async move {
            let (mut first, mut second) = (site.client().await, site.client().await);
            assert_eq!(first.get("/v1/status/leader").await.status, 200);
            assert_eq!(second.get("/v1/status/leader").await.status, 200);
            let mut third = site.client().await;
            assert_eq!(third.answer().await.status, 429);
            drop(first);
            loop {
                let mut next = site.client().await;
                next.send("GET /v1/status/leader HTTP/1.1\r\nHost: x\r\n\r\n").await;
                if next.answer().await.status == 200 {
                    break;
                }
            }
        },
    );
}

#[test]
fn the_configuration_in_force_is_a_new_one_at_once() {
    with_site(|site| async move {
        site.put("k", "v").await;
        let mut client = site.client().await;
        assert_eq!(client.get("/v1/kv/k?raw").await.header("X-New"), None);
        let mut changed = config();
        changed.http.response_headers.insert("X-New".into(), "1".into());
        changed.http.block_endpoints.push("/v1/catalog".into());
        site.config.store(changed);
        assert_eq!(client.get("/v1/kv/k?raw").await.header("X-New"), Some("1"));
        let blocked = client.get("/v1/catalog/nodes").await;
        assert_eq!(
            (blocked.status, blocked.text()),
            (403, "Endpoint is blocked by agent configuration".into())
        );
    });
}

#[test]
fn stopping_ends_connections_soon() {
    with_site(|site| async move {
        let mut client = site.client().await;
        assert_eq!(client.get("/v1/status/leader").await.status, 200);
        site.shutdown.raise();
        assert!(client.is_closed().await);
        site.running.await.expect("the server ends");
    });
}
