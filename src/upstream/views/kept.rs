//! What the keeper holds: views and who waits for them, and the names of addresses.

use std::collections::{BTreeMap, VecDeque};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

use super::{ADDRESSES_MAX, EMPTY_DROPPED_AT_ONCE, HoldError, IDLE_MAX, NameOf};
use crate::runtime::mesh::OneSender;
use crate::runtime::task::Task;
use crate::store::{OwnRows, State, Touched, View};

/// All that is kept, and for whom.
#[derive(Default)]
pub(super) struct Inner {
    pub mirror: State,
    /// The history that answers were of last.
    pub history: Option<Arc<str>>,
    pub views: BTreeMap<View, Kept>,
    pub waiting: usize,
    pub addresses: Addresses,
    /// What the agent knows of its own node, while no server answers.
    pub own: Option<OwnRows>,
    /// Whether the published state has that in it.
    pub overlaid: bool,
}

/// A view that is followed, or whose first answer is awaited.
pub(super) struct Kept {
    pub used: Instant,
    /// The history that its index is of.
    pub history: Option<Arc<str>>,
    pub waiting: Vec<OneSender<Result<(), HoldError>>>,
    /// Nothing until it is under way.
    pub following: Option<Task<()>>,
}

/// What servers said of addresses.
#[derive(Default)]
pub(super) struct Addresses {
    pub names: BTreeMap<IpAddr, Option<NameOf>>,
    pub order: VecDeque<IpAddr>,
    pub asked: usize,
}

impl Kept {
    /// Whether nobody follows it: its first question has failed.
    pub fn has_ended(&self) -> bool {
        self.following.as_ref().is_some_and(Task::is_done)
    }
}

impl Inner {
    /// Drops the views that nobody has used for long; what that touches.
    pub fn forget_idle(&mut self, now: Instant) -> Touched {
        let mut touched = Touched::new();
        let Inner { views, mirror, .. } = self;
        views.retain(|view, kept| {
            let stays = now.saturating_duration_since(kept.used) < IDLE_MAX || !kept.waiting.is_empty();
            if !stays {
                mirror.drop_view(view, &mut touched);
            }
            stays
        });
        touched
    }

    /// Makes room for a view, if any may go; what that touches. Nothing that is held goes while no server answers.
    pub fn evict(&mut self, lost: bool) -> Option<Touched> {
        let mut touched = Touched::new();
        let Inner { views, mirror, .. } = self;
        let may_go = views.iter().filter(|(view, _)| !lost || !mirror.holds(view));
        let by_worth = may_go.map(|(view, kept)| (!mirror.is_empty_view(view), kept.used, view.clone()));
        let mut by_worth: Vec<_> = by_worth.collect();
        by_worth.sort_unstable();
        let empty = by_worth.iter().take_while(|(has_rows, ..)| !has_rows).count();
        by_worth.truncate(empty.clamp(1, EMPTY_DROPPED_AT_ONCE));
        for (_, _, view) in &by_worth {
            let kept = views.remove(view);
            self.waiting -= kept.map_or(0, |kept| kept.waiting.len());
            mirror.drop_view(view, &mut touched);
        }
        (!by_worth.is_empty()).then_some(touched)
    }
}

impl Addresses {
    pub fn learn(&mut self, ip: IpAddr, body: &[u8]) -> Option<NameOf> {
        let text = String::from_utf8_lossy(body);
        let named = match text.split_once(' ') {
            Some(("node", name)) => Some(NameOf::Node(name.to_owned())),
            Some(("service", name)) => Some(NameOf::Service(name.to_owned())),
            _ => None,
        };
        if self.names.insert(ip, named.clone()).is_none() {
            self.order.push_back(ip);
            if self.order.len() > ADDRESSES_MAX
                && let Some(oldest) = self.order.pop_front()
            {
                self.names.remove(&oldest);
            }
        }
        named
    }

    pub fn recall(&self, ip: IpAddr, why: HoldError) -> Result<Option<NameOf>, HoldError> {
        self.names.get(&ip).cloned().ok_or(why)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::runtime::time;

    /// The views of these services, unused for so many days; those with rows are told by `full`.
    fn keeping(views: &[(&str, u64)], full: &[&str], now: Instant) -> Inner {
        let mut servers = State::new();
        for name in full {
            crate::upstream::views::tests::register(&mut servers, name);
        }
        let mut inner = Inner { mirror: State::mirror(), ..Inner::default() };
        for (name, days) in views {
            let view = View::service(name);
            let bytes = servers.view_since(&view, 0);
            inner.mirror.put_view(&view, &bytes, &mut Touched::new()).expect("it is well formed");
            let used = now.checked_sub(Duration::from_secs(days * 24 * 3600)).expect("a clock that old");
            inner.views.insert(view, Kept { used, history: None, waiting: Vec::new(), following: None });
        }
        inner
    }

    fn kept(inner: &Inner) -> Vec<&str> {
        assert!(inner.views.keys().all(|view| inner.mirror.holds(view)));
        inner.views.keys().map(View::name).collect()
    }

    #[test]
    fn what_nobody_uses_for_days_goes() {
        let now = time::now() + 10 * IDLE_MAX;
        let mut inner = keeping(&[("old", 4), ("young", 2)], &["old", "young"], now);
        let touched = inner.forget_idle(now);
        assert_eq!(kept(&inner), ["young"]);
        assert!(touched.touches(&View::service("old").topic()));
        assert!(!inner.mirror.holds(&View::service("old")));
        assert!(inner.forget_idle(now).is_empty());
    }

    #[test]
    fn room_is_made_by_the_empty_and_then_by_the_oldest_and_by_none_without_servers() {
        let now = time::now() + 10 * IDLE_MAX;
        let views = [("a", 1), ("b", 3), ("c", 2), ("empty", 0)];
        let mut inner = keeping(&views, &["a", "b", "c"], now);
        assert!(inner.evict(true).is_none());
        assert!(inner.evict(false).is_some());
        assert_eq!(kept(&inner), ["a", "b", "c"]);
        assert!(inner.evict(false).is_some_and(|touched| touched.touches(&View::service("b").topic())));
        assert_eq!(kept(&inner), ["a", "c"]);
    }

    #[test]
    fn the_oldest_names_of_addresses_are_forgotten() {
        let mut addresses = Addresses::default();
        let ip = |n: usize| IpAddr::from((n as u32).to_be_bytes());
        for n in 0..=ADDRESSES_MAX {
            addresses.learn(ip(n), b"node n1");
        }
        let unknown = HoldError("no server answers".into());
        assert_eq!(addresses.recall(ip(0), unknown.clone()), Err(unknown.clone()));
        assert_eq!(addresses.recall(ip(1), unknown), Ok(Some(NameOf::Node("n1".into()))));
        assert_eq!((addresses.names.len(), addresses.order.len()), (ADDRESSES_MAX, ADDRESSES_MAX));
        assert_eq!(addresses.learn(ip(1), b""), None);
        assert_eq!(addresses.learn(ip(1), b"service web"), Some(NameOf::Service("web".into())));
    }
}
