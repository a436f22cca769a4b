//! Stream sockets, TCP and Unix, as non-blocking calls.

use super::{Endpoint, Pollable};
use crate::runtime::reactor::{Interest, Io, READABLE, WRITABLE};
use crate::runtime::{preflight, sys};
use socket2::{Domain, SockAddr, SockRef, Type};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::LazyLock;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll};

/// Connections that may wait to be accepted. The kernel cuts it to net.core.somaxconn.
pub(super) const BACKLOG: i32 = 4096;

/// Clients of all servers of this process together may take three quarters of the descriptors it may have. The rest is
/// for its own work: an agent whose checks fail for want of a descriptor tells everybody that healthy services are
/// not. A connection beyond it is closed at once.
static ACCEPTED_MAX: LazyLock<u64> = LazyLock::new(|| preflight::open_files() / 4 * 3);
/// How many clients are connected.
static ACCEPTED: AtomicU64 = AtomicU64::new(0);
/// So many connections in a row are closed for want of a place before the server is told to rest.
const CLOSED_AT_ONCE_MAX: usize = 256;
/// Whether the log was told that there are too many, until there are clearly fewer.
static CROWDED: AtomicBool = AtomicBool::new(false);

/// The place of one client among [`ACCEPTED_MAX`].
struct Place;

impl Place {
    fn take() -> Option<Place> {
        let place = Place;
        let before = ACCEPTED.fetch_add(1, Ordering::Relaxed);
        if before < *ACCEPTED_MAX {
            return Some(place);
        }
        if !CROWDED.swap(true, Ordering::Relaxed) {
            tracing::warn!(
                "{} clients are connected, as many as the limit of open files allows; new connections are closed at once: \
                 raise the limit (LimitNOFILE=, ulimit -n) or find out who keeps so many",
                *ACCEPTED_MAX
            );
        }
        None
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let before = ACCEPTED.fetch_sub(1, Ordering::Relaxed);
        if before < *ACCEPTED_MAX / 2 && CROWDED.load(Ordering::Relaxed) {
            CROWDED.store(false, Ordering::Relaxed);
        }
    }
}

/// Who is at the other end.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Peer {
    /// A TCP client.
    Ip(SocketAddr),
    /// A client of a Unix socket.
    Unix,
}

impl Peer {
    /// The address, if it has one.
    pub fn ip(&self) -> Option<IpAddr> {
        match self {
            Peer::Ip(address) => Some(address.ip()),
            Peer::Unix => None,
        }
    }
}

/// A listening stream socket; made by [`super::guard_bind`], sent to its core, used there.
pub struct Listener {
    io: Io,
    endpoint: Endpoint,
    /// Its connections take none of [`ACCEPTED_MAX`].
    exempt: bool,
}

impl Listener {
    pub(super) fn new(socket: socket2::Socket, endpoint: Endpoint) -> Listener {
        Listener { io: Io::new(OwnedFd::from(socket), Interest::Read), endpoint, exempt: false }
    }

    /// The same, whose connections do not count among the clients: a storm of those must not part servers from each other.
    /// For owners that bound the number themselves.
    #[must_use]
    pub fn exempt(mut self) -> Listener {
        self.exempt = true;
        self
    }

    /// Where it listens, with the port that the kernel chose if 0 was asked for.
    pub fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    /// The next connection, if one waits. Connections that their clients gave up on are passed over, and those for
    /// which there is no descriptor to spare are closed.
    ///
    /// # Errors
    /// Out of descriptors or memory: the connection stays in the queue, try again later.
    pub fn try_accept(&self) -> io::Result<Option<(Socket, Peer)>> {
        for _ in 0..CLOSED_AT_ONCE_MAX {
            match SockRef::from(&self.io.as_fd()).accept4(libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC) {
                Ok((socket, address)) if self.exempt => {
                    return Ok(Some(self.accepted(socket, &address, None)));
                }
                Ok((socket, address)) => match Place::take() {
                    Some(place) => return Ok(Some(self.accepted(socket, &address, Some(place)))),
                    None => drop(socket),
                },
                Err(error) => match error.kind() {
                    io::ErrorKind::WouldBlock => return Ok(None),
                    io::ErrorKind::ConnectionAborted | io::ErrorKind::Interrupted => {}
                    _ => return Err(error),
                },
            }
        }
        Err(io::Error::other("more connections come in than there are descriptors for"))
    }

    /// Waits for the next connection; for tasks that own the listener. Not together with a [`super::Readiness`].
    ///
    /// # Errors
    /// As [`Listener::try_accept`].
    pub async fn accept(&self) -> io::Result<(Socket, Peer)> {
        std::future::poll_fn(|cx| {
            self.io.poll_with(READABLE, cx, |_| self.try_accept()?.ok_or(io::ErrorKind::WouldBlock.into()))
        })
        .await
    }

    fn accepted(&self, socket: socket2::Socket, address: &SockAddr, place: Option<Place>) -> (Socket, Peer) {
        let peer = match (&self.endpoint, address.as_socket()) {
            (Endpoint::Tcp(_), Some(address)) => {
                // Answers are written whole: waiting to fill a segment only delays them. Harmless if refused.
                let _ = socket.set_tcp_nodelay(true);
                Peer::Ip(address)
            }
            _ => Peer::Unix,
        };
        (Socket { place, ..Socket::new(socket.into()) }, peer)
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        if let Endpoint::Unix(path) = &self.endpoint {
            // As Consul: a socket that stays behind looks like an agent that hangs. It is still ours, since nobody can
            // take a path on which somebody listens.
            let _ = std::fs::remove_file(path);
        }
    }
}

impl Pollable for Listener {
    #[allow(private_interfaces)]
    fn io(&self) -> &Io {
        &self.io
    }
}

/// A connected stream socket. All calls return at once; "would block" is `ErrorKind::WouldBlock`.
pub struct Socket {
    io: Io,
    /// Of a client of ours: given back when the socket is closed.
    #[allow(dead_code)]
    place: Option<Place>,
}

impl Socket {
    pub(super) fn new(fd: OwnedFd) -> Socket {
        Socket { io: Io::new(fd, Interest::Both), place: None }
    }

    /// Begins to connect, from an address of this host if one is given. The socket is writable when that is done; then ask
    /// [`Socket::take_error`].
    ///
    /// # Errors
    /// No descriptor, no route, not an address of this host, or refused at once.
    pub fn start_connect(from: Option<IpAddr>, endpoint: &Endpoint) -> io::Result<Socket> {
        let (domain, address) = match endpoint {
            Endpoint::Tcp(address) => (Domain::for_address(*address), SockAddr::from(*address)),
            Endpoint::Unix(path) => (Domain::UNIX, SockAddr::unix(path)?),
        };
        let socket = socket2::Socket::new(domain, Type::STREAM.nonblocking().cloexec(), None)?;
        if domain != Domain::UNIX {
            // Harmless if refused.
            let _ = socket.set_tcp_nodelay(true);
        }
        if let Some(ip) = from {
            socket.bind(&SocketAddr::new(ip, 0).into())?;
        }
        match socket.connect(&address) {
            Ok(()) => {}
            Err(error) if error.raw_os_error() == Some(libc::EINPROGRESS) => {}
            Err(error) => return Err(error),
        }
        Ok(Socket::new(socket.into()))
    }

    /// Reads what is there; 0 is the end.
    ///
    /// # Errors
    /// "Would block" when nothing is there yet.
    pub fn try_read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        sys::read(self.io.as_fd(), buffer)
    }

    /// Writes as much as there is room for.
    ///
    /// # Errors
    /// "Would block" when there is none; "broken pipe" when the other side is gone (never a signal).
    pub fn try_write(&self, buffer: &[u8]) -> io::Result<usize> {
        SockRef::from(&self.io.as_fd()).send_with_flags(buffer, libc::MSG_NOSIGNAL)
    }

    /// The same from several buffers.
    ///
    /// # Errors
    /// As [`Socket::try_write`].
    pub fn try_writev(&self, buffers: &[io::IoSlice<'_>]) -> io::Result<usize> {
        SockRef::from(&self.io.as_fd()).send_vectored_with_flags(buffers, libc::MSG_NOSIGNAL)
    }

    /// Closes one or both directions.
    ///
    /// # Errors
    /// It was not connected any more.
    pub fn shutdown(&self, how: std::net::Shutdown) -> io::Result<()> {
        SockRef::from(&self.io.as_fd()).shutdown(how)
    }

    /// What went wrong since it was last asked.
    ///
    /// # Errors
    /// That very error.
    pub fn take_error(&self) -> io::Result<()> {
        SockRef::from(&self.io.as_fd()).take_error()?.map_or(Ok(()), Err)
    }

    /// The local address; `None` for a Unix socket.
    pub fn local_address(&self) -> Option<SocketAddr> {
        SockRef::from(&self.io.as_fd()).local_addr().ok()?.as_socket()
    }

    /// The address at the other end; `None` for a Unix socket, and once nobody is connected.
    pub fn peer_address(&self) -> Option<SocketAddr> {
        SockRef::from(&self.io.as_fd()).peer_addr().ok()?.as_socket()
    }

    /// Asks the kernel to find out about dead peers.
    ///
    /// # Errors
    /// Not a TCP socket.
    pub fn set_keepalive(&self, idle: std::time::Duration) -> io::Result<()> {
        SockRef::from(&self.io.as_fd())
            .set_tcp_keepalive(&socket2::TcpKeepalive::new().with_time(idle).with_interval(idle))
    }

    /// Gives the connection up when what was sent stays unacknowledged for this long, or its peer takes nothing.
    ///
    /// # Errors
    /// Not a TCP socket.
    pub fn set_user_timeout(&self, limit: std::time::Duration) -> io::Result<()> {
        SockRef::from(&self.io.as_fd()).set_tcp_user_timeout(Some(limit))
    }

    pub(super) fn poll_read(&self, cx: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<usize>> {
        self.io.poll_with(READABLE, cx, |_| self.try_read(buffer))
    }

    pub(super) fn poll_write(&self, cx: &mut Context<'_>, buffer: &[u8]) -> Poll<io::Result<usize>> {
        self.io.poll_with(WRITABLE, cx, |_| self.try_write(buffer))
    }

    pub(super) fn poll_writev(
        &self,
        cx: &mut Context<'_>,
        buffers: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.io.poll_with(WRITABLE, cx, |_| self.try_writev(buffers))
    }

    pub(super) fn poll_writable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.io.poll_ready(WRITABLE, cx)
    }
}

impl Pollable for Socket {
    #[allow(private_interfaces)]
    fn io(&self) -> &Io {
        &self.io
    }
}
