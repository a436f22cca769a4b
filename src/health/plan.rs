//! What a check is to do: a validated, typed form of a definition, made once at registration.

use std::collections::BTreeMap;
use std::time::Duration;

use super::schedule::Kind;
use crate::store::model::Status;

/// The shortest interval between two runs of a check; shorter ones are raised to it.
pub const INTERVAL_MIN: Duration = Duration::from_secs(1);
/// How long a network check may take when its definition does not say.
pub const NETWORK_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a script may take when its definition does not say.
pub const SCRIPT_TIMEOUT: Duration = Duration::from_secs(30);
/// How much output is kept when neither the definition nor the agent says.
pub const OUTPUT_MAX_SIZE: usize = 4096;

/// How a check is run.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    /// What is done.
    pub probe: Probe,
    /// Time between the starts of two runs; zero for checks that are told or derived.
    pub interval: Duration,
    /// Longest time of one run.
    pub timeout: Duration,
    /// How many equal results it takes to change the status.
    pub thresholds: Thresholds,
    /// Bytes of output kept.
    pub output_max: usize,
}

/// What a check does.
#[derive(Clone, Debug, PartialEq)]
pub enum Probe {
    /// Waits to be told; critical when it is not told for `ttl`.
    Ttl {
        /// The longest silence.
        ttl: Duration,
    },
    /// Runs a program; exit code 0 passes, 1 warns.
    Script {
        /// The program and its arguments.
        args: Vec<String>,
    },
    /// Asks a URL; 2xx passes, 429 warns.
    Http(HttpProbe),
    /// Connects.
    Tcp {
        /// `host:port`.
        address: String,
        /// Shakes hands when set.
        tls: Option<TlsProbe>,
    },
    /// Sends a datagram; an answer or silence passes, a refusal fails.
    Udp {
        /// `host:port`.
        address: String,
    },
    /// The standard gRPC health protocol.
    Grpc {
        /// `host:port`.
        address: String,
        /// The service asked about; empty for the whole server.
        service: String,
        /// Over TLS when set.
        tls: Option<TlsProbe>,
    },
    /// An HTTP/2 PING.
    H2Ping {
        /// `host:port`.
        address: String,
        /// Over TLS when set.
        tls: Option<TlsProbe>,
    },
    /// Takes over the worst status of another service or node.
    Alias {
        /// The node; empty for our own.
        node: String,
        /// The service ID; empty for the whole node.
        service: String,
    },
    /// Asks the service manager of the host whether a unit is active.
    OsService {
        /// Name of the unit.
        name: String,
    },
    /// Runs a program inside a container.
    Docker {
        /// The container.
        container: String,
        /// The shell that gets a single argument, `/bin/sh` by default.
        shell: String,
        /// The program and its arguments.
        args: Vec<String>,
    },
}

/// See [`Probe::Http`].
#[derive(Clone, Debug, Default, PartialEq)]
pub struct HttpProbe {
    /// The URL.
    pub url: String,
    /// The method, `GET` when empty.
    pub method: String,
    /// Headers by name.
    pub header: BTreeMap<String, Vec<String>>,
    /// The body.
    pub body: String,
    /// Whether a redirect is an answer and not a direction.
    pub disable_redirects: bool,
    /// Certificate rules for `https`.
    pub tls: TlsProbe,
}

/// Certificate rules of a check.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct TlsProbe {
    /// Takes any certificate.
    pub skip_verify: bool,
    /// The name the certificate must carry; empty for the host of the address.
    pub server_name: String,
}

/// How many results in a row it takes to change the status; 0 and 1 change it at once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Thresholds {
    /// Passing results before `passing`.
    pub success_before_passing: u32,
    /// Failing results before `warning`.
    pub failures_before_warning: u32,
    /// Failing results before `critical`.
    pub failures_before_critical: u32,
}

/// What one run found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// The status it speaks for.
    pub status: Status,
    /// The text that goes with it.
    pub output: String,
}

impl Finding {
    /// A passing result.
    pub fn passing(output: impl Into<String>) -> Finding {
        Finding { status: Status::Passing, output: output.into() }
    }

    /// A critical result.
    pub fn critical(output: impl Into<String>) -> Finding {
        Finding { status: Status::Critical, output: output.into() }
    }
}

impl Probe {
    /// The word under `Type`.
    pub fn kind(&self) -> &'static str {
        match self {
            Probe::Ttl { .. } => "ttl",
            Probe::Script { .. } => "script",
            Probe::Http(_) => "http",
            Probe::Tcp { .. } => "tcp",
            Probe::Udp { .. } => "udp",
            Probe::Grpc { .. } => "grpc",
            Probe::H2Ping { .. } => "h2ping",
            Probe::Alias { .. } => "alias",
            Probe::OsService { .. } => "os_service",
            Probe::Docker { .. } => "docker",
        }
    }

    /// What a run of it costs, if the scheduler runs it (the others are told or derived).
    pub fn runs_as(&self) -> Option<Kind> {
        match self {
            Probe::Ttl { .. } | Probe::Alias { .. } => None,
            Probe::Script { .. } | Probe::Docker { .. } | Probe::OsService { .. } => Some(Kind::Program),
            Probe::Http(_)
            | Probe::Tcp { .. }
            | Probe::Udp { .. }
            | Probe::Grpc { .. }
            | Probe::H2Ping { .. } => Some(Kind::Probe),
        }
    }

    /// Whether the scheduler runs it.
    pub fn is_scheduled(&self) -> bool {
        self.runs_as().is_some()
    }
}
