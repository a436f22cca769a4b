//! The index-witness check: each answer says at which index of the log it was true.
//!
//! Three rules. One write has one index and no other write has it. A model that does all operations in
//! order of their indexes (reads after the write of the same index) gives every answer. And indexes respect real time:
//! what is asked after an answer was there has no smaller index than that answer, a write a greater one. Reads that
//! promise a prefix only are held to the third rule against reads of the same copy alone.
//!
//! A lost write without an index may have happened at any time after it was asked. It is placed where an answer shows
//! its value, and otherwise used to excuse one answer that the model cannot explain.

use std::collections::{BTreeMap, BTreeSet};

use crate::model::Model;
use crate::{Answer, Ask, Key, Operation, Promise, Row, Time, Violation};

/// Judges a history.
///
/// # Errors
/// The first rule that is broken, in order of indexes.
pub fn check(history: &[Operation]) -> Result<(), Violation> {
    let placed = place(history)?;
    replay(history, &placed)?;
    real_time(history, &placed)
}

/// The index of each operation, lost writes included if an answer shows their value.
fn place(history: &[Operation]) -> Result<Vec<Option<u64>>, Violation> {
    let mut placed: Vec<Option<u64>> = history.iter().map(|op| op.index).collect();
    let mut lost: BTreeMap<u64, usize> = BTreeMap::new();
    for (at, op) in history.iter().enumerate() {
        if op.answer == Answer::Refused {
            placed[at] = None;
        }
        if let (Answer::Lost, None, Ask::Set(_, value) | Ask::Cas(_, _, value)) =
            (op.answer, op.index, &op.ask)
        {
            lost.insert(*value, at);
        }
    }
    for op in history {
        let Answer::Row(Some(row)) = op.answer else { continue };
        let Some(&write) = lost.get(&row.value) else { continue };
        if *placed[write].get_or_insert(row.modified) != row.modified {
            let story = format!("{op:?} shows the value at another index than an answer before");
            return Err(Violation { rule: "one index per write", story });
        }
    }
    let mut taken: BTreeMap<u64, usize> = BTreeMap::new();
    for (at, op) in history.iter().enumerate() {
        let Some(index) = placed[at].filter(|_| !op.ask.is_read()) else { continue };
        if let Some(other) = taken.insert(index, at) {
            let story = format!("index {index} belongs to {:?} and to {op:?}", history[other]);
            return Err(Violation { rule: "one write per index", story });
        }
    }
    Ok(placed)
}

fn replay(history: &[Operation], placed: &[Option<u64>]) -> Result<(), Violation> {
    let mut order: Vec<(u64, bool, usize)> = Vec::with_capacity(history.len());
    for (at, op) in history.iter().enumerate() {
        if let Some(index) = placed[at] {
            order.push((index, op.ask.is_read(), at));
        }
    }
    order.sort_unstable();
    let mut replay = Replay {
        model: Model::default(),
        unsure: BTreeSet::new(),
        loose: (0..history.len())
            .filter(|at| history[*at].answer == Answer::Lost && placed[*at].is_none())
            .filter(|at| !history[*at].ask.is_read())
            .collect(),
        history,
    };
    order.into_iter().try_for_each(|(index, _, at)| replay.judge(index, &history[at]))
}

struct Replay<'a> {
    history: &'a [Operation],
    model: Model,
    /// Keys that a loose write may have changed in a way that nothing tells.
    unsure: BTreeSet<Key>,
    /// Lost writes without a place.
    loose: BTreeSet<usize>,
}

impl Replay<'_> {
    fn judge(&mut self, index: u64, op: &Operation) -> Result<(), Violation> {
        // That a lost conditional write has a place says that it took place.
        let held = op.answer == Answer::Lost && matches!(op.ask, Ask::Cas(..) | Ask::DeleteCas(..));
        let mut op = op.clone();
        if held {
            // Whoever asked has given up, the write had not: it may have come after whatever was asked since.
            (op.answer, op.returned) = (Answer::Condition(true), Time::MAX);
        }
        let op = &op;
        let Some(key) = key_of(&op.ask) else {
            self.model.apply(index, &op.ask);
            self.unsure.clear();
            return Ok(());
        };
        if self.unsure.contains(&key) {
            self.believe(index, key, op);
            return Ok(());
        }
        let before = self.model.get(key);
        let right = self.model.apply(index, &op.ask);
        if op.answer == Answer::Lost || op.answer == right {
            return Ok(());
        }
        if !self.excuse(key, op) {
            let story =
                format!("{op:?} should have been {right:?} at index {index}, where the key was {before:?}");
            return Err(Violation { rule: "answers match the log", story });
        }
        self.unsure.insert(key);
        self.believe(index, key, op);
        Ok(())
    }

    /// Takes a loose write that may explain what `op` saw of `key`, if there is one. What is seen of a value has been
    /// placed, so all that a loose write can explain is that something is gone.
    fn excuse(&mut self, key: Key, op: &Operation) -> bool {
        let history = self.history;
        let fits = |at: &&usize| {
            let lost = &history[**at];
            let removes =
                matches!(lost.ask, Ask::Delete(_) | Ask::DeleteCas(..) | Ask::DeleteAll(_) | Ask::Restore(_));
            let explains = match op.answer {
                Answer::Row(Some(_)) => false,
                Answer::Row(None) | Answer::Condition(true) => removes,
                _ => true,
            };
            explains && lost.ask.concerns(key) && lost.called <= op.returned
        };
        let found = self.loose.iter().find(fits).copied();
        if let Some(at) = found.filter(|at| matches!(history[*at].ask, Ask::Delete(_) | Ask::DeleteCas(..))) {
            self.loose.remove(&at);
        }
        found.is_some()
    }

    /// Goes on from what was seen of a key that nobody could be sure of. A condition that failed tells little.
    fn believe(&mut self, index: u64, key: Key, op: &Operation) {
        let row = match (op.answer, &op.ask) {
            (Answer::Row(row), _) => row,
            (Answer::Condition(false), _) => return,
            (_, Ask::Set(_, value) | Ask::Cas(_, _, value)) => Some(Row { value: *value, modified: index }),
            _ => None,
        };
        self.model.put(key, row);
        self.unsure.remove(&key);
    }
}

fn key_of(ask: &Ask) -> Option<Key> {
    match ask {
        Ask::Get(key) | Ask::Set(key, _) | Ask::Cas(key, ..) | Ask::Delete(key) | Ask::DeleteCas(key, _) => {
            Some(*key)
        }
        Ask::DeleteAll(_) | Ask::Restore(_) => None,
    }
}

fn real_time(history: &[Operation], placed: &[Option<u64>]) -> Result<(), Violation> {
    let with_index = |at: &usize| placed[*at].is_some();
    let linearizable = |at: &usize| history[*at].promise == Promise::Linearizable;
    let all: Vec<usize> = (0..history.len()).filter(with_index).filter(linearizable).collect();
    in_order("order of indexes respects real time", history, placed, &all)?;

    let mut copies: BTreeMap<u32, Vec<usize>> = BTreeMap::new();
    for at in (0..history.len()).filter(with_index) {
        if let Promise::Prefix { copy } = history[at].promise {
            copies.entry(copy).or_default().push(at);
        }
    }
    copies.values().try_for_each(|reads| in_order("a copy never goes back", history, placed, reads))
}

fn in_order(
    rule: &'static str,
    history: &[Operation],
    placed: &[Option<u64>],
    these: &[usize],
) -> Result<(), Violation> {
    let mut calls = these.to_vec();
    calls.sort_unstable_by_key(|at| history[*at].called);
    let mut returns: Vec<usize> =
        these.iter().copied().filter(|at| history[*at].answer != Answer::Lost).collect();
    returns.sort_unstable_by_key(|at| history[*at].returned);
    let mut returned = returns.into_iter().peekable();
    let mut newest: Option<usize> = None;
    for at in calls {
        let op = &history[at];
        while let Some(before) = returned.next_if(|before| history[*before].returned < op.called) {
            if newest.is_none_or(|newest| placed[newest] < placed[before]) {
                newest = Some(before);
            }
        }
        let Some(newest) = newest else { continue };
        if placed[at] < placed[newest] || placed[at] == placed[newest] && !op.ask.is_read() {
            let story = format!("{op:?} was asked after {:?} was answered", history[newest]);
            return Err(Violation { rule, story });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tests::{lost, op, row, saw};

    const GONE: Answer = Answer::Row(None);

    fn rule(history: &[Operation]) -> &'static str {
        check(history).expect_err("a history that cannot be true").rule
    }

    #[test]
    fn what_can_be_true_passes() {
        let history = [
            op(0, 10, Ask::Get(1), GONE, 3),
            op(5, 20, Ask::Set(1, 100), Answer::Done, 4),
            op(8, 30, Ask::Get(1), GONE, 3),
            op(21, 30, Ask::Get(1), saw(100, 4), 4),
            op(31, 40, Ask::Cas(1, row(100, 4), 101), Answer::Condition(true), 6),
            op(31, 41, Ask::Cas(1, row(100, 4), 102), Answer::Condition(false), 7),
            op(42, 45, Ask::DeleteCas(1, Row { value: 101, modified: 6 }), Answer::Condition(true), 8),
            op(46, 50, Ask::Cas(1, None, 103), Answer::Condition(true), 9),
            op(51, 60, Ask::DeleteAll(vec![1, 2]), Answer::Done, 10),
            op(61, 70, Ask::Get(1), GONE, 10),
            op(71, 80, Ask::Restore(vec![(2, 104)]), Answer::Done, 11),
            op(81, 90, Ask::Get(2), saw(104, 11), 12),
        ];
        assert_eq!(check(&history), Ok(()));
    }

    #[test]
    fn a_stale_read_is_found_by_time_and_a_wrong_value_by_the_log() {
        let written = op(0, 10, Ask::Set(1, 100), Answer::Done, 4);
        let stale = op(11, 20, Ask::Get(1), GONE, 3);
        assert_eq!(rule(&[written.clone(), stale]), "order of indexes respects real time");
        let wrong = op(11, 20, Ask::Get(1), GONE, 4);
        assert_eq!(rule(&[written.clone(), wrong]), "answers match the log");
        let lying = op(11, 20, Ask::Get(1), saw(100, 3), 4);
        assert_eq!(rule(&[written, lying]), "answers match the log");
    }

    #[test]
    fn an_acknowledged_write_that_nobody_sees_is_found() {
        let history =
            [op(0, 10, Ask::Set(1, 100), Answer::Done, 4), op(11, 20, Ask::Set(2, 101), Answer::Done, 4)];
        assert_eq!(rule(&history), "one write per index");
        let history = [op(0, 10, Ask::Set(1, 100), Answer::Done, 4), op(11, 20, Ask::Get(1), GONE, 9)];
        assert_eq!(rule(&history), "answers match the log");
    }

    #[test]
    fn a_deleted_key_does_not_come_back() {
        let history = [
            op(0, 10, Ask::Set(1, 100), Answer::Done, 4),
            op(11, 20, Ask::Delete(1), Answer::Done, 5),
            op(21, 30, Ask::Get(1), saw(100, 4), 5),
        ];
        assert_eq!(rule(&history), "answers match the log");
    }

    #[test]
    fn two_may_not_both_win_a_race() {
        let history = [
            op(0, 10, Ask::Set(1, 100), Answer::Done, 4),
            op(11, 30, Ask::Cas(1, row(100, 4), 101), Answer::Condition(true), 5),
            op(11, 30, Ask::Cas(1, row(100, 4), 102), Answer::Condition(true), 6),
        ];
        assert_eq!(rule(&history), "answers match the log");
        let history = [
            op(0, 10, Ask::Cas(1, None, 100), Answer::Condition(true), 4),
            op(0, 10, Ask::Cas(1, None, 101), Answer::Condition(true), 5),
        ];
        assert_eq!(rule(&history), "answers match the log");
    }

    #[test]
    fn a_lost_write_may_or_may_not_have_happened_but_only_once() {
        let set = lost(0, Ask::Set(1, 100));
        assert_eq!(check(&[set.clone(), op(5, 10, Ask::Get(1), GONE, 3)]), Ok(()));
        assert_eq!(check(&[set.clone(), op(5, 10, Ask::Get(1), saw(100, 3), 3)]), Ok(()));
        let twice = [
            set.clone(),
            op(5, 10, Ask::Get(1), saw(100, 3), 3),
            op(11, 12, Ask::Delete(1), Answer::Done, 4),
            op(13, 15, Ask::Get(1), saw(100, 5), 5),
        ];
        assert_eq!(rule(&twice), "one index per write");
        let back = [
            set,
            op(5, 10, Ask::Get(1), saw(100, 3), 3),
            op(11, 12, Ask::Delete(1), Answer::Done, 4),
            op(13, 15, Ask::Get(1), saw(100, 3), 5),
        ];
        assert_eq!(rule(&back), "answers match the log");
    }

    #[test]
    fn a_lost_write_does_not_happen_before_it_is_asked() {
        let history = [
            op(0, 10, Ask::Set(2, 7), Answer::Done, 9),
            lost(20, Ask::Set(1, 100)),
            op(30, 40, Ask::Get(1), saw(100, 8), 9),
        ];
        assert_eq!(rule(&history), "order of indexes respects real time");
    }

    #[test]
    fn a_lost_delete_explains_one_absence() {
        let set = op(0, 10, Ask::Set(1, 100), Answer::Done, 4);
        let delete = lost(11, Ask::Delete(1));
        let gone = op(12, 20, Ask::Get(1), GONE, 5);
        assert_eq!(check(&[set.clone(), delete.clone(), gone.clone()]), Ok(()));
        assert_eq!(rule(&[set.clone(), lost(30, Ask::Delete(1)), gone.clone()]), "answers match the log");
        assert_eq!(rule(&[set.clone(), lost(11, Ask::Delete(2)), gone.clone()]), "answers match the log");
        let again = op(21, 30, Ask::Set(1, 101), Answer::Done, 6);
        let gone_again = op(31, 40, Ask::Get(1), GONE, 7);
        assert_eq!(rule(&[set, delete, gone, again, gone_again]), "answers match the log");
    }

    #[test]
    fn a_lost_race_that_was_won_tells_of_a_lost_delete() {
        let set = op(0, 10, Ask::Set(1, 100), Answer::Done, 4);
        let (delete, cas) = (lost(11, Ask::Delete(1)), lost(12, Ask::Cas(1, None, 101)));
        let seen = op(20, 30, Ask::Get(1), saw(101, 6), 6);
        assert_eq!(check(&[set.clone(), delete, cas.clone(), seen.clone()]), Ok(()));
        let mut given_up = cas.clone();
        given_up.returned = 15;
        let delete = lost(16, Ask::Delete(1));
        assert_eq!(check(&[set.clone(), delete, given_up, seen.clone()]), Ok(()));
        assert_eq!(rule(&[set, cas, seen]), "answers match the log");
    }

    #[test]
    fn a_lost_write_excuses_a_lost_race_but_no_value() {
        let set = op(0, 10, Ask::Set(1, 100), Answer::Done, 4);
        let failed = op(20, 30, Ask::Cas(1, row(100, 4), 102), Answer::Condition(false), 6);
        assert_eq!(check(&[set.clone(), lost(11, Ask::Set(1, 101)), failed.clone()]), Ok(()));
        assert_eq!(rule(&[set, lost(11, Ask::Set(2, 101)), failed]), "answers match the log");
    }

    #[test]
    fn after_a_lost_write_that_only_a_failed_condition_tells_of_nothing_is_sure() {
        let set = op(0, 10, Ask::Set(1, 100), Answer::Done, 4);
        let cas =
            |at: u64, value| op(at, at + 5, Ask::Cas(1, row(100, 4), value), Answer::Condition(false), at);
        let removed =
            op(50, 60, Ask::DeleteCas(1, Row { value: 100, modified: 4 }), Answer::Condition(true), 50);
        let history = [set.clone(), lost(11, Ask::Delete(1)), cas(20, 102), cas(30, 103), removed.clone()];
        assert_eq!(check(&history), Ok(()));
        let again = op(70, 75, Ask::Get(1), saw(100, 4), 70);
        let mut history = history.to_vec();
        history.push(again);
        assert_eq!(rule(&history), "answers match the log");
        assert_eq!(rule(&[set, cas(20, 102), cas(30, 103), removed]), "answers match the log");
    }

    #[test]
    fn a_refused_write_did_not_happen() {
        let mut refused = op(0, 10, Ask::Set(1, 100), Answer::Refused, 0);
        refused.index = None;
        assert_eq!(check(&[refused.clone(), op(11, 20, Ask::Get(1), GONE, 4)]), Ok(()));
        assert_eq!(rule(&[refused, op(11, 20, Ask::Get(1), saw(100, 4), 4)]), "answers match the log");
    }

    #[test]
    fn a_copy_may_be_old_but_never_goes_back() {
        let read = |called, returned, copy, index, answer| Operation {
            promise: Promise::Prefix { copy },
            ..op(called, returned, Ask::Get(1), answer, index)
        };
        let set = op(0, 10, Ask::Set(1, 100), Answer::Done, 4);
        let old = read(20, 21, 1, 3, GONE);
        assert_eq!(check(&[set.clone(), read(11, 12, 0, 4, saw(100, 4)), old.clone()]), Ok(()));
        assert_eq!(rule(&[set.clone(), read(11, 12, 1, 4, saw(100, 4)), old]), "a copy never goes back");
        assert_eq!(rule(&[set, read(20, 21, 1, 4, GONE)]), "answers match the log");
    }
}
