//! The parts of an answer, before they take wire form.

use std::net::{Ipv4Addr, Ipv6Addr};

use super::name::Name;
use super::{flag, rcode, rtype};

/// Whose record it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Owner {
    /// The name of the question, in the client's letter case.
    Question,
    /// Another name.
    Name(Name),
}

/// A record's type and content.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Data {
    /// IPv4 address.
    A(Ipv4Addr),
    /// IPv6 address.
    Aaaa(Ipv6Addr),
    /// Alias.
    Cname(Name),
    /// Name of an address.
    Ptr(Name),
    /// Name server.
    Ns(Name),
    /// One text, split into strings of 255 octets where it is longer.
    Txt(Box<[u8]>),
    /// Service location (RFC 2782).
    Srv {
        /// Lower first.
        priority: u16,
        /// Share among equals.
        weight: u16,
        /// Port.
        port: u16,
        /// Host.
        target: Name,
    },
    /// Start of authority. The serial is the time of sending.
    Soa(Soa),
    /// Any other type, as it came from a recursor, with names decompressed.
    Other {
        /// Its type.
        rtype: u16,
        /// Its content.
        data: Box<[u8]>,
    },
}

/// Content of an SOA record; times in seconds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Soa {
    /// Primary server.
    pub primary: Name,
    /// Mailbox of the operator.
    pub mailbox: Name,
    /// Refresh interval of secondaries.
    pub refresh: u32,
    /// Retry interval of secondaries.
    pub retry: u32,
    /// When secondaries give up.
    pub expire: u32,
    /// How long a negative answer may be kept.
    pub minimum: u32,
}

/// One resource record of class IN.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Its name.
    pub owner: Owner,
    /// Seconds it may be kept.
    pub ttl: u32,
    /// Type and content.
    pub data: Data,
}

/// A record of the answer section with what belongs to it in the additional section: when answers are shuffled
/// or cut, they move and go together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Group {
    /// The record of the answer section.
    pub answer: Record,
    /// Records for the additional section.
    pub extra: Vec<Record>,
}

/// An answer: everything but what differs from one query to the next.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Answer {
    /// Response code.
    pub rcode: u8,
    /// Whether the name is in our domain.
    pub authoritative: bool,
    /// Whether we forward to recursors.
    pub recursion_available: bool,
    /// The answer section.
    pub groups: Vec<Group>,
    /// Whether the groups are sent in random order.
    pub shuffled: bool,
    /// Most groups in one answer, chosen at random; `None` for all.
    pub groups_max: Option<usize>,
    /// Whether the limit on the number of answers over plain UDP holds for it.
    pub udp_limited: bool,
    /// The authority section.
    pub authority: Vec<Record>,
    /// Records of the additional section that belong to no group.
    pub additional: Vec<Record>,
    /// Whether a client subnet in the query mattered (RFC 7871: scope of the reply).
    pub subnet_matters: bool,
}

impl Answer {
    /// Appends a record to the answer section.
    pub fn push(&mut self, answer: Record) {
        self.groups.push(Group { answer, extra: Vec::new() });
    }

    /// The header flags and code of this answer, without what a query contributes.
    pub fn flags(&self) -> u16 {
        let mut flags = u16::from(self.rcode);
        if self.authoritative {
            flags |= flag::AA;
        }
        if self.recursion_available {
            flags |= flag::RA;
        }
        flags
    }

    /// An answer without records.
    pub fn bare(code: u8, authoritative: bool) -> Answer {
        assert!(code <= rcode::REFUSED, "only codes that fit the header");
        Answer { rcode: code, authoritative, ..Answer::default() }
    }
}

impl Data {
    /// The record type's number.
    pub fn rtype(&self) -> u16 {
        match self {
            Data::A(_) => rtype::A,
            Data::Aaaa(_) => rtype::AAAA,
            Data::Cname(_) => rtype::CNAME,
            Data::Ptr(_) => rtype::PTR,
            Data::Ns(_) => rtype::NS,
            Data::Txt(_) => rtype::TXT,
            Data::Srv { .. } => rtype::SRV,
            Data::Soa(_) => rtype::SOA,
            Data::Other { rtype, .. } => *rtype,
        }
    }
}
