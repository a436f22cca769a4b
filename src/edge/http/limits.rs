//! Every bound of the HTTP edge, and what happens there. Those that operators set are in the configuration
//! (`limits.*`); these are the rest.

use std::time::Duration;

use muster_protocol::http::HeadLimits;

use crate::consensus::COMMAND_LENGTH_MAX;
use crate::upstream::parcels;

/// Request heads: beyond it 431 and the connection closes. Bytes are Consul's; its fields have no bound but that.
pub const HEAD: HeadLimits = HeadLimits { bytes: 1 << 20, fields: 4096 };

/// Bytes of a request body on routes without a limit of their own: beyond it 413.
pub const BODY_MAX: usize = 8 << 20;

/// Bytes of agents' writes in one request: room for the longest one, and for what goes around it.
pub const WRITES_MAX: usize = COMMAND_LENGTH_MAX + parcels::REQUEST_LENGTH_MAX;

/// Bytes of all request bodies that a core is receiving: beyond it the request that asks for more gets 503 and its
/// connection closes. Room for 256 values of the largest size at once.
pub const BODIES_MAX: usize = 128 << 20;

/// Bytes of keys and values that those have sent who wait for locks (`?acquire&wait`) at a core: beyond it 503. Room for as many
/// as there can be connections, with values of 1 KiB.
pub const LOCK_BYTES_MAX: usize = 64 << 20;

/// Bytes of an archive on its way in (`PUT /v1/snapshot`): beyond it 413. It is kept as it came, compressed, in a file of the data
/// folder: as many bytes as its content may have once it is unpacked.
pub const ARCHIVE_MAX: usize = crate::store::RESTORE_LENGTH_MAX;

/// The same for an agent without a data folder, which keeps it in memory.
pub const ARCHIVE_IN_MEMORY_MAX: usize = 256 << 20;

/// Bytes of all archives that a core has in memory while they come: beyond it 503.
pub const ARCHIVES_IN_MEMORY_MAX: usize = 256 << 20;

/// Bytes of an archive that are gathered in memory before they go into its file.
pub const SPOOLED_AT: usize = 1 << 20;

/// Bytes of a body that nobody wants (the answer came before it) that are read and dropped to keep the
/// connection; with more to come it closes behind the answer. As Go's `net/http`.
pub const UNWANTED_BODY_MAX: u64 = 256 << 10;

/// Connections of one core: beyond it new ones are closed at once.
pub const CONNECTIONS_MAX: usize = 65_536;

/// Streams of agents on one core, beside those: beyond it new ones are refused, and asked again elsewhere.
pub const STREAMS_MAX: usize = 65_536;

/// Connections accepted in one turn of a core before others get their turn.
pub const ACCEPTS_PER_TURN: usize = 256;

/// Requests of one connection answered in one turn before others get their turn.
pub const REQUESTS_PER_TURN: usize = 64;

/// Parked queries answered in one turn before others get their turn.
pub const WAKES_PER_TURN: usize = 256;

/// Records of reads in line for a barrier whose clients left meanwhile, beside as many as there are connections: beyond it
/// they are cleared out.
pub const READERS_LEFT_MAX: usize = 1024;

/// Bytes read from one socket at a time; one such buffer for each core.
pub const READ_BUFFER: usize = 64 << 10;

/// Bytes of later requests that a connection holds while an earlier one is not answered; beyond it they stay in
/// the kernel.
pub const PIPELINE_MAX: usize = 64 << 10;

/// Time from the first byte of a head to its end: beyond it 408 and the connection closes.
pub const HEAD_TIMEOUT: Duration = Duration::from_secs(30);

/// Time without any progress of a request's body: beyond it 408 and the connection closes.
pub const BODY_STALL_TIMEOUT: Duration = Duration::from_secs(30);

/// Time without any progress of an answer: beyond it the connection is cut.
pub const WRITE_STALL_TIMEOUT: Duration = Duration::from_secs(60);

/// Time a connection may idle between requests: beyond it it closes.
pub const IDLE_TIMEOUT: Duration = Duration::from_secs(600);

/// Time for a client to take its last answer and close, before its connection is cut.
pub const LINGER_TIMEOUT: Duration = Duration::from_secs(2);

/// How often connections are checked against the timeouts above, which therefore end up to this much late.
pub const SWEEP_INTERVAL: Duration = Duration::from_secs(2);

/// How long accepting rests after the kernel refused a descriptor.
pub const ACCEPT_REST: Duration = Duration::from_millis(500);

/// Idle time after which the kernel probes whether a client still exists.
pub const TCP_KEEPALIVE: Duration = Duration::from_secs(30);

/// Bytes of answers (and of the request heads they belong to) that a core remembers; beyond it the half that was
/// not asked for lately is dropped.
pub const CACHE_MAX: usize = 32 << 20;

/// A request head longer than this is not remembered.
pub const CACHED_HEAD_MAX: usize = 2 << 10;

/// Answers up to this size are kept and sent as one piece, head and body together.
pub const JOINED_MAX: usize = 16 << 10;

/// Batches of changes from the control core that wait for a core: beyond it everything parked here is looked at
/// again instead.
pub const CHANGES_MAX: usize = 1024;

/// Jitter added to a blocking query's wait: up to the wait divided by this. As Consul.
pub const WAIT_JITTER_FRACTION: u32 = 16;
