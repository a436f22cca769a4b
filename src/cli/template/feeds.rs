//! Watches dependencies: each one once, however many templates use it.
//!
//! Each of the first [`LINES_MAX`] questions that an agent can hold back has a connection and a thread of its own, and
//! its change is here at once. All others, files among them, are asked for in turn by a few threads.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File, Metadata};
use std::io::{self, BufReader, Read};
use std::os::unix::fs::MetadataExt;
use std::sync::mpsc::SyncSender;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use super::super::client::{Client, Reply, failed};
use super::super::follow::{Event as Followed, Follower, Question as Followable, Stopper};
use super::super::transport::{self, Outgoing, error_text};
use super::Event;
use crate::template::{Dependency, Question};

/// Questions with a connection of their own. An agent takes 200 connections from one address (`http_max_conns_per_client`).
const LINES_MAX: usize = 120;
/// Threads that ask for all others.
const POLLERS: usize = 4;
/// How often a question is asked that has no connection of its own.
const POLL_EVERY: Duration = Duration::from_secs(1);
/// So many questions that each has this much time alone: at most a hundred a second, however many there are.
const POLL_SPACING: Duration = Duration::from_millis(10);
/// How often a file is looked at.
const FILE_EVERY: Duration = Duration::from_millis(500);
/// How long ago a file must have been changed for its mark to be trusted; beside the part of a second that is not looked at.
const MARK_SETTLED: Duration = Duration::from_secs(2);
/// Bytes of a file that is taken.
const FILE_MAX: u64 = 64 << 20;
/// How often the names of all datacenters are asked for, and by which others that cannot be held back.
const SLOW_EVERY: Duration = Duration::from_secs(15);
/// How long an agent may take to be reached, and to go on with an answer.
const ANSWER_MAX: Duration = Duration::from_secs(10);
/// How long to rest after a failure.
const FAILED_REST: Duration = Duration::from_secs(1);

/// What became known of a dependency.
#[derive(Clone, Debug)]
pub enum News {
    /// The body of an agent's answer, or a file's content.
    Here(Arc<[u8]>),
    /// There is nothing.
    Nothing,
    /// It could not be asked; it will be again.
    Failed(String),
}

/// How questions are asked.
#[derive(Clone)]
pub struct Manner {
    /// The agent.
    pub client: Arc<Client>,
    /// The datacenter where a question names none.
    pub datacenter: Option<String>,
    /// Whether any server may answer, and how old the answer may be then.
    pub max_stale: Option<Duration>,
    /// How long a server holds an answer back.
    pub wait: Option<Duration>,
}

/// All that is watched.
pub struct Feeds {
    manner: Manner,
    to: SyncSender<Event>,
    lines: BTreeMap<Dependency, Arc<Line>>,
    polls: Arc<Polls>,
    /// Files have threads of their own: they are there when no agent is.
    files: Arc<Polls>,
}

impl Feeds {
    /// Nothing watched yet.
    pub fn new(manner: Manner, to: SyncSender<Event>) -> Feeds {
        Feeds { manner, to, lines: BTreeMap::new(), polls: Arc::default(), files: Arc::default() }
    }

    /// Watches these and nothing else.
    pub fn watch(&mut self, wanted: &BTreeSet<Dependency>) {
        self.lines.retain(|dependency, line| {
            let stays = wanted.contains(dependency);
            if !stays {
                line.stop();
            }
            stays
        });
        let polls = [self.polls.clone(), self.files.clone()];
        for polls in &polls {
            polls.lock().all.retain(|dependency, _| wanted.contains(dependency));
        }
        for dependency in wanted {
            let is_polled = polls.iter().any(|polls| polls.lock().all.contains_key(dependency));
            let has_room = self.lines.len() < LINES_MAX;
            if self.lines.contains_key(dependency) || is_polled && !has_room {
                continue;
            }
            match dependency.question() {
                Some(question) if question.blocks && has_room => {
                    // One that was asked for in turn has a line now that one is free.
                    self.polls.lock().all.remove(dependency);
                    self.follow(dependency, question);
                }
                _ if is_polled => {}
                _ => self.poll(dependency),
            }
        }
    }

    /// How many are watched.
    pub fn len(&self) -> usize {
        self.lines.len() + self.polls.lock().all.len() + self.files.lock().all.len()
    }

    fn follow(&mut self, dependency: &Dependency, question: Question) {
        let line = Arc::new(Line::default());
        self.lines.insert(dependency.clone(), line.clone());
        let (manner, to, dependency) = (self.manner.clone(), self.to.clone(), dependency.clone());
        thread::spawn(move || line.run(&manner, &dependency, question, &to));
    }

    fn poll(&mut self, dependency: &Dependency) {
        let polls = if matches!(dependency, Dependency::File(_)) { &self.files } else { &self.polls };
        let mut state = polls.lock();
        state.numbers += 1;
        let (number, due) = (state.numbers, Instant::now());
        state.all.insert(dependency.clone(), Poll { number, due, is_asked: false, seen: Seen::Unknown });
        if state.threads < POLLERS {
            state.threads += 1;
            let (polls, manner, to) = (polls.clone(), self.manner.clone(), self.to.clone());
            thread::spawn(move || polls.run(&manner, &to));
        }
        polls.bell.notify_one();
    }
}

impl Drop for Feeds {
    fn drop(&mut self) {
        self.lines.values().for_each(|line| line.stop());
        for polls in [&self.polls, &self.files] {
            polls.lock().is_over = true;
            polls.bell.notify_all();
        }
    }
}

/// One question with a connection of its own.
#[derive(Default)]
struct Line {
    state: Mutex<(bool, Option<Stopper>)>,
}

impl Line {
    fn stop(&self) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.0 = true;
        if let Some(stopper) = &state.1 {
            stopper.stop();
        }
    }

    fn is_stopped(&self) -> bool {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).0
    }

    /// Tells what becomes known until it is stopped.
    fn run(&self, manner: &Manner, dependency: &Dependency, mut question: Question, to: &SyncSender<Event>) {
        let tell = |news: News| to.send(Event::News(dependency.clone(), news)).is_ok();
        if let Dependency::Node { name, .. } = dependency
            && name.is_empty()
        {
            // The agent's own node, whose name only the agent knows.
            let name = loop {
                match own_name(&manner.client) {
                    _ if self.is_stopped() => return,
                    Ok(name) => break name,
                    Err(why) => {
                        if !tell(News::Failed(why)) {
                            return;
                        }
                        thread::sleep(FAILED_REST);
                    }
                }
            };
            question.path.push_str(&name);
        }
        let mut follower = Follower::new(manner.client.clone(), manner.followable(question));
        self.state.lock().unwrap_or_else(PoisonError::into_inner).1 = Some(follower.stopper());
        while !self.is_stopped() {
            let news = match follower.wait() {
                Followed::Changed(answer) if answer.status == 404 => News::Nothing,
                Followed::Changed(answer) => News::Here(answer.body),
                Followed::Failed(failure) => News::Failed(failure.why),
                Followed::Stopped => return,
            };
            if !tell(news) {
                return;
            }
        }
    }
}

/// Asks once, and not for ever: who has gone never answers.
fn get(client: &Client, path: &str, query: &[(&str, &str)]) -> Result<Reply, String> {
    let (path, url) = client.address(path, query);
    let exchange = || -> Result<Reply, String> {
        let (mut stream, socket) = transport::connect(client.target(), client.tls(), Some(ANSWER_MAX))?;
        let io = |why: std::io::Error| error_text(&why);
        socket.limit(ANSWER_MAX, ANSWER_MAX).map_err(io)?;
        let request = Outgoing { method: "GET", path: &path, headers: client.headers(), body: &[] };
        let head = transport::head(client.target(), &request, true)?;
        transport::write(&mut stream, &head, &[]).map_err(io)?;
        let mut reader = BufReader::new(stream);
        let mut answer = transport::read_head(&mut reader).map_err(io)?;
        let body = transport::read_body(&mut reader, &mut answer.framing).map_err(io)?;
        Ok(Reply { status: answer.status, body })
    };
    exchange().map_err(|why| failed("GET", &url, &why))
}

/// The name of the agent's node.
fn own_name(client: &Client) -> Result<String, String> {
    let body = get(client, "/v1/agent/self", &[])?.ok()?;
    let json: serde_json::Value = serde_json::from_slice(&body).map_err(|why| why.to_string())?;
    let name = json["Config"]["NodeName"].as_str();
    name.map(str::to_owned).ok_or_else(|| "the agent does not tell its node's name".to_owned())
}

impl Manner {
    /// A question with what all have in common.
    fn query(&self, question: &Question) -> Vec<(String, String)> {
        let mut query = question.query.clone();
        let asks = |query: &[(String, String)], name: &str| query.iter().any(|(known, _)| known == name);
        if let Some(datacenter) = &self.datacenter
            && !asks(&query, "dc")
        {
            query.push(("dc".to_owned(), datacenter.clone()));
        }
        if let Some(age) = self.max_stale {
            query.push(("stale".to_owned(), String::new()));
            query.push(("max_stale".to_owned(), format!("{}ms", age.as_millis())));
        }
        query
    }

    fn followable(&self, question: Question) -> Followable {
        let query = self.query(&question);
        let mut out = Followable::new(question.path, &[]);
        out.query = query;
        out.wait = self.wait;
        out
    }
}

/// What is asked for in turn.
#[derive(Default)]
struct Polls {
    state: Mutex<PollState>,
    bell: Condvar,
}

#[derive(Default)]
struct PollState {
    all: BTreeMap<Dependency, Poll>,
    numbers: u64,
    threads: usize,
    is_over: bool,
}

struct Poll {
    /// Which one it is: another one may stand in its place meanwhile.
    number: u64,
    due: Instant,
    is_asked: bool,
    seen: Seen,
}

/// What was told of it last.
#[derive(Clone, PartialEq)]
pub(super) enum Seen {
    Unknown,
    Nothing,
    /// An answer, or a file with its mark.
    Here(Arc<[u8]>, Option<Mark>),
}

#[cfg(test)]
impl Seen {
    /// As if it had been seen some seconds after its last change.
    pub fn settle(&mut self) {
        if let Seen::Here(_, Some(mark)) = self {
            mark.is_settled = true;
        }
    }
}

/// What a file has that is another after each change.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(super) struct Mark {
    device: u64,
    inode: u64,
    length: u64,
    modified: (i64, i64),
    changed: (i64, i64),
    /// Whether a later change has another mark: clocks of file systems go in steps, so not one that follows at once.
    is_settled: bool,
}

impl Mark {
    /// The mark of what is a file and not too large.
    fn of(meta: &Metadata) -> io::Result<Mark> {
        // A pipe or a device has no end.
        if !meta.is_file() || meta.len() > FILE_MAX {
            return Err(io::Error::other("not a file, or too large a one"));
        }
        let changed = UNIX_EPOCH + u64::try_from(meta.ctime()).map(Duration::from_secs).unwrap_or_default();
        let age = SystemTime::now().duration_since(changed);
        Ok(Mark {
            device: meta.dev(),
            inode: meta.ino(),
            length: meta.len(),
            modified: (meta.mtime(), meta.mtime_nsec()),
            changed: (meta.ctime(), meta.ctime_nsec()),
            is_settled: age.is_ok_and(|age| age > MARK_SETTLED),
        })
    }

    /// Whether it is surely that of the same content.
    fn is_still(&self, earlier: &Mark) -> bool {
        earlier.is_settled && Mark { is_settled: true, ..*self } == *earlier
    }
}

impl Polls {
    fn lock(&self) -> MutexGuard<'_, PollState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Asks whatever is due, until all is over.
    fn run(&self, manner: &Manner, to: &SyncSender<Event>) {
        while let Some((dependency, number, seen)) = self.next() {
            let (now_seen, news, rest) = look(manner, &dependency, &seen);
            if let Some(news) = news
                && to.send(Event::News(dependency.clone(), news)).is_err()
            {
                return;
            }
            let mut state = self.lock();
            let count = u32::try_from(state.all.len()).unwrap_or(u32::MAX);
            if let Some(poll) = state.all.get_mut(&dependency).filter(|poll| poll.number == number) {
                poll.is_asked = false;
                poll.seen = now_seen;
                poll.due = Instant::now() + rest.max(POLL_SPACING.saturating_mul(count));
            }
        }
    }

    /// Waits for the next that is due; `None` at the end.
    fn next(&self) -> Option<(Dependency, u64, Seen)> {
        let mut state = self.lock();
        loop {
            if state.is_over {
                return None;
            }
            let now = Instant::now();
            let free = state.all.iter_mut().filter(|(_, poll)| !poll.is_asked);
            let next = free.min_by_key(|(_, poll)| poll.due);
            let rest = match next {
                Some((dependency, poll)) if poll.due <= now => {
                    poll.is_asked = true;
                    return Some((dependency.clone(), poll.number, poll.seen.clone()));
                }
                Some((_, poll)) => poll.due - now,
                None => POLL_EVERY,
            };
            state = self.bell.wait_timeout(state, rest).unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

/// Asks once: what is seen now, what is to be told, and when to ask again.
fn look(manner: &Manner, dependency: &Dependency, seen: &Seen) -> (Seen, Option<News>, Duration) {
    if let Dependency::File(path) = dependency {
        return look_at_file(path, seen);
    }
    let Some(question) = dependency.question() else { return (seen.clone(), None, SLOW_EVERY) };
    let rest = if question.blocks { POLL_EVERY } else { SLOW_EVERY };
    let mut path = question.path.clone();
    if matches!(dependency, Dependency::Node { name, .. } if name.is_empty()) {
        match own_name(&manner.client) {
            Ok(name) => path.push_str(&name),
            Err(why) => return (seen.clone(), Some(News::Failed(why)), FAILED_REST),
        }
    }
    let query = manner.query(&question);
    let query: Vec<(&str, &str)> =
        query.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    let answer = get(&manner.client, &path, &query).and_then(|reply| match reply.status {
        404 => Ok(None),
        _ => reply.ok().map(Some),
    });
    let answer = match (answer, dependency) {
        (Ok(Some(body)), Dependency::Datacenters { ignore_failing: true }) => {
            answering(manner, body).map(Some)
        }
        (answer, _) => answer,
    };
    match answer {
        Err(why) => (seen.clone(), Some(News::Failed(why)), FAILED_REST),
        Ok(None) if *seen == Seen::Nothing => (Seen::Nothing, None, rest),
        Ok(None) => (Seen::Nothing, Some(News::Nothing), rest),
        Ok(Some(body)) => {
            let body: Arc<[u8]> = body.into();
            let now = Seen::Here(body.clone(), None);
            let news = (now != *seen).then_some(News::Here(body));
            (now, news, rest)
        }
    }
}

/// Those of the datacenters that answer.
fn answering(manner: &Manner, body: Vec<u8>) -> Result<Vec<u8>, String> {
    let names: Vec<String> = serde_json::from_slice(&body).map_err(|why| why.to_string())?;
    let answers = |name: &String| {
        let reply = get(&manner.client, "/v1/catalog/services", &[("dc", name), ("consistent", "")]);
        reply.is_ok_and(|reply| reply.status == 200)
    };
    let names: Vec<String> = names.into_iter().filter(answers).collect();
    serde_json::to_vec(&names).map_err(|why| why.to_string())
}

pub(super) fn look_at_file(path: &str, seen: &Seen) -> (Seen, Option<News>, Duration) {
    let known = match seen {
        Seen::Here(content, Some(mark)) => Some((content, mark)),
        _ => None,
    };
    let read = || -> io::Result<Option<(Arc<[u8]>, Mark)>> {
        let mark = Mark::of(&fs::metadata(path)?)?;
        // A mark that was not settled when the file was read may be that of two contents.
        if known.is_some_and(|(_, known)| mark.is_still(known)) {
            return Ok(None);
        }
        let file = File::open(path)?;
        let mark = Mark::of(&file.metadata()?)?;
        let mut content = Vec::new();
        file.take(FILE_MAX).read_to_end(&mut content)?;
        Ok(Some((content.into(), mark)))
    };
    match read() {
        Ok(None) => (seen.clone(), None, FILE_EVERY),
        Ok(Some((content, mark))) => {
            let is_same = known.is_some_and(|(known, _)| *known == content);
            let news = (!is_same).then(|| News::Here(content.clone()));
            (Seen::Here(content, Some(mark)), news, FILE_EVERY)
        }
        Err(why) => (seen.clone(), Some(News::Failed(format!("{path}: {why}"))), FAILED_REST),
    }
}
