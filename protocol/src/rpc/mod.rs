//! What servers tell each other, and how agents ask them.

mod codec;
mod founding;
mod greeting;
mod hello;
pub mod message;
pub mod mux;

pub use codec::{decode, encode};
pub use founding::Founding;
pub use greeting::{RPC_PREAMBLE, RPC_VERSION, RPC_VERSION_MIN, RpcHello, RpcWelcome};
pub use hello::{LINK_VERSION, LINK_VERSION_MIN, LinkHello, LinkWelcome, PREAMBLE};
pub use message::PeerMessage;
