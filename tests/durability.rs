//! What was acknowledged stays, whatever happens to the servers: real processes, killed with SIGKILL, while clients read
//! and write and write down what they saw. The checkers of `tools/histories` judge what they wrote down.
//!
//! `MUSTER_DURABILITY_SECONDS` is how long the histories are (20 if not given; minutes show more),
//! `MUSTER_DURABILITY_SEED` repeats the choices of a run (not its timing), `MUSTER_GOLDEN_BINARY` judges another program,
//! `MUSTER_TEST_RUNTIME` picks the driver.

#[path = "durability/chaos.rs"]
mod chaos;
#[path = "durability/client.rs"]
mod client;
#[path = "durability/cluster.rs"]
mod cluster;
#[path = "durability/disks.rs"]
mod disks;
mod support;
#[path = "durability/verdict.rs"]
mod verdict;
#[path = "durability/watches.rs"]
mod watches;

use chaos::Plan;

/// Three servers: one, two or all of them are killed and come back, again and again, or one is stopped for a while.
#[test]
fn three_servers_lose_nothing_and_show_nothing_stale() {
    chaos::run(&Plan {
        servers: 3,
        clients: 8,
        kills_min: 6,
        kills_of_all_min: 1,
        pauses_min: 1,
        ..Plan::new("three")
    });
}

/// One server: every kill is a kill of all.
#[test]
fn one_server_loses_nothing() {
    chaos::run(&Plan { servers: 1, clients: 4, kills_min: 5, kills_of_all_min: 5, ..Plan::new("one") });
}
