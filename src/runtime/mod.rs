//! The shell over the kernel: cores, sockets, files, timers, processes, signals, mesh. Nothing else in the tree
//! names glommio, a raw descriptor, a thread or a clock.
//!
//! Each core is one thread with one executor and one epoll instance (`reactor`) which holds every source of
//! events: sockets, timers, mail from other cores, children, signals. There are two drivers, and they differ only
//! in who runs the tasks and in how the epoll instance is waited for: glommio (io_uring), and a small executor of
//! our own that is taken where io_uring is forbidden.

pub mod bell;
pub mod blocking;
pub mod child;
pub mod cores;
pub mod disk;
mod driver_epoll;
mod driver_glommio;
pub mod fs;
mod guard;
pub mod host;
pub mod interfaces;
pub mod logsink;
mod mailbox;
pub mod memory;
pub mod mesh;
pub mod net;
pub mod preflight;
pub mod process;
pub mod publish;
pub mod random;
mod reactor;
pub mod readback;
pub mod signal;
pub mod spool;
mod sys;
pub mod tally;
pub mod task;
pub mod time;
mod timers;
pub mod users;
pub mod watchdog;
