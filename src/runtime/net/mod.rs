//! Sockets: non-blocking calls on descriptors that lie in the core's epoll instance.

mod bind;
pub(in crate::runtime) mod readiness;
mod socket;
mod stream;
mod udp;

pub use bind::{BindError, UnixAccess, guard_bind, guard_bind_udp};
pub use readiness::{Event, Notifier, Pollable, Readiness};
pub use socket::{Listener, Peer, Socket};
pub use stream::Stream;
pub use udp::{DATAGRAM_MAX, Udp, UdpBatch};

use super::blocking;
use std::fmt;
use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::path::PathBuf;

/// Where a stream server listens or a client connects.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Endpoint {
    /// TCP.
    Tcp(SocketAddr),
    /// A Unix socket's path.
    Unix(PathBuf),
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Endpoint::Tcp(address) => write!(f, "{address}"),
            Endpoint::Unix(path) => write!(f, "unix://{}", path.display()),
        }
    }
}

/// The addresses of a host name (or of an address in text form), by the system's resolver, off the executor. It
/// takes as long as the resolver takes: put a [`super::time::timeout`] around it.
///
/// # Errors
/// The name does not resolve; the error names it.
pub async fn resolve(host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
    if let Ok(ip) = host.trim_start_matches('[').trim_end_matches(']').parse() {
        return Ok(vec![SocketAddr::new(ip, port)]);
    }
    let (name, asked) = (host.to_owned(), host.to_owned());
    match blocking::resolve(move || resolve_blocking(&asked, port)).await {
        Ok(found) => found,
        Err(panicked) => Err(io::Error::other(format!("lookup {name}: {panicked}"))),
    }
}

/// As [`resolve`], for threads that may wait: before the cores start, or inside a blocking job.
///
/// # Errors
/// See [`resolve`].
pub fn resolve_blocking(host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
    match (host, port).to_socket_addrs().map(Iterator::collect::<Vec<_>>) {
        Ok(addresses) if addresses.is_empty() => {
            Err(io::Error::new(io::ErrorKind::NotFound, format!("lookup {host}: no such host")))
        }
        Ok(addresses) => Ok(addresses),
        Err(error) => Err(io::Error::new(error.kind(), format!("lookup {host}: {error}"))),
    }
}
