//! Which cluster a server belongs to.

use std::fmt;

use crate::entry::ServerId;

/// Random name of a cluster, made once by whoever bootstraps it: servers of different clusters never mix, whatever
/// addresses they are given.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ClusterId(pub [u8; 16]);

impl ClusterId {
    /// Reads the 36 characters of a UUID, in either case.
    pub fn parse(text: &str) -> Option<ClusterId> {
        ServerId::parse(text).map(|id| ClusterId(id.0))
    }
}

impl fmt::Display for ClusterId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        ServerId(self.0).fmt(f)
    }
}

impl fmt::Debug for ClusterId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
