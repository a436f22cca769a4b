//! Whether a read may be answered from the state on this server now, or what has to be waited for first. HTTP and DNS
//! ask the same.
//!
//! A default or consistent read must show everything that was acknowledged before it was asked, whoever acknowledged
//! it. On a leader whose lease holds the published state does, once the question is there; elsewhere a barrier is
//! passed first ([`crate::consensus::Proposals::barrier`]). So who leads must be looked up *behind* the moment at which
//! the question was read from its socket: an answer to an earlier look may be older than the question, by as long as
//! the process was paused in between.

use std::time::Duration;

use crate::consensus::{Consistency, Contact, Proposals, ProposeError};
use crate::upstream::views::Views;

/// How fresh a read must be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Freshness {
    /// As the leader's lease allows.
    #[default]
    Leader,
    /// Confirmed by a majority after the question came.
    Consistent,
    /// As the memory of a client agent has it, however old that is; the answer tells.
    Remembered {
        /// Whether it was asked as a stale read.
        stale: bool,
    },
    /// As it is here, if the leader's word that it rests on is at most this old; an older one is as good as none, and the
    /// read becomes a default one. `None`: however old.
    Stale(Option<Duration>),
}

/// Whom the edge asks about the leader.
#[derive(Clone)]
pub enum Leadership {
    /// Consensus.
    Real(Proposals),
    /// Nobody: the state is what a client agent keeps.
    Views(Views),
    /// A test.
    #[cfg(test)]
    Played(std::rc::Rc<puppet::Puppet>),
}

impl Leadership {
    /// What the state is made of on a client agent.
    pub fn views(&self) -> Option<&Views> {
        match self {
            Leadership::Views(views) => Some(views),
            _ => None,
        }
    }

    /// How reads stand now.
    pub fn contact(&self) -> Contact {
        match self {
            Leadership::Real(proposals) => proposals.contact(),
            Leadership::Views(views) => views.contact(),
            #[cfg(test)]
            Leadership::Played(puppet) => puppet.contact.get(),
        }
    }

    /// See [`Proposals::barrier`].
    ///
    /// # Errors
    /// As there.
    pub async fn barrier(&self, kind: Consistency) -> Result<(), ProposeError> {
        match self {
            Leadership::Real(proposals) => proposals.barrier(kind).await,
            Leadership::Views(_) => Err(ProposeError::NoServers),
            #[cfg(test)]
            Leadership::Played(puppet) => puppet.barrier(kind).await,
        }
    }
}

/// What becomes of a read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It is answered from the state as it is now, and says this.
    Now(Shown),
    /// It is answered once a barrier is passed.
    Behind(Consistency),
    /// It cannot be answered.
    Never(ProposeError),
}

/// What an answer says about how it was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shown {
    /// The word of `X-Consul-Effective-Consistency`.
    pub consistency: &'static str,
    /// Whether somebody leads.
    pub known_leader: bool,
    /// Age of the leader's word that the answer rests on, milliseconds.
    pub last_contact_ms: u64,
}

impl Freshness {
    /// Decides, by how things stand now.
    pub fn judge(self, contact: &Contact) -> Verdict {
        if matches!(self, Freshness::Remembered { .. }) {
            return Verdict::Now(self.local(contact));
        }
        if !contact.has_server {
            return Verdict::Never(ProposeError::NoServers);
        }
        match self {
            Freshness::Leader if contact.leads => Verdict::Now(self.confirmed()),
            Freshness::Consistent if contact.alone => Verdict::Now(self.confirmed()),
            Freshness::Consistent => Verdict::Behind(Consistency::Consistent),
            Freshness::Stale(max) if contact.last.is_some_and(|age| max.is_none_or(|max| age <= max)) => {
                Verdict::Now(self.local(contact))
            }
            Freshness::Leader | Freshness::Stale(_) | Freshness::Remembered { .. } => {
                Verdict::Behind(Consistency::Default)
            }
        }
    }

    /// What an answer says behind a barrier, or on the leader. A stale read that had to wait for one is a default one.
    pub fn confirmed(self) -> Shown {
        let consistency = match self {
            Freshness::Consistent => "consistent",
            Freshness::Leader | Freshness::Stale(_) | Freshness::Remembered { .. } => "leader",
        };
        Shown { consistency, known_leader: true, last_contact_ms: 0 }
    }

    /// What an answer says that is given from here some time after it was admitted: a blocking query's. It is no older
    /// than the question, whoever leads now.
    pub fn later(self, contact: &Contact) -> Shown {
        match self {
            Freshness::Stale(_) | Freshness::Remembered { .. } => self.local(contact),
            _ => Shown { known_leader: contact.known_leader, ..self.confirmed() },
        }
    }

    fn local(self, contact: &Contact) -> Shown {
        let age = contact.last.unwrap_or_default();
        let last_contact_ms = u64::try_from(age.as_millis()).unwrap_or(u64::MAX);
        // Consul's cache asks servers for anything, and shows what was asked of it.
        let consistency = match self {
            Freshness::Remembered { stale: false } => "leader",
            _ => "stale",
        };
        Shown { consistency, known_leader: contact.known_leader, last_contact_ms }
    }
}

#[cfg(test)]
#[allow(missing_docs)]
pub mod puppet {
    //! A cluster's leadership as a test wants it.

    use std::cell::{Cell, RefCell};

    use super::*;
    use crate::runtime::{mesh, task};

    /// The leader of three.
    pub(crate) const LEADER: Contact = Contact {
        has_server: true,
        known_leader: true,
        leads: true,
        alone: false,
        last: Some(Duration::ZERO),
    };
    /// One of the others.
    pub(crate) const FOLLOWER: Contact =
        Contact { leads: false, last: Some(Duration::from_millis(40)), ..LEADER };

    type Begun = (Consistency, mesh::OneSender<Result<(), ProposeError>>);

    /// Plays consensus.
    pub struct Puppet {
        /// How reads stand.
        pub contact: Cell<Contact>,
        begun: RefCell<Vec<Begun>>,
    }

    impl Puppet {
        pub(crate) fn new(contact: Contact) -> Puppet {
            Puppet { contact: Cell::new(contact), begun: RefCell::default() }
        }

        pub(super) async fn barrier(&self, kind: Consistency) -> Result<(), ProposeError> {
            let (ended, end) = mesh::oneshot();
            self.begun.borrow_mut().push((kind, ended));
            end.await.unwrap_or(Err(ProposeError::Stopping))
        }

        /// Waits until barriers are under way, requires that they are these, and ends them.
        pub(crate) async fn end(&self, kinds: &[Consistency], result: Result<(), ProposeError>) {
            while self.idles() {
                task::yield_now().await;
            }
            let begun = self.begun.take();
            assert_eq!(begun.iter().map(|(kind, _)| *kind).collect::<Vec<_>>(), kinds);
            for (_, ended) in begun {
                assert!(ended.send(result).is_ok(), "somebody waits for it");
            }
        }

        /// Whether no barrier is under way.
        pub(crate) fn idles(&self) -> bool {
            self.begun.borrow().is_empty()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::puppet::{FOLLOWER, LEADER};
    use super::*;

    fn judged(freshness: Freshness, contact: Contact) -> Verdict {
        freshness.judge(&contact)
    }

    #[test]
    fn only_a_leader_whose_lease_holds_answers_default_reads_at_once() {
        let now = Shown { consistency: "leader", known_leader: true, last_contact_ms: 0 };
        assert_eq!(judged(Freshness::Leader, LEADER), Verdict::Now(now));
        for other in
            [FOLLOWER, Contact { leads: false, ..LEADER }, Contact { known_leader: false, ..FOLLOWER }]
        {
            assert_eq!(judged(Freshness::Leader, other), Verdict::Behind(Consistency::Default));
        }
    }

    #[test]
    fn a_consistent_read_takes_a_lease_for_nothing() {
        assert_eq!(judged(Freshness::Consistent, LEADER), Verdict::Behind(Consistency::Consistent));
        let alone = Contact { alone: true, ..LEADER };
        assert!(matches!(judged(Freshness::Consistent, alone), Verdict::Now(_)));
    }

    #[test]
    fn stale_reads_say_their_age_and_go_to_the_leader_when_they_are_too_old() {
        let orphan = Contact { known_leader: false, ..FOLLOWER };
        let now = Shown { consistency: "stale", known_leader: false, last_contact_ms: 40 };
        let most = |ms| Freshness::Stale(Some(Duration::from_millis(ms)));
        assert_eq!(judged(Freshness::Stale(None), orphan), Verdict::Now(now));
        assert_eq!(judged(most(40), orphan), Verdict::Now(now));
        assert_eq!(judged(most(39), orphan), Verdict::Behind(Consistency::Default));
        let never_led = Contact { last: None, ..orphan };
        assert_eq!(judged(Freshness::Stale(None), never_led), Verdict::Behind(Consistency::Default));
    }

    #[test]
    fn without_a_server_nothing_is_known() {
        for freshness in [Freshness::Leader, Freshness::Consistent, Freshness::Stale(None)] {
            assert_eq!(judged(freshness, Contact::default()), Verdict::Never(ProposeError::NoServers));
        }
    }
}
