//! Runs a test's future on cores of both drivers, and fails the test when it panics or hangs there.

#![allow(dead_code)]

use muster::runtime::cores::{self, CoreId, Driver};
use muster::runtime::time;
use std::future::Future;
use std::time::Duration;

/// Longer than any test takes on a busy machine.
pub const HANG: Duration = Duration::from_secs(30);

/// On one core of each driver.
pub fn on_both<F: AsyncFn() + Clone + Send + 'static>(test: F) {
    for driver in [Driver::Glommio, Driver::Epoll] {
        let test = test.clone();
        on_cores(driver, 1, move |_| {
            let test = test.clone();
            async move { test().await }
        });
    }
}

/// On several cores of one driver.
pub fn on_cores<E, F>(driver: Driver, cores: usize, entry: E)
where
    E: Fn(CoreId) -> F + Clone + Send + 'static,
    F: Future<Output = ()> + 'static,
{
    let entry = move |core| -> cores::LocalBoxFuture<'static, ()> {
        let test = entry(core);
        Box::pin(async move { assert!(time::timeout(HANG, test).await.is_some(), "the test hangs") })
    };
    cores::run(driver, cores, entry).unwrap_or_else(|error| panic!("on {driver}: {error}"));
}
