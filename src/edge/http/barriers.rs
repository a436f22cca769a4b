//! Reads that wait until the state here is known to be as new as they need. A reader is a record, not a task, and all
//! readers of a core share barriers.
//!
//! A barrier proves what was acknowledged before it *began*. So whoever comes while one is under way waits for the
//! next one, which takes along all who came meanwhile: at most two round trips for each reader, and one barrier under way
//! for each kind however many read.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::cache::Plan;
use super::park::ConnId;
use crate::consensus::{Consistency, ProposeError};

/// Pause between a barrier that failed at once and the next one: elections take longer than this, and readers come by
/// the thousand.
pub const RETRY_PAUSE: Duration = Duration::from_millis(50);

/// A read that waits.
pub struct Reader {
    /// Whose it is.
    pub conn: ConnId,
    /// Tells this wait from others of the same connection.
    pub number: u64,
    /// What was asked.
    pub plan: Plan,
    /// When it came.
    pub since: Instant,
    /// When it gives up.
    deadline: Instant,
}

/// The readers of one core that wait.
#[derive(Default)]
pub struct Barriers {
    lines: [Line; 2],
    /// Those whose wait is over, and how it ended.
    released: VecDeque<(Reader, Result<(), ProposeError>)>,
    numbers: u64,
}

/// Those who need the same kind of barrier.
#[derive(Default)]
struct Line {
    /// They share the barrier that is under way. In order of their deadlines.
    aboard: VecDeque<Reader>,
    /// They share the next one. In order of their deadlines, later than those aboard.
    waiting: VecDeque<Reader>,
    under_way: bool,
    /// The last one failed: the next one does not begin before this.
    rest: Option<Instant>,
}

impl Barriers {
    /// Lines a reader up, for at most `patience`; the number of its wait.
    pub fn join(
        &mut self,
        kind: Consistency,
        conn: ConnId,
        plan: Plan,
        now: Instant,
        patience: Duration,
    ) -> u64 {
        self.numbers += 1;
        let reader = Reader { conn, number: self.numbers, plan, since: now, deadline: now + patience };
        self.line(kind).waiting.push_back(reader);
        self.numbers
    }

    /// Begins the next barrier of a kind if it is time: then the caller has to pass one, and to tell how it ended
    /// ([`Self::ended`]).
    pub fn begin(&mut self, kind: Consistency, now: Instant) -> bool {
        let line = self.line(kind);
        if line.under_way || line.waiting.is_empty() || line.rest.is_some_and(|rest| rest > now) {
            return false;
        }
        line.under_way = true;
        line.rest = None;
        line.aboard.append(&mut line.waiting);
        true
    }

    /// The barrier under way has ended. When there was nobody to pass it with, those aboard wait on for another one,
    /// each as long as its own patience lasts.
    pub fn ended(&mut self, kind: Consistency, result: Result<(), ProposeError>, now: Instant) {
        let line = &mut self.lines[kind as usize];
        line.under_way = false;
        match result {
            Err(ProposeError::NoLeader | ProposeError::LeadershipLost | ProposeError::TooBusy) => {
                line.rest = Some(now + RETRY_PAUSE);
                line.aboard.append(&mut line.waiting);
                std::mem::swap(&mut line.aboard, &mut line.waiting);
            }
            result => self.released.extend(line.aboard.drain(..).map(|reader| (reader, result))),
        }
        self.expire(now);
    }

    /// Releases those whose patience is over.
    pub fn expire(&mut self, now: Instant) {
        for line in &mut self.lines {
            for queue in [&mut line.aboard, &mut line.waiting] {
                while queue.front().is_some_and(|reader| reader.deadline <= now) {
                    let reader = queue.pop_front().expect("it was looked at");
                    self.released.push_back((reader, Err(ProposeError::NoLeader)));
                }
            }
        }
    }

    /// The next one whose wait is over.
    pub fn released(&mut self) -> Option<(Reader, Result<(), ProposeError>)> {
        self.released.pop_front()
    }

    /// Whether somebody's wait is over.
    pub fn has_released(&self) -> bool {
        !self.released.is_empty()
    }

    /// When to look again.
    pub fn next_deadline(&self) -> Option<Instant> {
        let of = |line: &Line| {
            let patience =
                [line.aboard.front(), line.waiting.front()].into_iter().flatten().map(|r| r.deadline);
            let rest = line.rest.filter(|_| !line.waiting.is_empty() && !line.under_way);
            patience.chain(rest).min()
        };
        self.lines.iter().filter_map(of).min()
    }

    /// How many records there are, also of those who left meanwhile.
    pub fn len(&self) -> usize {
        self.lines.iter().map(|line| line.aboard.len() + line.waiting.len()).sum::<usize>()
            + self.released.len()
    }

    /// Whether nobody waits.
    #[cfg(test)]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Forgets the records of those who left.
    pub fn retain(&mut self, mut is_there: impl FnMut(&Reader) -> bool) {
        for line in &mut self.lines {
            line.aboard.retain(&mut is_there);
            line.waiting.retain(&mut is_there);
        }
        self.released.retain(|(reader, _)| is_there(reader));
    }

    fn line(&mut self, kind: Consistency) -> &mut Line {
        &mut self.lines[kind as usize]
    }
}

#[cfg(test)]
mod tests {
    use super::super::cache::Group;
    use super::*;

    const KIND: Consistency = Consistency::Default;
    const PATIENCE: Duration = Duration::from_secs(7);

    struct Bench {
        barriers: Barriers,
        now: Instant,
    }

    impl Bench {
        fn new() -> Bench {
            Bench { barriers: Barriers::default(), now: crate::runtime::time::now() }
        }

        fn join(&mut self, kind: Consistency) -> u64 {
            let plan = Plan { group: Group::for_tests(), wait: None };
            self.barriers.join(kind, ConnId { slot: 0, serial: 1 }, plan, self.now, PATIENCE)
        }

        fn pass(&mut self, time: Duration) {
            self.now += time;
        }

        fn begin(&mut self) -> bool {
            self.barriers.begin(KIND, self.now)
        }

        fn ended(&mut self, result: Result<(), ProposeError>) -> Vec<(u64, Result<(), ProposeError>)> {
            self.barriers.ended(KIND, result, self.now);
            self.released()
        }

        fn released(&mut self) -> Vec<(u64, Result<(), ProposeError>)> {
            std::iter::from_fn(|| self.barriers.released())
                .map(|(reader, how)| (reader.number, how))
                .collect()
        }
    }

    #[test]
    fn who_comes_while_one_is_under_way_shares_the_next() {
        let mut bench = Bench::new();
        assert!(!bench.begin(), "nobody waits");
        let (a, b) = (bench.join(KIND), bench.join(KIND));
        assert!(bench.begin());
        let c = bench.join(KIND);
        assert!(!bench.begin(), "one is under way");
        assert_eq!(bench.ended(Ok(())), [(a, Ok(())), (b, Ok(()))]);
        assert!(bench.begin());
        assert_eq!(bench.ended(Ok(())), [(c, Ok(()))]);
        assert!(!bench.begin() && bench.barriers.is_empty());
    }

    #[test]
    fn kinds_do_not_wait_for_each_other() {
        let mut bench = Bench::new();
        let a = bench.join(KIND);
        let b = bench.join(Consistency::Consistent);
        assert!(bench.begin() && bench.barriers.begin(Consistency::Consistent, bench.now));
        assert_eq!(bench.ended(Ok(())), [(a, Ok(()))]);
        bench.barriers.ended(Consistency::Consistent, Ok(()), bench.now);
        assert_eq!(bench.released(), [(b, Ok(()))]);
    }

    #[test]
    fn without_a_leader_each_waits_as_long_as_its_own_patience() {
        let mut bench = Bench::new();
        let a = bench.join(KIND);
        assert!(bench.begin());
        bench.pass(PATIENCE / 2);
        let b = bench.join(KIND);
        assert_eq!(bench.ended(Err(ProposeError::NoLeader)), []);
        assert!(!bench.begin(), "it rests");
        assert_eq!(bench.barriers.next_deadline(), Some(bench.now + RETRY_PAUSE));
        bench.pass(RETRY_PAUSE);
        assert!(bench.begin());
        bench.pass(PATIENCE / 2);
        bench.barriers.expire(bench.now);
        assert_eq!(bench.released(), [(a, Err(ProposeError::NoLeader))]);
        // The leader has come.
        assert_eq!(bench.ended(Ok(())), [(b, Ok(()))]);
        assert_eq!(bench.barriers.next_deadline(), None);
    }

    #[test]
    fn what_cannot_change_is_told_at_once() {
        let mut bench = Bench::new();
        let a = bench.join(KIND);
        assert!(bench.begin());
        assert_eq!(bench.ended(Err(ProposeError::Stopping)), [(a, Err(ProposeError::Stopping))]);
    }

    #[test]
    fn records_of_those_who_left_can_be_cleared_out() {
        let mut bench = Bench::new();
        let (a, b) = (bench.join(KIND), bench.join(KIND));
        assert!(bench.begin());
        let c = bench.join(KIND);
        bench.barriers.retain(|reader| reader.number == b);
        assert_eq!(bench.barriers.len(), 1, "{a} and {c} left");
        assert_eq!(bench.ended(Ok(())), [(b, Ok(()))]);
    }
}
