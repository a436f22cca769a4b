//! Free loopback ports for agents and stubs.

use std::collections::HashSet;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::net::{TcpListener, UdpSocket};
use std::sync::Mutex;

/// Ports are taken below the kernel's ephemeral range, so that no outgoing connection of the machine takes one
/// between the moment it was found free and the moment an agent binds it.
const FIRST: u64 = 12_000;
const COUNT: u64 = 20_000;
const ATTEMPTS_MAX: usize = 500;

static USED: Mutex<Option<HashSet<u16>>> = Mutex::new(None);

/// A port on 127.0.0.1 that is free for TCP and for UDP and that this process has not given out before.
pub fn free_port() -> u16 {
    for _ in 0..ATTEMPTS_MAX {
        let port = (FIRST + random() % COUNT) as u16;
        let free =
            TcpListener::bind(("127.0.0.1", port)).is_ok() && UdpSocket::bind(("127.0.0.1", port)).is_ok();
        let mut used = USED.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        if free && used.get_or_insert_default().insert(port) {
            return port;
        }
    }
    panic!("no free port on 127.0.0.1 after {ATTEMPTS_MAX} attempts");
}

/// A random number, from the keys that the standard library draws for its hash maps.
pub fn random() -> u64 {
    RandomState::new().build_hasher().finish()
}
