//! One server, and the test as its disk and its peers.

use std::time::Duration;

use bytes::Bytes;

use super::super::*;
use crate::entry::{Entry, EntryKind, Now, Server, Suffrage};

pub(super) const ME: usize = 0;

pub(super) fn id(n: usize) -> ServerId {
    ServerId([n as u8 + 1; 16])
}

pub(super) fn server(n: usize, suffrage: Suffrage) -> Server {
    Server { id: id(n), name: format!("s{n}"), address: format!("10.0.0.{n}:8300"), suffrage }
}

pub(super) fn voters(count: usize) -> Configuration {
    Configuration::new((0..count).map(|n| server(n, Suffrage::Voter)).collect())
}

pub(super) fn ms(time: u64) -> Duration {
    Duration::from_millis(time)
}

pub(super) fn command(term: u64, index: u64) -> Entry {
    let body = Bytes::from(format!("{term}.{index}"));
    Entry { term, index, kind: EntryKind::Command, version: 1, body }
}

pub(super) fn configuration(term: u64, index: u64, configuration: &Configuration) -> Entry {
    let (kind, version) = (EntryKind::Configuration, Configuration::VERSION);
    Entry { term, index, kind, version, body: configuration.encode() }
}

pub(super) fn at(index: u64, term: u64) -> Position {
    Position::new(index, term)
}

pub(super) fn draft() -> Draft {
    Draft { kind: EntryKind::Command, version: 1, body: Bytes::from_static(b"write") }
}

/// A leader's message with entries of these terms behind `prev`.
pub(super) fn append(term: u64, prev: Position, terms: &[u64], commit: u64) -> Append {
    let entries = (prev.index + 1..).zip(terms).map(|(index, term)| command(*term, index)).collect();
    let (round, round_began) = (1, ms(1));
    Append { term, prev, entries, commit, round, round_began, epoch: 0, answer: true, heal: None }
}

/// The server [`ME`] with its driver.
pub(super) struct One {
    pub raft: Raft,
    pub now: Now,
}

impl One {
    /// A voter of so many, whose log begins with their configuration and has entries of these terms; it has been silent
    /// long enough after its start to vote.
    pub fn voter(count: usize, terms: &[u64]) -> One {
        let restored = restored(&voters(count), terms);
        One::start(restored)
    }

    pub fn start(restored: Restored) -> One {
        let raft = Raft::new(ms(0), Options::new(id(ME), Options::MULTIPLIER, 7), restored);
        let mut one = One { raft, now: ms(0) };
        if !one.raft.is_lone_voter() {
            one.now = one.raft.options.election_timeout;
        }
        one
    }

    /// A leader of so many voters, in the term after its log's; its first entry is committed.
    pub fn leader(count: usize) -> One {
        let mut one = One::voter(count, &[1]);
        one.elect();
        one.disk();
        for n in 1..count {
            one.acknowledge(n);
        }
        assert_eq!(one.raft.commit_index(), 2);
        one
    }

    /// Lets time pass to the election, and gives it the votes of all others.
    pub fn elect(&mut self) -> Vec<Effect> {
        self.now = self.raft.next_deadline().expect("a timer");
        let out = self.input(Input::Tick);
        let others = self.raft.other_voters();
        assert!(others.is_empty() || sends(&out).iter().any(|(_, m)| matches!(m, Message::PreVote(_))));
        let (term, asked) = (self.raft.term(), self.raft.term() + 1);
        for from in &others {
            let reply = VoteReply { term, asked, granted: true };
            self.input(Input::Message { from: *from, message: Message::PreVoteReply(reply) });
        }
        assert_eq!(self.raft.role(), Role::Candidate);
        let mut out = self.disk();
        for from in &others {
            let reply = VoteReply { term: asked, asked, granted: true };
            out.extend(self.input(Input::Message { from: *from, message: Message::VoteReply(reply) }));
        }
        assert_eq!(self.raft.role(), Role::Leader);
        out
    }

    pub fn input(&mut self, input: Input) -> Vec<Effect> {
        let mut out = Vec::new();
        self.raft.step(self.now, input, &mut out);
        out
    }

    pub fn hear(&mut self, from: usize, message: Message) -> Vec<Effect> {
        self.input(Input::Message { from: id(from), message })
    }

    /// The disk finishes all that it was given.
    pub fn disk(&mut self) -> Vec<Effect> {
        let (term, vote) = self.raft.save_asked;
        let mut out = Vec::new();
        if self.raft.saved != (term, vote) {
            out.extend(self.input(Input::VoteSaved { term, vote }));
        }
        let Position { index, term } = self.raft.last();
        out.extend(self.input(Input::LogDurable { index, term }));
        out
    }

    /// Another has all that this leader has, durably, and answers its newest round.
    pub fn acknowledge(&mut self, from: usize) -> Vec<Effect> {
        self.acknowledge_through(from, self.raft.last().index)
    }

    pub fn acknowledge_through(&mut self, from: usize, index: u64) -> Vec<Effect> {
        let reply = self.reply(Outcome::Accepted { durable: index, received: index });
        self.hear(from, Message::AppendReply(reply))
    }

    /// An answer to this leader's newest round.
    pub fn reply(&self, outcome: Outcome) -> AppendReply {
        let leading = self.raft.leading.as_ref().expect("it leads");
        let (round, round_began) = (leading.round, leading.round_began);
        AppendReply { term: self.raft.term(), round, round_began, outcome, full: false, damage: None }
    }

    /// Time passes, with ticks when they are due.
    pub fn pass(&mut self, time: Duration) -> Vec<Effect> {
        let end = self.now + time;
        let mut out = Vec::new();
        while let Some(deadline) = self.raft.next_deadline().filter(|deadline| *deadline <= end) {
            self.now = self.now.max(deadline);
            out.extend(self.input(Input::Tick));
        }
        self.now = end;
        out
    }

    /// Time passes while others answer every round.
    pub fn pass_with(&mut self, time: Duration, others: &[usize]) -> Vec<Effect> {
        let end = self.now + time;
        let mut out = Vec::new();
        while self.now < end {
            out.extend(self.pass(ms(10)));
            for n in others.iter().filter(|_| self.raft.role() == Role::Leader).collect::<Vec<_>>() {
                if self.raft.role() == Role::Leader {
                    out.extend(self.acknowledge(*n));
                }
            }
        }
        out
    }

    pub fn propose(&mut self, count: usize) -> Vec<Effect> {
        self.input(Input::Propose { drafts: vec![draft(); count] })
    }

    pub fn change(&mut self, change: Change) -> Vec<Effect> {
        self.input(Input::ChangeConfiguration(change))
    }
}

pub(super) fn restored(configuration: &Configuration, terms: &[u64]) -> Restored {
    let mut log = LogView::new(Position::default());
    for (index, term) in (1..).zip(terms) {
        log.push(at(index, *term), 10);
    }
    Restored {
        term: log.last().term,
        vote: None,
        log,
        committed: 0,
        configurations: vec![(1, configuration.clone())],
        repair_until: 0,
    }
}

/// What was sent, complete messages only.
pub(super) fn sends(out: &[Effect]) -> Vec<(ServerId, Message)> {
    let sent = out.iter().filter_map(|effect| match effect {
        Effect::Send { to, message } => Some((*to, message.clone())),
        _ => None,
    });
    sent.collect()
}

/// The ranges of entries that were sent to a server.
pub(super) fn ranges(out: &[Effect], to: usize) -> Vec<(u64, u64)> {
    let sent = out.iter().filter_map(|effect| match effect {
        Effect::SendEntries { to: receiver, append, last } if *receiver == id(to) => {
            Some((append.prev.index + 1, *last))
        }
        _ => None,
    });
    sent.collect()
}

/// The answers to a leader's messages.
pub(super) fn replies(out: &[Effect]) -> Vec<AppendReply> {
    let replies = sends(out).into_iter().filter_map(|(_, message)| match message {
        Message::AppendReply(reply) => Some(reply),
        _ => None,
    });
    replies.collect()
}

/// The answers to requests for votes and for promises.
pub(super) fn votes(out: &[Effect]) -> Vec<VoteReply> {
    let votes = sends(out).into_iter().filter_map(|(_, message)| match message {
        Message::VoteReply(reply) | Message::PreVoteReply(reply) => Some(reply),
        _ => None,
    });
    votes.collect()
}
