//! Runners against servers of the test's own core: gRPC and HTTP/2 in clear, HTTP/1 and HTTP/2 over TLS.

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_lite::io::{AsyncRead, AsyncWrite};
use futures_lite::{AsyncReadExt, AsyncWriteExt, FutureExt};
use futures_rustls::TlsAcceptor;
use h2::server::SendResponse;
use h2::{RecvStream, server};
use http::{HeaderMap, HeaderValue, Request, Response};
use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

use super::http2::TokioIo;
use super::plan::{Finding, HttpProbe, Plan, Probe, Thresholds, TlsProbe};
use super::run::run;
use super::tls::TlsConfigs;
use crate::runtime::cores::{self, Driver};
use crate::runtime::net::{Endpoint, Listener, Stream, UnixAccess, guard_bind};
use crate::runtime::{task, time};
use crate::store::model::Status;

const PATIENCE: Duration = Duration::from_secs(20);
/// A certificate for `check.test` and 127.0.0.1, with its key. It guards nothing.
const CERTIFICATE: &[u8] = include_bytes!("self_signed.pem");

fn on_core<F: Future<Output = ()> + 'static>(test: fn() -> F) {
    cores::run(Driver::Epoll, 1, move |_| {
        async move { time::timeout(PATIENCE, test()).await.expect("the test ends in time") }.boxed_local()
    })
    .expect("the core runs to its end");
}

async fn find(probe: Probe) -> Finding {
    let plan = Plan {
        probe,
        interval: Duration::from_secs(1),
        timeout: Duration::from_secs(10),
        thresholds: Thresholds::default(),
        output_max: 4096,
    };
    run(&plan, &TlsConfigs::default()).await
}

/// Serves each connection with `converse`; the address to ask.
fn serve<F: Future<Output = ()> + 'static>(converse: impl Fn(Stream) -> F + 'static) -> String {
    let any = Endpoint::Tcp((Ipv4Addr::LOCALHOST, 0).into());
    let listener: Listener = guard_bind(&any, 1, &UnixAccess::default()).expect("a port").remove(0);
    let Endpoint::Tcp(address) = *listener.endpoint() else { panic!("not TCP") };
    task::spawn(async move {
        loop {
            let (socket, _) = listener.accept().await.expect("a connection");
            task::spawn(converse(Stream::from(socket))).detach();
        }
    })
    .detach();
    address.to_string()
}

fn acceptor(alpn: &[&[u8]]) -> TlsAcceptor {
    let certificate = CertificateDer::from_pem_slice(CERTIFICATE).expect("a certificate");
    let key = PrivateKeyDer::from_pem_slice(CERTIFICATE).expect("a key");
    let builder = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()));
    let builder = builder.with_safe_default_protocol_versions().expect("versions");
    let mut config =
        builder.with_no_client_auth().with_single_cert(vec![certificate], key).expect("they fit");
    config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
    TlsAcceptor::from(Arc::new(config))
}

/// Answers health questions: `up` is serving, `down` is not, anything else is unknown to it.
async fn speak_h2(stream: impl AsyncRead + AsyncWrite + Unpin + 'static) {
    let Ok(mut connection) = server::handshake(TokioIo(stream)).await else { return };
    while let Some(Ok((request, respond))) = connection.accept().await {
        task::spawn(answer_health(request, respond)).detach();
    }
}

async fn answer_health(request: Request<RecvStream>, mut respond: SendResponse<Bytes>) {
    assert_eq!(request.uri().path(), "/grpc.health.v1.Health/Check");
    assert_eq!(request.headers()["content-type"], "application/grpc");
    let mut body = request.into_body();
    let mut asked = Vec::new();
    while let Some(piece) = body.data().await {
        asked.extend_from_slice(&piece.expect("data"));
    }
    let serving = match &asked[5..] {
        [] | [0x0a, 2, b'u', b'p'] => Some(1),
        [0x0a, 4, b'd', b'o', b'w', b'n'] => Some(2),
        _ => None,
    };
    let mut stream = respond.send_response(Response::new(()), false).expect("a head");
    let mut trailers = HeaderMap::new();
    if let Some(serving) = serving {
        stream.send_data(Bytes::from(vec![0, 0, 0, 0, 2, 8, serving]), false).expect("a body");
        trailers.insert("grpc-status", HeaderValue::from_static("0"));
    } else {
        trailers.insert("grpc-status", HeaderValue::from_static("5"));
        trailers.insert("grpc-message", HeaderValue::from_static("unknown service"));
    }
    stream.send_trailers(trailers).expect("trailers");
}

#[test]
fn grpc_health_is_served_or_not() {
    on_core(|| async {
        let address = serve(speak_h2);
        let ask = |service: &str| {
            find(Probe::Grpc { address: address.clone(), service: service.to_owned(), tls: None })
        };
        assert_eq!(ask("").await, Finding::passing(format!("gRPC check {address}: success")));
        assert_eq!(ask("up").await, Finding::passing(format!("gRPC check {address}/up: success")));
        let down = format!("gRPC check {address}/down: gRPC NOT_SERVING status");
        assert_eq!(ask("down").await, Finding::critical(down));
        let strange = format!("gRPC check {address}/x: rpc error: code = NotFound desc = unknown service");
        assert_eq!(ask("x").await, Finding::critical(strange));
    });
}

#[test]
fn pings_and_grpc_pass_in_clear_and_over_tls() {
    on_core(|| async {
        let passed = Finding::passing("HTTP2 ping was successful");
        assert_eq!(find(Probe::H2Ping { address: serve(speak_h2), tls: None }).await, passed);
        let acceptor = acceptor(&[b"h2"]);
        let address = serve(move |stream| {
            let acceptor = acceptor.clone();
            async move {
                if let Ok(stream) = acceptor.accept(stream).await {
                    assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
                    speak_h2(stream).await;
                }
            }
        });
        let trusting = || Some(TlsProbe { skip_verify: true, ..TlsProbe::default() });
        assert_eq!(find(Probe::H2Ping { address: address.clone(), tls: trusting() }).await, passed);
        let grpc = Probe::Grpc { address: address.clone(), service: "up".into(), tls: trusting() };
        assert_eq!(find(grpc).await.status, Status::Passing);
        let strict = find(Probe::H2Ping { address, tls: Some(TlsProbe::default()) }).await;
        let why = "HTTP2 ping failed: x509: certificate signed by unknown authority";
        assert_eq!(strict, Finding::critical(why));
    });
}

#[test]
fn http_over_tls_takes_a_strange_certificate_only_when_told_to() {
    on_core(|| async {
        let acceptor = acceptor(&[]);
        let address = serve(move |stream| {
            let acceptor = acceptor.clone();
            async move {
                let Ok(mut stream) = acceptor.accept(stream).await else { return };
                let mut head = Vec::new();
                let mut byte = [0];
                while !head.ends_with(b"\r\n\r\n") {
                    stream.read_exact(&mut byte).await.expect("a head");
                    head.push(byte[0]);
                }
                let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi";
                stream.write_all(answer).await.expect("sent");
                stream.close().await.expect("closed");
            }
        });
        let url = format!("https://{address}/health");
        let ask = |skip_verify| {
            let tls = TlsProbe { skip_verify, ..TlsProbe::default() };
            find(Probe::Http(HttpProbe { url: url.clone(), tls, ..HttpProbe::default() }))
        };
        assert_eq!(ask(true).await, Finding::passing(format!("HTTP GET {url}: 200 OK Output: hi")));
        let strict = ask(false).await;
        assert_eq!(strict.status, Status::Critical);
        let why = format!("Get \"{url}\": x509: certificate signed by unknown authority");
        assert_eq!(strict, Finding::critical(why));
    });
}

#[test]
fn what_speaks_no_tls_is_said_to() {
    on_core(|| async {
        let address = serve(|mut stream: Stream| async move {
            let mut head = [0; 64];
            let _ = stream.read(&mut head).await;
            let _ = stream.write_all(b"220 ready to talk, in clear\r\n").await;
        });
        let url = format!("https://{address}/");
        let found = find(Probe::Http(HttpProbe { url: url.clone(), ..HttpProbe::default() })).await;
        let why = format!("Get \"{url}\": tls: first record does not look like a TLS handshake");
        assert_eq!(found, Finding::critical(why));
    });
}
