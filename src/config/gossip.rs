//! Gossip: joining, encryption and pace.

use std::time::Duration;

use base64::Engine;

use super::build::time;
use super::settings::Settings;
use super::{Cidr, ConfigError};

/// Gossip encryption and joining.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GossipConfig {
    /// Key, base64, validated.
    pub encrypt_key: Option<String>,
    /// Plain gossip is refused.
    pub encrypt_verify_incoming: bool,
    /// Plain gossip is not sent.
    pub encrypt_verify_outgoing: bool,
    /// Pace of LAN gossip.
    pub pace: GossipPace,
    /// Networks that members may be in; none: all.
    pub allowed_networks: Vec<Cidr>,
    /// Keys stay in memory.
    pub disable_keyring_file: bool,
    /// Rejoin known members after an earlier leave.
    pub rejoin_after_leave: bool,
    /// Addresses joined once; failure stops the start.
    pub start_join: Vec<String>,
    /// The same for the WAN.
    pub start_join_wan: Vec<String>,
    /// Addresses joined until it works.
    pub retry_join: Vec<String>,
    /// The same for the WAN.
    pub retry_join_wan: Vec<String>,
    /// Pause between attempts.
    pub retry_interval: Duration,
    /// The same for the WAN.
    pub retry_interval_wan: Duration,
    /// Attempts; 0 forever.
    pub retry_max: u32,
    /// The same for the WAN.
    pub retry_max_wan: u32,
    /// A failed LAN member is forgotten after it.
    pub reconnect_timeout: Duration,
    /// The same for the WAN.
    pub reconnect_timeout_wan: Duration,
}

/// Pace of gossip: what each means is said in `protocol::gossip::Settings`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GossipPace {
    /// To how many at a time.
    pub gossip_nodes: usize,
    /// How often news is spread.
    pub gossip_interval: Duration,
    /// A period of the failure detector.
    pub probe_interval: Duration,
    /// So long a direct answer is waited for.
    pub probe_timeout: Duration,
    /// Scales the time that a suspect has to contradict.
    pub suspicion_mult: u32,
    /// Scales how often a piece of news is sent.
    pub retransmit_mult: u32,
}

/// Gossip encryption and joining.
pub(super) fn gossip(s: &Settings) -> Result<GossipConfig, ConfigError> {
    let key = s.filled("encrypt").map(str::to_owned);
    if let Some(key) = &key {
        let bytes = base64::engine::general_purpose::STANDARD.decode(key).map_err(|why| {
            ConfigError::of_key(s, "encrypt", &format!("encrypt has invalid key: illegal base64 data: {why}"))
        })?;
        if !matches!(bytes.len(), 16 | 24 | 32) {
            let text = "encrypt has invalid key: key size must be 16, 24 or 32 bytes";
            return Err(ConfigError::of_key(s, "encrypt", text));
        }
    }
    Ok(GossipConfig {
        pace: pace(s)?,
        allowed_networks: networks(s, "serf_lan_allowed_cidrs")?,
        encrypt_key: key,
        encrypt_verify_incoming: s.flag("encrypt_verify_incoming").unwrap_or(true),
        encrypt_verify_outgoing: s.flag("encrypt_verify_outgoing").unwrap_or(true),
        disable_keyring_file: s.flag("disable_keyring_file").unwrap_or(false),
        rejoin_after_leave: s.flag("rejoin_after_leave").unwrap_or(false),
        start_join: s.texts("start_join"),
        start_join_wan: s.texts("start_join_wan"),
        retry_join: s.texts("retry_join"),
        retry_join_wan: s.texts("retry_join_wan"),
        retry_interval: time(s, "retry_interval"),
        retry_interval_wan: time(s, "retry_interval_wan"),
        retry_max: attempts(s, "retry_max")?,
        retry_max_wan: attempts(s, "retry_max_wan")?,
        reconnect_timeout: time(s, "reconnect_timeout"),
        reconnect_timeout_wan: time(s, "reconnect_timeout_wan"),
    })
}

/// What of it is zero would never end or never begin.
fn pace(s: &Settings) -> Result<GossipPace, ConfigError> {
    let count = |key: &'static str| {
        let n = s.int(key).unwrap_or(1);
        let wrong = || ConfigError::of_key(s, key, &format!("{key} cannot be {n}. Must be from 1 to 1000"));
        u32::try_from(n).ok().filter(|n| (1..=1000).contains(n)).ok_or_else(wrong)
    };
    let length = |key: &'static str| {
        let length = time(s, key);
        let wrong =
            || ConfigError::of_key(s, key, &format!("{key} cannot be {length:?}. Must be at least 1ms"));
        Some(length).filter(|length| *length >= Duration::from_millis(1)).ok_or_else(wrong)
    };
    Ok(GossipPace {
        gossip_nodes: count("gossip_lan.gossip_nodes")? as usize,
        gossip_interval: length("gossip_lan.gossip_interval")?,
        probe_interval: length("gossip_lan.probe_interval")?,
        probe_timeout: length("gossip_lan.probe_timeout")?,
        suspicion_mult: count("gossip_lan.suspicion_mult")?,
        retransmit_mult: count("gossip_lan.retransmit_mult")?,
    })
}

fn networks(s: &Settings, key: &'static str) -> Result<Vec<Cidr>, ConfigError> {
    let texts = s.texts(key);
    let parsed = texts
        .iter()
        .map(|text| Cidr::parse(text).map_err(|why| ConfigError::of_key(s, key, &format!("{key}: {why}"))));
    parsed.collect()
}

/// A count; negative ones mean "no limit" and become zero.
fn attempts(s: &Settings, key: &'static str) -> Result<u32, ConfigError> {
    let n = s.int(key).unwrap_or(0).max(0);
    u32::try_from(n).map_err(|_| ConfigError::of_key(s, key, &format!("{key}: {n} is too large")))
}
