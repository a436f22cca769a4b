//! Services of the registry.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

use super::checks::{Prepared, Restored};
use super::content_hash::content_hash;
use super::{FileChange, Registry, SERVICES_MAX, ServiceEntry};
use crate::agent::error::AgentError;
use crate::agent::local::{LocalService, SERVICE_MAINTENANCE, Source};
use crate::config::definition::ServiceDefinition;
use crate::store::model::{Check, Service, ServiceAddress, Status};

impl Registry {
    /// Registers a service with its checks; all or nothing. `replace_checks` removes checks that the service had and
    /// the definition does not name. Checks that stay keep their status.
    pub fn put_service(
        &mut self,
        now: Instant,
        definition: &ServiceDefinition,
        source: Source,
        replace_checks: bool,
    ) -> Result<(), AgentError> {
        let (row, prepared) = self.prepare_service(definition, source)?;
        warn_undiscoverable(&row);
        let (id, kept): (_, Vec<_>) =
            (row.id.clone(), prepared.iter().map(|p| p.row.check_id.clone()).collect());
        self.insert_service(row, source, definition.token.clone());
        for check in prepared {
            self.insert_check(now, check, Restored::Nothing);
        }
        if replace_checks {
            self.remove_checks_of(&id, |check_id| kept.iter().any(|k| k == check_id));
        }
        Ok(())
    }

    /// Validates a service with its checks and makes their rows. Changes nothing.
    pub fn prepare_service(
        &self,
        definition: &ServiceDefinition,
        source: Source,
    ) -> Result<(Service, Vec<Prepared>), AgentError> {
        definition.validate().map_err(|e| AgentError::bad_request(e.to_string()))?;
        let row = self.service_row(definition);
        if !self.services.contains_key(&row.id) && self.services.len() >= SERVICES_MAX {
            return Err(AgentError::failed(format!(
                "Service {:?} refused: this agent holds {SERVICES_MAX} services already; deregister some",
                row.id
            )));
        }
        let mut prepared = Vec::with_capacity(definition.checks.len());
        for (position, check) in definition.checks.iter().enumerate() {
            let id = definition.check_id(position);
            prepared.push(Prepared {
                token: definition.token.clone(),
                ..self.prepare(check, id, Some(&row), source)?
            });
        }
        Ok((row, prepared))
    }

    /// Puts a service row into the tables. Also the way back from a persisted file.
    pub fn insert_service(&mut self, row: Service, source: Source, token: String) {
        let hash = content_hash(&row);
        let local = Arc::new(LocalService { row: Arc::new(row), source, token, hash });
        let id = local.row.id.clone();
        self.ledger.service_is_back(&id);
        if source == Source::Remote {
            self.files.push(FileChange::PutService(local.clone()));
        } else if self.services.get(&id).is_some_and(|old| old.local.source == Source::Remote) {
            self.files.push(FileChange::DropService(id.clone()));
        }
        self.view.services.insert(id.clone(), local.clone());
        let old = self.services.get(&id);
        let sync = match old {
            // The same row again is no news for the catalog.
            Some(old) if old.local.row == local.row => old.sync,
            _ => self.ledger.service_changed(&id, old.map(|old| old.sync)),
        };
        self.aliases.heed(&id);
        self.services.insert(id, ServiceEntry { local, sync });
        self.changed = true;
    }

    /// Removes a service and its checks. An unknown one is only remarked on.
    pub fn remove_service(&mut self, id: &str) -> Result<(), AgentError> {
        if id.is_empty() {
            return Err(AgentError::failed("ServiceID missing"));
        }
        let Some(entry) = self.services.remove(id) else {
            tracing::warn!(service = id, "failed to deregister service: no such service on this agent");
            return Ok(());
        };
        self.remove_checks_of(id, |_| false);
        self.view.services.remove(id);
        self.ledger.service_gone(id, Some(entry.sync));
        self.aliases.heed(id);
        if entry.local.source == Source::Remote {
            self.files.push(FileChange::DropService(id.to_owned()));
        }
        self.changed = true;
        tracing::info!(service = id, "removed service");
        Ok(())
    }

    /// The configuration defines a service that a file describes too: the file goes.
    pub fn forget_file_of_service(&mut self, id: &str) {
        self.files.push(FileChange::DropService(id.to_owned()));
    }

    fn remove_checks_of(&mut self, service_id: &str, keep: impl Fn(&str) -> bool) {
        let of_service = self.checks_by_service.get(service_id).into_iter().flatten();
        let gone: Vec<_> = of_service.filter(|id| !keep(id)).cloned().collect();
        for id in gone {
            self.drop_check(&id);
        }
    }

    /// Turns a service's maintenance mode on or off.
    pub fn set_service_maintenance(
        &mut self,
        now: Instant,
        id: &str,
        enable: bool,
        reason: &str,
    ) -> Result<(), AgentError> {
        if !self.services.contains_key(id) {
            return Err(AgentError::not_found(format!("No service registered with ID \"{id}\"")));
        }
        let check_id = format!("{SERVICE_MAINTENANCE}{id}");
        let reason = if reason.is_empty() {
            "Maintenance mode is enabled for this service, but no reason was provided. This is a default message."
        } else {
            reason
        };
        self.set_maintenance(now, check_id, "Service Maintenance Mode", id, enable, reason);
        Ok(())
    }

    fn service_row(&self, definition: &ServiceDefinition) -> Service {
        let meta = (!definition.meta.is_empty()).then(|| definition.meta.clone());
        Service {
            node: self.node_name().to_owned(),
            kind: definition.kind.clone(),
            id: definition.effective_id().to_owned(),
            name: definition.name.clone(),
            tags: definition.tags.clone(),
            address: definition.address.clone(),
            tagged_addresses: tagged_addresses(definition),
            meta,
            port: definition.port,
            weights: definition.weights.clone().unwrap_or_default(),
            enable_tag_override: definition.enable_tag_override,
            create_index: 0,
            modify_index: 0,
        }
    }
}

/// The addresses by tag; a literal address of the service stands for its family where none was given.
fn tagged_addresses(definition: &ServiceDefinition) -> Option<BTreeMap<String, ServiceAddress>> {
    let mut tagged = definition.tagged_addresses.clone();
    let family = match definition.address.parse::<IpAddr>() {
        Ok(IpAddr::V4(_)) => Some(["lan_ipv4", "wan_ipv4"]),
        Ok(IpAddr::V6(_)) => Some(["lan_ipv6", "wan_ipv6"]),
        Err(_) => None,
    };
    for tag in family.into_iter().flatten() {
        tagged
            .entry(tag.to_owned())
            .or_insert_with(|| ServiceAddress { address: definition.address.clone(), port: definition.port });
    }
    (!tagged.is_empty()).then_some(tagged)
}

fn warn_undiscoverable(row: &Service) {
    let odd = |name: &str| !name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
    if odd(&row.name) {
        tracing::warn!(
            service = row.name,
            "Service name will not be discoverable via DNS due to invalid characters. \
             Valid characters include all alpha-numerics and dashes."
        );
    } else if row.name.len() > 63 {
        tracing::warn!(
            service = row.name,
            "Service name will not be discoverable via DNS due to it being too long. \
             Valid lengths are between 1 and 63 bytes."
        );
    }
    for tag in row.tags.iter().filter(|tag| odd(tag) || tag.len() > 63) {
        tracing::warn!(
            service = row.name,
            tag,
            "Service tag will not be discoverable via DNS: \
             it takes up to 63 alpha-numerics and dashes"
        );
    }
}

impl Registry {
    /// Puts a maintenance check in place or takes it away. Enabling again keeps the first reason.
    pub(super) fn set_maintenance(
        &mut self,
        now: Instant,
        check_id: String,
        name: &str,
        service_id: &str,
        enable: bool,
        reason: &str,
    ) {
        if !enable {
            if self.checks.contains_key(&check_id) {
                self.drop_check(&check_id);
                match service_id {
                    "" => tracing::info!("Node left maintenance mode"),
                    service => tracing::info!(service, "Service left maintenance mode"),
                }
            }
            return;
        }
        if self.checks.contains_key(&check_id) {
            return;
        }
        let service = self.services.get(service_id).map(|entry| entry.local.row.clone());
        let row = Check {
            node: self.node_name().to_owned(),
            check_id: check_id.clone(),
            name: name.to_owned(),
            status: Status::Critical,
            notes: reason.to_owned(),
            service_id: service_id.to_owned(),
            service_name: service.as_ref().map(|s| s.name.clone()).unwrap_or_default(),
            service_tags: service.map(|s| s.tags.clone()).unwrap_or_default(),
            kind: "maintenance".to_owned(),
            ..Check::default()
        };
        self.insert_check(now, Prepared::bare(row), Restored::Nothing);
        match service_id {
            "" => tracing::info!(reason, "Node entered maintenance mode"),
            service => tracing::info!(service, reason, "Service entered maintenance mode"),
        }
    }
}
