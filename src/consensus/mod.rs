//! The one door through which writes reach the replicated state. A [`Proposals`] is held by whoever accepts writes,
//! on any core; a [`Runner`] drives the [`replica`] on the control core, over the disk thread and the links to other servers.
//! Nothing above may know more of consensus than this face.
//!
//! Order is law: a batch is committed, applied, its state published, and only then are its writers told. So a write that was
//! acknowledged is visible on every core. Before that, too, every edge core with room in its queue is told what was touched; one
//! that is behind hears it later.

mod admin;
mod ask;
mod disk;
mod encoded;
mod error;
mod forced;
mod gauges;
mod limits;
mod links;
mod lone;
mod opening;
mod proposals;
pub mod replica;
mod runner;
mod standing;
mod status;
#[cfg(test)]
mod tests;

pub use admin::{AdminError, AdminOp};
pub use ask::{ASKED_MAX, Asked};
pub use encoded::{COMMAND_VERSION, Damaged, Encoded};
pub use error::ProposeError;
pub use forced::{Forced, ForcedServer};
pub use limits::{BATCH_MAX, COMMAND_LENGTH_MAX, QUEUE_BYTES_MAX, QUEUE_MAX};
pub use links::{Links, PeerEvent};
pub use lone::{Lone, open};
pub use opening::{Opening, Setup};
pub use proposals::{Consistency, Proposals, door};
pub use runner::{Edges, Runner};
pub use standing::{PeerProgress, Role, Standing};
pub use status::{Contact, Status};
