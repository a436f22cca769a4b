//! Sans-IO cores of Muster: no socket, file, clock, thread, global or randomness. Bytes and `now` come in as
//! values, effects go out as values.

pub mod dns;
pub mod entry;
pub mod gossip;
pub mod http;
pub mod log;
pub mod raft;
pub mod random;
pub mod rpc;
pub mod wire;
