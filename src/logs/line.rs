//! One event as one line, as Consul writes it: text, or JSON with `@` names.

use std::fmt::Write as _;
use std::time::Duration;

use tracing::field::{Field, Visit};

use crate::config::LogLevel;

/// One event taken apart.
#[derive(Default)]
pub(super) struct Record {
    /// The part of the program that speaks.
    pub(super) module: String,
    /// What it says.
    pub(super) message: String,
    /// Names and values in the order given.
    pub(super) fields: Vec<(String, Shown)>,
}

/// A field's value.
pub(super) enum Shown {
    /// A number or a boolean: bare in JSON.
    Plain(String),
    /// Anything else: text in JSON.
    Text(String),
}

impl Record {
    /// The line with its newline.
    pub(super) fn line(&self, now: Duration, level: LogLevel, json: bool) -> String {
        if json { self.json(now, level) } else { self.text(now, level) }
    }

    /// Consul's text form.
    fn text(&self, now: Duration, level: LogLevel) -> String {
        let label = match level {
            LogLevel::Trace => "[TRACE]",
            LogLevel::Debug => "[DEBUG]",
            LogLevel::Info => "[INFO] ",
            LogLevel::Warn => "[WARN] ",
            LogLevel::Error => "[ERROR]",
        };
        let mut out = format!("{} {label} {}: {}", timestamp(now, 3), self.module, self.message);
        for (i, (name, value)) in self.fields.iter().enumerate() {
            let between = if i == 0 { ": " } else { " " };
            let (Shown::Plain(value) | Shown::Text(value)) = value;
            let odd = value.contains(|c: char| c.is_whitespace() || c.is_control() || c == '"');
            // Writing to a String cannot fail.
            let _ = if odd {
                write!(out, "{between}{name}={value:?}")
            } else {
                write!(out, "{between}{name}={value}")
            };
        }
        // One event is one line, whatever a message holds.
        let mut out = out.replace('\n', "\\n");
        out.push('\n');
        out
    }

    /// Consul's JSON form: names in order.
    fn json(&self, now: Duration, level: LogLevel) -> String {
        let word = match level {
            LogLevel::Trace => "trace",
            LogLevel::Debug => "debug",
            LogLevel::Info => "info",
            LogLevel::Warn => "warn",
            LogLevel::Error => "error",
        };
        let mut map = serde_json::Map::new();
        for (name, text) in [("@level", word), ("@message", &self.message), ("@module", &self.module)] {
            map.insert(name.to_owned(), text.into());
        }
        map.insert("@timestamp".to_owned(), timestamp(now, 6).into());
        for (name, value) in &self.fields {
            let value = match value {
                Shown::Plain(text) => serde_json::from_str(text).unwrap_or_else(|_| text.clone().into()),
                Shown::Text(text) => text.clone().into(),
            };
            map.insert(name.clone(), value);
        }
        format!("{}\n", serde_json::Value::Object(map))
    }

    /// Cuts the speaker off the front of a message that names it itself: the line does already.
    pub(super) fn drop_speaker(&mut self) {
        let speakers = [self.module.as_str(), self.module.rsplit('.').next().unwrap_or_default()];
        let rest = speakers.iter().find_map(|name| self.message.strip_prefix(name)?.strip_prefix(": "));
        if let Some(rest) = rest.map(str::to_owned) {
            self.message = rest;
        }
    }

    /// Takes one field.
    fn take(&mut self, field: &Field, value: Shown) {
        let name = field.name();
        match value {
            Shown::Plain(text) | Shown::Text(text) if name == "message" => self.message = text,
            value => self.fields.push((name.to_owned(), value)),
        }
    }
}

impl Visit for Record {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.take(field, Shown::Text(value.to_owned()));
    }

    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        self.take(field, Shown::Text(format!("{value:?}")));
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.take(field, Shown::Plain(value.to_string()));
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.take(field, Shown::Plain(value.to_string()));
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        self.take(field, Shown::Plain(value.to_string()));
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.take(field, Shown::Plain(value.to_string()));
    }
}

/// A moment in RFC 3339 and UTC with that many digits of its second.
pub fn timestamp(since_1970: Duration, digits: usize) -> String {
    let [year, month, day, hour, minute, second] = civil(since_1970.as_secs());
    let fraction = &format!("{:09}", since_1970.subsec_nanos())[..digits];
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{fraction}Z")
}

/// Date and time of a number of seconds since 1970, UTC. The days are counted in eras of 400 years that begin on the
/// first of March, so that the leap day is the last of its year.
pub fn civil(seconds: u64) -> [u64; 6] {
    let (days, rest) = (seconds / 86_400 + 719_468, seconds % 86_400);
    let (era, day) = (days / 146_097, days % 146_097);
    let year_of_era = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let day_of_year = day - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day_of_month = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    let year = era * 400 + year_of_era + u64::from(month <= 2);
    [year, month, day_of_month, rest / 3600, rest / 60 % 60, rest % 60]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_right_across_leap_years() {
        assert_eq!(civil(0), [1970, 1, 1, 0, 0, 0]);
        assert_eq!(civil(951_782_399), [2000, 2, 28, 23, 59, 59]);
        assert_eq!(civil(951_782_400), [2000, 2, 29, 0, 0, 0]);
        assert_eq!(civil(1_593_077_400), [2020, 6, 25, 9, 30, 0]);
        assert_eq!(civil(4_107_542_400), [2100, 3, 1, 0, 0, 0]);
        assert_eq!(timestamp(Duration::new(951_827_696, 123_456_789), 6), "2000-02-29T12:34:56.123456Z");
    }
}
