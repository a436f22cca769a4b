//! How keys, nodes and sessions are called.

use muster::store::State;
use muster::store::topic::Topic;

/// All locks begin with this.
const LOCKS: &str = "l/";

/// The check that sessions hang on.
pub const CHECK: &str = "alive";

/// The node that stays.
pub const STEADY: &str = "steady";

/// A lock's key.
pub fn lock_name(key: u32) -> Vec<u8> {
    format!("{LOCKS}{key}").into_bytes()
}

/// A session's ID.
pub fn session_name(number: usize) -> String {
    format!("00000000-0000-4000-8000-{number:012x}")
}

/// A node that comes and goes.
pub fn node_name(node: usize) -> String {
    format!("node-{node}")
}

/// Watchers and their judge know what they look at by a number; from here on it is no key of the other clients.
const FIRST: u32 = 1000;
const SESSIONS: u32 = FIRST;
const TREE: u32 = FIRST + 1;
const STEADY_NODE: u32 = FIRST + 2;
const NODES: u32 = FIRST + 100;
const KEYS: u32 = FIRST + 200;

/// All that can be watched of locks.
pub fn watchable(keys: u32, nodes: usize) -> Vec<u32> {
    let nodes = (0..nodes as u32).map(|node| NODES + node);
    [SESSIONS, TREE, STEADY_NODE].into_iter().chain(nodes).chain((0..keys).map(|key| KEYS + key)).collect()
}

/// What a number stands for, if it is one of these.
pub fn topic_of(number: u32) -> Option<Topic> {
    Some(match number {
        ..FIRST => return None,
        SESSIONS => Topic::Sessions,
        TREE => Topic::KeyPrefix(LOCKS.as_bytes().into()),
        STEADY_NODE => Topic::NodeSessions(STEADY.into()),
        KEYS.. => Topic::Key(lock_name(number - KEYS).into()),
        _ => Topic::NodeSessions(node_name((number - NODES) as usize).into()),
    })
}

/// The number of a session by its ID.
pub fn session_number(id: &str) -> Option<usize> {
    usize::from_str_radix(id.rsplit('-').next()?, 16).ok()
}

/// What somebody who watches sees.
pub fn answer(state: &State, topic: &Topic) -> String {
    match topic {
        Topic::Key(key) => format!("{:?}", state.kv(key)),
        Topic::KeyPrefix(prefix) => format!("{:?}", state.kv_under(prefix).collect::<Vec<_>>()),
        Topic::NodeSessions(node) => format!("{:?}", state.node_sessions(node).collect::<Vec<_>>()),
        _ => format!("{:?}", state.sessions().collect::<Vec<_>>()),
    }
}
