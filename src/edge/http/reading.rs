//! What becomes of a read: answered, in line for a barrier, parked; and how those who wait come out again.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::time::Duration;

use super::barriers::Reader;
use super::cache::{Group, Plan};
use super::connection::Phase;
use super::exchange::Wait;
use super::limits;
use super::park::{ConnId, Parked};
use super::query::failed;
use super::respond::Wire;
use super::serve::send_as;
use super::server::Server;
use super::stream::{News, panicked};
use super::told;
use crate::consensus::Consistency;
use crate::edge::fresh::{Shown, Verdict};
use crate::runtime::task;
use crate::store::State;

impl Server {
    /// Answers a read, or parks it, or lets it wait until the state here is new enough for it.
    pub(super) fn serve_plan(&mut self, id: ConnId, plan: &Plan) {
        match plan.group.freshness.judge(&self.clock.contact) {
            Verdict::Now(shown) => {
                if self.serve_fresh(id, plan, shown) {
                    plan.group.meter.note(self.clock.lap());
                }
            }
            Verdict::Behind(kind) => self.await_barrier(id, plan, kind),
            Verdict::Never(why) => {
                self.name_as(id, &plan.group);
                self.answer(id, &failed(plan.group.show_consistency, &why.to_string()), true);
                plan.group.meter.note(self.clock.lap());
            }
        }
    }

    /// Answers a read from the state here, which is new enough; or parks it, then false.
    fn serve_fresh(&mut self, id: ConnId, plan: &Plan, shown: Shown) -> bool {
        let state = self.edge.state();
        match plan.wait {
            Some(wait) if state.last_change(&plan.group.topic) <= wait.index => {
                self.park_query(id, plan, wait);
                false
            }
            _ => {
                self.answer_read(id, &plan.group, &state, shown);
                true
            }
        }
    }

    fn await_barrier(&mut self, id: ConnId, plan: &Plan, kind: Consistency) {
        self.forget_readers_who_left();
        let patience = self.policy.config.performance.rpc_hold_timeout;
        let number = self.barriers.join(kind, id, plan.clone(), self.clock.now, patience);
        let Some(conn) = self.conn(id) else { return };
        conn.phase = Phase::Waiting(number);
        if conn.hangup && conn.input.is_empty() {
            self.close(id);
        }
    }

    /// The records of readers who left stay in line; only when they are the most are they looked for.
    fn forget_readers_who_left(&mut self) {
        if self.barriers.len() <= 2 * self.open() + limits::READERS_LEFT_MAX {
            return;
        }
        let Server { barriers, conns, .. } = self;
        barriers.retain(|reader| {
            let slot = conns.get(reader.conn.slot as usize).filter(|slot| slot.is(reader.conn));
            let conn = slot.and_then(|slot| slot.conn.as_ref());
            conn.is_some_and(|conn| matches!(conn.phase, Phase::Waiting(number) if number == reader.number))
        });
    }

    /// Goes on with reads whose wait for a barrier is over, a bounded number in one turn.
    pub(super) fn answer_released(&mut self) {
        for _ in 0..limits::WAKES_PER_TURN {
            let Some((reader, passed)) = self.barriers.released() else { return };
            let Reader { conn: id, number, plan, since, .. } = reader;
            let Some(conn) = self.conn(id) else { continue };
            if !matches!(conn.phase, Phase::Waiting(waits) if waits == number) {
                continue;
            }
            conn.phase = Phase::Head;
            let answered = match passed {
                Ok(()) => self.serve_fresh(id, &plan, plan.group.freshness.confirmed()),
                Err(why) => {
                    self.name_as(id, &plan.group);
                    self.answer(id, &failed(plan.group.show_consistency, &why.to_string()), true);
                    true
                }
            };
            if answered {
                plan.group.meter.note(self.clock.now.saturating_duration_since(since));
                self.resume(id);
            }
        }
    }

    /// Begins the barriers that reads wait for. Those that came in this turn are all before its beginning.
    pub(super) fn begin_barriers(&mut self) {
        for kind in [Consistency::Default, Consistency::Consistent] {
            if self.barriers.begin(kind, self.clock.now) {
                let (edge, inbox) = (self.edge.clone(), self.inbox.clone());
                task::spawn(
                    async move { inbox.post(News::Barrier(kind, edge.leadership().barrier(kind).await)) },
                )
                .detach();
            }
        }
    }

    fn park_query(&mut self, id: ConnId, plan: &Plan, wait: Wait) {
        let now = self.clock.now;
        let deadline = now + self.patience(wait);
        let ticket = self.park.park(plan.group.clone(), id, wait.index, now, deadline);
        let Some(conn) = self.conn(id) else { return };
        conn.phase = Phase::Parked(ticket);
        // Those who wait are many, and their names nobody asks for.
        conn.asked.take_if(|_| !told::is_wanted());
        if conn.hangup && conn.input.is_empty() {
            self.close(id);
        }
    }

    /// How long a query waits: what it asked for within bounds, and up to a sixteenth more.
    fn patience(&mut self, wait: Wait) -> Duration {
        let config = &self.policy.config;
        let asked = match wait.wait_ns {
            ns if ns > 0 => Duration::from_nanos(ns as u64).min(config.max_query_time),
            _ => config.default_query_time,
        };
        let jitter = asked / limits::WAIT_JITTER_FRACTION;
        asked + jitter.mul_f64(self.rng.fraction())
    }

    /// Answers parked queries of one group that are still there.
    fn answer_row(&mut self, group: &Rc<Group>, row: &[Parked]) {
        let state = self.edge.state();
        let shown = group.freshness.later(&self.edge.leadership().contact());
        for parked in row {
            if self.unpark(parked) {
                self.answer_read(parked.conn, group, &state, shown);
                self.resume(parked.conn);
            }
        }
    }

    /// Ends a wait; false when it had ended already.
    fn unpark(&mut self, parked: &Parked) -> bool {
        let Some(conn) = self.conn(parked.conn) else { return false };
        if !matches!(&conn.phase, Phase::Parked(ticket) if ticket.number() == parked.ticket) {
            return false;
        }
        if let Phase::Parked(ticket) = std::mem::replace(&mut conn.phase, Phase::Head) {
            self.park.leave(&ticket);
            let waited = self.clock.now.saturating_duration_since(ticket.since());
            ticket.group().meter.note(waited);
        }
        true
    }

    fn answer_read(&mut self, id: ConnId, group: &Group, state: &State, shown: Shown) {
        let Server { clock, conns, policy, .. } = self;
        let Some(conn) = conns.get_mut(id.slot as usize).and_then(|slot| slot.conn.as_mut()) else { return };
        let moment = clock.moment(policy.extra_head(conn.peer));
        let send = |wire: &Wire| send_as(conn, wire);
        let sent = catch_unwind(AssertUnwindSafe(|| group.with_wire(state, moment, shown, send)));
        match sent {
            Ok(flushed) => self.after_answer(id, flushed),
            Err(_) => {
                self.name_as(id, group);
                self.answer(id, &panicked(), true);
            }
        }
    }

    /// Answers parked queries whose topic changed, a bounded number in one turn.
    pub(super) fn answer_woken(&mut self) {
        let mut left = limits::WAKES_PER_TURN;
        while left > 0
            && let Some((group, mut row)) = self.woken.pop_front()
        {
            let rest = row.split_off(row.len().min(left));
            left -= row.len();
            self.answer_row(&group, &row);
            if !rest.is_empty() {
                self.woken.push_front((group, rest));
            }
        }
    }

    /// Answers parked queries whose time is up with what there is.
    pub(super) fn answer_due(&mut self) {
        for _ in 0..limits::WAKES_PER_TURN {
            let Some((conn, ticket)) = self.park.due(self.clock.now) else { return };
            let Some(group) = self.conn(conn).and_then(|conn| match &conn.phase {
                Phase::Parked(ticket) => Some(ticket.group().clone()),
                _ => None,
            }) else {
                debug_assert!(false, "a parked query's connection holds its ticket");
                return;
            };
            self.answer_row(&group, &[Parked { conn, index: 0, ticket }]);
        }
    }
}
