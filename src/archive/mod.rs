//! The archive of a snapshot that an operator keeps: what `GET /v1/snapshot` sends and `PUT` takes.
//!
//! Outside it is Consul's, byte for byte in its rules: a gzip'd tar of `meta.json`, `state.bin` and `SHA256SUMS`, so that
//! Consul's own command line saves, checks, inspects and restores it. Inside `state.bin` are our own sections ([`state`]).
//!
//! Both ways go piece by piece: at no time is more than one section in memory. Nothing here does I/O or knows a
//! clock; [`Writer`] and [`read`] are driven on threads that may block. Whatever the bytes are, the answer is their content
//! or an error in Consul's words.

mod meta;
mod reader;
mod state;
mod sums;
mod tar;
#[cfg(test)]
mod tests;
mod writer;

pub use meta::{Meta, Server};
pub use reader::{ArchiveError, Contents, Origin, read};
pub use writer::{Facts, Writer};

/// Names of the files, in their order.
const META: &str = "meta.json";
const STATE: &str = "state.bin";
const SUMS: &str = "SHA256SUMS";

/// Bytes of `meta.json` or `SHA256SUMS`: past it an archive is refused. A thousand servers take a tenth of it.
const TEXT_LENGTH_MAX: u64 = 1 << 20;

/// Bytes of one section: past it an archive is refused. A section holds at least one row, which came in one command of
/// at most 8 MiB.
const SECTION_LENGTH_MAX: u64 = 32 << 20;
