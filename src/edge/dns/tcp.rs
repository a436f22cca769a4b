//! DNS over TCP: messages behind two octets of length (RFC 7766). A client may send many queries ahead; they
//! are answered in order.

use std::cell::RefCell;
use std::io;
use std::rc::Rc;
use std::time::Duration;

use futures_lite::{AsyncReadExt, AsyncWriteExt};

use super::responder::Reply;
use super::{Awaited, Service};
use crate::runtime::net::{Listener, Socket, Stream};
use crate::runtime::task::{self, Task};
use crate::runtime::time;

/// Most connections of a core; a further one is closed at once.
pub const CONNECTIONS_MAX: usize = 1024;
/// How long a connection may be silent, and how long a client may take to send or receive a message.
pub const IDLE_TIMEOUT: Duration = Duration::from_secs(10);
/// Pause after a failed accept (no descriptors left): the connections there are need them more.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Accepts connections and serves them until dropped.
pub(super) async fn serve(service: Rc<Service>, listener: Listener) {
    let connections: RefCell<Vec<Task<()>>> = RefCell::new(Vec::new());
    loop {
        let socket = match listener.accept().await {
            Ok((socket, _)) => socket,
            Err(error) => {
                tracing::warn!(
                    "cannot accept a DNS connection on {}: {error}; trying again in {ACCEPT_PAUSE:?}",
                    listener.endpoint()
                );
                time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let mut connections = connections.borrow_mut();
        connections.retain(|connection| !connection.is_done());
        if connections.len() >= CONNECTIONS_MAX {
            tracing::debug!("{CONNECTIONS_MAX} DNS connections are open; one more was closed");
            continue;
        }
        let service = service.clone();
        connections.push(task::spawn(async move {
            if let Err(error) = converse(&service, socket).await {
                tracing::debug!("DNS connection ended: {error}");
            }
        }));
    }
}

/// Answers the queries of one connection until it ends or falls silent.
async fn converse(service: &Service, socket: Socket) -> io::Result<()> {
    let mut stream = Stream::from(socket);
    let mut packet = Vec::new();
    let mut reply = Vec::new();
    loop {
        let read = async {
            let mut length = [0; 2];
            stream.read_exact(&mut length).await?;
            packet.resize(u16::from_be_bytes(length) as usize, 0);
            stream.read_exact(&mut packet).await
        };
        match time::timeout(IDLE_TIMEOUT, read).await {
            None => return Ok(()),
            Some(Err(error)) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(()),
            Some(read) => read?,
        }
        if !answer(service, &packet, &mut reply).await {
            continue;
        }
        match time::timeout(IDLE_TIMEOUT, stream.write_all(&reply)).await {
            None => return Ok(()),
            Some(written) => written?,
        }
        // What a large message needed is given back before the connection falls idle.
        (packet, reply) = (Vec::new(), Vec::new());
    }
}

/// Puts the reply to `packet`, with its length before it, into `reply`; false when none is due.
async fn answer(service: &Service, packet: &[u8], reply: &mut Vec<u8>) -> bool {
    service.refresh();
    let started = time::now();
    let how = service.circumstances(true);
    let mut fill = |message: &[u8]| {
        reply.clear();
        reply.extend_from_slice(&(message.len() as u16).to_be_bytes());
        reply.extend_from_slice(message);
    };
    let waiting = {
        let mut responder = service.responder.borrow_mut();
        let mut room = service.room.borrow_mut();
        let now = responder.respond(&service.state.load(), packet, how, &mut room);
        responder.take_tally().publish(time::now() - started);
        service.note_uses(&mut responder);
        match now {
            Reply::Now(len) => {
                fill(&room[..len]);
                return true;
            }
            Reply::Silence | Reply::Larger => return false,
            Reply::Later(later) => Awaited::Recursors(later),
            Reply::Unproven => Awaited::Leader(packet.into()),
            Reply::Unheld(_) => Awaited::Servers(packet.into()),
        }
    };
    let Some(message) = service.wait(waiting, true).await else { return false };
    fill(&message);
    true
}
