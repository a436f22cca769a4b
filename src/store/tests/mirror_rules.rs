//! Mirrors: whatever happens to a state, one that follows it by what has changed answers as the state does.

use super::histories::command;
use super::*;
use crate::store::{MirrorError, View};
use proptest::prelude::*;

fn views() -> Vec<View> {
    let services = ["web", "DB", "none"].map(View::service);
    let nodes = ["a", "B", "c", "none"].map(View::node);
    services.into_iter().chain(nodes).chain([View::Names]).collect()
}

/// All that a mirror is asked of a view.
fn answers(state: &State, view: &View) -> String {
    let topics = match view {
        View::Service(name) => {
            vec![Topic::ServiceHealth((&**name).into()), Topic::ServiceInstances((&**name).into())]
        }
        other => vec![other.topic()],
    };
    let name = view.name();
    let rows = match view {
        View::Service(_) => {
            let all = state.instances(name).collect::<Vec<_>>();
            assert_eq!(all.len(), state.instances_len(name));
            format!("{all:?}")
        }
        View::Names => {
            let names = state.services().map(|(name, tags)| (name, tags.collect::<Vec<_>>()));
            format!("{:?}", names.collect::<Vec<_>>())
        }
        View::Node(_) => {
            format!("{:?} {:?}", state.node(name), state.node_services(name).collect::<Vec<_>>())
        }
    };
    let indexes = topics.iter().map(|topic| {
        let changed = state.last_change(topic).max(1);
        (state.topic_index(topic), changed, state.blocking_index(topic))
    });
    format!("{rows} {:?}", indexes.collect::<Vec<_>>())
}

/// Brings one view up to date, as an agent does: with everything when what it holds is not what the server thinks.
fn follow(mirror: &mut State, state: &State, view: &View, touched: &mut Touched) -> Result<(), MirrorError> {
    let bytes = state.view_since(view, mirror.view_index(view));
    match mirror.put_view(view, &bytes, touched) {
        Err(MirrorError::Disjoint) => mirror.put_view(view, &state.view_since(view, 0), touched),
        done => done,
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_mirror_answers_as_the_state_that_it_follows(
        commands in prop::collection::vec((command(), any::<u8>()), 0..60),
        restart in 0usize..60,
    ) {
        let mut state = State::new();
        let mut mirror = State::mirror();
        for (step, (command, who)) in commands.iter().enumerate() {
            apply(&mut state, command, &mut Touched::new());
            if step == restart {
                state = rebuilt(&state);
            }
            // Each view follows at its own pace: some miss many changes.
            for (place, view) in views().iter().enumerate().filter(|(place, _)| who >> place & 1 == 1) {
                let before = mirror.clone();
                let mut touched = Touched::new();
                let bytes = state.view_since(view, mirror.view_index(view));
                let put = mirror.put_view(view, &bytes, &mut touched);
                prop_assert_eq!(put, Ok(()), "one history needs no second question");
                prop_assert!(mirror.holds(view));
                prop_assert_eq!(answers(&mirror, view), answers(&state, view), "{:?}", view);
                let moved = before.view_index(view) != mirror.view_index(view);
                prop_assert_eq!(touched.touches(&view.topic()), moved);
                if answers(&before, view) != answers(&mirror, view) {
                    prop_assert!(mirror.index() > before.index());
                }
                for (other, view) in views().iter().enumerate().filter(|(other, _)| *other != place) {
                    prop_assert_eq!(answers(&before, view), answers(&mirror, view));
                    prop_assert!(!touched.touches(&view.topic()), "{} is not {}", other, place);
                }
            }
        }
    }

    #[test]
    fn a_mirror_of_one_history_finds_out_that_it_is_in_another(
        ours in prop::collection::vec(command(), 0..40),
        theirs in prop::collection::vec(command(), 0..40),
    ) {
        let mut one = State::new();
        ours.iter().for_each(|command| { apply(&mut one, command, &mut Touched::new()); });
        let mut other = State::new();
        theirs.iter().for_each(|command| { apply(&mut other, command, &mut Touched::new()); });
        for view in views() {
            let mut mirror = State::mirror();
            follow(&mut mirror, &one, &view, &mut Touched::new()).expect("it is well formed");
            let index = mirror.view_index(&view);
            follow(&mut mirror, &other, &view, &mut Touched::new()).expect("it is well formed");
            // Rows that differ in nothing but what is in them look alike; an agent is told of another cluster besides.
            if index != mirror.view_index(&view) {
                let places = |state: &State| {
                    let all = state.instances(view.name());
                    all.map(|it| (it.node.modify_index, it.service.modify_index)).collect::<Vec<_>>()
                };
                prop_assert_eq!(places(&mirror), places(&other));
            }
        }
    }

    #[test]
    fn bytes_that_are_no_view_are_refused(
        commands in prop::collection::vec(command(), 0..20),
        place in any::<prop::sample::Index>(),
        bit in 0u32..8,
    ) {
        let mut state = State::new();
        commands.iter().for_each(|command| { apply(&mut state, command, &mut Touched::new()); });
        for view in views() {
            let mut bytes = state.view_since(&view, 0);
            let at = place.index(bytes.len());
            bytes[at] ^= 1 << bit;
            let mut mirror = State::mirror();
            // Whatever it makes of it, it goes on.
            let _ = mirror.put_view(&view, &bytes, &mut Touched::new());
            let cut = state.view_since(&view, 0);
            let _ = mirror.put_view(&view, &cut[..at], &mut Touched::new());
            let whole = state.view_since(&view, 0);
            prop_assert_eq!(mirror.put_view(&view, &whole, &mut Touched::new()), Ok(()));
            prop_assert_eq!(answers(&mirror, &view), answers(&state, &view));
        }
    }
}

#[test]
fn a_flip_brings_one_row_and_a_departure_the_list_of_those_that_stay() {
    let mut bench = Bench::new();
    for number in 0..100 {
        let name = format!("n{number}");
        bench.register(with_service(&name, "web", "web", &[]));
        bench.register(with_check(&name, check("serfHealth", "", Status::Passing)));
        bench.register(with_check(&name, check("c1", "web", Status::Passing)));
    }
    let view = View::service("web");
    let whole = bench.state.view_since(&view, 0).len();
    let mut mirror = State::mirror();
    let mut catch_up = |bench: &Bench| {
        let bytes = bench.state.view_since(&view, mirror.view_index(&view));
        mirror.put_view(&view, &bytes, &mut Touched::new()).unwrap();
        assert_eq!(answers(&mirror, &view), answers(&bench.state, &view));
        bytes.len()
    };
    assert_eq!(catch_up(&bench), whole);
    bench.register(with_check("n7", check("c1", "web", Status::Critical)));
    let flip = catch_up(&bench);
    assert!(flip < 1024, "{flip} of {whole} bytes");
    bench.deregister("n8", "", "c1");
    assert!(catch_up(&bench) < 1024);
    bench.deregister("n9", "web", "");
    let departure = catch_up(&bench);
    assert!(departure < whole / 10, "{departure} of {whole} bytes");
}

#[test]
fn a_view_that_is_dropped_is_unknown_and_wakes_who_waits_on_it() {
    let mut bench = Bench::new();
    bench.register(with_service("a", "web", "web", &[]));
    let (view, absent) = (View::service("WEB"), View::service("nothing"));
    let mut mirror = State::mirror();
    for view in [&view, &absent] {
        assert!(!mirror.holds(view) && bench.state.holds(view));
        follow(&mut mirror, &bench.state, view, &mut Touched::new()).unwrap();
        assert!(mirror.holds(view) && mirror.view_index(view) >= 1);
    }
    assert!(mirror.is_empty_view(&absent) && !mirror.is_empty_view(&view));
    let mut touched = Touched::new();
    mirror.drop_view(&view, &mut touched);
    assert!(touched.touches(&view.topic()) && !mirror.holds(&view) && mirror.view_index(&view) == 0);
    assert_eq!(mirror.instances("web").count(), 0);
}
