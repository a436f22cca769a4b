//! The members that are known, as a value that all cores read.
//!
//! A roster shares all that has not changed with the one before it: ten thousand members cost no more to publish than one, and
//! [`Roster::changes_since`] says what differs without looking at the rest.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use imbl::OrdMap;
use imbl::ordmap::DiffItem;
use muster_protocol::entry::ServerId;
use muster_protocol::gossip::Tags;

use super::facts::ServerFacts;

/// The members that this agent knows, itself among them, in order of their names. A clone shares all.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Roster {
    members: OrdMap<Arc<str>, Arc<Member>>,
    /// Those of them that are servers.
    servers: OrdMap<Arc<str>, Arc<Member>>,
}

/// A member as it was last heard of.
#[derive(Clone, Debug, PartialEq)]
pub struct Member {
    /// Who it is, for good.
    pub id: ServerId,
    /// Name of its node.
    pub name: Arc<str>,
    /// Address that it tells others.
    pub ip: IpAddr,
    /// Its port of LAN gossip.
    pub serf_lan_port: u16,
    /// What it says of itself; names that begin with `_` are between Muster's agents only.
    pub tags: Tags,
    /// What a server says; `None` for a client.
    pub server: Option<Arc<ServerFacts>>,
    /// Counts what it says of itself; it rises with each of its lives.
    pub incarnation: u64,
    /// How it is.
    pub status: MemberStatus,
    /// Since when it is so, since 1970 by the clock of this agent.
    pub since: Duration,
    /// On what grounds it is suspected or has failed; nothing of who is well.
    pub evidence: Option<Arc<Evidence>>,
}

/// On what grounds a member is suspected, or was declared failed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Evidence {
    /// Who got no answer first; unknown when the failure was learned with the state of another.
    pub suspected_by: Option<Arc<str>>,
    /// Who said so independently.
    pub confirmed_by: Vec<Arc<str>>,
    /// Who declared it failed; nobody while it is only suspected.
    pub declared_by: Option<Arc<str>>,
    /// When it last answered this agent, since 1970.
    pub last_ack: Option<Duration>,
    /// How long that answer took.
    pub last_rtt: Option<Duration>,
}

/// How a member is; the numbers are Consul's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum MemberStatus {
    /// It answers, or is only suspected not to.
    Alive = 1,
    /// It is about to leave.
    Leaving = 2,
    /// It left.
    Left = 3,
    /// It does not answer.
    Failed = 4,
}

/// What differs between two rosters.
#[derive(Clone, Copy, Debug)]
pub enum Difference<'a> {
    /// It is there now.
    Came(&'a Arc<Member>),
    /// It is another now.
    Changed {
        /// As it was.
        old: &'a Arc<Member>,
        /// As it is.
        new: &'a Arc<Member>,
    },
    /// It is forgotten.
    Went(&'a Arc<Member>),
}

impl Member {
    /// Its datacenter.
    pub fn datacenter(&self) -> &str {
        self.tags.get("dc").unwrap_or_default()
    }

    /// Its network segment.
    pub fn segment(&self) -> &str {
        self.tags.get("segment").unwrap_or_default()
    }

    /// Where others reach it as a server.
    pub fn server_address(&self) -> Option<SocketAddr> {
        self.server.as_ref().map(|server| SocketAddr::new(self.ip, server.port))
    }

    /// Where it gossips.
    pub fn serf_lan_address(&self) -> SocketAddr {
        SocketAddr::new(self.ip, self.serf_lan_port)
    }

    /// What clients are shown of its tags, in order of their names.
    pub fn shown_tags(&self) -> impl Iterator<Item = (&str, &str)> {
        self.tags.iter().filter(|(name, _)| !name.starts_with('_'))
    }

    /// Whether it takes part, as far as is known.
    pub fn is_alive(&self) -> bool {
        self.status == MemberStatus::Alive
    }

    /// Whether somebody got no answer from it, though it is not declared failed.
    pub fn is_suspected(&self) -> bool {
        self.is_alive() && self.evidence.is_some()
    }
}

impl MemberStatus {
    /// Consul's word.
    pub fn as_str(self) -> &'static str {
        match self {
            MemberStatus::Alive => "alive",
            MemberStatus::Leaving => "leaving",
            MemberStatus::Left => "left",
            MemberStatus::Failed => "failed",
        }
    }
}

impl Roster {
    /// Of these members.
    pub fn new(members: impl IntoIterator<Item = Member>) -> Roster {
        let mut roster = Roster::default();
        members.into_iter().for_each(|member| roster.insert(member));
        roster
    }

    /// Takes in a member, or what is new of it.
    pub fn insert(&mut self, member: Member) {
        let member = Arc::new(member);
        match member.server {
            Some(_) => self.servers.insert(member.name.clone(), member.clone()),
            None => self.servers.remove(&member.name),
        };
        self.members.insert(member.name.clone(), member);
    }

    /// Forgets a member.
    pub fn remove(&mut self, name: &str) {
        self.members.remove(name);
        self.servers.remove(name);
    }

    /// All members, in order of their names.
    pub fn members(&self) -> impl Iterator<Item = &Arc<Member>> {
        self.members.values()
    }

    /// Those that are servers, in order of their names.
    pub fn servers(&self) -> impl Iterator<Item = &Arc<Member>> {
        self.servers.values()
    }

    /// How many members there are.
    pub fn len(&self) -> usize {
        self.members.len()
    }

    /// Whether there are none: the agent has not begun yet.
    pub fn is_empty(&self) -> bool {
        self.members.is_empty()
    }

    /// The server with this ID; the one that answers if there are two (one was renamed, and its old name is remembered).
    pub fn server(&self, id: ServerId) -> Option<&Arc<Member>> {
        let with_id = self.servers.values().filter(|member| member.id == id);
        with_id.max_by_key(|member| (member.is_alive(), member.since))
    }

    /// The member with this name, in any case; the one that answers if two differ only in that.
    pub fn named(&self, name: &str) -> Option<&Arc<Member>> {
        if let Some(member) = self.members.get(name) {
            return Some(member);
        }
        let alike = self.members.values().filter(|member| member.name.eq_ignore_ascii_case(name));
        alike.max_by_key(|member| member.is_alive())
    }

    /// What has changed since an earlier roster of the same agent.
    pub fn changes_since<'a>(&'a self, earlier: &'a Roster) -> impl Iterator<Item = Difference<'a>> {
        earlier.members.diff(&self.members).map(|item| match item {
            DiffItem::Add(_, member) => Difference::Came(member),
            DiffItem::Update { old: (_, old), new: (_, new) } => Difference::Changed { old, new },
            DiffItem::Remove(_, member) => Difference::Went(member),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn member(name: &str, server: bool, status: MemberStatus) -> Member {
        Member {
            id: ServerId([name.len() as u8; 16]),
            name: name.into(),
            ip: [10, 0, 0, 1].into(),
            serf_lan_port: 8301,
            tags: Tags::new([("dc", "dc1"), ("_log", "1")]).expect("short"),
            server: server.then(Arc::default),
            incarnation: 1,
            status,
            since: Duration::ZERO,
            evidence: None,
        }
    }

    #[test]
    fn servers_are_known_apart_and_by_name_in_any_case() {
        let one = member("one", true, MemberStatus::Failed);
        let mut roster = Roster::new([one.clone(), member("client", false, MemberStatus::Alive)]);
        let renamed = Member { name: "two".into(), ..member("one", true, MemberStatus::Alive) };
        roster.insert(renamed);
        assert_eq!((roster.len(), roster.servers().count()), (3, 2));
        assert_eq!(roster.server(one.id).map(|member| &*member.name), Some("two"), "the one that answers");
        assert_eq!(roster.named("CLIENT").map(|member| member.datacenter()), Some("dc1"));
        roster.insert(member("two", false, MemberStatus::Alive));
        assert_eq!(roster.servers().count(), 1, "one that is no server any more");
        roster.remove("one");
        assert!(roster.named("one").is_none() && roster.server(one.id).is_none());
    }

    #[test]
    fn only_what_has_changed_is_told() {
        let old = Roster::new((0..1000).map(|n| member(&format!("n{n:03}"), false, MemberStatus::Alive)));
        let mut new = old.clone();
        new.insert(member("n007", false, MemberStatus::Failed));
        new.insert(member("x", false, MemberStatus::Alive));
        new.remove("n500");
        let told: Vec<String> = new
            .changes_since(&old)
            .map(|difference| match difference {
                Difference::Came(member) => format!("+{}", member.name),
                Difference::Changed { old, new } => format!("{}:{:?}>{:?}", new.name, old.status, new.status),
                Difference::Went(member) => format!("-{}", member.name),
            })
            .collect();
        assert_eq!(told, ["n007:Alive>Failed", "-n500", "+x"]);
        assert_eq!(old.changes_since(&old.clone()).count(), 0);
    }

    #[test]
    fn what_is_between_agents_is_not_shown() {
        let member = member("one", true, MemberStatus::Alive);
        assert_eq!(member.shown_tags().collect::<Vec<_>>(), [("dc", "dc1")]);
    }
}
