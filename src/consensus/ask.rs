//! Questions that only the leader can answer: how well the servers are, changes that operators want. A server without the
//! lead sends them on; the leader hands them to its *desk*, which sits with the leader's duties. What is in a question and
//! in an answer is between those two: here they are bytes.

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

/// Questions that wait for the control core, those of peers too. Past it they are refused as too busy.
pub const ASKED_MAX: usize = 256;
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

/// Carries questions to the leader and answers back. Lives on the control core.
pub(super) struct Asking {
    events: Receiver<Event>,
    desk: Option<Sender<Asked>>,
    /// Those that wait for a leader.
    held: Vec<Question>,
    sent: BTreeMap<u64, Sent>,
    token: u64,
}

impl Asking {
    pub fn new() -> (Sender<Event>, Asking) {
        let (sender, events) = mesh::channel(ASKED_MAX);
        (sender, Asking { events, desk: None, held: Vec::new(), sent: BTreeMap::new(), token: 0 })
    }

    /// Runs until nobody can ask any more. `send` puts a message on its way, or says that it cannot.
    pub async fn run(
        mut self,
        send: Rc<dyn Fn(ServerId, PeerMessage) -> bool>,
        standing: impl Fn() -> Standing,
    ) {
        loop {
            let event = if self.held.is_empty() && self.sent.is_empty() {
                self.events.recv().await.map(Some)
            } else {
                let next = cores::either(self.events.recv(), time::sleep(LOOK_INTERVAL)).await;
                next.map_or(Some(None), |event| event.map(Some))
            };
            let Some(event) = event else { return };
            match event {
                Some(Event::Ask(question)) => self.place(question, &send, &standing()),
                Some(event) => self.on_event(event, &send, &standing),
                None => {
                    for question in std::mem::take(&mut self.held) {
                        self.place(question, &send, &standing());
                    }
                }
            }
            self.expire(time::now());
        }
    }

    fn on_event(
        &mut self,
        event: Event,
        send: &Rc<dyn Fn(ServerId, PeerMessage) -> bool>,
        standing: &impl Fn() -> Standing,
    ) {
        match event {
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
            Event::Ask(_) | Event::Peer(..) => {}
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

    fn expire(&mut self, now: Instant) {
        self.fail_sent(|sent| sent.deadline <= now);
        let (over, held) = std::mem::take(&mut self.held).into_iter().partition(|held| held.until <= now);
        self.held = held;
        for question in Vec::<Question>::from_iter(over) {
            drop(question.answer.send(Err(ProposeError::NoLeader)));
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
            task::spawn(async move {
                let answer = answer.await.ok_or(ProposeError::LeadershipLost);
                drop(question.answer.send(answer));
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
