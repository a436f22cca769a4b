//! The door: requests of the API, in the order in which they came.

use std::rc::Rc;
use std::time::Duration;

use super::{HASH_WAITERS_MAX, HashWaiter, Inner};
use crate::agent::door::{Doorway, Envelope, Explained, Request};
use crate::agent::error::AgentError;
use crate::agent::local::Source;
use crate::runtime::{mesh, task, time};

/// Requests handled before their files are written and the others get a turn.
const REQUESTS_AT_ONCE: usize = 256;
/// Between the answer that the agent has left and its end, so that whoever asked for it gets the answer.
const LAST_WORD: Duration = Duration::from_millis(100);

pub(super) async fn run(inner: Rc<Inner>, mut doorway: Doorway) {
    let mut waiting = Vec::new();
    while doorway.requests.recv_batch(&mut waiting, REQUESTS_AT_ONCE).await {
        let mut done = Vec::new();
        for Envelope { request, reply } in waiting.drain(..) {
            handle(&inner, request, reply, &mut done);
        }
        inner.changed();
        // On disk before it is promised; the catalog is written meanwhile.
        if let Err(why) = inner.persist().await {
            done = refuse_registrations(done, &why);
        }
        for check in done.iter().filter_map(|done| done.state.as_ref()) {
            inner.flush_state(check).await;
        }
        inner.wait_for_catalog(done);
    }
}

type Reply = mesh::OneSender<Result<(), AgentError>>;

/// A request that was done and waits for files and catalog.
struct Done {
    change: u64,
    /// It promises to be there after a restart.
    registers: bool,
    /// The TTL check whose status it has changed: that is there after a restart, too. What only says it again is written later.
    state: Option<String>,
    reply: Reply,
}

/// A disk that takes no file takes none of a batch: all its registrations are told, and none is promised.
fn refuse_registrations(done: Vec<Done>, why: &str) -> Vec<Done> {
    let (refused, others): (Vec<_>, Vec<_>) = done.into_iter().partition(|done| done.registers);
    for Done { reply, .. } in refused {
        let _ = reply.send(Err(AgentError::failed(why)));
    }
    others
}

/// Does what is asked. Refusals are answered at once; what has to reach the catalog goes to `done`.
fn handle(inner: &Rc<Inner>, request: Request, reply: Reply, done: &mut Vec<Done>) {
    let registers = matches!(request, Request::RegisterService { .. } | Request::RegisterCheck { .. });
    match request {
        Request::AwaitService { id, hash, wait } => await_service(inner, id, hash, wait, reply),
        Request::Explain { name, told } => {
            let services = inner.registry.borrow().explain(time::now(), &name);
            let synced_ago = inner.synced_at.get().map(|at| time::now().saturating_duration_since(at));
            let _ = told.0.send(Explained { services, synced_ago });
            let _ = reply.send(Ok(()));
        }
        Request::Reload => {
            let inner = inner.clone();
            task::spawn(async move {
                let _ = reply.send(inner.reload().await);
            })
            .detach();
        }
        Request::Leave => {
            inner.leaving.set(true);
            let (left, inner) = ((inner.hooks.leave)(), inner.clone());
            task::spawn(async move {
                left.await;
                let _ = reply.send(Ok(()));
                time::sleep(LAST_WORD).await;
                (inner.hooks.end)();
            })
            .detach();
        }
        update @ Request::UpdateTtl { .. } if !inner.pace.borrow_mut().allows(time::now()) => {
            let _ = reply.send(inner.change(update));
        }
        change => {
            let check = match &change {
                Request::UpdateTtl { check_id, .. } => Some(check_id.clone()),
                _ => None,
            };
            let before = inner.registry.borrow().last_change();
            match inner.change(change) {
                Ok(()) => {
                    let change = inner.registry.borrow().last_change();
                    let state = check.filter(|_| change != before);
                    done.push(Done { change, registers, state, reply });
                }
                Err(refusal) => {
                    let _ = reply.send(Err(refusal));
                }
            }
        }
    }
}

fn await_service(inner: &Inner, id: String, hash: String, wait: Duration, reply: Reply) {
    let mut waiters = inner.hash_waiters.borrow_mut();
    if waiters.len() >= HASH_WAITERS_MAX {
        let _ = reply.send(Ok(()));
        return;
    }
    // The caller looked at the published view; what changed since is answered by `changed` right after this.
    waiters.push(HashWaiter { id, hash, deadline: time::now() + wait, reply });
}

impl Inner {
    fn change(&self, request: Request) -> Result<(), AgentError> {
        let now = time::now();
        let mut registry = self.registry.borrow_mut();
        match request {
            Request::RegisterService { definition, replace_checks } => {
                registry.put_service(now, &definition, Source::Remote, replace_checks)
            }
            Request::DeregisterService { id } => registry.remove_service(&id),
            Request::RegisterCheck { definition } => registry.put_check(now, &definition, Source::Remote),
            Request::DeregisterCheck { id } => registry.remove_check(&id),
            Request::UpdateTtl { check_id, status, output } => {
                registry.tell(now, time::unix_now(), &check_id, status, output)
            }
            Request::ServiceMaintenance { id, enable, reason } => {
                registry.set_service_maintenance(now, &id, enable, &reason)
            }
            Request::NodeMaintenance { enable, reason } => {
                registry.set_node_maintenance(now, enable, &reason);
                Ok(())
            }
            // Not changes of the registry; see `handle`.
            Request::AwaitService { .. } | Request::Explain { .. } | Request::Reload | Request::Leave => {
                Ok(())
            }
        }
    }

    /// Lets requests wait until the catalog holds what they changed.
    fn wait_for_catalog(&self, done: Vec<Done>) {
        if done.is_empty() {
            return;
        }
        self.waiters.borrow_mut().extend(done.into_iter().map(|done| (done.change, done.reply)));
        self.dirty.ring();
    }
}
