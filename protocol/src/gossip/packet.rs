//! Packets and frames as bytes.
//!
//! ```text
//! 0  version  u8   of the whole packet; a newer one is refused, whatever follows
//! 1  seal     u8   0: plain, 1: sealed with a key
//! 2  crc      u32  of all other bytes, when plain
//! 6  messages      each: kind u8, length u16, body
//! ```
//!
//! A sealed one has no checksum, and ends with a nonce and a tag: see [`seal`](super::seal).
//!
//! Numbers are little-endian; names have their length (one byte) in front; an address is 4 or 6, the IP and the port. A frame on a stream
//! has the same head, then its kind and its body. Messages of a kind that is not known are skipped: members of a later version may say more.
//!
//! Guarantees: no bytes make a reader panic, or allocate more than a few times their length.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use bytes::Bytes;

use super::member::{Status, TagsView, Versions};
use super::message::{
    Ack, Alive, Call, Dead, Frame, Intent, IntentKind, Known, Message, Names, Ping, PingRequest, State,
    Suspect, Tombstone,
};
use super::seal::{self, Sealer};
use super::settings::{
    CONFIRMERS_MAX, FRAME_LENGTH_MAX, INCARNATION_MAX, MEMBERS_MAX, NAME_LENGTH_MAX, PACKET_LENGTH_MAX,
    TAGS_LENGTH_MAX, TOMBSTONES_MAX,
};
use crate::wire::{Reader, WireError, put_id, put_u8, put_u16, put_u32, put_u64};

/// Version of packets and frames.
pub const VERSION: u8 = 1;
const PLAIN: u8 = 0;
const SEALED: u8 = 1;
/// Version and seal.
pub(super) const HEAD_LENGTH: usize = 2;
const CRC_LENGTH: usize = 4;
/// What a seal may add.
pub(super) const SEAL_LENGTH_MAX: usize = seal::OVERHEAD;
/// Messages of one packet, bytes.
pub(super) const BODY_LENGTH_MAX: usize = PACKET_LENGTH_MAX - HEAD_LENGTH - SEAL_LENGTH_MAX;
/// Kind and length in front of a message.
const MESSAGE_HEAD_LENGTH: usize = 3;
/// A network coordinate, encoded, bytes.
const COORDINATE_LENGTH_MAX: usize = 128;
/// The reason of a refusal, bytes.
const REASON_LENGTH_MAX: usize = 1024;
/// A member in a state, bytes: see [`put_alive`] and [`put_known`].
const KNOWN_LENGTH_MAX: usize = NAME_LENGTH_MAX + TAGS_LENGTH_MAX + 64;
/// The least that a member takes in a state.
const KNOWN_LENGTH_MIN: usize = 2 + 16 + 7 + 8 + 3 + 2 + 13;
/// A tombstone in a state, bytes, and the least of it.
const TOMBSTONE_LENGTH_MAX: usize = NAME_LENGTH_MAX + 13;
const TOMBSTONE_LENGTH_MIN: usize = 2 + 12;

const _: () = assert!(CRC_LENGTH <= SEAL_LENGTH_MAX, "what fits sealed fits plain");

/// Why bytes are not believed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unreadable {
    /// A later version of this program has sent them.
    NewerVersion(u8),
    /// They are sealed, and there is no key here.
    Sealed,
    /// They are not sealed, or with none of the keys here.
    NotSealed,
    /// The checksum does not match.
    Damaged,
    /// They do not say what a packet or frame says.
    Malformed(WireError),
}

impl fmt::Display for Unreadable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Unreadable::NewerVersion(version) => write!(
                f,
                "version {version} of gossip, of which this program reads versions up to {VERSION}: upgrade this agent first"
            ),
            Unreadable::Sealed => f.write_str("it is encrypted, and this agent has no key (encrypt)"),
            Unreadable::NotSealed => {
                f.write_str("it is not encrypted with any key of this agent (encrypt, muster keyring -list)")
            }
            Unreadable::Damaged => f.write_str(
                "its checksum does not match: bytes were damaged on the way, or the other side is not Muster",
            ),
            Unreadable::Malformed(why) => why.fmt(f),
        }
    }
}

impl From<WireError> for Unreadable {
    fn from(why: WireError) -> Unreadable {
        Unreadable::Malformed(why)
    }
}

/// Takes the head off a packet or frame that is not sealed.
///
/// # Errors
/// It is not to be believed.
pub fn open_plain(bytes: &[u8]) -> Result<&[u8], Unreadable> {
    if read_seal(bytes)? == SEALED {
        return Err(Unreadable::Sealed);
    }
    let (head, rest) = bytes.split_at(HEAD_LENGTH);
    let short = WireError::Malformed("it ends within its head");
    let (crc, body) = rest.split_first_chunk::<CRC_LENGTH>().ok_or(short)?;
    if checksum(head, body) == u32::from_le_bytes(*crc) { Ok(body) } else { Err(Unreadable::Damaged) }
}

/// Opens a packet or frame that is sealed; its body begins behind [`HEAD_LENGTH`] bytes of `opened`.
///
/// # Errors
/// It is not to be believed: also when it is not sealed at all.
pub(super) fn open_sealed(sealer: &Sealer, bytes: &[u8], opened: &mut Vec<u8>) -> Result<(), Unreadable> {
    if read_seal(bytes)? != SEALED {
        return Err(Unreadable::NotSealed);
    }
    sealer.open(bytes, HEAD_LENGTH, opened).map_err(|_| Unreadable::NotSealed)
}

/// How a packet or frame is sealed.
fn read_seal(bytes: &[u8]) -> Result<u8, Unreadable> {
    match bytes {
        [VERSION, seal @ (PLAIN | SEALED), ..] => Ok(*seal),
        [version, ..] if *version > VERSION => Err(Unreadable::NewerVersion(*version)),
        _ => Err(Unreadable::Malformed(WireError::Malformed("its head is none of gossip"))),
    }
}

/// Puts a head in front of a body and seals both.
pub(super) fn close_sealed(sealer: &mut Sealer, body: &[u8]) -> Bytes {
    let mut bytes = Vec::with_capacity(HEAD_LENGTH + body.len() + SEAL_LENGTH_MAX);
    bytes.extend_from_slice(&[VERSION, SEALED]);
    bytes.extend_from_slice(body);
    sealer.seal(&mut bytes, HEAD_LENGTH);
    bytes.into()
}

/// Puts a head without a seal in front of a body.
pub fn close_plain(body: &[u8]) -> Bytes {
    let head = [VERSION, PLAIN];
    let mut bytes = Vec::with_capacity(HEAD_LENGTH + CRC_LENGTH + body.len());
    bytes.extend_from_slice(&head);
    put_u32(&mut bytes, checksum(&head, body));
    bytes.extend_from_slice(body);
    bytes.into()
}

fn checksum(head: &[u8], body: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(head);
    hasher.update(body);
    hasher.finalize()
}

/// Collects the messages of one packet. Its memory is used again.
#[derive(Debug, Default)]
pub(super) struct PacketWriter {
    body: Vec<u8>,
}

impl PacketWriter {
    pub fn clear(&mut self) {
        self.body.clear();
    }

    pub fn is_empty(&self) -> bool {
        self.body.is_empty()
    }

    /// How much fits, bytes.
    pub fn room(&self) -> usize {
        BODY_LENGTH_MAX - self.body.len()
    }

    /// Adds a message that is known to fit into an empty packet with few others.
    pub fn push(&mut self, message: &Message<'_>) {
        put_message(&mut self.body, message);
        assert!(self.body.len() <= BODY_LENGTH_MAX, "what is sent of one's own accord fits: {message:?}");
    }

    /// Adds a message that [`encode`] has made, if it fits.
    pub fn try_push(&mut self, encoded: &[u8]) -> bool {
        let fits = encoded.len() <= self.room();
        if fits {
            self.body.extend_from_slice(encoded);
        }
        fits
    }

    pub fn body(&self) -> &[u8] {
        &self.body
    }
}

/// A message as it travels within a packet.
pub(super) fn encode(message: &Message<'_>) -> Bytes {
    let mut bytes = Vec::with_capacity(128);
    put_message(&mut bytes, message);
    bytes.into()
}

/// Appends a message as it travels within a packet.
pub fn put_message(out: &mut Vec<u8>, message: &Message<'_>) {
    let start = out.len();
    out.extend_from_slice(&[0; MESSAGE_HEAD_LENGTH]);
    let kind = match message {
        Message::Ping(ping) => (1, put_ping(out, ping)).0,
        Message::PingRequest(request) => {
            put_u32(out, request.token);
            put_name(out, request.target);
            put_name(out, request.from);
            2
        }
        Message::Ack(ack) => (3, put_ack(out, ack)).0,
        Message::Nack { token } => (4, put_u32(out, *token)).0,
        Message::Alive(alive) => (5, put_alive(out, alive)).0,
        Message::Suspect(suspect) => {
            put_name(out, suspect.name);
            put_u64(out, suspect.incarnation);
            put_name(out, suspect.by);
            6
        }
        Message::Dead(dead) => (7, put_dead(out, dead)).0,
        Message::Intent(intent) => {
            put_u64(out, intent.ltime);
            put_u8(out, intent.kind as u8);
            put_name(out, intent.name);
            8
        }
    };
    let length = out.len() - start - MESSAGE_HEAD_LENGTH;
    out[start] = kind;
    out[start + 1..start + MESSAGE_HEAD_LENGTH].copy_from_slice(&(length as u16).to_le_bytes());
}

/// The messages of a packet's body.
#[derive(Clone, Debug)]
pub struct Messages<'a> {
    rest: Reader<'a>,
}

impl<'a> Messages<'a> {
    /// Of the body that [`open_plain`] gave.
    pub fn new(body: &'a [u8]) -> Messages<'a> {
        Messages { rest: Reader::new(body) }
    }

    fn read(&mut self) -> Result<Option<Message<'a>>, WireError> {
        let kind = self.rest.u8()?;
        let length = usize::from(self.rest.u16()?);
        let mut reader = Reader::new(self.rest.take(length)?);
        let message = read_message(kind, &mut reader)?;
        if message.is_some() {
            reader.end()?;
        }
        Ok(message)
    }
}

impl<'a> Iterator for Messages<'a> {
    type Item = Result<Message<'a>, WireError>;

    fn next(&mut self) -> Option<Self::Item> {
        while self.rest.remaining() > 0 {
            match self.read() {
                Ok(Some(message)) => return Some(Ok(message)),
                Ok(None) => {}
                Err(why) => {
                    self.rest = Reader::new(&[]);
                    return Some(Err(why));
                }
            }
        }
        None
    }
}

fn read_message<'a>(kind: u8, reader: &mut Reader<'a>) -> Result<Option<Message<'a>>, WireError> {
    Ok(Some(match kind {
        1 => Message::Ping(read_ping(reader)?),
        2 => Message::PingRequest(PingRequest {
            token: reader.u32()?,
            target: name(reader)?,
            from: name(reader)?,
        }),
        3 => Message::Ack(read_ack(reader)?),
        4 => Message::Nack { token: reader.u32()? },
        5 => Message::Alive(read_alive(reader)?),
        6 => Message::Suspect(Suspect {
            name: name(reader)?,
            incarnation: incarnation(reader)?,
            by: name(reader)?,
        }),
        7 => Message::Dead(read_dead(reader)?),
        8 => {
            let ltime = reader.u64()?;
            let kind = match reader.u8()? {
                1 => IntentKind::Join,
                2 => IntentKind::Leave,
                3 => IntentKind::Prune,
                _ => return Err(WireError::Malformed("an intent that is none")),
            };
            Message::Intent(Intent { ltime, name: name(reader)?, kind })
        }
        _ => return Ok(None),
    }))
}

/// A frame's bytes without their head, of at most [`FRAME_LENGTH_MAX`]: of a state, members and tombstones that do not fit are left out, from
/// the end.
pub fn encode_frame(frame: &Frame<'_>) -> Vec<u8> {
    let mut out = Vec::new();
    match frame {
        Frame::State(state) => {
            out.push(1);
            put_state(&mut out, state);
        }
        Frame::Call(call) => {
            out.push(2);
            put_name(&mut out, call.to);
            put_name(&mut out, call.from);
            put_u64(&mut out, call.suspected);
        }
        Frame::Here(alive) => {
            out.push(3);
            put_alive(&mut out, alive);
        }
        Frame::Refused(why) => {
            out.push(4);
            let reason = &why[..why.floor_char_boundary(REASON_LENGTH_MAX)];
            put_u16(&mut out, reason.len() as u16);
            out.extend_from_slice(reason.as_bytes());
        }
    }
    assert!(out.len() <= FRAME_LENGTH_MAX - SEAL_LENGTH_MAX, "a frame of {} bytes", out.len());
    out
}

/// Reads such bytes.
///
/// # Errors
/// They say something else.
pub fn read_frame(bytes: &[u8]) -> Result<Frame<'_>, WireError> {
    let mut reader = Reader::new(bytes);
    let frame = match reader.u8()? {
        1 => Frame::State(read_state(&mut reader)?),
        2 => {
            let (to, from) = (name(&mut reader)?, name(&mut reader)?);
            Frame::Call(Call { to, from, suspected: incarnation(&mut reader)? })
        }
        3 => Frame::Here(read_alive(&mut reader)?),
        4 => {
            let length = usize::from(reader.u16()?);
            Frame::Refused(text(reader.take(length.min(REASON_LENGTH_MAX))?)?)
        }
        _ => {
            return Err(WireError::Malformed(
                "a frame of a kind that is not known: upgrade this agent first",
            ));
        }
    };
    reader.end()?;
    Ok(frame)
}

fn put_ping(out: &mut Vec<u8>, ping: &Ping<'_>) {
    put_u32(out, ping.token);
    put_name(out, ping.to);
    put_name(out, ping.from);
}

fn read_ping<'a>(reader: &mut Reader<'a>) -> Result<Ping<'a>, WireError> {
    Ok(Ping { token: reader.u32()?, to: name(reader)?, from: name(reader)? })
}

fn put_ack(out: &mut Vec<u8>, ack: &Ack<'_>) {
    put_u32(out, ack.token);
    put_u8(out, ack.coordinate.len() as u8);
    out.extend_from_slice(ack.coordinate);
}

fn read_ack<'a>(reader: &mut Reader<'a>) -> Result<Ack<'a>, WireError> {
    let token = reader.u32()?;
    let length = usize::from(reader.u8()?);
    if length > COORDINATE_LENGTH_MAX {
        return Err(WireError::TooLong { what: "coordinate", length, max: COORDINATE_LENGTH_MAX });
    }
    Ok(Ack { token, coordinate: reader.take(length)? })
}

fn put_alive(out: &mut Vec<u8>, alive: &Alive<'_>) {
    put_name(out, alive.name);
    put_id(out, alive.id);
    put_address(out, alive.address);
    put_u64(out, alive.incarnation);
    let Versions { min, max, current } = alive.versions;
    out.extend_from_slice(&[min, max, current]);
    put_u16(out, alive.tags.bytes().len() as u16);
    out.extend_from_slice(alive.tags.bytes());
}

fn read_alive<'a>(reader: &mut Reader<'a>) -> Result<Alive<'a>, WireError> {
    let (name, id, address) = (name(reader)?, reader.id()?, read_address(reader)?);
    let incarnation = incarnation(reader)?;
    let versions = Versions { min: reader.u8()?, max: reader.u8()?, current: reader.u8()? };
    if !(versions.min..=versions.max).contains(&versions.current) {
        return Err(WireError::Malformed("versions out of order"));
    }
    let length = usize::from(reader.u16()?);
    let tags = TagsView::read(reader.take(length)?).ok_or(WireError::Malformed("tags that are none"))?;
    Ok(Alive { name, id, address, incarnation, versions, tags })
}

fn put_dead(out: &mut Vec<u8>, dead: &Dead<'_>) {
    put_name(out, dead.name);
    put_u64(out, dead.incarnation);
    put_name(out, dead.by);
    put_name(out, dead.suspected_by);
    let count = dead.confirmed_by.iter().take(CONFIRMERS_MAX).count();
    put_u8(out, count as u8);
    dead.confirmed_by.iter().take(count).for_each(|name| put_name(out, name));
}

fn read_dead<'a>(reader: &mut Reader<'a>) -> Result<Dead<'a>, WireError> {
    let (name, incarnation, by) = (name(reader)?, incarnation(reader)?, name(reader)?);
    let suspected_by = name_or_none(reader)?;
    let count = usize::from(reader.u8()?);
    if count > CONFIRMERS_MAX {
        return Err(WireError::TooLong { what: "list of names", length: count, max: CONFIRMERS_MAX });
    }
    let mut names = *reader;
    for _ in 0..count {
        self::name(reader)?;
    }
    let confirmed_by = Names(names.take(reader.position() - names.position())?);
    Ok(Dead { name, incarnation, by, suspected_by, confirmed_by })
}

fn put_state(out: &mut Vec<u8>, state: &State<'_>) {
    put_u8(out, u8::from(state.join));
    state.clocks.iter().for_each(|clock| put_u64(out, *clock));
    let room = FRAME_LENGTH_MAX - SEAL_LENGTH_MAX - HEAD_LENGTH - 64;
    // Tombstones first: they are short, and without them what follows could be taken for news.
    put_list(out, &state.tombstones, room, TOMBSTONE_LENGTH_MAX, |out, tombstone| {
        put_name(out, tombstone.name);
        put_u64(out, tombstone.incarnation);
        put_u32(out, tombstone.age_s);
    });
    put_list(out, &state.members, room, KNOWN_LENGTH_MAX, put_known);
}

/// Appends items with their number in front, as many as fit below `room`.
fn put_list<T>(out: &mut Vec<u8>, items: &[T], room: usize, each: usize, put: impl Fn(&mut Vec<u8>, &T)) {
    let start = out.len();
    put_u32(out, 0);
    let mut count: u32 = 0;
    for item in items {
        if out.len() + each > room {
            break;
        }
        put(out, item);
        count += 1;
    }
    out[start..start + 4].copy_from_slice(&count.to_le_bytes());
}

fn put_known(out: &mut Vec<u8>, known: &Known<'_>) {
    put_alive(out, &known.alive);
    put_u8(out, known.status as u8);
    put_u32(out, known.age_s);
    put_u64(out, known.ltime);
}

fn read_state<'a>(reader: &mut Reader<'a>) -> Result<State<'a>, WireError> {
    let join = reader.bool()?;
    let clocks = [reader.u64()?, reader.u64()?, reader.u64()?];
    let count = reader.count(TOMBSTONES_MAX, TOMBSTONE_LENGTH_MIN)?;
    let mut tombstones = Vec::with_capacity(count);
    for _ in 0..count {
        let (name, incarnation) = (name(reader)?, incarnation(reader)?);
        tombstones.push(Tombstone { name, incarnation, age_s: reader.u32()? });
    }
    let count = reader.count(MEMBERS_MAX, KNOWN_LENGTH_MIN)?;
    let mut members = Vec::with_capacity(count);
    for _ in 0..count {
        let alive = read_alive(reader)?;
        let status = read_status(reader)?;
        members.push(Known { alive, status, age_s: reader.u32()?, ltime: reader.u64()? });
    }
    Ok(State { join, clocks, members, tombstones })
}

fn read_status(reader: &mut Reader<'_>) -> Result<Status, WireError> {
    Ok(match reader.u8()? {
        1 => Status::Alive,
        2 => Status::Suspect,
        3 => Status::Leaving,
        4 => Status::Left,
        5 => Status::Failed,
        _ => return Err(WireError::Malformed("a status that is none")),
    })
}

/// Appends a name.
pub(super) fn put_name(out: &mut Vec<u8>, name: &str) {
    assert!(name.len() <= NAME_LENGTH_MAX, "names are checked where they come in");
    put_u8(out, name.len() as u8);
    out.extend_from_slice(name.as_bytes());
}

/// A name: never empty, never too long, and fit to be shown on a terminal.
pub(super) fn name<'a>(reader: &mut Reader<'a>) -> Result<&'a str, WireError> {
    let name = name_or_none(reader)?;
    if name.is_empty() { Err(WireError::Malformed("an empty name")) } else { Ok(name) }
}

fn name_or_none<'a>(reader: &mut Reader<'a>) -> Result<&'a str, WireError> {
    let length = usize::from(reader.u8()?);
    if length > NAME_LENGTH_MAX {
        return Err(WireError::TooLong { what: "name", length, max: NAME_LENGTH_MAX });
    }
    let name = text(reader.take(length)?)?;
    if name.chars().any(char::is_control) {
        return Err(WireError::Malformed("a name with control characters"));
    }
    Ok(name)
}

fn text(bytes: &[u8]) -> Result<&str, WireError> {
    std::str::from_utf8(bytes).map_err(|_| WireError::Malformed("a text is not UTF-8"))
}

fn incarnation(reader: &mut Reader<'_>) -> Result<u64, WireError> {
    let incarnation = reader.u64()?;
    if incarnation > INCARNATION_MAX {
        return Err(WireError::Malformed("an incarnation that nobody reaches"));
    }
    Ok(incarnation)
}

/// Appends an address.
pub(super) fn put_address(out: &mut Vec<u8>, address: SocketAddr) {
    match address.ip() {
        IpAddr::V4(ip) => {
            put_u8(out, 4);
            out.extend_from_slice(&ip.octets());
        }
        IpAddr::V6(ip) => {
            put_u8(out, 6);
            out.extend_from_slice(&ip.octets());
        }
    }
    put_u16(out, address.port());
}

/// An address.
pub(super) fn read_address(reader: &mut Reader<'_>) -> Result<SocketAddr, WireError> {
    let ip = match reader.u8()? {
        4 => {
            let mut octets = [0; 4];
            octets.copy_from_slice(reader.take(4)?);
            IpAddr::V4(Ipv4Addr::from(octets))
        }
        6 => {
            let mut octets = [0; 16];
            octets.copy_from_slice(reader.take(16)?);
            IpAddr::V6(Ipv6Addr::from(octets))
        }
        _ => return Err(WireError::Malformed("an address of no known family")),
    };
    Ok(SocketAddr::new(ip, reader.u16()?))
}
