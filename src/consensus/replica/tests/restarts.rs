//! What a killed server finds again.

use muster_protocol::log::OnDamage;
use muster_protocol::rpc::message::{ForwardAnswer, ForwardOutcome, Forwarded};

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

/// A write or a question that reached a server while it put its log in order was swallowed, and its sender waited for the whole of
/// its patience.
#[test]
fn who_asks_a_server_that_is_starting_is_told_to_ask_again() {
    let mut world = World::led(3);
    let (old, follower) = (world.leader().expect("it leads"), world.followers()[0]);
    world.restart(old);
    world.node(old).disk_speed = 0;
    for message in [
        PeerMessage::Forward(vec![Forwarded { token: 7, body: set("a", "1") }]),
        PeerMessage::ReadIndex { token: 8, consistent: true },
    ] {
        world.node(old).inputs.push(Input::Peer { from: follower, message });
    }
    world.tick();
    assert!(!world.node(old).replica.has_started());
    let answers: Vec<&PeerMessage> =
        world.flying.iter().filter(|(from, ..)| *from == old).map(|(.., message)| message).collect();
    let not_here = ForwardAnswer { token: 7, outcome: ForwardOutcome::NotLeader };
    assert!(answers.contains(&&PeerMessage::ForwardAnswers(vec![not_here])), "{answers:?}");
    assert!(answers.contains(&&PeerMessage::ReadIndexAnswer { token: 8, index: None }), "{answers:?}");
}

/// An answer that was under way when the process was killed could be taken for that to the first write of the next life.
#[test]
fn each_life_has_its_own_numbers() {
    let mut world = World::led(3);
    let follower = world.followers()[0];
    let forwarded = |world: &mut World| {
        world.until(|world| world.leader().is_some() && world.node(follower).replica.leader().is_some());
        world.propose(follower, set("a", "1"));
        world.barrier(follower, Consistency::Consistent);
        let mut tokens = Vec::new();
        world.until(|world| {
            for (from, _, message) in &world.flying {
                match message {
                    PeerMessage::Forward(writes) if *from == follower => tokens.push(writes[0].token),
                    PeerMessage::ReadIndex { token, .. } if *from == follower => tokens.push(*token),
                    _ => {}
                }
            }
            tokens.len() >= 2
        });
        tokens
    };
    let first = forwarded(&mut world);
    world.node(follower).options.raft.seed = 77;
    world.restart(follower);
    let second = forwarded(&mut world);
    assert!(second.iter().all(|token| !first.contains(token)), "{first:?} {second:?}");
}

/// The only voter's log was lost and the operator had accepted that: it waited for a leader for ever.
#[test]
fn the_only_voter_begins_anew_when_its_log_is_given_up() {
    let mut world = World::led(1);
    let lone = id(1);
    assert!(done(&world.write(lone, "a", "1")));
    let term = world.node(lone).standing.term;
    world.restart(lone);
    let now = world.now;
    let node = world.node(lone);
    let mut files = node.memory.files();
    for file in files.iter_mut().filter(|file| matches!(file.name, FileName::Segment(_))) {
        file.bytes = vec![0; file.bytes.len()].into();
    }
    let options = log::Options { on_damage: OnDamage::AcceptLoss, ..recovery(lone) };
    let recovered = recover(options, files).expect("the loss is accepted");
    let start = Start { recovered, state: State::new(), forced: None };
    node.replica = Replica::start(now, node.options.clone(), start);
    let several = world.admin(lone, AdminOp::Bootstrap(Configuration::new(vec![server(1), server(2)])));
    world.until(|world| world.node(lone).admin.contains_key(&several));
    let refused = &world.node(lone).admin[&several];
    assert!(matches!(refused, Err(AdminError::Refused(why)) if why.contains("its leader")), "{refused:?}");
    assert!(world.node(lone).standing.blank && world.node(lone).standing.term >= term);
    let alone = world.admin(lone, AdminOp::Bootstrap(Configuration::new(vec![server(1)])));
    world.until(|world| world.leader() == Some(lone));
    assert_eq!(world.node(lone).admin.get(&alone), Some(&Ok(())));
    assert!(world.node(lone).standing.term > term, "no term is used twice");
    assert!(done(&world.write(lone, "b", "2")));
    assert_eq!(world.node(lone).value("a"), None);
}

/// An operator's list went into the log in a term that a lost server's log may have had, too.
#[test]
fn an_operators_list_has_a_term_of_its_own() {
    let mut world = World::led(3);
    let (rest, now) = (world.followers()[0], world.now);
    let last = world.node(rest).replica.indexes();
    let alone = Configuration::new(vec![server(rest.0[0])]);
    world.node(rest).restart(now, Some(alone));
    let others: Vec<ServerId> = world.nodes.keys().copied().filter(|id| *id != rest).collect();
    world.cut_off.extend(others);
    world.until(|world| world.node(rest).replica.has_started());
    let forced = world.node(rest).replica.cache.get(last.last + 1).expect("its entry").term;
    assert!(forced >= last.last_term + super::super::limits::FORCED_TERM_LEAP, "{forced}");
    world.until(|world| world.leader() == Some(rest));
    assert!(world.node(rest).standing.term > forced);
}
