//! What the black-box tests share: free ports, agents as child processes, a small HTTP client, a small DNS client, and
//! stub servers. Everything here is written against the wire, with nothing of the agent's own code, so that a mistake in
//! the agent's encoders cannot hide behind the same mistake in its tests.
#![allow(dead_code)] // every test binary takes the part of it that it needs

pub mod dns;
pub mod http;
pub mod ports;
pub mod process;
pub mod stubs;
pub mod wait;
