//! Queries and their answers as messages.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::{QUERY_LENGTH_MAX, QueryId, RELAYS_MAX, REPLY_LENGTH_MAX, TIMEOUT_MAX};
use crate::gossip::clock::Time;
use crate::gossip::settings::NAME_LENGTH_MAX;
use crate::gossip::{body, packet};
use crate::wire::{Reader, WireError, put_u8, put_u32};

/// The asker wants to know who has its query.
const ACK: u8 = 1;

/// The longest name of a tag, bytes.
const TAG_NAME_LENGTH_MAX: usize = 255;

/// A question.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Query {
    /// Names it.
    pub id: QueryId,
    /// Who asks.
    pub asker: Arc<str>,
    /// Whom it is for.
    pub filters: Filters,
    /// Whether who is asked is to say at once that it has the question.
    pub ack: bool,
    /// Members that relay each answer.
    pub relays: u8,
    /// How long answers are taken, from when it was heard.
    pub timeout: Duration,
    /// What it is about.
    pub name: Arc<str>,
    /// The question.
    pub payload: Bytes,
}

/// Whom a query is for: who fits all of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filters {
    /// One of these members; none: any.
    pub nodes: Vec<String>,
    /// Members of which each of these tags matches the regular expression beside it.
    pub tags: Vec<(String, String)>,
}

impl Filters {
    /// Whether a member is among those that are asked, as far as names tell.
    pub fn may_match(&self, name: &str) -> bool {
        self.nodes.is_empty() || self.nodes.iter().any(|node| node == name)
    }

    fn encode(&self, out: &mut Vec<u8>) -> Option<()> {
        put_u8(out, u8::try_from(self.nodes.len()).ok()?);
        for node in &self.nodes {
            fits(node, NAME_LENGTH_MAX)?;
            body::put_short(out, node.as_bytes());
        }
        put_u8(out, u8::try_from(self.tags.len()).ok()?);
        for (tag, expression) in &self.tags {
            fits(tag, TAG_NAME_LENGTH_MAX)?;
            fits(expression, QUERY_LENGTH_MAX)?;
            body::put_short(out, tag.as_bytes());
            body::put_long(out, expression.as_bytes());
        }
        Some(())
    }

    fn decode(reader: &mut Reader<'_>) -> Result<Filters, WireError> {
        let mut filters = Filters::default();
        for _ in 0..reader.u8()? {
            filters.nodes.push(packet::name(reader)?.to_owned());
        }
        for _ in 0..reader.u8()? {
            let tag = body::text(reader, TAG_NAME_LENGTH_MAX)?.to_owned();
            filters.tags.push((tag, body::long_text(reader, QUERY_LENGTH_MAX)?.to_owned()));
        }
        Ok(filters)
    }
}

fn fits(text: &str, max: usize) -> Option<()> {
    (text.len() <= max).then_some(())
}

impl Query {
    /// Its body, unless it is longer than [`QUERY_LENGTH_MAX`].
    pub fn encode(&self) -> Option<Bytes> {
        let mut out = Vec::new();
        self.id.encode(&mut out);
        put_u8(&mut out, if self.ack { ACK } else { 0 });
        put_u8(&mut out, self.relays);
        put_u32(&mut out, self.timeout.min(TIMEOUT_MAX).as_millis() as u32);
        body::put_short(&mut out, self.asker.as_bytes());
        self.filters.encode(&mut out)?;
        fits(&self.name, QUERY_LENGTH_MAX)?;
        body::put_long(&mut out, self.name.as_bytes());
        if self.payload.len() > QUERY_LENGTH_MAX {
            return None;
        }
        body::put_long(&mut out, &self.payload);
        (out.len() <= QUERY_LENGTH_MAX).then(|| out.into())
    }

    /// Reads a body.
    ///
    /// # Errors
    /// It is no query, or too long for one.
    pub fn decode(bytes: &[u8]) -> Result<Query, WireError> {
        if bytes.len() > QUERY_LENGTH_MAX {
            let length = bytes.len();
            return Err(WireError::TooLong { what: "query", length, max: QUERY_LENGTH_MAX });
        }
        let mut reader = Reader::new(bytes);
        let query = Query {
            id: QueryId::decode(&mut reader)?,
            // Bits that a later version may set mean nothing here.
            ack: reader.u8()? & ACK != 0,
            relays: reader.u8()?.min(RELAYS_MAX),
            timeout: Duration::from_millis(reader.u32()?.into()).min(TIMEOUT_MAX),
            asker: packet::name(&mut reader)?.into(),
            filters: Filters::decode(&mut reader)?,
            name: body::long_text(&mut reader, QUERY_LENGTH_MAX)?.into(),
            payload: Bytes::copy_from_slice(body::long(&mut reader, QUERY_LENGTH_MAX)?),
        };
        reader.end()?;
        Ok(query)
    }
}

impl QueryId {
    fn encode(self, out: &mut Vec<u8>) {
        self.ltime.encode(out);
        put_u32(out, self.number);
    }

    fn decode(reader: &mut Reader<'_>) -> Result<QueryId, WireError> {
        Ok(QueryId { ltime: Time::decode(reader)?, number: reader.u32()? })
    }
}

/// An answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    /// The query.
    pub id: QueryId,
    /// Who answers.
    pub from: Arc<str>,
    /// It only says that the query has come.
    pub ack: bool,
    /// The answer.
    pub payload: Bytes,
}

impl Reply {
    /// How much longer than its payload an answer of this member is, bytes.
    pub fn overhead(from: &str) -> usize {
        8 + 4 + 1 + 1 + from.len() + 2
    }

    /// Its body. Who makes it has seen to its length.
    pub fn encode(&self) -> Bytes {
        let mut out = Vec::new();
        self.id.encode(&mut out);
        put_u8(&mut out, if self.ack { ACK } else { 0 });
        body::put_short(&mut out, self.from.as_bytes());
        body::put_long(&mut out, &self.payload);
        assert_eq!(out.len(), Reply::overhead(&self.from) + self.payload.len());
        out.into()
    }

    /// Reads a body.
    ///
    /// # Errors
    /// It is no answer, or too long for one.
    pub fn decode(bytes: &[u8]) -> Result<Reply, WireError> {
        if bytes.len() > REPLY_LENGTH_MAX {
            let length = bytes.len();
            return Err(WireError::TooLong { what: "answer", length, max: REPLY_LENGTH_MAX });
        }
        let mut reader = Reader::new(bytes);
        let id = QueryId::decode(&mut reader)?;
        let ack = reader.u8()? & ACK != 0;
        let from = packet::name(&mut reader)?.into();
        let payload = Bytes::copy_from_slice(body::long(&mut reader, REPLY_LENGTH_MAX)?);
        reader.end()?;
        Ok(Reply { id, from, ack, payload })
    }
}

/// An answer's body for who is to send it on.
pub(super) fn encode_relay(to: &str, reply: &[u8]) -> Bytes {
    let mut out = Vec::with_capacity(1 + to.len() + reply.len());
    body::put_short(&mut out, to.as_bytes());
    out.extend_from_slice(reply);
    out.into()
}

/// Who is to get which body of an answer. Nothing else is sent on.
pub(super) fn decode_relay(bytes: &[u8]) -> Result<(Arc<str>, Bytes), WireError> {
    let mut reader = Reader::new(bytes);
    let to = packet::name(&mut reader)?;
    let reply = reader.take(reader.remaining())?;
    Reply::decode(reply)?;
    Ok((to.into(), Bytes::copy_from_slice(reply)))
}
