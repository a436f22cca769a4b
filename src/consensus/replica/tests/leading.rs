//! One server, and what it tells.

use super::*;

#[test]
fn a_write_is_durable_and_published_before_it_is_answered() {
    let mut world = World::led(1);
    let leader = id(1);
    world.node(leader).disk_speed = 0;
    let token = world.propose(leader, set("a", "1"));
    world.run(Duration::from_millis(50));
    assert_eq!(world.node(leader).value("a"), None, "nothing is known before the disk has it");
    assert!(world.node(leader).answers.is_empty());
    world.node(leader).disk_speed = usize::MAX;
    world.until(|world| world.node(leader).answers.contains_key(&token));
    assert!(done(&world.node(leader).answers[&token]));
    assert_eq!(world.node(leader).value("a").as_deref(), Some("1"));
}

#[test]
fn all_writes_of_a_step_share_one_write_of_the_disk() {
    let mut world = World::led(1);
    let leader = id(1);
    world.run(Duration::from_millis(20));
    world.node(leader).disk_speed = 0;
    for number in 0..100 {
        world.propose(leader, set(&format!("k{number}"), "v"));
    }
    world.tick();
    let writes =
        world.node(leader).requests.iter().filter(|request| matches!(request, Request::Write { .. }));
    assert_eq!(writes.count(), 1);
    world.node(leader).disk_speed = usize::MAX;
    world.until(|world| world.node(leader).answers.len() == 100);
    let indexes: Vec<u64> =
        world.node(leader).answers.values().map(|done| done.as_ref().expect("applied").index).collect();
    assert!(indexes.is_sorted(), "in the order in which they came: {indexes:?}");
}

#[test]
fn a_lone_voter_answers_reads_without_asking_and_says_so_only_when_its_state_is_ready() {
    let mut world = World::new(1);
    let lone = id(1);
    let barrier = world.barrier(lone, Consistency::Consistent);
    assert_eq!(world.node(lone).replica.lease(), None);
    let configuration = Configuration::new(vec![server(1)]);
    let bootstrap = world.admin(lone, AdminOp::Bootstrap(configuration.clone()));
    world.until(|world| world.node(lone).replica.lease() == Some(Now::MAX));
    assert_eq!(world.node(lone).admin.get(&bootstrap), Some(&Ok(())));
    world.until(|world| world.node(lone).barriers.contains_key(&barrier));
    assert_eq!(world.node(lone).barriers[&barrier], Ok(()));
    let standing = world.node(lone).standing.clone();
    assert!(standing.leads() && !standing.blank && standing.configuration_committed, "{standing:?}");
    assert_eq!(standing.leader().map(|server| server.name.as_str()), Some("s1"));
    let again = world.admin(lone, AdminOp::Bootstrap(configuration));
    world.tick();
    assert!(matches!(world.node(lone).admin.get(&again), Some(Err(AdminError::Refused(_)))));
}

#[test]
fn without_a_leader_writes_and_reads_wait_and_then_fail() {
    let mut world = World::new(1);
    let blank = id(1);
    let write = world.propose(blank, set("a", "1"));
    let read = world.barrier(blank, Consistency::Default);
    world.run(Duration::from_millis(6900));
    assert!(world.node(blank).answers.is_empty() && world.node(blank).barriers.is_empty());
    world.run(Duration::from_millis(300));
    assert_eq!(world.node(blank).answers.get(&write), Some(&Err(ProposeError::NoLeader)));
    assert_eq!(world.node(blank).barriers.get(&read), Some(&Err(ProposeError::NoLeader)));
    let move_on = world.admin(blank, AdminOp::Promote(id(9)));
    world.tick();
    assert_eq!(world.node(blank).admin.get(&move_on), Some(&Err(AdminError::NotLeader)));
}

#[test]
fn a_disk_that_fails_ends_the_server() {
    let mut world = World::led(1);
    let leader = id(1);
    world.node(leader).fails = true;
    world.propose(leader, set("a", "1"));
    world.until(|world| world.node(leader).fatal.is_some());
    assert!(world.node(leader).fatal.as_ref().is_some_and(|why| why.contains("input/output error")));
    assert!(world.node(leader).answers.is_empty(), "what is not known is not told");
    assert_eq!(world.node(leader).replica.next_deadline(), None);
}

/// Followers hear first that something is committed, and may have answered for it: the leader's own state is as fresh as that only
/// when it has applied it, too.
#[test]
fn a_lease_counts_only_for_a_state_that_holds_all_that_is_committed() {
    let mut world = World::led(1);
    let lone = id(1);
    for number in 0..3 * limits::BATCH_MAX {
        world.propose(lone, set(&format!("k{number}"), "v"));
    }
    let mut behind = 0;
    world.until(|world| {
        let replica = &world.node(lone).replica;
        let indexes = replica.indexes();
        if indexes.applied < indexes.commit {
            assert!(replica.raft().lease_until().is_some(), "Raft itself is sure");
            assert_eq!(replica.lease(), None);
            behind += 1;
        }
        world.node(lone).answers.len() == 3 * limits::BATCH_MAX
    });
    assert!(behind >= 2, "it took several batches: {behind}");
    assert_eq!(world.node(lone).replica.lease(), Some(Now::MAX));
}

/// What the leader has in its log may still be done: telling its writer after a while that the lead was lost was a lie. Where another
/// server leads, nobody knows.
#[test]
fn a_write_in_the_leaders_log_waits_for_as_long_as_it_leads() {
    let mut world = World::led(3);
    for number in 1..=3 {
        world.node(id(number)).options.hold_timeout = Duration::from_millis(300);
        world.restart(id(number));
    }
    world.until(|world| world.leader().is_some());
    let (leader, followers) = (world.leader().expect("it leads"), world.followers());
    // They answer signs of life and make nothing durable.
    followers.iter().for_each(|id| world.node(*id).disk_speed = 0);
    let here = world.propose(leader, set("a", "1"));
    let there = world.propose(followers[0], set("b", "1"));
    world.run(Duration::from_millis(700));
    assert_eq!(world.node(followers[0]).answers.get(&there), Some(&Err(ProposeError::LeadershipLost)));
    assert!(world.node(leader).answers.is_empty(), "{:?}", world.node(leader).answers);
    followers.iter().for_each(|id| world.node(*id).disk_speed = usize::MAX);
    world.until(|world| world.node(leader).answers.contains_key(&here));
    assert!(done(&world.node(leader).answers[&here]));
}
