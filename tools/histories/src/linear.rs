//! Linearizability by search (Wing and Gong 1993, with Lowe's memo, 2017), key by key, without any trust in indexes.
//!
//! Operations on different keys do not concern each other, so each key is searched alone; an operation on several keys
//! takes part in each. A lost write has no end: it may be placed anywhere after its call, or nowhere. Conditions are
//! looked at by value, which is exact as values are never written twice.

use std::collections::{BTreeSet, HashSet};

use crate::{Answer, Ask, Key, Operation, Promise, Time, Value, Violation};

/// Places that a search looks at before it gives up, over all keys of a history.
pub const STEPS_MAX: u64 = 20_000_000;

/// What a search came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// There is an order that explains every answer.
    Linearizable,
    /// There is none.
    Not(Violation),
    /// The search was given up after [`STEPS_MAX`].
    Undecided,
}

/// Searches all keys of a history. Reads that promise less are left out.
pub fn check(history: &[Operation]) -> Verdict {
    let mut keys = BTreeSet::new();
    for op in history {
        match &op.ask {
            Ask::Get(key)
            | Ask::Set(key, _)
            | Ask::Cas(key, ..)
            | Ask::Delete(key)
            | Ask::DeleteCas(key, _) => {
                keys.insert(*key);
            }
            Ask::DeleteAll(several) => keys.extend(several),
            Ask::Restore(rows) => keys.extend(rows.iter().map(|(key, _)| *key)),
        }
    }
    let mut steps = 0;
    for key in keys {
        match check_key(history, key, &mut steps) {
            Verdict::Linearizable => {}
            other => return other,
        }
    }
    Verdict::Linearizable
}

fn check_key(history: &[Operation], key: Key, steps: &mut u64) -> Verdict {
    let mut moves: Vec<Move> = history
        .iter()
        .enumerate()
        .filter(|(_, op)| op.promise == Promise::Linearizable && op.ask.concerns(key))
        .filter_map(|(at, op)| Move::of(at, op, key))
        .collect();
    drop_unseen(&mut moves);
    moves.sort_by_key(|m| (m.called, m.at));
    let mut search = Search::new(&moves);
    match search.run(steps) {
        Some(true) => Verdict::Linearizable,
        None => Verdict::Undecided,
        Some(false) => {
            let stuck = &history[moves[search.furthest].at];
            let story = format!("key {key}: no order of {} operations explains {stuck:?}", moves.len());
            Verdict::Not(Violation { rule: "linearizable by search", story })
        }
    }
}

/// Leaves out lost writes whose value nobody saw: placing one can only explain why a condition did not hold, so where
/// all held it need not be tried. Each one tried doubles the search.
fn drop_unseen(moves: &mut Vec<Move>) {
    if moves.iter().any(|m| m.condition == Some(false)) {
        return;
    }
    let seen: BTreeSet<Value> = moves
        .iter()
        .filter_map(|m| match (&m.what, m.condition) {
            (What::Read(value), _) | (What::PutIf(value, _), _) => *value,
            (What::RemoveIf(value), _) => Some(*value),
            _ => None,
        })
        .collect();
    moves.retain(|m| match m.what {
        What::Put(Some(value)) | What::PutIf(_, value) => m.returned.is_some() || seen.contains(&value),
        _ => true,
    });
}

/// What an operation does to one key, by value.
struct Move {
    at: usize,
    called: Time,
    /// `None`: it may never happen.
    returned: Option<Time>,
    what: What,
    /// What a conditional write answered, if it answered.
    condition: Option<bool>,
}

enum What {
    Read(Option<Value>),
    Put(Option<Value>),
    PutIf(Option<Value>, Value),
    RemoveIf(Value),
}

impl Move {
    fn of(at: usize, op: &Operation, key: Key) -> Option<Move> {
        let condition = match op.answer {
            Answer::Refused => return None,
            Answer::Condition(condition) => Some(condition),
            _ => None,
        };
        let what = match (&op.ask, op.answer) {
            (Ask::Get(_), Answer::Row(row)) => What::Read(row.map(|row| row.value)),
            (Ask::Get(_), _) => return None,
            (Ask::Set(_, value), _) => What::Put(Some(*value)),
            (Ask::Cas(_, expected, value), _) => What::PutIf(expected.map(|row| row.value), *value),
            (Ask::DeleteCas(_, expected), _) => What::RemoveIf(expected.value),
            (Ask::Delete(_) | Ask::DeleteAll(_), _) => What::Put(None),
            (Ask::Restore(rows), _) => {
                What::Put(rows.iter().find(|(k, _)| *k == key).map(|(_, value)| *value))
            }
        };
        let returned = (op.answer != Answer::Lost).then_some(op.returned);
        Some(Move { at, called: op.called, returned, what, condition })
    }

    /// The key after the move, if what was answered can be true of the key before it.
    fn step(&self, state: Option<Value>) -> Option<Option<Value>> {
        let (took_place, after) = match &self.what {
            What::Read(seen) => return (*seen == state).then_some(state),
            What::Put(value) => return Some(*value),
            What::PutIf(expected, value) => {
                if *expected == state {
                    (true, Some(*value))
                } else {
                    (false, state)
                }
            }
            What::RemoveIf(expected) => match state {
                Some(value) if value != *expected => (false, state),
                _ => (true, None),
            },
        };
        self.condition.is_none_or(|answered| answered == took_place).then_some(after)
    }
}

/// Calls and returns in order of time as a doubly linked list, from which placed moves are lifted.
struct Search<'a> {
    moves: &'a [Move],
    events: Vec<Event>,
    /// Answered moves that are not placed.
    open: usize,
    furthest: usize,
}

struct Event {
    which: usize,
    /// Of a call that returns: the place of its return.
    returns: Option<usize>,
    is_call: bool,
    before: usize,
    after: usize,
}

const HEAD: usize = 0;

impl<'a> Search<'a> {
    fn new(moves: &'a [Move]) -> Search<'a> {
        // At one moment calls come before returns: operations that touch are concurrent.
        let mut times: Vec<(Time, bool, usize)> = Vec::with_capacity(2 * moves.len());
        for (which, m) in moves.iter().enumerate() {
            times.push((m.called, false, which));
            times.extend(m.returned.map(|returned| (returned, true, which)));
        }
        times.sort_unstable();
        let mut events =
            vec![Event { which: usize::MAX, returns: None, is_call: false, before: 0, after: 0 }];
        let mut call_of = vec![0; moves.len()];
        for (place, (_, is_return, which)) in times.into_iter().enumerate() {
            let place = place + 1;
            events[place - 1].after = place;
            events.push(Event { which, returns: None, is_call: !is_return, before: place - 1, after: 0 });
            if is_return {
                events[call_of[which]].returns = Some(place);
            } else {
                call_of[which] = place;
            }
        }
        let open = moves.iter().filter(|m| m.returned.is_some()).count();
        Search { moves, events, open, furthest: 0 }
    }

    /// Whether there is an order; `None` when the steps ran out.
    fn run(&mut self, steps: &mut u64) -> Option<bool> {
        let mut state: Option<Value> = None;
        let mut placed: u128 = 0;
        let mut seen: HashSet<(u128, Option<Value>)> = HashSet::new();
        let mut taken: Vec<(usize, Option<Value>)> = Vec::new();
        let mut at = self.events[HEAD].after;
        while self.open > 0 {
            *steps += 1;
            if *steps > STEPS_MAX {
                return None;
            }
            if at != HEAD && self.events[at].is_call {
                let which = self.events[at].which;
                if let Some(after) = self.moves[which].step(state)
                    && seen.insert((placed ^ mark(which), after))
                {
                    taken.push((at, state));
                    state = after;
                    placed ^= mark(which);
                    self.lift(at);
                    at = self.events[HEAD].after;
                } else {
                    at = self.events[at].after;
                }
                continue;
            }
            // A return whose call is not placed, or the end: all that could come first was tried.
            if at != HEAD {
                self.furthest = self.furthest.max(self.events[at].which);
            }
            let Some((call, before)) = taken.pop() else { return Some(false) };
            state = before;
            placed ^= mark(self.events[call].which);
            self.unlift(call);
            at = self.events[call].after;
        }
        Some(true)
    }

    fn lift(&mut self, call: usize) {
        self.unlink(call);
        if let Some(place) = self.events[call].returns {
            self.unlink(place);
            self.open -= 1;
        }
    }

    fn unlift(&mut self, call: usize) {
        if let Some(place) = self.events[call].returns {
            self.relink(place);
            self.open += 1;
        }
        self.relink(call);
    }

    fn unlink(&mut self, place: usize) {
        let (before, after) = (self.events[place].before, self.events[place].after);
        self.events[before].after = after;
        if after != HEAD {
            self.events[after].before = before;
        }
    }

    fn relink(&mut self, place: usize) {
        let (before, after) = (self.events[place].before, self.events[place].after);
        self.events[before].after = place;
        if after != HEAD {
            self.events[after].before = place;
        }
    }
}

/// A random-looking number per move; the set of placed moves is the sum of theirs (Zobrist hashing). At 128 bits two
/// sets do not meet by chance.
fn mark(which: usize) -> u128 {
    let mix = |seed: u64| {
        let mut z = (which as u64 + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15).wrapping_add(seed);
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    };
    u128::from(mix(0)) << 64 | u128::from(mix(0x1234_5678_9ABC_DEF1))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Row;
    use crate::tests::{lost, op, row, saw};

    const GONE: Answer = Answer::Row(None);

    fn is_wrong(history: &[Operation]) -> bool {
        matches!(check(history), Verdict::Not(_))
    }

    #[test]
    fn concurrent_writes_may_be_seen_in_any_one_order() {
        let both = [
            op(0, 10, Ask::Set(1, 100), Answer::Done, 0),
            op(0, 10, Ask::Set(1, 101), Answer::Done, 0),
            op(11, 20, Ask::Get(1), saw(100, 0), 0),
        ];
        assert_eq!(check(&both), Verdict::Linearizable);
        let mut flip = both.to_vec();
        flip.push(op(21, 30, Ask::Get(1), saw(101, 0), 0));
        assert!(is_wrong(&flip));
    }

    #[test]
    fn stale_reads_are_found_though_the_indexes_lie() {
        let history = [
            op(0, 10, Ask::Set(1, 100), Answer::Done, 4),
            op(11, 20, Ask::Set(1, 101), Answer::Done, 5),
            op(21, 30, Ask::Get(1), saw(100, 4), 6),
        ];
        assert!(is_wrong(&history));
    }

    #[test]
    fn lost_writes_happen_late_or_never_and_once() {
        let set = lost(0, Ask::Set(1, 100));
        let get = |t, answer| op(t, t + 5, Ask::Get(1), answer, 0);
        assert_eq!(check(&[set.clone(), get(10, GONE), get(20, saw(100, 0))]), Verdict::Linearizable);
        assert_eq!(check(&[set.clone(), get(10, GONE), get(20, GONE)]), Verdict::Linearizable);
        assert!(is_wrong(&[set.clone(), get(10, saw(100, 0)), get(20, GONE)]));
        let delete = op(16, 17, Ask::Delete(1), Answer::Done, 0);
        assert!(is_wrong(&[set.clone(), get(10, saw(100, 0)), delete.clone(), get(20, saw(100, 0))]));
        assert_eq!(check(&[set.clone(), get(10, GONE), delete, get(20, saw(100, 0))]), Verdict::Linearizable);
        assert!(is_wrong(&[get(10, saw(100, 0)), lost(30, Ask::Set(1, 100))]));
    }

    #[test]
    fn conditions_hold() {
        let set = op(0, 10, Ask::Set(1, 100), Answer::Done, 0);
        let cas = |value, answer| op(11, 20, Ask::Cas(1, row(100, 0), value), Answer::Condition(answer), 0);
        assert_eq!(check(&[set.clone(), cas(101, true), cas(102, false)]), Verdict::Linearizable);
        assert!(is_wrong(&[set.clone(), cas(101, true), cas(102, true)]));
        assert!(is_wrong(&[set.clone(), cas(101, false)]));
        let lost_delete = lost(5, Ask::Delete(1));
        assert_eq!(check(&[set.clone(), lost_delete, cas(101, false)]), Verdict::Linearizable);
        let remove = Ask::DeleteCas(1, Row { value: 100, modified: 0 });
        assert!(is_wrong(&[set.clone(), op(11, 20, remove.clone(), Answer::Condition(false), 0)]));
        let removed = op(11, 20, remove, Answer::Condition(true), 0);
        assert!(is_wrong(&[set, removed, op(21, 30, Ask::Get(1), saw(100, 0), 0)]));
    }

    #[test]
    fn operations_on_many_keys_count_for_each() {
        let history = [
            op(0, 10, Ask::Set(1, 100), Answer::Done, 0),
            op(11, 20, Ask::Restore(vec![(2, 200)]), Answer::Done, 0),
            op(21, 30, Ask::Get(1), GONE, 0),
            op(21, 30, Ask::Get(2), saw(200, 0), 0),
            op(31, 40, Ask::DeleteAll(vec![1, 2]), Answer::Done, 0),
        ];
        assert_eq!(check(&history), Verdict::Linearizable);
        let mut wrong = history.to_vec();
        wrong.push(op(41, 50, Ask::Get(2), saw(200, 0), 0));
        assert!(is_wrong(&wrong));
    }

    /// Ten clients on one key, one answer in fifty lost; then one read near the end is made stale.
    #[test]
    fn a_thousand_operations_take_no_time() {
        let mut random: u64 = 7;
        let mut next = |below: u64| {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (random >> 33) % below
        };
        let (mut history, mut state, mut old) = (Vec::new(), None, None);
        for at in 0..1000_u64 {
            let moment = at * 10;
            let (called, returned) = (moment.saturating_sub(next(40)), moment + next(40));
            let (ask, answer) = if next(2) == 0 {
                (Ask::Get(1), Answer::Row(state.map(|value| Row { value, modified: 0 })))
            } else {
                old = state.or(old);
                state = Some(at);
                (Ask::Set(1, at), if next(50) == 0 { Answer::Lost } else { Answer::Done })
            };
            history.push(Operation { client: (at % 10) as u32, ..op(called, returned, ask, answer, at) });
        }
        assert_eq!(check(&history), Verdict::Linearizable);
        let stale = Answer::Row(Some(Row { value: 3, modified: 0 }));
        history.push(op(20_000, 20_001, Ask::Get(1), stale, 0));
        assert!(is_wrong(&history));
    }
}
