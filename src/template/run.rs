//! What one execution holds beside the tree, and what it has cost so far.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use super::dependency::Dependency;
use super::sink::Sink;
use super::value::{Text, Value};
use super::{Host, Limits};

/// How often, in steps, an execution looks whether it is to end.
const LOOK_EVERY: u64 = 65_536;
/// Compiled patterns that are kept.
const PATTERNS_MAX: usize = 64;
/// Sizes of compiled patterns in bytes: small ones, those with classes of Unicode, the largest. The time to compile them and, at
/// worst, to match with them grows with the size.
const PATTERN_SIZES: [usize; 3] = [32 << 10, 256 << 10, 1 << 20];
/// Steps that it takes to compile one of each size: from tenths of a millisecond to many milliseconds.
const COMPILE_STEPS: [usize; 3] = [2_000, 20_000, 100_000];
/// Steps that it takes to match so many bytes with one of each size.
const MATCH_BYTES: usize = 8;
const MATCH_STEPS: [usize; 3] = [2, 8, 64];

/// What one execution holds beside the tree.
pub struct Run<'h> {
    /// The world.
    pub host: &'h mut dyn Host,
    /// Dependencies asked for.
    pub used: BTreeSet<Dependency>,
    /// Those of which nothing is known yet.
    pub missing: BTreeSet<Dependency>,
    /// The scratchpad.
    pub scratch: Rc<RefCell<BTreeMap<Text, Value>>>,
    /// The limits.
    pub limits: Limits,
    steps: u64,
    /// At how many steps to look again whether it is to end.
    look_at: u64,
    made: u64,
    patterns: BTreeMap<String, Pattern>,
}

/// A compiled pattern.
#[derive(Clone)]
struct Pattern {
    regex: regex::Regex,
    /// Which of the sizes it has.
    size: usize,
}

impl<'h> Run<'h> {
    /// Nothing done yet.
    pub fn new(host: &'h mut dyn Host, limits: Limits) -> Run<'h> {
        Run {
            host,
            used: BTreeSet::new(),
            missing: BTreeSet::new(),
            scratch: Rc::default(),
            limits,
            steps: 0,
            look_at: LOOK_EVERY,
            made: 0,
            patterns: BTreeMap::new(),
        }
    }

    /// Counts steps.
    pub fn step(&mut self, count: usize) -> Result<(), String> {
        self.steps = self.steps.saturating_add(count as u64);
        if self.steps > self.limits.steps_max {
            return Err(format!("takes more than {} steps", self.limits.steps_max));
        }
        if self.steps >= self.look_at {
            self.look_at = self.steps.saturating_add(LOOK_EVERY);
            if self.host.is_ending() {
                return Err("ended before it was done".to_owned());
            }
        }
        Ok(())
    }

    /// Counts bytes that were made. What becomes free again counts as well: a budget does not know what is held.
    pub fn make(&mut self, bytes: usize) -> Result<(), String> {
        self.affords(bytes)?;
        self.made = self.made.saturating_add(bytes as u64);
        Ok(())
    }

    /// Refuses what would take more bytes than are left.
    pub fn affords(&self, bytes: usize) -> Result<(), String> {
        if self.made.saturating_add(bytes as u64) > self.limits.bytes_max {
            return Err(format!("makes more than {} bytes", self.limits.bytes_max));
        }
        Ok(())
    }

    /// What is known of a dependency; it counts as used, and as missing if that is nothing.
    pub fn depend(&mut self, dependency: Dependency) -> Option<Value> {
        let known = self.host.recall(&dependency);
        if known.is_none() {
            self.missing.insert(dependency.clone());
        }
        self.used.insert(dependency);
        known
    }

    /// What a sink of a function's result collected.
    pub fn sink(&self) -> Sink {
        Sink::new(self.limits.value_max)
    }

    /// A regular expression that is held against so many bytes.
    pub fn pattern(&mut self, text: &str, bytes: usize) -> Result<regex::Regex, String> {
        let pattern = match self.patterns.get(text) {
            Some(known) => known.clone(),
            None => {
                let pattern = self.compile(text)?;
                if self.patterns.len() >= PATTERNS_MAX {
                    self.patterns.clear();
                }
                self.patterns.insert(text.to_owned(), pattern.clone());
                pattern
            }
        };
        self.step(bytes.saturating_mul(MATCH_STEPS[pattern.size]) / MATCH_BYTES)?;
        Ok(pattern.regex)
    }

    fn compile(&mut self, text: &str) -> Result<Pattern, String> {
        let mut mistake = String::new();
        for (size, (limit, steps)) in PATTERN_SIZES.into_iter().zip(COMPILE_STEPS).enumerate() {
            self.step(steps)?;
            match regex::RegexBuilder::new(text).size_limit(limit).build() {
                Ok(regex) => return Ok(Pattern { regex, size }),
                Err(why) => mistake = why.to_string(),
            }
        }
        let last = mistake.lines().last().unwrap_or_default().trim_start_matches("error: ");
        Err(format!("error parsing regexp: {last}: `{text}`"))
    }
}
