//! Questions that only the leader can answer: how well the servers are, changes that operators want. A server without the
//! lead sends them on; the leader hands them to its *desk*, which sits with the leader's duties. What is in a question and
//! in an answer is between those two: here they are bytes.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use muster_protocol::entry::ServerId;
use muster_protocol::rpc::PeerMessage;

use super::error::ProposeError;
use super::standing::Standing;
use crate::runtime::mesh::{self, OneSender, Receiver, Sender};
use crate::runtime::{cores, task, time};

/// Questions and answers that wait for the control core, those of peers too. Past it questions are refused as too busy, or, a
/// peer's, sent back.
pub const ASKED_MAX: usize = 32_768;
/// Questions that wait for a leader or its answer. Past it they are refused as too busy. Of all answers together there is room above.
const WAITING_MAX: usize = 16_384;
/// Questions that wait on the desk. Past it they are asked again a moment later.
pub const DESK_MAX: usize = 1024;
/// Events in one turn before others get theirs.
const EVENTS_PER_TURN: usize = 64;
/// How long the leader may think. A change of the servers takes a few round trips and log writes.
const ANSWER_LIMIT: Duration = Duration::from_secs(10);
/// How often a server without a leader looks for one while a question waits.
const LOOK_INTERVAL: Duration = Duration::from_millis(20);

/// A question for the desk of the leader. Dropping it says that this server does not lead.
pub struct Asked {
    /// What is asked.
    pub question: Bytes,
    answer: OneSender<Bytes>,
}

impl Asked {
    /// Answers; at most [`muster_protocol::rpc::message::ASK_LENGTH_MAX`] bytes.
    pub fn answer(self, answer: Bytes) {
        // Who has asked may have given up.
        let _ = self.answer.send(answer);
    }
}

/// What happens to [`Asking`].
pub(super) enum Event {
    /// Somebody on this server asks.
    Ask(Question),
    /// The desk is open: questions go there from now on.
    Desk(Sender<Asked>),
    /// A message of a server: [`PeerMessage::Ask`] or [`PeerMessage::Told`].
    Peer(ServerId, PeerMessage),
    /// The link to a server broke.
    Lost(ServerId),
}

/// A question with the way back.
pub(super) struct Question {
    pub question: Bytes,
    /// Whether it may be asked twice when nobody knows what became of it.
    pub repeatable: bool,
    pub answer: OneSender<Result<Bytes, ProposeError>>,
    /// Until when it may wait for a leader.
    pub until: Instant,
}

/// A question at the leader.
struct Sent {
    to: ServerId,
    question: Question,
    deadline: Instant,
}

/// Carries questions to the leader and answers back, once it runs: on the control core.
pub(super) struct Asking {
    events: Receiver<Event>,
}

/// All that is under way.
struct Carrier {
    desk: Option<Sender<Asked>>,
    /// Those that wait for a leader.
    held: Vec<Question>,
    sent: BTreeMap<u64, Sent>,
    own: Rc<RefCell<Own>>,
    token: u64,
    swept: Instant,
}

/// Questions of this server on its own desk.
#[derive(Default)]
struct Own {
    /// How many lie there.
    asked: usize,
    /// They came back without an answer.
    back: Vec<Question>,
}

const _: () = assert!(WAITING_MAX < ASKED_MAX);

impl Asking {
    pub fn new() -> (Sender<Event>, Asking) {
        let (sender, events) = mesh::channel(ASKED_MAX);
        (sender, Asking { events })
    }

    /// Runs until nobody can ask any more. `send` puts a message on its way, or says that it cannot.
    pub async fn run(
        mut self,
        send: Rc<dyn Fn(ServerId, PeerMessage) -> bool>,
        standing: impl Fn() -> Standing,
    ) {
        let mut carrier = Carrier {
            desk: None,
            held: Vec::new(),
            sent: BTreeMap::new(),
            own: Rc::default(),
            token: 0,
            swept: time::now(),
        };
        let mut turn = 0;
        loop {
            let event = if carrier.waiting() == 0 {
                self.events.recv().await.map(Some)
            } else {
                let next = cores::either(self.events.recv(), time::sleep(LOOK_INTERVAL)).await;
                next.map_or(Some(None), |event| event.map(Some))
            };
            let Some(event) = event else { return };
            if let Some(event) = event {
                carrier.on_event(event, &send, &standing);
            }
            let now = time::now();
            if now.saturating_duration_since(carrier.swept) >= LOOK_INTERVAL {
                carrier.sweep(now, &send, &standing());
            }
            turn += 1;
            if turn % EVENTS_PER_TURN == 0 {
                task::yield_now().await;
            }
        }
    }
}

impl Carrier {
    fn waiting(&self) -> usize {
        let own = self.own.borrow();
        self.held.len() + self.sent.len() + own.asked + own.back.len()
    }

    /// Looks at all that wait.
    fn sweep(&mut self, now: Instant, send: &Rc<dyn Fn(ServerId, PeerMessage) -> bool>, standing: &Standing) {
        self.swept = now;
        // Of a leader that another one has followed nothing may be heard for long.
        let followed = |sent: &Sent| standing.leader.is_some_and(|leader| leader != sent.to);
        self.fail_sent(|sent| sent.deadline <= now || sent.question.repeatable && followed(sent));
        self.held.append(&mut self.own.borrow_mut().back);
        for question in std::mem::take(&mut self.held) {
            if question.until <= now {
                drop(question.answer.send(Err(ProposeError::NoLeader)));
            } else {
                self.place(question, send, standing);
            }
        }
    }

    fn on_event(
        &mut self,
        event: Event,
        send: &Rc<dyn Fn(ServerId, PeerMessage) -> bool>,
        standing: &impl Fn() -> Standing,
    ) {
        match event {
            Event::Ask(question) if self.waiting() >= WAITING_MAX => {
                drop(question.answer.send(Err(ProposeError::TooBusy)));
            }
            Event::Ask(question) => self.place(question, send, &standing()),
            Event::Desk(desk) => self.desk = Some(desk),
            Event::Peer(from, PeerMessage::Ask { token, question }) => {
                let answer = self.consult(question, &standing());
                let send = send.clone();
                task::spawn(async move {
                    let answer = match answer {
                        Some(answer) => answer.await,
                        None => None,
                    };
                    // Without a link the asker notices that by itself.
                    send(from, PeerMessage::Told { token, answer });
                })
                .detach();
            }
            Event::Peer(from, PeerMessage::Told { token, answer }) => self.on_told(from, token, answer),
            Event::Peer(..) => {}
            Event::Lost(server) => {
                self.fail_sent(|sent| sent.to == server);
            }
        }
    }

    fn on_told(&mut self, from: ServerId, token: u64, answer: Option<Bytes>) {
        if self.sent.get(&token).is_none_or(|sent| sent.to != from) {
            return;
        }
        let Some(Sent { question, .. }) = self.sent.remove(&token) else { return };
        match answer {
            Some(answer) => drop(question.answer.send(Ok(answer))),
            // It did not lead, so it did nothing.
            None => self.held.push(question),
        }
    }

    /// Gives up on questions that are at a leader of whom nothing more will be heard.
    fn fail_sent(&mut self, is_lost: impl Fn(&Sent) -> bool) {
        let (lost, sent) = std::mem::take(&mut self.sent).into_iter().partition(|(_, sent)| is_lost(sent));
        self.sent = sent;
        for Sent { question, .. } in BTreeMap::<u64, Sent>::into_values(lost) {
            if question.repeatable {
                self.held.push(question);
            } else {
                drop(question.answer.send(Err(ProposeError::LeadershipLost)));
            }
        }
    }

    /// Gives a question to the leader, or keeps it until there is one.
    fn place(
        &mut self,
        question: Question,
        send: &Rc<dyn Fn(ServerId, PeerMessage) -> bool>,
        standing: &Standing,
    ) {
        if let Some(answer) = self.consult(question.question.clone(), standing) {
            let own = self.own.clone();
            own.borrow_mut().asked += 1;
            task::spawn(async move {
                let answer = answer.await;
                let own = &mut *own.borrow_mut();
                own.asked -= 1;
                match answer {
                    None if question.repeatable => own.back.push(question),
                    answer => drop(question.answer.send(answer.ok_or(ProposeError::LeadershipLost))),
                }
            })
            .detach();
            return;
        }
        let Some(leader) = standing.leader.filter(|_| !standing.leads()) else {
            self.held.push(question);
            return;
        };
        self.token += 1;
        let message = PeerMessage::Ask { token: self.token, question: question.question.clone() };
        if send(leader, message) {
            let deadline = time::now() + ANSWER_LIMIT;
            self.sent.insert(self.token, Sent { to: leader, question, deadline });
        } else {
            self.held.push(question);
        }
    }

    /// Puts a question on the desk here, if this server leads and somebody sits there.
    fn consult(&self, question: Bytes, standing: &Standing) -> Option<mesh::OneReceiver<Bytes>> {
        let desk = self.desk.as_ref().filter(|_| standing.leads())?;
        let (answer, told) = mesh::oneshot();
        desk.try_send(Asked { question, answer }).ok()?;
        Some(told)
    }
}

#[cfg(test)]
mod tests {
    use std::cell::{Cell, RefCell};

    use futures_lite::future::FutureExt;

    use super::*;
    use crate::consensus::Role;
    use crate::runtime::cores::Driver;

    const OWN: ServerId = ServerId([1; 16]);
    const OTHER: ServerId = ServerId([2; 16]);

    /// What the test lets a server believe, and what that server has sent.
    #[derive(Default)]
    struct World {
        standing: RefCell<Standing>,
        sent: RefCell<Vec<(ServerId, PeerMessage)>>,
        unlinked: Cell<bool>,
    }

    impl World {
        fn led_by(&self, leader: ServerId) {
            let role = if leader == OWN { Role::Leader } else { Role::Follower };
            *self.standing.borrow_mut() =
                Standing { id: Some(OWN), leader: Some(leader), role, ..Standing::default() };
        }

        async fn next_sent(&self) -> (ServerId, PeerMessage) {
            loop {
                if let Some(first) = self.sent.borrow_mut().pop() {
                    return first;
                }
                task::yield_now().await;
            }
        }
    }

    fn with_world<F: Future<Output = ()> + 'static>(
        test: impl Fn(Rc<World>, Sender<Event>) -> F + Send + Clone + 'static,
    ) {
        cores::run(Driver::Epoll, 1, move |_| {
            let test = test.clone();
            async move {
                let world = Rc::new(World::default());
                let (events, asking) = Asking::new();
                let (sending, knowing) = (world.clone(), world.clone());
                let send = move |to, message| {
                    if !sending.unlinked.get() {
                        sending.sent.borrow_mut().push((to, message));
                    }
                    !sending.unlinked.get()
                };
                task::spawn(asking.run(Rc::new(send), move || knowing.standing.borrow().clone())).detach();
                test(world, events).await;
            }
            .boxed_local()
        })
        .expect("the core runs to its end");
    }

    fn ask(
        events: &Sender<Event>,
        repeatable: bool,
        hold: Duration,
    ) -> mesh::OneReceiver<Result<Bytes, ProposeError>> {
        let (answer, told) = mesh::oneshot();
        let until = time::now() + hold;
        let question = Question { question: Bytes::from_static(b"q"), repeatable, answer, until };
        assert!(events.try_send(Event::Ask(question)).is_ok());
        told
    }

    fn token_of(message: PeerMessage) -> u64 {
        match message {
            PeerMessage::Ask { token, question } if question == b"q"[..] => token,
            other => panic!("no question: {other:?}"),
        }
    }

    const LONG: Duration = Duration::from_secs(30);

    #[test]
    fn a_question_finds_the_leader_as_soon_as_there_is_one() {
        with_world(|world, events| async move {
            let told = ask(&events, false, LONG);
            world.led_by(OTHER);
            let (to, message) = world.next_sent().await;
            assert_eq!(to, OTHER);
            let answer = Some(Bytes::from_static(b"a"));
            let told_by = |from, token| {
                let message = PeerMessage::Told { token, answer: answer.clone() };
                events.try_send(Event::Peer(from, message)).is_ok()
            };
            let token = token_of(message);
            assert!(told_by(OWN, token) && told_by(OTHER, token + 1), "no answers to this");
            // It does not lead any more, did nothing, and says so: another one is asked.
            let refusal = PeerMessage::Told { token, answer: None };
            assert!(events.try_send(Event::Peer(OTHER, refusal)).is_ok());
            let token = token_of(world.next_sent().await.1);
            assert!(told_by(OTHER, token));
            assert_eq!(told.await, Some(Ok(Bytes::from_static(b"a"))));
        });
    }

    #[test]
    fn only_what_may_be_done_twice_is_asked_twice() {
        with_world(|world, events| async move {
            world.led_by(OTHER);
            let (once, again) = (ask(&events, false, LONG), ask(&events, true, LONG));
            let sent = [world.next_sent().await, world.next_sent().await];
            assert!(sent.iter().all(|(to, _)| *to == OTHER));
            assert!(events.try_send(Event::Lost(OTHER)).is_ok());
            assert_eq!(once.await, Some(Err(ProposeError::LeadershipLost)));
            let token = token_of(world.next_sent().await.1);
            let answer = Some(Bytes::new());
            assert!(events.try_send(Event::Peer(OTHER, PeerMessage::Told { token, answer })).is_ok());
            assert_eq!(again.await, Some(Ok(Bytes::new())));
        });
    }

    /// Renewals hung for ten seconds at a leader that was none any more, and then ended without having been asked again.
    #[test]
    fn what_may_be_done_twice_goes_to_the_next_leader_at_once() {
        with_world(|world, events| async move {
            world.led_by(OTHER);
            let told = ask(&events, true, LONG);
            assert_eq!(world.next_sent().await.0, OTHER);
            let third = ServerId([3; 16]);
            world.led_by(third);
            let (to, message) = world.next_sent().await;
            assert_eq!(to, third);
            let answer = Some(Bytes::new());
            let told_by = PeerMessage::Told { token: token_of(message), answer };
            assert!(events.try_send(Event::Peer(third, told_by)).is_ok());
            assert_eq!(told.await, Some(Ok(Bytes::new())));
        });
    }

    #[test]
    fn too_many_questions_are_refused() {
        with_world(|_, events| async move {
            let waiting: Vec<_> = (0..WAITING_MAX).map(|_| ask(&events, true, LONG)).collect();
            assert_eq!(ask(&events, true, LONG).await, Some(Err(ProposeError::TooBusy)));
            drop(waiting);
        });
    }

    #[test]
    fn without_a_leader_or_a_link_the_wait_ends() {
        with_world(|world, events| async move {
            let nobody = ask(&events, true, Duration::ZERO);
            assert_eq!(nobody.await, Some(Err(ProposeError::NoLeader)));
            world.led_by(OTHER);
            world.unlinked.set(true);
            let unreached = ask(&events, true, Duration::from_millis(1));
            assert_eq!(unreached.await, Some(Err(ProposeError::NoLeader)));
        });
    }

    #[test]
    fn the_leader_asks_its_desk() {
        with_world(|world, events| async move {
            world.led_by(OWN);
            let (desk, mut asked) = mesh::channel(ASKED_MAX);
            assert!(events.try_send(Event::Desk(desk)).is_ok());
            let told = ask(&events, false, LONG);
            asked.recv().await.expect("the question").answer(Bytes::from_static(b"own"));
            assert_eq!(told.await, Some(Ok(Bytes::from_static(b"own"))));
            // The desk could not tell; what may be asked twice is.
            let again = ask(&events, true, LONG);
            drop(asked.recv().await.expect("the question"));
            asked.recv().await.expect("the question, once more").answer(Bytes::from_static(b"own"));
            assert_eq!(again.await, Some(Ok(Bytes::from_static(b"own"))));
            let foreign = PeerMessage::Ask { token: 7, question: Bytes::from_static(b"q") };
            assert!(events.try_send(Event::Peer(OTHER, foreign.clone())).is_ok());
            asked.recv().await.expect("the question").answer(Bytes::from_static(b"far"));
            let answer = Some(Bytes::from_static(b"far"));
            assert_eq!(world.next_sent().await, (OTHER, PeerMessage::Told { token: 7, answer }));
            world.led_by(OTHER);
            assert!(events.try_send(Event::Peer(OTHER, foreign)).is_ok());
            let refusal = PeerMessage::Told { token: 7, answer: None };
            assert_eq!(world.next_sent().await, (OTHER, refusal), "it leads no more");
        });
    }
}
