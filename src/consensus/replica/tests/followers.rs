//! Followers that lag, and what their leader sends them.

use super::*;

/// Cuts a follower off while the leader writes so many values of 400 KiB.
fn lagging(world: &mut World, values: usize) -> (ServerId, ServerId) {
    let (leader, behind) = (world.leader().expect("it leads"), world.followers()[0]);
    world.cut_off.insert(behind);
    for number in 0..values {
        assert!(done(&world.write(leader, &format!("k{}", number % 4), &"v".repeat(400 << 10))));
    }
    assert!(done(&world.write(leader, "last", "v")));
    world.cut_off.clear();
    (leader, behind)
}

/// Indexes of the entries on their way to a server.
fn flying_to(world: &World, to: ServerId) -> Vec<u64> {
    let to_it = world.flying.iter().filter(|(_, receiver, _)| *receiver == to);
    let entries = to_it.flat_map(|(.., message)| match message {
        PeerMessage::Raft(raft::Message::Append(append)) => append.entries.as_slice(),
        _ => &[],
    });
    entries.map(|entry| entry.index).collect()
}

fn with_limits(servers: u8, change: impl Fn(&mut raft::Limits)) -> World {
    let mut world = World::led(servers);
    for number in 1..=servers {
        change(&mut world.node(id(number)).options.raft.limits);
        world.restart(id(number));
    }
    world.until(|world| world.leader().is_some());
    world
}

/// A quick leader and a quick disk brought entries much faster than a slow processor could apply them, all of them in memory.
#[test]
fn a_follower_takes_no_more_than_it_can_apply() {
    const LIMIT: u64 = 4 << 20;
    let mut world = with_limits(3, |limits| limits.backlog_bytes = LIMIT);
    let (_, behind) = lagging(&mut world, 60);
    let (mut most, mut sent) = (0, Vec::new());
    world.until(|world| {
        sent.extend(flying_to(world, behind));
        let replica = &world.node(behind).replica;
        most = most.max(replica.raft().committed_bytes_after(replica.indexes().applied));
        world.node(behind).value("last").is_some()
    });
    assert!((LIMIT / 2..LIMIT + (1 << 20)).contains(&most), "{most} bytes waited to be applied");
    let mut once = sent.clone();
    once.sort_unstable();
    once.dedup();
    assert!(sent.len() < once.len() * 3, "{} entries were sent for {}", sent.len(), once.len());
}

/// A read from the disk that ended early left a gap: what was queued behind it was refused, and found anew entry by entry.
#[test]
fn what_a_short_read_leaves_out_is_sent_next() {
    let mut world = with_limits(3, |limits| limits.message_bytes = 2 << 20);
    let (leader, behind) = lagging(&mut world, 60);
    assert!(world.node(leader).replica.cache.get(10).is_none(), "the first ones come from the disk");
    let (mut sent, mut refused) = (Vec::new(), 0);
    world.until(|world| {
        sent.extend(flying_to(world, behind));
        let replies = world.flying.iter().filter(|(from, _, message)| {
            let outcome = match message {
                PeerMessage::Raft(raft::Message::AppendReply(reply)) => Some(reply.outcome),
                _ => None,
            };
            *from == behind && matches!(outcome, Some(raft::Outcome::Rejected { .. }))
        });
        refused += replies.count();
        world.node(behind).value("last").is_some()
    });
    assert!(refused <= 1, "where the logs agree is found out once, not {refused} times");
    assert!(sent.is_sorted_by(|one, next| one < next), "each once and in order: {sent:?}");
}
