//! DNS as values: a question in ([`question`]), the parts of an answer ([`record`], [`name`]), and the answer
//! in wire form, shuffled and cut to size ([`template`]).
//!
//! An answer is compiled once into a [`template::Template`]; serving it again is a copy, a shuffle and an id.
//! Nothing here reads a clock or a random device: the serial of an SOA and the shuffle come in as values.

pub mod name;
pub mod question;
pub mod record;
pub mod template;

/// Bytes of a DNS message's header (RFC 1035 section 4.1.1).
pub const HEADER_LEN: usize = 12;
/// What a client without EDNS takes over UDP (RFC 1035 section 4.2.1).
pub const UDP_PLAIN_SIZE_MAX: usize = 512;
/// Largest answer over UDP, whatever the client says: a datagram less IP and UDP headers with options (as Consul).
pub const UDP_SIZE_MAX: usize = 65_535 - 68;
/// Largest answer over TCP: 64 KiB less the header's overhead (as Consul).
pub const TCP_SIZE_MAX: usize = 65_523;
/// Largest message in any case.
pub const MESSAGE_SIZE_MAX: usize = 65_535;

/// Record types this agent makes or treats specially (IANA numbers).
pub mod rtype {
    /// IPv4 address.
    pub const A: u16 = 1;
    /// Name server.
    pub const NS: u16 = 2;
    /// Alias.
    pub const CNAME: u16 = 5;
    /// Start of authority.
    pub const SOA: u16 = 6;
    /// Name of an address.
    pub const PTR: u16 = 12;
    /// Text.
    pub const TXT: u16 = 16;
    /// IPv6 address.
    pub const AAAA: u16 = 28;
    /// Service location.
    pub const SRV: u16 = 33;
    /// EDNS pseudo record.
    pub const OPT: u16 = 41;
    /// Zone transfer.
    pub const AXFR: u16 = 252;
    /// Everything.
    pub const ANY: u16 = 255;
}

/// Response codes (IANA numbers).
pub mod rcode {
    /// Answered.
    pub const NOERROR: u8 = 0;
    /// The query could not be read.
    pub const FORMERR: u8 = 1;
    /// The server failed.
    pub const SERVFAIL: u8 = 2;
    /// No such name.
    pub const NXDOMAIN: u8 = 3;
    /// Kind of query not supported.
    pub const NOTIMP: u8 = 4;
    /// Not for us.
    pub const REFUSED: u8 = 5;
}

/// Header flag bits, in the third and fourth octet as one number.
pub mod flag {
    /// Response.
    pub const QR: u16 = 0x8000;
    /// Authoritative answer.
    pub const AA: u16 = 0x0400;
    /// Truncated.
    pub const TC: u16 = 0x0200;
    /// Recursion desired.
    pub const RD: u16 = 0x0100;
    /// Recursion available.
    pub const RA: u16 = 0x0080;
    /// Checking disabled.
    pub const CD: u16 = 0x0010;
    /// The opcode's bits.
    pub const OPCODE: u16 = 0x7800;
}
