//! What happened, as a number that two runs of one seed must share and, when asked for, as lines to read.

use std::fmt;

use crate::queue::{MICRO, SECOND, Time};

/// The record of a run.
pub struct Trace {
    hash: u64,
    events: u64,
    lines: Option<Vec<String>>,
    print: bool,
}

impl Trace {
    /// A record of numbers only, or of lines too; printed as they come if asked for.
    pub fn new(lines: bool, print: bool) -> Trace {
        Trace { hash: 0xCBF2_9CE4_8422_2325, events: 0, lines: lines.then(Vec::new), print }
    }

    /// Adds an event to the number.
    pub fn mix(&mut self, now: Time, parts: [u64; 3]) {
        self.events += 1;
        for part in [now, parts[0], parts[1], parts[2]] {
            self.hash = (self.hash ^ part).wrapping_mul(0x0000_0100_0000_01B3).rotate_left(23);
        }
    }

    /// Whether lines are wanted.
    pub fn wants_lines(&self) -> bool {
        self.lines.is_some()
    }

    /// Adds a line.
    pub fn line(&mut self, now: Time, text: fmt::Arguments<'_>) {
        let Some(lines) = &mut self.lines else { return };
        let line = format!("{:>4}.{:06} {text}", now / SECOND, now % SECOND / MICRO);
        if self.print {
            println!("{line}");
        } else {
            lines.push(line);
        }
    }

    /// The last lines.
    pub fn tail(&self, count: usize) -> &[String] {
        let lines = self.lines.as_deref().unwrap_or(&[]);
        &lines[lines.len().saturating_sub(count)..]
    }

    /// The number, and how many events are in it.
    pub fn hash(&self) -> (u64, u64) {
        (self.hash, self.events)
    }
}

/// Adds a line to the trace of a world if lines are wanted.
#[macro_export]
macro_rules! trace {
    ($world:expr, $($text:tt)*) => {
        if $world.trace.wants_lines() {
            let now = $world.now;
            $world.trace.line(now, format_args!($($text)*));
        }
    };
}
