//! Settings from flags and files, and the replacement of files.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::settings::{Level, Settings, Wait};
use super::write;
use super::{TEMPLATE, settings};
use crate::cli::client;
use crate::config::flags::{self, Flag};

fn load(line: &[&str]) -> Result<Settings, String> {
    let all: Vec<Flag> = TEMPLATE.flags.iter().chain(&client::FLAGS).copied().collect();
    let words: Vec<String> = line.iter().map(|word| (*word).to_owned()).collect();
    Settings::load(&flags::parse(&all, &words).expect("the flags are known"))
}

fn file(folder: &Path, name: &str, text: &str) -> String {
    let path = folder.join(name);
    fs::write(&path, text).expect("a file in a folder of the test");
    path.display().to_string()
}

/// Writes a file as the runner does; whether it differed.
fn write(job: &settings::Job, path: &Path, bytes: &[u8]) -> Result<bool, String> {
    let pending = write::prepare(job, path, bytes)?;
    let differs = pending.is_some();
    write::commit(pending.into_iter().collect())?;
    Ok(differs)
}

#[test]
fn a_flag_names_template_file_and_command() {
    let settings = load(&["-template", "a.ctmpl:/tmp/b: curl http://x:1/ ", "-wait", "1s", "-once=false"])
        .expect("loads");
    let job = &settings.jobs[0];
    assert_eq!(job.source, Some(PathBuf::from("a.ctmpl")));
    assert_eq!(job.destination, Some(PathBuf::from("/tmp/b")));
    let command = job.command.as_ref().expect("a command");
    assert_eq!(command.argv, ["/bin/sh", "-c", "curl http://x:1/"]);
    assert_eq!(command.timeout, Some(Duration::from_secs(30)));
    assert_eq!(job.wait, Some(Wait { min: Duration::from_secs(1), max: Duration::from_secs(4) }));
    assert_eq!(settings.attempts, None);
    assert_eq!(load(&["-template", "a:b", "-once", "-wait", "1s"]).expect("loads").jobs[0].wait, None);
}

#[test]
fn files_say_the_same_as_for_consul_template() {
    let folder = tempfile::tempdir().expect("a folder");
    let hcl = r#"
        consul {
          address = "10.0.0.1:8500"
          token = "secret"
          auth { enabled = true  username = "u"  password = "p" }
          retry { enabled = true  attempts = 5  backoff = "250ms"  max_backoff = "1m" }
          ssl { enabled = true  ca_cert = "/ca" }
          transport { dial_timeout = "1s" }
        }
        log_level = "info"
        kill_signal = "SIGQUIT"
        reload_signal = ""
        max_stale = "10m"
        pid_file = "/run/x.pid"
        wait { min = "5s"  max = "10s" }
        deduplicate { enabled = true }
        template {
          source = "/in.ctmpl"
          destination = "/out"
          perms = 0600
          backup = true
          left_delimiter = "<<"
          right_delimiter = ">>"
          error_on_missing_key = true
          create_dest_dirs = false
          user = "nobody"
          command = ["systemctl", "reload", "x"]
          command_timeout = "5s"
          wait { enabled = false }
        }
        template {
          contents = "{{ key \"a\" }}"
          destination = "/out2"
          perms = "0755"
          exec { command = "true && true"  timeout = "7s"  kill_signal = "SIGUSR1" }
        }
        exec {
          command = "/bin/server"
          splay = "2s"
          reload_signal = "SIGHUP"
          kill_timeout = "3s"
          env { pristine = true  custom = ["A=b"]  denylist = ["VAULT_*"] }
        }
    "#;
    let path = file(folder.path(), "a.hcl", hcl);
    let settings = load(&["-config", &path, "-consul-addr", "localhost:1"]).expect("loads");
    let client =
        |name: &str| settings.client.iter().rev().find(|(flag, _)| *flag == name).map(|(_, v)| v.as_str());
    assert_eq!(client("http-addr"), Some("localhost:1"));
    assert_eq!(
        (client("token"), client("auth"), client("ca-file")),
        (Some("secret"), Some("u:p"), Some("/ca"))
    );
    assert_eq!(settings.attempts, Some(5));
    assert_eq!((settings.level, settings.reload_signal, settings.kill_signal), (Level::Info, None, Some(3)));
    assert_eq!(settings.remarks.len(), 1);
    let [first, second] = settings.jobs.as_slice() else { panic!("two templates") };
    assert_eq!((first.mode, first.backup, first.makes_folders), (Some(0o600), true, false));
    assert_eq!(first.delimiters, ("<<".to_owned(), ">>".to_owned()));
    assert_eq!(first.wait, Some(Wait { min: Duration::from_secs(5), max: Duration::from_secs(10) }));
    let command = first.command.as_ref().expect("a command");
    assert_eq!((command.argv.len(), command.timeout), (3, Some(Duration::from_secs(5))));
    let command = second.command.as_ref().expect("a command");
    assert_eq!(
        (second.mode, command.argv[2].as_str(), command.kill_signal),
        (Some(0o755), "true && true", 10)
    );
    let exec = settings.exec.expect("a program");
    assert_eq!((exec.reload_signal, exec.splay), (Some(1), Duration::from_secs(2)));
    assert!(exec.command.environment.pristine);
}

#[test]
fn folders_are_read_in_the_order_of_names() {
    let folder = tempfile::tempdir().expect("a folder");
    file(
        folder.path(),
        "2.json",
        r#"{"log_level": "err", "template": {"source": "b", "destination": "/b"}}"#,
    );
    file(folder.path(), "1.hcl", "log_level = \"debug\"\ntemplate { source = \"a\" destination = \"/a\" }");
    let settings = load(&["-config", &folder.path().display().to_string()]).expect("loads");
    let sources: Vec<_> = settings.jobs.iter().filter_map(|job| job.source.as_deref()).collect();
    assert_eq!(sources, [Path::new("a"), Path::new("b")]);
    assert_eq!(settings.level, Level::Error);
}

#[test]
fn mistakes_are_named() {
    let folder = tempfile::tempdir().expect("a folder");
    for (text, part) in [
        ("template { source = \"a\" destination = \"b\" colour = 1 }", "template has invalid keys: colour"),
        ("colour = 1", "the file has invalid keys: colour"),
        ("template { destination = \"b\" }", "must specify exactly one of"),
        ("template { source = \"a\" contents = \"x\" destination = \"b\" }", "cannot specify both"),
        ("template { source = \"a\" }", "missing destination"),
        ("template { source = \"a\" destination = \"b\" wait = \"2s:1s\" }", "min larger than max"),
        ("template { source = \"a\" destination = \"b\" perms = \"9\" }", "no mode"),
        ("kill_signal = \"SIGNOT\"", "invalid signal"),
        ("log_level = \"loud\"", "invalid log level"),
        ("max_stale = \"x\"", "invalid duration"),
        ("template {", "At "),
        ("consul { ssl { verify = false } }", "not supported"),
    ] {
        let path = file(folder.path(), "x.hcl", text);
        let why = load(&["-config", &path]).map(|_| ()).expect_err(text);
        assert!(why.contains(part), "{text}: {why}");
    }
    assert!(load(&[]).is_err_and(|why| why.contains("nothing to do")));
    assert!(
        load(&["-template", "a:/x", "-template", "b:/x"]).is_err_and(|why| why.contains("two templates"))
    );
}

/// The settings of one template.
fn job(more: &str) -> settings::Job {
    let folder = tempfile::tempdir().expect("a folder");
    let path =
        file(folder.path(), "x.hcl", &format!("template {{ contents = \"x\" destination = \"/x\" {more} }}"));
    load(&["-config", &path]).expect("loads").jobs.remove(0)
}

#[test]
fn a_file_is_replaced_only_when_it_differs() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("deep/er/out");
    assert_eq!(write(&job(""), &path, b"one"), Ok(true));
    let meta = fs::metadata(&path).expect("it is there");
    assert_eq!(meta.mode() & 0o7777, 0o644);
    assert_eq!(write(&job(""), &path, b"one"), Ok(false));
    assert_eq!(fs::metadata(&path).expect("it is there").ino(), meta.ino());
    // The mode of the file before is kept, and one that is asked for is set without another write.
    fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).expect("a mode");
    assert_eq!(write(&job("backup = true"), &path, b"two"), Ok(true));
    assert_eq!(fs::metadata(&path).expect("it is there").mode() & 0o7777, 0o640);
    assert_eq!(fs::read(folder.path().join("deep/er/out.bak")).expect("a backup"), b"one");
    assert_eq!(write(&job("perms = 0600"), &path, b"two"), Ok(false));
    assert_eq!(fs::metadata(&path).expect("it is there").mode() & 0o7777, 0o600);
    let left: Vec<_> = fs::read_dir(folder.path().join("deep/er")).expect("a folder").collect();
    assert_eq!(left.len(), 2, "nothing is left behind: {left:?}");
    let missing = write(&job("create_dest_dirs = false"), &folder.path().join("no/out"), b"x");
    assert!(missing.is_err_and(|why| why.contains("No such file")));
    assert!(write(&job(""), folder.path(), b"x").is_err_and(|why| why.contains("directory")));
}

#[test]
fn a_link_stays_and_its_file_is_replaced() {
    let folder = tempfile::tempdir().expect("a folder");
    let (real, link) = (folder.path().join("real"), folder.path().join("link"));
    fs::write(&real, b"old").expect("a file");
    symlink(&real, &link).expect("a link");
    assert_eq!(write(&job(""), &link, b"new"), Ok(true));
    assert!(fs::symlink_metadata(&link).expect("it is there").file_type().is_symlink());
    assert_eq!(fs::read(&real).expect("it is there"), b"new");
}
