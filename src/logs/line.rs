//! One event as one line, as Consul writes it: `2020-06-25T09:30:00.000Z [INFO]  agent: message: key=value`.

use std::fmt;

use serde_json::{Map, Value};
use tracing::field::{Field, Visit};
use tracing::{Event, Level};

use crate::runtime::time;

/// Formats an event, with the newline.
pub fn line(event: &Event<'_>, json: bool) -> String {
    let mut fields = Fields::default();
    event.record(&mut fields);
    let metadata = event.metadata();
    // The room that speaks, as Consul names its sub-loggers.
    let mut path = metadata.target().split("::");
    let room = match (path.next(), path.next()) {
        // The process as a whole speaks as the agent.
        (Some("muster"), Some("node" | "cli")) => "agent",
        (Some("muster"), Some(room)) => room,
        (Some(first), _) => first,
        (None, _) => "agent",
    };
    // Some messages name their speaker themselves.
    if let Some(rest) = fields.message.strip_prefix(room).and_then(|rest| rest.strip_prefix(": ")) {
        fields.message = rest.to_owned();
    }
    let now = timestamp();
    if json {
        return json_line(*metadata.level(), &now, room, fields);
    }
    let level = match *metadata.level() {
        Level::ERROR => "[ERROR]",
        Level::WARN => "[WARN] ",
        Level::INFO => "[INFO] ",
        Level::DEBUG => "[DEBUG]",
        Level::TRACE => "[TRACE]",
    };
    let mut line = format!("{now} {level} {room}: {}", fields.message);
    for (at, (name, value)) in fields.others.iter().enumerate() {
        let text = match value {
            Value::String(text) => quoted(text),
            other => other.to_string(),
        };
        line.push_str(if at == 0 { ": " } else { " " });
        line.push_str(&format!("{name}={text}"));
    }
    line.push('\n');
    line
}

fn json_line(level: Level, now: &str, room: &str, fields: Fields) -> String {
    let mut object = Map::new();
    object.insert("@level".into(), level.as_str().to_lowercase().into());
    object.insert("@message".into(), fields.message.into());
    object.insert("@module".into(), room.into());
    object.insert("@timestamp".into(), now.into());
    object.extend(fields.others);
    let mut line = Value::Object(object).to_string();
    line.push('\n');
    line
}

fn quoted(text: &str) -> String {
    if text.is_empty() || text.contains([' ', '"', '=', '\n', '\t']) {
        format!("{text:?}")
    } else {
        text.to_owned()
    }
}

#[derive(Default)]
struct Fields {
    message: String,
    others: Vec<(String, Value)>,
}

impl Fields {
    fn put(&mut self, field: &Field, value: Value) {
        match (field.name(), value) {
            ("message", Value::String(text)) => self.message = text,
            (name, value) => self.others.push((name.to_owned(), value)),
        }
    }
}

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.put(field, Value::String(format!("{value:?}")));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.put(field, value.into());
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.put(field, value.into());
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.put(field, value.into());
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.put(field, value.into());
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        self.put(field, value.into());
    }
}

/// The time of now, UTC, with milliseconds.
fn timestamp() -> String {
    let now = time::unix_now();
    let [year, month, day, hour, minute, second] = civil(now.as_secs());
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{:03}Z", now.subsec_millis())
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
    }
}
