//! Keeps the views: one task follows each, and all of them write one mirror.

use std::cell::{Cell, RefCell};
use std::fmt::Write as _;
use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::kept::{Inner, Kept};
use super::{
    ADDRESSES_ASKED_MAX, Ask, HoldError, NameOf, Order, Own, Standing, Told, USE_INTERVAL, VIEWS_MAX,
    WAITING_MAX, too_busy,
};
use crate::consensus::Edges;
use crate::runtime::bell::{Bell, Turns};
use crate::runtime::mesh::{OneSender, Receiver, Sender};
use crate::runtime::publish::Published;
use crate::runtime::random::Rng;
use crate::runtime::task;
use crate::runtime::time;
use crate::store::{MirrorError, State, Touched, VIEW_FORMAT, View};

/// How long a server lets a question wait; it adds up to a sixteenth.
const WAIT: &str = "10m";
/// The same for a question that is to be answered at once.
const NO_WAIT: &str = "1ms";
/// Least time from one question about a view to the next: changes that come faster are told together.
const PACE: Duration = Duration::from_millis(50);
/// How often it is looked, while no server answers, what has become of the agent's own services.
const OWN_INTERVAL: Duration = Duration::from_millis(200);
/// How long a first question waits while no server answers.
const LOST_PATIENCE: Duration = Duration::from_secs(1);
/// Pauses between attempts while no server answers.
const RETRY_MIN: Duration = Duration::from_millis(100);
/// The longest of them.
const RETRY_MAX: Duration = Duration::from_secs(1);
/// Pause after an answer that brought nothing that can be used.
const USELESS_PAUSE: Duration = Duration::from_secs(1);

/// See the module.
pub struct Keeper {
    orders: Receiver<Order>,
    published: Published<State>,
    standing: Published<Standing>,
}

/// What the tasks share.
struct Shared {
    ask: Ask,
    own: RefCell<Own>,
    published: Published<State>,
    standing: Published<Standing>,
    edges: RefCell<Edges>,
    /// Rung when an edge was told something.
    told: Bell,
    inner: RefCell<Inner>,
    /// While no server answers, one task tries and the others wait for it.
    probe: Turns,
    /// Rung when the last server falls silent.
    silence: Bell,
    attempts: Cell<u32>,
    rng: RefCell<Rng>,
}

/// What became of an answer.
#[derive(Debug, PartialEq, Eq)]
enum Put {
    Done,
    /// Everything has to be asked for.
    Again,
    /// Ask again after a pause.
    Useless,
}

impl Keeper {
    pub(super) fn new(
        orders: Receiver<Order>,
        published: Published<State>,
        standing: Published<Standing>,
    ) -> Keeper {
        Keeper { orders, published, standing }
    }

    /// Runs until dropped. `edges` are told what changes, after it is published.
    pub async fn run(mut self, ask: Ask, own: Own, edges: Vec<Sender<Arc<Touched>>>) {
        let mirror = State::clone(&self.published.load());
        let shared = Rc::new(Shared {
            ask,
            own: RefCell::new(own),
            published: self.published,
            standing: self.standing,
            edges: RefCell::new(Edges::new(edges)),
            told: Bell::default(),
            inner: RefCell::new(Inner { mirror, ..Inner::default() }),
            probe: Turns::default(),
            silence: Bell::default(),
            attempts: Cell::new(0),
            rng: RefCell::new(Rng::seeded()),
        });
        let _end = End(shared.clone());
        let _telling = task::spawn(tell_edges(shared.clone()));
        let _forgetting = task::spawn(forget_idle(shared.clone()));
        let _standing_in = task::spawn(stand_in(shared.clone()));
        while let Some(order) = self.orders.recv().await {
            match order {
                Order::Hold(view, told) => shared.hold(view, told),
                Order::Use(view) => shared.note(&view),
                Order::Name(ip, told) => shared.name_of(ip, told),
            }
        }
    }
}

/// Ends the tasks that follow views, which hold what holds them.
struct End(Rc<Shared>);

impl Drop for End {
    fn drop(&mut self) {
        let views = std::mem::take(&mut self.0.inner.borrow_mut().views);
        drop(views);
    }
}

/// Tells edges that were behind the rest.
async fn tell_edges(shared: Rc<Shared>) {
    loop {
        let caught_up = std::future::poll_fn(|cx| {
            let mut edges = shared.edges.borrow_mut();
            edges.poll(cx);
            if edges.are_behind() { std::task::Poll::Pending } else { std::task::Poll::Ready(()) }
        });
        caught_up.await;
        shared.told.heard().await;
    }
}

/// While no server answers, what the agent knows of its own node goes into what is published; and somebody must notice that
/// one answers again.
async fn stand_in(shared: Rc<Shared>) {
    loop {
        shared.silence.heard().await;
        let mut next = time::now();
        while shared.is_lost() {
            shared.stand_in();
            time::sleep(OWN_INTERVAL).await;
            if shared.nobody_asks() && time::now() >= next {
                match (shared.ask)("/v1/internal/rpc/address?ip=127.0.0.1&stale".to_owned()).await {
                    Ok(told) if told.status == 200 => shared.found(),
                    Ok(told) => shared.lost(&refusal(&told).0),
                    Err(why) => shared.lost(&why),
                }
                next = time::now() + shared.retry_pause();
            }
        }
    }
}

async fn forget_idle(shared: Rc<Shared>) {
    loop {
        time::sleep(USE_INTERVAL).await;
        shared.forget_idle(time::now());
    }
}

impl Shared {
    fn hold(self: &Rc<Shared>, view: View, told: OneSender<Result<(), HoldError>>) {
        let now = time::now();
        let mut borrowed = self.inner.borrow_mut();
        let inner = &mut *borrowed;
        if inner.mirror.holds(&view) {
            if let Some(kept) = inner.views.get_mut(&view) {
                kept.used = now;
            }
            // Whoever has left does not want to know.
            let _ = told.send(Ok(()));
            return;
        }
        if inner.waiting >= WAITING_MAX {
            let _ = told.send(Err(too_busy()));
            return;
        }
        if let Some(kept) = inner.views.get_mut(&view).filter(|kept| !kept.has_ended()) {
            kept.used = now;
            kept.waiting.push(told);
            inner.waiting += 1;
            return;
        }
        if inner.views.len() >= VIEWS_MAX && !inner.views.contains_key(&view) {
            let Some(touched) = inner.evict(self.is_lost()) else {
                let _ = told.send(Err(too_busy()));
                return;
            };
            if !touched.is_empty() {
                self.publish(inner, touched);
            }
        }
        inner.waiting += 1;
        let kept = Kept { used: now, history: None, waiting: vec![told], following: None };
        inner.views.insert(view.clone(), kept);
        // The task may begin, and even end, at once.
        drop(borrowed);
        let following = task::spawn(follow(self.clone(), view.clone()));
        if let Some(kept) = self.inner.borrow_mut().views.get_mut(&view) {
            kept.following = Some(following);
        }
    }

    fn note(&self, view: &View) {
        if let Some(kept) = self.inner.borrow_mut().views.get_mut(view) {
            kept.used = time::now();
        }
    }

    fn name_of(self: &Rc<Shared>, ip: IpAddr, told: OneSender<Result<Option<NameOf>, HoldError>>) {
        if self.inner.borrow().addresses.asked >= ADDRESSES_ASKED_MAX {
            let _ = told.send(Err(too_busy()));
            return;
        }
        self.inner.borrow_mut().addresses.asked += 1;
        let shared = self.clone();
        let asking = async move {
            let answer = (shared.ask)(format!("/v1/internal/rpc/address?ip={ip}&stale")).await;
            let addresses = &mut shared.inner.borrow_mut().addresses;
            addresses.asked -= 1;
            let named = match answer {
                Ok(answer) if answer.status == 200 => Ok(addresses.learn(ip, &answer.body)),
                Ok(answer) => addresses.recall(ip, refusal(&answer)),
                Err(why) => addresses.recall(ip, HoldError(why)),
            };
            let _ = told.send(named);
        };
        task::spawn(asking).detach();
    }

    /// The question for what has changed of a view.
    fn target(&self, view: &View, everything: bool, wait: &str) -> String {
        let inner = self.inner.borrow();
        let kind = match view {
            View::Service(_) => "service",
            View::Node(_) => "node",
            View::Names => "names",
        };
        let since = if everything { 0 } else { inner.mirror.view_index(view) };
        let mut target = format!("/v1/internal/rpc/view/{kind}?format={VIEW_FORMAT}&stale&name=");
        escape(view.name(), &mut target);
        let history = inner.views.get(view).and_then(|kept| kept.history.as_ref());
        if let Some(history) = history.filter(|_| since > 0) {
            target.push_str("&history=");
            escape(history, &mut target);
            // Without `since` all questions would look the same but for their index, and share an answer.
            let _ = write!(target, "&since={since}&index={since}&wait={wait}");
        }
        target
    }

    /// Asks; what is not held yet not for long while no server answers, as who waits for it gives up soon.
    async fn ask_for(&self, view: &View, target: String) -> Result<Told, String> {
        let asking = (self.ask)(target);
        if !self.is_lost() || self.holds(view) {
            return asking.await;
        }
        let why = || Err("no server answers".to_owned());
        time::timeout(LOST_PATIENCE, asking).await.unwrap_or_else(why)
    }

    /// Puts an answer into the mirror, publishes it, and tells all who wait for it.
    fn put(&self, view: &View, told: &Told) -> Put {
        let inner = &mut *self.inner.borrow_mut();
        let history: Arc<str> = told.history.as_str().into();
        let is_other = |known: &Option<Arc<str>>| known.as_ref().is_some_and(|known| *known != history);
        if is_other(&inner.history) && !told.is_current {
            // A server that has just started does not know yet which cluster is its own, and may know only what was long ago.
            return Put::Useless;
        }
        let mut mirror = inner.mirror.clone();
        if is_other(&inner.history) {
            mirror.begin_history();
        }
        let mut touched = Touched::new();
        let before = mirror.view_index(view);
        match mirror.put_view(view, &told.body, &mut touched) {
            Ok(()) => {}
            Err(MirrorError::Disjoint) => return Put::Again,
            Err(error @ MirrorError::Damaged(_)) => {
                tracing::warn!(target: "agent.views", "a server told of {}: {error}", view.name());
                return Put::Useless;
            }
        }
        let Some(kept) = inner.views.get_mut(view) else { return Put::Useless };
        // A server that is behind knows less than another one has told.
        if mirror.view_index(view) < before && !is_other(&kept.history) && !told.is_current {
            return Put::Useless;
        }
        if is_other(&inner.history) {
            tracing::info!(target: "agent.views", "the servers are another cluster's now: what is kept is asked for anew");
        }
        kept.history = Some(history.clone());
        let waiting = std::mem::take(&mut kept.waiting);
        inner.waiting -= waiting.len();
        inner.history = Some(history);
        let moved = mirror.index() != inner.mirror.index();
        inner.mirror = mirror;
        if moved {
            self.publish(inner, touched);
        }
        for told in waiting {
            let _ = told.send(Ok(()));
        }
        Put::Done
    }

    /// The first question about a view has failed: so have those that wait for it, unless the agent itself knows something.
    fn fail(&self, view: &View, why: &HoldError) {
        let result = if self.shows(view) { Ok(()) } else { Err(why.clone()) };
        let inner = &mut *self.inner.borrow_mut();
        let waiting = inner.views.get_mut(view).map(|kept| std::mem::take(&mut kept.waiting));
        for told in waiting.into_iter().flatten() {
            inner.waiting -= 1;
            let _ = told.send(result.clone());
        }
    }

    /// Publishes what the mirror has become, and tells the edges.
    fn publish(&self, inner: &mut Inner, mut touched: Touched) {
        let index = self.published.load().index() + 1;
        let own = inner.own.as_ref().filter(|_| self.is_lost());
        let state = match own {
            Some(own) => inner.mirror.with_own(own, &mut touched).as_published(index, true),
            None => inner.mirror.as_published(index, false),
        };
        let overlaid = own.is_some();
        if std::mem::replace(&mut inner.overlaid, overlaid) && !overlaid {
            touched = Touched::everything();
        }
        self.published.store(state);
        self.edges.borrow_mut().tell(touched);
        self.told.ring();
    }

    /// Puts what the agent knows of its own node into what is published, if it is news.
    fn stand_in(&self) {
        let rows = (self.own.borrow_mut())();
        let inner = &mut *self.inner.borrow_mut();
        let is_new = rows.is_some() || (inner.own.is_some() && !inner.overlaid);
        inner.own = rows.or(inner.own.take());
        if is_new {
            self.publish(inner, Touched::new());
        }
    }

    fn is_lost(&self) -> bool {
        self.standing.load().lost.is_some()
    }

    /// Whether a view is answered for, be it by the agent's own rows only.
    fn shows(&self, view: &View) -> bool {
        self.published.load().holds(view)
    }

    /// Whether somebody waits for the first word about a view.
    fn is_awaited(&self, view: &View) -> bool {
        let inner = self.inner.borrow();
        inner.views.get(view).is_some_and(|kept| kept.waiting.iter().any(|told| !told.is_closed()))
    }

    /// Whether no view is followed.
    fn nobody_asks(&self) -> bool {
        self.inner.borrow().views.values().all(Kept::has_ended)
    }

    fn holds(&self, view: &View) -> bool {
        self.inner.borrow().mirror.holds(view)
    }

    /// A server has answered.
    fn found(&self) {
        self.attempts.set(0);
        if let Some(since) = self.standing.load().lost {
            let age = time::now().saturating_duration_since(since);
            tracing::info!(target: "agent.views", "servers answer again after {age:.1?}");
            self.standing.store(Standing { lost: None });
            let inner = &mut *self.inner.borrow_mut();
            if inner.overlaid {
                self.publish(inner, Touched::new());
            }
        }
    }

    /// None does.
    fn lost(&self, why: &str) {
        self.attempts.set(self.attempts.get().saturating_add(1));
        if self.standing.load().lost.is_none() {
            let kept = self.inner.borrow().views.len();
            tracing::warn!(
                target: "agent.views",
                "no server answers that follows a leader: what is kept of {kept} services and nodes is answered from memory, its age told: error={why:?}"
            );
            self.standing.store(Standing { lost: Some(time::now()) });
            self.stand_in();
            self.silence.ring();
        }
    }

    /// How long to wait before the next attempt: longer each time, and not all agents at once.
    fn retry_pause(&self) -> Duration {
        let doublings = self.attempts.get().saturating_sub(1).min(16);
        let pause = RETRY_MIN.saturating_mul(1 << doublings).min(RETRY_MAX);
        pause.mul_f64(0.75 + self.rng.borrow_mut().fraction() / 2.0)
    }

    fn forget_idle(&self, now: Instant) {
        // Nothing is dropped while there is nobody to ask again.
        if self.is_lost() {
            return;
        }
        let inner = &mut *self.inner.borrow_mut();
        let touched = inner.forget_idle(now);
        if !touched.is_empty() {
            self.publish(inner, touched);
        }
    }
}

/// Follows a view: asks for everything, then for what changes, for ever. Ends when the first question fails.
async fn follow(shared: Rc<Shared>, view: View) {
    let mut everything = false;
    let mut after_loss = false;
    loop {
        // One at a time until it is known that servers answer again, and what has changed meanwhile.
        let turn = if after_loss { Some(shared.probe.take().await) } else { None };
        if after_loss && shared.is_lost() {
            time::sleep(shared.retry_pause()).await;
        }
        let asked = time::now();
        let target = shared.target(&view, everything, if after_loss { NO_WAIT } else { WAIT });
        let answer = shared.ask_for(&view, target).await;
        drop(turn);
        match answer {
            Ok(told) if told.status == 200 => {
                // What a server says that follows no leader is better than nothing, and as old as its leader's last word.
                if told.is_current {
                    shared.found()
                } else {
                    shared.lost("the server follows no leader now")
                }
                after_loss = !told.is_current;
                let put = shared.put(&view, &told);
                if put == Put::Again && everything {
                    time::sleep(USELESS_PAUSE).await;
                }
                everything = put == Put::Again;
                if put == Put::Useless {
                    if !shared.holds(&view) {
                        return shared.fail(&view, &HoldError("A server's answer cannot be read".to_owned()));
                    }
                    time::sleep(USELESS_PAUSE).await;
                }
            }
            // It is there, and refuses.
            Ok(told) => {
                let why = refusal(&told);
                match told.status {
                    503 => {}
                    ..500 => shared.found(),
                    _ => shared.lost(&why.0),
                }
                if told.status == 503 && shared.is_awaited(&view) {
                    time::sleep(shared.retry_pause()).await;
                    continue;
                }
                if !shared.holds(&view) {
                    return shared.fail(&view, &why);
                }
                time::sleep(USELESS_PAUSE).await;
                after_loss = true;
            }
            Err(why) => {
                shared.lost(&why);
                if !shared.holds(&view) {
                    return shared.fail(&view, &HoldError(why));
                }
                after_loss = true;
            }
        }
        time::sleep_until(asked + PACE).await;
    }
}

fn refusal(told: &Told) -> HoldError {
    HoldError(String::from_utf8_lossy(&told.body).into_owned())
}

/// Writes `text` as part of a query.
fn escape(text: &str, target: &mut String) {
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            target.push(byte as char);
        } else {
            let _ = write!(target, "%{byte:02X}");
        }
    }
}
