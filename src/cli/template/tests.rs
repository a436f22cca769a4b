//! Settings from flags and files, and the replacement of files.

use std::collections::VecDeque;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink};
use std::path::{Path, PathBuf};
use std::sync::mpsc::sync_channel;
use std::time::{Duration, SystemTime};

use super::feeds::{News, Seen, look_at_file};
use super::settings::{Level, Settings, Wait};
use super::write;
use super::{Event, TEMPLATE, offer, settings};
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
    write::commit(pending.into_iter().collect(), &mut Vec::new())?;
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
    // What a killed process of the same number has left is in nobody's way.
    for count in 0..64 {
        let name = format!("deep/er/.left.{}.{count}.tmp", std::process::id());
        fs::write(folder.path().join(name), b"half").expect("a file");
    }
    let left = folder.path().join("deep/er/left");
    assert_eq!(write(&job(""), &left, b"x"), Ok(true));
    for entry in fs::read_dir(folder.path().join("deep/er")).expect("a folder") {
        let path = entry.expect("an entry").path();
        if path.file_name().is_some_and(|name| name != "out") {
            fs::remove_file(path).expect("it goes");
        }
    }
    let long = "x".repeat(250);
    assert_eq!(write(&job(""), &folder.path().join(&long), b"x"), Ok(true));
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
    // The second release is not there yet: its folder is made, and both links stay.
    let (current, config) = (folder.path().join("current"), folder.path().join("config"));
    symlink("releases/2", &current).expect("a link");
    symlink("current/etc/config", &config).expect("a link");
    fs::create_dir_all(folder.path().join("releases/2")).expect("a folder");
    assert_eq!(write(&job(""), &config, b"one"), Ok(true));
    assert_eq!(fs::read(folder.path().join("releases/2/etc/config")).expect("it is there"), b"one");
    let dangling = folder.path().join("dangling");
    symlink("config.new", folder.path().join("step")).expect("a link");
    symlink(folder.path().join("step"), &dangling).expect("a link");
    assert_eq!(write(&job(""), &dangling, b"two"), Ok(true));
    assert_eq!(fs::read(folder.path().join("config.new")).expect("it is there"), b"two");
    for link in [current, config, dangling, folder.path().join("step")] {
        let meta = fs::symlink_metadata(&link).expect("it is there");
        assert!(meta.file_type().is_symlink(), "{}", link.display());
    }
    symlink("b", folder.path().join("a")).expect("a link");
    symlink("a", folder.path().join("b")).expect("a link");
    let round = write(&job(""), &folder.path().join("a"), b"x");
    assert!(round.is_err_and(|why| why.contains("too many levels")));
}

#[test]
fn a_backup_keeps_owner_and_mode_and_follows_no_link() {
    let folder = tempfile::tempdir().expect("a folder");
    let (path, backup) = (folder.path().join("out"), folder.path().join("out.bak"));
    fs::write(&path, b"one").expect("a file");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o4751)).expect("a mode");
    // Only root may give a file away; the test then shows less.
    let is_given = chown(&path, Some(12_345), Some(23_456)).is_ok();
    // Where a copy would be guessed to be, somebody has laid links to what is not to be touched.
    let precious = folder.path().join("precious");
    fs::write(&precious, b"precious").expect("a file");
    symlink(&precious, &backup).expect("a link");
    symlink(&precious, folder.path().join(format!("out.bak.{}.tmp", std::process::id()))).expect("a link");
    assert_eq!(write(&job("backup = true perms = 0600"), &path, b"two"), Ok(true));
    assert_eq!(fs::read(&precious).expect("it is there"), b"precious");
    let meta = fs::symlink_metadata(&backup).expect("it is there");
    assert!(meta.is_file());
    assert_eq!(meta.mode() & 0o777, 0o751);
    if is_given {
        assert_eq!((meta.uid(), meta.gid()), (12_345, 23_456));
    }
    assert_eq!(fs::read(&backup).expect("it is there"), b"one");
    assert_eq!(fs::metadata(&path).expect("it is there").mode() & 0o7777, 0o600);
}

#[test]
fn flags_of_consul_template_that_do_nothing_are_remarked_upon() {
    let line =
        ["-template", "a:b", "-consul-retry=false", "-syslog", "-consul-retry-backoff", "1s", "-consul-ssl"];
    let settings = load(&line).expect("loads");
    assert_eq!(settings.attempts, Some(1));
    assert_eq!(settings.remarks, ["-consul-retry-backoff does nothing", "-syslog does nothing"]);
    assert_eq!(settings.about_agent, [("CONSUL_HTTP_SSL".to_owned(), "true".to_owned())]);
    let why = load(&["-template", "a:b", "-consul-ssl-verify=false"]).map(|_| ()).expect_err("refused");
    assert!(why.contains("not supported"), "{why}");
}

#[test]
fn a_variable_without_a_value_is_refused() {
    let folder = tempfile::tempdir().expect("a folder");
    for custom in ["[\"A=b\", \"SECRET\"]", "[\"=x\"]", "\"\""] {
        let text = format!("exec {{ command = \"x\" env {{ custom = {custom} }} }}");
        let path = file(folder.path(), "x.hcl", &text);
        let why = load(&["-config", &path]).map(|_| ()).expect_err(custom);
        assert!(why.ends_with("env.custom: a variable is written NAME=value"), "{why}");
    }
    let why = load(&["-exec", "x", "-exec-env-custom", "SECRET"]).map(|_| ()).expect_err("refused");
    assert_eq!(why, "invalid value for flag -exec-env-custom: a variable is written NAME=value");
    // What is known of the agent comes first, so that a template's own settings count.
    let line = ["-exec", "x", "-exec-env-custom", "A=b=c", "-token", "t", "-http-addr", "h:1"];
    let exec = load(&line).expect("loads").exec.expect("a program");
    let row = |a: &str, b: &str| (a.to_owned(), b.to_owned());
    assert_eq!(
        exec.command.environment.custom,
        [row("CONSUL_HTTP_ADDR", "h:1"), row("CONSUL_HTTP_TOKEN", "t"), row("A", "b=c")]
    );
}

/// What a file holds that is looked at; `None` when nothing is told.
fn look(path: &Path, seen: &mut Seen) -> Option<String> {
    let (now, news, _) = look_at_file(&path.display().to_string(), seen);
    *seen = now;
    match news? {
        News::Here(content) => Some(String::from_utf8_lossy(&content).into_owned()),
        News::Nothing => panic!("a file is there or cannot be read"),
        News::Failed(why) => Some(why),
    }
}

#[test]
fn a_file_of_the_same_length_and_time_is_another() {
    let folder = tempfile::tempdir().expect("a folder");
    let (path, other) = (folder.path().join("file"), folder.path().join("other"));
    let time = SystemTime::now() - Duration::from_secs(3600);
    let set = |path: &Path, text: &str| {
        fs::write(path, text).expect("a file");
        fs::File::options().write(true).open(path).expect("a file").set_modified(time).expect("a time");
    };
    let mut seen = Seen::Unknown;
    set(&path, "one");
    assert_eq!(look(&path, &mut seen).as_deref(), Some("one"));
    assert_eq!(look(&path, &mut seen), None);
    // Written over in the same tick of the clock, or replaced as `rsync -t` and `cp -p` do it.
    set(&path, "two");
    assert_eq!(look(&path, &mut seen).as_deref(), Some("two"));
    set(&other, "six");
    fs::rename(&other, &path).expect("renamed");
    assert_eq!(look(&path, &mut seen).as_deref(), Some("six"));
    // One that has been left alone is not read again, but its change is still seen.
    seen.settle();
    assert_eq!(look(&path, &mut seen), None);
    set(&other, "ten");
    fs::rename(&other, &path).expect("renamed");
    assert_eq!(look(&path, &mut seen).as_deref(), Some("ten"));
    fs::remove_file(&path).expect("removed");
    assert!(look(&path, &mut seen).is_some_and(|why| why.contains("No such file")));
}

#[test]
fn signals_wait_where_nobody_has_room_for_them() {
    let (to, events) = sync_channel(1);
    let mut waiting = VecDeque::from([10, 12]);
    offer(&mut waiting, &to);
    assert_eq!(waiting, [12]);
    assert!(matches!(events.try_recv(), Ok(Event::Signal(10))));
    offer(&mut waiting, &to);
    assert!(waiting.is_empty());
    drop(events);
    waiting.push_back(1);
    offer(&mut waiting, &to);
    assert!(waiting.is_empty(), "nobody is there any more");
}
