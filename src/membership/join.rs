//! Joining: introductions at addresses that an operator gave.

use std::rc::Rc;

use super::door::JoinError;
use super::driver::Inner;
use super::talk;
use crate::runtime::{net, time};

/// Patience with the system's resolver.
const RESOLVE_LIMIT: std::time::Duration = std::time::Duration::from_secs(5);

/// Introduces this server at each of these addresses (`host`, `host:port`, of which some may be its own).
///
/// # Errors
/// Nobody answered at any of them.
pub(super) async fn join(inner: &Rc<Inner>, addresses: &[String]) -> Result<usize, JoinError> {
    let mut joined = 0;
    let mut failures = Vec::new();
    for address in addresses {
        match join_one(inner, address).await {
            Ok(()) => joined += 1,
            Err(why) => failures.push(format!("Failed to join {address}: {why}")),
        }
    }
    if joined == 0 && !failures.is_empty() { Err(JoinError(failures)) } else { Ok(joined) }
}

async fn join_one(inner: &Rc<Inner>, address: &str) -> Result<(), String> {
    let (host, port) = split(address, inner.settings.default_port)?;
    let resolved = time::timeout(RESOLVE_LIMIT, net::resolve(host, port)).await;
    let found = resolved.ok_or("the name does not resolve in time")?.map_err(|error| error.to_string())?;
    let mut last = Err("the name has no address".to_owned());
    for to in found {
        last = match talk::introduce(to, &inner.introduction()).await {
            Ok(answer) => inner.hear(&answer),
            Err(why) => Err(why),
        };
        if last.is_ok() {
            break;
        }
    }
    last
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

/// Joins the configured addresses until it works, and then whoever of them is missing, now and then: servers that start
/// at the same time find each other whichever comes first. Ends with the text to stop the agent with, if at all.
pub(super) async fn retry(inner: Rc<Inner>) -> String {
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
    loop {
        match join(&inner, &gossip.retry_join).await {
            Ok(joined) if !joined_before => {
                joined_before = true;
                tracing::info!(
                    "Join cluster completed. Synced with initial agents: cluster=LAN num_agents={joined}"
                );
            }
            Err(why) if !joined_before => {
                attempts += 1;
                if gossip.retry_max > 0 && attempts > gossip.retry_max {
                    return "max join retry exhausted, exiting: cluster=LAN".to_owned();
                }
                tracing::warn!(
                    "Join cluster failed, will retry: cluster=LAN retry_interval={:?} error={:?}",
                    gossip.retry_interval,
                    why.to_string()
                );
            }
            _ => {}
        }
        time::sleep(gossip.retry_interval).await;
        // Whoever is known is talked to anyway.
        while joined_before && !inner.is_alone() {
            time::sleep(gossip.retry_interval).await;
        }
    }
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
