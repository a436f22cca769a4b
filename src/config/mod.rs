//! Files (JSON, HCL), flags and environment become one validated configuration.
//!
//! [`keys`] is the table of keys. [`source`] reads files, [`settings`] checks and merges what they hold, [`mod@build`] makes
//! the typed [`Config`] of [`model`] from it; [`Sources`] ties them together and is kept for reloads. [`definition`] holds
//! services and checks, from files and from API bodies.
//!
//! Nothing here runs on an executor: loading blocks on files, so a running agent reloads through its blocking pool.

pub mod address;
pub mod build;
mod cluster;
pub mod decode;
pub mod defaults;
pub mod definition;
pub mod duration;
pub mod flags;
pub mod gojson;
mod gossip;
pub mod hcl;
pub mod keys;
pub mod model;
mod reload;
pub mod settings;
pub mod source;
pub mod sources;
pub mod template;

pub use definition::{CheckDefinition, CheckKind, DefinitionError, ServiceDefinition};
pub use gossip::{GossipConfig, GossipPace};
pub use model::*;
pub use sources::Sources;

/// Why a configuration was refused: a text for the operator that names the file or flag, the key and what was expected.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigError(pub String);

impl ConfigError {
    /// An error in the value of a key, in Consul's form, with the source that set it.
    fn of_key(settings: &settings::Settings, key: &str, text: &str) -> ConfigError {
        match settings.origin(key) {
            Some(origin) => ConfigError(format!("{text} (set in {origin})")),
            None => ConfigError(text.to_owned()),
        }
    }
}

impl std::fmt::Display for ConfigError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.0.trim_end())
    }
}

impl std::error::Error for ConfigError {}

#[cfg(test)]
mod tests;
