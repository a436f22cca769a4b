//! The store: rules by example, and whole histories against naive models of it.

mod catalog_rules;
mod coordinates;
mod histories;
mod kv_rules;
mod mirror_rules;
mod naive;
mod restore_rules;
mod section_rules;
mod session_rules;
mod txn_rules;
mod watch_rules;

use rkyv::rancor;

use super::command::{
    Applied, ArchivedCommand, CatalogOp, Command, DelayEnd, Deregister, KvOp, Look, Register, SessionOp,
    TxnOp,
};
use super::model::{Behavior, Check, KvEntry, Node, Service, Session, Status};
use super::topic::Topic;
use super::{State, StateBuilder, Touched};

/// A state under test with what its last command touched.
struct Bench {
    state: State,
    touched: Touched,
}

impl Bench {
    fn new() -> Bench {
        Bench { state: State::new(), touched: Touched::new() }
    }

    /// Applies a command at the next index.
    fn run(&mut self, command: &Command) -> Applied {
        self.touched = Touched::new();
        apply(&mut self.state, command, &mut self.touched)
    }

    fn set(&mut self, key: &str, value: &str) -> Applied {
        self.run(&set(key, value))
    }

    fn register(&mut self, register: Register) -> Applied {
        self.run(&Command::Catalog(CatalogOp::Register(Box::new(register))))
    }

    fn deregister(&mut self, node: &str, service_id: &str, check_id: &str) -> Applied {
        self.run(&deregister(node, service_id, check_id))
    }

    fn shown(&self, topic: Topic) -> u64 {
        self.state.topic_index(&topic)
    }

    fn changed(&self, topic: Topic) -> u64 {
        self.state.last_change(&topic)
    }
}

fn apply(state: &mut State, command: &Command, touched: &mut Touched) -> Applied {
    let bytes = rkyv::to_bytes::<rancor::Error>(command).unwrap();
    let archived = rkyv::access::<ArchivedCommand, rancor::Error>(&bytes).unwrap();
    state.apply(state.log_index() + 1, archived, touched)
}

/// A state's sections, and the state that they make.
fn rebuilt(state: &State) -> State {
    let mut builder = StateBuilder::new();
    for section in state.sections() {
        builder.section(section.kind, section.version, &section.bytes).unwrap();
    }
    builder.finish().unwrap()
}

fn set(key: &str, value: &str) -> Command {
    Command::Kv(KvOp::Set(entry(key, value)))
}

fn entry(key: &str, value: &str) -> KvEntry {
    KvEntry { key: key.into(), value: value.into(), ..KvEntry::default() }
}

fn deregister(node: &str, service_id: &str, check_id: &str) -> Command {
    Command::Catalog(CatalogOp::Deregister(Deregister {
        node: node.into(),
        service_id: service_id.into(),
        check_id: check_id.into(),
    }))
}

fn node(name: &str, address: &str) -> Register {
    let node =
        Node { node: name.into(), address: address.into(), datacenter: "dc1".into(), ..Node::default() };
    Register { node, ..Register::default() }
}

fn with_id(id: &str, name: &str) -> Register {
    let mut register = node(name, "10.0.0.1");
    register.node.id = id.into();
    register
}

fn with_service(name: &str, id: &str, service: &str, tags: &[&str]) -> Register {
    let tags = tags.iter().map(|tag| tag.to_string()).collect();
    let service = Service { id: id.into(), name: service.into(), tags, ..Service::default() };
    Register { service: Some(service), ..node(name, "10.0.0.1") }
}

fn check(id: &str, service_id: &str, status: Status) -> Check {
    Check { check_id: id.into(), name: id.into(), service_id: service_id.into(), status, ..Check::default() }
}

fn with_check(name: &str, check: Check) -> Register {
    Register { checks: vec![check], ..node(name, "10.0.0.1") }
}

fn prefix(text: &str) -> Topic {
    Topic::KeyPrefix(text.as_bytes().into())
}

fn key(text: &str) -> Topic {
    Topic::Key(text.as_bytes().into())
}
