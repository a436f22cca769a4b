//! What a killed server finds again.

use super::*;

#[test]
fn a_killed_server_finds_every_acknowledged_write() {
    let mut world = World::led(1);
    let lone = id(1);
    for number in 0..200 {
        assert!(done(&world.write(lone, &format!("k{number}"), "v")));
    }
    let before = world.node(lone).published.fingerprint();
    world.restart(lone);
    assert_eq!(world.node(lone).value("k0"), None, "nothing is shown before it is known to be committed");
    world.until(|world| world.leader() == Some(lone));
    assert_eq!(world.node(lone).value("k199").as_deref(), Some("v"));
    world.restart(lone);
    world.until(|world| world.leader() == Some(lone));
    let index = world.node(lone).published.index();
    assert!(done(&world.write(lone, "more", "v")));
    assert!(world.node(lone).published.index() > index);
    assert_ne!(world.node(lone).published.fingerprint(), before);
}

/// Each state that is given out has the paths to all that changes after it copied: the replay of a million keys took three seconds.
#[test]
fn a_long_log_is_replayed_without_giving_out_each_step_of_it() {
    let mut world = World::led(1);
    let lone = id(1);
    let bodies = (0..20_000).map(|number| set(&format!("k{}", number % 5000), &number.to_string()));
    let tokens: Vec<u64> = bodies.map(|body| world.propose(lone, body)).collect();
    world.until(|world| tokens.iter().all(|token| world.node(lone).answers.contains_key(token)));
    let before = world.node(lone).published.fingerprint();
    world.restart(lone);
    world.until(|world| world.leader() == Some(lone));
    assert!(world.node(lone).publications <= 3, "{}", world.node(lone).publications);
    let value = |world: &mut World| world.node(lone).value("k4999");
    assert_eq!(value(&mut world).as_deref(), Some("19999"));

    // Whoever waits meanwhile is told as soon as it is done, and not before it can be seen.
    world.restart(lone);
    let token = world.propose(lone, set("mine", "v"));
    world.until(|world| world.node(lone).answers.contains_key(&token));
    assert_eq!(world.node(lone).value("mine").as_deref(), Some("v"));
    assert_ne!(world.node(lone).published.fingerprint(), before);
}

#[test]
fn all_servers_killed_at_once_lose_nothing_that_was_acknowledged() {
    let mut world = World::led(3);
    for round in 0..5 {
        let follower = world.followers()[0];
        assert!(done(&world.write(follower, "a", &round.to_string())));
        for number in 1..=3 {
            world.restart(id(number));
        }
        world.until(|world| world.leader().is_some());
        let leader = world.leader().expect("it leads");
        assert_eq!(world.node(leader).value("a"), Some(round.to_string()));
    }
}

#[test]
fn an_operators_list_of_servers_revives_what_is_left_of_a_cluster() {
    let mut world = World::led(3);
    let leader = world.leader().expect("it leads");
    assert!(done(&world.write(leader, "a", "1")));
    let rest = world.followers()[0];
    world.until(|world| world.node(rest).value("a").is_some());
    for lost in world.nodes.keys().copied().filter(|id| *id != rest).collect::<Vec<_>>() {
        world.cut_off.insert(lost);
    }
    let now = world.now;
    let alone = Configuration::new(vec![server(rest.0[0])]);
    world.node(rest).restart(now, Some(alone.clone()));
    world.until(|world| world.leader() == Some(rest));
    assert_eq!(world.node(rest).value("a").as_deref(), Some("1"));
    assert!(done(&world.write(rest, "b", "2")));
    // It is in the log, and holds without the list.
    world.restart(rest);
    world.until(|world| world.leader() == Some(rest));
    assert_eq!(*world.node(rest).standing.configuration, alone);
    assert_eq!(world.node(rest).value("b").as_deref(), Some("2"));
}
