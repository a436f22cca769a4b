//! Sockets, readiness, datagrams and taking addresses, on both drivers.

mod runtime_support;

use futures_lite::{AsyncReadExt, AsyncWriteExt};
use muster::runtime::cores::{CoreId, Driver, PerCore};
use muster::runtime::net::{
    Endpoint, Event, Listener, Readiness, Socket, Stream, Udp, UdpBatch, UnixAccess, guard_bind,
    guard_bind_udp, resolve,
};
use muster::runtime::{task, time};
use runtime_support::{on_both, on_cores};
use std::cell::Cell;
use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::rc::Rc;
use std::time::Duration;

const LIMIT: Duration = Duration::from_secs(10);

fn any_port() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 0))
}

fn listen_tcp() -> Listener {
    listen(&Endpoint::Tcp(any_port()))
}

fn listen(endpoint: &Endpoint) -> Listener {
    guard_bind(endpoint, 1, &UnixAccess::default()).expect("a free address").remove(0)
}

/// Echoes on every connection, as one reactor task, until all of `clients` came and went.
async fn echo_reactor(listener: Listener, clients: usize) {
    const LISTENER: u64 = u64::MAX;
    let readiness = Readiness::new();
    readiness.register(&listener, LISTENER).expect("room in epoll");
    let mut sockets: HashMap<u64, Socket> = HashMap::new();
    let (mut events, mut accepted, mut gone) = (Vec::<Event>::new(), 0, 0);
    let mut buffer = [0; 1024];
    while gone < clients {
        readiness.ready(&mut events, Some(time::now() + LIMIT)).await;
        assert!(!events.is_empty(), "nothing happened");
        for event in &events {
            if event.token == LISTENER {
                while let Some((socket, _)) = listener.try_accept().expect("descriptors are left") {
                    readiness.register(&socket, accepted).expect("room in epoll");
                    sockets.insert(accepted, socket);
                    accepted += 1;
                }
            } else if let Some(socket) = sockets.get(&event.token)
                && echo_until_blocked(socket, &mut buffer)
            {
                sockets.remove(&event.token);
                gone += 1;
            }
        }
    }
}

/// True at the end of the stream.
fn echo_until_blocked(socket: &Socket, buffer: &mut [u8]) -> bool {
    loop {
        match socket.try_read(buffer) {
            Ok(0) => return true,
            Ok(n) => assert_eq!(socket.try_write(&buffer[..n]).expect("small messages fit"), n),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return false,
            Err(error) => panic!("{error}"),
        }
    }
}

async fn echo_client(endpoint: Endpoint, rounds: u8) {
    let mut stream = Stream::connect(&endpoint, LIMIT).await.expect("somebody listens");
    for round in 0..rounds {
        stream.write_all(&[round; 100]).await.expect("connected");
        let mut answer = [0; 100];
        stream.read_exact(&mut answer).await.expect("connected");
        assert_eq!(answer, [round; 100]);
    }
    stream.close().await.expect("connected");
    assert_eq!(stream.read(&mut [0]).await.expect("an orderly end"), 0);
}

#[test]
fn a_reactor_echoes_on_many_connections() {
    on_both(async || {
        let listener = listen_tcp();
        let endpoint = listener.endpoint().clone();
        let server = task::spawn(echo_reactor(listener, 50));
        let clients: Vec<_> = (0..50).map(|_| task::spawn(echo_client(endpoint.clone(), 50))).collect();
        for client in clients {
            client.await.expect("no client panics");
        }
        server.await.expect("the server does not panic");
    });
}

#[test]
fn unix_sockets_serve_too_and_stale_ones_are_replaced() {
    on_both(async || {
        let directory = tempfile::tempdir().expect("a directory for the test");
        let endpoint = Endpoint::Unix(directory.path().join("api.sock"));
        // A socket file without a listener, as a killed process leaves it.
        drop(std::os::unix::net::UnixListener::bind(directory.path().join("api.sock")).expect("a new file"));
        let access = UnixAccess { mode: Some(0o660), ..UnixAccess::default() };
        let listener = guard_bind(&endpoint, 1, &access).expect("nobody listens").remove(0);
        let mode =
            std::fs::metadata(directory.path().join("api.sock")).expect("it exists").permissions().mode();
        assert_eq!(mode & 0o777, 0o660);
        let second = guard_bind(&endpoint, 1, &access).err().expect("the first listens");
        assert!(second.to_string().contains("address already in use"), "{second}");
        // The second one's probe was a client, too.
        let server = task::spawn(echo_reactor(listener, 2));
        echo_client(endpoint, 3).await;
        server.await.expect("the server does not panic");
        std::fs::write(directory.path().join("file"), "precious").expect("a new file");
        assert!(guard_bind(&Endpoint::Unix(directory.path().join("file")), 1, &access).is_err());
    });
}

#[test]
fn streams_move_more_than_the_kernel_buffers() {
    const SIZE: usize = 8 << 20;
    on_both(async || {
        let listener = listen_tcp();
        let endpoint = listener.endpoint().clone();
        let server = task::spawn(async move {
            let (socket, peer) = listener.accept().await.expect("a client comes");
            assert!(peer.ip().is_some_and(|ip| ip.is_loopback()));
            let mut stream = Stream::from(socket);
            stream.write_all(&vec![7; SIZE]).await.expect("the client reads");
            stream.close().await.expect("connected");
        });
        let mut stream = Stream::connect(&endpoint, LIMIT).await.expect("somebody listens");
        let mut all = Vec::new();
        stream.read_to_end(&mut all).await.expect("an orderly end");
        assert!(all.len() == SIZE && all.iter().all(|byte| *byte == 7));
        server.await.expect("the server does not panic");
    });
}

#[test]
fn connecting_to_nobody_is_refused() {
    on_both(async || {
        let endpoint = listen_tcp().endpoint().clone();
        let error = Stream::connect(&endpoint, LIMIT).await.err().expect("the listener is gone");
        assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
    });
}

#[test]
fn a_notification_and_a_deadline_end_the_wait() {
    on_both(async || {
        let readiness = Readiness::new();
        let notifier = readiness.notifier();
        let mut events = Vec::new();
        readiness.ready(&mut events, Some(time::now() + Duration::from_millis(3))).await;
        assert!(events.is_empty());
        task::spawn(async move { notifier.notify() }).detach();
        let start = time::now();
        readiness.ready(&mut events, Some(start + 100 * LIMIT)).await;
        assert!(events.is_empty() && start.elapsed() < LIMIT);
    });
}

#[test]
fn a_closed_socket_has_no_news_and_its_place_is_reused() {
    on_both(async || {
        let listener = listen_tcp();
        let readiness = Readiness::new();
        let mut events = Vec::new();
        for _ in 0..100 {
            let client = Stream::connect(listener.endpoint(), LIMIT).await.expect("somebody listens");
            let (socket, _) = listener.accept().await.expect("a client came");
            readiness.register(&socket, 1).expect("room in epoll");
            client.socket().try_write(b"x").expect("room");
            drop(socket);
            readiness.ready(&mut events, Some(time::now())).await;
            assert!(events.is_empty());
        }
    });
}

async fn udp_echo(socket: Udp, stop: Rc<Cell<bool>>) {
    let (mut incoming, mut outgoing) = (UdpBatch::new(), UdpBatch::new());
    while !stop.get() {
        socket.ready().await.expect("the socket can be watched");
        while socket.recv_batch(&mut incoming).expect("the socket works") > 0 {
            for (datagram, from) in incoming.iter() {
                assert!(outgoing.push(datagram, from));
            }
            socket.send_batch(&mut outgoing);
        }
    }
}

#[test]
fn datagrams_are_echoed_in_batches() {
    on_both(async || {
        let socket = Udp::bind(any_port(), false).expect("a free port");
        let address = socket.local_address().expect("it is bound");
        let stop = Rc::new(Cell::new(false));
        let server = task::spawn(udp_echo(socket, stop.clone()));
        let client = Udp::connect(address).expect("loopback is there");
        for round in 0..20u8 {
            let mut batch = UdpBatch::new();
            for n in 0..50 {
                assert!(batch.push(&[round, n], address));
            }
            assert_eq!(client.send_batch(&mut batch), 50);
            let mut got = Vec::new();
            while got.len() < 50 {
                client.ready().await.expect("the socket can be watched");
                client.recv_batch(&mut batch).expect("the socket works");
                got.extend(batch.iter().map(|(datagram, _)| datagram[1]));
            }
            assert_eq!(got, (0..50).collect::<Vec<u8>>());
        }
        stop.set(true);
        client.send(b"last").await.expect("loopback is there");
        let mut buffer = [0; 16];
        let (n, from) = client.recv_from(&mut buffer).await.expect("an answer");
        assert_eq!((&buffer[..n], from), (&b"last"[..], address));
        server.await.expect("the server does not panic");
    });
}

/// Loopback has delivered what is not lost when the call that sends it returns.
#[test]
fn a_share_of_datagrams_is_lost_if_that_is_wanted() {
    on_both(async || {
        for (share, expected) in [(0.0, 2000..=2000), (0.5, 800..=1200), (1.0, 0..=0)] {
            let socket = Udp::bind(any_port(), false).expect("a free port");
            let address = socket.local_address().expect("it is bound");
            socket.lose(share).expect("filters are taken");
            let client = Udp::connect(address).expect("loopback is there");
            let (mut batch, mut got) = (UdpBatch::new(), 0);
            for _ in 0..40 {
                while batch.len() < 50 {
                    assert!(batch.push(b"x", address));
                }
                assert_eq!(client.send_batch(&mut batch), 50);
                got += socket.recv_batch(&mut batch).expect("the socket works");
                batch = UdpBatch::new();
            }
            assert!(expected.contains(&got), "{got} of 2000 came at a loss of {share}");
        }
    });
}

#[test]
fn a_batch_refuses_what_does_not_fit() {
    let mut batch = UdpBatch::new();
    assert!(!batch.push(&[0; 5000], any_port()));
    while batch.push(b"x", any_port()) {}
    assert_eq!(batch.len(), 64);
    assert!(batch.is_full());
}

#[test]
fn the_second_agent_is_told_and_the_own_cores_share() {
    let mine = guard_bind(&Endpoint::Tcp(any_port()), 2, &UnixAccess::default()).expect("a free port");
    let endpoint = mine[0].endpoint().clone();
    let error =
        guard_bind(&endpoint, 2, &UnixAccess::default()).err().expect("the port is taken").to_string();
    assert!(error.contains("address already in use") && error.contains(&endpoint.to_string()), "{error}");
    let datagrams = guard_bind_udp(any_port(), 2).expect("a free port");
    let address = datagrams[0].local_address().expect("it is bound");
    assert_eq!(datagrams[1].local_address().expect("it is bound"), address);
    let error = guard_bind_udp(address, 2).err().expect("the port is taken").to_string();
    assert!(error.contains("address already in use") && error.contains(&address.to_string()), "{error}");

    // Both of our listeners get connections.
    let mut accepted = [0; 2];
    let _clients: Vec<_> = (0..64)
        .map(|_| {
            let Endpoint::Tcp(address) = endpoint else { unreachable!("it was TCP") };
            std::net::TcpStream::connect(address).expect("somebody listens")
        })
        .collect();
    for (listener, count) in mine.iter().zip(&mut accepted) {
        while listener.try_accept().expect("descriptors are left").is_some() {
            *count += 1;
        }
    }
    assert!(accepted[0] > 0 && accepted[1] > 0 && accepted[0] + accepted[1] == 64, "{accepted:?}");
}

#[test]
fn listeners_of_one_port_serve_on_their_cores() {
    for driver in [Driver::Glommio, Driver::Epoll] {
        let listeners =
            guard_bind(&Endpoint::Tcp(any_port()), 2, &UnixAccess::default()).expect("a free port");
        let endpoint = listeners[0].endpoint().clone();
        let listeners = PerCore::new(listeners);
        on_cores(driver, 3, move |core| {
            let (listener, endpoint) = (listeners.take(core), endpoint.clone());
            async move {
                let Some(listener) = listener else {
                    assert_eq!(core, CoreId(2));
                    let clients = (0..40).map(|_| task::spawn(echo_client(endpoint.clone(), 5)));
                    for client in clients.collect::<Vec<_>>() {
                        client.await.expect("no client panics");
                    }
                    return;
                };
                // How the kernel spreads 40 connections is its own affair: end when it is quiet.
                let serving = async {
                    loop {
                        let (socket, _) = listener.accept().await.expect("descriptors are left");
                        task::spawn(async move {
                            let mut stream = Stream::from(socket);
                            let mut buffer = [0; 100];
                            while stream.read_exact(&mut buffer).await.is_ok() {
                                stream.write_all(&buffer).await.expect("the client reads");
                            }
                        })
                        .detach();
                    }
                };
                assert_eq!(time::timeout(Duration::from_millis(500), serving).await, None::<()>);
            }
        });
    }
}

#[test]
fn names_and_addresses_resolve() {
    on_both(async || {
        assert_eq!(
            resolve("127.0.0.9", 80).await.expect("an address"),
            [SocketAddr::from(([127, 0, 0, 9], 80))]
        );
        assert!(resolve("[::1]", 80).await.expect("an address")[0].is_ipv6());
        assert!(
            resolve("localhost", 80).await.expect("in every hosts file").iter().all(|a| a.ip().is_loopback())
        );
        let error = resolve("no such host.invalid", 80).await.expect_err("not a name");
        assert!(error.to_string().contains("no such host.invalid"), "{error}");
    });
}
