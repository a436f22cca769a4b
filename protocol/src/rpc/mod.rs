//! What servers tell each other.

pub mod message;

pub use message::PeerMessage;
