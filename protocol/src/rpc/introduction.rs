//! How agents learn of one another until there is gossip: one tells another who it is and whom it knows, and is told the
//! same. And how the first servers of a cluster agree that they are it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::entry::{Configuration, ServerId};
use crate::wire::{
    ClusterId, Frame, HELLO_LENGTH_MAX, Kind, Reader, WireError, encode_frame, put_bytes, put_id, put_text,
    put_u8, put_u16, put_u32, put_u64,
};

/// Version of the payloads.
const VERSION: u8 = 1;

/// Servers that one introduction tells of at most; more than any cluster has.
pub const CARDS_MAX: usize = 256;

/// What a card takes at least, bytes.
const CARD_LENGTH_MIN: usize = 50;

/// A server as it shows itself, or as another one tells of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Card {
    /// Who it is, for good.
    pub id: ServerId,
    /// Name of its node.
    pub name: String,
    /// Its datacenter.
    pub datacenter: String,
    /// Its network segment.
    pub segment: String,
    /// Address that it tells others.
    pub ip: IpAddr,
    /// Port at which it is introduced to others.
    pub serf_lan_port: u16,
    /// Port of its links.
    pub server_port: u16,
    /// Port of WAN gossip, if it has one.
    pub wan_join_port: Option<u16>,
    /// It makes itself the first of a cluster.
    pub bootstrap: bool,
    /// How many first servers it waits for; 0 when it waits for none.
    pub expect: u32,
    /// It never votes.
    pub non_voter: bool,
    /// Its cluster, once it has one.
    pub cluster: Option<ClusterId>,
    /// Whether it holds a part of a log.
    pub has_log: bool,
    /// When its process started, milliseconds since 1970: what it said later counts.
    pub started_ms: u64,
    /// How it is: 1 alive, 2 leaving, 3 left, 4 failed, as in Consul.
    pub status: u8,
}

/// What one agent tells another, and the answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Introduction {
    /// Who speaks.
    pub own: Card,
    /// Whom it knows.
    pub others: Vec<Card>,
    /// In an answer: why it wants nothing of the other; else empty.
    pub refusal: String,
}

/// The first servers of a cluster: each one that takes it begins its log with it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Founding {
    /// Name of the new cluster.
    pub cluster: ClusterId,
    /// Its servers.
    pub configuration: Configuration,
}

/// What came in on the port for introductions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Overture {
    /// An agent introduces itself.
    Introduction(Introduction),
    /// The first servers are chosen.
    Founding(Founding),
}

impl Overture {
    /// Reads it from a frame.
    ///
    /// # Errors
    /// The frame is something else.
    pub fn decode(frame: &Frame<'_>) -> Result<Overture, WireError> {
        match frame.kind {
            Kind::INTRODUCTION => Introduction::read(frame).map(Overture::Introduction),
            Kind::BOOTSTRAP => Founding::read(frame).map(Overture::Founding),
            kind => Err(WireError::UnknownKind(kind)),
        }
    }
}

impl Introduction {
    /// Appends it as a frame: of the one who begins, or as the answer.
    pub fn encode(&self, answer: bool, out: &mut Vec<u8>) {
        let kind = if answer { Kind::ACQUAINTANCE } else { Kind::INTRODUCTION };
        let mut told = self.others.len().min(CARDS_MAX);
        loop {
            let start = out.len();
            let encoded = encode_frame(out, kind, VERSION, 0, |out| {
                put_text(out, &self.refusal);
                put_card(out, &self.own);
                put_u32(out, told as u32);
                self.others[..told].iter().for_each(|card| put_card(out, card));
            });
            if encoded.is_ok() && (out.len() - start <= HELLO_LENGTH_MAX || told == 0) {
                return;
            }
            // Names of kilobytes: whoever has them is told of fewer at a time.
            out.truncate(start);
            told /= 2;
        }
    }

    /// Reads an answer from a frame.
    ///
    /// # Errors
    /// The frame is something else.
    pub fn decode_answer(frame: &Frame<'_>) -> Result<Introduction, WireError> {
        match frame.kind {
            Kind::ACQUAINTANCE => Introduction::read(frame),
            kind => Err(WireError::UnknownKind(kind)),
        }
    }

    fn read(frame: &Frame<'_>) -> Result<Introduction, WireError> {
        let mut reader = reader(frame)?;
        let (refusal, own) = (reader.text()?, card(&mut reader)?);
        let count = reader.count(CARDS_MAX, CARD_LENGTH_MIN)?;
        let mut others = Vec::with_capacity(count);
        for _ in 0..count {
            others.push(card(&mut reader)?);
        }
        reader.end()?;
        Ok(Introduction { own, others, refusal })
    }
}

impl Founding {
    /// Appends it as a frame.
    ///
    /// # Errors
    /// More servers than a message has room for.
    pub fn encode(&self, out: &mut Vec<u8>) -> Result<(), WireError> {
        encode_frame(out, Kind::BOOTSTRAP, VERSION, 0, |out| {
            out.extend_from_slice(&self.cluster.0);
            put_u8(out, Configuration::VERSION);
            put_bytes(out, &self.configuration.encode());
        })
    }

    fn read(frame: &Frame<'_>) -> Result<Founding, WireError> {
        let mut reader = reader(frame)?;
        let cluster = ClusterId(reader.id()?.0);
        let version = reader.u8()?;
        let archive = reader.bytes(HELLO_LENGTH_MAX)?;
        reader.end()?;
        let configuration = Configuration::decode(version, archive);
        let configuration =
            configuration.map_err(|_| WireError::Malformed("a list of servers that cannot be read"))?;
        Ok(Founding { cluster, configuration })
    }

    /// Appends the answer: empty, or why it was not taken.
    pub fn encode_answer(refusal: &str, out: &mut Vec<u8>) {
        let encoded = encode_frame(out, Kind::BOOTSTRAPPED, VERSION, 0, |out| put_text(out, refusal));
        encoded.expect("texts are cut to their limit, so it is short");
    }

    /// Reads the answer.
    ///
    /// # Errors
    /// The frame is something else.
    pub fn decode_answer(frame: &Frame<'_>) -> Result<String, WireError> {
        match frame.kind {
            Kind::BOOTSTRAPPED => reader(frame)?.text(),
            kind => Err(WireError::UnknownKind(kind)),
        }
    }
}

fn reader<'a>(frame: &'a Frame<'_>) -> Result<Reader<'a>, WireError> {
    if frame.version > VERSION {
        return Err(WireError::NewerVersion { kind: frame.kind, version: frame.version, known: VERSION });
    }
    Ok(Reader::new(frame.payload()))
}

const BOOTSTRAP: u8 = 1;
const NON_VOTER: u8 = 2;
const IN_CLUSTER: u8 = 4;
const HAS_LOG: u8 = 8;
const HAS_WAN: u8 = 16;

fn put_card(out: &mut Vec<u8>, card: &Card) {
    let mut flags = 0;
    for (set, flag) in [
        (card.bootstrap, BOOTSTRAP),
        (card.non_voter, NON_VOTER),
        (card.cluster.is_some(), IN_CLUSTER),
        (card.has_log, HAS_LOG),
        (card.wan_join_port.is_some(), HAS_WAN),
    ] {
        flags |= if set { flag } else { 0 };
    }
    put_id(out, card.id);
    put_u8(out, flags);
    put_u8(out, card.status);
    put_u64(out, card.started_ms);
    put_ip(out, card.ip);
    put_u16(out, card.serf_lan_port);
    put_u16(out, card.server_port);
    put_u16(out, card.wan_join_port.unwrap_or_default());
    put_u32(out, card.expect);
    out.extend_from_slice(&card.cluster.unwrap_or(ClusterId([0; 16])).0);
    put_text(out, &card.name);
    put_text(out, &card.datacenter);
    put_text(out, &card.segment);
}

fn card(reader: &mut Reader<'_>) -> Result<Card, WireError> {
    let (id, flags, status, started_ms) = (reader.id()?, reader.u8()?, reader.u8()?, reader.u64()?);
    let ip = ip(reader)?;
    let (serf_lan_port, server_port, wan) = (reader.u16()?, reader.u16()?, reader.u16()?);
    let (expect, cluster) = (reader.u32()?, ClusterId(reader.id()?.0));
    let (name, datacenter, segment) = (reader.text()?, reader.text()?, reader.text()?);
    let has = |flag| flags & flag != 0;
    Ok(Card {
        id,
        name,
        datacenter,
        segment,
        ip,
        serf_lan_port,
        server_port,
        wan_join_port: has(HAS_WAN).then_some(wan),
        bootstrap: has(BOOTSTRAP),
        expect,
        non_voter: has(NON_VOTER),
        cluster: has(IN_CLUSTER).then_some(cluster),
        has_log: has(HAS_LOG),
        started_ms,
        status,
    })
}

fn put_ip(out: &mut Vec<u8>, ip: IpAddr) {
    match ip {
        IpAddr::V4(ip) => {
            put_u8(out, 4);
            out.extend_from_slice(&ip.octets());
        }
        IpAddr::V6(ip) => {
            put_u8(out, 6);
            out.extend_from_slice(&ip.octets());
        }
    }
}

fn ip(reader: &mut Reader<'_>) -> Result<IpAddr, WireError> {
    match reader.u8()? {
        4 => Ok(Ipv4Addr::from_bits(reader.u32()?.swap_bytes()).into()),
        6 => reader.id().map(|octets| Ipv6Addr::from(octets.0).into()),
        _ => Err(WireError::Malformed("an address of an unknown family")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::entry::{Server, Suffrage};
    use crate::wire::Decoder;

    fn card(n: u8) -> Card {
        Card {
            id: ServerId([n; 16]),
            name: format!("s{n}"),
            datacenter: "dc1".into(),
            segment: String::new(),
            ip: if n.is_multiple_of(2) {
                IpAddr::from([10, 0, 0, n])
            } else {
                IpAddr::from([0, 1, 2, 3, 4, 5, 6, n.into()])
            },
            serf_lan_port: 8301,
            server_port: 8300,
            wan_join_port: n.is_multiple_of(3).then_some(8302),
            bootstrap: n == 1,
            expect: 3,
            non_voter: n == 2,
            cluster: (n > 2).then_some(ClusterId([9; 16])),
            has_log: n > 3,
            started_ms: 12345,
            status: 1,
        }
    }

    fn frames(bytes: &[u8], mut each: impl FnMut(Frame<'_>)) {
        let mut decoder = Decoder::new(HELLO_LENGTH_MAX);
        let mut bytes = bytes;
        loop {
            while let Some(frame) = decoder.next_frame().expect("sound") {
                each(frame);
            }
            if bytes.is_empty() {
                return;
            }
            let room = decoder.room();
            let length = room.len().min(bytes.len());
            room[..length].copy_from_slice(&bytes[..length]);
            bytes = &bytes[length..];
            decoder.filled(length);
        }
    }

    #[test]
    fn introductions_survive_their_encoding() {
        let said = Introduction { own: card(1), others: (2..9).map(card).collect(), refusal: "no".into() };
        let mut out = Vec::new();
        said.encode(false, &mut out);
        said.encode(true, &mut out);
        let mut seen = 0;
        frames(&out, |frame| {
            seen += 1;
            let heard = match seen {
                1 => Overture::decode(&frame).map(|address| match address {
                    Overture::Introduction(heard) => heard,
                    other => panic!("{other:?}"),
                }),
                _ => Introduction::decode_answer(&frame),
            };
            assert_eq!(heard.as_ref(), Ok(&said));
        });
        assert_eq!(seen, 2);
    }

    #[test]
    fn introductions_stay_within_what_strangers_may_send() {
        let long = Card { name: "n".repeat(4000), ..card(1) };
        let said = Introduction { own: long.clone(), others: vec![long; 100], refusal: String::new() };
        let mut out = Vec::new();
        said.encode(false, &mut out);
        frames(&out, |frame| assert!(Overture::decode(&frame).is_ok()));
    }

    #[test]
    fn foundings_survive_their_encoding() {
        let server = Server {
            id: ServerId([1; 16]),
            name: "a".into(),
            address: "b".into(),
            suffrage: Suffrage::Voter,
        };
        let said = Founding { cluster: ClusterId([3; 16]), configuration: Configuration::new(vec![server]) };
        let mut out = Vec::new();
        said.encode(&mut out).expect("short");
        frames(&out, |frame| assert_eq!(Overture::decode(&frame), Ok(Overture::Founding(said.clone()))));
        out.clear();
        Founding::encode_answer("why", &mut out);
        frames(&out, |frame| assert_eq!(Founding::decode_answer(&frame), Ok("why".into())));
    }
}
