//! The UDP front of a core: reads datagrams in batches, answers each, sends the answers in batches.

use std::io;
use std::net::SocketAddr;
use std::rc::Rc;

use muster_protocol::dns::MESSAGE_SIZE_MAX;

use super::responder::Reply;
use super::{Awaited, Service};
use crate::runtime::net::{DATAGRAM_MAX, Udp, UdpBatch};
use crate::runtime::{task, time};

/// Batches after which other tasks of the core get their turn.
const BATCHES_BEFORE_YIELD: usize = 4;
/// Kernel buffers of a socket, bytes: a burst of some thousand queries waits here instead of being lost.
const SOCKET_BUFFER: usize = 1 << 20;

/// Serves one socket until it breaks.
///
/// # Errors
/// The socket is unusable.
pub(super) async fn serve(service: Rc<Service>, socket: Rc<Udp>) -> io::Result<()> {
    socket.set_buffers(SOCKET_BUFFER, SOCKET_BUFFER);
    let mut front = Front { received: UdpBatch::new(), replies: UdpBatch::new(), large: Vec::new() };
    let mut batches = 0;
    loop {
        if socket.recv_batch(&mut front.received)? == 0 {
            batches = 0;
            socket.ready().await?;
            continue;
        }
        for (awaited, to) in front.answer(&service, &socket) {
            let (service, socket) = (service.clone(), socket.clone());
            task::spawn(async move {
                if let Some(reply) = service.wait(awaited, false).await {
                    send_alone(&socket, &reply, to).await;
                }
            })
            .detach();
        }
        batches += 1;
        if batches % BATCHES_BEFORE_YIELD == 0 {
            task::yield_now().await;
        }
    }
}

struct Front {
    received: UdpBatch,
    replies: UdpBatch,
    /// Room for a reply that no batch holds; taken when the first one comes.
    large: Vec<u8>,
}

impl Front {
    /// Answers what was received; returns the queries that have to wait.
    fn answer(&mut self, service: &Service, socket: &Rc<Udp>) -> Vec<(Awaited, SocketAddr)> {
        let mut waiting = Vec::new();
        let started = time::now();
        service.refresh();
        let how = service.circumstances(false);
        let state = service.state.load();
        let mut responder = service.responder.borrow_mut();
        for (packet, from) in self.received.iter() {
            let mut unsent = Reply::Silence;
            self.replies.push_with(from, |room| match responder.respond(&state, packet, how, room) {
                Reply::Now(len) => Some(len),
                other => {
                    unsent = other;
                    None
                }
            });
            match unsent {
                Reply::Later(later) => waiting.push((Awaited::Recursors(later), from)),
                Reply::Unproven => waiting.push((Awaited::Leader(packet.into()), from)),
                Reply::Unheld(_) => waiting.push((Awaited::Servers(packet.into()), from)),
                Reply::Larger => {
                    self.large.resize(MESSAGE_SIZE_MAX, 0);
                    match responder.respond(&state, packet, how, &mut self.large) {
                        Reply::Now(len) if len > DATAGRAM_MAX => {
                            let reply = self.large[..len].to_vec();
                            let socket = socket.clone();
                            task::spawn(async move { send_alone(&socket, &reply, from).await }).detach();
                        }
                        Reply::Now(len) => {
                            self.replies.push(&self.large[..len], from);
                        }
                        Reply::Later(later) => waiting.push((Awaited::Recursors(later), from)),
                        Reply::Unproven => waiting.push((Awaited::Leader(packet.into()), from)),
                        Reply::Unheld(_) => waiting.push((Awaited::Servers(packet.into()), from)),
                        Reply::Silence | Reply::Larger => {}
                    }
                }
                Reply::Now(_) | Reply::Silence => {}
            }
        }
        responder.take_tally().publish(time::now() - started);
        service.note_uses(&mut responder);
        socket.send_batch(&mut self.replies);
        waiting
    }
}

/// Sends one reply outside any batch. A client that cannot be reached asks again or does not.
async fn send_alone(socket: &Udp, reply: &[u8], to: SocketAddr) {
    if let Err(error) = socket.send_to(reply, to).await {
        tracing::debug!("DNS reply of {} bytes to {to} was not sent: {error}", reply.len());
    }
}
