//! Start and reload: the configuration's services and checks, and those found on disk.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;

use super::{Agent, FromFiles, Inner, Parts, rules};
use crate::agent::error::AgentError;
use crate::agent::files::{Files, Found};
use crate::agent::identity;
use crate::agent::local::Source;
use crate::agent::plan::plan_of;
use crate::agent::registry::{Prepared, Registry, Restored};
use crate::config::Config;
use crate::health::schedule::Bounds;
use crate::runtime::{preflight, random, time};
use crate::store::model::Status;

impl Agent {
    /// Registers what the configuration defines and what the data folder holds, and publishes the first view.
    ///
    /// # Errors
    /// A definition of the configuration is refused, or the data folder cannot be read. The text is for the operator.
    pub async fn start(parts: Parts) -> Result<Agent, String> {
        let Parts { config, node, local, catalog, hooks } = parts;
        let bounds = Bounds::within(preflight::open_files());
        let registry = Registry::new(node.clone(), rules(&config), bounds, time::now(), random::seed());
        let inner = Rc::new(Inner {
            node,
            registry: RefCell::new(registry),
            from_files: RefCell::default(),
            files: config.data_dir.clone().map(Files::new),
            writing: Default::default(),
            local,
            catalog,
            hooks,
            tls: Default::default(),
            clock: Default::default(),
            dirty: Default::default(),
            doubted: Default::default(),
            leaving: Default::default(),
            waiters: RefCell::default(),
            pace: RefCell::default(),
            hash_waiters: RefCell::default(),
            states: RefCell::default(),
            states_bell: Default::default(),
            synced_at: Cell::new(None),
            ae_interval: AE_INTERVAL,
        });
        let found = match &inner.files {
            Some(files) => files.load().await.map_err(|e| e.to_string())?,
            None => Found::default(),
        };
        let kept = (found.services.len(), found.checks.len());
        inner.register_from_files(&config, &found)?;
        inner.restore(found);
        tell_origins(&config, kept);
        // What failed is in the log; it is tried again with the next registration of the same.
        let _ = inner.persist().await;
        inner.changed();
        Ok(Agent(inner))
    }
}

/// Where the services and checks of a start come from.
fn tell_origins(config: &Config, (services, checks): (usize, usize)) {
    for service in &config.services {
        let checks = service.checks.len();
        tracing::info!(service = service.effective_id(), checks, "registered from the configuration");
    }
    for check in &config.checks {
        tracing::info!(check = check.effective_id(), "registered from the configuration");
    }
    if services + checks > 0 {
        tracing::info!(services, checks, "registered as kept in the data folder");
    }
}

/// How often everything is compared with the catalog, below 128 nodes.
const AE_INTERVAL: std::time::Duration = std::time::Duration::from_secs(60);

impl Inner {
    fn register_from_files(&self, config: &Config, found: &Found) -> Result<(), String> {
        let now = time::now();
        let mut registry = self.registry.borrow_mut();
        let mut from_files = self.from_files.borrow_mut();
        for service in &config.services {
            registry
                .put_service(now, service, Source::Local, true)
                .map_err(|e| format!("Failed to register service {:?}: {e}", service.name))?;
            from_files.services.insert(service.effective_id().to_owned(), service.clone());
        }
        for check in &config.checks {
            registry
                .put_check(now, check, Source::Local)
                .map_err(|e| format!("Failed to register check {:?}: {e}", check.name))?;
            from_files.checks.insert(check.effective_id().to_owned(), check.clone());
        }
        let wall = time::unix_now();
        for state in found.states.values() {
            registry.restore_state(now, wall, state);
        }
        Ok(())
    }

    /// Registers what the data folder holds, unless the configuration defines the same ID: that one is newer.
    fn restore(&self, found: Found) {
        let (now, wall) = (time::now(), time::unix_now());
        let mut registry = self.registry.borrow_mut();
        for stored in found.services {
            let id = stored.row.id.clone();
            if registry.service_source(&id) == Some(Source::Local) {
                tracing::info!(service = id, "the configuration replaces the persisted registration");
                registry.forget_file_of_service(&id);
                continue;
            }
            let row = crate::store::model::Service { node: self.node.node.clone(), ..stored.row };
            registry.insert_service(row, stored.source, stored.token);
        }
        for stored in found.checks {
            let id = stored.row.check_id.clone();
            if registry.view().checks.get(&id).is_some_and(|check| check.source == Source::Local) {
                registry.forget_file_of_check(&id);
                continue;
            }
            let service_id = stored.row.service_id.as_str();
            if !service_id.is_empty() && !registry.view().services.contains_key(service_id) {
                tracing::warn!(
                    check = id,
                    service = service_id,
                    "a persisted check is dropped: its service is gone"
                );
                registry.forget_file_of_check(&id);
                continue;
            }
            // Whatever it was, it is unhealthy until it is looked at, as in Consul: a host that comes back after a
            // crash must not be handed out for what its definition hopes for.
            let mut row = crate::store::model::Check { status: Status::Critical, ..stored.row };
            row.node.clone_from(&self.node.node);
            let output_max = registry.rules().output_max;
            let restored = match found.states.get(&id) {
                Some(state) if state.expires_unix > wall.as_secs() as i64 => {
                    Restored::State(state.status, state.output.clone())
                }
                _ => Restored::Nothing,
            };
            let prepared = Prepared {
                row,
                plan: stored.definition.as_ref().map(|definition| plan_of(definition, output_max)),
                deregister_after: stored.definition.as_ref().and_then(|d| registry.deregister_after(d)),
                definition: stored.definition,
                token: stored.token,
                source: stored.source,
            };
            if let Err(refusal) = registry.allow(&prepared) {
                tracing::warn!(check = id, "a persisted check is not run: {refusal}");
                continue;
            }
            registry.insert_check(now, prepared, restored);
        }
    }

    /// Takes a new configuration: services and checks of files are compared with those of the last one; what the API
    /// registered stays.
    pub(super) async fn reload(&self) -> Result<(), AgentError> {
        let config = (self.hooks.reload)().await.map_err(AgentError::failed)?;
        self.take_config(&config)?;
        let (services, checks) = (config.services.len(), config.checks.len());
        (self.hooks.publish)(config);
        self.changed();
        self.persist().await.map_err(AgentError::failed)?;
        tracing::info!(services, checks, "the configuration was reloaded");
        Ok(())
    }

    /// All or nothing: a refused definition leaves the old configuration's services and checks as they are.
    fn take_config(&self, config: &Config) -> Result<(), AgentError> {
        let services: BTreeMap<_, _> =
            config.services.iter().map(|s| (s.effective_id().to_owned(), s.clone())).collect();
        let checks: BTreeMap<_, _> =
            config.checks.iter().map(|c| (c.effective_id().to_owned(), c.clone())).collect();
        let new = FromFiles { services, checks };
        let mut registry = self.registry.borrow_mut();
        let old_rules = registry.rules().clone();
        registry.set_rules(rules(config));
        if let Err(refusal) = admit(&registry, &new) {
            registry.set_rules(old_rules);
            return Err(refusal);
        }
        registry.set_node(identity::node_row(config, self.node.id.clone()));
        let old = self.from_files.replace(new);
        replace(&mut registry, &old, &self.from_files.borrow())
    }
}

/// Whether all of a configuration would be taken.
fn admit(registry: &Registry, new: &FromFiles) -> Result<(), AgentError> {
    let named = |what: &str, name: &str, error: AgentError| AgentError {
        text: format!("Failed to register {what} {name:?}: {}", error.text),
        ..error
    };
    for service in new.services.values() {
        let taken = registry.prepare_service(service, Source::Local).map(drop);
        taken.map_err(|error| named("service", &service.name, error))?;
    }
    for check in new.checks.values() {
        let id = check.service_id.as_str();
        let exists = id.is_empty()
            || new.services.contains_key(id)
            || registry.service_source(id) == Some(Source::Remote);
        let taken = registry.admit_check(check, Source::Local, exists);
        taken.map_err(|error| named("check", &check.name, error))?;
    }
    Ok(())
}

/// Goes from one configuration to the next. What the API registered under an ID that only the old one defined stays;
/// what the new one defines is its own, as after a restart.
fn replace(registry: &mut Registry, old: &FromFiles, new: &FromFiles) -> Result<(), AgentError> {
    let now = time::now();
    let source_of = |registry: &Registry, id: &str| registry.view().checks.get(id).map(|check| check.source);
    for id in old.checks.keys().filter(|id| !new.checks.contains_key(*id)) {
        if source_of(registry, id) == Some(Source::Local) {
            registry.remove_check(id)?;
        }
    }
    for id in old.services.keys().filter(|id| !new.services.contains_key(*id)) {
        if registry.service_source(id) == Some(Source::Local) {
            registry.remove_service(id)?;
        }
    }
    for (id, service) in &new.services {
        let held = registry.service_source(id) == Some(Source::Local);
        if !held || old.services.get(id) != Some(service) {
            registry.put_service(now, service, Source::Local, true)?;
            tracing::info!(service = id, checks = service.checks.len(), "registered from the configuration");
        }
    }
    for (id, check) in &new.checks {
        let held = source_of(registry, id) == Some(Source::Local);
        if !held || old.checks.get(id) != Some(check) {
            registry.put_check(now, check, Source::Local)?;
            tracing::info!(check = id, "registered from the configuration");
        }
    }
    Ok(())
}
