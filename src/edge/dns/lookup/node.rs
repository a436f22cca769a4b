//! `NODE.node`: addresses and metadata of a node.

use std::net::IpAddr;

use muster_protocol::dns::record::{Answer, Data, Owner, Record};
use muster_protocol::dns::{rcode, rtype};

use super::{Lookup, Question, address_record, preferred};
use crate::store::View;
use crate::store::model::Node;
use crate::store::topic::Topic;

/// Metadata keys whose value is told without its key.
const BARE_META_PREFIX: &str = "rfc1035-";

/// Whether a node has anything to say about this type; other questions get an empty answer, even for
/// nodes that are not there (as Consul).
pub(super) fn has_type(qtype: u16) -> bool {
    matches!(qtype, rtype::ANY | rtype::A | rtype::AAAA | rtype::TXT)
}

impl Lookup<'_> {
    pub(super) fn node(&mut self, question: &Question, name: &str) -> Answer {
        if !has_type(question.qtype) {
            return Answer::bare(rcode::NOERROR, true);
        }
        if !self.holds(|| View::node(name)) {
            return self.unknown();
        }
        self.rests_on(Topic::Node(name.into()));
        let Some(node) = self.state.node(name) else { return self.no_such_name() };
        let ttl = self.settings.node_ttl();
        let mut answer = Answer::bare(rcode::NOERROR, true);
        if question.qtype != rtype::TXT {
            self.node_records(node, question, ttl).into_iter().for_each(|record| answer.push(record));
        }
        if matches!(question.qtype, rtype::TXT | rtype::ANY) {
            meta_records(node, &question.owner, ttl).for_each(|record| answer.push(record));
        } else if self.settings.dns.node_meta_txt {
            answer.additional = meta_records(node, &question.owner, ttl).collect();
        }
        answer
    }

    /// The node's address as a record of the question's owner; an alias and what it leads to when it is a name.
    pub(super) fn node_records(&mut self, node: &Node, question: &Question, ttl: u32) -> Vec<Record> {
        let address = node_address(node, question.qtype);
        match address.parse::<IpAddr>() {
            Ok(ip) => address_record(&question.owner, question.qtype, ip, ttl).into_iter().collect(),
            Err(_) => self.alias_records(&node.address, question, ttl),
        }
    }
}

/// The address of a node that a question of `qtype` is told.
pub(super) fn node_address(node: &Node, qtype: u16) -> &str {
    let tagged = node.tagged_addresses.as_ref();
    preferred(qtype, &node.address, |tag| tagged.and_then(|all| all.get(tag)).map(String::as_str))
}

/// The node's metadata as TXT records (RFC 1464).
pub(super) fn meta_records<'n>(
    node: &'n Node,
    owner: &'n Owner,
    ttl: u32,
) -> impl Iterator<Item = Record> + use<'n> {
    node.meta.iter().flatten().map(move |(key, value)| Record {
        owner: owner.clone(),
        ttl,
        data: Data::Txt(meta_text(key, value).into_bytes().into()),
    })
}

/// `key=value`, with a backquote before what RFC 1464 would misread.
fn meta_text(key: &str, value: &str) -> String {
    if key.to_ascii_lowercase().starts_with(BARE_META_PREFIX) {
        return value.to_owned();
    }
    let quoted = key.replace('`', "``").replace('=', "`=");
    let inner = quoted.trim_matches(' ');
    let leading =
        if inner.is_empty() { quoted.len() } else { quoted.len() - quoted.trim_start_matches(' ').len() };
    let trailing = quoted.len() - leading - inner.len();
    let (before, after) = ("` ".repeat(leading), "` ".repeat(trailing));
    format!("{before}{inner}{after}={}", value.replace('`', "``"))
}

#[cfg(test)]
mod tests {
    use super::meta_text;

    #[test]
    fn metadata_is_quoted_as_rfc_1464_says() {
        for (key, value, text) in [
            ("rack", "r1", "rack=r1"),
            ("key=eq", "v=1", "key`=eq=v=1"),
            ("tick`", "b`q", "tick``=b``q"),
            (" lead", "1", "` lead=1"),
            ("trail ", "2", "trail` =2"),
            ("  ", "x", "` ` =x"),
            ("RFC1035-raw", "no `key", "no `key"),
            ("", "v", "=v"),
        ] {
            assert_eq!(meta_text(key, value), text);
        }
    }
}
