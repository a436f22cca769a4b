//! Who the servers are: a roster that all cores read, kept by introductions over TCP between servers that were told of
//! one another (`retry_join`). Gossip takes this room over with all agents in it; the [`Roster`] stays what others see.

mod cluster;
mod roster;

pub use cluster::{AdoptError, Cluster};
pub use roster::{Member, MemberStatus, Roster, ServerFacts};
