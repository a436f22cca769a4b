//! What servers tell each other.

mod codec;
mod hello;
mod introduction;
pub mod message;

pub use codec::{decode, encode};
pub use hello::{LINK_VERSION, LINK_VERSION_MIN, LinkHello, LinkWelcome, PREAMBLE};
pub use introduction::{CARDS_MAX, Card, Founding, Introduction, Overture};
pub use message::PeerMessage;
