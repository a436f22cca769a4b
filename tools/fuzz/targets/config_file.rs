//! Any text as a configuration file, JSON and HCL, up to the validated configuration, and as a definition from the API.
#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use muster::config::build::{Choices, Host, build};
use muster::config::settings::{BUILT_IN, Settings};
use muster::config::source::{Format, parse};
use muster::config::{CheckDefinition, ServiceDefinition, defaults};

/// Above this HCL is only slow, not different.
const TEXT_LEN_MAX: usize = 16 * 1024;

static DEFAULTS: LazyLock<Settings> = LazyLock::new(|| {
    let mut settings = Settings::default();
    for text in [defaults::DEFAULTS, defaults::DEV] {
        let value = parse(text, Format::Hcl).expect("the defaults are HCL");
        settings.add(BUILT_IN, &value).expect("the defaults are known keys");
    }
    settings
});

fuzz_target!(|text: &str| {
    if text.len() > TEXT_LEN_MAX {
        return;
    }
    if let Ok(service) = ServiceDefinition::from_api(text.as_bytes()) {
        let _ = service.validate();
    }
    if let Ok(check) = CheckDefinition::from_api(text.as_bytes()) {
        let _ = check.validate();
    }
    for format in [Format::Json, Format::Hcl] {
        let Ok(value) = parse(text, format) else { continue };
        let mut settings = DEFAULTS.clone();
        if let Err(why) = settings.add("fuzz.conf", &value) {
            assert!(why.contains("fuzz.conf"), "an error names its file: {why}");
            continue;
        }
        // Addresses that are host names would be looked up: not here.
        if text.contains("recursor") || text.contains("addr") || text.contains("join") {
            continue;
        }
        let host = Host { name: "fuzz".into(), ..Host::default() };
        let _ = build(&settings, &host, Choices { dev: true, ..Choices::default() }, Vec::new());
    }
});
