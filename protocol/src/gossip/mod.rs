//! Who is in a pool, and who has failed: SWIM membership with Lifeguard, sans-IO.

mod body;
pub mod clock;
pub mod coordinate;
pub mod events;
mod face;
pub mod intents;
pub mod keyring;
mod member;
mod message;
pub mod queries;
pub mod seal;
mod settings;

pub use face::{Change, Claim, Conflict, Effect, Evidence, Input, Level, Party, StreamId};
pub use member::{Member, NodeId, Status, Tags, TagsTooLong, TagsView, Versions};
pub use message::{
    Ack, Alive, Dead, Frame, Intent, IntentKind, Known, Message, Names, Ping, PingRequest, State, Suspect,
    Tombstone,
};
pub use settings::{
    FRAME_LENGTH_MAX, Identity, MEMBERS_MAX, NAME_LENGTH_MAX, Network, PACKET_LENGTH_MAX, Settings,
    TAGS_LENGTH_MAX,
};
