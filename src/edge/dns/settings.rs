//! What DNS needs of the configuration, in the form in which it is used per question.

use std::net::SocketAddr;
use std::time::Duration;

use muster_protocol::dns::name::Name;
use muster_protocol::dns::record::{Data, Owner, Record, Soa};

use crate::config::{Config, DnsConfig, RecursorStrategy};
use crate::edge::fresh::Freshness;

/// Most recursors that are asked for one question; further ones are ignored.
pub const RECURSORS_MAX: usize = 16;
/// Default of `performance.rpc_hold_timeout`.
const HOLD_TIMEOUT: Duration = Duration::from_secs(7);

/// The view of a [`Config`]; rebuilt when the configuration is published anew.
#[derive(Clone, Debug)]
pub struct DnsSettings {
    /// The domain in wire form, lower case.
    pub domain: Name,
    /// The domain as text, lower case, with the final dot.
    pub domain_text: String,
    /// The second domain, when there is one.
    pub alt_domain: Option<Name>,
    /// This agent's datacenter.
    pub datacenter: String,
    /// Servers to forward to, in order.
    pub recursors: Vec<SocketAddr>,
    /// Whether recursors are asked in random order.
    pub random_recursors: bool,
    /// Patience with one recursor.
    pub recursor_timeout: Duration,
    /// How fresh the state must be that answers are from.
    pub freshness: Freshness,
    /// The longest that a question waits for a leader.
    pub hold_timeout: Duration,
    /// The rest, as configured.
    pub dns: DnsConfig,
    zone_primary: Name,
    zone_mailbox: Name,
}

impl DnsSettings {
    /// The view of `config`. A domain that is no DNS name is refused where the configuration is read; here it would
    /// stand for the root.
    pub fn new(config: &Config) -> DnsSettings {
        let settings = DnsSettings::from_parts(config.dns.clone(), &config.datacenter);
        let hold_timeout = config.performance.rpc_hold_timeout;
        DnsSettings { hold_timeout, ..settings }
    }

    /// The view of the parts that matter.
    pub fn from_parts(dns: DnsConfig, datacenter: &str) -> DnsSettings {
        let domain_text = with_final_dot(&dns.domain);
        let domain = Name::parse(&domain_text).unwrap_or_else(root);
        let below =
            |label: &str| Name::parse(&format!("{label}.{domain_text}")).unwrap_or_else(|| domain.clone());
        DnsSettings {
            alt_domain: (!dns.alt_domain.trim_matches('.').is_empty())
                .then(|| Name::parse(&with_final_dot(&dns.alt_domain)))
                .flatten(),
            datacenter: datacenter.to_lowercase(),
            recursors: dns.recursors.iter().copied().take(RECURSORS_MAX).collect(),
            random_recursors: dns.recursor_strategy == RecursorStrategy::Random,
            recursor_timeout: dns.recursor_timeout,
            freshness: match dns.allow_stale {
                // What is answered from is always a copy here, as what Consul's cache holds is.
                true if dns.use_cache && !dns.cache_max_age.is_zero() => {
                    Freshness::Stale(Some(dns.max_stale.min(dns.cache_max_age)))
                }
                true => Freshness::Stale(Some(dns.max_stale)),
                false => Freshness::Leader,
            },
            hold_timeout: HOLD_TIMEOUT,
            zone_primary: below("ns"),
            zone_mailbox: below("hostmaster"),
            domain,
            domain_text,
            dns,
        }
    }

    /// Whether anybody can be asked about names outside the domain.
    pub fn recursion_available(&self) -> bool {
        !self.recursors.is_empty()
    }

    /// TTL of node records, seconds.
    pub fn node_ttl(&self) -> u32 {
        seconds(self.dns.node_ttl)
    }

    /// TTL of records of a service (lower case), seconds.
    pub fn service_ttl(&self, service: &str) -> u32 {
        seconds(self.dns.service_ttl_of(service))
    }

    /// The zone's SOA record.
    pub fn soa(&self) -> Record {
        let soa = &self.dns.soa;
        Record {
            owner: Owner::Name(self.domain.clone()),
            ttl: soa.min_ttl,
            data: Data::Soa(Soa {
                primary: self.zone_primary.clone(),
                mailbox: self.zone_mailbox.clone(),
                refresh: soa.refresh,
                retry: soa.retry,
                expire: soa.expire,
                minimum: soa.min_ttl,
            }),
        }
    }

    /// `NODE.node.DC.DOMAIN`; `None` when the node's name cannot be told by DNS.
    pub fn node_name(&self, node: &str) -> Option<Name> {
        Name::parse(&format!("{node}.node.{}.{}", self.datacenter, self.domain_text))
    }
}

fn with_final_dot(domain: &str) -> String {
    let mut text = domain.trim_matches('.').to_ascii_lowercase();
    text.push('.');
    text
}

fn root() -> Name {
    Name::from_wire(&[0])
}

fn seconds(duration: Duration) -> u32 {
    duration.as_secs().min(i32::MAX as u64) as u32
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::edge::dns::tests::config;

    /// It was read by nobody.
    #[test]
    fn the_age_of_a_cache_bounds_the_age_of_answers() {
        let freshness = |change: fn(&mut DnsConfig)| {
            let mut config = DnsConfig { cache_max_age: Duration::from_secs(5), ..config() };
            change(&mut config);
            DnsSettings::from_parts(config, "dc1").freshness
        };
        let at_most = |seconds| Freshness::Stale(Some(Duration::from_secs(seconds)));
        assert_eq!(freshness(|config| config.use_cache = true), at_most(5));
        assert_eq!(freshness(|_| {}), Freshness::Stale(Some(config().max_stale)));
        assert_eq!(
            freshness(|config| {
                config.use_cache = true;
                config.max_stale = Duration::from_secs(2);
            }),
            at_most(2)
        );
        assert_eq!(
            freshness(|config| {
                config.use_cache = true;
                config.allow_stale = false;
            }),
            Freshness::Leader
        );
    }
}
