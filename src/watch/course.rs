//! How a question is followed: which index to ask with, which answers to tell, how long to rest after a failure. No I/O,
//! no clock: `cli/follow.rs` drives it over a blocking connection, `watch/run.rs` over the agent's runtime.
//!
//! It tells the first answer, and after that each one that differs from the last one told. So nothing is told twice, and
//! whatever the servers settle on is told in the end; states that came and went between two answers may not be.

use std::sync::Arc;
use std::time::Duration;

use crate::runtime::random::Rng;

/// The first rest after a failure; it doubles.
const REST_MIN: Duration = Duration::from_millis(250);
/// The longest rest. Consul's watches rest up to three minutes.
const REST_MAX: Duration = Duration::from_secs(10);
/// An answer that comes sooner than this did not wait for a change.
const AT_ONCE: Duration = Duration::from_millis(20);
/// So many answers at once that say nothing new are let pass without a rest.
const IDLE_MAX: u32 = 8;
/// The longest rest between answers that come at once and say nothing new.
const IDLE_REST_MAX: Duration = Duration::from_secs(1);

/// An answer that says something new.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// Its `X-Consul-Index`; 0 when there was none.
    pub index: u64,
    /// 200, or 404 where nothing is there.
    pub status: u16,
    /// Its body.
    pub body: Arc<[u8]>,
}

/// What is done after an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Next {
    /// It says something new.
    Tell(Answer),
    /// It says nothing new: ask again after a rest, mostly none.
    Ask(Duration),
}

/// What the indexes of a question's answers mean.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Indexes {
    /// They grow with every change.
    Grow,
    /// They differ from one answer to another and say nothing else: those of events.
    Differ,
    /// There are hashes instead: those of an agent's own services.
    Hashes,
}

/// What an answer is known by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Mark {
    /// `X-Consul-Index`; 0 when there was none.
    Index(u64),
    /// `X-Consul-ContentHash`.
    Hash(String),
}

/// One question that is followed.
#[derive(Debug)]
pub struct Course {
    indexes: Indexes,
    mark: Mark,
    /// The last answer was older than one before it.
    doubts: bool,
    told: Option<(u16, Arc<[u8]>)>,
    failures: u32,
    idle: u32,
    rng: Rng,
}

impl Course {
    /// A question that was never asked.
    pub fn new(indexes: Indexes, rng: Rng) -> Course {
        Course { indexes, mark: Mark::Index(0), doubts: false, told: None, failures: 0, idle: 0, rng }
    }

    /// The parameter to ask with, so that the server waits for something else; none asks for an answer at once.
    pub fn parameter(&self) -> Option<(&'static str, String)> {
        match &self.mark {
            Mark::Index(0) => None,
            Mark::Index(index) => Some(("index", index.to_string())),
            Mark::Hash(hash) => Some(("hash", hash.clone())),
        }
    }

    /// The index to ask with; 0 when there is none.
    pub fn index(&self) -> u64 {
        if let Mark::Index(index) = self.mark { index } else { 0 }
    }

    /// Whether the leader must be asked, even if otherwise any server will do: the last answer came of one that is behind, or
    /// the servers have other tables now.
    pub fn wants_fresh(&self) -> bool {
        self.doubts
    }

    /// The body that was told last.
    pub fn last_told(&self) -> Option<&[u8]> {
        self.told.as_ref().map(|(_, body)| &**body)
    }

    /// An answer came, `took` after the question was sent.
    pub fn answered(&mut self, mark: Mark, status: u16, body: &[u8], took: Duration) -> Next {
        self.failures = 0;
        // An index that went back is of other tables (a restore), or of a server that is behind. Neither may be waited
        // with, and the second must not be told for news.
        let went_back = match (&self.mark, &mark) {
            (Mark::Index(asked), Mark::Index(index)) => self.indexes == Indexes::Grow && index < asked,
            _ => false,
        };
        let index = if let Mark::Index(index) = mark { index } else { 0 };
        self.mark = if went_back { Mark::Index(0) } else { mark };
        self.doubts = went_back;
        let known = self.told.as_ref().is_some_and(|(told, said)| *told == status && **said == *body);
        if !known && !went_back {
            self.idle = 0;
            let body: Arc<[u8]> = body.into();
            self.told = Some((status, body.clone()));
            return Next::Tell(Answer { index, status, body });
        }
        // Without an index nobody can wait, however long the way is (a proxy that takes headers away).
        let waits = self.mark != Mark::Index(0) || went_back;
        self.idle = if took < AT_ONCE || !waits { self.idle + 1 } else { 0 };
        let over = self.idle.saturating_sub(IDLE_MAX).min(16);
        let rest = if over == 0 { Duration::ZERO } else { AT_ONCE * (1 << over) };
        Next::Ask(rest.min(IDLE_REST_MAX))
    }

    /// The question failed: how long to rest before it is asked again.
    pub fn failed(&mut self) -> Duration {
        let rest = (REST_MIN * (1 << self.failures.min(16))).min(REST_MAX);
        self.failures += 1;
        // Between a half and the whole: those whom one failure hit do not come back together.
        rest / 2 + rest.mul_f64(self.rng.fraction() / 2.0)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{Just, Strategy, prop_assert, prop_assert_eq, prop_oneof, proptest};

    use super::*;

    const LONG: Duration = Duration::from_secs(1);

    fn course() -> Course {
        Course::new(Indexes::Grow, Rng::new(1))
    }

    fn told(next: &Next) -> Option<&[u8]> {
        match next {
            Next::Tell(answer) => Some(&answer.body),
            Next::Ask(_) => None,
        }
    }

    #[test]
    fn the_first_answer_and_every_change_are_told_once() {
        let mut course = course();
        assert_eq!(told(&course.answered(Mark::Index(5), 404, b"", LONG)), Some(&b""[..]));
        assert_eq!((course.index(), told(&course.answered(Mark::Index(5), 404, b"", LONG))), (5, None));
        assert_eq!(told(&course.answered(Mark::Index(9), 200, b"", LONG)), Some(&b""[..]));
        assert_eq!((course.index(), told(&course.answered(Mark::Index(12), 200, b"", LONG))), (9, None));
    }

    #[test]
    fn an_index_that_goes_back_is_asked_about_at_once() {
        let mut course = course();
        course.answered(Mark::Index(50), 200, b"new", LONG);
        assert_eq!(told(&course.answered(Mark::Index(20), 200, b"old", LONG)), None);
        assert_eq!((course.index(), course.wants_fresh()), (0, true));
        assert_eq!(told(&course.answered(Mark::Index(20), 200, b"old", LONG)), Some(&b"old"[..]));
        assert_eq!(course.index(), 20);
    }

    #[test]
    fn indexes_that_only_differ_do_not_go_back() {
        let mut course = Course::new(Indexes::Differ, Rng::new(1));
        course.answered(Mark::Index(50), 200, b"a", LONG);
        assert_eq!(told(&course.answered(Mark::Index(20), 200, b"b", LONG)), Some(&b"b"[..]));
        assert_eq!(course.index(), 20);
    }

    #[test]
    fn hashes_are_asked_with_as_they_are() {
        let mut course = Course::new(Indexes::Hashes, Rng::new(1));
        assert_eq!(course.parameter(), None);
        course.answered(Mark::Hash("x".to_owned()), 200, b"a", LONG);
        assert_eq!(course.parameter(), Some(("hash", "x".to_owned())));
    }

    #[test]
    fn rests_grow_up_to_a_limit_and_end_with_an_answer() {
        let mut course = course();
        let rests: Vec<Duration> = (0..20).map(|_| course.failed()).collect();
        assert!(rests[0] <= REST_MIN && rests[0] >= REST_MIN / 2);
        assert!(rests.iter().all(|rest| *rest <= REST_MAX) && rests[19] >= REST_MAX / 2);
        course.answered(Mark::Index(1), 200, b"", LONG);
        assert!(course.failed() <= REST_MIN);
    }

    #[test]
    fn who_answers_at_once_for_ever_is_not_asked_without_rest() {
        let mut course = course();
        course.answered(Mark::Index(0), 200, b"x", Duration::ZERO);
        let rests: Vec<Duration> = (0..40)
            .map(|_| match course.answered(Mark::Index(0), 200, b"x", LONG) {
                Next::Ask(rest) => rest,
                Next::Tell(_) => panic!("told twice"),
            })
            .collect();
        assert_eq!((rests[0], rests[39]), (Duration::ZERO, IDLE_REST_MAX));
        course.answered(Mark::Index(7), 200, b"y", Duration::ZERO);
        assert_eq!(course.answered(Mark::Index(7), 200, b"y", Duration::ZERO), Next::Ask(Duration::ZERO));
    }

    /// What happens to the servers of [`Servers`].
    #[derive(Clone, Debug)]
    enum Step {
        /// The answer becomes this one; 0 is no answer (404).
        Write(u8),
        /// Something else is written: the index moves, the answer does not.
        Other,
        /// The question is asked, and waits for a change if the index says so.
        Ask,
        /// The question fails.
        Fail,
        /// A server that is so many writes behind answers, as it may to who asks for it (`?stale`).
        AskBehind(usize),
        /// The tables are replaced by older ones with lower indexes.
        Restore(u8),
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let step = prop_oneof![
            4 => (0..3u8).prop_map(Step::Write),
            2 => Just(Step::Other),
            6 => Just(Step::Ask),
            1 => Just(Step::Fail),
            2 => (0..4usize).prop_map(Step::AskBehind),
            1 => (0..3u8).prop_map(Step::Restore),
        ];
        proptest::collection::vec(step, 0..200)
    }

    /// Servers as a client sees them: the states of all time, the newest last.
    struct Servers {
        states: Vec<(u64, u8)>,
    }

    impl Servers {
        fn newest(&self) -> (u64, u8) {
            self.states[self.states.len() - 1]
        }

        fn ask(&self, course: &mut Course, behind: usize, told: &mut Vec<(u64, u8)>) {
            let behind = if course.wants_fresh() { 0 } else { behind };
            let at = self.states.len() - 1 - behind.min(self.states.len() - 1);
            let (index, value) = self.states[at];
            if behind == 0 && index == course.index() {
                return;
            }
            let status = if value == 0 { 404 } else { 200 };
            if let Next::Tell(answer) = course.answered(Mark::Index(index), status, &[value], LONG) {
                assert_eq!((answer.index, answer.status), (index, status));
                told.push((answer.index, answer.body[0]));
            }
        }
    }

    proptest! {
        /// Nothing is told twice in a row, nothing old after something new, and once all is quiet the newest is what was told last.
        #[test]
        fn nothing_is_missed_and_nothing_repeated(steps in steps()) {
            let mut servers = Servers { states: vec![(1, 0)] };
            let (mut course, mut told, mut restored) = (course(), Vec::new(), Vec::new());
            for step in steps {
                let (index, value) = servers.newest();
                match step {
                    Step::Write(new) => servers.states.push((index + 1, new)),
                    Step::Other => servers.states.push((index + 1, value)),
                    Step::Ask => servers.ask(&mut course, 0, &mut told),
                    Step::AskBehind(behind) => servers.ask(&mut course, behind, &mut told),
                    Step::Fail => prop_assert!(course.failed() <= REST_MAX),
                    Step::Restore(new) => {
                        servers.states = vec![((index / 2).max(1), new)];
                        restored.push(told.len());
                    }
                }
            }
            // As if the last write were heard of: one more, then two questions (the first may find the index gone back).
            let (index, _) = servers.newest();
            servers.states.push((index.max(course.index()) + 1, 3));
            servers.ask(&mut course, 0, &mut told);
            servers.ask(&mut course, 0, &mut told);
            prop_assert_eq!(told.last().map(|(_, value)| *value), Some(3));
            prop_assert!(told.windows(2).all(|pair| pair[0].1 != pair[1].1), "{:?}", told);
            // Nobody is told of a time before, unless the tables themselves went back.
            for (at, pair) in told.windows(2).enumerate() {
                prop_assert!(pair[0].0 < pair[1].0 || restored.contains(&(at + 1)), "{:?}", told);
            }
        }

        /// A client that asks after every write is told every change, in order.
        #[test]
        fn who_keeps_up_sees_every_change(values in proptest::collection::vec(0..4u8, 1..100)) {
            let mut servers = Servers { states: vec![(1, 0)] };
            let (mut course, mut told) = (course(), Vec::new());
            servers.ask(&mut course, 0, &mut told);
            for value in &values {
                let (index, _) = servers.newest();
                servers.states.push((index + 1, *value));
                servers.ask(&mut course, 0, &mut told);
            }
            let mut due = vec![0];
            due.extend(&values);
            due.dedup();
            prop_assert_eq!(told.into_iter().map(|(_, value)| value).collect::<Vec<_>>(), due);
        }
    }
}
