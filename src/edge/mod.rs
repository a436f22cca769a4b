//! What clients talk to: HTTP and DNS.

pub mod dns;
pub mod fresh;
pub mod http;
