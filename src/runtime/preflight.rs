//! What must be settled before any core starts: resource limits, and whether the kernel lets us use io_uring.

use super::sys;
use std::fmt;
use std::io;

/// glommio refuses to start with less locked memory than this, root or not.
const MEMLOCK_MIN: u64 = 512 * 1024;
/// What glommio asks for first: which operations the kernel knows.
const IORING_REGISTER_PROBE: libc::c_long = 8;

/// Raises the soft limits of locked memory and of open files to their hard limits. Returns the open files allowed.
pub fn raise_limits() -> u64 {
    raise(libc::RLIMIT_MEMLOCK, "locked memory");
    raise(libc::RLIMIT_NOFILE, "open files")
}

/// How many files this process may have open now.
pub fn open_files() -> u64 {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: `limit` is live.
    match sys::check(unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &mut limit) }) {
        Ok(_) => limit.rlim_cur,
        // Cannot happen to a limit that exists; then the kernel's default.
        Err(_) => 1024,
    }
}

fn raise(resource: libc::__rlimit_resource_t, name: &str) -> u64 {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: `limit` is live for both calls.
    let raised = unsafe {
        sys::check(libc::getrlimit(resource, &mut limit)).and_then(|_| {
            let wanted = libc::rlimit { rlim_cur: limit.rlim_max, ..limit };
            if wanted.rlim_cur == limit.rlim_cur {
                return Ok(0);
            }
            sys::check(libc::setrlimit(resource, &wanted))
        })
    };
    match raised {
        Ok(_) => limit.rlim_max,
        Err(error) => {
            tracing::warn!(
                "cannot raise the limit of {name} from {} to {}: {error}",
                limit.rlim_cur,
                limit.rlim_max
            );
            limit.rlim_cur
        }
    }
}

/// Why io_uring cannot be used. The text says what to do.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Refusal {
    /// ENOSYS: the kernel has none, or a seccomp filter says so.
    Missing,
    /// EPERM or EACCES: seccomp (containers) or the sysctl kernel.io_uring_disabled.
    Forbidden,
    /// ENOMEM: rings need locked memory that we may not have.
    NoMemory,
    /// The limit of locked memory is below what glommio needs.
    Memlock {
        /// The hard limit, in bytes.
        limit: u64,
    },
    /// Anything else, as an errno.
    Other(i32),
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Refusal::Missing => {
                f.write_str("io_uring_setup: function not implemented (ENOSYS); use Linux 5.8 or newer, or a seccomp profile that allows io_uring")
            }
            Refusal::Forbidden => f.write_str(
                "io_uring: operation not permitted (EPERM); allow io_uring_setup, io_uring_enter and io_uring_register \
                 in the container's seccomp profile, or set the sysctl kernel.io_uring_disabled to 0",
            ),
            Refusal::NoMemory => f.write_str(
                "io_uring_setup: cannot allocate memory (ENOMEM); raise the limit of locked memory (LimitMEMLOCK=, ulimit -l)",
            ),
            Refusal::Memlock { limit } => write!(
                f,
                "the limit of locked memory is {limit} bytes and {MEMLOCK_MIN} are needed; raise it (LimitMEMLOCK=, ulimit -l)"
            ),
            Refusal::Other(errno) => write!(f, "io_uring_setup: {}", io::Error::from_raw_os_error(*errno)),
        }
    }
}

/// Asks the kernel for a small ring, and gives it back.
///
/// # Errors
/// Says which of the known obstacles it met.
pub fn probe_io_uring() -> Result<(), Refusal> {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: `limit` is live.
    if unsafe { libc::getrlimit(libc::RLIMIT_MEMLOCK, &mut limit) } == 0 && limit.rlim_cur < MEMLOCK_MIN {
        return Err(Refusal::Memlock { limit: limit.rlim_max });
    }
    // struct io_uring_params is 120 bytes, all zero for a plain ring.
    let mut params = [0u64; 15];
    // SAFETY: the kernel reads and writes the 120 bytes of the live array; a descriptor that it returns is ours and
    // closed right here; the calls on an invalid ring descriptor have no effect but their error.
    let (ring, others) = unsafe {
        let ring = libc::syscall(libc::SYS_io_uring_setup, 4 as libc::c_long, params.as_mut_ptr());
        let setup_error = io::Error::last_os_error();
        if ring < 0 {
            (Err(setup_error), None)
        } else {
            libc::close(ring as libc::c_int);
            // A filter may allow the first call and deny the others, and then glommio panics. The kernel itself has
            // several words for a bad descriptor, a filter only these.
            let denials = [libc::EPERM, libc::EACCES, libc::ENOSYS];
            let none = std::ptr::null::<u8>();
            libc::syscall(libc::SYS_io_uring_enter, -1 as libc::c_long, 0, 0, 0, none, 0);
            let enter = io::Error::last_os_error().raw_os_error();
            libc::syscall(libc::SYS_io_uring_register, -1 as libc::c_long, IORING_REGISTER_PROBE, none, 0);
            let register = io::Error::last_os_error().raw_os_error();
            (Ok(()), [enter, register].into_iter().flatten().find(|errno| denials.contains(errno)))
        }
    };
    match (ring.map_err(|error| error.raw_os_error().unwrap_or(0)), others) {
        (Ok(()), None) => Ok(()),
        (Ok(()), Some(errno)) | (Err(errno), _) => Err(match errno {
            libc::ENOSYS => Refusal::Missing,
            libc::EPERM | libc::EACCES => Refusal::Forbidden,
            libc::ENOMEM => Refusal::NoMemory,
            other => Refusal::Other(other),
        }),
    }
}
