//! `debug`: an archive of what an agent says of itself over some time, for whoever looks into a fault.

use std::fs;
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use flate2::Compression;
use flate2::write::GzEncoder;
use serde_json::{Value, json};

use super::client::{Client, Reply};
use super::kv::connecting;
use super::usage::Command;
use super::{CONSUL_VERSION, Outcome, Program, list, value};
use crate::config::duration;
use crate::config::flags::Parsed;
use crate::runtime::{blocking, time};

/// `debug`.
pub const DEBUG: Program = Program {
    command: Command {
        name: "debug",
        summary: "Records a debugging archive for operators",
        usage: "debug [options]",
        text: "Watches an agent for some time and writes what it says into an archive: its metrics and its log for each interval, and once what it and its host are and whom it knows. Secrets are left out, but look through the archive before you hand it on.\n\nThere are no profiles of Go's runtime; asking for pprof is no mistake, and brings the agent's own statistics instead.",
    },
    flags: &[
        value("archive", "Whether the folder becomes an archive, FOLDER.tar.gz. The default is true."),
        list("capture", "Only these: agent, cluster, host, logs, metrics, pprof. May be repeated."),
        value("duration", "How long. The default is 2m0s."),
        value("interval", "How often metrics are read. The default is 30s."),
        value("output", "The folder. The default is consul-debug-TIME in the current one."),
    ],
    run: debug,
};

/// All that can be captured, in Consul's order.
const TARGETS: [&str; 6] = ["metrics", "logs", "pprof", "host", "agent", "cluster"];
/// Shorter ones say nothing (Consul: `debugMinInterval`, `debugMinDuration`).
const SHORTEST: Duration = Duration::from_secs(10);
/// Shorter than Consul says in its message, as in Consul.
const INTERVAL_MIN: Duration = Duration::from_secs(5);
/// Bytes of the log that are kept for an interval; what comes beyond is counted only.
const LOG_LENGTH_MAX: usize = 64 << 20;

/// What is asked for.
struct Plan {
    duration: Duration,
    interval: Duration,
    folder: PathBuf,
    archive: bool,
    targets: Vec<&'static str>,
}

/// Lines of the log that have come, and how many bytes were too many.
#[derive(Default)]
struct Lines {
    bytes: Vec<u8>,
    lost: usize,
}

fn debug(flags: &Parsed) -> Outcome {
    let client = Client::new(flags).map_err(connecting)?;
    let plan = plan(flags).map_err(|why| format!("==> Capture validation failed: {why}"))?;
    let own = fetch(&client, "/v1/agent/self", &[])
        .map_err(|why| format!("==> Capture validation failed: error querying target agent: {why}. verify connectivity and agent address"))?;
    let version = own["Config"]["Version"].as_str().unwrap_or(CONSUL_VERSION).to_owned();
    let lengths = [plan.interval, plan.duration].map(go_duration);
    let shown = if plan.archive { archive_of(&plan.folder) } else { plan.folder.clone() };
    println!("==> Starting debugger and capturing static information...");
    println!("     Agent Version: '{version}'");
    println!("          Interval: '{}'", lengths[0]);
    println!("          Duration: '{}'", lengths[1]);
    println!("            Output: '{}'", shown.display());
    println!("           Capture: '{}'", plan.targets.join(", "));
    let written = capture(&client, &plan, &own, &version, &lengths);
    written.map_err(|why| format!("Error capturing: {why}"))?;
    if plan.archive {
        pack(&plan.folder).map_err(|why| format!("Archive creation failed: {why}"))?;
    }
    println!("Saved debug archive: {}", shown.display());
    Ok(ExitCode::SUCCESS)
}

fn plan(flags: &Parsed) -> Result<Plan, String> {
    let length = |name: &str, usual: Duration| -> Result<Duration, String> {
        match flags.value(name) {
            None => Ok(usual),
            Some(text) => {
                let ns =
                    duration::parse(text).map_err(|_| format!("{name} {text:?} is no length of time"))?;
                Ok(Duration::from_nanos(u64::try_from(ns).unwrap_or(0)))
            }
        }
    };
    let duration = length("duration", Duration::from_secs(120))?;
    let interval = length("interval", Duration::from_secs(30))?;
    for (name, length, least) in [("duration", duration, SHORTEST), ("interval", interval, INTERVAL_MIN)] {
        if length < least {
            return Err(format!("{name} must be longer than 10s"));
        }
    }
    if duration < interval {
        let lengths = [duration, interval].map(go_duration);
        return Err(format!("duration ({}) must be longer than interval ({})", lengths[0], lengths[1]));
    }
    let wanted = flags.values("capture");
    let mut targets: Vec<&'static str> = Vec::new();
    for name in &wanted {
        let known = TARGETS.into_iter().find(|target| target == name);
        targets.push(
            known
                .ok_or_else(|| format!("{name:?} cannot be captured. Choose from {}", TARGETS.join(", ")))?,
        );
    }
    if targets.is_empty() {
        targets = TARGETS.to_vec();
    }
    let folder = match flags.value("output").filter(|path| !path.is_empty()) {
        Some(path) => PathBuf::from(path),
        None => PathBuf::from(format!("consul-debug-{}", time::unix_now().as_secs())),
    };
    for path in [&folder, &archive_of(&folder)] {
        if path.exists() {
            return Err(format!("output directory already exists: {}", path.display()));
        }
    }
    let archive = flags.value("archive").is_none_or(|text| text != "false" && text != "0");
    Ok(Plan { duration, interval, folder, archive, targets })
}

fn capture(
    client: &Client,
    plan: &Plan,
    own: &Value,
    version: &str,
    lengths: &[String; 2],
) -> io::Result<()> {
    let wants = |target: &str| plan.targets.contains(&target);
    fs::create_dir_all(&plan.folder)?;
    let index = json!({
        "Version": 1, "AgentVersion": version, "Interval": lengths[0], "Duration": lengths[1], "Targets": plan.targets,
    });
    write(&plan.folder.join("index.json"), &index)?;
    for (target, file, path) in [
        ("host", "host.json", "/v1/agent/host"),
        ("agent", "agent.json", "/v1/agent/self"),
        ("cluster", "cluster.json", "/v1/agent/members"),
    ] {
        if wants(target) {
            // What is not to be had is told in its place.
            let said = fetch(client, path, &[("evidence", "1")]);
            let said = said.unwrap_or_else(|why| json!({ "Error": why }));
            write(&plan.folder.join(file), &said)?;
        }
    }
    let lines = Arc::new(Mutex::new(Lines::default()));
    if wants("logs") {
        follow_log(client, lines.clone())?;
    }
    println!("==> Beginning capture interval ({})", lengths[0]);
    let (mut left, mut count) = (plan.duration, 0);
    while !left.is_zero() {
        let step = plan.interval.min(left);
        let folder = plan.folder.join(time::unix_now().as_secs().to_string());
        fs::create_dir_all(&folder)?;
        if wants("metrics") {
            let metrics = fetch(client, "/v1/agent/metrics", &[]);
            let metrics = metrics.unwrap_or_else(|why| json!({ "Error": why }));
            write(&folder.join("metrics.json"), &metrics)?;
        }
        if wants("pprof") {
            let now = if count == 0 { Ok(own.clone()) } else { fetch(client, "/v1/agent/self", &[]) };
            let stats = now.map_or_else(|why| json!({ "Error": why }), |own| own["Stats"].clone());
            write(&folder.join("stats.json"), &stats)?;
        }
        time::pause(step);
        left -= step;
        if wants("logs") {
            let taken = std::mem::take(&mut *lines.lock().unwrap_or_else(PoisonError::into_inner));
            let mut file = create(&folder.join("consul.log"))?;
            file.write_all(&taken.bytes)?;
            if taken.lost > 0 {
                writeln!(file, "... {} bytes more were too many", taken.lost)?;
            }
        }
        count += 1;
        println!("==> Capture successful ({count})");
    }
    Ok(())
}

/// Keeps the agent's log coming, beside. It ends with the program.
fn follow_log(client: &Client, lines: Arc<Mutex<Lines>>) -> io::Result<()> {
    let opened = client.open("GET", "/v1/agent/monitor", &[("loglevel", "DEBUG")], &[]);
    let (mut incoming, _) = opened.map_err(io::Error::other)?;
    blocking::run_beside("debug-log", move || {
        let mut buffer = vec![0; 64 << 10];
        while let Ok(length @ 1..) = incoming.read(&mut buffer) {
            let mut lines = lines.lock().unwrap_or_else(PoisonError::into_inner);
            if lines.bytes.len() + length <= LOG_LENGTH_MAX {
                lines.bytes.extend_from_slice(&buffer[..length]);
            } else {
                lines.lost += length;
            }
        }
    })
}

fn fetch(client: &Client, path: &str, query: &[(&str, &str)]) -> Result<Value, String> {
    let body = client.get(path, query).and_then(Reply::ok)?;
    serde_json::from_slice(&body).map_err(|why| why.to_string())
}

fn write(path: &Path, value: &Value) -> io::Result<()> {
    let mut file = create(path)?;
    serde_json::to_writer_pretty(&mut file, value)?;
    file.write_all(b"\n")
}

/// For its owner alone: logs may say more than one thinks.
fn create(path: &Path) -> io::Result<fs::File> {
    fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)
}

fn archive_of(folder: &Path) -> PathBuf {
    let mut name = folder.as_os_str().to_owned();
    name.push(".tar.gz");
    PathBuf::from(name)
}

/// Makes the folder an archive, and takes it away.
fn pack(folder: &Path) -> io::Result<()> {
    let file = create(&archive_of(folder))?;
    let mut archive = tar::Builder::new(GzEncoder::new(file, Compression::default()));
    let name = folder.file_name().map_or_else(|| "consul-debug".into(), std::ffi::OsStr::to_owned);
    archive.append_dir_all(name, folder)?;
    archive.into_inner()?.finish()?.sync_all()?;
    fs::remove_dir_all(folder)
}

fn go_duration(length: Duration) -> String {
    duration::format(i64::try_from(length.as_nanos()).unwrap_or(i64::MAX))
}
