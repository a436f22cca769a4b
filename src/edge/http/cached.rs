//! `?cached`: answers from the agent's cache. Our reads are always as new as a cache kept fresh in the background
//! would be, so nothing is kept but which questions were asked before: the first answer says `X-Cache: MISS`, later
//! ones `HIT` and how old they are: nothing, but on a client agent whose servers do not answer.

use std::collections::{BTreeSet, VecDeque};
use std::sync::{Mutex, PoisonError};

use super::Edge;
use super::exchange::{Read, Request, Response};
use crate::edge::fresh::Leadership;
use crate::store::State;

/// How many questions are remembered; the oldest is forgotten first and misses once more.
pub const CACHED_QUESTIONS_MAX: usize = 4096;

/// Bytes of a question that is remembered; a longer one misses every time. Heads may be as long as a mebibyte, and
/// thousands of those are more memory than an answer's age is worth.
pub const CACHED_QUESTION_BYTES_MAX: usize = 2048;

/// One memory for all cores, since a client's next request may come in on another one.
static ASKED: Mutex<Asked> = Mutex::new(Asked { known: BTreeSet::new(), order: VecDeque::new() });

/// Adds the headers of a cached answer when the request asked for one.
pub fn mark(edge: &Edge, request: &Request, read: Read) -> Read {
    if !read.options.cached {
        return read;
    }
    let hit = ask(request);
    let render = read.render;
    let leadership = edge.leadership().clone();
    let render = move |state: &State| headers(render(state), hit, age(&leadership));
    Read { cacheable: false, render: Box::new(render), ..read }
}

/// The same for an answer given at once.
pub fn mark_response(edge: &Edge, request: &Request, response: Response) -> Response {
    headers(response, ask(request), age(edge.leadership()))
}

/// Seconds since answers were as new as the servers'.
fn age(leadership: &Leadership) -> u64 {
    let lost = leadership.views().map(|views| views.contact()).filter(|contact| !contact.known_leader);
    lost.and_then(|contact| contact.last).map_or(0, |age| age.as_secs())
}

fn headers(response: Response, hit: bool, age: u64) -> Response {
    match hit {
        true => response.header("X-Cache", "HIT").header("Age", age.to_string()),
        false => response.header("X-Cache", "MISS"),
    }
}

/// Notes a question; whether it was asked before.
fn ask(request: &Request) -> bool {
    let asked = &mut *ASKED.lock().unwrap_or_else(PoisonError::into_inner);
    !asked.insert(question(request))
}

/// What distinguishes answers before `passing` and `near` are applied to them.
fn question(request: &Request) -> Box<[u8]> {
    let mut pairs: Vec<(&str, &str)> =
        request.query.iter().filter(|(name, _)| matches!(*name, "tag" | "node-meta" | "filter")).collect();
    pairs.sort_unstable();
    let mut question = request.path.to_vec();
    for (name, value) in pairs {
        for part in [name, value] {
            question.push(0);
            question.extend_from_slice(part.as_bytes());
        }
    }
    question.into()
}

struct Asked {
    known: BTreeSet<Box<[u8]>>,
    order: VecDeque<Box<[u8]>>,
}

impl Asked {
    /// Whether the question is new.
    fn insert(&mut self, question: Box<[u8]>) -> bool {
        if question.len() > CACHED_QUESTION_BYTES_MAX {
            return true;
        }
        if !self.known.insert(question.clone()) {
            return false;
        }
        self.order.push_back(question);
        if self.order.len() > CACHED_QUESTIONS_MAX
            && let Some(oldest) = self.order.pop_front()
        {
            self.known.remove(&oldest);
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_question_is_forgotten() {
        let mut asked = Asked { known: BTreeSet::new(), order: VecDeque::new() };
        let question = |n: usize| n.to_be_bytes().to_vec().into_boxed_slice();
        for n in 0..CACHED_QUESTIONS_MAX {
            assert!(asked.insert(question(n)));
        }
        assert!(!asked.insert(question(0)));
        assert!(asked.insert(question(CACHED_QUESTIONS_MAX)));
        assert_eq!((asked.known.len(), asked.order.len()), (CACHED_QUESTIONS_MAX, CACHED_QUESTIONS_MAX));
        assert!(asked.insert(question(0)));
    }

    #[test]
    fn a_long_question_is_not_remembered() {
        let mut asked = Asked { known: BTreeSet::new(), order: VecDeque::new() };
        let long = vec![b'x'; CACHED_QUESTION_BYTES_MAX + 1].into_boxed_slice();
        assert!(asked.insert(long.clone()));
        assert!(asked.insert(long));
        assert!(asked.known.is_empty() && asked.order.is_empty());
    }
}
