//! What servers tell each other.

mod codec;
mod founding;
mod hello;
pub mod message;

pub use codec::{decode, encode};
pub use founding::Founding;
pub use hello::{LINK_VERSION, LINK_VERSION_MIN, LinkHello, LinkWelcome, PREAMBLE};
pub use message::PeerMessage;
