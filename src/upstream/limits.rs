//! Every bound of the way to the servers, and what happens there.

use std::time::Duration;

use muster_protocol::http::HeadLimits;

/// Requests that wait to be taken by the dialler's core; one more is refused as too busy.
pub const CALLS_WAITING_MAX: usize = 1024;

/// Requests under way; one more is refused as too busy.
pub const CALLS_MAX: usize = 8000;

/// Pieces of an answer that wait for their reader. Then the server is read no further.
pub const PARTS_MAX: usize = 4;

/// Bytes of an answer taken from its stream at a time.
pub const PIECE_MAX: usize = 64 << 10;

/// The head of an answer.
pub const HEAD: HeadLimits = HeadLimits { bytes: 64 << 10, fields: 256 };

/// Patience with a connection that is being made.
pub const CONNECT_LIMIT: Duration = Duration::from_secs(1);

/// Patience with a server's greeting where there are others to be asked; and where there is none.
pub const GREETING_LIMITS: [Duration; 2] = [Duration::from_millis(500), Duration::from_secs(5)];

/// Silence behind a request after which the server is asked for a sign of life, and again the time for that: where there are
/// other servers, and where there is none.
pub const SILENCE_LIMITS: [Duration; 2] = [Duration::from_millis(350), Duration::from_secs(5)];

/// A connection that was silent for longer is asked for a sign of life before anything goes there that must not be sent twice.
pub const QUIET: Duration = Duration::from_millis(200);

/// How often a request that broke off is sent again.
pub const ATTEMPTS_MAX: u32 = 5;

/// A request that was under way for longer before it broke off begins to count anew.
pub const LONG_CALL: Duration = Duration::from_secs(10);

/// For so long a server that could not be reached is asked after the others.
pub const GRUDGE: Duration = Duration::from_secs(10);

/// How long a blocking query waits that does not say it, and at most: Consul's defaults of `default_query_time` and
/// `max_query_time`. Only a query that moves to another server is held to them here.
pub const WAIT_DEFAULT: Duration = Duration::from_secs(300);
/// See [`WAIT_DEFAULT`].
pub const WAIT_MAX: Duration = Duration::from_secs(600);

/// How often servers and connection are looked at.
pub const LOOK_INTERVAL: Duration = Duration::from_secs(1);

/// How long a connection is kept at least before another server is drawn, as Consul's (`clientRPCMinReuseDuration`); up to half
/// of it is added.
pub const REUSE_MIN: Duration = Duration::from_secs(120);

/// Connections that all agents together make anew for that reason, for each server and second, as Consul's
/// (`newRebalanceConnsPerSecPerServer`).
pub const REBALANCES_PER_SECOND: f64 = 64.0;

/// A connection whose peer acknowledges nothing for so long is given up by the kernel.
pub const UNACKNOWLEDGED_MAX: Duration = Duration::from_secs(10);

/// Idle time after which the kernel probes whether the server's host still exists.
pub const KEEPALIVE: Duration = Duration::from_secs(15);

const _: () = assert!(CALLS_MAX < muster_protocol::rpc::mux::limits::STREAMS_MAX, "each call has a stream");
