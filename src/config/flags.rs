//! Command-line flags in Go's manner, for every command: one dash or two, `-flag=value` or `-flag value`, booleans
//! without a value or as `-flag=false`; parsing stops at the first word that is no flag, or at `--`.

/// What a flag takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FlagKind {
    /// Nothing, or `=true` and `=false`.
    Bool,
    /// A value; the last one counts.
    Value,
    /// A whole number.
    Int,
    /// A value; every one counts.
    List,
}

/// One flag of a command.
#[derive(Clone, Copy, Debug)]
pub struct Flag {
    /// Name without dashes.
    pub name: &'static str,
    /// What it takes.
    pub kind: FlagKind,
    /// What it does, for the help text.
    pub help: &'static str,
}

/// What a command line held.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Parsed {
    /// Flags in order.
    pub flags: Vec<(&'static str, String)>,
    /// Words after the flags.
    pub args: Vec<String>,
}

/// Why a command line could not be parsed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FlagError {
    /// Help was asked for.
    Help,
    /// A mistake, in Go's words.
    Mistake(String),
}

impl Parsed {
    /// The last value of a flag.
    pub fn value(&self, name: &str) -> Option<&str> {
        self.flags.iter().rev().find(|(flag, _)| *flag == name).map(|(_, value)| value.as_str())
    }

    /// Every value of a flag, in order.
    pub fn values(&self, name: &str) -> Vec<&str> {
        self.flags.iter().filter(|(flag, _)| *flag == name).map(|(_, value)| value.as_str()).collect()
    }

    /// Whether a boolean flag is on.
    pub fn is_on(&self, name: &str) -> bool {
        self.value(name).and_then(go_bool).unwrap_or(false)
    }

    /// A whole number, checked when it was parsed.
    pub fn int(&self, name: &str) -> Option<i64> {
        self.value(name).and_then(go_int)
    }
}

/// Parses a command line.
pub fn parse(flags: &[Flag], line: &[String]) -> Result<Parsed, FlagError> {
    let mut out = Parsed::default();
    let mut words = line.iter();
    while let Some(word) = words.next() {
        let Some(text) = word.strip_prefix('-').filter(|rest| !rest.is_empty()) else {
            out.args.push(word.clone());
            break;
        };
        let text = text.strip_prefix('-').unwrap_or(text);
        if text.is_empty() {
            break;
        }
        let (name, given) = match text.split_once('=') {
            Some((name, value)) => (name, Some(value.to_owned())),
            None => (text, None),
        };
        let mistake = |text: String| Err(FlagError::Mistake(text));
        if name.is_empty() || name.starts_with('-') {
            return mistake(format!("bad flag syntax: {word}"));
        }
        let Some(flag) = flags.iter().find(|flag| flag.name == name) else {
            return match name {
                "h" | "help" => Err(FlagError::Help),
                _ => mistake(format!("flag provided but not defined: -{name}")),
            };
        };
        let value = match (flag.kind, given) {
            (FlagKind::Bool, None) => "true".to_owned(),
            (_, Some(value)) => value,
            (_, None) => match words.next() {
                Some(value) => value.clone(),
                None => return mistake(format!("flag needs an argument: -{name}")),
            },
        };
        check(flag, &value)?;
        out.flags.push((flag.name, value));
    }
    out.args.extend(words.cloned());
    Ok(out)
}

/// Checks a value against the flag's type.
fn check(flag: &Flag, value: &str) -> Result<(), FlagError> {
    let name = flag.name;
    match flag.kind {
        FlagKind::Bool if go_bool(value).is_none() => Err(FlagError::Mistake(format!(
            "invalid boolean value {value:?} for -{name}: strconv.ParseBool: parsing {value:?}: invalid syntax"
        ))),
        FlagKind::Int if go_int(value).is_none() => Err(FlagError::Mistake(format!(
            "invalid value {value:?} for flag -{name}: strconv.Atoi: parsing {value:?}: invalid syntax"
        ))),
        _ => Ok(()),
    }
}

/// Go's `strconv.ParseBool`.
pub fn go_bool(text: &str) -> Option<bool> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Some(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Some(false),
        _ => None,
    }
}

/// Go's `strconv.Atoi`.
fn go_int(text: &str) -> Option<i64> {
    text.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const FLAGS: &[Flag] = &[
        Flag { name: "dev", kind: FlagKind::Bool, help: "" },
        Flag { name: "node", kind: FlagKind::Value, help: "" },
        Flag { name: "port", kind: FlagKind::Int, help: "" },
        Flag { name: "join", kind: FlagKind::List, help: "" },
    ];

    fn line(text: &str) -> Result<Parsed, FlagError> {
        parse(FLAGS, &text.split_whitespace().map(str::to_owned).collect::<Vec<_>>())
    }

    #[test]
    fn flags_are_gos() {
        let parsed = line("-dev --node=a -node b --port -1 -join x -join=y=z rest -dev").expect("parses");
        assert!(parsed.is_on("dev"));
        assert_eq!((parsed.value("node"), parsed.int("port")), (Some("b"), Some(-1)));
        assert_eq!(parsed.values("join"), ["x", "y=z"]);
        assert_eq!(parsed.args, ["rest", "-dev"]);
        assert!(!line("-dev=false").expect("parses").is_on("dev"));
        assert_eq!(line("-dev -- -node").expect("parses").args, ["-node"]);
        assert_eq!(line("-").expect("parses").args, ["-"]);
    }

    #[test]
    fn mistakes_are_gos() {
        for (text, error) in [
            ("-foo", "flag provided but not defined: -foo"),
            ("-node", "flag needs an argument: -node"),
            ("---node", "bad flag syntax: ---node"),
            ("-=x", "bad flag syntax: -=x"),
            (
                "-port abc",
                "invalid value \"abc\" for flag -port: strconv.Atoi: parsing \"abc\": invalid syntax",
            ),
            (
                "-dev=maybe",
                "invalid boolean value \"maybe\" for -dev: strconv.ParseBool: parsing \"maybe\": invalid syntax",
            ),
        ] {
            assert_eq!(line(text), Err(FlagError::Mistake(error.to_owned())), "{text}");
        }
        assert_eq!(line("-h"), Err(FlagError::Help));
    }
}
