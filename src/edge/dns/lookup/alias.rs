//! Names where addresses are expected: told as aliases (CNAME), and followed for the client's convenience.

use muster_protocol::dns::name::Name;
use muster_protocol::dns::record::{Data, Owner, Record};
use muster_protocol::dns::rtype;

use super::{Basis, Lookup, Question};
use crate::edge::dns::names::{Zone, zone_of};

/// Most names of one answer that recursors are asked for; further ones are told without their addresses.
const WANTED_MAX: usize = 32;

impl Lookup<'_> {
    /// An alias to `target` and what is known of that name; nothing when it is no DNS name.
    pub(super) fn alias_records(&mut self, target: &str, question: &Question, ttl: u32) -> Vec<Record> {
        let Some(target) = Name::parse(target) else { return Vec::new() };
        let mut records =
            vec![Record { owner: question.owner.clone(), ttl, data: Data::Cname(target.clone()) }];
        records.extend(self.follow(&target, question.aliases_left));
        records
    }

    /// Aliases and addresses of `target`: from our own records when it is in our domain, else from recursors.
    pub(super) fn follow(&mut self, target: &Name, aliases_left: u8) -> Vec<Record> {
        // Such answers rest on several rows or on somebody else's records.
        self.basis = Basis::Once;
        let records = match zone_of(target.wire(), self.settings) {
            Zone::Ours(_) if aliases_left == 0 => Vec::new(),
            Zone::Ours(labels) => {
                let question = Question {
                    name: target.clone(),
                    owner: Owner::Name(target.clone()),
                    qtype: rtype::ANY,
                    edns: false,
                    aliases_left: aliases_left - 1,
                };
                let answer = self.dispatch(&question, &labels);
                answer.groups.into_iter().map(|group| group.answer).collect()
            }
            _ if !self.settings.recursion_available() => Vec::new(),
            _ => self.outside(target),
        };
        let useful = |record: &Record| matches!(record.data, Data::Cname(_) | Data::A(_) | Data::Aaaa(_));
        records.into_iter().filter(useful).collect()
    }

    fn outside(&mut self, target: &Name) -> Vec<Record> {
        if let Some(records) = self.external.get(target) {
            return records.clone();
        }
        if self.wanted.len() < WANTED_MAX && !self.wanted.contains(target) {
            self.wanted.push(target.clone());
        }
        Vec::new()
    }
}
