//! Snapshots: of the own state, and those that come from the leader.

use muster_protocol::entry;
use muster_protocol::log::{SnapshotEncoder, SnapshotMeta};
use muster_protocol::rpc::message::SnapshotChunk;

use super::*;

fn fill(world: &mut World, at: ServerId, count: usize) {
    let tokens: Vec<u64> =
        (0..count).map(|number| world.propose(at, set(&format!("k{number}"), &"v".repeat(1000)))).collect();
    world.until(|world| tokens.iter().all(|token| world.node(at).answers.contains_key(token)));
    assert!(world.node(at).answers.values().all(done));
    world.node(at).answers.clear();
}

/// Two of them: the log keeps what the older one needs.
fn snapshots(world: &mut World, at: ServerId) {
    snapshot(world, at);
    fill(world, at, 20);
    snapshot(world, at);
}

fn snapshot(world: &mut World, at: ServerId) {
    let token = world.admin(at, AdminOp::Snapshot);
    world.until(|world| world.node(at).admin.contains_key(&token));
    assert_eq!(world.node(at).admin[&token], Ok(()));
}

#[test]
fn a_snapshot_is_taken_while_writes_go_on_and_carries_over_a_restart() {
    let mut world = World::led(1);
    let lone = id(1);
    fill(&mut world, lone, 5000);
    let token = world.admin(lone, AdminOp::Snapshot);
    world.node(lone).disk_speed = 1;
    let mut written = 0;
    while !world.node(lone).admin.contains_key(&token) {
        assert!(done(&world.write(lone, "during", &written.to_string())));
        written += 1;
    }
    assert!(written > 3, "writes went on: {written}");
    let held = world.node(lone).standing.snapshot_index;
    assert!(held > 5000);
    world.node(lone).disk_speed = usize::MAX;
    world.restart(lone);
    assert!(world.node(lone).value("k0").is_some(), "the snapshot's state is there at once");
    world.until(|world| world.leader() == Some(lone));
    assert_eq!(world.node(lone).value("during"), Some((written - 1).to_string()));
    assert_eq!(world.node(lone).standing.snapshot_index, held);
}

#[test]
fn snapshots_come_by_themselves_when_the_log_has_grown() {
    let mut world = World::new(1);
    let lone = id(1);
    world.node(lone).options.snapshot_threshold = 100;
    world.restart(lone);
    let configuration = Configuration::new(vec![server(1)]);
    world.admin(lone, AdminOp::Bootstrap(configuration));
    world.until(|world| world.leader() == Some(lone));
    fill(&mut world, lone, 300);
    world.until(|world| world.node(lone).standing.snapshot_index > 200);
    let before = world.node(lone).published.fingerprint();
    world.restart(lone);
    world.until(|world| world.leader() == Some(lone));
    assert_eq!(world.node(lone).value("k299").map(|value| value.len()), Some(1000));
    assert_ne!(before, 0);
}

#[test]
fn it_is_looked_at_intervals_whether_a_snapshot_is_due() {
    let mut world = World::new(1);
    let lone = id(1);
    world.node(lone).options.snapshot_threshold = 100;
    world.node(lone).options.snapshot_interval = Duration::from_secs(30);
    world.restart(lone);
    world.admin(lone, AdminOp::Bootstrap(Configuration::new(vec![server(1)])));
    world.until(|world| world.leader() == Some(lone));
    fill(&mut world, lone, 300);
    world.run(Duration::from_secs(20));
    assert_eq!(world.node(lone).standing.snapshot_index, 0);
    // Nothing is written any more, and still its time comes.
    world.run(Duration::from_secs(11));
    let taken = world.node(lone).standing.snapshot_index;
    assert!(taken > 300);
    // A burst does not wait for it.
    fill(&mut world, lone, 1700);
    world.run(Duration::from_secs(1));
    assert!(world.node(lone).standing.snapshot_index > taken + 1500);
}

#[test]
fn a_server_that_is_far_behind_gets_a_snapshot_in_chunks() {
    let mut world = World::led(3);
    let (leader, behind) = (world.leader().expect("it leads"), world.followers()[0]);
    world.cut_off.insert(behind);
    fill(&mut world, leader, 5000);
    snapshots(&mut world, leader);
    fill(&mut world, leader, 20);
    world.cut_off.clear();
    let mut chunks = 0;
    world.until(|world| {
        let flying = world.flying.iter();
        chunks += flying.filter(|(.., message)| matches!(message, PeerMessage::SnapshotChunk(_))).count();
        world.node(behind).value("k0").is_some()
    });
    assert!(chunks > 10, "{chunks}");
    assert!(world.node(behind).touched.is_all());
    assert!(done(&world.write(behind, "after", "v")));
    let leader = world.leader().expect("somebody leads");
    world.until(|world| {
        world.node(behind).published.fingerprint() == world.node(leader).published.fingerprint()
    });
    world.restart(behind);
    world.until(|world| world.node(behind).value("after").is_some());
}

#[test]
fn a_transfer_goes_on_where_it_broke_off() {
    let mut world = World::led(3);
    let (leader, behind) = (world.leader().expect("it leads"), world.followers()[0]);
    world.cut_off.insert(behind);
    fill(&mut world, leader, 9000);
    snapshots(&mut world, leader);
    world.cut_off.clear();
    let mut highest = 0;
    let offset = |message: &PeerMessage| match message {
        PeerMessage::SnapshotChunk(chunk) => Some((chunk.offset, chunk.total)),
        _ => None,
    };
    world.until(|world| {
        let seen = world.flying.iter().filter_map(|(.., message)| offset(message));
        highest = highest.max(seen.map(|(offset, _)| offset).max().unwrap_or(0));
        highest > 2 << 20
    });
    world.cut_off.insert(behind);
    world.node(leader).inputs.push(Input::PeerLost(behind));
    world.run(Duration::from_secs(2));
    world.cut_off.clear();
    let mut lowest = u64::MAX;
    world.until(|world| {
        let seen = world.flying.iter().filter_map(|(.., message)| offset(message));
        lowest = lowest.min(seen.map(|(offset, _)| offset).min().unwrap_or(u64::MAX));
        world.node(behind).value("k0").is_some()
    });
    assert!(lowest > 1 << 20, "it did not begin anew: {lowest}");
}

/// A transfer whose sender was gone stood in the way of this server's own snapshots for ever, and its log grew.
#[test]
fn a_transfer_that_nobody_goes_on_with_is_given_up() {
    let mut world = World::led(3);
    let (leader, behind) = (world.leader().expect("it leads"), world.followers()[0]);
    fill(&mut world, leader, 20);
    world.until(|world| world.node(behind).value("k0").is_some());
    world.cut_off.insert(behind);
    fill(&mut world, leader, 9000);
    snapshots(&mut world, leader);
    world.cut_off.clear();
    world.until(|world| world.node(behind).replica.receiving.is_some());
    world.cut_off.insert(behind);
    let token = world.admin(behind, AdminOp::Snapshot);
    world.run(limits::SNAPSHOT_SILENCE_MAX - Duration::from_secs(1));
    assert_eq!(world.node(behind).admin.get(&token), None, "the leader may go on");
    world.until(|world| world.node(behind).admin.contains_key(&token));
    assert_eq!(world.node(behind).admin[&token], Ok(()));
    // And from the leader it comes anew.
    world.cut_off.clear();
    world.until(|world| world.node(behind).value("k8999").is_some());
}

/// What a leader's snapshot says of itself is not known before all of it has come.
#[test]
fn a_snapshot_that_contradicts_itself_is_not_used() {
    let mut world = World::led(3);
    let (leader, follower) = (world.leader().expect("it leads"), world.followers()[0]);
    let term = world.node(leader).standing.term;
    let meta = SnapshotMeta {
        index: 900,
        term,
        configuration_index: 901,
        configuration: Configuration::new(vec![server(1)]),
        state_version: 1,
    };
    let term_now = term;
    let (mut encoder, header) = SnapshotEncoder::new(&meta);
    let mut file = header.to_vec();
    for Section { kind, version, bytes } in world.node(leader).published.sections() {
        let pieces = encoder.section(kind, version, entry::body(bytes));
        pieces.into_iter().for_each(|piece| file.extend_from_slice(&piece));
    }
    file.extend_from_slice(&encoder.finish());
    let chunk = |term| SnapshotChunk {
        leader_term: term_now,
        term,
        index: 900,
        total: file.len() as u64,
        offset: 0,
        data: file.clone().into(),
    };
    for message in [chunk(term + 1), chunk(term)] {
        let message = PeerMessage::SnapshotChunk(message);
        world.node(follower).inputs.push(Input::Peer { from: leader, message });
    }
    world.until(|world| {
        world.node(follower).logged.iter().any(|line| line.contains("those of a later index"))
    });
    assert!(world.node(follower).replica.receiving.is_none());
    assert!(done(&world.write(follower, "after", "v")));
}
