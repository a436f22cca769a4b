//! Tasks, timers, mesh and blocking jobs, on both drivers.

mod runtime_support;

use muster::runtime::cores::{self, CoreId, Driver, PerCore, Shutdown};
use muster::runtime::{blocking, mesh, task, time};
use runtime_support::{on_both, on_cores};
use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

const MS: Duration = Duration::from_millis(1);

#[test]
fn timers_fire_in_order_and_never_early() {
    on_both(async || {
        let order = Rc::new(RefCell::new(Vec::new()));
        let tasks: Vec<_> = [30u32, 10, 20, 60, 1]
            .into_iter()
            .map(|ms| {
                let order = order.clone();
                task::spawn(async move {
                    let start = time::now();
                    time::sleep(ms * MS).await;
                    assert!(start.elapsed() >= ms * MS);
                    order.borrow_mut().push(ms);
                })
            })
            .collect();
        for task in tasks {
            task.await.expect("no task panics");
        }
        assert_eq!(*order.borrow(), [1, 10, 20, 30, 60]);
    });
}

#[test]
fn a_timeout_ends_what_does_not_end_and_keeps_what_does() {
    on_both(async || {
        assert_eq!(time::timeout(5 * MS, std::future::pending::<()>()).await, None);
        assert_eq!(time::timeout(5000 * MS, async { 7 }).await, Some(7));
        assert_eq!(time::timeout(Duration::MAX, time::sleep(MS)).await, Some(()));
    });
}

#[test]
fn a_cancelled_sleep_leaves_nothing_behind() {
    on_both(async || {
        for _ in 0..10_000 {
            assert_eq!(time::timeout(Duration::ZERO, time::sleep(3_600_000 * MS)).await, None);
        }
        time::sleep(2 * MS).await;
    });
}

/// A core is pinned to one CPU, and took that for all that there are.
#[test]
fn a_core_knows_all_the_cpus_of_its_process() {
    let all = cores::available();
    for driver in [Driver::Epoll, Driver::Glommio] {
        on_cores(driver, 2, move |_| async move { assert_eq!(cores::available(), all) });
    }
}

#[test]
fn a_panic_ends_its_task_only() {
    on_both(async || {
        let task = task::spawn(async { panic!("on purpose") });
        assert_eq!(task.await, None::<()>);
        task::spawn(async { panic!("detached, on purpose") }).detach();
        task::yield_now().await;
        assert_eq!(task::spawn(async { 3 }).await, Some(3));
    });
}

#[test]
fn dropping_a_task_cancels_it_and_detaching_does_not() {
    on_both(async || {
        let alive = Rc::new(());
        let held = alive.clone();
        let cancelled = task::spawn(async move {
            let _held = held;
            std::future::pending::<()>().await;
        });
        task::yield_now().await;
        drop(cancelled);
        let ended = Rc::new(Cell::new(false));
        let flag = ended.clone();
        task::spawn(async move {
            time::sleep(MS).await;
            flag.set(true);
        })
        .detach();
        while !ended.get() {
            time::sleep(MS).await;
        }
        assert_eq!(Rc::strong_count(&alive), 1);
    });
}

#[test]
fn a_panic_in_the_entry_is_reported() {
    for driver in [Driver::Glommio, Driver::Epoll] {
        let error = cores::run(driver, 2, |core| Box::pin(async move { assert!(core.0 != 1, "on purpose") }));
        assert!(error.expect_err("core 1 panics").to_string().contains("core 1"));
    }
}

#[test]
fn messages_ping_pong_between_two_cores() {
    const ROUNDS: u32 = 2_000;
    for driver in [Driver::Glommio, Driver::Epoll] {
        let (to_one, from_zero) = mesh::channel::<u32>(4);
        let (to_zero, from_one) = mesh::channel::<u32>(4);
        let ends = PerCore::new([(to_one, from_one), (to_zero, from_zero)]);
        on_cores(driver, 2, move |core| {
            let (sender, mut receiver) = ends.take(core).expect("each core takes its own");
            async move {
                if core == CoreId(0) {
                    for n in 0..ROUNDS {
                        sender.send(n).await.expect("the other core listens");
                        assert_eq!(receiver.recv().await, Some(n));
                    }
                } else {
                    while let Some(n) = receiver.recv().await {
                        // At the end the other core may be gone already.
                        let _ = sender.send(n).await;
                    }
                }
            }
        });
    }
}

#[test]
fn a_full_channel_holds_its_senders_back_and_keeps_their_order() {
    on_both(async || {
        let (sender, mut receiver) = mesh::channel(2);
        sender.try_send(0).expect("room");
        sender.try_send(1).expect("room");
        assert!(matches!(sender.try_send(9), Err(mesh::Full::Full(9))));
        let task = task::spawn(async move {
            for n in 2..100 {
                sender.send(n).await.expect("the receiver is there");
            }
        });
        let mut got = Vec::new();
        while receiver.recv_batch(&mut got, 10).await {
            task::yield_now().await;
        }
        assert_eq!(got, (0..100).collect::<Vec<_>>());
        assert_eq!(task.await, Some(()));
        let (sender, receiver) = mesh::channel(1);
        drop(receiver);
        assert!(matches!(sender.try_send(1), Err(mesh::Full::Closed(1))));
        assert_eq!(sender.send(1).await, Err(1));
    });
}

#[test]
fn a_dropped_oneshot_says_so() {
    on_both(async || {
        let (sender, receiver) = mesh::oneshot::<u32>();
        let task = task::spawn(receiver);
        task::yield_now().await;
        drop(sender);
        assert_eq!(task.await, Some(None));
        let (sender, receiver) = mesh::oneshot();
        sender.send(5).expect("somebody waits");
        assert_eq!(receiver.await, Some(5));
        let (sender, receiver) = mesh::oneshot();
        drop(receiver);
        assert_eq!(sender.send(5), Err(5));
    });
}

#[test]
fn blocking_jobs_run_beside_the_core_and_may_panic() {
    on_both(async || {
        let ran = Arc::new(AtomicU32::new(0));
        let jobs: Vec<_> = (0..3000)
            .map(|n| {
                let ran = ran.clone();
                task::spawn(blocking::run(move || {
                    ran.fetch_add(1, Ordering::Relaxed);
                    n
                }))
            })
            .collect();
        for (n, job) in jobs.into_iter().enumerate() {
            assert_eq!(job.await, Some(Ok(n)));
        }
        assert_eq!(ran.load(Ordering::Relaxed), 3000);
        assert_eq!(blocking::run(|| panic!("on purpose")).await, Err::<(), _>(blocking::Panicked));
        assert_eq!(blocking::run(|| 4).await, Ok(4));
    });
}

#[test]
fn shutdown_reaches_every_core() {
    for driver in [Driver::Glommio, Driver::Epoll] {
        let stop = Shutdown::new();
        on_cores(driver, 3, move |core| {
            let stop = stop.clone();
            async move {
                if core == CoreId(2) {
                    time::sleep(5 * MS).await;
                    stop.raise();
                }
                stop.raised().await;
                assert!(stop.is_raised());
            }
        });
    }
}

#[test]
fn a_busy_task_that_yields_delays_timers_little() {
    on_both(async || {
        let busy = task::spawn(async {
            loop {
                let start = time::now();
                while start.elapsed() < MS / 10 {}
                task::yield_now().await;
            }
        });
        let start = time::now();
        time::sleep(10 * MS).await;
        assert!(start.elapsed() < 500 * MS, "late by {:?}", start.elapsed());
        drop(busy);
    });
}

/// CPU time this thread has used, from the scheduler's own account.
fn cpu_used() -> Duration {
    let account = std::fs::read_to_string("/proc/thread-self/schedstat").expect("proc is mounted");
    Duration::from_nanos(
        account.split(' ').next().and_then(|ns| ns.parse().ok()).expect("a number comes first"),
    )
}

/// Once, giving up the wait for the ring on a kick woke the driver again, which gave up the wait again, and so on:
/// an idle core burned its CPU from the first kick to the next event.
#[test]
fn an_idle_core_stays_idle_after_a_kick() {
    on_both(async || {
        let before = cpu_used();
        time::sleep(10 * muster::runtime::watchdog::LOOK_EVERY).await;
        let used = cpu_used() - before;
        assert!(used < 50 * MS, "used {used:?} for sleeping");
    });
}
