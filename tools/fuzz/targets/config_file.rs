//! Any text as a definition from the API and as a configuration file.
#![no_main]

use libfuzzer_sys::fuzz_target;
use muster::config::{CheckDefinition, ServiceDefinition};

fuzz_target!(|data: &[u8]| {
    if let Ok(service) = ServiceDefinition::from_api(data) {
        let _ = service.validate();
    }
    if let Ok(check) = CheckDefinition::from_api(data) {
        let _ = check.validate();
        assert!(!check.kind().to_string().is_empty() || check.is_empty());
    }
});
