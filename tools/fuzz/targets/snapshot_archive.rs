//! Any bytes as an operator's archive and as one section of a state, and any bytes over the sections of a real state.
//!
//! Reading ends and never panics. What was taken can be written again, and is the same then.
#![no_main]

use libfuzzer_sys::fuzz_target;
use muster::archive;
use muster::consensus::Encoded;
use muster::store::command::{CatalogOp, Command, Deregister, KvOp, Register};
use muster::store::model::{Check, KvEntry, Node, Service};
use muster::store::{Section, State, StateBuilder, Touched};

fuzz_target!(|bytes: &[u8]| {
    let mut builder = StateBuilder::new();
    let read = archive::read(bytes, &mut |section| {
        builder.section(section.kind, section.version, &section.bytes).map_err(|why| why.to_string())
    });
    if read.is_ok() {
        let _ = builder.finish();
    }
    let [kind, rest @ ..] = bytes else { return };
    if kind % 2 == 0 {
        let mut builder = StateBuilder::new();
        let taken = builder.section(u16::from(*kind / 2), 1, rest);
        if taken.is_ok() {
            finish(builder);
        }
    } else {
        edited(rest);
    }
});

/// The sections of a real state with single bytes changed: three bytes of the input say where, a fourth one to what.
fn edited(edits: &[u8]) {
    let mut sections = SECTIONS.with(Clone::clone);
    for edit in edits.chunks_exact(4) {
        let place = usize::from(edit[0]) % sections.len();
        let bytes = &mut sections[place].bytes;
        let at = usize::from(u16::from_le_bytes([edit[1], edit[2]])) % bytes.len();
        bytes[at] = edit[3];
    }
    let mut builder = StateBuilder::new();
    if sections.iter().all(|section| builder.section(section.kind, section.version, &section.bytes).is_ok()) {
        finish(builder);
    }
}

fn finish(builder: StateBuilder) {
    let Ok(state) = builder.finish() else { return };
    let mut again = StateBuilder::new();
    for section in state.sections() {
        again.section(section.kind, section.version, &section.bytes).expect("our own sections");
    }
    assert_eq!(again.finish().expect("our own sections").fingerprint(), state.fingerprint());
}

thread_local! {
    static SECTIONS: Vec<Section> = sections();
}

/// Of a state with some rows in every table, and the memory of some that are gone.
fn sections() -> Vec<Section> {
    let mut state = State::new();
    let node = |name: &str| Node { node: name.into(), address: "10.0.0.1".into(), ..Node::default() };
    let service = |id: &str| Service { id: id.into(), name: "web".into(), tags: vec!["a".into()], ..Service::default() };
    let check = Check { check_id: "c".into(), service_id: "one".into(), ..Check::default() };
    let register = |node, service, checks| CatalogOp::Register(Box::new(Register { node, service, checks, ..Register::default() }));
    let gone = Deregister { node: "n1".into(), service_id: "two".into(), check_id: String::new() };
    let key = |key: &str| KvEntry { key: key.into(), value: b"value".to_vec(), ..KvEntry::default() };
    let commands = [
        Command::Catalog(register(node("n0"), Some(service("one")), vec![check])),
        Command::Catalog(register(node("n1"), Some(service("two")), Vec::new())),
        Command::Catalog(CatalogOp::Deregister(gone)),
        Command::Kv(KvOp::Set(key("a/b"))),
        Command::Kv(KvOp::Set(key("a/c"))),
        Command::Kv(KvOp::Delete { key: b"a/c".to_vec() }),
    ];
    for (index, command) in (1..).zip(&commands) {
        state.apply(index, Encoded::of(command).command(), &mut Touched::default());
    }
    state.sections().collect()
}
