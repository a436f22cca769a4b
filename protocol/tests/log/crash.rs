//! The power goes, or the process is killed, at every request of a workload: every promise must be kept, and the log must go on.

use std::ops::ControlFlow;

use crate::disk::Random;
use crate::world::World;

/// How many workloads, crashes of each kind per request; widened by `MUSTER_CRASH_WORKLOADS`.
fn workloads() -> u64 {
    std::env::var("MUSTER_CRASH_WORKLOADS").ok().and_then(|text| text.parse().ok()).unwrap_or(3)
}

#[test]
fn a_log_without_crashes_gives_back_what_it_was_given() {
    for seed in 0..8 {
        let mut world = World::new(seed, false);
        let _ = world.run(200, &mut |_, _, _| ControlFlow::Continue(()));
        let again = World::open(world.disk.clone(), world.promises.clone(), seed, false)
            .expect("nothing was damaged");
        assert_eq!(again.notes, Vec::<String>::new(), "a clean stop needs no repair");
        assert_eq!(again.log.last_index(), world.log.last_index());
        let snapshots =
            world.disk.names().iter().filter(|name| name.to_string().starts_with("snapshot")).count();
        assert!(snapshots <= 2, "nothing is left over: {:?}", world.disk.names());
    }
}

#[test]
fn every_promise_survives_a_crash_at_every_request() {
    let mut points = 0;
    for seed in 0..workloads() {
        let mut world = World::new(seed, seed % 2 == 1);
        let peers = seed % 2 == 1;
        let mut random = Random(seed ^ 0xc4a5);
        let _ = world.run(120, &mut |disk, promises, request| {
            for _ in 0..3 {
                points += 1;
                let left = match random.one_in(4) {
                    true => disk.kill(request, &mut random),
                    false => disk.cut_power(request, &mut random),
                };
                let opened = World::open(left, promises.clone(), random.next(), peers);
                let mut world =
                    opened.unwrap_or_else(|refused| panic!("seed {seed}: {request:?}: {refused}"));
                assert_eq!(world.repair_until, 0);
                let notes = format!(
                    "{:?} {:?} first {} base {:?}",
                    world.notes,
                    world.disk.names(),
                    world.log.first_index(),
                    world.log.snapshot()
                );
                // Go on, and crash once more somewhere.
                let mut left = random.below(40);
                let mut then = Random(random.next());
                let _ = world.run(6, &mut |disk, promises, request| {
                    if left > 0 {
                        left -= 1;
                        return ControlFlow::Continue(());
                    }
                    points += 1;
                    let left = disk.cut_power(request, &mut then);
                    let opened = World::open(left, promises.clone(), then.next(), peers);
                    opened.unwrap_or_else(|refused| {
                        panic!(
                            "seed {seed}: second crash: {request:?}: {refused} {:?} {notes:?}",
                            disk.names()
                        )
                    });
                    ControlFlow::Break(())
                });
            }
            ControlFlow::Continue(())
        });
    }
    println!("{points} crash points");
}
