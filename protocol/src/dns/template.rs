//! An [`Answer`] in wire form, ready to be sent again and again: each sending copies it, shuffles it, cuts it to the
//! client's size and patches what belongs to the query (id, flags, question in the client's letter case, SOA
//! serial, OPT). Sending neither allocates nor fails.
//!
//! Compression: owner names are pointers to the question or to the SRV target they belong to. Names inside records
//! are written out, as RFC 2782 asks for SRV and as Consul does.
//!
//! Cutting follows Consul: over plain UDP a limit on the number of answers; then as many answers as fit; when anything
//! was cut, the authority section goes, and of the additional section only the first record of each
//! SRV target stays. Beyond Consul, no reply is ever larger than its client takes: when a single answer
//! does not fit, additional records are left out, and if that does not help, the answer is, with TC set.

use super::question::{Edns, Query};
use super::record::{Answer, Data, Owner, Record};
use super::{HEADER_LEN, MESSAGE_SIZE_MAX, TCP_SIZE_MAX, UDP_PLAIN_SIZE_MAX, UDP_SIZE_MAX, flag};

/// Most answers in one reply (as Consul: more cannot fit 64 KiB).
pub const GROUPS_MAX: usize = 4096;
/// Most answers over plain UDP, whatever `udp_answer_limit` says (as Consul).
pub const UDP_ANSWERS_MAX: usize = 8;

/// Offsets above this cannot be pointed to (RFC 1035 section 4.1.4).
const POINTER_MAX: usize = 0x3fff;
/// Pointer to the question's name.
const QUESTION_POINTER: [u8; 2] = [0xc0, HEADER_LEN as u8];
/// Type, class, TTL and length of a record.
const FIXED_LEN: usize = 10;
/// Priority, weight and port before the target of an SRV record.
const SRV_FIXED_LEN: usize = 6;
/// An A record whose owner is a pointer.
const A_LEN: usize = 16;
/// Longest string inside a TXT record (RFC 1035 section 3.3).
const TXT_STRING_MAX: usize = 255;

/// How a reply may look for one transport.
#[derive(Clone, Copy, Debug)]
pub struct Terms {
    /// Whether it goes over TCP.
    pub tcp: bool,
    /// Most answers over plain UDP (`udp_answer_limit`).
    pub udp_answers_max: usize,
    /// Whether TC is set when answers were cut (`enable_truncate`).
    pub mark_truncated: bool,
    /// Serial of SOA records: Unix time in seconds.
    pub serial: u32,
}

/// See the module's text.
#[derive(Debug)]
pub struct Template {
    flags: u16,
    compressed: bool,
    subnet_matters: bool,
    bytes: Box<[u8]>,
    groups: Box<[Group]>,
    extras: Box<[Piece]>,
    authority: Box<[Piece]>,
    additional: Box<[Piece]>,
    /// Permutation of the groups; left as the last reply had it, which is as good a start as any.
    order: Box<[u16]>,
    shuffled: bool,
    shown_max: usize,
    udp_limited: bool,
    /// Size of everything but header, question and OPT: on the wire, and with all names written out.
    total: Size,
    /// All answers are A records of [`A_LEN`] bytes at the start of `bytes`, without extras.
    uniform: bool,
}

#[derive(Clone, Copy, Debug, Default)]
struct Size {
    wire: usize,
    plain: usize,
}

impl Size {
    fn add(&mut self, other: Size) {
        self.wire += other.wire;
        self.plain += other.plain;
    }
}

/// One record in `bytes`.
#[derive(Clone, Copy, Debug)]
struct Piece {
    start: u32,
    len: u32,
    owner: PieceOwner,
    /// Length of the owner written out.
    owner_len: u16,
    soa: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum PieceOwner {
    /// Pointer to (or copy of) the question's name.
    Question,
    /// Pointer to the target of the group's SRV record.
    Target,
    /// Written out in `bytes`.
    Literal,
}

#[derive(Clone, Copy, Debug)]
struct Group {
    answer: Piece,
    extras_start: u32,
    extras_len: u16,
}

impl Piece {
    fn size(&self, compressed: bool) -> Size {
        let rest = self.len as usize - self.stored_owner_len();
        let plain = rest + self.owner_len as usize;
        Size { wire: if compressed { self.len as usize } else { plain }, plain }
    }

    fn stored_owner_len(&self) -> usize {
        if self.owner == PieceOwner::Literal { self.owner_len as usize } else { 2 }
    }
}

/// What one reply takes from a template.
struct Cut {
    /// Number of groups.
    shown: usize,
    /// Whether groups were left out.
    truncated: bool,
    /// Whether authority goes and each group keeps one extra at most.
    reduced: bool,
    /// Whether every extra and additional record must be measured before it is written.
    tight: bool,
}

impl Template {
    /// Compiles an answer for a question whose name has `name_len` octets. Without `compressed` all names are
    /// written out.
    pub fn compile(answer: &Answer, name_len: usize, compressed: bool) -> Template {
        let mut writer = Writer { bytes: Vec::new(), name_len, compressed };
        let shown = &answer.groups[..answer.groups.len().min(u16::MAX as usize)];
        let pieces: Vec<Piece> = shown.iter().map(|group| writer.piece(&group.answer, None)).collect();
        let uniform = compressed
            && pieces.iter().all(|p| p.owner == PieceOwner::Question && p.len as usize == A_LEN)
            && shown.iter().all(|group| group.extra.is_empty() && matches!(group.answer.data, Data::A(_)));
        let mut extras = Vec::new();
        let mut groups = Vec::with_capacity(shown.len());
        for (group, piece) in shown.iter().zip(pieces) {
            let extras_start = extras.len() as u32;
            extras.extend(group.extra.iter().map(|record| writer.piece(record, Some(&group.answer))));
            let extras_len = group.extra.len() as u16;
            groups.push(Group { answer: piece, extras_start, extras_len });
        }
        let authority: Box<[Piece]> = answer.authority.iter().map(|r| writer.piece(r, None)).collect();
        let additional: Box<[Piece]> = answer.additional.iter().map(|r| writer.piece(r, None)).collect();
        let mut total = Size::default();
        let all = groups.iter().map(|g| &g.answer).chain(&extras).chain(&authority).chain(&additional);
        all.for_each(|piece| total.add(piece.size(compressed)));
        Template {
            flags: answer.flags(),
            compressed,
            subnet_matters: answer.subnet_matters,
            bytes: writer.bytes.into(),
            order: (0..groups.len() as u16).collect(),
            shuffled: answer.shuffled && groups.len() > 1,
            shown_max: answer.groups_max.unwrap_or(GROUPS_MAX).min(GROUPS_MAX),
            udp_limited: answer.udp_limited,
            groups: groups.into(),
            extras: extras.into(),
            authority,
            additional,
            total,
            uniform,
        }
    }

    /// Memory it holds, roughly, in bytes.
    pub fn weight(&self) -> usize {
        let pieces = self.extras.len() + self.authority.len() + self.additional.len();
        self.bytes.len()
            + self.groups.len() * (size_of::<Group>() + 2)
            + pieces * size_of::<Piece>()
            + size_of::<Template>()
    }

    /// Writes the reply to `query` into `out` and returns its length. `random` gives uniform 32-bit numbers.
    ///
    /// # Panics
    /// When `out` is shorter than a plain UDP message: that is a bug of the caller.
    pub fn render(
        &mut self,
        query: &Query<'_>,
        terms: &Terms,
        random: &mut impl FnMut() -> u32,
        out: &mut [u8],
    ) -> usize {
        assert!(out.len() >= UDP_PLAIN_SIZE_MAX, "no room for a DNS message");
        let limit = size_limit(query, terms.tcp).min(out.len());
        let shown = self.groups.len().min(self.shown_max);
        if self.shuffled {
            shuffle(&mut self.order, shown, random);
        }
        let cut = self.cut(query, terms, limit, shown);
        self.write(query, terms, &cut, limit, out)
    }

    /// Decides how much of the answer the client gets.
    fn cut(&self, query: &Query<'_>, terms: &Terms, limit: usize, shown: usize) -> Cut {
        let opt_len = query.edns.map_or(0, |edns| edns.reply_len());
        let around = HEADER_LEN + query.question().len() + opt_len;
        let answers_max = terms.udp_answers_max.min(UDP_ANSWERS_MAX);
        let few = self.udp_limited && !terms.tcp && !query.takes_large_udp() && shown > answers_max;
        if !few && around + self.total.wire <= limit && around + self.total.wire <= POINTER_MAX {
            return Cut { shown, truncated: false, reduced: false, tight: false };
        }
        let counted = if few { answers_max } else { shown };
        // Beyond the reach of pointers sizes are taken with all names written out: never too small.
        let plain = few || around + self.total.wire > POINTER_MAX;
        if !few && shown < self.groups.len() {
            let sum = self.sum(shown, plain, false) + self.sum_fixed(plain);
            if around + sum <= limit {
                return Cut { shown, truncated: false, reduced: false, tight: false };
            }
        } else if !few && around + self.total.plain <= limit {
            return Cut { shown, truncated: false, reduced: false, tight: false };
        }
        let fits = self.fitting(counted, plain, limit.saturating_sub(around));
        Cut { shown: fits, truncated: fits < shown, reduced: shown > 1, tight: true }
    }

    /// How many of the first `count` groups fit `budget`, each with one extra; at least one where there is one.
    fn fitting(&self, count: usize, plain: bool, budget: usize) -> usize {
        let mut used = 0;
        for (n, &index) in self.order[..count].iter().enumerate() {
            used += self.group_size(index, plain, true);
            if used > budget {
                return n.max(1);
            }
        }
        count
    }

    fn sum(&self, count: usize, plain: bool, reduced: bool) -> usize {
        self.order[..count].iter().map(|&index| self.group_size(index, plain, reduced)).sum()
    }

    fn sum_fixed(&self, plain: bool) -> usize {
        let size = |piece: &Piece| pick(piece.size(self.compressed), plain);
        self.authority.iter().chain(&self.additional).map(size).sum()
    }

    fn group_size(&self, index: u16, plain: bool, reduced: bool) -> usize {
        let group = &self.groups[index as usize];
        let mut size = pick(group.answer.size(self.compressed), plain);
        for piece in self.extras_of(group, reduced) {
            size += pick(piece.size(self.compressed), plain);
        }
        size
    }

    fn extras_of(&self, group: &Group, reduced: bool) -> &[Piece] {
        let len = if reduced { group.extras_len.min(1) } else { group.extras_len };
        &self.extras[group.extras_start as usize..][..len as usize]
    }

    fn write(&self, query: &Query<'_>, terms: &Terms, cut: &Cut, limit: usize, out: &mut [u8]) -> usize {
        let mut shown = cut.shown;
        let question = query.question();
        let mut at = HEADER_LEN + question.len();
        out[HEADER_LEN..at].copy_from_slice(question);
        let mut put = Put { template: self, name: query.name(), serial: terms.serial, out };
        let opt_len = query.edns.map_or(0, |edns| edns.reply_len());
        let room = if cut.tight { limit - opt_len } else { usize::MAX };
        let mut lost = false;
        if self.uniform {
            at = put.uniform(shown, at);
        } else {
            for (n, &index) in self.order[..shown].iter().enumerate() {
                match put.piece(&self.groups[index as usize].answer, None, at, room) {
                    Some(next) => at = next,
                    None => {
                        (shown, lost) = (n, true);
                        break;
                    }
                }
            }
        }
        let mut authorities = 0u16;
        if !cut.reduced {
            authorities = put.all(&self.authority, &mut at, room);
        }
        let mut additionals = put.extras(shown, cut.reduced, question.len(), &mut at, room);
        if !cut.reduced {
            additionals += put.all(&self.additional, &mut at, room);
        }
        if let Some(edns) = &query.edns {
            at = edns.render(self.subnet_matters, out, at);
            additionals += 1;
        }
        let mut flags = self.flags | query.reply_flags();
        if lost || (cut.truncated && terms.mark_truncated) {
            flags |= flag::TC;
        }
        let head = [query.id(), flags, 1, shown as u16, authorities, additionals];
        for (slot, value) in out[..HEADER_LEN].chunks_exact_mut(2).zip(head) {
            slot.copy_from_slice(&value.to_be_bytes());
        }
        at
    }
}

/// Writes pieces of a template into a reply.
struct Put<'a, 'o> {
    template: &'a Template,
    name: &'a [u8],
    serial: u32,
    out: &'o mut [u8],
}

impl Put<'_, '_> {
    fn uniform(&mut self, shown: usize, at: usize) -> usize {
        let end = at + shown * A_LEN;
        let slots = self.out[at..end].chunks_exact_mut(A_LEN);
        let (records, _) = self.template.bytes.as_chunks::<A_LEN>();
        for (slot, &index) in slots.zip(&self.template.order) {
            slot.copy_from_slice(&records[index as usize]);
        }
        end
    }

    /// Writes one record at `at`; `None` when it would end behind `room`. `target` is where its owner stands.
    fn piece(
        &mut self,
        piece: &Piece,
        target: Option<(usize, usize)>,
        mut at: usize,
        room: usize,
    ) -> Option<usize> {
        let start = piece.start as usize;
        let mut stored = &self.template.bytes[start..start + piece.len as usize];
        let written_out = match (piece.owner, target) {
            (PieceOwner::Question, _) => !self.template.compressed,
            (PieceOwner::Target, Some((position, _))) => position > POINTER_MAX,
            _ => false,
        };
        if written_out {
            stored = &stored[2..];
            if at + piece.owner_len as usize + stored.len() > room {
                return None;
            }
            match target {
                Some((position, len)) => self.out.copy_within(position..position + len, at),
                None => self.out[at..at + self.name.len()].copy_from_slice(self.name),
            }
            at += piece.owner_len as usize;
        } else if at + stored.len() > room {
            return None;
        }
        let end = at + stored.len();
        self.out[at..end].copy_from_slice(stored);
        if let (PieceOwner::Target, Some((position, _)), false) = (piece.owner, target, written_out) {
            self.out[at..at + 2].copy_from_slice(&(0xc000 | position as u16).to_be_bytes());
        }
        if piece.soa {
            self.out[end - 20..end - 16].copy_from_slice(&self.serial.to_be_bytes());
        }
        Some(end)
    }

    /// Writes records that belong to no group, as far as there is room; returns how many.
    fn all(&mut self, pieces: &[Piece], at: &mut usize, room: usize) -> u16 {
        let mut count = 0;
        for piece in pieces {
            if let Some(next) = self.piece(piece, None, *at, room) {
                *at = next;
                count += 1;
            }
        }
        count
    }

    /// Writes the extras of the groups shown, as far as there is room; returns how many.
    fn extras(
        &mut self,
        shown: usize,
        reduced: bool,
        question_len: usize,
        at: &mut usize,
        room: usize,
    ) -> u16 {
        let template = self.template;
        if template.extras.is_empty() {
            return 0;
        }
        let mut count = 0;
        let mut position = HEADER_LEN + question_len;
        for &index in &template.order[..shown] {
            let group = &template.groups[index as usize];
            let answer_len = group.answer.size(template.compressed).wire;
            let owner_len = answer_len - (group.answer.len as usize - group.answer.stored_owner_len());
            let fixed = owner_len + FIXED_LEN + SRV_FIXED_LEN;
            let target = (position + fixed, answer_len.saturating_sub(fixed));
            for piece in template.extras_of(group, reduced) {
                let owner = (piece.owner == PieceOwner::Target).then_some(target);
                if let Some(next) = self.piece(piece, owner, *at, room) {
                    *at = next;
                    count += 1;
                }
            }
            position += answer_len;
        }
        count
    }
}

/// Lays records down in wire form.
struct Writer {
    bytes: Vec<u8>,
    name_len: usize,
    compressed: bool,
}

impl Writer {
    fn piece(&mut self, record: &Record, group: Option<&Record>) -> Piece {
        let start = self.bytes.len();
        let (owner, owner_len) = self.owner(&record.owner, group);
        self.bytes.extend_from_slice(&record.data.rtype().to_be_bytes());
        self.bytes.extend_from_slice(&1u16.to_be_bytes());
        self.bytes.extend_from_slice(&record.ttl.to_be_bytes());
        let length_at = self.bytes.len();
        self.bytes.extend_from_slice(&[0, 0]);
        self.data(&record.data);
        let length = (self.bytes.len() - length_at - 2).min(u16::MAX as usize);
        self.bytes.truncate(length_at + 2 + length);
        self.bytes[length_at..length_at + 2].copy_from_slice(&(length as u16).to_be_bytes());
        Piece {
            start: start as u32,
            len: (self.bytes.len() - start) as u32,
            owner,
            owner_len: owner_len as u16,
            soa: matches!(record.data, Data::Soa(_)),
        }
    }

    fn owner(&mut self, owner: &Owner, group: Option<&Record>) -> (PieceOwner, usize) {
        match (owner, group.map(|record| &record.data)) {
            // The root is shorter than a pointer to it; everywhere else sizes rely on pointers being the shorter form.
            (Owner::Question, _) if self.name_len == 1 => {
                self.bytes.push(0);
                (PieceOwner::Literal, 1)
            }
            (Owner::Question, _) => {
                self.bytes.extend_from_slice(&QUESTION_POINTER);
                (PieceOwner::Question, self.name_len)
            }
            (Owner::Name(name), Some(Data::Srv { target, .. }))
                if self.compressed && target.wire() == name.wire() && name.wire().len() > 1 =>
            {
                self.bytes.extend_from_slice(&[0, 0]);
                (PieceOwner::Target, name.wire().len())
            }
            (Owner::Name(name), _) => {
                self.bytes.extend_from_slice(name.wire());
                (PieceOwner::Literal, name.wire().len())
            }
        }
    }

    fn data(&mut self, data: &Data) {
        let bytes = &mut self.bytes;
        match data {
            Data::A(ip) => bytes.extend_from_slice(&ip.octets()),
            Data::Aaaa(ip) => bytes.extend_from_slice(&ip.octets()),
            Data::Cname(name) | Data::Ptr(name) | Data::Ns(name) => bytes.extend_from_slice(name.wire()),
            Data::Txt(text) if text.is_empty() => bytes.push(0),
            Data::Txt(text) => {
                for part in text.chunks(TXT_STRING_MAX) {
                    bytes.push(part.len() as u8);
                    bytes.extend_from_slice(part);
                }
            }
            Data::Srv { priority, weight, port, target } => {
                for value in [priority, weight, port] {
                    bytes.extend_from_slice(&value.to_be_bytes());
                }
                bytes.extend_from_slice(target.wire());
            }
            Data::Soa(soa) => {
                bytes.extend_from_slice(soa.primary.wire());
                bytes.extend_from_slice(soa.mailbox.wire());
                for value in [0, soa.refresh, soa.retry, soa.expire, soa.minimum] {
                    bytes.extend_from_slice(&value.to_be_bytes());
                }
            }
            Data::Other { data, .. } => bytes.extend_from_slice(data),
        }
    }
}

/// The largest reply that the client takes.
pub fn size_limit(query: &Query<'_>, tcp: bool) -> usize {
    const { assert!(UDP_SIZE_MAX < MESSAGE_SIZE_MAX && TCP_SIZE_MAX < MESSAGE_SIZE_MAX) };
    if tcp {
        return TCP_SIZE_MAX;
    }
    let told = query.edns.map_or(0, |edns: Edns| edns.udp_size as usize);
    told.clamp(UDP_PLAIN_SIZE_MAX, UDP_SIZE_MAX)
}

/// Puts a random choice of `count` elements, in random order, at the front (Fisher and Yates).
pub fn shuffle(order: &mut [u16], count: usize, random: &mut impl FnMut() -> u32) {
    let len = order.len();
    for i in 0..count.min(len.saturating_sub(1)) {
        let below = ((u64::from(random()) * (len - i) as u64) >> 32) as usize;
        order.swap(i, i + below);
    }
}

fn pick(size: Size, plain: bool) -> usize {
    if plain { size.plain } else { size.wire }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::super::question::{Parsed, parse};
    use super::*;

    /// Found by the fuzzer: for a question about the root a pointer (2 octets) is longer than the name (1), so 32
    /// addresses counted with their names written out seemed to fit 512 octets and did not.
    #[test]
    fn answers_about_the_root_fit_too() {
        let packet = [0, 7, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 1];
        let Parsed::Query(query) = parse(&packet) else { panic!("a query about the root") };
        let group = |number: u32| super::super::record::Group {
            answer: Record { owner: Owner::Question, ttl: 0, data: Data::A(Ipv4Addr::from(number)) },
            extra: Vec::new(),
        };
        let answer = Answer { groups: (0..32).map(group).collect(), ..Answer::default() };
        let terms = Terms { tcp: false, udp_answers_max: 3, mark_truncated: true, serial: 0 };
        for compressed in [true, false] {
            let mut out = [0; 4096];
            let length =
                Template::compile(&answer, 1, compressed).render(&query, &terms, &mut || 1, &mut out);
            assert!(length <= 512, "{length} octets");
        }
    }
}
