//! Disks that are full, and disks that fail.

use std::fs::{self, File};
use std::io::{ErrorKind, Write};
use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::Duration;

use serde_json::Value;

use super::cluster::{Cluster, RECOVERY_LIMIT, Server};
use super::support::http::{self, Reply};
use super::support::{process, wait};

/// Size of the disk that is filled: room for the log's first segments and for a filler.
const DISK_BYTES: u64 = 320 << 20;
/// Length of the values that fill what the server holds in reserve.
const VALUE_LENGTH: usize = 256 << 10;
/// Writes after which a full disk must have been noticed: more than two segments of the log hold.
const WRITES_MAX: usize = 1200;

/// A folder to which a file system of its own is mounted, as only this thread and its children see it.
struct Disk {
    folder: tempfile::TempDir,
}

impl Disk {
    /// Makes a disk of [`DISK_BYTES`]. Says why not where this is not allowed.
    fn mounted(kind: &str) -> Result<Disk, String> {
        let folder =
            tempfile::Builder::new().prefix("durability-disk-").tempdir().map_err(|e| e.to_string())?;
        // SAFETY: this thread gets a view of its own of what is mounted; no memory is involved.
        if unsafe { libc::unshare(libc::CLONE_NEWNS) } != 0 {
            return Err(format!("a private mount namespace: {}", std::io::Error::last_os_error()));
        }
        command("mount", &["--make-rprivate", "/"])?;
        let (place, backing) = (folder.path().join("disk"), folder.path().join("backing"));
        fs::create_dir(&place).map_err(|error| error.to_string())?;
        let place = place.display().to_string();
        match kind {
            "tmpfs" => {
                command("mount", &["-t", "tmpfs", "-o", &format!("size={DISK_BYTES}"), "tmpfs", &place])?
            }
            _ => {
                let file = File::create(&backing).map_err(|error| error.to_string())?;
                file.set_len(DISK_BYTES).map_err(|error| error.to_string())?;
                let backing = backing.display().to_string();
                command(&format!("mkfs.{kind}"), &["-q", &backing])?;
                command("mount", &["-o", "loop", &backing, &place])?;
            }
        }
        Ok(Disk { folder })
    }

    fn path(&self) -> std::path::PathBuf {
        self.folder.path().join("disk")
    }

    /// Takes all the room there is.
    fn fill(&self) {
        let mut file =
            File::options().create(true).append(true).open(self.path().join("filler")).expect("a filler");
        for length in [1 << 20, 4 << 10, 1] {
            let piece = vec![b'x'; length];
            while match file.write(&piece) {
                Ok(_) => true,
                Err(error) if error.kind() == ErrorKind::StorageFull => false,
                Err(error) => panic!("filling the disk: {error}"),
            } {}
        }
    }

    fn make_room(&self) {
        fs::remove_file(self.path().join("filler")).expect("the filler goes");
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = command("umount", &["-l", &self.path().display().to_string()]);
    }
}

fn command(program: &str, args: &[&str]) -> Result<(), String> {
    let run = Command::new(program).args(args).output().map_err(|error| format!("{program}: {error}"))?;
    match run.status.success() {
        true => Ok(()),
        false => {
            Err(format!("{program} {}: {}", args.join(" "), String::from_utf8_lossy(&run.stderr).trim()))
        }
    }
}

/// Runs a test on a thread of its own, so that what it mounts is seen by nobody else; it is skipped, and says so, where
/// this machine does not let it.
fn on_a_disk(kind: &'static str, test: fn(&Disk)) {
    let run = thread::spawn(move || match Disk::mounted(kind) {
        Ok(disk) => test(&disk),
        Err(why) => println!("SKIPPED: this machine gives no {kind} of its own to a test: {why}"),
    });
    if let Err(panic) = run.join() {
        std::panic::resume_unwind(panic);
    }
}

/// A lone server whose data lies on the disk, and what it has acknowledged.
struct Lone {
    cluster: Cluster,
    /// Numbers of values.
    kept: Vec<u32>,
    next: u32,
}

impl Lone {
    fn on(folder: &Path) -> Lone {
        Lone { cluster: Cluster::start(folder, 1), kept: Vec::new(), next: 0 }
    }

    fn server(&mut self) -> &mut Server {
        &mut self.cluster.servers[0]
    }

    fn get(&mut self, path: &str) -> Reply {
        let server = self.server();
        let reply = http::get(server.http, path);
        reply.unwrap_or_else(|error| panic!("GET {path}: {error}\n{}", server.log()))
    }

    /// Writes one value more; whether it was acknowledged.
    fn put(&mut self, length: usize) -> Result<(), String> {
        let number = self.next;
        self.next += 1;
        let port = self.server().http;
        let reply = http::put(port, &format!("/v1/kv/full/{number}"), content(number, length));
        match reply {
            Ok(reply) if reply.status == 200 && reply.text().trim() == "true" => {
                self.kept.push(number);
                Ok(())
            }
            Ok(reply) => Err(format!("{} {}", reply.status, reply.text())),
            Err(error) => Err(error.to_string()),
        }
    }

    /// Everything that was acknowledged is there, whole.
    fn must_hold_all(&mut self) {
        for number in self.kept.clone() {
            let reply = self.get(&format!("/v1/kv/full/{number}?raw"));
            assert_eq!(reply.status, 200, "value {number} was acknowledged: {}", reply.text());
            assert_eq!(reply.body, content(number, reply.body.len()), "value {number}");
        }
    }

    fn restart(&mut self) {
        self.server().kill();
        self.server().start();
        self.cluster.wait_for_leader();
    }
}

fn content(number: u32, length: usize) -> Vec<u8> {
    let pattern = format!("{number} ").into_bytes();
    pattern.into_iter().cycle().take(length).collect()
}

fn a_full_disk_refuses_writes_and_comes_back(disk: &Disk) {
    let mut lone = Lone::on(&disk.path());
    for _ in 0..20 {
        lone.put(1000).expect("there is room");
    }
    disk.fill();
    // What the log has taken in advance still holds some.
    let refusal = (0..WRITES_MAX).find_map(|_| lone.put(VALUE_LENGTH).err());
    let refusal = refusal.unwrap_or_else(|| panic!("{WRITES_MAX} writes onto a full disk"));
    let told = refusal.to_lowercase();
    assert!(refusal.starts_with("500 ") && told.contains("disk") && told.contains("full"), "{refusal}");
    assert!(lone.put(1).is_err(), "a small write is refused too");
    // Reads go on.
    lone.server().must_live();
    lone.must_hold_all();
    assert_eq!(lone.get("/v1/catalog/nodes").status, 200);
    assert_eq!(lone.get("/v1/kv/full/0?consistent").status, 200);
    assert!(lone.get("/v1/status/leader").text().contains(':'), "it still leads");
    // So does a restart.
    lone.server().kill();
    lone.server().start();
    let port = lone.server().http;
    wait::until_true("it reads on a full disk", RECOVERY_LIMIT, || {
        http::get(port, "/v1/kv/full/0").is_ok_and(|reply| reply.status == 200)
    });
    lone.must_hold_all();

    disk.make_room();
    let mut last = String::new();
    let start = std::time::Instant::now();
    while let Err(why) = lone.put(VALUE_LENGTH) {
        last = why;
        assert!(
            start.elapsed() < RECOVERY_LIMIT,
            "no write though there is room: {last}\n{}",
            lone.server().log()
        );
        thread::sleep(wait::PAUSE);
    }
    println!("it took writes again {:?} after there was room (last refusal: {last})", start.elapsed());
    lone.restart();
    lone.must_hold_all();
}

#[test]
fn a_full_tmpfs_refuses_writes_and_comes_back() {
    on_a_disk("tmpfs", a_full_disk_refuses_writes_and_comes_back);
}

#[test]
fn a_full_ext4_refuses_writes_and_comes_back() {
    on_a_disk("ext4", a_full_disk_refuses_writes_and_comes_back);
}

/// A flush that failed once must never be tried again: the kernel may have dropped what it could not write, and would
/// say that all is well. So the server ends, says why, and holds at its next start what it had acknowledged.
#[test]
fn a_failed_flush_ends_the_server_with_the_reason() {
    if process::is_foreign() {
        return; // it may flush by other means
    }
    if let Err(why) =
        command("strace", &["-o", "/dev/null", "-e", "inject=pwritev2:error=EIO:when=1+", "true"])
    {
        println!("SKIPPED: failed flushes are made by strace, which does not work here: {why}");
        return;
    }
    let folder = tempfile::Builder::new().prefix("durability-").tempdir().expect("a temporary folder");
    let mut cluster = Cluster::prepare(folder.path(), 1, &Value::Null);
    let mut tracer = Command::new("strace");
    let failing =
        ["-f", "-q", "-o", "trace", "-e", "trace=pwritev2", "-e", "inject=pwritev2:error=EIO:when=40+"];
    tracer.args(failing).arg(process::binary()).arg("agent");
    cluster.servers[0].start_by(tracer);
    cluster.wait_for_leader();
    let mut lone = Lone { cluster, kept: Vec::new(), next: 0 };
    let refused = (0..1000).find_map(|_| lone.put(1000).err());
    assert!(refused.is_some(), "1000 writes though the disk fails");
    let process = lone.server().process();
    let status =
        process.wait(Duration::from_secs(20)).unwrap_or_else(|| panic!("it goes on\n{}", process.log()));
    let log = process.log();
    assert_ne!(status.code(), Some(0), "{log}");
    assert!(
        log.contains("Input/output error") && log.contains(" of raft/"),
        "it says what failed and on what\n{log}"
    );
    let trace = fs::read_to_string(folder.path().join("s0/trace")).expect("the trace");
    let injected = trace.lines().filter(|line| line.contains("(INJECTED)")).count();
    assert_eq!(injected, 1, "it was not tried again:\n{trace}");
    println!("{} writes acknowledged before the flush failed", lone.kept.len());

    lone.restart();
    lone.must_hold_all();
    lone.put(10).expect("the disk is well again");
}
