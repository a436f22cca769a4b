//! Reads a query: header, one question, EDNS. Bounds-checked, without allocation; this runs once per packet.
//!
//! Packets that are not queries we can serve are told apart as Consul does: silence for fragments and for
//! responses, NOTIMP for other opcodes, FORMERR for the rest.

use super::{HEADER_LEN, UDP_PLAIN_SIZE_MAX, flag, rcode, rtype};

/// Longest name on the wire (RFC 1035 section 2.3.4).
pub const NAME_LEN_MAX: usize = 255;
/// Longest label (RFC 1035 section 2.3.4).
pub const LABEL_LEN_MAX: usize = 63;
/// Room for a [`Query::key`].
pub const KEY_LEN_MAX: usize = NAME_LEN_MAX + 3;

/// EDNS option code of the client subnet (RFC 7871).
const OPTION_CLIENT_SUBNET: u16 = 8;
/// Opcode of an ordinary query.
const OPCODE_QUERY: u16 = 0;
/// Opcode NOTIFY, which Consul answers like a query.
const OPCODE_NOTIFY: u16 = 4;

/// What a packet is.
#[derive(Debug)]
pub enum Parsed<'a> {
    /// A query to answer.
    Query(Query<'a>),
    /// Not a query we serve, but its sender is told: see [`Reject::render`].
    Reject(Reject<'a>),
    /// A fragment or a response: silence.
    Drop,
}

/// A query, borrowed from its packet.
#[derive(Clone, Debug)]
pub struct Query<'a> {
    /// The packet.
    packet: &'a [u8],
    /// Length of the question's name on the wire, with the root label.
    name_len: usize,
    /// Record type asked for.
    pub qtype: u16,
    /// Class asked for; echoed, otherwise without effect, as in Consul.
    pub qclass: u16,
    /// The client's EDNS record.
    pub edns: Option<Edns>,
}

/// What a client said in its OPT record (RFC 6891).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Edns {
    /// Largest UDP payload it takes, as sent.
    pub udp_size: u16,
    /// Subnet on whose behalf it asks (RFC 7871).
    pub client_subnet: Option<ClientSubnet>,
}

/// A client subnet option, with the address masked to its prefix.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClientSubnet {
    /// 0 none, 1 IPv4, 2 IPv6.
    pub family: u16,
    /// Significant bits.
    pub prefix_len: u8,
    /// The address' octets, zero after the prefix.
    pub address: [u8; 16],
}

/// A packet that is answered with an error at once.
#[derive(Debug)]
pub struct Reject<'a> {
    packet: &'a [u8],
    code: u8,
    /// Bytes of the question to echo (0: the question could not be read).
    question_len: usize,
}

/// Reads a packet.
pub fn parse(packet: &[u8]) -> Parsed<'_> {
    if packet.len() < HEADER_LEN {
        return Parsed::Drop;
    }
    let flags = be16(packet, 2);
    if flags & flag::QR != 0 {
        return Parsed::Drop;
    }
    let opcode = (flags & flag::OPCODE) >> 11;
    if opcode != OPCODE_QUERY && opcode != OPCODE_NOTIFY {
        return reject(packet, rcode::NOTIMP, 0);
    }
    let (questions, answers, authorities, additionals) =
        (be16(packet, 4), be16(packet, 6), be16(packet, 8), be16(packet, 10));
    if questions != 1 || answers > 1 || authorities > 1 || additionals > 2 {
        return reject(packet, rcode::FORMERR, 0);
    }
    let Some(name_len) = name_len(&packet[HEADER_LEN..]) else {
        return reject(packet, rcode::FORMERR, 0);
    };
    let after_name = HEADER_LEN + name_len;
    let after_question = after_name + 4;
    if after_question > packet.len() {
        return reject(packet, rcode::FORMERR, 0);
    }
    let mut query = Query {
        packet,
        name_len,
        qtype: be16(packet, after_name),
        qclass: be16(packet, after_name + 2),
        edns: None,
    };
    let records = answers + authorities + additionals;
    if records > 0 {
        match read_records(packet, after_question, answers + authorities, records) {
            Some(edns) => query.edns = edns,
            None => return reject(packet, rcode::FORMERR, name_len + 4),
        }
    }
    Parsed::Query(query)
}

impl<'a> Query<'a> {
    /// The packet it was read from.
    pub fn packet(&self) -> &'a [u8] {
        self.packet
    }

    /// The question's name on the wire, in the client's letter case, with the root label.
    pub fn name(&self) -> &'a [u8] {
        &self.packet[HEADER_LEN..HEADER_LEN + self.name_len]
    }

    /// The whole question section.
    pub fn question(&self) -> &'a [u8] {
        &self.packet[HEADER_LEN..HEADER_LEN + self.name_len + 4]
    }

    /// The query's id.
    pub fn id(&self) -> u16 {
        be16(self.packet, 0)
    }

    /// Flags that a reply starts with: a response, the opcode, and RD and CD for ordinary queries.
    pub fn reply_flags(&self) -> u16 {
        let flags = be16(self.packet, 2);
        let echoed = if flags & flag::OPCODE == 0 { flag::RD | flag::CD } else { flag::OPCODE };
        flag::QR | (flags & echoed)
    }

    /// Whether the client wants recursion.
    pub fn recursion_desired(&self) -> bool {
        be16(self.packet, 2) & flag::RD != 0
    }

    /// Whether the client takes more than a plain UDP answer over UDP.
    pub fn takes_large_udp(&self) -> bool {
        self.edns.is_some_and(|edns| edns.udp_size as usize > UDP_PLAIN_SIZE_MAX)
    }

    /// Writes a reply that holds the question alone, without EDNS, and returns its length. `flags` are added to
    /// [`Query::reply_flags`]. `out` holds at least the packet's length.
    pub fn render_bare(&self, flags: u16, out: &mut [u8]) -> usize {
        let len = HEADER_LEN + self.question().len();
        out[..len].copy_from_slice(&self.packet[..len]);
        out[2..4].copy_from_slice(&(self.reply_flags() | flags).to_be_bytes());
        out[4..12].copy_from_slice(&[0, 1, 0, 0, 0, 0, 0, 0]);
        len
    }

    /// What answers are cached under: lower-cased name, type, and whether EDNS was used. Everything else a
    /// query says (id, flags, class, sizes, letter case) is patched into the answer when it is sent.
    pub fn key<'b>(&self, buffer: &'b mut [u8; KEY_LEN_MAX]) -> &'b [u8] {
        buffer[0] = self.edns.is_some() as u8;
        buffer[1..3].copy_from_slice(&self.qtype.to_be_bytes());
        // Length octets are below 'A', so the whole name may be lower-cased as text.
        let key = &mut buffer[..3 + self.name_len];
        key[3..].copy_from_slice(self.name());
        key[3..].make_ascii_lowercase();
        key
    }
}

impl Reject<'_> {
    /// Writes the reply into `out` and returns its length. `out` holds at least the packet's length.
    pub fn render(&self, out: &mut [u8]) -> usize {
        let len = HEADER_LEN + self.question_len;
        out[..len].copy_from_slice(&self.packet[..len]);
        let kept = be16(self.packet, 2) & !(flag::AA | 0x000f);
        let kept = if self.code == rcode::NOTIMP { kept } else { kept & !flag::OPCODE };
        out[2..4].copy_from_slice(&(kept | flag::QR | u16::from(self.code)).to_be_bytes());
        out[4..12].fill(0);
        out[5] = (self.question_len > 0) as u8;
        len
    }
}

fn reject(packet: &[u8], code: u8, question_len: usize) -> Parsed<'_> {
    Parsed::Reject(Reject { packet, code, question_len })
}

fn be16(bytes: &[u8], at: usize) -> u16 {
    u16::from_be_bytes([bytes[at], bytes[at + 1]])
}

/// Length of the uncompressed name at the start of `bytes`; `None` when it is none. A question has
/// nothing before it that a compression pointer could point to.
fn name_len(bytes: &[u8]) -> Option<usize> {
    let mut at = 0;
    loop {
        let label = *bytes.get(at)? as usize;
        at += 1 + label;
        if label > LABEL_LEN_MAX || at > NAME_LEN_MAX {
            return None;
        }
        if label == 0 {
            return Some(at);
        }
    }
}

/// Reads the records after the question for an OPT record; the last one counts. `None`: one is broken. Counts
/// may promise more than there is, when the packet ends between two records.
fn read_records(packet: &[u8], mut at: usize, before_additional: u16, records: u16) -> Option<Option<Edns>> {
    let mut edns = None;
    for i in 0..records {
        if at == packet.len() {
            break;
        }
        let is_root = packet[at] == 0;
        at = skip_name(packet, at)?;
        let fixed = packet.get(at..at + 10)?;
        let (kind, class, len) = (be16(fixed, 0), be16(fixed, 2), be16(fixed, 8) as usize);
        let data = packet.get(at + 10..at + 10 + len)?;
        at += 10 + len;
        if kind == rtype::OPT && is_root && i >= before_additional {
            edns = Some(Edns { udp_size: class, client_subnet: read_options(data)? });
        }
    }
    Some(edns)
}

fn skip_name(packet: &[u8], mut at: usize) -> Option<usize> {
    loop {
        let label = *packet.get(at)? as usize;
        match label {
            0 => return Some(at + 1),
            1..=LABEL_LEN_MAX => at += 1 + label,
            0xc0.. if at + 2 <= packet.len() => return Some(at + 2),
            _ => return None,
        }
    }
}

fn read_options(mut data: &[u8]) -> Option<Option<ClientSubnet>> {
    let mut subnet = None;
    while !data.is_empty() {
        if data.len() < 4 {
            return None;
        }
        let (code, len) = (be16(data, 0), be16(data, 2) as usize);
        let value = data.get(4..4 + len)?;
        if code == OPTION_CLIENT_SUBNET {
            subnet = Some(read_subnet(value)?);
        }
        data = &data[4 + len..];
    }
    Some(subnet)
}

fn read_subnet(value: &[u8]) -> Option<ClientSubnet> {
    if value.len() < 4 {
        return None;
    }
    let (family, prefix_len, scope) = (be16(value, 0), value[2], value[3]);
    let bits_max = match family {
        0 => 0,
        1 => 32,
        2 => 128,
        _ => return None,
    };
    if prefix_len > bits_max || scope > bits_max {
        return None;
    }
    let mut address = [0; 16];
    let octets = (prefix_len as usize).div_ceil(8);
    for (to, from) in address[..octets].iter_mut().zip(&value[4..]) {
        *to = *from;
    }
    if prefix_len % 8 != 0 {
        address[octets - 1] &= 0xff << (8 - prefix_len % 8);
    }
    Some(ClientSubnet { family, prefix_len, address })
}

impl Edns {
    /// Bytes of the OPT record that a reply carries back.
    pub fn reply_len(&self) -> usize {
        11 + self.client_subnet.map_or(0, |s| 8 + (s.prefix_len as usize).div_ceil(8))
    }

    /// Appends the OPT record of a reply at `at` and returns the position after it: the client's own size,
    /// version 0, and its subnet with the scope for which the answer holds.
    pub fn render(&self, scope_is_prefix: bool, out: &mut [u8], at: usize) -> usize {
        out[at..at + 11].copy_from_slice(&[0, 0, 41, 0, 0, 0, 0, 0, 0, 0, 0]);
        out[at + 3..at + 5].copy_from_slice(&self.udp_size.to_be_bytes());
        let Some(subnet) = self.client_subnet else { return at + 11 };
        let octets = (subnet.prefix_len as usize).div_ceil(8);
        out[at + 10] = (8 + octets) as u8;
        let option = &mut out[at + 11..at + 19 + octets];
        option[..2].copy_from_slice(&OPTION_CLIENT_SUBNET.to_be_bytes());
        option[2..4].copy_from_slice(&((4 + octets) as u16).to_be_bytes());
        option[4..6].copy_from_slice(&subnet.family.to_be_bytes());
        option[6] = subnet.prefix_len;
        option[7] = if scope_is_prefix { subnet.prefix_len } else { 0 };
        option[8..].copy_from_slice(&subnet.address[..octets]);
        at + 19 + octets
    }
}
