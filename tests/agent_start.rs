//! Loading the agent's files: what is damaged is set aside, the rest loads, and Consul's own files are understood.

use std::path::Path;
use std::sync::mpsc;

use muster::agent::files::{Files, Found};
use muster::agent::persist::file_name;
use muster::runtime::cores::{self, Driver};

fn load(folder: &Path) -> Found {
    let (sender, receiver) = mpsc::channel();
    let folder = folder.to_owned();
    cores::run(Driver::Epoll, 1, move |_| {
        let (sender, files) = (sender.clone(), Files::new(folder.clone()));
        Box::pin(async move {
            sender.send(files.load().await).expect("the test waits");
        })
    })
    .expect("a core starts");
    receiver.recv().expect("a result").expect("the folder is readable")
}

fn put(folder: &Path, kind: &str, id: &str, text: &str) {
    std::fs::create_dir_all(folder.join(kind)).unwrap();
    std::fs::write(folder.join(kind).join(file_name(id)), text).unwrap();
}

#[test]
fn an_empty_folder_is_fine() {
    let folder = tempfile::tempdir().unwrap();
    let found = load(folder.path());
    assert!(found.services.is_empty() && found.checks.is_empty() && found.states.is_empty());
}

#[test]
fn damaged_files_are_set_aside_and_the_others_load() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let service = r#"{"Token":"","Service":{"ID":"web","Service":"web","Tags":null,"Meta":null,"Port":80},"Source":"remote"}"#;
    put(folder, "services", "web", service);
    put(folder, "services", "torn", &service[..40]);
    put(folder, "services", "empty", "");
    put(
        folder,
        "checks",
        "mem",
        r#"{"Check":{"CheckID":"mem","Name":"mem"},"ChkType":{"TTL":30000000000},"Source":"remote"}"#,
    );
    put(folder, "checks/state", "mem", r#"{"CheckID":"mem","Output":"o","Status":"passing","Expires":1}"#);
    put(folder, "checks/state", "odd", r#"{"CheckID":"odd","Status":"sideways"}"#);
    std::fs::write(folder.join("services/README"), "not ours").unwrap();

    let found = load(folder);
    assert_eq!(found.services.iter().map(|s| s.row.id.as_str()).collect::<Vec<_>>(), ["web"]);
    assert_eq!(found.checks.iter().map(|c| c.row.check_id.as_str()).collect::<Vec<_>>(), ["mem"]);
    assert_eq!(found.states.keys().collect::<Vec<_>>(), ["mem"]);

    for (kind, id) in [("services", "torn"), ("services", "empty"), ("checks/state", "odd")] {
        let path = folder.join(kind).join(file_name(id));
        assert!(!path.exists() && path.with_extension("corrupt").exists(), "{kind}/{id}");
    }
    assert!(folder.join("services/README").exists());
    // The next start finds nothing to complain about.
    assert_eq!(load(folder).services.len(), 1);
}
