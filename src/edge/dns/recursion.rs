//! Asking recursors: for queries outside our domain, passed on as they came, and for the addresses of names
//! that stand where an address is expected.
//!
//! Each question goes out from a port of its own under a random id. A recursor that does not answer in time, or with
//! an error, gives way to the next one.

use std::net::SocketAddr;
use std::time::Instant;

use domain::base::iana::{Class, Rtype};
use domain::base::{Message, MessageBuilder, Name as DomainName, ParsedName, ToName};
use domain::rdata::{A, Aaaa, Cname};
use futures_lite::{AsyncReadExt, AsyncWriteExt};
use muster_protocol::dns::name::Name;
use muster_protocol::dns::question::{Parsed, Query, parse};
use muster_protocol::dns::record::{Data, Owner, Record};
use muster_protocol::dns::template::size_limit;
use muster_protocol::dns::{HEADER_LEN, MESSAGE_SIZE_MAX, flag, rcode};

use super::settings::DnsSettings;
use crate::runtime::net::{Endpoint, Stream, Udp};
use crate::runtime::random::Rng;
use crate::runtime::time;

/// Most records taken from one reply of a recursor.
const RECORDS_MAX: usize = 64;

/// Passes a query on; the first good reply, or `None` when there is none. The reply carries the query's id and
/// is no larger than its client takes.
pub async fn forward(packet: &[u8], settings: &DnsSettings, tcp: bool) -> Option<Vec<u8>> {
    let Parsed::Query(query) = parse(packet) else { return None };
    for recursor in order(settings) {
        let Some(mut reply) = exchange(packet, recursor, settings, tcp).await else { continue };
        if matches!(reply[3] & 0x0f, rcode::NOERROR | rcode::NXDOMAIN) {
            cut(&mut reply, &query, tcp);
            return Some(reply);
        }
    }
    None
}

/// Asks for the addresses of `name`: the aliases and addresses that the first recursor to answer knows.
pub async fn addresses(name: &Name, settings: &DnsSettings) -> Vec<Record> {
    let Some(packet) = address_question(name) else { return Vec::new() };
    for recursor in order(settings) {
        let mut reply = exchange(&packet, recursor, settings, false).await;
        if reply.as_ref().is_some_and(|reply| flags(reply) & flag::TC != 0) {
            reply = exchange(&packet, recursor, settings, true).await.or(reply);
        }
        if let Some(reply) = reply {
            return read_records(&reply).unwrap_or_default();
        }
    }
    Vec::new()
}

fn order(settings: &DnsSettings) -> Vec<SocketAddr> {
    let mut recursors = settings.recursors.clone();
    if settings.random_recursors {
        Rng::seeded().shuffle(&mut recursors);
    }
    recursors
}

/// One question to one recursor. The reply is one to that question, with the packet's own id.
async fn exchange(packet: &[u8], to: SocketAddr, settings: &DnsSettings, tcp: bool) -> Option<Vec<u8>> {
    let id = Rng::seeded().next_u64() as u16;
    let mut asked = packet.to_vec();
    asked[..2].copy_from_slice(&id.to_be_bytes());
    let deadline = time::now() + settings.recursor_timeout;
    let answered =
        async { if tcp { ask_tcp(&asked, to, deadline).await } else { ask_udp(&asked, to).await } };
    let reply = time::timeout(settings.recursor_timeout, answered).await;
    match reply {
        Some(Ok(mut reply)) => {
            reply[..2].copy_from_slice(&packet[..2]);
            Some(reply)
        }
        Some(Err(error)) => {
            tracing::debug!("recursor {to} failed: {error}; trying the next one");
            None
        }
        None => {
            let patience = settings.recursor_timeout;
            tracing::debug!("recursor {to} did not answer within {patience:?}; trying the next one");
            None
        }
    }
}

async fn ask_udp(asked: &[u8], to: SocketAddr) -> std::io::Result<Vec<u8>> {
    let socket = Udp::connect(to)?;
    socket.send(asked).await?;
    let mut reply = vec![0; MESSAGE_SIZE_MAX];
    loop {
        let (len, _) = socket.recv_from(&mut reply).await?;
        // Anything else may come from somebody who guesses: keep waiting for the real one.
        if is_reply(&reply[..len], asked) {
            reply.truncate(len);
            return Ok(reply);
        }
    }
}

async fn ask_tcp(asked: &[u8], to: SocketAddr, deadline: Instant) -> std::io::Result<Vec<u8>> {
    let patience = deadline.saturating_duration_since(time::now());
    let mut stream = Stream::connect(&Endpoint::Tcp(to), patience).await?;
    let mut framed = Vec::with_capacity(asked.len() + 2);
    framed.extend_from_slice(&(asked.len() as u16).to_be_bytes());
    framed.extend_from_slice(asked);
    stream.write_all(&framed).await?;
    let mut length = [0; 2];
    stream.read_exact(&mut length).await?;
    let mut reply = vec![0; u16::from_be_bytes(length) as usize];
    stream.read_exact(&mut reply).await?;
    if is_reply(&reply, asked) {
        Ok(reply)
    } else {
        Err(std::io::Error::other("the reply is to another question"))
    }
}

/// Whether `reply` answers what was `asked`: same id, and the same question in any letter case.
fn is_reply(reply: &[u8], asked: &[u8]) -> bool {
    let Parsed::Query(query) = parse(asked) else { return false };
    let end = HEADER_LEN + query.question().len();
    reply.len() >= end
        && reply[..2] == asked[..2]
        && flags(reply) & flag::QR != 0
        && reply[HEADER_LEN..end].eq_ignore_ascii_case(query.question())
}

/// Cuts a reply that is larger than the client takes to its question, so that it comes again over TCP.
fn cut(reply: &mut Vec<u8>, query: &Query<'_>, tcp: bool) {
    if reply.len() <= size_limit(query, tcp) {
        return;
    }
    reply.truncate(HEADER_LEN + query.question().len());
    reply[2] |= (flag::TC >> 8) as u8;
    reply[6..HEADER_LEN].fill(0);
}

fn flags(message: &[u8]) -> u16 {
    u16::from_be_bytes([message[2], message[3]])
}

fn address_question(name: &Name) -> Option<Vec<u8>> {
    let name = DomainName::from_octets(name.wire()).ok()?;
    let mut builder = MessageBuilder::new_vec().question();
    builder.header_mut().set_rd(true);
    builder.push((name, Rtype::A, Class::IN)).ok()?;
    Some(builder.finish())
}

/// The aliases and addresses in the answer section.
fn read_records(reply: &[u8]) -> Option<Vec<Record>> {
    let message = Message::from_octets(reply).ok()?;
    let mut records = Vec::new();
    for parsed in message.answer().ok()?.take(RECORDS_MAX) {
        let parsed = parsed.ok()?;
        let data = match parsed.rtype() {
            Rtype::A => Data::A(parsed.to_record::<A>().ok()??.data().addr()),
            Rtype::AAAA => Data::Aaaa(parsed.to_record::<Aaaa>().ok()??.data().addr()),
            Rtype::CNAME => {
                let alias = parsed.to_record::<Cname<ParsedName<&[u8]>>>().ok()??;
                Data::Cname(to_name(alias.data().cname()))
            }
            _ => continue,
        };
        let owner = Owner::Name(to_name(&parsed.owner()));
        records.push(Record { owner, ttl: parsed.ttl().as_secs(), data });
    }
    Some(records)
}

fn to_name(name: &impl ToName) -> Name {
    Name::from_wire(name.to_vec().as_slice())
}
