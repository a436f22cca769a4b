//! Files (JSON, HCL), flags and environment become one validated configuration.

pub mod decode;
pub mod definition;
pub mod duration;
pub mod flags;
pub mod gojson;
pub mod model;

pub use definition::{CheckDefinition, CheckKind, DefinitionError, ServiceDefinition};
pub use model::*;
