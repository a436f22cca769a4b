//! The flags of the program, which are consul-template's, and what they set.

use std::path::PathBuf;

use super::object::{length, named_signal};
use super::settings::{Files, Job, Level, Settings, Wait};
use super::settings::{plain_command, plain_exec, plain_job, shell, variable};
use crate::cli::{client, int, list, switch, value};
use crate::config::flags::{Flag, Parsed, go_bool};

/// What is said of those that do nothing.
const IDLE: &str = "Accepted for consul-template's sake; does nothing.";
/// Those that do nothing: connections and pauses are this program's own, and the log goes to standard error.
const IDLE_FLAGS: [&str; 14] = [
    "consul-retry-backoff",
    "consul-retry-max-backoff",
    "consul-transport-dial-keep-alive",
    "consul-transport-dial-timeout",
    "consul-transport-max-idle-conns-per-host",
    "consul-transport-tls-handshake-timeout",
    "log-file",
    "log-rotate-bytes",
    "log-rotate-duration",
    "log-rotate-max-files",
    "syslog-facility",
    "syslog-name",
    "consul-transport-disable-keep-alives",
    "syslog",
];

/// All of them, beside those of every client.
pub const ALL: &[Flag] = &[
    list(
        "template",
        "A template, the file it is rendered to, and the command that runs when that has changed, with colons between: in:out:command. May be given several times.",
    ),
    list(
        "config",
        "File or folder with settings, HCL or JSON, as consul-template has them. May be given several times; flags go over them.",
    ),
    switch("once", "Render everything once and end."),
    switch("dry", "Show what would be written instead of writing it."),
    switch("parse-only", "Read all templates and end: what is wrong with them is told."),
    value(
        "wait",
        "Wait until nothing has changed for so long, and at most for so long, with a colon between: 5s:20s. The second is four times the first when not given.",
    ),
    switch("allow-plugins", "Permit templates to start programs (function 'plugin')."),
    switch("dedup", "Accepted for consul-template's sake; all watchers of an agent share one answer anyway."),
    value("exec", "Program that is started when all is rendered, told of changes, and ended with this one."),
    value("exec-reload-signal", "Signal that tells the program of a change. Without it, it is started anew."),
    value("exec-kill-signal", "Signal that ends the program; SIGINT when not given."),
    value("exec-kill-timeout", "How long the program may take to end; 30s when not given."),
    value("exec-splay", "Longest random wait before the program is told of a change."),
    switch("exec-env-pristine", "The program gets nothing of this environment."),
    list("exec-env-custom", "Variable for the program, NAME=value. May be given several times."),
    list(
        "exec-env-allowlist",
        "Variables of this environment that the program gets; '*' stands for anything.",
    ),
    list("exec-env-denylist", "Variables of this environment that the program does not get."),
    value("kill-signal", "Signal that ends this program, besides SIGTERM; SIGINT when not given."),
    value("reload-signal", "Signal that has the settings read again; SIGHUP when not given."),
    value("pid-file", "File that gets the number of this process."),
    value("log-level", "Least grave lines that are logged: trace, debug, info, warn (the default) or err."),
    value("max-stale", "Any server may answer, as long as its answer is not older than this."),
    value("template-error-fatal", "Whether an error in a template ends the program; true when not given."),
    value("default-left-delimiter", "What opens an action in templates that do not say it."),
    value("default-right-delimiter", "What closes an action in templates that do not say it."),
    value("consul-addr", "The same as -http-addr."),
    value("consul-token", "The same as -token."),
    value("consul-token-file", "The same as -token-file."),
    value("consul-auth", "User and password of the agent's HTTP API, with a colon between."),
    value("consul-ssl-ca-cert", "The same as -ca-file."),
    value("consul-ssl-ca-path", "The same as -ca-path."),
    value("consul-ssl-cert", "The same as -client-cert."),
    value("consul-ssl-key", "The same as -client-key."),
    value("consul-ssl-server-name", "The same as -tls-server-name."),
    int(
        "consul-retry-attempts",
        "How often a question may fail in a row. For ever when not given, 12 with -once.",
    ),
    switch("consul-ssl", "The same as -ssl."),
    switch("consul-ssl-verify", "Certificates are always verified; 'false' is refused."),
    switch("consul-retry", "Whether a question that fails is asked again; true when not given."),
    value("consul-retry-backoff", IDLE),
    value("consul-retry-max-backoff", IDLE),
    value("consul-transport-dial-keep-alive", IDLE),
    value("consul-transport-dial-timeout", IDLE),
    value("consul-transport-max-idle-conns-per-host", IDLE),
    value("consul-transport-tls-handshake-timeout", IDLE),
    value("log-file", IDLE),
    value("log-rotate-bytes", IDLE),
    value("log-rotate-duration", IDLE),
    value("log-rotate-max-files", IDLE),
    value("syslog-facility", IDLE),
    value("syslog-name", IDLE),
    switch("consul-transport-disable-keep-alives", IDLE),
    switch("syslog", IDLE),
];

impl Settings {
    /// What flags say, over what files do.
    pub(super) fn read_flags(&mut self, flags: &Parsed, files: &mut Files) -> Result<(), String> {
        let of = |flag: &str, why: String| format!("invalid value for flag -{flag}: {why}");
        for (flag, setting) in [
            ("consul-addr", "http-addr"),
            ("consul-token", "token"),
            ("consul-token-file", "token-file"),
            ("consul-auth", "auth"),
            ("consul-ssl", "ssl"),
            ("consul-ssl-ca-cert", "ca-file"),
            ("consul-ssl-ca-path", "ca-path"),
            ("consul-ssl-cert", "client-cert"),
            ("consul-ssl-key", "client-key"),
            ("consul-ssl-server-name", "tls-server-name"),
        ] {
            if let Some(value) = flags.value(flag) {
                self.client.push((setting, value.to_owned()));
            }
        }
        let shared = client::FLAGS.iter().map(|flag| flag.name);
        for name in shared {
            if let Some(value) = flags.value(name) {
                match name {
                    "datacenter" => self.datacenter = Some(value.to_owned()).filter(|dc| !dc.is_empty()),
                    _ => self.client.push((name, value.to_owned())),
                }
            }
        }
        for text in flags.values("template") {
            self.jobs.push(job_of_flag(text)?);
        }
        if let Some(text) = flags.value("wait") {
            self.wait = Some(Wait::parse(text).map_err(|why| of("wait", why))?);
        }
        if let Some(on) = flags.value("once").and_then(go_bool) {
            self.once = on;
        }
        if let Some(text) = flags.value("log-level") {
            self.level = Level::parse(text).map_err(|why| of("log-level", why))?;
        }
        if let Some(text) = flags.value("kill-signal") {
            self.kill_signal = named_signal(text).map_err(|why| of("kill-signal", why))?;
        }
        if let Some(text) = flags.value("reload-signal") {
            self.reload_signal = named_signal(text).map_err(|why| of("reload-signal", why))?;
        }
        if let Some(text) = flags.value("max-stale") {
            self.max_stale = Some(length(text).map_err(|why| of("max-stale", why))?);
        }
        self.pid_file = flags.value("pid-file").map(PathBuf::from).or(self.pid_file.take());
        if let Some(on) = flags.value("template-error-fatal").and_then(go_bool) {
            files.error_is_fatal = Some(on);
        }
        if let Some(attempts) = flags.int("consul-retry-attempts") {
            files.attempts = Some(u32::try_from(attempts).unwrap_or(0));
        }
        if flags.value("consul-retry").and_then(go_bool) == Some(false) {
            files.attempts = Some(1);
        }
        if flags.value("consul-ssl-verify").and_then(go_bool) == Some(false) {
            return Err(
                "-consul-ssl-verify=false is not supported: give -consul-ssl-ca-cert instead".to_owned()
            );
        }
        for name in IDLE_FLAGS {
            if flags.value(name).is_some() {
                self.remarks.push(format!("-{name} does nothing"));
            }
        }
        if flags.is_on("dedup") {
            self.remarks.push(
                "-dedup does nothing: all watchers of an agent share one answer of the servers".to_owned(),
            );
        }
        if let Some(text) = flags.value("default-left-delimiter") {
            files.delimiters.0 = Some(text.to_owned());
        }
        if let Some(text) = flags.value("default-right-delimiter") {
            files.delimiters.1 = Some(text.to_owned());
        }
        self.read_exec_flags(flags, files)
    }

    fn read_exec_flags(&mut self, flags: &Parsed, files: &mut Files) -> Result<(), String> {
        let of = |flag: &str, why: String| format!("invalid value for flag -{flag}: {why}");
        if let Some(text) = flags.value("exec") {
            files.exec.get_or_insert_with(plain_exec).command.argv = shell(text);
        }
        let Some(exec) = &mut files.exec else { return Ok(()) };
        if let Some(text) = flags.value("exec-kill-signal") {
            let signal = named_signal(text).map_err(|why| of("exec-kill-signal", why))?;
            exec.command.kill_signal = signal.unwrap_or(exec.command.kill_signal);
        }
        if let Some(text) = flags.value("exec-kill-timeout") {
            exec.command.kill_timeout = length(text).map_err(|why| of("exec-kill-timeout", why))?;
        }
        if let Some(text) = flags.value("exec-reload-signal") {
            exec.reload_signal = named_signal(text).map_err(|why| of("exec-reload-signal", why))?;
        }
        if let Some(text) = flags.value("exec-splay") {
            exec.splay = length(text).map_err(|why| of("exec-splay", why))?;
        }
        let environment = &mut exec.command.environment;
        environment.pristine |= flags.is_on("exec-env-pristine");
        let add =
            |to: &mut Vec<String>, flag: &str| to.extend(flags.values(flag).into_iter().map(str::to_owned));
        for word in flags.values("exec-env-custom") {
            environment.custom.push(variable(word).map_err(|why| of("exec-env-custom", why))?);
        }
        add(&mut environment.allowed, "exec-env-allowlist");
        add(&mut environment.denied, "exec-env-denylist");
        Ok(())
    }
}

/// `in`, `in:out` or `in:out:command`.
fn job_of_flag(text: &str) -> Result<Job, String> {
    let mut parts = text.splitn(3, ':');
    let mut part = || parts.next().map(str::trim).filter(|part| !part.is_empty());
    let source = part().ok_or_else(|| format!("invalid template {text:?}: in:out:command is expected"))?;
    let destination = part().map(PathBuf::from);
    let command = part().map(|text| plain_command(shell(text)));
    Ok(Job { source: Some(PathBuf::from(source)), destination, command, ..plain_job() })
}
