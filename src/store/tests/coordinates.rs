//! Where nodes are: written for nodes that are there, gone with them, kept in snapshots.

use super::*;
use crate::store::command::Place;

fn run(state: &mut State, command: &Command) -> Touched {
    let mut touched = Touched::new();
    apply(state, command, &mut touched);
    touched
}

fn register(state: &mut State, node: &str) {
    let node = Node { node: node.to_owned(), address: "10.0.0.1".to_owned(), ..Node::default() };
    run(state, &Command::Catalog(CatalogOp::Register(Box::new(Register { node, ..Register::default() }))));
}

fn place(node: &str, x: f64) -> Place {
    let mut parts = [0.0; 11];
    (parts[0], parts[8]) = (x, 0.5);
    Place { node: node.to_owned(), segment: String::new(), parts }
}

fn seen(state: &State) -> Vec<(String, f64)> {
    state.coordinates().map(|row| (row.node.to_string(), row.coordinate.position[0])).collect()
}

#[test]
fn coordinates_are_of_nodes_and_go_with_them() {
    let mut state = State::new();
    register(&mut state, "N1");
    register(&mut state, "n2");
    assert_eq!(state.topic_index(&Topic::Coordinates), 1);
    let touched = run(
        &mut state,
        &Command::Coordinates(vec![place("n1", 0.1), place("none", 1.0), place("n2", 1e300)]),
    );
    assert!(touched.touches(&Topic::Coordinates));
    assert_eq!(seen(&state), [("N1".to_owned(), 0.1)], "of nodes that are there, and where something can be");
    assert_eq!(state.topic_index(&Topic::Coordinates), 3);
    let nothing = run(&mut state, &Command::Coordinates(vec![place("none", 0.2)]));
    assert!(nothing.is_empty() && state.last_change(&Topic::Coordinates) == 3);
    run(&mut state, &Command::Coordinates(vec![place("N2", 0.3), place("n1", 0.2)]));
    assert_eq!(seen(&state), [("N1".to_owned(), 0.2), ("n2".to_owned(), 0.3)]);
    assert_eq!(state.coordinates_of("N2").count(), 1);

    let gone = Deregister { node: "n1".to_owned(), ..Deregister::default() };
    let touched = run(&mut state, &Command::Catalog(CatalogOp::Deregister(gone)));
    assert!(touched.touches(&Topic::Coordinates));
    assert_eq!(seen(&state), [("n2".to_owned(), 0.3)]);
}

#[test]
fn a_snapshot_keeps_them() {
    let mut state = State::new();
    register(&mut state, "n1");
    run(&mut state, &Command::Coordinates(vec![place("n1", 0.1)]));
    let rebuild = |state: &State| {
        let mut builder = StateBuilder::new();
        for section in state.sections() {
            builder.section(section.kind, section.version, &section.bytes).expect("our own");
        }
        builder.finish().expect("our own")
    };
    let again = rebuild(&state);
    assert_eq!((seen(&again), again.fingerprint()), (seen(&state), state.fingerprint()));
    let gone = Deregister { node: "n1".to_owned(), ..Deregister::default() };
    run(&mut state, &Command::Catalog(CatalogOp::Deregister(gone)));
    let again = rebuild(&state);
    assert_eq!(again.topic_index(&Topic::Coordinates), state.topic_index(&Topic::Coordinates), "never back");
}
