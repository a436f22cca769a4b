//! Intervals of ten seconds, as `/v1/agent/metrics` shows them: what came between one boundary and the next.
//!
//! The cells only ever count on; at a boundary their figures are compared with those at the last one. Who notices first that
//! one has passed does it ([`turn`]); no timer is set for it.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{LazyLock, Mutex, MutexGuard, PoisonError};

use super::{Figures, Name, Row};

/// Length of an interval, seconds.
pub const SECONDS: u64 = 10;

/// The number of the interval under way; 0 before the first question about time.
static NUMBER: AtomicU64 = AtomicU64::new(0);
static BOOK: LazyLock<Mutex<Book>> = LazyLock::new(Mutex::default);

/// What is known of the intervals.
#[derive(Default)]
struct Book {
    /// Number of the one under way.
    number: u64,
    /// Figures at its beginning.
    begun: BTreeMap<Name, Figures>,
    /// The one before it, if there was one.
    finished: Option<Vec<Row>>,
}

fn book() -> MutexGuard<'static, Book> {
    BOOK.lock().unwrap_or_else(PoisonError::into_inner)
}

/// To be called now and then with the wall clock's second: costs one load while no boundary has passed.
pub fn turn(second: u64) {
    let number = second / SECONDS;
    if NUMBER.load(Relaxed) != number {
        close(&mut book(), number, || super::rows(true));
    }
}

/// The last interval that is over, or the first one while it is under way: its first second, and its rows.
pub(super) fn last(second: u64) -> (u64, Vec<Row>) {
    turn(second);
    let book = book();
    match &book.finished {
        Some(rows) => ((book.number - 1) * SECONDS, rows.clone()),
        None => (book.number * SECONDS, since(&book.begun, super::rows(false))),
    }
}

/// Ends the interval under way, unless somebody else did. `take` gives all figures, and begins their extremes anew.
fn close(book: &mut Book, number: u64, take: impl FnOnce() -> Vec<Row>) {
    if book.number == number {
        return;
    }
    let now = take();
    if book.number != 0 {
        // Nobody looked for a whole interval: so nothing has happened in it.
        let rows = if number == book.number + 1 { since(&book.begun, now.clone()) } else { Vec::new() };
        book.finished = Some(rows);
    }
    book.begun = now.into_iter().map(|row| (row.name, row.figures)).collect();
    book.number = number;
    NUMBER.store(number, Relaxed);
}

/// What has come since then: rows in which nothing has are left out.
fn since(begun: &BTreeMap<Name, Figures>, now: Vec<Row>) -> Vec<Row> {
    let grown = now.into_iter().filter_map(|row| {
        let before = begun.get(&row.name).cloned().unwrap_or_default();
        let figures = row.figures.since(&before);
        (figures.count > 0).then_some(Row { figures, ..row })
    });
    grown.collect()
}

#[cfg(test)]
mod tests {
    use super::super::Kind;
    use super::*;

    fn rows(counts: &[(&'static str, u64, u64)]) -> Vec<Row> {
        let row = |&(name, count, sum): &(&'static str, u64, u64)| Row {
            name: Name::plain(name),
            kind: Kind::Sample,
            figures: Figures { count, sum, squares: sum * sum, least: 2, most: 10 },
        };
        counts.iter().map(row).collect()
    }

    #[test]
    fn an_interval_holds_what_came_in_it() {
        let mut book = Book::default();
        close(&mut book, 7, || rows(&[("a", 5, 50), ("b", 1, 1)]));
        assert!(book.finished.is_none(), "the first one is under way");
        close(&mut book, 7, || panic!("it is still the same"));
        close(&mut book, 8, || rows(&[("a", 7, 54), ("b", 1, 1), ("c", 1, 2)]));
        let finished = book.finished.clone().unwrap();
        let shown: Vec<_> =
            finished.iter().map(|row| (&*row.name.base, row.figures.count, row.figures.sum)).collect();
        assert_eq!(shown, [("a", 2, 4), ("c", 1, 2)]);
        // Nobody looked for a while: what came before that is not of the last ten seconds.
        close(&mut book, 10, || rows(&[("a", 9, 60)]));
        assert!(book.finished.clone().unwrap().is_empty());
    }
}
