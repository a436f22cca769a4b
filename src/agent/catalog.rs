//! The catalog as this agent reaches it: in this process on a server, through a server elsewhere.

use std::time::Duration;

use futures_lite::future;

use crate::consensus::{Encoded, Proposals, ProposeError};
use crate::membership::Roster;
use crate::metrics::{self, Counter};
use crate::runtime::publish::Published;
use crate::runtime::time;
use crate::store::State;
use crate::store::command::{Applied, Command};
use crate::upstream::parcels::{self, Holding, REQUEST_LENGTH_MAX};
use crate::upstream::{Ask, Upstream};

/// How long one write may take before its waiters are answered without it; reads too.
pub const TIMEOUT: Duration = Duration::from_secs(7);
/// Bytes of what a server says the catalog holds of a node.
const HOLDING_LENGTH_MAX: usize = 64 << 20;

/// See the module.
#[derive(Clone)]
pub enum Catalog {
    /// This agent is a server.
    Local {
        /// The way to change it.
        proposals: Proposals,
        /// What it holds.
        state: Published<State>,
    },
    /// Servers are asked.
    Remote {
        /// The way to them.
        upstream: Upstream,
        /// The members, which say how large the cluster is.
        roster: Published<Roster>,
    },
}

impl Catalog {
    /// Whether it can be reached at all: on an agent that knows no server it cannot.
    pub fn is_known(&self) -> bool {
        match self {
            Catalog::Local { .. } => true,
            Catalog::Remote { upstream, .. } => upstream.has_servers(),
        }
    }

    /// How many nodes there are, about.
    pub fn nodes(&self) -> usize {
        match self {
            Catalog::Local { state, .. } => state.load().node_count(),
            Catalog::Remote { roster, .. } => roster.load().len(),
        }
    }

    /// Writes, in order and under way together. Each has an index of its own; all of them share the work of one write.
    ///
    /// # Errors
    /// One of them was not taken; those behind it may have been.
    pub async fn write(&self, commands: &[Command]) -> Result<Vec<Applied>, String> {
        metrics::count(Counter::CatalogWrites, commands.len() as u64);
        let writing = async {
            match self {
                Catalog::Local { proposals, .. } => propose(proposals, commands).await,
                Catalog::Remote { upstream, .. } => send(upstream, commands).await,
            }
        };
        time::timeout(TIMEOUT, writing)
            .await
            .unwrap_or_else(|| Err(format!("no confirmation within {TIMEOUT:?}")))
    }

    /// The index of the last change of anything that it holds of a node.
    ///
    /// # Errors
    /// No server says it.
    pub async fn stamp(&self, node: &str) -> Result<u64, String> {
        match self {
            Catalog::Local { state, .. } => Ok(Holding::stamp_of(&state.load(), node)),
            Catalog::Remote { upstream, .. } => {
                let told = ask(upstream, parcels::STAMP, node, 8).await?;
                let stamp = told[..].try_into().map_err(|_| "the server's answer is no index".to_owned())?;
                Ok(u64::from_le_bytes(stamp))
            }
        }
    }

    /// What it holds of a node.
    ///
    /// # Errors
    /// No server says it.
    pub async fn holding(&self, node: &str) -> Result<Holding, String> {
        match self {
            Catalog::Local { state, .. } => Ok(Holding::of(&state.load(), node)),
            Catalog::Remote { upstream, .. } => {
                Holding::decode(&ask(upstream, parcels::NODE, node, HOLDING_LENGTH_MAX).await?)
            }
        }
    }
}

async fn propose(proposals: &Proposals, commands: &[Command]) -> Result<Vec<Applied>, String> {
    let mut under_way: Vec<_> = commands.iter().map(|command| Box::pin(proposals.propose(command))).collect();
    // The first poll hands a command in: in order, and before any answer is waited for.
    let mut answers = Vec::with_capacity(under_way.len());
    for writing in &mut under_way {
        answers.push(future::poll_once(writing.as_mut()).await);
    }
    let mut all = Vec::with_capacity(answers.len());
    for (writing, answer) in under_way.into_iter().zip(answers) {
        let applied = match answer {
            Some(applied) => applied,
            None => writing.await,
        };
        all.push(applied.map_err(|why| why.to_string())?);
    }
    Ok(all)
}

async fn send(upstream: &Upstream, commands: &[Command]) -> Result<Vec<Applied>, String> {
    let encoded: Vec<Encoded> = commands.iter().map(Encoded::of).collect();
    let mut all = Vec::with_capacity(encoded.len());
    let mut rest = &encoded[..];
    while !rest.is_empty() {
        let (part, later) = rest.split_at(fitting(rest.iter().map(|write| write.bytes().len())));
        rest = later;
        let answer = upstream.request(Ask::put(parcels::PROPOSE, parcels::put_writes(part))).await;
        let answer = answer.map_err(|error| error.to_string())?;
        let status = answer.status;
        let body = answer.body.whole(REQUEST_LENGTH_MAX).await.map_err(|error| error.to_string())?;
        if status != 200 {
            return Err(format!("{status}: {}", String::from_utf8_lossy(&body)));
        }
        let outcomes = parcels::take_outcomes(&body).map_err(|error| error.to_string())?;
        if outcomes.len() != part.len() {
            return Err("the server's answer is not about what was asked".to_owned());
        }
        let outcomes: Result<Vec<Applied>, ProposeError> = outcomes.into_iter().collect();
        all.append(&mut outcomes.map_err(|why| why.to_string())?);
    }
    Ok(all)
}

/// How many writes of these lengths go into one request: one at least, however long it is.
fn fitting(lengths: impl Iterator<Item = usize>) -> usize {
    let mut sum = 0;
    let fits = lengths.take(parcels::WRITES_MAX).take_while(|length| {
        let is_first = sum == 0;
        sum += length;
        is_first || sum <= REQUEST_LENGTH_MAX
    });
    fits.count()
}

async fn ask(upstream: &Upstream, path: &str, node: &str, max: usize) -> Result<bytes::Bytes, String> {
    let mut target = format!("{path}?node=");
    for byte in node.bytes() {
        if byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte) {
            target.push(char::from(byte));
        } else {
            target.push_str(&format!("%{byte:02X}"));
        }
    }
    let asking = async {
        let answer = upstream.request(Ask::get(target)).await.map_err(|error| error.to_string())?;
        let status = answer.status;
        let body = answer.body.whole(max).await.map_err(|error| error.to_string())?;
        match status {
            200 => Ok(body),
            _ => Err(format!("{status}: {}", String::from_utf8_lossy(&body))),
        }
    };
    time::timeout(TIMEOUT, asking).await.unwrap_or_else(|| Err(format!("no answer within {TIMEOUT:?}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_write_goes_alone() {
        const LONG: usize = crate::consensus::COMMAND_LENGTH_MAX;
        let of = |lengths: &[usize]| fitting(lengths.iter().copied());
        assert_eq!(of(&[LONG, 1]), 1);
        assert_eq!(of(&[1, LONG, 1]), 1);
        assert_eq!(of(&[1, REQUEST_LENGTH_MAX - 1, 1]), 2);
        assert_eq!(of(&[1; 2 * parcels::WRITES_MAX]), parcels::WRITES_MAX);
    }
}
