//! A pool whose members have known each other for long. Simulators and benches begin with it: ten thousand members need not be joined one by
//! one, and what all know alike is held once, until it changes.

use super::Gossip;
use super::member::{Member, Status, Versions};
use super::settings::{Identity, Settings};
use super::table::Table;
use crate::entry::Now;

/// Members that know each other.
#[derive(Clone, Debug)]
pub struct Acquainted(Table);

impl Acquainted {
    /// These; nothing when there is none, or two have the same name.
    pub fn new<'a>(members: impl IntoIterator<Item = &'a Identity>, now: Now) -> Option<Acquainted> {
        let mut members = members.into_iter().map(|identity| member(identity, now));
        let mut table = Table::new(members.next()?);
        for member in members {
            if table.row(&member.name).is_some() {
                return None;
            }
            table.insert(member, None);
        }
        Some(Acquainted(table))
    }
}

impl Gossip {
    /// One of those who know each other. Nothing when it is not among them.
    pub fn among(
        settings: Settings,
        identity: Identity,
        pool: &Acquainted,
        seed: u64,
        now: Now,
    ) -> Option<Gossip> {
        let table = pool.0.of_another(&identity.name)?;
        let mut gossip = Gossip::new(settings, identity, seed, now);
        gossip.table = table;
        // Its first look at the pool is somewhere in the middle of a round, as everybody's is.
        let interval = gossip.exchange_interval();
        gossip.push_pull_at = now + gossip.random.span(interval);
        Some(gossip)
    }
}

/// As its pool knows it.
pub(super) fn member(identity: &Identity, now: Now) -> Member {
    let Identity { name, id, address, tags, incarnation, .. } = identity;
    Member {
        name: name.clone(),
        id: *id,
        address: *address,
        tags: tags.clone(),
        incarnation: *incarnation,
        status: Status::Alive,
        since: now,
        versions: Versions::OWN,
        last_ack: None,
        last_rtt: None,
    }
}
