//! Elections: timers, pre-votes, votes (thesis, sections 3.4, 4.2.3 and 9.6).

use std::collections::BTreeMap;
use std::time::Duration;

use super::{Effect, Message, Position, Raft, Role, StepDown, TimeoutNow, VoteReply, VoteRequest};
use crate::entry::{Now, ServerId};

/// What others have answered in the current campaign.
#[derive(Debug, Default)]
pub(super) struct Poll {
    answers: BTreeMap<ServerId, bool>,
    /// The transfer that caused it.
    transfer: Option<u64>,
    /// The requests are out: the own vote is durable.
    asked: bool,
    /// A vote given to another, which is told once it is durable.
    granted: Option<ServerId>,
}

/// A promise of a vote, or a vote. For a while, others get no promise unless their log is better than `last`: else two would split
/// the votes, or a second one would end the term of a first that is just being elected.
#[derive(Debug)]
pub(super) struct Promise {
    to: ServerId,
    last: Position,
    until: Now,
}

/// So often a server tries again soon to be elected: others may have heard the lost leader a little later, or votes may have been
/// split. Then it tries at the pace of its timer.
const SOON_MAX: u32 = 4;

impl Raft {
    pub(super) fn arm_election_timer(&mut self) {
        self.election_deadline = self.now + self.random.timeout(self.options.election_timeout);
        if self.disk.full {
            // Another whose disk has room shall come first.
            self.election_deadline += self.options.election_timeout;
        }
    }

    pub(super) fn on_election_timeout(&mut self, out: &mut Vec<Effect>) {
        self.arm_election_timer();
        if self.role == Role::Candidate && !self.poll.asked {
            // Its vote is still on the way to the disk: another campaign would wait for that, too.
            return;
        }
        self.leader = None;
        self.role = Role::Follower;
        if self.may_campaign() {
            self.try_again_soon(self.options.election_timeout / 4);
            self.role = Role::PreCandidate;
            self.begin_poll(None);
            let (term, last) = (self.term + 1, self.log.last());
            let request = VoteRequest { term, last, transfer: None };
            self.ask_voters(Message::PreVote(request), out);
            self.count_votes(out);
        }
    }

    fn try_again_soon(&mut self, soon: Duration) {
        self.tried += 1;
        if self.tried <= SOON_MAX {
            self.election_deadline = self.now + self.random.timeout(soon);
        }
    }

    /// Voters campaign, and also who was one until an entry that is not yet committed: the others may need what only its
    /// log has (thesis, section 4.2.2). Nobody does whose log has lost entries, or whose disk stands still.
    fn may_campaign(&self) -> bool {
        let Some((index, configuration)) = self.configurations.latest() else { return false };
        let id = self.options.id;
        let was_voter = *index > self.commit
            && self.configurations.at(index - 1).is_some_and(|(_, before)| before.is_voter(id));
        (configuration.is_voter(id) || was_voter) && self.repair_until == 0 && !self.is_stalled()
    }

    fn begin_poll(&mut self, transfer: Option<u64>) {
        self.poll = Poll { transfer, ..Poll::default() };
        if self.role == Role::PreCandidate && self.is_voter() {
            self.poll.answers.insert(self.options.id, true);
        }
    }

    /// Asks for votes in the next term, once the own is durable: a term whose requests are out never comes again.
    fn campaign(&mut self, transfer: Option<u64>, out: &mut Vec<Effect>) {
        self.arm_election_timer();
        self.try_again_soon(self.options.election_timeout / 2);
        self.set_term(self.term + 1, Some(self.options.id));
        self.role = Role::Candidate;
        self.begin_poll(transfer);
        self.save_vote(out);
    }

    /// The own vote is durable.
    pub(super) fn campaign_is_saved(&mut self, out: &mut Vec<Effect>) {
        if self.role != Role::Candidate || self.poll.asked {
            return;
        }
        self.poll.asked = true;
        if self.is_voter() {
            self.poll.answers.insert(self.options.id, true);
        }
        let request = VoteRequest { term: self.term, last: self.log.last(), transfer: self.poll.transfer };
        self.ask_voters(Message::Vote(request), out);
        self.count_votes(out);
    }

    fn ask_voters(&self, message: Message, out: &mut Vec<Effect>) {
        let voters = self.other_voters().into_iter();
        out.extend(voters.map(|to| Effect::Send { to, message: message.clone() }));
    }

    /// Goes on when a quorum has agreed, and gives up when a quorum never will.
    fn count_votes(&mut self, out: &mut Vec<Effect>) {
        let Some((_, configuration)) = self.configurations.latest() else { return };
        let count = |answer: bool| {
            configuration.voters().filter(|id| self.poll.answers.get(id) == Some(&answer)).count()
        };
        let (agreed, refused) = (count(true), count(false));
        let (quorum, voters) = (configuration.quorum(), configuration.voters().count());
        if agreed >= quorum {
            match self.role {
                Role::PreCandidate => self.campaign(None, out),
                Role::Candidate => self.become_leader(out),
                Role::Follower | Role::Leader => unreachable!("only campaigns count votes"),
            }
        } else if refused > voters - quorum.min(voters) {
            self.role = Role::Follower;
        }
    }

    pub(super) fn on_vote_reply(
        &mut self,
        asked_as: Role,
        from: ServerId,
        reply: VoteReply,
        out: &mut Vec<Effect>,
    ) {
        let asked = if asked_as == Role::PreCandidate { self.term + 1 } else { self.term };
        // Before the own vote is durable nobody was asked, whatever somebody answers.
        let was_asked = asked_as == Role::PreCandidate || self.poll.asked;
        if self.role == asked_as && reply.asked == asked && was_asked {
            self.poll.answers.insert(from, reply.granted);
            self.count_votes(out);
        }
    }

    pub(super) fn on_pre_vote(&mut self, from: ServerId, request: VoteRequest, out: &mut Vec<Effect>) {
        // Of two that ask at the same time only one is to go on, or they would split the votes.
        let rival = self.role == Role::PreCandidate && self.tried <= 1 && from < self.options.id;
        let promised = self.promised.as_ref().is_some_and(|promise| {
            promise.to != from && self.now < promise.until && request.last <= promise.last
        });
        let granted = request.term > self.term
            && !self.hears_leader()
            && self.would_elect(request.last)
            && !promised
            && !(rival && request.last == self.log.last());
        if granted {
            self.promise(from, request.last, self.options.election_timeout / 10);
        }
        let reply = VoteReply { term: self.term, asked: request.term, granted };
        out.push(Effect::Send { to: from, message: Message::PreVoteReply(reply) });
    }

    fn promise(&mut self, to: ServerId, last: Position, time: Duration) {
        self.promised = Some(Promise { to, last, until: self.now + time });
    }

    pub(super) fn on_vote(&mut self, from: ServerId, request: VoteRequest, out: &mut Vec<Effect>) {
        let refuse = |raft: &Raft, out: &mut Vec<Effect>| {
            let reply = VoteReply { term: raft.term, asked: request.term, granted: false };
            out.push(Effect::Send { to: from, message: Message::VoteReply(reply) });
        };
        let heard = self.hears_leader() && !self.is_awaited(from, &request);
        if request.term < self.term || heard {
            return refuse(self, out);
        }
        if request.term > self.term {
            self.become_follower(request.term, StepDown::NewerTerm, out);
        }
        let free = self.leader.is_none() && self.vote.is_none_or(|vote| vote == from);
        if !free || !self.would_elect(request.last) {
            return refuse(self, out);
        }
        self.role = Role::Follower;
        self.vote = Some(from);
        self.poll.granted = Some(from);
        // It may just be elected: whatever log another has, it is to wait.
        self.promise(from, Position::new(u64::MAX, u64::MAX), self.options.election_timeout / 2);
        self.arm_election_timer();
        if self.saved == (self.term, self.vote) {
            self.send_granted(out);
        }
    }

    /// Tells of the vote that is durable now.
    pub(super) fn send_granted(&mut self, out: &mut Vec<Effect>) {
        let Some(to) = self.poll.granted.take().filter(|to| self.vote == Some(*to)) else { return };
        let reply = VoteReply { term: self.term, asked: self.term, granted: true };
        out.push(Effect::Send { to, message: Message::VoteReply(reply) });
    }

    /// A leader may rely on not being replaced now.
    fn hears_leader(&self) -> bool {
        let heard = self.heard.is_some_and(|heard| self.now < heard + self.options.election_timeout);
        self.role == Role::Leader || heard || self.now < self.silent_until
    }

    /// The leader of this term has itself asked for this campaign, and has not changed its mind as far as is known here:
    /// soon after a start, that is not known.
    fn is_awaited(&self, from: ServerId, request: &VoteRequest) -> bool {
        let current = request.term == self.term + 1 && self.now >= self.silent_until;
        let Some(epoch) = request.transfer.filter(|_| current) else { return false };
        match &self.leading {
            Some(leading) => leading.is_handing_over(from, epoch),
            None => epoch >= self.following.epoch,
        }
    }

    fn would_elect(&self, last: Position) -> bool {
        last >= self.log.last() && self.repair_until == 0
    }

    /// The leader asks this server to take over.
    pub(super) fn on_timeout_now(&mut self, from: ServerId, order: TimeoutNow, out: &mut Vec<Effect>) {
        let from_leader = self.leader.is_none_or(|leader| leader == from);
        let current = order.term == self.term && order.epoch >= self.following.epoch;
        let knows = current && self.now >= self.silent_until;
        if self.role == Role::Follower && from_leader && knows && self.may_campaign() {
            self.campaign(Some(order.epoch), out);
        }
    }

    /// There is a leader of this term, and it is alive.
    ///
    /// Gives `false` when this term has another leader already: whoever says so does not play by the rules, and is not heard.
    #[must_use]
    pub(super) fn note_leader(&mut self, leader: ServerId, out: &mut Vec<Effect>) -> bool {
        if self.role == Role::Leader || self.leader.is_some_and(|known| known != leader) {
            return false;
        }
        if self.role != Role::Follower {
            self.become_follower(self.term, StepDown::NewerTerm, out);
        }
        self.leader = Some(leader);
        self.heard = Some(self.now);
        self.tried = 0;
        self.arm_election_timer();
        true
    }
}
