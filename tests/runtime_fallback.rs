//! The agent in a container whose seccomp profile denies io_uring, as Docker's and containerd's do: it must say so
//! and run on epoll. The filter is installed in a thread of this test, and so holds for the cores it starts.

mod runtime_support;

use futures_lite::{AsyncReadExt, AsyncWriteExt};
use muster::runtime::cores::{Driver, StartError};
use muster::runtime::net::{Endpoint, Stream, UnixAccess, guard_bind};
use muster::runtime::preflight::{self, Refusal};
use muster::runtime::task;
use runtime_support::on_cores;
use std::time::Duration;

/// The three calls of io_uring.
const ALL: [i64; 3] = [libc::SYS_io_uring_setup, libc::SYS_io_uring_enter, libc::SYS_io_uring_register];

/// Makes three calls fail with `errno` in this thread and all that it starts.
fn deny(calls: [i64; 3], errno: i32) {
    let load_number = libc::BPF_LD | libc::BPF_W | libc::BPF_ABS;
    let jump_if_equal = libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K;
    let deny = libc::SECCOMP_RET_ERRNO | errno.unsigned_abs();
    let statement = |code: u32, k: u32| libc::sock_filter { code: code as u16, jt: 0, jf: 0, k };
    let deny_if = |call: i64, jump: u8| libc::sock_filter {
        code: jump_if_equal as u16,
        jt: jump,
        jf: 0,
        k: call as u32,
    };
    let mut program = [
        // The number is the first field of the data that a filter sees.
        statement(load_number, 0),
        deny_if(calls[0], 3),
        deny_if(calls[1], 2),
        deny_if(calls[2], 1),
        statement(libc::BPF_RET | libc::BPF_K, libc::SECCOMP_RET_ALLOW),
        statement(libc::BPF_RET | libc::BPF_K, deny),
    ];
    let filter = libc::sock_fprog { len: program.len() as u16, filter: program.as_mut_ptr() };
    // SAFETY: the program lives through both calls, and the kernel copies it.
    unsafe {
        assert_eq!(libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), 0);
        assert_eq!(libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &filter), 0);
    }
}

fn denied(calls: [i64; 3], errno: i32, refusal: Refusal) {
    let denied = std::thread::spawn(move || {
        deny(calls, errno);
        assert_eq!(preflight::probe_io_uring(), Err(refusal));
        let forced = Driver::choose(Some(Driver::Glommio)).expect_err("io_uring is denied");
        assert!(matches!(forced, StartError::Refused(found) if found == refusal));
        assert!(forced.to_string().contains("-runtime=glommio"), "{forced}");
        let driver = Driver::choose(None).expect("epoll is always there");
        assert_eq!(driver, Driver::Epoll);
        on_cores(driver, 2, |_| async { echo_once().await });
    });
    denied.join().expect("the test's thread does not panic");
}

async fn echo_once() {
    let endpoint = Endpoint::Tcp(([127, 0, 0, 1], 0).into());
    let listener = guard_bind(&endpoint, 1, &UnixAccess::default()).expect("a free port").remove(0);
    let endpoint = listener.endpoint().clone();
    let server = task::spawn(async move {
        let mut stream = Stream::from(listener.accept().await.expect("a client comes").0);
        let mut word = [0; 5];
        stream.read_exact(&mut word).await.expect("connected");
        stream.write_all(&word).await.expect("connected");
    });
    let mut stream = Stream::connect(&endpoint, Duration::from_secs(5)).await.expect("somebody listens");
    stream.write_all(b"hello").await.expect("connected");
    let mut word = [0; 5];
    stream.read_exact(&mut word).await.expect("connected");
    assert_eq!(&word, b"hello");
    server.await.expect("the server does not panic");
}

#[test]
fn denied_by_eperm_the_agent_runs_on_epoll() {
    denied(ALL, libc::EPERM, Refusal::Forbidden);
}

/// Only io_uring_setup and io_uring_enter were tried; glommio then panicked at its first io_uring_register.
#[test]
fn with_one_call_denied_the_agent_runs_on_epoll() {
    for call in ALL {
        denied([call; 3], libc::EPERM, Refusal::Forbidden);
    }
}

#[test]
fn denied_by_enosys_the_agent_runs_on_epoll() {
    denied(ALL, libc::ENOSYS, Refusal::Missing);
}

#[test]
fn here_nothing_is_denied() {
    // Elsewhere the reason must at least be one that we can explain.
    match preflight::probe_io_uring() {
        Ok(()) => assert_eq!(Driver::choose(None).expect("it is usable"), Driver::Glommio),
        Err(refusal) => assert!(!matches!(refusal, Refusal::Other(_)), "{refusal}"),
    }
}
