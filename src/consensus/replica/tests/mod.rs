//! Replicas over a disk in memory and a network that a test scripts. The simulator breaks these things at random; here
//! stands one story for each promise.

mod cluster;
mod followers;
mod full_disk;
mod leading;
mod restarts;
mod snapshots;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use muster_protocol::entry::{Configuration, Now, Server, ServerId, Suffrage};
use muster_protocol::log::{self, Completion, DiskError, FileName, Request, recover};
use muster_protocol::raft;
use muster_protocol::rpc::PeerMessage;

use super::*;
use crate::consensus::disk::Memory;
use crate::consensus::{AdminError, AdminOp, Consistency, Encoded, ProposeError, opening};
use crate::store::command::{Applied, Command, KvOp};
use crate::store::model::KvEntry;
use crate::store::{Section, Touched};

/// Time of one exchange of messages and writes.
const TICK: Duration = Duration::from_millis(1);

/// What a replica runs with in a test.
fn options(id: ServerId) -> Options {
    let raft = raft::Options::new(id, 1, u64::from(id.0[0]));
    Options { snapshot_threshold: u64::MAX, trailing_logs: 10, ..Options::new(raft) }
}

/// Small segments, so that a cut log is short.
fn recovery(id: ServerId) -> log::Options {
    log::Options { id, segment_bytes: 1 << 20, ..log::Options::default() }
}

fn id(number: u8) -> ServerId {
    ServerId([number; 16])
}

fn server(number: u8) -> Server {
    let (name, address) = (format!("s{number}"), format!("10.0.0.{number}:8300"));
    Server { id: id(number), name, address, suffrage: Suffrage::Voter }
}

fn set(key: &str, value: &str) -> Bytes {
    let entry = KvEntry { key: key.into(), value: value.into(), ..KvEntry::default() };
    Encoded::of(&Command::Kv(KvOp::Set(entry))).into_bytes()
}

use bytes::Bytes;

/// One server: a replica, its disk, and what it has told.
struct Node {
    replica: Replica,
    options: Options,
    memory: Memory,
    /// Not obeyed yet, in order.
    requests: VecDeque<Request>,
    /// Requests obeyed in one exchange.
    disk_speed: usize,
    /// No space for a new segment or a snapshot.
    no_space: bool,
    /// So many segments of the log have room on the disk.
    segments_max: usize,
    fails: bool,
    inputs: Vec<Input>,
    published: State,
    /// How often it was.
    publications: usize,
    touched: Touched,
    answers: BTreeMap<u64, Outcome>,
    barriers: BTreeMap<u64, Result<(), ProposeError>>,
    admin: BTreeMap<u64, Result<(), AdminError>>,
    standing: Standing,
    logged: Vec<String>,
    fatal: Option<String>,
    sections: VecDeque<Option<Section>>,
}

impl Node {
    fn new(number: u8) -> Node {
        let options = options(id(number));
        let recovered = recover(recovery(id(number)), Vec::new()).expect("a blank disk");
        let start = Start { recovered, state: State::new(), forced: None };
        let replica = Replica::start(Now::ZERO, options.clone(), start);
        Node {
            replica,
            options,
            memory: Memory::default(),
            requests: VecDeque::new(),
            disk_speed: usize::MAX,
            no_space: false,
            segments_max: usize::MAX,
            fails: false,
            inputs: Vec::new(),
            published: State::new(),
            publications: 0,
            touched: Touched::new(),
            answers: BTreeMap::new(),
            barriers: BTreeMap::new(),
            admin: BTreeMap::new(),
            standing: Standing::default(),
            logged: Vec::new(),
            fatal: None,
            sections: VecDeque::new(),
        }
    }

    /// The process is killed; what the disk has not done is lost, and it starts again.
    fn restart(&mut self, now: Now, forced: Option<Configuration>) {
        let memory = std::mem::take(&mut self.memory);
        let recovered = recover(recovery(self.options.raft.id), memory.files()).expect("nothing is damaged");
        let state =
            recovered.snapshot.as_ref().map(|snapshot| opening::build(snapshot).expect("a whole one"));
        let state = state.unwrap_or_default();
        let fresh = Node::new(self.options.raft.id.0[0]);
        let options = self.options.clone();
        *self = Node {
            replica: Replica::start(now, options.clone(), Start { recovered, state: state.clone(), forced }),
            options,
            memory,
            published: state,
            ..fresh
        };
    }

    fn segments(&self) -> usize {
        self.memory.files().iter().filter(|file| matches!(file.name, FileName::Segment(_))).count()
    }

    fn obey_disk(&mut self) {
        for _ in 0..self.disk_speed.min(self.requests.len()) {
            let Some(request) = self.requests.pop_front() else { break };
            let id = request.id();
            let snapshot = matches!(request, Request::Write { file: FileName::SnapshotDraft { .. }, .. });
            let error = match request {
                _ if self.fails => Some(DiskError::Other("input/output error".into())),
                Request::Create { .. } if self.no_space => Some(DiskError::NoSpace),
                Request::Create { file: FileName::Segment(_), .. }
                    if self.segments() >= self.segments_max =>
                {
                    Some(DiskError::NoSpace)
                }
                _ if snapshot && self.no_space => Some(DiskError::NoSpace),
                _ => None,
            };
            let completion = match error {
                Some(error) => Completion::Failed { id, error },
                None => self.memory.obey(request),
            };
            self.inputs.push(Input::Disk(completion));
        }
    }

    /// One step and what follows from it; the messages it sends come back.
    fn step(&mut self, now: Now) -> Vec<(ServerId, PeerMessage)> {
        self.obey_disk();
        if self.replica.next_deadline().is_some_and(|due| due <= now) {
            self.inputs.push(Input::Tick);
        }
        let (mut effects, mut sent, mut published) = (Vec::new(), Vec::new(), self.published.index());
        self.replica.step(now, &mut self.inputs, &mut effects);
        for effect in effects {
            match effect {
                Effect::Send { to, message } => sent.push((to, message)),
                Effect::Disk(request) => self.requests.push_back(request),
                Effect::Publish(batch) => {
                    self.published = batch.state;
                    self.publications += 1;
                    self.touched.merge(batch.touched);
                    published = self.published.index();
                }
                Effect::Answers(answers) => {
                    for (token, outcome) in answers {
                        if let Ok(done) = &outcome {
                            assert!(done.index <= published, "published before it was answered");
                        }
                        assert_eq!(self.answers.insert(token, outcome), None, "answered once");
                    }
                }
                Effect::Barriers { tokens, result } => {
                    for token in tokens {
                        assert_eq!(self.barriers.insert(token, result), None, "passed once");
                    }
                }
                Effect::AdminDone { token, result } => drop(self.admin.insert(token, result)),
                Effect::Standing(standing) => self.standing = *standing,
                Effect::TakeSnapshot { state, .. } => {
                    self.sections = state.sections().map(Some).chain([None]).collect();
                }
                Effect::NextSection { id } => {
                    let section = self.sections.pop_front().expect("one is left");
                    self.inputs.push(Input::SnapshotSection { id, section });
                }
                Effect::DropSnapshot { .. } => self.sections.clear(),
                Effect::LoadSnapshot { term, index } => {
                    let file = self.memory.whole(FileName::SnapshotDraft { term, index });
                    self.inputs.push(Input::SnapshotLoaded { term, index, loaded: opening::load(file) });
                }
                Effect::Log { text, .. } => self.logged.push(text),
                Effect::Fatal(why) => self.fatal = Some(why),
            }
        }
        let shown = self.published.index() == self.replica.state().index();
        assert!(shown || self.replica.lease().is_none(), "reads are answered from what is published");
        sent
    }

    fn value(&self, key: &str) -> Option<String> {
        self.published.kv(key.as_bytes()).map(|row| String::from_utf8_lossy(&row.value).into_owned())
    }
}

/// Some servers and the network between them.
struct World {
    nodes: BTreeMap<ServerId, Node>,
    now: Now,
    /// Messages on their way: from, to, what.
    flying: VecDeque<(ServerId, ServerId, PeerMessage)>,
    /// Whom nobody reaches.
    cut_off: BTreeSet<ServerId>,
    tokens: u64,
}

impl World {
    fn new(servers: u8) -> World {
        let nodes = (1..=servers).map(|number| (id(number), Node::new(number))).collect();
        let (flying, cut_off) = (VecDeque::new(), BTreeSet::new());
        World { nodes, now: Now::ZERO, flying, cut_off, tokens: 0 }
    }

    /// A cluster that has elected its first leader.
    fn led(servers: u8) -> World {
        let mut world = World::new(servers);
        let configuration = Configuration::new((1..=servers).map(server).collect());
        for number in 1..=servers {
            world.admin(id(number), AdminOp::Bootstrap(configuration.clone()));
        }
        world.until(|world| world.leader().is_some());
        world
    }

    fn node(&mut self, id: ServerId) -> &mut Node {
        self.nodes.get_mut(&id).expect("a server of this world")
    }

    /// The server that may answer reads by itself.
    fn leader(&self) -> Option<ServerId> {
        let leads = |(id, node): (&ServerId, &Node)| {
            node.replica.lease().filter(|until| *until > self.now && !self.cut_off.contains(id)).map(|_| *id)
        };
        self.nodes.iter().find_map(leads)
    }

    fn followers(&self) -> Vec<ServerId> {
        let leader = self.leader();
        self.nodes.keys().copied().filter(|id| Some(*id) != leader).collect()
    }

    fn input(&mut self, id: ServerId, make: impl FnOnce(u64) -> Input) -> u64 {
        self.tokens += 1;
        let token = self.tokens;
        self.node(id).inputs.push(make(token));
        token
    }

    fn propose(&mut self, id: ServerId, body: Bytes) -> u64 {
        self.input(id, |token| Input::Propose { token, body })
    }

    fn barrier(&mut self, id: ServerId, consistency: Consistency) -> u64 {
        self.input(id, |token| Input::Barrier { token, consistency })
    }

    fn admin(&mut self, id: ServerId, op: AdminOp) -> u64 {
        self.input(id, |token| Input::Admin { token, op })
    }

    /// Proposes and waits for the answer.
    fn write(&mut self, id: ServerId, key: &str, value: &str) -> Outcome {
        let token = self.propose(id, set(key, value));
        self.until(|world| world.node(id).answers.contains_key(&token));
        self.node(id).answers.remove(&token).expect("it was answered")
    }

    /// One exchange: what flies arrives, disks work, everyone takes a step.
    fn tick(&mut self) {
        self.now += TICK;
        for (from, to, message) in std::mem::take(&mut self.flying) {
            if !self.cut_off.contains(&from) && !self.cut_off.contains(&to) {
                self.node(to).inputs.push(Input::Peer { from, message });
            }
        }
        for (id, node) in &mut self.nodes {
            let sent = node.step(self.now);
            self.flying.extend(sent.into_iter().map(|(to, message)| (*id, to, message)));
        }
    }

    fn run(&mut self, time: Duration) {
        let end = self.now + time;
        while self.now < end {
            self.tick();
        }
    }

    /// Until something holds, which takes less than a minute of the world's time.
    fn until(&mut self, mut holds: impl FnMut(&mut World) -> bool) {
        for _ in 0..60_000 {
            if holds(self) {
                return;
            }
            self.tick();
        }
        let standings: Vec<_> = self.nodes.values().map(|node| (&node.standing, &node.logged)).collect();
        panic!("it did not come about: {standings:#?}");
    }

    fn restart(&mut self, id: ServerId) {
        let now = self.now;
        self.node(id).restart(now, None);
        self.flying.retain(|(from, to, _)| *from != id && *to != id);
    }
}

fn done(outcome: &Outcome) -> bool {
    matches!(outcome, Ok(Done { applied: Applied::Done, .. }))
}
