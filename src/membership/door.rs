//! How other cores ask for changes of the membership.

use std::fmt;

use crate::runtime::mesh::{self, OneSender, Receiver, Sender};

/// Requests that wait for the control core. Operators make them by hand; past it they are refused as too busy.
const REQUESTS_MAX: usize = 64;

/// A handle to ask from any core.
#[derive(Clone)]
pub struct Door(Option<Sender<Request>>);

/// The other side, for [`super::Membership`].
pub struct Doorway(pub(super) Receiver<Request>);

/// One request, and the way back.
pub(super) enum Request {
    Join(Vec<String>, OneSender<Result<usize, JoinError>>),
    ForceLeave { name: String, prune: bool, reply: OneSender<bool> },
}

/// Why nobody was joined: one line for each address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JoinError(pub Vec<String>);

impl fmt::Display for JoinError {
    /// As Consul prints a list of errors.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let count = self.0.len();
        writeln!(f, "{count} error{} occurred:", if count == 1 { "" } else { "s" })?;
        self.0.iter().try_for_each(|line| writeln!(f, "\t* {line}"))?;
        writeln!(f)
    }
}

impl std::error::Error for JoinError {}

/// Both sides of a new door.
pub fn door() -> (Door, Doorway) {
    let (sender, receiver) = mesh::channel(REQUESTS_MAX);
    (Door(Some(sender)), Doorway(receiver))
}

impl Door {
    /// A door behind which nobody is.
    pub fn closed() -> Door {
        Door(None)
    }

    /// Joins the pool through addresses (`host`, `host:port`); returns how many members answered.
    ///
    /// # Errors
    /// None did.
    pub async fn join(&self, addresses: Vec<String>) -> Result<usize, JoinError> {
        let (reply, answer) = mesh::oneshot();
        let first = addresses.first().cloned().unwrap_or_default();
        let failed = |why: &str| JoinError(vec![format!("Failed to join {first}: {why}")]);
        let Some(sender) = &self.0 else { return Err(failed("the agent has no membership")) };
        if sender.try_send(Request::Join(addresses, reply)).is_err() {
            return Err(failed("too many requests wait, or the agent is stopping"));
        }
        answer.await.unwrap_or_else(|| Err(failed("the agent is stopping")))
    }

    /// Takes a member for gone that has failed, so that it counts as having left; with `prune` it is forgotten at once. False when nobody has
    /// this name.
    pub async fn force_leave(&self, name: &str, prune: bool) -> bool {
        let (reply, answer) = mesh::oneshot();
        let Some(sender) = &self.0 else { return false };
        let request = Request::ForceLeave { name: name.to_owned(), prune, reply };
        sender.try_send(request).is_ok() && answer.await.unwrap_or(false)
    }
}
