//! What servers tell each other, and how agents ask them.

mod codec;
mod greeting;
mod hello;
mod introduction;
pub mod message;
pub mod mux;

pub use codec::{decode, encode};
pub use greeting::{RPC_PREAMBLE, RPC_VERSION, RPC_VERSION_MIN, RpcHello, RpcWelcome};
pub use hello::{LINK_VERSION, LINK_VERSION_MIN, LinkHello, LinkWelcome, PREAMBLE};
pub use introduction::{CARDS_MAX, Card, Founding, Introduction, Overture};
pub use message::PeerMessage;
