//! A small DNS client: questions to wire form, replies to zone-file lines.
//!
//! Written by hand rather than with the library that the agent uses: some questions here are such as no library builds
//! (labels that are too long, broken packets), and a decoder of our own is a second opinion on the agent's.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, Ipv6Addr, TcpStream, UdpSocket};
use std::time::Duration;

pub const OPT: u16 = 41;

const TYPES: &[(&str, u16)] = &[
    ("A", 1),
    ("NS", 2),
    ("CNAME", 5),
    ("SOA", 6),
    ("PTR", 12),
    ("HINFO", 13),
    ("MX", 15),
    ("TXT", 16),
    ("AAAA", 28),
    ("SRV", 33),
    ("NAPTR", 35),
    ("OPT", OPT),
    ("DS", 43),
    ("DNSKEY", 48),
    ("SVCB", 64),
    ("HTTPS", 65),
    ("IXFR", 251),
    ("AXFR", 252),
    ("ANY", 255),
    ("CAA", 257),
];
const CLASSES: &[(&str, u16)] = &[("IN", 1), ("CH", 3), ("HS", 4), ("NONE", 254), ("ANY", 255)];
const RCODES: &[&str] = &["NOERROR", "FORMERR", "SERVFAIL", "NXDOMAIN", "NOTIMP", "REFUSED"];
const FLAGS: &[(&str, u16)] = &[
    ("qr", 0x8000),
    ("aa", 0x400),
    ("tc", 0x200),
    ("rd", 0x100),
    ("ra", 0x80),
    ("z", 0x40),
    ("ad", 0x20),
    ("cd", 0x10),
];
/// More pointers than this in one name is a loop.
const POINTERS_MAX: usize = 64;

/// The number of a record type: `SRV`, or `TYPE33`.
pub fn type_number(name: &str) -> u16 {
    number(TYPES, name, "TYPE")
}

/// The number of a class: `IN`, or `CLASS1`.
pub fn class_number(name: &str) -> u16 {
    number(CLASSES, name, "CLASS")
}

/// The name of a record type.
pub fn type_name(number: u16) -> String {
    name(TYPES, number, "TYPE")
}

fn number(table: &[(&str, u16)], text: &str, prefix: &str) -> u16 {
    let known = table.iter().find(|(name, _)| *name == text).map(|(_, number)| *number);
    let spelled = || text.strip_prefix(prefix).and_then(|digits| digits.parse().ok());
    known.or_else(spelled).unwrap_or_else(|| panic!("unknown {prefix} {text:?}"))
}

fn name(table: &[(&str, u16)], number: u16, prefix: &str) -> String {
    match table.iter().find(|(_, known)| *known == number) {
        Some((name, _)) => (*name).to_owned(),
        None => format!("{prefix}{number}"),
    }
}

/// A question and the header bits around it.
#[derive(Clone, Debug)]
pub struct Question {
    /// Presentation form.
    pub name: String,
    pub kind: u16,
    pub class: u16,
    pub rd: bool,
    pub cd: bool,
    pub ad: bool,
    pub opcode: u16,
    pub edns: Option<Edns>,
}

impl Question {
    pub fn new(name: &str, kind: &str) -> Question {
        let kind = type_number(kind);
        Question { name: name.into(), kind, class: 1, rd: true, cd: false, ad: false, opcode: 0, edns: None }
    }

    pub fn encode(&self, id: u16) -> Vec<u8> {
        let bits = [(self.rd, 0x100), (self.cd, 0x10), (self.ad, 0x20)];
        let flags: u16 = bits.iter().filter(|(set, _)| *set).map(|(_, bit)| bit).sum();
        let flags = flags | (self.opcode & 15) << 11;
        let mut out = Vec::new();
        for word in [id, flags, 1, 0, 0, u16::from(self.edns.is_some())] {
            out.extend(word.to_be_bytes());
        }
        out.extend(wire_name(&self.name));
        out.extend(self.kind.to_be_bytes());
        out.extend(self.class.to_be_bytes());
        if let Some(edns) = &self.edns {
            let options: Vec<u8> = edns
                .options
                .iter()
                .flat_map(|(code, data)| {
                    [&code.to_be_bytes()[..], &(data.len() as u16).to_be_bytes()[..], &data[..]].concat()
                })
                .collect();
            let ttl = u32::from(edns.version) << 16 | if edns.dnssec_ok { 0x8000 } else { 0 };
            out.push(0);
            out.extend(OPT.to_be_bytes());
            out.extend(edns.size.to_be_bytes());
            out.extend(ttl.to_be_bytes());
            out.extend((options.len() as u16).to_be_bytes());
            out.extend(options);
        }
        out
    }

    /// Asks the agent on `port` over UDP; panics without a reply that parses.
    pub fn ask(&self, port: u16) -> Message {
        let packet = exchange(port, &self.encode(0x4d75), false, Duration::from_secs(5));
        Message::parse(&packet.expect("a DNS reply within 5 s")).expect("a DNS reply that parses")
    }
}

/// The OPT record of a question or reply.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Edns {
    pub size: u16,
    pub version: u8,
    pub dnssec_ok: bool,
    pub rcode_high: u8,
    pub options: Vec<(u16, Vec<u8>)>,
}

/// A parsed reply.
#[derive(Clone, Debug, Default)]
pub struct Message {
    pub id: u16,
    pub rcode: String,
    pub opcode: u16,
    /// Those that are set.
    pub flags: Vec<&'static str>,
    /// `name class type`
    pub question: Vec<String>,
    /// Answer, authority, additional: `name ttl class type data`, without the OPT record.
    pub sections: [Vec<String>; 3],
    pub edns: Option<Edns>,
    /// Bytes on the wire.
    pub size: usize,
}

impl Message {
    pub fn answer(&self) -> &[String] {
        &self.sections[0]
    }

    pub fn parse(packet: &[u8]) -> Result<Message, String> {
        let mut reader = Reader { packet, at: 0 };
        let mut words = [0_u16; 6];
        for word in &mut words {
            *word = reader.u16()?;
        }
        let [id, flags, questions, counts @ ..] = words;
        let rcode = usize::from(flags & 15);
        let mut message = Message {
            id,
            rcode: RCODES.get(rcode).map_or_else(|| format!("RCODE{rcode}"), |name| (*name).to_owned()),
            opcode: flags >> 11 & 15,
            flags: FLAGS.iter().filter(|(_, bit)| flags & bit != 0).map(|(name, _)| *name).collect(),
            size: packet.len(),
            ..Message::default()
        };
        for _ in 0..questions {
            let owner = reader.name()?;
            let kind = type_name(reader.u16()?);
            let class = name(CLASSES, reader.u16()?, "CLASS");
            message.question.push(format!("{owner} {class} {kind}"));
        }
        for (section, count) in counts.into_iter().enumerate() {
            for _ in 0..count {
                match reader.record()? {
                    Row::Opt(edns) => message.edns = Some(edns),
                    Row::Line(line) => message.sections[section].push(line),
                }
            }
        }
        Ok(message)
    }
}

enum Row {
    Opt(Edns),
    Line(String),
}

struct Reader<'a> {
    packet: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    fn bytes(&mut self, count: usize) -> Result<&'a [u8], String> {
        let found = self.packet.get(self.at..self.at + count);
        let found =
            found.ok_or_else(|| format!("{count} bytes wanted at {} of {}", self.at, self.packet.len()))?;
        self.at += count;
        Ok(found)
    }

    fn u8(&mut self) -> Result<u8, String> {
        Ok(self.bytes(1)?[0])
    }

    fn u16(&mut self) -> Result<u16, String> {
        Ok(u16::from_be_bytes(self.bytes(2)?.try_into().expect("two bytes")))
    }

    fn u32(&mut self) -> Result<u32, String> {
        Ok(u32::from_be_bytes(self.bytes(4)?.try_into().expect("four bytes")))
    }

    /// A name in presentation form, with its final dot.
    fn name(&mut self) -> Result<String, String> {
        let mut text = String::new();
        let mut after = None;
        for _ in 0..POINTERS_MAX {
            loop {
                let length = self.u8()?;
                match length {
                    0 => {
                        self.at = after.unwrap_or(self.at);
                        return Ok(if text.is_empty() { ".".into() } else { text });
                    }
                    1..=63 => {
                        self.bytes(length.into())?.iter().for_each(|&byte| push_escaped(&mut text, byte));
                        text.push('.');
                    }
                    64..=191 => return Err(format!("label type {length:#x} at {}", self.at - 1)),
                    192.. => {
                        let low = self.u8()?;
                        after.get_or_insert(self.at);
                        self.at = usize::from(length & 0x3f) << 8 | usize::from(low);
                        break;
                    }
                }
            }
        }
        Err("a loop of compression pointers".into())
    }

    fn record(&mut self) -> Result<Row, String> {
        let owner = self.name()?;
        let kind = self.u16()?;
        let class = self.u16()?;
        let ttl = self.u32()?;
        let length = usize::from(self.u16()?);
        let start = self.at;
        let raw = self.bytes(length)?;
        self.at = start;
        let data = self.data(kind, raw)?;
        self.at = start + length;
        if kind == OPT {
            return edns(class, ttl, raw).map(Row::Opt);
        }
        let class = name(CLASSES, class, "CLASS");
        Ok(Row::Line(format!("{owner} {ttl} {class} {} {data}", type_name(kind))))
    }

    fn data(&mut self, kind: u16, raw: &[u8]) -> Result<String, String> {
        Ok(match (kind, raw.len()) {
            (1, 4) => Ipv4Addr::from(<[u8; 4]>::try_from(raw).expect("four bytes")).to_string(),
            (28, 16) => Ipv6Addr::from(<[u8; 16]>::try_from(raw).expect("sixteen bytes")).to_string(),
            (2 | 5 | 12, _) => self.name()?,
            (6, _) => {
                let names = format!("{} {}", self.name()?, self.name()?);
                let mut text = names;
                for _ in 0..5 {
                    text += &format!(" {}", self.u32()?);
                }
                text
            }
            (15, _) => format!("{} {}", self.u16()?, self.name()?),
            (33, _) => format!("{} {} {} {}", self.u16()?, self.u16()?, self.u16()?, self.name()?),
            (16, _) => texts(raw)?,
            _ => format!("\\# {} {}", raw.len(), to_hex(raw)),
        })
    }
}

fn texts(raw: &[u8]) -> Result<String, String> {
    let mut reader = Reader { packet: raw, at: 0 };
    let mut parts = Vec::new();
    while reader.at < raw.len() {
        let length = reader.u8()?;
        let mut text = String::from("\"");
        for &byte in reader.bytes(length.into())? {
            match byte {
                b'"' | b'\\' => text += &format!("\\{byte:03}"),
                32..=126 => text.push(char::from(byte)),
                _ => text += &format!("\\{byte:03}"),
            }
        }
        parts.push(text + "\"");
    }
    Ok(parts.join(" "))
}

fn edns(class: u16, ttl: u32, raw: &[u8]) -> Result<Edns, String> {
    let mut reader = Reader { packet: raw, at: 0 };
    let mut options = Vec::new();
    while reader.at < raw.len() {
        let code = reader.u16()?;
        let length = reader.u16()?;
        options.push((code, reader.bytes(length.into())?.to_vec()));
    }
    let dnssec_ok = ttl & 0x8000 != 0;
    Ok(Edns { size: class, version: (ttl >> 16) as u8, dnssec_ok, rcode_high: (ttl >> 24) as u8, options })
}

fn push_escaped(text: &mut String, byte: u8) {
    match byte {
        b'.' | b'\\' | b'"' | b';' | b'(' | b')' | b'@' | b'$' | b' ' => {
            text.push('\\');
            text.push(char::from(byte));
        }
        33..=126 => text.push(char::from(byte)),
        _ => *text += &format!("\\{byte:03}"),
    }
}

/// A name's wire form. Lengths are not checked: what is too long is sent too long.
pub fn wire_name(name: &str) -> Vec<u8> {
    let mut labels: Vec<Vec<u8>> = vec![Vec::new()];
    let mut bytes = name.bytes().peekable();
    while let Some(byte) = bytes.next() {
        let label = labels.last_mut().expect("there is always a last label");
        match byte {
            b'.' => labels.push(Vec::new()),
            b'\\' => match bytes.next() {
                Some(digit @ b'0'..=b'9') => {
                    let rest = [bytes.next(), bytes.next()].map(|next| next.expect("three digits") - b'0');
                    label.push((digit - b'0') * 100 + rest[0] * 10 + rest[1]);
                }
                Some(other) => label.push(other),
                None => {}
            },
            other => label.push(other),
        }
    }
    let mut out = Vec::new();
    for label in labels.iter().filter(|label| !label.is_empty()) {
        out.push(label.len() as u8);
        out.extend(label);
    }
    out.push(0);
    out
}

/// Sends `packet` to 127.0.0.1 and gives the reply's bytes, or None when nothing came back.
pub fn exchange(port: u16, packet: &[u8], tcp: bool, timeout: Duration) -> Option<Vec<u8>> {
    if tcp {
        return exchange_tcp(port, packet, timeout);
    }
    let socket = UdpSocket::bind("127.0.0.1:0").expect("a UDP socket on loopback");
    socket.set_read_timeout(Some(timeout)).expect("a timeout above zero");
    socket.connect(("127.0.0.1", port)).ok()?;
    socket.send(packet).ok()?;
    let mut reply = vec![0; 65_536];
    let length = socket.recv(&mut reply).ok()?;
    reply.truncate(length);
    Some(reply)
}

fn exchange_tcp(port: u16, packet: &[u8], timeout: Duration) -> Option<Vec<u8>> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).ok()?;
    stream.set_read_timeout(Some(timeout)).expect("a timeout above zero");
    let mut framed = (packet.len() as u16).to_be_bytes().to_vec();
    framed.extend(packet);
    stream.write_all(&framed).ok()?;
    let mut length = [0; 2];
    stream.read_exact(&mut length).ok()?;
    let mut reply = vec![0; u16::from_be_bytes(length).into()];
    stream.read_exact(&mut reply).ok()?;
    Some(reply)
}

pub fn to_hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

pub fn from_hex(text: &str) -> Vec<u8> {
    assert!(text.len().is_multiple_of(2), "an odd number of hex digits: {text}");
    (0..text.len())
        .step_by(2)
        .map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap_or_else(|_| panic!("not hex: {text}")))
        .collect()
}
