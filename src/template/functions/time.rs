//! Times as Go's layouts write them, in UTC.

const MONTHS: [&str; 12] = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];
const DAYS: [&str; 7] = ["Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday"];

/// A moment in its parts.
struct Moment {
    year: i64,
    month: i64,
    day: i64,
    day_of_year: i64,
    weekday: i64,
    hour: i64,
    minute: i64,
    second: i64,
    nanos: i64,
}

/// Writes a time, given in nanoseconds since 1970, as a layout shows Go's reference time.
pub fn format(unix_ns: i128, layout: &str) -> String {
    let moment = Moment::of(unix_ns);
    let mut out = String::new();
    let mut rest = layout;
    'layout: while let Some(first) = rest.chars().next() {
        for (pattern, write) in PATTERNS {
            // `Jan` is no month within a longer word.
            let is_word = |after: &str| {
                matches!(*pattern, "Jan" | "Mon") && after.starts_with(|c: char| c.is_ascii_lowercase())
            };
            if let Some(after) = rest.strip_prefix(pattern).filter(|after| !is_word(after)) {
                out.push_str(&write(&moment));
                rest = after;
                continue 'layout;
            }
        }
        if let Some((text, after)) = fraction(rest, &moment) {
            out.push_str(&text);
            rest = after;
            continue;
        }
        out.push(first);
        rest = &rest[first.len_utf8()..];
    }
    out
}

/// A pattern and what stands for it; the longer of two that begin alike comes first.
type Pattern = (&'static str, fn(&Moment) -> String);

const PATTERNS: &[Pattern] = &[
    ("January", |m| month(m).to_owned()),
    ("Jan", |m| month(m)[..3].to_owned()),
    ("Monday", |m| weekday(m).to_owned()),
    ("Mon", |m| weekday(m)[..3].to_owned()),
    ("MST", |_| "UTC".to_owned()),
    ("2006", |m| format!("{:04}", m.year)),
    ("-07:00:00", |_| "+00:00:00".to_owned()),
    ("-070000", |_| "+000000".to_owned()),
    ("-07:00", |_| "+00:00".to_owned()),
    ("-0700", |_| "+0000".to_owned()),
    ("-07", |_| "+00".to_owned()),
    ("Z07:00:00", |_| "Z".to_owned()),
    ("Z070000", |_| "Z".to_owned()),
    ("Z07:00", |_| "Z".to_owned()),
    ("Z0700", |_| "Z".to_owned()),
    ("Z07", |_| "Z".to_owned()),
    ("002", |m| format!("{:03}", m.day_of_year)),
    ("__2", |m| format!("{:3}", m.day_of_year)),
    // No day, but a blank and a year.
    ("_2006", |m| format!("_{:04}", m.year)),
    ("_2", |m| format!("{:2}", m.day)),
    ("01", |m| format!("{:02}", m.month)),
    ("02", |m| format!("{:02}", m.day)),
    ("03", |m| format!("{:02}", twelve(m))),
    ("04", |m| format!("{:02}", m.minute)),
    ("05", |m| format!("{:02}", m.second)),
    ("06", |m| format!("{:02}", m.year.rem_euclid(100))),
    ("15", |m| format!("{:02}", m.hour)),
    ("PM", |m| if m.hour < 12 { "AM" } else { "PM" }.to_owned()),
    ("pm", |m| if m.hour < 12 { "am" } else { "pm" }.to_owned()),
    ("1", |m| m.month.to_string()),
    ("2", |m| m.day.to_string()),
    ("3", |m| twelve(m).to_string()),
    ("4", |m| m.minute.to_string()),
    ("5", |m| m.second.to_string()),
];

fn month(moment: &Moment) -> &'static str {
    MONTHS[(moment.month - 1) as usize]
}

fn weekday(moment: &Moment) -> &'static str {
    DAYS[moment.weekday as usize]
}

fn twelve(moment: &Moment) -> i64 {
    if moment.hour % 12 == 0 { 12 } else { moment.hour % 12 }
}

/// `.000` and `.999`, also with a comma: parts of a second, unless more digits follow.
fn fraction<'l>(rest: &'l str, moment: &Moment) -> Option<(String, &'l str)> {
    let mark = rest.chars().next().filter(|c| matches!(c, '.' | ','))?;
    let digit = rest[1..].chars().next().filter(|c| matches!(c, '0' | '9'))?;
    let count = rest[1..].chars().take_while(|c| *c == digit).count();
    let after = &rest[1 + count..];
    if after.starts_with(|c: char| c.is_ascii_digit()) {
        return None;
    }
    let all = format!("{:09}", moment.nanos);
    let shown = if count <= 9 { all[..count].to_owned() } else { format!("{all:0<count$}") };
    if digit == '0' {
        return Some((format!("{mark}{shown}"), after));
    }
    let shown = shown.trim_end_matches('0');
    Some((if shown.is_empty() { String::new() } else { format!("{mark}{shown}") }, after))
}

impl Moment {
    fn of(unix_ns: i128) -> Moment {
        const SECOND: i128 = 1_000_000_000;
        let seconds = i64::try_from(unix_ns.div_euclid(SECOND)).unwrap_or(0);
        let (days, of_day) = (seconds.div_euclid(86_400), seconds.rem_euclid(86_400));
        let (year, month, day) = date(days);
        Moment {
            year,
            month,
            day,
            day_of_year: days - first_day(year) + 1,
            weekday: (days + 4).rem_euclid(7),
            hour: of_day / 3600,
            minute: of_day / 60 % 60,
            second: of_day % 60,
            nanos: unix_ns.rem_euclid(SECOND) as i64,
        }
    }
}

/// The day, counted from 1970, on which a year begins.
fn first_day(year: i64) -> i64 {
    let before = year - 1;
    let leaps = |year: i64| year.div_euclid(4) - year.div_euclid(100) + year.div_euclid(400);
    (year - 1970) * 365 + leaps(before) - leaps(1969)
}

/// Year, month and day of a day counted from 1970: the Gregorian calendar in eras of 400 years that begin in March.
fn date(days: i64) -> (i64, i64, i64) {
    let shifted = days + 719_468;
    let era = shifted.div_euclid(146_097);
    let of_era = shifted.rem_euclid(146_097);
    let year_of_era = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    (year_of_era + era * 400 + i64::from(month <= 2), month, day)
}
