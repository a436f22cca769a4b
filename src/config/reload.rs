//! What a reload may change: Consul's reloadable keys (marked R in its documentation). Everything else stays as it was at
//! start, and a change there is named, so that nobody believes in it.

use std::fmt::Debug;

use super::Config;

impl Config {
    /// The configuration in force after `read` was read anew, and the keys (or groups of keys) whose new value
    /// needs a restart.
    pub fn reloaded(&self, read: Config) -> (Config, Vec<&'static str>) {
        let held = self.changes_that_wait(&read);
        let mut new = self.clone();
        new.services = read.services;
        new.checks = read.checks;
        new.watches = read.watches;
        new.node_meta = read.node_meta;
        new.log.level = read.log.level;
        new.check.discard_output = read.check.discard_output;
        new.limits.http_max_conns_per_client = read.limits.http_max_conns_per_client;
        new.limits.rpc_max_conns_per_client = read.limits.rpc_max_conns_per_client;
        new.limits.rpc_rate = read.limits.rpc_rate;
        new.limits.rpc_max_burst = read.limits.rpc_max_burst;
        new.telemetry.allowed_prefixes = read.telemetry.allowed_prefixes;
        new.telemetry.blocked_prefixes = read.telemetry.blocked_prefixes;
        let zone = std::mem::replace(&mut new.dns, read.dns);
        new.dns.domain = zone.domain;
        new.dns.alt_domain = zone.alt_domain;
        new.dns.recursors = zone.recursors;
        new.unsupported_keys = read.unsupported_keys;
        new.warnings = read.warnings;
        (new, held)
    }

    fn changes_that_wait(&self, read: &Config) -> Vec<&'static str> {
        let mut held = Vec::new();
        let mut compare = |name: &'static str, old: &dyn Debug, new: &dyn Debug| {
            if format!("{old:?}") != format!("{new:?}") {
                held.push(name);
            }
        };
        compare("server", &self.server, &read.server);
        compare("datacenter", &self.datacenter, &read.datacenter);
        compare("node_name", &self.node_name, &read.node_name);
        compare("node_id", &self.node_id, &read.node_id);
        compare("data_dir", &self.data_dir, &read.data_dir);
        compare("addresses", &(&self.addresses, &self.listen), &(&read.addresses, &read.listen));
        compare("ports", &self.ports, &read.ports);
        compare("unix_sockets", &self.unix_sockets, &read.unix_sockets);
        compare("http_config", &self.http, &read.http);
        compare("domain", &self.dns.domain, &read.dns.domain);
        compare("alt_domain", &self.dns.alt_domain, &read.dns.alt_domain);
        compare("recursors", &self.dns.recursors, &read.dns.recursors);
        compare(
            "enable_script_checks",
            &self.check.enable_remote_script_checks,
            &read.check.enable_remote_script_checks,
        );
        compare(
            "enable_local_script_checks",
            &self.check.enable_local_script_checks,
            &read.check.enable_local_script_checks,
        );
        compare("check_update_interval", &self.check.update_interval, &read.check.update_interval);
        compare("check_output_max_size", &self.check.output_max_size, &read.check.output_max_size);
        compare("limits.kv_max_value_size", &self.limits.kv_max_value_size, &read.limits.kv_max_value_size);
        compare("tls", &self.tls, &read.tls);
        compare("raft", &(self.raft, self.performance), &(read.raft, read.performance));
        compare("non_voting_server", &self.non_voting_server, &read.non_voting_server);
        compare("encrypt", &self.gossip.encrypt_key, &read.gossip.encrypt_key);
        held
    }
}

#[cfg(test)]
mod tests {
    use super::super::Sources;
    use crate::config::source::Format;

    fn config(text: &str) -> super::Config {
        let file = tempfile::Builder::new().suffix(".json").tempfile().expect("a temporary file");
        std::fs::write(file.path(), text).expect("written");
        let mut sources = Sources::from_files(vec![file.path().to_owned()], Some(Format::Json));
        sources.dev = true;
        sources.load().expect("valid")
    }

    #[test]
    fn takes_what_is_reloadable_and_names_the_rest() {
        let old = config(r#"{"node_name": "a", "ports": {"http": 8500}, "log_level": "info"}"#);
        let read = config(
            r#"{"node_name": "b", "ports": {"http": 8501}, "log_level": "debug",
                "services": [{"name": "web"}], "dns_config": {"node_ttl": "9s"}}"#,
        );
        let (new, held) = old.reloaded(read);
        assert_eq!(new.node_name, "a");
        assert_eq!(new.ports.http, Some(8500));
        assert_eq!(new.services.len(), 1);
        assert_eq!(new.dns.node_ttl.as_secs(), 9);
        assert_eq!(new.log.level, crate::config::LogLevel::Debug);
        assert_eq!(held, ["node_name", "addresses", "ports"]);
    }
}
