//! Why a server did not answer.

use std::fmt;
use std::net::{IpAddr, SocketAddr};

/// Why a request was not answered. The texts are Consul's where it has one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum UpstreamError {
    /// No server is known. Nothing was done.
    NoServers,
    /// No server could be reached; the last one that was tried, and why. Nothing was done.
    Unreachable {
        /// From where, if that is told to the kernel.
        from: Option<IpAddr>,
        /// Where.
        server: SocketAddr,
        /// In the words of Go's dialler where it has some.
        why: String,
    },
    /// The connection broke off, or the server fell silent: whatever was asked may have been done.
    Lost,
    /// This agent asks more often than its configuration lets it. Nothing was done.
    RateExceeded,
    /// Too much is under way here or at the server. Nothing was done.
    TooBusy,
    /// The server's answer makes no sense.
    Nonsense,
    /// The answer is longer than whoever asked takes.
    AnswerTooLong {
        /// Bytes.
        max: usize,
    },
    /// This agent is stopping.
    Stopping,
}

impl fmt::Display for UpstreamError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            UpstreamError::NoServers => f.write_str("No known Consul servers"),
            UpstreamError::Unreachable { from, server, why } => {
                f.write_str("rpc error getting client: failed to get conn: dial tcp ")?;
                match from {
                    Some(from) => write!(f, "{}", SocketAddr::new(*from, 0))?,
                    None => f.write_str("<nil>")?,
                }
                write!(f, "->{server}: {why}")
            }
            UpstreamError::Lost => f.write_str("rpc error making call: EOF"),
            UpstreamError::RateExceeded => f.write_str("RPC rate limit exceeded"),
            UpstreamError::TooBusy => f.write_str(
                "rpc error making call: too many requests are under way to the servers; retry after a pause",
            ),
            UpstreamError::Nonsense => f.write_str(
                "rpc error making call: the server's answer cannot be read; do both run the same version?",
            ),
            UpstreamError::AnswerTooLong { max } => {
                write!(f, "rpc error making call: the answer is longer than the {max} bytes that are taken")
            }
            UpstreamError::Stopping => f.write_str("rpc error making call: the agent is stopping"),
        }
    }
}

impl std::error::Error for UpstreamError {}
