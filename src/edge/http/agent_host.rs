//! `/v1/agent/host`: the machine, from `/proc` and `/etc`, under the names of Consul's library.

use std::path::Path;
use std::rc::Rc;

use serde_json::{Value, json};

use super::Edge;
use super::agent_self::document;
use super::exchange::{Handled, Outcome, Request, Response};
use crate::runtime::fs::Space;
use crate::runtime::{blocking, fs, host, time};

/// What is read of the machine.
struct Facts {
    path: String,
    space: std::io::Result<Space>,
    memory: String,
    cpus: String,
    uptime: String,
    kernel: String,
    hostname: String,
    host_id: String,
    processes: usize,
    os_release: String,
    debian_version: String,
}

impl Facts {
    /// Blocking.
    fn read(folder: &Path) -> Facts {
        let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
        let is_process =
            |name: std::ffi::OsString| name.to_string_lossy().bytes().all(|b| b.is_ascii_digit());
        let processes = std::fs::read_dir("/proc").into_iter().flatten().flatten();
        Facts {
            path: folder.display().to_string(),
            space: fs::space(folder),
            memory: read("/proc/meminfo"),
            cpus: read("/proc/cpuinfo"),
            uptime: read("/proc/uptime"),
            kernel: read("/proc/sys/kernel/osrelease"),
            hostname: read("/proc/sys/kernel/hostname"),
            host_id: host::id(),
            processes: processes.filter(|entry| is_process(entry.file_name())).count(),
            os_release: read("/etc/os-release"),
            debian_version: read("/etc/debian_version"),
        }
    }
}

/// `/v1/agent/host`.
pub(super) fn about(edge: &Rc<Edge>, request: &Request) -> Handled {
    let folder = edge.config().data_dir.clone().unwrap_or_else(|| "/".into());
    let (edge, request) = (edge.clone(), request.clone());
    Ok(Outcome::later(async move {
        let facts = blocking::run(move || Facts::read(&folder)).await;
        let facts =
            facts.map_err(|_| Response::internal("reading the state of the host failed inside the agent"))?;
        let about = json!({
            "Memory": memory(&facts.memory),
            "CPU": cpus(&facts.cpus),
            "Host": system(&facts),
            "Disk": disk(&facts.path, &facts.space),
            "CollectionTime": u64::try_from(time::unix_now().as_nanos()).unwrap_or(u64::MAX),
            "Errors": facts.space.err().map(|error| vec![error.to_string()]),
        });
        Ok(document(&edge, &request, &about))
    }))
}

fn percent(part: u64, whole: u64) -> f64 {
    if whole == 0 { 0.0 } else { part as f64 * 100.0 / whole as f64 }
}

/// `MemTotal:  123 kB` and its kin, in bytes.
fn memory(text: &str) -> Value {
    let number = |name: &str| {
        let line = text.lines().find(|line| line.split(':').next() == Some(name));
        let number = line.and_then(|line| line.split_whitespace().nth(1));
        number.and_then(|number| number.parse::<u64>().ok()).unwrap_or_default()
    };
    let bytes = |name: &str| number(name) * 1024;
    let (total, free, buffers) = (bytes("MemTotal"), bytes("MemFree"), bytes("Buffers"));
    let cached = bytes("Cached") + bytes("SReclaimable");
    let used = total.saturating_sub(free + buffers + cached);
    json!({
        "total": total, "available": bytes("MemAvailable"), "used": used, "usedPercent": percent(used, total),
        "free": free, "active": bytes("Active"), "inactive": bytes("Inactive"),
        // Of other systems.
        "wired": 0, "laundry": 0,
        "buffers": buffers, "cached": cached, "writeback": bytes("Writeback"), "dirty": bytes("Dirty"),
        "writebacktmp": bytes("WritebackTmp"), "shared": bytes("Shmem"), "slab": bytes("Slab"),
        "sreclaimable": bytes("SReclaimable"), "sunreclaim": bytes("SUnreclaim"),
        "pagetables": bytes("PageTables"), "swapcached": bytes("SwapCached"),
        "commitlimit": bytes("CommitLimit"), "committedas": bytes("Committed_AS"),
        "hightotal": bytes("HighTotal"), "highfree": bytes("HighFree"),
        "lowtotal": bytes("LowTotal"), "lowfree": bytes("LowFree"),
        "swaptotal": bytes("SwapTotal"), "swapfree": bytes("SwapFree"), "mapped": bytes("Mapped"),
        "vmalloctotal": bytes("VmallocTotal"), "vmallocused": bytes("VmallocUsed"),
        "vmallocchunk": bytes("VmallocChunk"),
        "hugepagestotal": number("HugePages_Total"), "hugepagesfree": number("HugePages_Free"),
        "hugepagesize": bytes("Hugepagesize"),
    })
}

fn cpus(text: &str) -> Value {
    let blocks = text.split("\n\n").filter(|block| block.starts_with("processor"));
    let cpus = blocks.map(|block| {
        let value = |name: &str| {
            let line = block.lines().find(|line| line.split(':').next().map(str::trim) == Some(name));
            line.and_then(|line| line.split_once(':')).map(|(_, value)| value.trim()).unwrap_or_default()
        };
        let number = |name: &str| -> u64 {
            value(name).split(' ').next().and_then(|n| n.parse().ok()).unwrap_or_default()
        };
        json!({
            "cpu": number("processor"), "vendorId": value("vendor_id"), "family": value("cpu family"),
            "model": value("model"), "stepping": number("stepping"), "physicalId": value("physical id"),
            // Each row is one.
            "coreId": value("core id"), "cores": 1,
            "modelName": value("model name"), "mhz": value("cpu MHz").parse::<f64>().unwrap_or_default(),
            "cacheSize": number("cache size"), "flags": value("flags").split_whitespace().collect::<Vec<_>>(),
            "microcode": value("microcode"),
        })
    });
    cpus.collect()
}

fn system(facts: &Facts) -> Value {
    let up =
        facts.uptime.split('.').next().and_then(|seconds| seconds.parse::<u64>().ok()).unwrap_or_default();
    let (platform, family, version) = platform(&facts.os_release, &facts.debian_version);
    let is_guest = facts.cpus.lines().any(|line| line.starts_with("flags") && line.contains(" hypervisor"));
    json!({
        "hostname": facts.hostname.trim(),
        "uptime": up,
        "bootTime": time::unix_now().as_secs().saturating_sub(up),
        "procs": facts.processes,
        "os": std::env::consts::OS,
        "platform": platform, "platformFamily": family, "platformVersion": version,
        "kernelVersion": facts.kernel.trim(),
        "kernelArch": std::env::consts::ARCH,
        "virtualizationSystem": "",
        "virtualizationRole": if is_guest { "guest" } else { "" },
        "hostid": facts.host_id,
    })
}

/// A distribution, the family that it is of, and its version.
fn platform(os_release: &str, debian_version: &str) -> (String, &'static str, String) {
    let value = |name: &str| {
        let line = os_release.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('='));
        line.unwrap_or_default().trim().trim_matches(['"', '\'']).to_owned()
    };
    let platform = value("ID");
    let family = match platform.as_str() {
        "debian" | "ubuntu" | "linuxmint" | "raspbian" => "debian",
        "rhel" | "centos" | "rocky" | "almalinux" | "ol" | "amzn" => "rhel",
        "fedora" => "fedora",
        "sles" | "opensuse" | "opensuse-leap" | "opensuse-tumbleweed" => "suse",
        "arch" => "arch",
        "alpine" => "alpine",
        "gentoo" => "gentoo",
        _ => "",
    };
    // The other file says which point release.
    let version = if platform == "debian" { debian_version.trim().to_owned() } else { value("VERSION_ID") };
    (platform, family, version)
}

fn disk(path: &str, space: &std::io::Result<Space>) -> Value {
    let space = space.as_ref().copied().unwrap_or_default();
    let inodes_used = space.inodes.saturating_sub(space.inodes_free);
    json!({
        "path": path, "fstype": file_system(space.kind),
        "total": space.total, "free": space.free, "used": space.used,
        // As df does: of what we may use.
        "usedPercent": percent(space.used, space.used + space.free),
        "inodesTotal": space.inodes, "inodesUsed": inodes_used, "inodesFree": space.inodes_free,
        "inodesUsedPercent": percent(inodes_used, space.inodes),
    })
}

/// The numbers are those of `linux/magic.h`.
fn file_system(kind: u64) -> &'static str {
    match kind {
        0xEF53 => "ext2/ext3",
        0x5846_5342 => "xfs",
        0x9123_683E => "btrfs",
        0x0102_1994 => "tmpfs",
        0x794C_7630 => "overlayfs",
        0x6969 => "nfs",
        0xF2F5_2010 => "f2fs",
        0x2FC1_2FC1 => "zfs",
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distributions_are_named_with_family_and_version() {
        let of = |os_release: &str| platform(os_release, "12.11\n");
        assert_eq!(
            of("NAME=\"Debian\"\nVERSION_ID=\"12\"\nID=debian\n"),
            ("debian".into(), "debian", "12.11".into())
        );
        assert_eq!(of("ID=\"rocky\"\nVERSION_ID=\"9.4\"\n"), ("rocky".into(), "rhel", "9.4".into()));
        assert_eq!(of(""), (String::new(), "", String::new()));
    }

    /// All but what is free for us was called used, also what is kept for root.
    #[test]
    fn what_is_kept_for_root_is_not_in_use() {
        let space = Space { total: 100, used: 30, free: 20, inodes: 10, inodes_free: 5, kind: 0xEF53 };
        let shown = disk("/", &Ok(space));
        assert_eq!(
            (&shown["used"], &shown["usedPercent"], &shown["inodesUsedPercent"]),
            (&json!(30), &json!(60.0), &json!(50.0))
        );
        let here = fs::space(Path::new("/")).expect("it is there");
        assert!(here.used + here.free <= here.total && here.total > 0);
    }

    #[test]
    fn pages_are_counted_and_the_rest_is_bytes() {
        let shown = memory(
            "MemTotal:  100 kB\nMemFree: 20 kB\nCached: 30 kB\nSReclaimable: 10 kB\nHugePages_Total: 3\n",
        );
        let of = |name: &str| shown[name].as_u64();
        assert_eq!(
            (of("used"), of("cached"), of("hugepagestotal")),
            (Some(40 << 10), Some(40 << 10), Some(3))
        );
        assert_eq!(shown.as_object().map(serde_json::Map::len), Some(35), "as many as Consul shows");
    }
}
