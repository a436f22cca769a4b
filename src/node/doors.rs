//! The addresses an agent serves, taken before it starts: one set of sockets for each edge core.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use super::Failure;
use crate::config::{Config, ListenAddr, UnixSockets};
use crate::edge::{dns, http};
use crate::membership::Sockets;
use crate::runtime::net::{Endpoint, Listener, Udp, UnixAccess, guard_bind, guard_bind_udp};
use crate::runtime::users;

/// What the kernel keeps of packets that come while the core does something else, bytes: memberlist asks for the same.
const GOSSIP_BUFFER: usize = 2 << 20;

/// What one edge core serves.
#[derive(Default)]
pub struct Doors {
    /// HTTP and HTTPS listeners.
    pub http: Vec<http::server::Door>,
    /// DNS sockets.
    pub dns: dns::Sockets,
}

/// Takes the address of gossip, for the control core.
///
/// # Errors
/// It is taken or may not be had.
pub fn open_gossip(config: &Config) -> Result<Sockets, Failure> {
    let address = config.addresses.serf_lan_bind;
    let udp = guard_bind_udp(address, 1).map_err(Failure::Bind)?.remove(0);
    udp.set_buffers(GOSSIP_BUFFER, GOSSIP_BUFFER);
    Ok(Sockets { udp, tcp: listen_one(address)? })
}

/// Takes the address for links of other servers, for the control core.
///
/// # Errors
/// It is taken or may not be had.
pub fn open_server(config: &Config) -> Result<Listener, Failure> {
    listen_one(config.addresses.rpc_bind)
}

fn listen_one(address: SocketAddr) -> Result<Listener, Failure> {
    let mut listeners =
        guard_bind(&Endpoint::Tcp(address), 1, &UnixAccess::default()).map_err(Failure::Bind)?;
    Ok(listeners.remove(0).exempt())
}

/// Takes every address of the configuration, `edges` times.
///
/// # Errors
/// An address is taken or may not be had, or the certificate of the HTTPS listener cannot be used.
pub fn open(config: &Config, edges: usize) -> Result<Vec<Doors>, Failure> {
    let mut doors: Vec<Doors> = (0..edges).map(|_| Doors::default()).collect();
    let access = unix_access(&config.unix_sockets)?;
    for address in &config.listen.http {
        let listeners = listen(address, edges, &access)?;
        deal(&mut doors, listeners, |edge, listener| {
            edge.http.push(http::server::Door { listener, tls: None })
        });
    }
    if !config.listen.https.is_empty() {
        let tls = http::tls::server_config(&config.tls).map_err(Failure::Listener)?;
        for address in &config.listen.https {
            let listeners = listen(address, edges, &access)?;
            let tls: Arc<_> = tls.clone();
            deal(&mut doors, listeners, |edge, listener| {
                edge.http.push(http::server::Door { listener, tls: Some(tls.clone()) });
            });
        }
    }
    for address in &config.listen.dns {
        let (udp, tcp) = listen_dns(*address, edges)?;
        deal(&mut doors, udp, |edge, socket| edge.dns.udp.push(socket));
        deal(&mut doors, tcp, |edge, listener| edge.dns.tcp.push(listener));
    }
    Ok(doors)
}

/// Hands the sockets of one address out; a Unix socket has one only, which the first edge gets.
fn deal<T>(doors: &mut [Doors], sockets: Vec<T>, mut give: impl FnMut(&mut Doors, T)) {
    for (edge, socket) in doors.iter_mut().zip(sockets) {
        give(edge, socket);
    }
}

fn listen(address: &ListenAddr, edges: usize, access: &UnixAccess) -> Result<Vec<Listener>, Failure> {
    let endpoint = match address {
        ListenAddr::Tcp(address) => Endpoint::Tcp(*address),
        ListenAddr::Unix(path) => Endpoint::Unix(path.clone()),
    };
    guard_bind(&endpoint, edges, access).map_err(Failure::Bind)
}

fn listen_dns(address: SocketAddr, edges: usize) -> Result<(Vec<Udp>, Vec<Listener>), Failure> {
    let udp = guard_bind_udp(address, edges).map_err(Failure::Bind)?;
    let tcp = guard_bind(&Endpoint::Tcp(address), edges, &UnixAccess::default()).map_err(Failure::Bind)?;
    Ok((udp, tcp))
}

/// # Errors
/// The user or the group does not exist.
fn unix_access(sockets: &UnixSockets) -> Result<UnixAccess, Failure> {
    let wrong = |error: io::Error| Failure::Listener(format!("unix_sockets: {error}"));
    Ok(UnixAccess {
        mode: sockets.mode,
        user: sockets.user.as_deref().map(users::user_id).transpose().map_err(wrong)?,
        group: sockets.group.as_deref().map(users::group_id).transpose().map_err(wrong)?,
    })
}
