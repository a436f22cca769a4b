//! No room for the log.

use super::*;

/// A few of them fill a segment.
fn large() -> String {
    "v".repeat(200 << 10)
}

#[test]
fn a_full_disk_refuses_writes_keeps_reading_and_recovers_by_itself() {
    let mut world = World::led(1);
    let lone = id(1);
    world.run(Duration::from_millis(100));
    world.node(lone).no_space = true;
    let mut refused = None;
    for number in 0..100 {
        let outcome = world.write(lone, &format!("k{number}"), &large());
        if !done(&outcome) {
            refused = Some(outcome);
            break;
        }
    }
    assert_eq!(refused, Some(Err(ProposeError::DiskFull)));
    assert!(world.node(lone).standing.disk_full);
    let read = world.barrier(lone, Consistency::Default);
    world.until(|world| world.node(lone).barriers.get(&read) == Some(&Ok(())));
    assert_eq!(world.node(lone).value("k0"), Some(large()));
    assert_eq!(world.node(lone).fatal, None);
    world.node(lone).no_space = false;
    world.run(Duration::from_secs(2));
    assert!(!world.node(lone).standing.disk_full);
    assert!(done(&world.write(lone, "after", "v")));
    world.restart(lone);
    world.until(|world| world.leader() == Some(lone));
    assert_eq!(world.node(lone).value("after").as_deref(), Some("v"));
}

/// What fills the disk is the log itself, of few live data: there is nothing that an operator could free.
#[test]
fn a_disk_that_the_log_fills_recovers_by_itself() {
    let mut world = World::led(1);
    let lone = id(1);
    world.run(Duration::from_millis(100));
    world.node(lone).segments_max = 2;
    let mut refused = 0;
    for number in 0..60 {
        while !done(&world.write(lone, &format!("k{}", number % 5), &format!("{number}{}", large()))) {
            refused += 1;
            assert!(refused < 100, "write {number} is refused for ever");
            world.run(Duration::from_secs(1));
        }
    }
    assert!(refused > 0, "it was full");
    assert_eq!(world.node(lone).fatal, None);
    world.restart(lone);
    world.until(|world| world.leader() == Some(lone));
    for number in 55..60 {
        let key = format!("k{}", number % 5);
        assert_eq!(world.node(lone).value(&key), Some(format!("{number}{}", large())));
    }
}
