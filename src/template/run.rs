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
/// Bytes of a small compiled pattern, and of the largest. Time to compile and to match grows with it.
const PATTERN_SMALL: usize = 32 << 10;
const PATTERN_MAX: usize = 1 << 20;
/// Steps that it takes to compile a small pattern, and a large one: some tenths of a millisecond, and some milliseconds.
const COMPILE_SMALL: usize = 2_000;
const COMPILE_LARGE: usize = 100_000;
/// Bytes that are matched in one step with a small pattern.
const MATCHED_PER_STEP: usize = 4;
/// Steps that a byte takes with a large one.
const STEPS_PER_MATCHED: usize = 8;

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
    is_small: bool,
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
        self.step(match pattern.is_small {
            true => bytes / MATCHED_PER_STEP,
            false => bytes.saturating_mul(STEPS_PER_MATCHED),
        })?;
        Ok(pattern.regex)
    }

    fn compile(&mut self, text: &str) -> Result<Pattern, String> {
        let build = |limit: usize| regex::RegexBuilder::new(text).size_limit(limit).build();
        self.step(COMPILE_SMALL)?;
        if let Ok(regex) = build(PATTERN_SMALL) {
            return Ok(Pattern { regex, is_small: true });
        }
        self.step(COMPILE_LARGE)?;
        let regex = build(PATTERN_MAX).map_err(|why| {
            let why = why.to_string();
            let last = why.lines().last().unwrap_or_default().trim_start_matches("error: ");
            format!("error parsing regexp: {last}: `{text}`")
        })?;
        Ok(Pattern { regex, is_small: false })
    }
}
