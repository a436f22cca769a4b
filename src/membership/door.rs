//! How other cores ask for changes of the membership.

use std::fmt;
use std::sync::Arc;

use muster_protocol::gossip::coordinate::Coordinate;
use muster_protocol::gossip::keyring::{self, Tally};

use super::events::{Event, EventLog};
use crate::runtime::mesh::{self, Full, OneSender, Receiver, Sender};
use crate::runtime::publish::Published;
use crate::store::command::Place;

/// Requests that wait for the control core. Operators make them by hand; past it they are refused as too busy.
const REQUESTS_MAX: usize = 64;

/// A handle to ask from any core.
#[derive(Clone)]
pub struct Door {
    requests: Option<Sender<Request>>,
    events: Published<EventLog>,
    stats: Published<PoolStats>,
}

/// How this agent's part in the pool is, as of the last second.
#[derive(Clone, Copy, Debug, Default)]
pub struct PoolStats {
    /// Where it is.
    pub coordinate: Coordinate,
    /// How far it mistrusts itself; 0 is healthy.
    pub health_score: u32,
    /// Whether what it sends is sealed.
    pub encrypted: bool,
    /// The next times of intents, events and queries.
    pub clocks: [u64; 3],
}

/// The other side, for [`super::Membership`].
pub struct Doorway {
    pub(super) requests: Receiver<Request>,
    pub(super) events: Published<EventLog>,
    pub(super) stats: Published<PoolStats>,
}

/// What an operator asks all members to do with their keys.
pub type Keys = keyring::Request;

/// One request, and the way back.
pub(super) enum Request {
    Join(Vec<String>, OneSender<Result<usize, JoinError>>),
    ForceLeave {
        name: String,
        prune: bool,
        reply: OneSender<bool>,
    },
    Keyrings {
        request: Keys,
        relays: u8,
        reply: OneSender<Result<Tally, String>>,
    },
    WanKeyring {
        request: Keys,
        reply: OneSender<Tally>,
    },
    Fire {
        event: Event,
        reply: OneSender<Result<(), String>>,
    },
    /// False: too many wait for it already.
    NextEvent {
        seen: u64,
        reply: OneSender<bool>,
    },
    Locate {
        place: Place,
        reply: OneSender<Result<(), String>>,
    },
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
    let (sender, requests) = mesh::channel(REQUESTS_MAX);
    let events = Published::new(EventLog::default());
    let stats = Published::new(PoolStats::default());
    let door = Door { requests: Some(sender), events: events.clone(), stats: stats.clone() };
    (door, Doorway { requests, events, stats })
}

impl Door {
    /// A door behind which nobody is.
    pub fn closed() -> Door {
        Door {
            requests: None,
            events: Published::new(EventLog::default()),
            stats: Published::new(PoolStats::default()),
        }
    }

    /// Joins the pool through addresses (`host`, `host:port`); returns how many members answered.
    ///
    /// # Errors
    /// None did.
    pub async fn join(&self, addresses: Vec<String>) -> Result<usize, JoinError> {
        let first = addresses.first().cloned().unwrap_or_default();
        let failed = |why: String| JoinError(vec![format!("Failed to join {first}: {why}")]);
        self.ask(|reply| Request::Join(addresses, reply)).await.map_err(failed)?
    }

    /// Takes a member for gone that has failed, so that it counts as having left; with `prune` it is forgotten at once. False when nobody has
    /// this name.
    pub async fn force_leave(&self, name: &str, prune: bool) -> bool {
        let name = name.to_owned();
        self.ask(|reply| Request::ForceLeave { name, prune, reply }).await.unwrap_or(false)
    }

    /// Asks all members of the LAN pool to do something with their keys; so many relay each answer.
    ///
    /// # Errors
    /// It cannot be asked.
    pub async fn keyrings(&self, request: Keys, relays: u8) -> Result<Tally, String> {
        self.ask(|reply| Request::Keyrings { request, relays, reply }).await?
    }

    /// Asks all members of the WAN pool.
    ///
    /// # Errors
    /// It cannot be asked.
    pub async fn wan_keyrings(&self, request: Keys) -> Result<Tally, String> {
        self.ask(|reply| Request::WanKeyring { request, reply }).await
    }

    /// Tells all members of an event.
    ///
    /// # Errors
    /// It is too long, or cannot be told.
    pub async fn fire(&self, event: Event) -> Result<(), String> {
        self.ask(|reply| Request::Fire { event, reply }).await?
    }

    /// Has a server write where a node is, soon.
    ///
    /// # Errors
    /// Too much waits.
    pub async fn locate(&self, place: Place) -> Result<(), String> {
        self.ask(|reply| Request::Locate { place, reply }).await?
    }

    /// The events that this agent has heeded.
    pub fn events(&self) -> Arc<EventLog> {
        self.events.load_full()
    }

    /// How this agent's part is.
    pub fn stats(&self) -> PoolStats {
        **self.stats.load()
    }

    /// Waits until the [count](EventLog::count) of events is another one. False: too many wait already, and one more shall look later.
    pub async fn next_event(&self, seen: u64) -> bool {
        let (reply, answer) = mesh::oneshot();
        let request = Request::NextEvent { seen, reply };
        if let Some(requests) = &self.requests {
            let told = match requests.try_send(request) {
                Ok(()) => answer.await,
                Err(Full::Full(_)) => Some(false),
                Err(Full::Closed(_)) => None,
            };
            if let Some(told) = told {
                return told;
            }
        }
        // Nobody will tell any more.
        std::future::pending().await
    }

    async fn ask<T: Send>(&self, request: impl FnOnce(OneSender<T>) -> Request) -> Result<T, String> {
        let (reply, answer) = mesh::oneshot();
        let sender = self.requests.as_ref().ok_or("the agent has no membership")?;
        let full = |_| "too many requests wait, or the agent is stopping";
        sender.try_send(request(reply)).map_err(full)?;
        answer.await.ok_or_else(|| "the agent is stopping".to_owned())
    }
}

#[cfg(test)]
mod tests {
    use futures_lite::future::{block_on, poll_once};

    use super::*;

    #[test]
    fn who_waits_for_an_event_is_told_when_too_much_waits() {
        let (door, doorway) = door();
        block_on(async {
            let mut waiting: Vec<_> = (0..REQUESTS_MAX).map(|_| Box::pin(door.next_event(0))).collect();
            for one in &mut waiting {
                assert_eq!(poll_once(one).await, None);
            }
            assert_eq!(poll_once(door.next_event(0)).await, Some(false), "it looks later");
            drop(doorway);
            assert_eq!(poll_once(door.next_event(0)).await, None, "nobody will tell");
        });
    }
}
