//! The edge cores, as far as they hear of changes: each has a queue of what was touched, and wakes parked queries by it.
//!
//! A core that is slow is not waited for: it is told later, all at once. The state itself is published before, and whatever an
//! edge keeps ready is checked against the state at each use; so all that comes late at such a core is the end of a wait, and
//! neither other cores nor writers nor Raft's signs of life pay for it.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Context;
use std::time::Duration;

use crate::runtime::mesh::{Full, Sender};
use crate::runtime::time::{self, Sleep};
use crate::store::Touched;

/// Pause before a core whose queue was full is tried again, unless something else happens before.
const RETRY_PAUSE: Duration = Duration::from_millis(1);

/// How long the last changes are waited with when the runner ends.
const FINISH_LIMIT: Duration = Duration::from_secs(1);

/// Topics that are kept for a core that is behind. Past it the core is told that everything was touched.
const TOPICS_MAX: usize = 64 << 10;

/// See the module.
pub struct Edges {
    edges: Vec<Edge>,
    /// While some core is behind.
    retry: Option<Pin<Box<Sleep>>>,
}

struct Edge {
    queue: Sender<Arc<Touched>>,
    /// What its queue did not take yet.
    behind: Option<Arc<Touched>>,
}

impl Edges {
    /// The cores with these queues.
    pub fn new(queues: Vec<Sender<Arc<Touched>>>) -> Edges {
        let edges = queues.into_iter().map(|queue| Edge { queue, behind: None });
        Edges { edges: edges.collect(), retry: None }
    }

    /// Tells every core what was touched, or notes it for those that are behind.
    pub fn tell(&mut self, touched: Touched) {
        if touched.is_empty() {
            return;
        }
        let touched = Arc::new(touched);
        for edge in &mut self.edges {
            edge.tell(touched.clone());
        }
    }

    /// Whether some core has not been told everything.
    pub fn are_behind(&self) -> bool {
        self.edges.iter().any(|edge| edge.behind.is_some())
    }

    /// Tries those again that are behind.
    pub fn retry(&mut self) {
        for edge in &mut self.edges {
            if let Some(behind) = edge.behind.take() {
                edge.hand_over(behind);
            }
        }
    }

    /// The same after a pause, which wakes the runner.
    pub fn poll(&mut self, cx: &mut Context<'_>) {
        while self.are_behind() {
            let pause = || Box::pin(Sleep::until(time::now() + RETRY_PAUSE));
            if self.retry.get_or_insert_with(pause).as_mut().poll(cx).is_pending() {
                return;
            }
            self.retry = None;
            self.retry();
        }
        self.retry = None;
    }

    /// Tells those that are behind the last of it: the runner ends.
    pub async fn finish(&mut self) {
        let all = async {
            for edge in &mut self.edges {
                if let Some(behind) = edge.behind.take() {
                    // A closed edge has no queries left to wake.
                    let _ = edge.queue.send(behind).await;
                }
            }
        };
        let _ = time::timeout(FINISH_LIMIT, all).await;
    }
}

impl Edge {
    fn tell(&mut self, touched: Arc<Touched>) {
        match self.behind.take() {
            None => self.hand_over(touched),
            Some(behind) => {
                let mut all = Arc::unwrap_or_clone(behind);
                all.merge(Arc::unwrap_or_clone(touched));
                if all.len() > TOPICS_MAX {
                    all = Touched::everything();
                }
                self.behind = Some(Arc::new(all));
            }
        }
    }

    fn hand_over(&mut self, touched: Arc<Touched>) {
        match self.queue.try_send(touched) {
            Err(Full::Full(touched)) => self.behind = Some(touched),
            // A closed edge has no queries left to wake.
            Ok(()) | Err(Full::Closed(_)) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::mesh;
    use crate::store::topic::Topic;

    fn key(name: &str) -> Topic {
        Topic::Key(name.as_bytes().into())
    }

    fn touched(topics: impl IntoIterator<Item = Topic>) -> Touched {
        let mut touched = Touched::new();
        topics.into_iter().for_each(|topic| touched.add(topic));
        touched
    }

    #[test]
    fn a_core_that_is_behind_is_told_all_at_once_and_the_others_at_once() {
        let (slow, mut slow_hears) = mesh::channel(1);
        let (quick, mut quick_hears) = mesh::channel(8);
        let mut edges = Edges::new(vec![slow, quick]);
        for name in ["a", "b", "c"] {
            edges.tell(touched([key(name)]));
        }
        let mut heard = Touched::new();
        while let Some(touched) = quick_hears.try_recv() {
            heard.merge(Arc::unwrap_or_clone(touched));
        }
        assert_eq!(heard, touched(["a", "b", "c"].map(key)));
        assert_eq!(slow_hears.try_recv(), Some(Arc::new(touched([key("a")]))));
        edges.retry();
        assert_eq!(slow_hears.try_recv(), Some(Arc::new(touched(["b", "c"].map(key)))));
        edges.retry();
        assert_eq!(slow_hears.try_recv(), None);
    }

    #[test]
    fn what_is_kept_for_a_core_is_bounded_and_nothing_of_it_is_lost() {
        let (slow, mut hears) = mesh::channel(1);
        let mut edges = Edges::new(vec![slow]);
        edges.tell(touched([key("first")]));
        for number in 0..=TOPICS_MAX / 64 {
            edges.tell(touched((0..64).map(|place| key(&format!("{number}/{place}")))));
        }
        assert!(hears.try_recv().is_some());
        edges.retry();
        assert!(hears.try_recv().is_some_and(|touched| touched.is_all() && touched.touches(&key("0/0"))));
    }
}
