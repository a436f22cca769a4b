//! Taking addresses at start: exclusively first, so that a second agent is told, then shared among our own cores.

use super::socket::BACKLOG;
use super::{Endpoint, Listener, Udp};
use crate::runtime::time;
use socket2::{Domain, SockAddr, Socket, Type};
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::FileTypeExt;
use std::path::Path;
use std::time::Duration;

/// A process that was killed keeps its sockets for some milliseconds more: so "in use" is tried again this long.
const RETRY_FOR: Duration = Duration::from_secs(1);
const RETRY_EVERY: Duration = Duration::from_millis(20);

/// Who may use a Unix socket; `None` leaves what the process's umask and identity give.
#[derive(Clone, Default, Debug)]
pub struct UnixAccess {
    /// Permission bits.
    pub mode: Option<u32>,
    /// Owner's id.
    pub user: Option<u32>,
    /// Group's id.
    pub group: Option<u32>,
}

/// An address that could not be taken.
#[derive(Debug)]
pub struct BindError {
    what: String,
    /// What the kernel said.
    pub source: io::Error,
}

impl fmt::Display for BindError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let BindError { what, source } = self;
        match source.kind() {
            io::ErrorKind::AddrInUse => {
                write!(
                    f,
                    "cannot listen on {what}: address already in use; stop the program that has it or choose another address"
                )
            }
            io::ErrorKind::PermissionDenied => {
                write!(
                    f,
                    "cannot listen on {what}: {source}; ports below 1024 need the capability CAP_NET_BIND_SERVICE"
                )
            }
            io::ErrorKind::AddrNotAvailable => {
                write!(f, "cannot listen on {what}: {source}; no interface of this machine has that address")
            }
            _ => write!(f, "cannot listen on {what}: {source}"),
        }
    }
}

impl std::error::Error for BindError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.source)
    }
}

/// Listens for streams: `count` listeners of the same address, one for each core, among which the kernel spreads
/// the connections; for a Unix socket one only. Blocks for up to a second: for use before the cores start.
///
/// # Errors
/// Somebody else has the address, or it may not be had; names it.
pub fn guard_bind(
    endpoint: &Endpoint,
    count: usize,
    access: &UnixAccess,
) -> Result<Vec<Listener>, BindError> {
    let fail = |source| BindError { what: format!("{endpoint} (tcp)"), source };
    match endpoint {
        Endpoint::Tcp(address) => {
            let (sockets, address) = share(*address, Type::STREAM, count).map_err(fail)?;
            let listen = |socket: Socket| {
                socket.listen(BACKLOG)?;
                Ok(Listener::new(socket, Endpoint::Tcp(address)))
            };
            sockets.into_iter().map(listen).collect::<io::Result<_>>().map_err(fail)
        }
        Endpoint::Unix(path) => {
            let fail = |source| BindError { what: endpoint.to_string(), source };
            Ok(vec![bind_unix(path, access).map_err(fail)?])
        }
    }
}

/// The same for datagrams.
///
/// # Errors
/// As [`guard_bind`].
pub fn guard_bind_udp(address: SocketAddr, count: usize) -> Result<Vec<Udp>, BindError> {
    let fail = |source| BindError { what: format!("{address} (udp)"), source };
    let (sockets, _) = share(address, Type::DGRAM, count).map_err(fail)?;
    Ok(sockets.into_iter().map(Udp::from_socket).collect())
}

/// The first socket is bound alone, which fails if anybody has the address, even in shared mode; only then is it
/// opened for sharing. So there is no moment at which a second agent could slip in.
fn share(address: SocketAddr, kind: Type, count: usize) -> io::Result<(Vec<Socket>, SocketAddr)> {
    let first = bind_retrying(address, kind)?;
    let address = first.local_addr()?.as_socket().unwrap_or(address);
    let mut sockets = vec![first];
    if count > 1 {
        sockets[0].set_reuse_port(true)?;
    }
    for _ in 1..count {
        let socket = new_socket(address, kind)?;
        socket.set_reuse_port(true)?;
        socket.bind(&address.into())?;
        sockets.push(socket);
    }
    Ok((sockets, address))
}

fn bind_retrying(address: SocketAddr, kind: Type) -> io::Result<Socket> {
    let give_up = time::now() + RETRY_FOR;
    loop {
        let socket = new_socket(address, kind)?;
        match socket.bind(&address.into()) {
            Ok(()) => return Ok(socket),
            Err(error) if error.kind() == io::ErrorKind::AddrInUse && time::now() < give_up => {
                std::thread::sleep(RETRY_EVERY);
            }
            Err(error) => return Err(error),
        }
    }
}

fn new_socket(address: SocketAddr, kind: Type) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), kind.nonblocking().cloexec(), None)?;
    if kind == Type::STREAM {
        // Past connections in TIME_WAIT must not keep a restarted agent from its port; listeners still conflict.
        socket.set_reuse_address(true)?;
    }
    if address.is_ipv6() && !address.ip().is_unspecified() {
        socket.set_only_v6(true)?;
    }
    Ok(socket)
}

fn bind_unix(path: &Path, access: &UnixAccess) -> io::Result<Listener> {
    let address = SockAddr::unix(path)?;
    let kind = Type::STREAM.nonblocking().cloexec();
    match std::fs::symlink_metadata(path) {
        Ok(found) if found.file_type().is_socket() => {
            let probe = Socket::new(Domain::UNIX, kind, None)?.connect(&address);
            if !probe.is_err_and(|error| error.kind() == io::ErrorKind::ConnectionRefused) {
                return Err(io::ErrorKind::AddrInUse.into());
            }
            // Left behind by a process that is gone.
            std::fs::remove_file(path)?;
        }
        Ok(_) => {
            return Err(io::Error::new(io::ErrorKind::AlreadyExists, "the file exists and is not a socket"));
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    let socket = Socket::new(Domain::UNIX, kind, None)?;
    socket.bind(&address)?;
    if access.user.is_some() || access.group.is_some() {
        std::os::unix::fs::chown(path, access.user, access.group)?;
    }
    if let Some(mode) = access.mode {
        std::fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(mode))?;
    }
    socket.listen(BACKLOG)?;
    Ok(Listener::new(socket, Endpoint::Unix(path.to_owned())))
}
