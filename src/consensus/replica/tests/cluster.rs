//! Several servers: forwarding, reads elsewhere than at the leader, changes of the lead.

use super::*;

#[test]
fn a_write_anywhere_is_seen_where_it_was_written_when_it_is_answered() {
    let mut world = World::led(3);
    let follower = world.followers()[0];
    assert!(done(&world.write(follower, "a", "1")));
    assert_eq!(world.node(follower).value("a").as_deref(), Some("1"));
    let leader = world.leader().expect("it leads on");
    assert!(done(&world.write(leader, "a", "2")));
    world.until(|world| world.nodes.values().all(|node| node.value("a").as_deref() == Some("2")));
    let states: BTreeSet<u64> = world.nodes.values().map(|node| node.published.fingerprint()).collect();
    assert_eq!(states.len(), 1, "all states are the same");
}

#[test]
fn a_forwarded_write_takes_two_round_trips() {
    let mut world = World::led(3);
    let follower = world.followers()[0];
    assert!(done(&world.write(follower, "warm", "up")));
    let began = world.now;
    assert!(done(&world.write(follower, "a", "1")));
    // There, append, acknowledgement, commit: four flights, and the disk of a majority.
    assert!(world.now - began <= TICK * 7, "{:?}", world.now - began);
}

#[test]
fn reads_on_a_follower_hold_all_that_was_acknowledged_before() {
    for consistency in [Consistency::Default, Consistency::Consistent] {
        let mut world = World::led(3);
        let (leader, follower) = (world.leader().expect("it leads"), world.followers()[0]);
        for number in 0..20 {
            let value = number.to_string();
            assert!(done(&world.write(leader, "a", &value)));
            let read = world.barrier(follower, consistency);
            world.until(|world| world.node(follower).barriers.contains_key(&read));
            assert_eq!(world.node(follower).barriers[&read], Ok(()));
            assert_eq!(world.node(follower).value("a"), Some(value));
        }
    }
}

#[test]
fn a_leader_that_is_cut_off_confirms_no_reads_and_loses_no_write_of_the_next() {
    let mut world = World::led(3);
    let old = world.leader().expect("it leads");
    world.cut_off.insert(old);
    let write = world.propose(old, set("a", "old"));
    let read = world.barrier(old, Consistency::Consistent);
    world.until(|world| world.leader().is_some());
    assert!(!world.node(old).barriers.contains_key(&read), "it cannot know");
    let new = world.leader().expect("another leads");
    assert!(done(&world.write(new, "a", "new")));
    world.cut_off.clear();
    world.until(|world| world.node(old).answers.contains_key(&write));
    assert_eq!(world.node(old).answers[&write], Err(ProposeError::LeadershipLost));
    world.until(|world| world.node(old).barriers.contains_key(&read));
    assert_eq!(
        world.node(old).value("a").as_deref(),
        Some("new"),
        "a read that passes sees what is acknowledged"
    );
}

#[test]
fn a_write_that_waits_for_a_leader_is_handed_to_the_next() {
    let mut world = World::led(3);
    let (old, follower) = (world.leader().expect("it leads"), world.followers()[0]);
    world.cut_off.insert(old);
    // The follower learns that there is no leader any more, and only then takes the write in.
    world.until(|world| world.node(follower).replica.leader().is_none());
    assert!(done(&world.write(follower, "a", "1")));
}

#[test]
fn a_write_that_no_link_took_is_tried_again() {
    let mut world = World::led(3);
    let follower = world.followers()[0];
    let token = world.propose(follower, set("a", "1"));
    world.tick();
    let (_, to, message) = world.flying.pop_back().expect("it is on its way");
    assert!(matches!(message, PeerMessage::Forward(_)));
    world.node(follower).inputs.push(Input::Unsent { to, message });
    world.until(|world| world.node(follower).answers.contains_key(&token));
    assert!(done(&world.node(follower).answers[&token]));
}

#[test]
fn a_write_whose_link_broke_may_or_may_not_be_done() {
    let mut world = World::led(3);
    let (leader, follower) = (world.leader().expect("it leads"), world.followers()[0]);
    let token = world.propose(follower, set("a", "1"));
    world.tick();
    world.node(follower).inputs.push(Input::PeerLost(leader));
    world.tick();
    assert_eq!(world.node(follower).answers.get(&token), Some(&Err(ProposeError::LeadershipLost)));
}

#[test]
fn the_lead_is_handed_over_without_losing_a_write() {
    let mut world = World::led(3);
    let (old, heir) = (world.leader().expect("it leads"), world.followers()[1]);
    let mut tokens = Vec::new();
    let transfer = world.admin(old, AdminOp::Transfer(Some(heir)));
    for number in 0..50 {
        tokens.push(world.propose(old, set(&format!("k{number}"), "v")));
        world.tick();
    }
    world.until(|world| world.leader() == Some(heir));
    world.until(|world| world.node(old).answers.len() == tokens.len());
    assert!(world.node(old).answers.values().all(done), "{:?}", world.node(old).answers);
    assert_eq!(world.node(old).admin.get(&transfer), Some(&Ok(())));
}

#[test]
fn a_follower_with_a_slow_disk_holds_nobody_up() {
    let mut world = World::led(3);
    let (leader, slow) = (world.leader().expect("it leads"), world.followers()[0]);
    assert!(done(&world.write(leader, "warm", "up")));
    world.node(slow).disk_speed = 0;
    let began = world.now;
    for number in 0..100 {
        assert!(done(&world.write(leader, "a", &number.to_string())));
    }
    assert!(world.now - began <= TICK * 600, "{:?}", world.now - began);
    world.node(slow).disk_speed = usize::MAX;
    world.until(|world| world.node(slow).value("a").as_deref() == Some("99"));
}

#[test]
fn a_leader_whose_disk_stalls_hands_over_within_two_seconds() {
    let mut world = World::led(3);
    let stalled = world.leader().expect("it leads");
    world.node(stalled).disk_speed = 0;
    world.propose(stalled, set("a", "1"));
    let began = world.now;
    world.until(|world| world.leader().is_some_and(|leader| leader != stalled));
    assert!(world.now - began <= Duration::from_secs(2), "{:?}", world.now - began);
}

/// It leads no more by the time that it has done what it was told.
#[test]
fn a_leader_that_removes_itself_says_that_it_is_done() {
    let mut world = World::led(3);
    let leader = world.leader().expect("it leads");
    let token = world.admin(leader, AdminOp::RemoveServer(leader));
    world.until(|world| world.node(leader).admin.contains_key(&token));
    assert_eq!(world.node(leader).admin[&token], Ok(()));
    world.until(|world| world.leader().is_some_and(|next| next != leader));
}

#[test]
fn servers_are_added_promoted_and_removed() {
    let mut world = World::led(3);
    world.nodes.insert(id(4), Node::new(4));
    let leader = world.leader().expect("it leads");
    let learner = Server { suffrage: Suffrage::Learner, ..server(4) };
    let ops = [AdminOp::AddServer(learner), AdminOp::Promote(id(4)), AdminOp::RemoveServer(id(4))];
    for (number, op) in ops.into_iter().enumerate() {
        // A learner gets no vote before it follows the log.
        let mut token = world.admin(leader, op.clone());
        world.until(|world| match world.node(leader).admin.get(&token) {
            Some(Err(_)) => {
                token = world.admin(leader, op.clone());
                false
            }
            done => done.is_some(),
        });
        assert!(done(&world.write(leader, "a", &number.to_string())));
        world.until(|world| world.node(id(4)).value("a").is_some());
    }
    assert!(world.node(leader).standing.configuration.server(id(4)).is_none());
}
