//! Joining: through addresses that an operator gave, and through those where members were in an earlier life.

use std::collections::HashSet;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use muster_protocol::gossip::Input;

use super::door::JoinError;
use super::driver::Inner;
use super::news::log;
use crate::runtime::random::Rng;
use crate::runtime::{net, time};

/// Patience with the system's resolver.
const RESOLVE_LIMIT: Duration = Duration::from_secs(5);
/// How often the members of the last run are looked for while nobody answers.
const REJOIN_INTERVAL: Duration = Duration::from_secs(5);
/// Through so many of them at once.
const REJOIN_AT_ONCE: usize = 8;

/// The end of a join.
pub(super) struct Joined {
    /// How many members answered.
    pub contacted: usize,
    /// Why others did not.
    pub errors: Vec<(SocketAddr, String)>,
}

/// Joins the pool through each of these addresses (`host`, `host:port`, of which some may be this agent's own).
///
/// # Errors
/// Nobody answered at any of them.
pub(super) async fn join(inner: &Rc<Inner>, addresses: &[String]) -> Result<usize, JoinError> {
    let (contacted, failures) = try_all(inner, addresses).await;
    if contacted == 0 && !failures.is_empty() { Err(JoinError(failures)) } else { Ok(contacted) }
}

/// How many answered, and why the others did not.
async fn try_all(inner: &Rc<Inner>, addresses: &[String]) -> (usize, Vec<String>) {
    let (found, mut failures) = resolve_all(inner, addresses).await;
    let joined = through(inner, found).await;
    failures.extend(joined.errors.iter().map(|(to, why)| format!("Failed to join {}: {why}", to.ip())));
    (joined.contacted, failures)
}

/// Where these addresses are, and why that is not known of others.
async fn resolve_all(inner: &Rc<Inner>, addresses: &[String]) -> (Vec<SocketAddr>, Vec<String>) {
    let mut found: Vec<SocketAddr> = Vec::new();
    let mut failures = Vec::new();
    for address in addresses {
        match resolve(address, inner.settings.default_port).await {
            Ok(resolved) => found.extend(resolved),
            Err(why) => failures.push(format!("Failed to resolve {address}: {why}")),
        }
    }
    found.sort_unstable();
    found.dedup();
    (found, failures)
}

/// One join after another: the core tells their ends without saying whose they are.
async fn through(inner: &Rc<Inner>, addresses: Vec<SocketAddr>) -> Joined {
    let _turn = inner.joining.take().await;
    inner.step(Input::Join(addresses));
    loop {
        if let Some(joined) = inner.joined.take() {
            return joined;
        }
        inner.join_done.heard().await;
    }
}

async fn resolve(address: &str, default_port: u16) -> Result<Vec<SocketAddr>, String> {
    let (host, port) = split(address, default_port)?;
    let resolved = time::timeout(RESOLVE_LIMIT, net::resolve(host, port)).await;
    resolved.ok_or("the name does not resolve in time")?.map_err(|error| error.to_string())
}

/// Host and port; the port is the usual one when none is written.
fn split(address: &str, default_port: u16) -> Result<(&str, u16), String> {
    if address.starts_with("provider=") {
        return Err("finding servers through a cloud provider is not supported; name hosts".to_owned());
    }
    // An IPv6 address has colons of its own.
    if address.parse::<std::net::Ipv6Addr>().is_ok() {
        return Ok((address, default_port));
    }
    match address.rsplit_once(':') {
        Some((host, port)) if !host.is_empty() && !address.ends_with(']') => {
            let port = port.parse().map_err(|_| format!("{port:?} is no port"))?;
            Ok((host, port))
        }
        _ => Ok((address, default_port)),
    }
}

/// Joins as the operator has configured it. Ends with the text to stop the agent with, if at all.
pub(super) async fn as_configured(inner: &Rc<Inner>) -> String {
    let addresses = &inner.settings.gossip.start_join;
    if !addresses.is_empty() {
        tracing::info!("Joining cluster...: cluster=LAN");
        match join(inner, addresses).await {
            Ok(joined) => {
                tracing::info!(
                    "Join completed. Initial agents synced with: cluster=LAN agent_count={joined}"
                );
            }
            Err(why) => return why.to_string(),
        }
    }
    retry(inner).await
}

/// Joins the members of the last run, until somebody answers.
pub(super) async fn rejoin(inner: Rc<Inner>, mut members: Vec<(String, SocketAddr)>) {
    let mut random = Rng::seeded();
    while !members.is_empty() && inner.is_alone() && !inner.is_leaving() {
        random.shuffle(&mut members);
        let some = &members[..members.len().min(REJOIN_AT_ONCE)];
        for (name, address) in some {
            log!(inner, debug, serf, "serf: Attempting re-join to previously known node: {name}: {address}");
        }
        let joined = through(&inner, some.iter().map(|(_, address)| *address).collect()).await;
        if joined.contacted > 0 {
            log!(inner, info, serf, "serf: Re-joined to {} previously known nodes", joined.contacted);
            return;
        }
        time::sleep(REJOIN_INTERVAL).await;
    }
}

/// Joins the configured addresses until it works, and then whoever of them is missing, now and then: servers that start
/// at the same time find each other whichever comes first. Ends with the text to stop the agent with, if at all.
async fn retry(inner: &Rc<Inner>) -> String {
    let gossip = &inner.settings.gossip;
    if gossip.retry_join.is_empty() {
        return std::future::pending().await;
    }
    tracing::info!(
        "Retry join is supported for the following discovery methods: cluster=LAN discovery_methods="
    );
    tracing::info!("Joining cluster...: cluster=LAN");
    let mut attempts = 0;
    let mut joined_before = false;
    let mut lonely_before = false;
    loop {
        let (joined, failures) = try_all(inner, &gossip.retry_join).await;
        let failed = joined == 0 && !failures.is_empty();
        if failed && !joined_before {
            attempts += 1;
            if gossip.retry_max > 0 && attempts > gossip.retry_max {
                return "max join retry exhausted, exiting: cluster=LAN".to_owned();
            }
            tracing::warn!(
                "Join cluster failed, will retry: cluster=LAN retry_interval={:?} error={:?}",
                gossip.retry_interval,
                JoinError(failures).to_string()
            );
        } else if !failed && !failures.is_empty() && inner.is_alone() && !lonely_before {
            // Its own address is among those of all: that it reaches itself is no news.
            lonely_before = true;
            tracing::warn!(
                "only this agent itself has answered, will retry: cluster=LAN retry_interval={:?} error={:?}",
                gossip.retry_interval,
                JoinError(failures).to_string()
            );
        }
        if !failed && !joined_before {
            joined_before = true;
            tracing::info!(
                "Join cluster completed. Synced with initial agents: cluster=LAN num_agents={joined}"
            );
        }
        time::sleep(gossip.retry_interval).await;
        // The pool keeps itself together; but there may be two of them.
        let mut reached = Vec::new();
        while joined_before && !inner.is_alone() {
            join_missing(inner, &mut reached).await;
            time::sleep(gossip.retry_interval).await;
        }
    }
}

/// Joins those at the configured addresses who are no members yet: members that began as two pools meet nobody of the other one
/// otherwise. Who has answered once (`reached`) may be a member under another address. A server that misses others to begin a cluster with
/// asks everybody.
async fn join_missing(inner: &Rc<Inner>, reached: &mut Vec<SocketAddr>) {
    if inner.is_leaving() {
        return;
    }
    let (mut found, _) = resolve_all(inner, &inner.settings.gossip.retry_join).await;
    let asks_all = inner.misses_founders();
    {
        let core = inner.core.borrow();
        let members: HashSet<_> =
            core.members().filter(|member| member.is_live()).map(|m| m.address).collect();
        let own = core.own().address;
        found.retain(|at| *at != own && (asks_all || !members.contains(at) && !reached.contains(at)));
    }
    if found.is_empty() {
        return;
    }
    log!(inner, debug, serf, "serf: Joining those of retry_join who are no members: {found:?}");
    let Joined { errors, .. } = through(inner, found.clone()).await;
    found.retain(|at| !reached.contains(at) && errors.iter().all(|(failed, _)| failed != at));
    reached.append(&mut found);
}

#[cfg(test)]
mod tests {
    use super::split;

    #[test]
    fn addresses_are_split_as_operators_write_them() {
        for (text, split_into) in [
            ("10.0.0.1", ("10.0.0.1", 8301)),
            ("10.0.0.1:9", ("10.0.0.1", 9)),
            ("host", ("host", 8301)),
            ("host:9", ("host", 9)),
            ("::1", ("::1", 8301)),
            ("[::1]", ("[::1]", 8301)),
            ("[::1]:9", ("[::1]", 9)),
        ] {
            assert_eq!(split(text, 8301), Ok(split_into), "{text}");
        }
        assert!(split("host:x", 1).is_err() && split("provider=aws tag=x", 1).is_err());
    }
}
