//! Any text as a template, and any bytes as what an agent answers.
//!
//! Reading and executing end, whatever the text: within the limits, without a panic, and with a place for every error.
#![no_main]

use std::collections::BTreeMap;

use libfuzzer_sys::fuzz_target;
use muster::template::{Dependency, Host, Limits, Options, Template, Value};

/// Knows what the input says of every dependency.
struct World<'b> {
    body: &'b [u8],
    known: BTreeMap<Dependency, Option<Value>>,
}

impl Host for World<'_> {
    fn environment(&self, name: &str) -> Option<String> {
        (name.len() % 2 == 0).then(|| name.to_owned())
    }

    fn unix_time_ns(&self) -> i128 {
        1_700_000_000_123_456_789
    }

    fn recall(&mut self, dependency: &Dependency) -> Option<Value> {
        let body = self.body;
        let known = self.known.entry(dependency.clone()).or_insert_with(|| dependency.answer(Some(body)).ok());
        known.clone()
    }
}

fuzz_target!(|input: (&str, &[u8])| {
    let (text, body) = input;
    let limits = Limits {
        output_max: 1 << 20,
        value_max: 1 << 18,
        steps_max: 200_000,
        bytes_max: 1 << 24,
        depth_max: 100,
    };
    let mut options = Options::default();
    if body.first().is_some_and(|byte| byte % 2 == 1) {
        options.missing_key_is_error = true;
    }
    let template = match Template::parse("fuzz", text, options) {
        Ok(template) => template,
        Err(error) => {
            assert!(error.line >= 1 && error.column >= 1);
            return;
        }
    };
    let mut world = World { body, known: BTreeMap::new() };
    let rendered = template.execute(&mut world, limits);
    assert!(rendered.missing.is_subset(&rendered.used));
    if let Ok(output) = rendered.output {
        assert!(output.len() <= limits.output_max);
    }
});
