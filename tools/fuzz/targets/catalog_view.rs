//! Any bytes as a server's word about what an agent keeps, and any bytes over such words of a real server.
//!
//! Reading ends and never panics, and what was refused has changed nothing.
#![no_main]

use libfuzzer_sys::fuzz_target;
use muster::consensus::Encoded;
use muster::store::command::{CatalogOp, Command, Register};
use muster::store::model::{Check, Node, Service};
use muster::store::{State, Touched, View};

fuzz_target!(|bytes: &[u8]| {
    let servers = servers();
    let [kind, since, edits @ ..] = bytes else { return };
    let view = match kind % 3 {
        0 => View::service("web"),
        1 => View::node("n0"),
        _ => View::Names,
    };
    let mut mirror = State::mirror();
    put(&mut mirror, &view, &servers.view_since(&view, 0)).expect("our own bytes");
    // Whatever it makes of it, it goes on.
    let _ = put(&mut mirror, &view, edits);
    // Three bytes of the input say where a byte is changed and to what.
    let mut told = servers.view_since(&view, u64::from(*since)).to_vec();
    for edit in edits.chunks_exact(3) {
        let at = usize::from(u16::from_le_bytes([edit[0], edit[1]])) % told.len();
        told[at] = edit[2];
    }
    let _ = put(&mut mirror, &view, &told);
    put(&mut mirror, &view, &servers.view_since(&view, 0)).expect("our own bytes");
    assert_eq!(mirror.instances_len("web"), if *kind % 3 == 0 { 2 } else { 0 });
});

fn put(mirror: &mut State, view: &View, bytes: &[u8]) -> Result<(), ()> {
    let (index, instances) = (mirror.view_index(view), mirror.instances_len("web"));
    mirror.put_view(view, bytes, &mut Touched::new()).map_err(|_| {
        assert_eq!((index, instances), (mirror.view_index(view), mirror.instances_len("web")));
    })
}

/// A service with two instances, one of them with a check.
fn servers() -> State {
    let mut state = State::new();
    let service =
        Service { id: "one".into(), name: "web".into(), tags: vec!["a".into()], ..Service::default() };
    let check = Check { check_id: "c".into(), service_id: "one".into(), ..Check::default() };
    for (index, (name, checks)) in (2..).zip([("n0", vec![check]), ("n1", Vec::new())]) {
        let node = Node { node: name.into(), address: "10.0.0.1".into(), ..Node::default() };
        let register = Register { node, service: Some(service.clone()), checks, ..Register::default() };
        let command = Command::Catalog(CatalogOp::Register(Box::new(register)));
        state.apply(index, Encoded::of(&command).command(), &mut Touched::new());
    }
    state
}
