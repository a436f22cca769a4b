//! Who takes part: servers and clients, as gossip tells it, in a [`Roster`] that all cores read; joining, leaving, and how a cluster begins.
//!
//! [`Membership`] drives `protocol::gossip` on the control core: packets over UDP, full states over TCP ([`streams`]). What it hears goes into
//! the roster and the log ([`news`]). It uses no globals and takes its sockets from outside, so many agents can run in one process.
//! The first servers of a cluster find one another here, too ([`founding`]).

mod begin;
mod cluster;
mod door;
mod driver;
mod events;
mod facts;
mod founding;
mod join;
mod keys;
mod memory;
mod news;
mod places;
mod roster;
mod settings;
mod streams;

pub use cluster::{AdoptError, Cluster};
pub use door::{Door, Doorway, JoinError, Keys, PoolStats, door};
pub use driver::Membership;
pub use events::{Event, EventFilters, EventLog};
pub use facts::{OwnTags, ServerFacts, own_tags};
pub use founding::Founder;
pub use keys::text as key_text;
pub use places::Told;
pub use roster::{Difference, Evidence, Member, MemberStatus, Roster};
pub use settings::{Heed, Own, Settings, Sockets};
