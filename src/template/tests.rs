//! The language against what Go's own implementation gives, and what it must refuse.
//!
//! `tests/fixtures/templates/language.jsonl` has the outputs of Go 1.19 (with `parseJSON`, `split` and sprig's `list`, `dict`
//! and `sub` as functions), and our errors where Go has one; `functions.jsonl` has those of sprig 3.2, yaml.v2 and BurntSushi's TOML.

use std::collections::BTreeMap;

use serde_json::Value as Json;

use super::*;

/// A world without anything in it but what a test says.
#[derive(Default)]
struct World {
    known: BTreeMap<Dependency, Value>,
    environment: BTreeMap<&'static str, &'static str>,
    time_ns: i128,
    written: Vec<FileToWrite>,
}

impl Host for World {
    fn environment(&self, name: &str) -> Option<String> {
        self.environment.get(name).map(|value| (*value).to_owned())
    }

    fn unix_time_ns(&self) -> i128 {
        self.time_ns
    }

    fn recall(&mut self, dependency: &Dependency) -> Option<Value> {
        self.known.get(dependency).cloned()
    }

    fn write_file(&mut self, file: &FileToWrite) -> Result<(), String> {
        self.written.push(file.clone());
        Ok(())
    }
}

/// The stack of a test is small.
fn limits() -> Limits {
    Limits { output_max: 1 << 20, value_max: 1 << 20, steps_max: 1_000_000, depth_max: 200 }
}

fn rendered(world: &mut World, text: &str) -> Result<String, String> {
    let template = Template::parse("t", text, Options::default()).map_err(|error| error.to_string())?;
    let output = template.execute(world, limits()).output.map_err(|error| error.to_string())?;
    Ok(String::from_utf8_lossy(&output).into_owned())
}

#[track_caller]
fn check(text: &str, expected: &str) {
    assert_eq!(rendered(&mut World::default(), text).as_deref(), Ok(expected), "{text}");
}

/// Holds a table of templates against what they give.
fn check_table(world: &mut World, table: &str) {
    let mut wrong = Vec::new();
    for line in table.lines() {
        let row: Json = serde_json::from_str(line).expect("a row of the table is JSON");
        let template = row["template"].as_str().expect("a row has a template");
        let got = rendered(world, template);
        let expected = match row["output"].as_str() {
            Some(output) => Ok(output.to_owned()),
            None => Err(row["error"].as_str().expect("a row has an output or an error").to_owned()),
        };
        if got != expected {
            wrong.push(format!("{template:?}\n  expected {expected:?}\n  got      {got:?}"));
        }
    }
    assert!(wrong.is_empty(), "{} of {}:\n{}", wrong.len(), table.lines().count(), wrong.join("\n"));
}

#[test]
fn the_language_is_gos() {
    check_table(&mut World::default(), include_str!("../../tests/fixtures/templates/language.jsonl"));
}

#[test]
fn functions_are_those_of_the_libraries() {
    let mut world = World { time_ns: 1_700_000_000_123_456_789, ..World::default() };
    check_table(&mut world, include_str!("../../tests/fixtures/templates/functions.jsonl"));
}
