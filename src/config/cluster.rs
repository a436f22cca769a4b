//! What a server says about its cluster: how it starts, how Raft keeps time and its log, what autopilot begins with.

use std::time::Duration;

use super::ConfigError;
use super::build::{at_least_zero, time};
use super::model::{AutopilotConfig, Performance, RaftConfig};
use super::settings::Settings;

/// Whether and with how many servers a cluster starts by itself.
pub(super) fn bootstrap(
    s: &Settings,
    server: bool,
    dev: bool,
    warnings: &mut Vec<String>,
) -> Result<(bool, u32), ConfigError> {
    let mut bootstrap = s.flag("bootstrap").unwrap_or(false);
    let expect = s.int("bootstrap_expect").unwrap_or(0);
    let refuse = |text: String| Err(ConfigError(text));
    let Ok(count) = u32::try_from(expect) else {
        return refuse(format!("bootstrap_expect cannot be {expect}. Must be greater than or equal to zero"));
    };
    if count > 0 && !server {
        return refuse("'bootstrap_expect > 0' requires 'server = true'".to_owned());
    }
    if count > 0 && dev {
        return refuse("'bootstrap_expect > 0' not allowed in dev mode".to_owned());
    }
    if count > 0 && bootstrap {
        return refuse("'bootstrap_expect > 0' and 'bootstrap = true' are mutually exclusive".to_owned());
    }
    if bootstrap && !server {
        return refuse("'bootstrap = true' requires 'server = true'".to_owned());
    }
    if bootstrap && dev {
        return refuse("'bootstrap = true' not allowed in dev mode".to_owned());
    }
    match count {
        0 => {}
        1 => {
            warnings.push("BootstrapExpect is set to 1; this is the same as Bootstrap mode.".to_owned());
            bootstrap = true;
        }
        2 => warnings.push(
            "bootstrap_expect = 2: A cluster with 2 servers will provide no failure tolerance.".to_owned(),
        ),
        n if n % 2 == 0 => warnings.push(
            "bootstrap_expect is even number: A cluster with an even number of servers does not achieve optimum fault tolerance."
                .to_owned(),
        ),
        _ => {}
    }
    if bootstrap {
        warnings.push("bootstrap = true: do not enable unless necessary".to_owned());
    } else if count > 1 {
        warnings.push(format!("bootstrap_expect > 0: expecting {count} servers"));
    }
    Ok((bootstrap, if count == 1 { 0 } else { count }))
}

/// Raft and leader timing.
pub(super) fn performance(s: &Settings) -> Result<Performance, ConfigError> {
    const MULTIPLIER: &str = "performance.raft_multiplier";
    let multiplier = s.int(MULTIPLIER).unwrap_or(5);
    if !(1..=10).contains(&multiplier) {
        let text = format!("{MULTIPLIER} cannot be {multiplier}. Must be between 1 and 10");
        return Err(ConfigError::of_key(s, MULTIPLIER, &text));
    }
    Ok(Performance {
        leave_drain_time: time(s, "performance.leave_drain_time"),
        raft_multiplier: multiplier as u32,
        rpc_hold_timeout: time(s, "performance.rpc_hold_timeout"),
    })
}

/// The replicated log. Numbers below one stand for the default, as in Consul.
pub(super) fn raft(s: &Settings) -> Result<RaftConfig, ConfigError> {
    const PROTOCOL: &str = "raft_protocol";
    let protocol = s.int(PROTOCOL).filter(|n| *n != 0).unwrap_or(3);
    let Some(protocol) = u8::try_from(protocol).ok().filter(|n| (2..=3).contains(n)) else {
        let text = format!("Failed to start Raft: Protocol version {protocol} must be >= 2 and <= 3");
        return Err(ConfigError::of_key(s, PROTOCOL, &text));
    };
    let count = |key, default: u64| s.int(key).filter(|n| *n > 0).map_or(default, |n| n as u64);
    let interval = s.nanos("raft_snapshot_interval").filter(|n| *n > 0);
    Ok(RaftConfig {
        protocol,
        snapshot_threshold: count("raft_snapshot_threshold", 16_384),
        snapshot_interval: interval.map_or(Duration::from_secs(30), |n| Duration::from_nanos(n as u64)),
        trailing_logs: count("raft_trailing_logs", 10_240),
    })
}

/// Autopilot; what is not set is as Consul's `DefaultConfig` has it.
pub(super) fn autopilot(s: &Settings) -> Result<AutopilotConfig, ConfigError> {
    const TRAILING: &str = "autopilot.max_trailing_logs";
    const QUORUM: &str = "autopilot.min_quorum";
    let count = |key, default: u64| match s.int(key) {
        None => Ok(default),
        Some(_) => at_least_zero(s, key).map(|n| n as u64),
    };
    let patience = |key, default| s.nanos(key).map_or(default, |_| time(s, key));
    let text = |key| s.text(key).unwrap_or_default().to_owned();
    Ok(AutopilotConfig {
        cleanup_dead_servers: s.flag("autopilot.cleanup_dead_servers").unwrap_or(true),
        last_contact_threshold: patience("autopilot.last_contact_threshold", Duration::from_millis(200)),
        max_trailing_logs: count(TRAILING, 250)?,
        min_quorum: count(QUORUM, 0)?,
        server_stabilization_time: patience("autopilot.server_stabilization_time", Duration::from_secs(10)),
        redundancy_zone_tag: text("autopilot.redundancy_zone_tag"),
        disable_upgrade_migration: s.flag("autopilot.disable_upgrade_migration").unwrap_or(false),
        upgrade_version_tag: text("autopilot.upgrade_version_tag"),
    })
}
