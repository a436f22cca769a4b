//! A core while no descriptor is left. Alone in its process: it takes them all.

mod runtime_support;

use muster::runtime::{mesh, time};
use runtime_support::on_both;
use std::fs::File;
use std::time::Duration;

const LIMIT: libc::rlim_t = 96;

/// The glommio driver duplicates its epoll descriptor to wait for it. With none left it took that for the end, and idle
/// clients could end an agent.
#[test]
fn a_core_goes_on_without_descriptors() {
    let limit = libc::rlimit { rlim_cur: LIMIT, rlim_max: LIMIT };
    // SAFETY: `limit` is live.
    assert_eq!(unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &limit) }, 0);
    on_both(async || {
        let mut held = Vec::new();
        while let Ok(file) = File::open("/dev/null") {
            held.push(file);
        }
        assert!(!held.is_empty());
        time::sleep(Duration::from_millis(20)).await;
        let (sender, receiver) = mesh::oneshot();
        std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(20));
            sender.send(7)
        });
        assert_eq!(receiver.await, Some(7), "mail is still brought");
        drop(held);
        time::sleep(Duration::from_millis(20)).await;
    });
}
