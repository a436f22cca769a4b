//! Who the servers are: a roster that all cores read, kept by introductions over TCP between servers that were told of
//! one another (`retry_join`). Gossip takes this room over with all agents in it; the [`Roster`] stays what others see.
//!
//! Each server talks to each one that it knows once a second: it says who it is and whom it knows, and hears the same.
//! Who does not answer three times in a row has failed; who leaves says so. The first servers of a cluster find one
//! another here, too ([`founding`]).

mod begin;
mod cluster;
mod door;
mod driver;
mod facts;
mod founding;
mod join;
mod known;
mod memory;
mod roster;
mod talk;

pub use cluster::{AdoptError, Cluster};
pub use door::{Door, Doorway, JoinError, door};
pub use driver::{Membership, Settings};
pub use facts::ServerFacts;
pub use roster::{Difference, Evidence, Member, MemberStatus, Roster};
