//! What servers ask of their leader, and who answers there: how well the servers are, and the changes that operators want.
//! Both ends are of this file; the way between them is [`Proposals::ask`].

use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use muster_protocol::entry::{ServerId, Suffrage};
use muster_protocol::rpc::message::ASK_LENGTH_MAX;
use rkyv::util::AlignedVec;
use rkyv::{Archive, Deserialize, Serialize, rancor};

use super::health::ClusterHealth;
use super::sessions::{Sessions, Unrenewed};
use crate::consensus::{AdminError, AdminOp, Asked, Proposals, ProposeError, Standing};
use crate::runtime::mesh::Receiver;
use crate::runtime::{task, time};
use crate::store::model::Session;

/// How long an operator's change waits for another one to be committed.
const PENDING_LIMIT: Duration = Duration::from_secs(5);
/// How often it is tried.
const PENDING_PAUSE: Duration = Duration::from_millis(20);

/// Told to whoever renews a session whose end is under way and does not get decided.
const UNDECIDED: &str =
    "the session is about to expire, and its end is not committed yet: do not count on it";

/// A question.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
pub enum Question {
    /// How well are the servers?
    Health,
    /// Remove the server with this ID.
    RemoveId(String),
    /// Remove the server with this address.
    RemoveAddress(String),
    /// Hand the lead to the server with this ID, or to any.
    Transfer(Option<String>),
    /// Renew the session with this ID.
    Renew(String),
}

/// An answer.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// To [`Question::Health`].
    Health(ClusterHealth),
    /// It is done.
    Done,
    /// It is not, and why: Consul's words where it has some.
    Refused(String),
    /// To [`Question::Renew`]: the session, if it is there.
    Session(Option<Box<Session>>),
}

/// Asks the leader, whoever that is.
///
/// # Errors
/// See [`Proposals::ask`].
pub async fn ask(proposals: &Proposals, question: &Question) -> Result<Answer, ProposeError> {
    let repeatable = matches!(question, Question::Health | Question::Renew(_));
    let bytes = encoded(rkyv::to_bytes::<rancor::Error>(question));
    if bytes.len() > ASK_LENGTH_MAX {
        return Ok(Answer::Refused(format!("a question of {} bytes is too long", bytes.len())));
    }
    let answer = proposals.ask(bytes, repeatable).await?;
    let read = rkyv::from_bytes::<Answer, rancor::Error>(&aligned(&answer));
    Ok(read.unwrap_or_else(|why| {
        Answer::Refused(format!(
            "the leader's answer cannot be read: {why}; do all servers run the same version?"
        ))
    }))
}

/// Answers what comes in while this server leads. `health` tells what the leader's duties know.
pub async fn serve(
    mut asked: Receiver<Asked>,
    proposals: Proposals,
    sessions: Sessions,
    health: impl Fn() -> ClusterHealth + 'static,
) {
    let health = Rc::new(health);
    while let Some(asked) = asked.recv().await {
        let (proposals, sessions, health) = (proposals.clone(), sessions.clone(), health.clone());
        // A change takes its time; what comes after it need not wait.
        task::spawn(async move {
            if let Some(answer) = answer(&asked.question, &proposals, &sessions, &*health).await {
                asked.answer(within_bounds(encoded(rkyv::to_bytes::<rancor::Error>(&answer))));
            }
        })
        .detach();
    }
}

/// A link breaks at an answer that is too long.
fn within_bounds(answer: Bytes) -> Bytes {
    if answer.len() <= ASK_LENGTH_MAX {
        return answer;
    }
    let why = format!("an answer of {} bytes is too long to be sent", answer.len());
    encoded(rkyv::to_bytes::<rancor::Error>(&Answer::Refused(why)))
}

/// `None`: this server does not lead.
async fn answer(
    question: &Bytes,
    proposals: &Proposals,
    sessions: &Sessions,
    health: &impl Fn() -> ClusterHealth,
) -> Option<Answer> {
    let standing = proposals.standing();
    if !standing.leads() {
        return None;
    }
    let question = match rkyv::from_bytes::<Question, rancor::Error>(&aligned(question)) {
        Ok(question) => question,
        Err(why) => {
            let text =
                format!("the leader cannot read the question: {why}; do all servers run the same version?");
            return Some(Answer::Refused(text));
        }
    };
    if let Question::Renew(id) = &question {
        return match sessions.renew(id).await {
            Ok(session) => Some(Answer::Session(session.map(|session| Box::new(Session::clone(&session))))),
            Err(Unrenewed::NotLeader) => None,
            Err(Unrenewed::Undecided) => Some(Answer::Refused(UNDECIDED.to_owned())),
        };
    }
    let op = match operation(&question, &standing) {
        Ok(Some(op)) => op,
        Ok(None) => return Some(Answer::Health(health())),
        Err(text) => return Some(Answer::Refused(text)),
    };
    match patiently(proposals, &op).await {
        Ok(()) => Some(Answer::Done),
        Err(AdminError::NotLeader) => None,
        Err(why) => Some(Answer::Refused(why.to_string())),
    }
}

/// What a question wants done; `None` when it only wants to know. The texts are Consul's.
fn operation(question: &Question, standing: &Standing) -> Result<Option<AdminOp>, String> {
    let servers = &standing.configuration.servers;
    match question {
        Question::Health | Question::Renew(_) => Ok(None),
        Question::RemoveId(id) => {
            let server = ServerId::parse(id).and_then(|id| standing.configuration.server(id));
            let server =
                server.ok_or_else(|| format!("id {id:?} was not found in the Raft configuration"))?;
            Ok(Some(AdminOp::RemoveServer(server.id)))
        }
        Question::RemoveAddress(address) => {
            let server = servers.iter().find(|server| server.address == *address);
            let server = server
                .ok_or_else(|| format!("address {address:?} was not found in the Raft configuration"))?;
            Ok(Some(AdminOp::RemoveServer(server.id)))
        }
        Question::Transfer(Some(id)) => {
            let server = ServerId::parse(id).and_then(|id| standing.configuration.server(id));
            let server = server.ok_or_else(|| format!("Could not find address for server id {id}"))?;
            if server.suffrage != Suffrage::Voter {
                return Err(format!("server {id} does not vote, so it cannot lead"));
            }
            Ok(Some(AdminOp::Transfer(Some(server.id))))
        }
        Question::Transfer(None) => {
            let another = standing.configuration.voters().any(|voter| Some(voter) != standing.id);
            if another { Ok(Some(AdminOp::Transfer(None))) } else { Err("cannot find peer".to_owned()) }
        }
    }
}

/// Changes of the servers are made one at a time: another one that is under way is waited for.
pub async fn patiently(proposals: &Proposals, op: &AdminOp) -> Result<(), AdminError> {
    let until = time::now() + PENDING_LIMIT;
    loop {
        match proposals.admin(op.clone()).await {
            Err(AdminError::ChangePending) if time::now() < until => time::sleep(PENDING_PAUSE).await,
            done => return done,
        }
    }
}

fn encoded(archive: Result<AlignedVec<16>, rancor::Error>) -> Bytes {
    Bytes::from_owner(archive.expect("names and numbers are plain data, which always encodes into memory"))
}

fn aligned(bytes: &Bytes) -> AlignedVec<16> {
    let mut aligned = AlignedVec::with_capacity(bytes.len());
    aligned.extend_from_slice(bytes);
    aligned
}
