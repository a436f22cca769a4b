//! Questions of a client agent about what it does not keep yet: the servers are asked, then the question is answered
//! as if it had been there. Aliases may lead from one name to the next, so that may take some rounds.

use muster_protocol::dns::MESSAGE_SIZE_MAX;

use super::lookup::Named;
use super::responder::{Missing, Reply};
use super::{ALIAS_ROUNDS_MAX, Service, proven};
use crate::runtime::task;
use crate::store::View;
use crate::upstream::views::{NameOf, Views};

/// The reply, if one is due; `None` when the servers do not tell.
pub(super) async fn answer(service: &Service, packet: &[u8], tcp: bool) -> Option<Option<Vec<u8>>> {
    let views = service.proofs.leadership().views()?;
    let mut out = vec![0; MESSAGE_SIZE_MAX];
    for _ in 0..ALIAS_ROUNDS_MAX {
        let reply = {
            let mut responder = service.responder.borrow_mut();
            let reply = responder.respond(&service.state.load(), packet, proven(tcp), &mut out);
            service.note_uses(&mut responder);
            reply
        };
        let reply = match reply {
            Reply::Unheld(Missing::Views(missing)) => {
                hold(views, missing).await?;
                continue;
            }
            Reply::Unheld(Missing::Name(ip)) => {
                // Who does not know asks further, as Consul does.
                let named = views.name_of(ip).await.ok().flatten();
                let named = named.as_ref().map(|named| match named {
                    NameOf::Node(name) => Named::Node(name),
                    NameOf::Service(name) => Named::Service(name),
                });
                service.responder.borrow_mut().respond_named(packet, named, proven(tcp), &mut out)
            }
            other => other,
        };
        return match reply {
            Reply::Now(len) => {
                out.truncate(len);
                Some(Some(out))
            }
            Reply::Later(later) => Some(service.complete(&later, tcp).await),
            _ => Some(None),
        };
    }
    None
}

/// Waits for all of them; `None` if one is not to be had.
async fn hold(views: &Views, missing: Vec<View>) -> Option<()> {
    let asked = missing.into_iter().map(|view| {
        let views = views.clone();
        task::spawn(async move { views.hold(view).await })
    });
    let mut held = Some(());
    for asked in asked.collect::<Vec<_>>() {
        if !matches!(asked.await, Some(Ok(()))) {
            held = None;
        }
    }
    held
}
