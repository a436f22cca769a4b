//! The flags of `agent`, and the order in which sources count.

use std::path::PathBuf;

use serde_json::{Map, Value, json};

use super::build::{self, Choices, Host};
use super::flags::{self, Flag, FlagKind, Parsed};
use super::keys::{self, KEYS, Kind};
use super::model::{Config, RuntimeChoice};
use super::settings::{BUILT_IN, Settings};
use super::source::{self, Format};
use super::{ConfigError, defaults};
use crate::runtime::interfaces;

/// Where a configuration comes from, kept so that a reload reads the same again.
#[derive(Clone, Debug, Default)]
pub struct Sources {
    /// Files and folders in the order of the command line.
    pub paths: Vec<PathBuf>,
    /// Format of all files whatever their names.
    pub format: Option<Format>,
    /// `-dev`.
    pub dev: bool,
    /// Flags that set keys, as configuration: lists (they count before files) and values (after).
    flags: [Map<String, Value>; 2],
    /// `-hcl` fragments, last of all.
    hcl: Vec<String>,
    /// `-runtime`.
    runtime: RuntimeChoice,
    /// `-cores`.
    cores: Option<usize>,
}

/// Flags of `agent` that set no key.
const OWN_FLAGS: [Flag; 7] = [
    Flag {
        name: "config-dir",
        kind: FlagKind::List,
        help: "Path to a directory to read configuration files from: every file ending in '.json' or '.hcl', in alphabetical order. Can be specified multiple times.",
    },
    Flag {
        name: "config-file",
        kind: FlagKind::List,
        help: "Path to a file in JSON or HCL format with a matching file extension. Can be specified multiple times.",
    },
    Flag {
        name: "config-format",
        kind: FlagKind::Value,
        help: "Config files are in this format irrespective of their extension. Must be 'hcl' or 'json'.",
    },
    Flag {
        name: "dev",
        kind: FlagKind::Bool,
        help: "Starts the agent in development mode: one server, in memory, on the loopback.",
    },
    Flag {
        name: "hcl",
        kind: FlagKind::List,
        help: "HCL configuration fragment. Can be specified multiple times.",
    },
    Flag {
        name: "runtime",
        kind: FlagKind::Value,
        help: "Driver of the executors: 'glommio' (io_uring) or 'epoll'. Chosen by what the kernel allows when not given.",
    },
    Flag {
        name: "cores",
        kind: FlagKind::Int,
        help: "Number of cores to run on. All of them on a server, one on a client when not given.",
    },
];

/// Every flag of `agent`, by name.
pub fn agent_flags() -> Vec<Flag> {
    let of_key = |key: &keys::Key| {
        let kind = match key.kind {
            Kind::Bool => FlagKind::Bool,
            Kind::Int => FlagKind::Int,
            Kind::Texts | Kind::TextMap => FlagKind::List,
            _ => FlagKind::Value,
        };
        key.flag.map(|name| Flag { name, kind, help: key.path })
    };
    let mut all: Vec<Flag> = KEYS.iter().filter_map(of_key).chain(OWN_FLAGS).collect();
    all.sort_by_key(|flag| flag.name);
    all
}

impl Sources {
    /// The sources that a parsed command line of `agent` names.
    pub fn from_flags(parsed: &Parsed) -> Result<Sources, ConfigError> {
        let mut out = Sources { dev: parsed.is_on("dev"), ..Sources::default() };
        for (name, value) in &parsed.flags {
            match *name {
                "config-file" | "config-dir" => out.paths.push(PathBuf::from(value)),
                "config-format" => {
                    out.format = Some(Format::parse(value).ok_or_else(|| {
                        ConfigError("config: -config-format must be either 'hcl' or 'json'".to_owned())
                    })?);
                }
                "hcl" => out.hcl.push(value.clone()),
                "runtime" => out.runtime = runtime_choice(value)?,
                "cores" => {
                    let cores = value.parse().ok().filter(|n: &usize| (1..=1024).contains(n));
                    let text = || ConfigError(format!("-cores must be between 1 and 1024, got {value}"));
                    out.cores = Some(cores.ok_or_else(text)?);
                }
                "dev" => {}
                name => out.set_key(name, value)?,
            }
        }
        if let Some(extra) = parsed.args.first() {
            return Err(ConfigError(format!("Unexpected extra arguments: [{extra}]")));
        }
        Ok(out)
    }

    /// Only files, for `validate`.
    pub fn from_files(paths: Vec<PathBuf>, format: Option<Format>) -> Sources {
        Sources { paths, format, ..Sources::default() }
    }

    /// Reads everything and builds the configuration.
    pub fn load(&self) -> Result<Config, ConfigError> {
        let host = Host {
            name: std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default(),
            interfaces: interfaces::list().unwrap_or_default(),
        };
        self.load_on(&host)
    }

    /// The same on a host that is told.
    pub fn load_on(&self, host: &Host) -> Result<Config, ConfigError> {
        let mut warnings = Vec::new();
        let settings = self.settings(&mut warnings)?;
        let choices = Choices { dev: self.dev, runtime: self.runtime, cores: self.cores };
        build::build(&settings, host, choices, warnings)
    }

    /// Merges all sources: defaults, flags that are lists, files, flags that are values, fragments.
    fn settings(&self, warnings: &mut Vec<String>) -> Result<Settings, ConfigError> {
        let mut settings = Settings::default();
        let built_in = |text: &str| source::parse(text, Format::Hcl).map_err(ConfigError);
        settings.add(BUILT_IN, &built_in(defaults::DEFAULTS)?).map_err(ConfigError)?;
        if self.dev {
            settings.add(BUILT_IN, &built_in(defaults::DEV)?).map_err(ConfigError)?;
        }
        let [lists, values] = &self.flags;
        settings.add("the flags", &Value::Object(lists.clone())).map_err(ConfigError)?;
        for (path, format) in source::files(&self.paths, self.format, warnings)? {
            let value = source::read(&path, format)?;
            settings.add(&path.display().to_string(), &value).map_err(ConfigError)?;
        }
        settings.add("the flags", &Value::Object(values.clone())).map_err(ConfigError)?;
        for (i, text) in self.hcl.iter().enumerate() {
            let name = format!("flags-{i}.hcl");
            let value = source::parse(text, Format::Hcl)
                .map_err(|why| ConfigError(format!("failed to parse {name}: {why}")))?;
            settings.add(&name, &value).map_err(ConfigError)?;
        }
        Ok(settings)
    }

    /// Puts a flag's value under the path of its key.
    fn set_key(&mut self, flag: &str, text: &str) -> Result<(), ConfigError> {
        let key =
            KEYS.iter().find(|key| key.flag == Some(flag)).expect("parsed flags are flags of the table");
        let number = |text: &str| text.parse::<i64>().expect("checked by the flag parser");
        let value = match key.kind {
            Kind::Bool => json!(flags::go_bool(text)),
            Kind::Int => json!(number(text)),
            Kind::Texts => json!([text]),
            Kind::TextMap => {
                let (name, value) = text.split_once(':').unwrap_or((text, ""));
                json!({ name: value })
            }
            _ => json!(text),
        };
        let is_list = matches!(key.kind, Kind::Texts);
        let map = &mut self.flags[usize::from(!is_list)];
        put(map, key.path, value);
        Ok(())
    }
}

/// Puts a value under a path with dots; lists append, maps merge.
fn put(map: &mut Map<String, Value>, path: &str, value: Value) {
    if let Some((section, rest)) = path.split_once('.') {
        let inner = map.entry(section).or_insert_with(|| json!({}));
        if let Value::Object(inner) = inner {
            put(inner, rest, value);
        }
        return;
    }
    match (map.get_mut(path), value) {
        (Some(Value::Array(old)), Value::Array(new)) => old.extend(new),
        (Some(Value::Object(old)), Value::Object(new)) => old.extend(new),
        (_, value) => {
            map.insert(path.to_owned(), value);
        }
    }
}

/// Parses `-runtime`.
fn runtime_choice(word: &str) -> Result<RuntimeChoice, ConfigError> {
    match word {
        "auto" => Ok(RuntimeChoice::Auto),
        "glommio" => Ok(RuntimeChoice::Glommio),
        "epoll" => Ok(RuntimeChoice::Epoll),
        other => Err(ConfigError(format!("-runtime must be 'auto', 'glommio' or 'epoll', got {other:?}"))),
    }
}
