//! The members that an agent knows, itself among them. It keeps them and their deadlines in order; what may change them is decided in
//! `claims` and `depart`.
//!
//! Rows are shared until they change: thousands of cores in one process that know the same pool hold most of it once (see `acquainted`).

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use super::clock::Time;
use super::member::{Member, NodeId, Status};
use super::message::Alive;
use super::suspicion::Suspicion;
use crate::entry::Now;
use crate::random::Random;

/// Random draws before all are looked at in order.
const DRAWS_PER_PICK: usize = 8;

/// A member and what this agent notes about it.
#[derive(Clone, Debug)]
pub(super) struct Row {
    pub member: Member,
    /// The clock of the newest intent for it.
    pub ltime: Time,
    /// It is to be forgotten as soon as it is gone.
    pub prune: bool,
    pub suspicion: Option<Box<Suspicion>>,
    /// It gets news until then though it is gone.
    pub news_until: Now,
    /// When it is forgotten, once it is gone.
    forget_at: Option<Now>,
    /// Its place among the names.
    place: usize,
}

impl Row {
    /// What it says of itself.
    pub fn alive(&self) -> Alive<'_> {
        let Member { name, id, address, tags, incarnation, versions, .. } = &self.member;
        let (id, address, incarnation, versions) = (*id, *address, *incarnation, *versions);
        Alive { name, id, address, incarnation, versions, tags: tags.view() }
    }

    /// When it is forgotten.
    pub fn forget_at(&self) -> Option<Now> {
        self.forget_at
    }
}

/// All members, in order of their names.
#[derive(Clone, Debug)]
pub(super) struct Table {
    own: Arc<str>,
    rows: BTreeMap<Arc<str>, Arc<Row>>,
    /// Who has which ID: the last that was taken in.
    ids: Arc<BTreeMap<NodeId, Arc<str>>>,
    /// In any order: for random draws.
    names: Arc<Vec<Arc<str>>>,
    live: usize,
    failed: usize,
    /// When suspected members are to be called, or count as failed.
    suspicions: BTreeSet<(Now, Arc<str>)>,
    /// When the gone are forgotten.
    gone: BTreeSet<(Now, Arc<str>)>,
}

impl Table {
    /// Of this agent alone.
    pub fn new(own: Member) -> Table {
        let name = own.name.clone();
        let mut table = Table {
            own: name,
            rows: BTreeMap::new(),
            ids: Arc::default(),
            names: Arc::default(),
            live: 0,
            failed: 0,
            suspicions: BTreeSet::new(),
            gone: BTreeSet::new(),
        };
        table.insert(own, None);
        table
    }

    /// The same members, as one of them knows them.
    pub fn of_another(&self, own: &str) -> Option<Table> {
        let own = self.rows.get_key_value(own)?.0.clone();
        // Made from a sorted list, the nodes of the tree are full.
        let rows = self.rows.iter().map(|(name, row)| (name.clone(), row.clone())).collect();
        let (ids, names) = (self.ids.clone(), self.names.clone());
        let (suspicions, gone) = (self.suspicions.clone(), self.gone.clone());
        Some(Table { own, rows, ids, names, suspicions, gone, ..*self })
    }

    /// This agent.
    pub fn own(&self) -> &Row {
        self.rows.get(&self.own).expect("an agent never forgets itself")
    }

    pub fn own_name(&self) -> &Arc<str> {
        &self.own
    }

    pub fn row(&self, name: &str) -> Option<&Row> {
        self.rows.get(name).map(|row| &**row)
    }

    /// To change anything but status and suspicion.
    pub fn row_mut(&mut self, name: &str) -> Option<&mut Row> {
        self.rows.get_mut(name).map(Arc::make_mut)
    }

    pub fn rows(&self) -> impl Iterator<Item = &Row> {
        self.rows.values().map(|row| &**row)
    }

    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// How many take part, this agent too.
    pub fn live(&self) -> usize {
        self.live
    }

    /// How many have failed and are not forgotten.
    pub fn failed(&self) -> usize {
        self.failed
    }

    /// Who has an ID.
    pub fn holder(&self, id: NodeId) -> Option<&Row> {
        self.row(self.ids.get(&id)?)
    }

    /// Takes in a member that is not here yet.
    pub fn insert(&mut self, member: Member, forget_at: Option<Now>) {
        let name = member.name.clone();
        Arc::make_mut(&mut self.ids).insert(member.id, name.clone());
        self.count(member.status, true);
        if let Some(at) = forget_at {
            self.gone.insert((at, name.clone()));
        }
        let place = self.names.len();
        Arc::make_mut(&mut self.names).push(name.clone());
        let news_until = Now::ZERO;
        let row = Row {
            member,
            ltime: Time::default(),
            prune: false,
            suspicion: None,
            news_until,
            forget_at,
            place,
        };
        let before = self.rows.insert(name, Arc::new(row));
        assert!(before.is_none(), "a member is taken in once");
    }

    /// Forgets a member.
    pub fn remove(&mut self, name: &str) -> Option<Member> {
        assert!(*name != *self.own, "an agent never forgets itself");
        self.end_suspicion(name);
        let row = self.rows.remove(name)?;
        if let Some(at) = row.forget_at {
            self.gone.remove(&(at, row.member.name.clone()));
        }
        self.count(row.member.status, false);
        Arc::make_mut(&mut self.names).swap_remove(row.place);
        if let Some(moved) = self.names.get(row.place) {
            let moved = self.rows.get_mut(moved).expect("names and rows agree");
            Arc::make_mut(moved).place = row.place;
        }
        if self.ids.get(&row.member.id) == Some(&row.member.name) {
            Arc::make_mut(&mut self.ids).remove(&row.member.id);
        }
        Some(Arc::unwrap_or_clone(row).member)
    }

    /// What a member says of itself now.
    pub fn restate(&mut self, alive: &Alive<'_>) {
        let Some(row) = self.rows.get_mut(alive.name) else { return };
        let member = &mut Arc::make_mut(row).member;
        if member.id != alive.id {
            let ids = Arc::make_mut(&mut self.ids);
            if ids.get(&member.id) == Some(&member.name) {
                ids.remove(&member.id);
            }
            ids.insert(alive.id, member.name.clone());
            member.id = alive.id;
        }
        member.address = alive.address;
        member.versions = alive.versions;
        member.incarnation = alive.incarnation;
        if member.tags.view() != alive.tags {
            member.tags = alive.tags.to_owned();
        }
    }

    /// Sets what a member is taken for, and when it is forgotten.
    pub fn set_status(&mut self, name: &str, status: Status, now: Now, forget_at: Option<Now>) {
        let Some(row) = self.row_mut(name) else { return };
        let key = row.member.name.clone();
        let before = std::mem::replace(&mut row.member.status, status);
        if before != status {
            row.member.since = now;
        }
        if let Some(at) = std::mem::replace(&mut row.forget_at, forget_at) {
            self.gone.remove(&(at, key.clone()));
        }
        if let Some(at) = forget_at {
            self.gone.insert((at, key));
        }
        self.count(before, false);
        self.count(status, true);
    }

    fn count(&mut self, status: Status, one_more: bool) {
        let change = |count: &mut usize| if one_more { *count += 1 } else { *count -= 1 };
        if status.is_live() {
            change(&mut self.live);
        } else if status == Status::Failed {
            change(&mut self.failed);
        }
    }

    /// A member is suspected from now on.
    pub fn begin_suspicion(&mut self, name: &str, suspicion: Suspicion) {
        let Some(row) = self.row_mut(name) else { return };
        let deadline = (suspicion.next_at(), row.member.name.clone());
        let before = row.suspicion.replace(Box::new(suspicion));
        assert!(before.is_none(), "a member is suspected once at a time");
        self.suspicions.insert(deadline);
    }

    /// Another suspects it, too. Whether that is news, and counts.
    pub fn confirm_suspicion(&mut self, name: &str, by: &str) -> bool {
        let Some(row) = self.rows.get_mut(name).filter(|row| row.suspicion.is_some()) else { return false };
        let row = Arc::make_mut(row);
        let Some(suspicion) = &mut row.suspicion else { return false };
        let before = suspicion.next_at();
        let counts = suspicion.confirm(by);
        if counts {
            self.suspicions.remove(&(before, row.member.name.clone()));
            self.suspicions.insert((suspicion.next_at(), row.member.name.clone()));
        }
        counts
    }

    /// A suspected member is called before it counts as failed: see [`Suspicion::call`].
    pub fn call(&mut self, name: &Arc<str>, now: Now) -> Option<u32> {
        let suspicion = Arc::make_mut(self.rows.get_mut(name)?).suspicion.as_mut()?;
        self.suspicions.remove(&(suspicion.next_at(), name.clone()));
        let times = suspicion.call(now);
        self.suspicions.insert((suspicion.next_at(), name.clone()));
        times
    }

    /// A member is suspected no more.
    pub fn end_suspicion(&mut self, name: &str) -> Option<Box<Suspicion>> {
        let row = self.rows.get_mut(name).filter(|row| row.suspicion.is_some())?;
        let row = Arc::make_mut(row);
        let suspicion = row.suspicion.take()?;
        self.suspicions.remove(&(suspicion.next_at(), row.member.name.clone()));
        Some(suspicion)
    }

    /// All suspicions last longer by the time in which this agent stood still.
    pub fn delay_suspicions(&mut self, by: Duration) {
        let suspected = std::mem::take(&mut self.suspicions);
        for (deadline, name) in suspected {
            let row = self.rows.get_mut(&name).map(Arc::make_mut);
            if let Some(suspicion) = row.and_then(|row| row.suspicion.as_mut()) {
                suspicion.delay(by);
                assert!(suspicion.next_at() >= deadline, "a delay shortens nothing");
                self.suspicions.insert((suspicion.next_at(), name));
            }
        }
    }

    /// Who is to be called or counts as failed next, and when.
    pub fn next_suspicion(&self) -> Option<&(Now, Arc<str>)> {
        self.suspicions.first()
    }

    /// Who is forgotten next, and when.
    pub fn next_forgotten(&self) -> Option<&(Now, Arc<str>)> {
        self.gone.first()
    }

    /// Up to `count` random others that fit.
    pub fn pick(
        &self,
        random: &mut Random,
        count: usize,
        fits: impl Fn(&Row) -> bool,
    ) -> Vec<(Arc<str>, SocketAddr)> {
        let mut picked: Vec<(Arc<str>, SocketAddr)> = Vec::with_capacity(count);
        let take = |name: &Arc<str>, picked: &mut Vec<(Arc<str>, SocketAddr)>| {
            let row = self.rows.get(name).expect("names and rows agree");
            if *name != self.own && fits(row) && picked.iter().all(|(other, _)| other != name) {
                picked.push((name.clone(), row.member.address));
            }
        };
        for _ in 0..count * DRAWS_PER_PICK {
            if picked.len() == count {
                return picked;
            }
            take(&self.names[random.below(self.names.len())], &mut picked);
        }
        // Few fit: whoever comes after a random place.
        let start = random.below(self.names.len());
        for place in 0..self.names.len() {
            if picked.len() == count {
                break;
            }
            take(&self.names[(start + place) % self.names.len()], &mut picked);
        }
        picked
    }
}

#[cfg(test)]
mod tests {
    use super::super::member::{Tags, Versions};
    use super::super::settings::Settings;
    use super::*;

    fn member(number: u8, status: Status) -> Member {
        Member {
            name: format!("m{number}").into(),
            id: crate::entry::ServerId([number; 16]),
            address: SocketAddr::from(([10, 0, 0, number], 8301)),
            tags: Tags::default(),
            incarnation: 1,
            status,
            since: Now::ZERO,
            versions: Versions::OWN,
            last_ack: None,
            last_rtt: None,
        }
    }

    fn table() -> Table {
        let mut table = Table::new(member(0, Status::Alive));
        (1..6).for_each(|number| table.insert(member(number, Status::Alive), None));
        table
    }

    #[test]
    fn counts_and_places_survive_every_change() {
        let mut table = table();
        table.insert(member(6, Status::Failed), Some(Duration::from_secs(9)));
        assert_eq!((table.len(), table.live(), table.failed()), (7, 6, 1));
        table.set_status("m1", Status::Left, Duration::from_secs(1), Some(Duration::from_secs(5)));
        assert_eq!(table.next_forgotten().map(|(at, name)| (at.as_secs(), &**name)), Some((5, "m1")));
        assert!(table.remove("m1").is_some() && table.remove("m1").is_none());
        table.set_status("m6", Status::Alive, Duration::from_secs(2), None);
        assert_eq!(table.next_forgotten(), None);
        assert_eq!((table.len(), table.live(), table.failed()), (6, 6, 0));
        for (place, name) in table.names.iter().enumerate() {
            assert_eq!(table.rows[name].place, place);
        }
    }

    #[test]
    fn random_draws_find_whoever_fits_and_never_the_agent_itself() {
        let table = table();
        let mut random = Random::new(1);
        assert_eq!(table.pick(&mut random, 9, |_| true).len(), 5);
        let picked = table.pick(&mut random, 3, |row| *row.member.name == *"m4");
        assert_eq!(picked, [("m4".into(), SocketAddr::from(([10, 0, 0, 4], 8301)))]);
        assert!(table.pick(&mut random, 3, |row| *row.member.name == *"m0").is_empty());
    }

    #[test]
    fn suspicions_end_in_the_order_of_their_deadlines() {
        let mut table = table();
        let settings = Settings::lan();
        for (name, secs) in [("m2", 7), ("m3", 5)] {
            let suspicion = Suspicion::new("m1".into(), Duration::from_secs(secs), 6, &settings);
            table.begin_suspicion(name, suspicion);
        }
        assert_eq!(table.next_suspicion().map(|(_, name)| &**name), Some("m3"));
        assert!(table.confirm_suspicion("m2", "m4") && table.confirm_suspicion("m2", "m5"));
        assert_eq!(table.next_suspicion().map(|(_, name)| &**name), Some("m2"));
        table.delay_suspicions(Duration::from_secs(3));
        assert_eq!(
            table.next_suspicion().map(|(at, _)| at.as_secs()),
            Some(12),
            "it is called two seconds before"
        );
        assert!(table.end_suspicion("m2").is_some());
        assert_eq!(table.next_suspicion().map(|(_, name)| &**name), Some("m3"));
    }

    #[test]
    fn ids_follow_what_members_say() {
        let mut table = table();
        let mut renewed = member(1, Status::Alive);
        renewed.id = crate::entry::ServerId([99; 16]);
        let Member { name, id, address, tags, versions, .. } = &renewed;
        let (id, address, versions) = (*id, *address, *versions);
        table.restate(&Alive { name, id, address, incarnation: 2, versions, tags: tags.view() });
        assert!(table.holder(crate::entry::ServerId([1; 16])).is_none());
        assert_eq!(table.holder(id).map(|row| row.member.incarnation), Some(2));
    }
}
