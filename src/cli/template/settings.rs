//! What is rendered, and how: flags over files, files in their order, as consul-template reads them.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::Value;

use super::object::{Object, length};
use crate::config::flags::Parsed;
use crate::config::hcl;
use crate::runtime::signal;

/// How long a command may take (consul-template: `DefaultTemplateCommandTimeout`).
const COMMAND_TIMEOUT: Duration = Duration::from_secs(30);
/// How long a program may take to end (consul-template: `DefaultExecKillTimeout`).
const KILL_TIMEOUT: Duration = Duration::from_secs(30);
/// How often a question that fails is asked when the program renders once (consul-template: `DefaultRetryAttempts`).
const ATTEMPTS: u32 = 12;
/// The longest wait is so many times the shortest when only that is given.
const WAIT_FACTOR: u32 = 4;

/// What commands are told of the client's settings, and under which names (consul-template: `childEnv`).
const ABOUT_AGENT: [(&str, &str); 5] = [
    ("http-addr", "CONSUL_HTTP_ADDR"),
    ("auth", "CONSUL_HTTP_AUTH"),
    ("token", "CONSUL_HTTP_TOKEN"),
    ("token-file", "CONSUL_HTTP_TOKEN_FILE"),
    ("ssl", "CONSUL_HTTP_SSL"),
];

/// Everything.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Flags of the client, which reads the environment for what is not among them.
    pub client: Vec<(&'static str, String)>,
    /// The datacenter asked where a template names none.
    pub datacenter: Option<String>,
    /// The templates.
    pub jobs: Vec<Job>,
    /// How long to let changes settle, where a template says nothing else.
    pub wait: Option<Wait>,
    /// Whether to end when all is rendered.
    pub once: bool,
    /// Whether to show what would be written instead.
    pub dry: bool,
    /// Whether to end when all templates are read.
    pub only_parses: bool,
    /// The program that lives as long as this one.
    pub exec: Option<Exec>,
    /// Which lines are logged.
    pub level: Level,
    /// What ends this program beside SIGTERM.
    pub kill_signal: Option<i32>,
    /// What has it read its settings anew.
    pub reload_signal: Option<i32>,
    /// How old an answer may be; then any server may give it.
    pub max_stale: Option<Duration>,
    /// How often a question may fail in a row; `None` for ever.
    pub attempts: Option<u32>,
    /// How long a server holds an answer back.
    pub block_wait: Option<Duration>,
    /// Where the number of this process is written.
    pub pid_file: Option<PathBuf>,
    /// Whether templates may start programs.
    pub allows_plugins: bool,
    /// What programs and templates find in their environment about the agent, over what is there: names and values.
    pub about_agent: Vec<(String, String)>,
    /// What is accepted and does nothing here.
    pub remarks: Vec<String>,
}

/// One template.
#[derive(Clone, Debug)]
pub struct Job {
    /// Its file.
    pub source: Option<PathBuf>,
    /// Its text, if it has no file.
    pub contents: Option<String>,
    /// What is written.
    pub destination: Option<PathBuf>,
    /// What is run when that has changed.
    pub command: Option<Command>,
    /// The mode of the file; that of the file before when not given.
    pub mode: Option<u32>,
    /// Its owner.
    pub user: Option<String>,
    /// Its group.
    pub group: Option<String>,
    /// Whether the file before is kept beside it.
    pub backup: bool,
    /// Whether folders are made.
    pub makes_folders: bool,
    /// What opens and closes an action.
    pub delimiters: (String, String),
    /// How long to let changes settle.
    pub wait: Option<Wait>,
    /// Whether a key that a map does not have is an error.
    pub missing_key_is_error: bool,
    /// Whether an error ends the program.
    pub error_is_fatal: bool,
    /// Functions that are not allowed.
    pub denied: Vec<String>,
    /// The folder in which files may be read.
    pub sandbox: Option<PathBuf>,
}

/// What is run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Command {
    /// The program and its arguments.
    pub argv: Vec<String>,
    /// How long it may take.
    pub timeout: Option<Duration>,
    /// What ends it when it takes longer.
    pub kill_signal: i32,
    /// How long it may take to end then.
    pub kill_timeout: Duration,
    /// Its environment.
    pub environment: Environment,
}

/// The program that lives as long as this one.
#[derive(Clone, Debug)]
pub struct Exec {
    /// What is run.
    pub command: Command,
    /// What tells it of a change; without one it is started anew.
    pub reload_signal: Option<i32>,
    /// The longest random wait before it is told or ended.
    pub splay: Duration,
}

/// The environment of a program.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Environment {
    /// Whether it has nothing of ours.
    pub pristine: bool,
    /// What it has besides: names and values.
    pub custom: Vec<(String, String)>,
    /// What it may have of ours; everything when empty. `*` stands for any characters.
    pub allowed: Vec<String>,
    /// What it may not.
    pub denied: Vec<String>,
}

/// How long to let changes settle: until nothing has changed for the shortest, but not past the longest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wait {
    /// The shortest.
    pub min: Duration,
    /// The longest.
    pub max: Duration,
}

/// How much is logged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// Errors only.
    Error,
    /// What an operator should know.
    Warn,
    /// What is done.
    Info,
    /// Why.
    Debug,
}

impl Level {
    /// A level by its name.
    pub fn parse(text: &str) -> Result<Level, String> {
        Ok(match text.to_ascii_lowercase().as_str() {
            "err" | "error" => Level::Error,
            "warn" | "warning" => Level::Warn,
            "info" => Level::Info,
            "debug" | "trace" => Level::Debug,
            _ => {
                return Err(format!("invalid log level {text:?}: trace, debug, info, warn or err are known"));
            }
        })
    }
}

impl Wait {
    /// `min`, or `min:max`.
    pub fn parse(text: &str) -> Result<Wait, String> {
        let (min, max) = text.split_once(':').map_or((text, None), |(min, max)| (min, Some(max)));
        let min = length(min.trim())?;
        let max = max.map(|max| length(max.trim())).transpose()?.unwrap_or(min * WAIT_FACTOR);
        if max < min {
            return Err("wait: cannot have min larger than max".to_owned());
        }
        Ok(Wait { min, max })
    }
}

impl Settings {
    /// What flags and the files they name say.
    pub fn load(flags: &Parsed) -> Result<Settings, String> {
        let mut out = Settings {
            client: Vec::new(),
            datacenter: None,
            jobs: Vec::new(),
            wait: None,
            once: false,
            dry: flags.is_on("dry"),
            only_parses: flags.is_on("parse-only"),
            exec: None,
            level: Level::Warn,
            kill_signal: Some(signal::INT),
            reload_signal: Some(signal::HUP),
            max_stale: None,
            attempts: None,
            block_wait: None,
            pid_file: None,
            allows_plugins: flags.is_on("allow-plugins"),
            about_agent: Vec::new(),
            remarks: Vec::new(),
        };
        let mut files = Files { exec: None, attempts: None, error_is_fatal: None, delimiters: (None, None) };
        for path in flags.values("config") {
            for file in files_of(Path::new(path))? {
                let text = fs::read_to_string(&file).map_err(|why| format!("{}: {why}", file.display()))?;
                let is_json = file.extension().is_some_and(|ext| ext == "json");
                let value = if is_json {
                    serde_json::from_str(&text).map_err(|why| why.to_string())
                } else {
                    hcl::parse(&text)
                };
                value
                    .and_then(|value: Value| out.read_file(&value, &mut files))
                    .map_err(|why| format!("{}: {why}", file.display()))?;
            }
        }
        out.read_flags(flags, &mut files)?;
        out.finish(files)?;
        Ok(out)
    }

    /// One file, over those before.
    fn read_file(&mut self, value: &Value, files: &mut Files) -> Result<(), String> {
        let mut top = Object::new("the file", value)?;
        if let Some(consul) = top.object("consul")? {
            self.read_consul(consul, files)?;
        }
        for block in top.objects("template")? {
            self.jobs.push(job(block)?);
        }
        if let Some(block) = top.object("exec")? {
            files.exec = Some(exec(block, plain_exec())?);
        }
        if let Some(value) = top.value("wait") {
            self.wait = wait(value)?;
        }
        self.once |= top.bool("once")?.unwrap_or(false);
        if let Some(text) = top.text("log_level")? {
            self.level = Level::parse(&text)?;
        }
        self.kill_signal = top.signal("kill_signal")?.unwrap_or(self.kill_signal);
        self.reload_signal = top.signal("reload_signal")?.unwrap_or(self.reload_signal);
        self.max_stale = top.duration("max_stale")?.or(self.max_stale);
        self.block_wait = top.duration("block_query_wait")?.or(self.block_wait);
        self.pid_file = top.text("pid_file")?.map(PathBuf::from).or(self.pid_file.take());
        files.error_is_fatal = top.bool("template_error_fatal")?.or(files.error_is_fatal);
        if let Some(mut block) = top.object("default_delimiters")? {
            files.delimiters.0 = block.text("left")?.or(files.delimiters.0.take());
            files.delimiters.1 = block.text("right")?.or(files.delimiters.1.take());
            block.finish()?;
        }
        for (key, remark) in [
            (
                "deduplicate",
                "deduplicate does nothing: all watchers of an agent share one answer of the servers",
            ),
            ("vault", "vault is not supported: templates that ask for secrets fail"),
            ("nomad", "nomad is not supported"),
            ("syslog", "syslog does nothing: the log goes to standard error"),
            ("log_file", "log_file does nothing: the log goes to standard error"),
            ("err_on_failed_lookup", "err_on_failed_lookup does nothing"),
        ] {
            if top.value(key).is_some() {
                self.remarks.push(remark.to_owned());
            }
        }
        top.finish()
    }

    fn read_consul(&mut self, mut consul: Object<'_>, files: &mut Files) -> Result<(), String> {
        let mut set = |flag: &'static str, value: Option<String>| {
            if let Some(value) = value.filter(|value| !value.is_empty()) {
                self.client.push((flag, value));
            }
        };
        set("http-addr", consul.text("address")?);
        set("token", consul.text("token")?);
        set("token-file", consul.text("token_file")?);
        set("namespace", consul.text("namespace")?.filter(|name| name != "default"));
        if let Some(mut ssl) = consul.object("ssl")? {
            set("ca-file", ssl.text("ca_cert")?);
            set("ca-path", ssl.text("ca_path")?);
            set("client-cert", ssl.text("cert")?);
            set("client-key", ssl.text("key")?);
            set("tls-server-name", ssl.text("server_name")?);
            if ssl.bool("enabled")? == Some(true) {
                set("ssl", Some("true".to_owned()));
            }
            if ssl.bool("verify")? == Some(false) {
                return Err("consul.ssl.verify = false is not supported: give ca_cert instead".to_owned());
            }
            ssl.finish()?;
        }
        if let Some(mut auth) = consul.object("auth")? {
            let (user, password) = (auth.text("username")?, auth.text("password")?);
            if auth.bool("enabled")? != Some(false) {
                let pair = format!("{}:{}", user.unwrap_or_default(), password.unwrap_or_default());
                set("auth", Some(pair).filter(|pair| pair != ":"));
            }
            auth.finish()?;
        }
        if let Some(mut retry) = consul.object("retry")? {
            let attempts = retry.int("attempts")?;
            files.attempts = attempts.map(|n| u32::try_from(n).unwrap_or(0)).or(files.attempts);
            if retry.bool("enabled")? == Some(false) {
                files.attempts = Some(1);
            }
            // The pauses between attempts are our own: a quarter of a second, doubling up to ten seconds.
            let _ = (retry.duration("backoff")?, retry.duration("max_backoff")?);
            retry.finish()?;
        }
        // Connections are few and kept.
        consul.value("transport");
        consul.finish()
    }

    /// Whether a signal ends this program.
    pub fn ends_with(&self, number: i32) -> bool {
        let is_end = Some(number) == self.kill_signal || number == signal::TERM || number == signal::INT;
        is_end && Some(number) != self.reload_signal
    }

    /// What follows from all of it.
    fn finish(&mut self, files: Files) -> Result<(), String> {
        self.exec = files.exec.filter(|exec| !exec.command.argv.is_empty());
        self.attempts = match files.attempts {
            Some(0) => None,
            Some(attempts) => Some(attempts),
            None => self.once.then_some(ATTEMPTS),
        };
        if self.once {
            self.wait = None;
        }
        let of_client = |flag: &str| self.client.iter().rev().find(|(name, _)| *name == flag);
        let about_agent = ABOUT_AGENT.iter().filter_map(|(flag, name)| Some((name, &of_client(flag)?.1)));
        self.about_agent = about_agent.map(|(name, value)| ((*name).to_owned(), value.clone())).collect();
        let commands = self.jobs.iter_mut().filter_map(|job| job.command.as_mut());
        for command in commands.chain(self.exec.as_mut().map(|exec| &mut exec.command)) {
            let custom = &mut command.environment.custom;
            custom.splice(0..0, self.about_agent.iter().cloned());
        }
        for job in &mut self.jobs {
            if job.delimiters.0.is_empty() {
                job.delimiters.0 = files
                    .delimiters
                    .0
                    .clone()
                    .filter(|text| !text.is_empty())
                    .unwrap_or_else(|| "{{".to_owned());
            }
            if job.delimiters.1.is_empty() {
                job.delimiters.1 = files
                    .delimiters
                    .1
                    .clone()
                    .filter(|text| !text.is_empty())
                    .unwrap_or_else(|| "}}".to_owned());
            }
            job.error_is_fatal &= files.error_is_fatal.unwrap_or(true);
            job.wait = if self.once { None } else { job.wait.or(self.wait) };
            let named =
                job.source.as_ref().map_or_else(|| "(contents)".into(), |path| path.to_string_lossy());
            match (&job.source, &job.contents) {
                (Some(_), Some(_)) => {
                    return Err(format!("template {named}: cannot specify both 'source' and 'contents'"));
                }
                (None, None) => {
                    return Err("template: must specify exactly one of 'source' or 'contents'".to_owned());
                }
                _ => {}
            }
            if job.destination.is_none() && !self.dry {
                return Err(format!("template {named}: missing destination"));
            }
        }
        if self.jobs.is_empty() && self.exec.is_none() {
            return Err("nothing to do: give -template \"in:out:command\" or -config".to_owned());
        }
        let mut destinations: Vec<&PathBuf> =
            self.jobs.iter().filter_map(|job| job.destination.as_ref()).collect();
        destinations.sort_unstable();
        if let Some(pair) = destinations.windows(2).find(|pair| pair[0] == pair[1]) {
            return Err(format!("two templates are rendered to {}", pair[0].display()));
        }
        Ok(())
    }
}

/// What files say that is decided when all are read.
pub(super) struct Files {
    pub exec: Option<Exec>,
    pub attempts: Option<u32>,
    pub error_is_fatal: Option<bool>,
    pub delimiters: (Option<String>, Option<String>),
}

/// A file, or the files of a folder and its folders in the order of their names. Links are not followed.
fn files_of(path: &Path) -> Result<Vec<PathBuf>, String> {
    let shown = |why: std::io::Error| format!("{}: {why}", path.display());
    if !fs::metadata(path).map_err(shown)?.is_dir() {
        return Ok(vec![path.to_path_buf()]);
    }
    let mut entries: Vec<_> =
        fs::read_dir(path).and_then(Iterator::collect::<Result<Vec<_>, _>>).map_err(shown)?;
    entries.sort_unstable_by_key(fs::DirEntry::file_name);
    let mut out = Vec::new();
    for entry in entries {
        let kind = entry.file_type().map_err(shown)?;
        if kind.is_dir() {
            out.extend(files_of(&entry.path())?);
        } else if kind.is_file() {
            out.push(entry.path());
        }
    }
    Ok(out)
}

/// A shell that runs a text.
pub(super) fn shell(text: &str) -> Vec<String> {
    if text.trim().is_empty() {
        return Vec::new();
    }
    ["/bin/sh", "-c", text].map(str::to_owned).to_vec()
}

pub(super) fn plain_job() -> Job {
    Job {
        source: None,
        contents: None,
        destination: None,
        command: None,
        mode: None,
        user: None,
        group: None,
        backup: false,
        makes_folders: true,
        delimiters: (String::new(), String::new()),
        wait: None,
        missing_key_is_error: false,
        error_is_fatal: true,
        denied: Vec::new(),
        sandbox: None,
    }
}

pub(super) fn plain_command(argv: Vec<String>) -> Command {
    Command {
        argv,
        timeout: Some(COMMAND_TIMEOUT),
        kill_signal: signal::TERM,
        kill_timeout: KILL_TIMEOUT,
        environment: Environment::default(),
    }
}

pub(super) fn plain_exec() -> Exec {
    Exec {
        command: Command { timeout: None, kill_signal: signal::INT, ..plain_command(Vec::new()) },
        reload_signal: None,
        splay: Duration::ZERO,
    }
}

/// A program: text for the shell, or a list of words.
fn argv(block: &mut Object<'_>, key: &'static str) -> Result<Option<Vec<String>>, String> {
    Ok(match block.value(key) {
        Some(Value::Array(words)) if words.len() > 1 => block.texts(key)?,
        Some(_) => block.texts(key)?.map(|words| shell(&words.concat())),
        None => None,
    })
}

fn wait(value: &Value) -> Result<Option<Wait>, String> {
    if let Some(text) = value.as_str() {
        return Wait::parse(text).map(Some);
    }
    let mut block = Object::new("wait", value)?;
    let (enabled, min, max) = (block.bool("enabled")?, block.duration("min")?, block.duration("max")?);
    block.finish()?;
    let wait = min.map(|min| Wait { min, max: max.unwrap_or(min * WAIT_FACTOR) });
    match wait {
        _ if enabled == Some(false) => Ok(None),
        Some(wait) if wait.max < wait.min => Err("wait: cannot have min larger than max".to_owned()),
        wait => Ok(wait),
    }
}

fn job(mut block: Object<'_>) -> Result<Job, String> {
    let mut out = plain_job();
    let path = |text: Option<String>| text.filter(|text| !text.is_empty()).map(PathBuf::from);
    out.source = path(block.text("source")?);
    out.contents = block.text("contents")?.filter(|text| !text.is_empty());
    out.destination = path(block.text("destination")?);
    out.sandbox = path(block.text("sandbox_path")?);
    out.user = block.text("user")?.or(block.text("uid")?);
    out.group = block.text("group")?.or(block.text("gid")?);
    out.backup = block.bool("backup")?.unwrap_or(false);
    out.makes_folders = block.bool("create_dest_dirs")?.unwrap_or(true);
    out.delimiters.0 = block.text("left_delimiter")?.unwrap_or_default();
    out.delimiters.1 = block.text("right_delimiter")?.unwrap_or_default();
    out.missing_key_is_error = block.bool("error_on_missing_key")?.unwrap_or(false);
    out.error_is_fatal = block.bool("error_fatal")?.unwrap_or(true);
    let denied = block.texts("function_denylist")?.or(block.texts("function_blacklist")?);
    out.denied = denied.unwrap_or_default();
    out.mode = match block.value("perms") {
        None => None,
        // A number is read as HCL reads it: with a zero in front, to the base of eight.
        Some(Value::Number(number)) => number.as_u64().and_then(|mode| u32::try_from(mode).ok()),
        Some(value) => {
            let text = value.as_str().unwrap_or_default();
            let mode = u32::from_str_radix(text, 8);
            Some(mode.map_err(|_| format!("template.perms: {text:?} is no mode such as 0644"))?)
        }
    };
    if let Some(value) = block.value("wait") {
        out.wait = wait(value)?;
    }
    let mut command = plain_command(Vec::new());
    command.argv = argv(&mut block, "command")?.unwrap_or_default();
    command.timeout = block.duration("command_timeout")?.or(command.timeout);
    if let Some(block) = block.object("exec")? {
        let defaults = Exec { command, ..plain_exec() };
        command = exec(block, defaults)?.command;
    }
    out.command = Some(command).filter(|command| !command.argv.is_empty());
    block.finish()?;
    Ok(out)
}

/// A variable with its value, `NAME=value`.
pub(super) fn variable(word: &str) -> Result<(String, String), String> {
    match word.split_once('=') {
        _ if word.contains('\0') => Err("a variable cannot hold a zero byte".to_owned()),
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        // The text is not shown: it may be a secret whose name was forgotten.
        _ => Err("a variable is written NAME=value".to_owned()),
    }
}

/// An `exec` block over what holds without it.
fn exec(mut block: Object<'_>, mut out: Exec) -> Result<Exec, String> {
    let enabled = block.bool("enabled")?;
    out.command.argv = argv(&mut block, "command")?.unwrap_or(out.command.argv);
    if enabled == Some(false) {
        out.command.argv.clear();
    }
    out.command.timeout = block
        .duration("timeout")?
        .map_or(out.command.timeout, |timeout| Some(timeout).filter(|t| !t.is_zero()));
    out.command.kill_timeout = block.duration("kill_timeout")?.unwrap_or(out.command.kill_timeout);
    out.command.kill_signal = block.signal("kill_signal")?.flatten().unwrap_or(out.command.kill_signal);
    out.reload_signal = block.signal("reload_signal")?.unwrap_or(out.reload_signal);
    out.splay = block.duration("splay")?.unwrap_or(out.splay);
    if let Some(mut env) = block.object("env")? {
        let environment = &mut out.command.environment;
        environment.pristine = env.bool("pristine")?.unwrap_or(false);
        let custom = env.texts("custom")?.unwrap_or_default();
        environment.custom = custom
            .iter()
            .map(|word| variable(word).map_err(|why| format!("env.custom: {why}")))
            .collect::<Result<_, _>>()?;
        environment.allowed = env.texts("allowlist")?.or(env.texts("whitelist")?).unwrap_or_default();
        environment.denied = env.texts("denylist")?.or(env.texts("blacklist")?).unwrap_or_default();
        env.finish()?;
    }
    block.finish()?;
    Ok(out)
}
