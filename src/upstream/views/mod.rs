//! What a client agent keeps of the catalog: the services and nodes that were asked of it, followed on the servers by
//! blocking questions ([`crate::store::View`]) and published as a partial state, so that DNS and `?cached` reads are
//! answered from memory, as fresh as the servers are.
//!
//! The first question about a name waits for the servers' answer; later ones find it in the state. While no server
//! answers all goes on from what there is, its age told ([`Views::contact`]), and nothing is dropped; what the agent knows of its
//! own node stands in it as it is now. A view that nobody has
//! used for [`IDLE_MAX`] goes, and so does the one that was not used for longest when there are [`VIEWS_MAX`]; of those the
//! ones without any rows first, so that a flood of made-up names costs no real one its place.
//!
//! [`Views`] is the handle that edges hold; [`Keeper`] runs on the control core.

mod keeper;
mod kept;
#[cfg(test)]
mod tests;

use std::net::IpAddr;
use std::time::{Duration, Instant};

use bytes::Bytes;

use crate::consensus::Contact;
use crate::runtime::cores::LocalBoxFuture;
use crate::runtime::mesh::{self, OneSender, Sender};
use crate::runtime::publish::Published;
use crate::runtime::time;
use crate::store::{OwnRows, State, View};

pub use keeper::Keeper;

/// Views that are kept.
pub const VIEWS_MAX: usize = 2048;
/// Views without rows that go at once when there are as many: looking for them costs more than asking again.
const EMPTY_DROPPED_AT_ONCE: usize = VIEWS_MAX / 32;
/// How long a view is kept that nobody uses, as Consul's cache does.
pub const IDLE_MAX: Duration = Duration::from_secs(3 * 24 * 3600);
/// How often edges should say that they use a view; they need not more often.
pub const USE_INTERVAL: Duration = Duration::from_secs(3600);
/// Orders that wait for the control core. Past it questions fail as if no server had answered.
pub const ORDERS_MAX: usize = 4096;
/// Questions that wait for first answers. Past it they fail at once.
pub const WAITING_MAX: usize = 8192;
/// Bytes of an answer; a service whose rows are more cannot be kept.
pub const ANSWER_LENGTH_MAX: usize = 64 << 20;
/// Names of addresses that are remembered for when no server answers.
pub const ADDRESSES_MAX: usize = 1024;
/// Questions for the names of addresses that are under way; past it they fail at once.
pub const ADDRESSES_ASKED_MAX: usize = 256;
/// Header of a server's answer: the history that its indexes are of.
pub const HISTORY_HEADER: &str = "X-Muster-History";

/// Asks some server: `GET` of a target.
pub type Ask = Box<dyn Fn(String) -> LocalBoxFuture<'static, Result<Told, String>>>;

/// What the agent itself knows of its node, if that is another than when it was asked last.
pub type Own = Box<dyn FnMut() -> Option<OwnRows>>;

/// What a server answered.
#[derive(Clone, Debug)]
pub struct Told {
    /// Status code. 503: there was no room for the question, here or there.
    pub status: u16,
    /// [`HISTORY_HEADER`], empty without.
    pub history: String,
    /// Whether the server follows its leader now: what it says is not older than a moment.
    pub is_current: bool,
    /// The body, at most [`ANSWER_LENGTH_MAX`].
    pub body: Bytes,
}

impl Told {
    /// An answer that says why there is none.
    pub fn refusal(status: u16, why: String) -> Told {
        Told { status, history: String::new(), is_current: false, body: why.into() }
    }
}

/// Why a question has no answer, in words for the client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HoldError(pub String);

/// The name of what is at an address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NameOf {
    /// A node.
    Node(String),
    /// An instance of a service.
    Service(String),
}

/// How the servers were heard last.
#[derive(Clone, Copy, Debug, Default)]
struct Standing {
    /// Since when no server answers.
    lost: Option<Instant>,
}

/// What edges ask of the keeper.
enum Order {
    Hold(View, OneSender<Result<(), HoldError>>),
    Use(View),
    Name(IpAddr, OneSender<Result<Option<NameOf>, HoldError>>),
}

/// The edges' handle. Clones are the same.
#[derive(Clone)]
pub struct Views {
    orders: Sender<Order>,
    standing: Published<Standing>,
}

/// A handle and what runs behind it. The state is a mirror, empty at first.
pub fn views() -> (Views, Published<State>, Keeper) {
    let (orders, incoming) = mesh::channel(ORDERS_MAX);
    let standing = Published::new(Standing::default());
    let state = Published::new(State::mirror());
    let keeper = Keeper::new(incoming, state.clone(), standing.clone());
    (Views { orders, standing }, state, keeper)
}

impl Views {
    /// How the mirror stands: while a server answers it is as good as that server's state; else `last` is how long none
    /// has. There is no server *here*: reads of what the mirror does not hold find nothing in it.
    pub fn contact(&self) -> Contact {
        let lost = self.standing.load().lost;
        let age = lost.map(|since| time::now().saturating_duration_since(since));
        Contact {
            has_server: false,
            known_leader: lost.is_none(),
            leads: lost.is_none(),
            alone: false,
            last: Some(age.unwrap_or_default()),
        }
    }

    /// Waits until the published state holds a view.
    ///
    /// # Errors
    /// No server answers, or too much is asked at once. The caller brings its own patience.
    pub async fn hold(&self, view: View) -> Result<(), HoldError> {
        let (told, holds) = mesh::oneshot();
        self.orders.try_send(Order::Hold(view, told)).map_err(|_| too_busy())?;
        holds.await.unwrap_or_else(|| Err(too_busy()))
    }

    /// Says that a view is in use.
    pub fn note(&self, view: View) {
        // It is said again.
        let _ = self.orders.try_send(Order::Use(view));
    }

    /// Asks for the name of what is at an address. While no server answers, what was answered before counts.
    ///
    /// # Errors
    /// As for [`Views::hold`].
    pub async fn name_of(&self, ip: IpAddr) -> Result<Option<NameOf>, HoldError> {
        let (told, named) = mesh::oneshot();
        self.orders.try_send(Order::Name(ip, told)).map_err(|_| too_busy())?;
        named.await.unwrap_or_else(|| Err(too_busy()))
    }
}

fn too_busy() -> HoldError {
    HoldError("This agent has too many questions for the servers under way: try again later".to_owned())
}
