//! Begins a cluster, or takes part in the beginning of one; and says in the tags of this server what becomes of it.

use std::rc::Rc;
use std::time::Duration;

use muster_protocol::entry::Configuration;
use muster_protocol::gossip::seal::Sealer;
use muster_protocol::random::Random;
use muster_protocol::rpc::Founding;
use muster_protocol::wire::{ClusterId, Decoder, Frame, HELLO_LENGTH_MAX};

use super::cluster::AdoptError;
use super::driver::{Inner, known_servers};
use super::facts;
use super::founding::{self, Decision, Founder, decide};
use super::roster::Member;
use super::streams::{self, Kind};
use crate::consensus::{AdminError, AdminOp};
use crate::runtime::{cores, random, task, time};

/// How often the situation is looked at when nothing is heard.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);

/// How often is looked whether it is known what the disk holds.
const SETTLE_INTERVAL: Duration = Duration::from_millis(10);

/// Patience with a server that is told of a cluster.
const TELL_LIMIT: Duration = Duration::from_secs(2);

/// How often they are told again until somebody leads.
const TELL_INTERVAL: Duration = Duration::from_secs(3);

/// In front of a list of servers: it is as it is, or sealed with a key of the pool.
const PLAIN: u8 = 0;
const SEALED: u8 = 1;

/// Runs until this server belongs to a cluster, its log says so, and everybody is told. A client has nothing to do here.
pub(super) async fn run(inner: Rc<Inner>) {
    let Some(founder) = &inner.founder else { return };
    belong(&inner, founder).await;
    while founder.proposals.standing().blank {
        tell(&inner, founder);
        let _ = cores::either(inner.nearer.heard(), time::sleep(LOOK_INTERVAL)).await;
    }
    tell(&inner, founder);
}

/// Says in this server's tags to which cluster it belongs, and whom it knows while it belongs to none.
fn tell(inner: &Rc<Inner>, founder: &Founder) {
    let blank = founder.proposals.standing().blank;
    let mut tags = inner.settings.own.tags.clone();
    let knows = blank.then(|| known_servers(&inner.roster.borrow()));
    facts::set_standing(&mut tags, founder.cluster.id(), !blank, knows);
    inner.restate(&tags);
}

async fn belong(inner: &Rc<Inner>, founder: &Founder) {
    let mut said = String::new();
    while founder.proposals.standing().id.is_none() {
        time::sleep(SETTLE_INTERVAL).await;
    }
    let settled = time::now();
    loop {
        tell(inner, founder);
        // A list that was taken before a crash is taken again.
        if let Some(founding) = founder.cluster.founding() {
            let lost = lost_log(inner, founder, time::now() - settled);
            let begun = match lost {
                Some(why) => Err(why),
                None => begin_log(founder, &founding).await,
            };
            match begun {
                Ok(()) => {
                    return tell_until_led(inner, founder, Configuration::clone(&founding)).await;
                }
                Err(why) if said != why => {
                    tracing::warn!(target: "agent.server", "the log does not begin yet: {why}");
                    said = why;
                }
                Err(_) => {}
            }
        } else if founder.cluster.id().is_some() || !founder.proposals.standing().blank {
            // It was taken in by a leader.
            return;
        } else {
            match decide_now(inner, founder) {
                Decision::Found(configuration) => {
                    found(inner, founder, configuration).await;
                    continue;
                }
                Decision::Wait(why) | Decision::Join(why) if said != why => {
                    tracing::info!(target: "agent.server", "{why}");
                    said = why;
                }
                Decision::Wait(_) | Decision::Join(_) => {}
            }
        }
        let _ = cores::either(inner.nearer.heard(), time::sleep(LOOK_INTERVAL)).await;
    }
}

fn decide_now(inner: &Inner, founder: &Founder) -> Decision {
    let roster = inner.roster.borrow();
    let Some(own) = roster.named(&inner.settings.own.name) else {
        return Decision::Wait("it is not begun yet".to_owned());
    };
    let bootstrap = founder.alone || own.server.as_ref().is_some_and(|facts| facts.bootstrap);
    decide(own, bootstrap, &roster)
}

/// Makes a cluster of these servers: writes it down here, then tells the others at the same time. One that does not hear
/// it is blank, and takes the list from the leader's log.
async fn found(inner: &Rc<Inner>, founder: &Founder, configuration: Configuration) {
    let peers: Vec<&str> = configuration.servers.iter().map(|server| server.address.as_str()).collect();
    tracing::info!(
        target: "agent.server", "Found expected number of peers, attempting bootstrap: peers={}",
        peers.join(",")
    );
    let mut id = [0; 16];
    random::fill(&mut id);
    // A random UUID, as RFC 4122 marks them.
    (id[6], id[8]) = (id[6] & 0x0f | 0x40, id[8] & 0x3f | 0x80);
    let founding = Founding { cluster: ClusterId(id), configuration };
    if let Err(why) = founder.cluster.found(founding.cluster, founding.configuration.clone()).await {
        tracing::error!(target: "agent.server", "Failed to bootstrap cluster: error={:?}", refusal(why));
        time::sleep(LOOK_INTERVAL).await;
        return;
    }
    tell_blank(inner, &founding);
}

/// Who has a list tells those on it who have none, until somebody leads: whoever made it may have crashed before it told anybody.
async fn tell_until_led(inner: &Rc<Inner>, founder: &Founder, configuration: Configuration) {
    let Some(cluster) = founder.cluster.id() else { return };
    let founding = Founding { cluster, configuration };
    loop {
        tell(inner, founder);
        time::sleep(TELL_INTERVAL).await;
        if founder.proposals.contact().known_leader {
            return;
        }
        tell_blank(inner, &founding);
    }
}

/// Tells the servers of a new cluster, at the same time, which do not know it yet.
fn tell_blank(inner: &Rc<Inner>, founding: &Founding) {
    let roster = inner.published.load_full();
    let own = &inner.settings.own;
    let is_blank = |member: &Member| {
        let facts = member.server.as_ref();
        facts.is_some_and(|facts| !facts.has_log && facts.cluster.is_none())
    };
    let founders = roster.servers().filter(|member| founding.configuration.server(member.id).is_some());
    for member in founders.filter(|member| member.id != own.id && is_blank(member)).cloned() {
        let mut frame = Vec::new();
        if let Err(why) = founding.encode(&mut frame) {
            tracing::error!(target: "agent.server", "the first servers cannot be told: {why}");
            return;
        }
        let message = wrap(inner, &frame);
        task::spawn(async move {
            let to = member.serf_lan_address();
            let answer = streams::exchange(to, Kind::Founding, &message, TELL_LIMIT).await;
            let refusal = answer.and_then(|answer| unframe(&answer, Founding::decode_answer));
            if let Some(why) = refusal.map_or_else(Some, |why| Some(why).filter(|why| !why.is_empty())) {
                tracing::warn!(
                    target: "agent.server", "server {} did not take the new cluster's servers: {why}",
                    member.name
                );
            }
        })
        .detach();
    }
}

/// The answer to another server that has begun a cluster.
pub(super) async fn answer(inner: &Rc<Inner>, message: &[u8]) -> Vec<u8> {
    let outcome = match unwrap(inner, message) {
        Ok(founding) => take(inner, founding).await,
        Err(why) => Err(why),
    };
    if let Err(why) = &outcome {
        tracing::warn!(target: "agent.server", "the first servers of a cluster are refused: {why}");
    }
    let mut frame = Vec::new();
    Founding::encode_answer(outcome.as_ref().err().map_or("", String::as_str), &mut frame);
    [&[PLAIN], &frame[..]].concat()
}

/// Puts a mark in front of a frame, and seals it as gossip is sealed.
fn wrap(inner: &Inner, frame: &[u8]) -> Vec<u8> {
    let mut message = [&[PLAIN], frame].concat();
    if let Some(mut sealer) = sealer(inner).filter(|_| inner.settings.pool.verify_outgoing) {
        message[0] = SEALED;
        sealer.seal(&mut message, 1);
    }
    message
}

fn unwrap(inner: &Inner, message: &[u8]) -> Result<Founding, String> {
    match (message.first(), sealer(inner)) {
        (Some(&PLAIN), Some(_)) if inner.settings.pool.verify_incoming => {
            Err("it is not encrypted, and this agent has a key (encrypt)".to_owned())
        }
        (Some(&PLAIN), _) => unframe(message, Founding::decode),
        (Some(&SEALED), Some(sealer)) => {
            let mut opened = Vec::new();
            sealer.open(message, 1, &mut opened).map_err(|why| why.to_string())?;
            unframe(&opened, Founding::decode)
        }
        (Some(&SEALED), None) => Err("it is encrypted, and this agent has no key (encrypt)".to_owned()),
        _ => Err("it is no list of servers".to_owned()),
    }
}

/// Seals with the keys of now; its nonces are its own.
fn sealer(inner: &Inner) -> Option<Sealer> {
    let keyring = inner.core.borrow().keyring().cloned()?;
    Some(Sealer::new(keyring, &mut Random::new(random::seed())))
}

/// What the one frame behind the mark says.
fn unframe<T>(
    message: &[u8],
    decode: impl Fn(&Frame<'_>) -> Result<T, muster_protocol::wire::WireError>,
) -> Result<T, String> {
    let mut rest = message.get(1..).unwrap_or_default();
    let mut decoder = Decoder::new(HELLO_LENGTH_MAX);
    loop {
        if let Some(frame) = decoder.next_frame().map_err(|why| why.to_string())? {
            return decode(&frame).map_err(|why| why.to_string());
        }
        let room = decoder.room();
        let length = room.len().min(rest.len());
        if length == 0 {
            return Err("it is cut off".to_owned());
        }
        room[..length].copy_from_slice(&rest[..length]);
        decoder.filled(length);
        rest = &rest[length..];
    }
}

/// Another server has made a cluster with this one in it.
///
/// # Errors
/// This server takes no part; why, for both sides.
async fn take(inner: &Rc<Inner>, founding: Founding) -> Result<(), String> {
    let own = &inner.settings.own;
    let Some(founder) = &inner.founder else { return Err(format!("agent {} is no server", own.name)) };
    if founding.configuration.server(own.id).is_none() {
        return Err(format!("server {} is not in the list of the first servers", own.name));
    }
    if founder.cluster.id().is_none() && !founder.proposals.standing().blank {
        return Err(format!("server {} has a log already", own.name));
    }
    founder.cluster.found(founding.cluster, founding.configuration).await.map_err(refusal)?;
    inner.nearer.ring();
    Ok(())
}

/// Why a server whose log is gone does not begin it anew now.
fn lost_log(inner: &Inner, founder: &Founder, looked_for: Duration) -> Option<String> {
    let standing = founder.proposals.standing();
    if !standing.blank {
        return None;
    }
    founding::waits_for_log(standing.term, looked_for, &inner.settings.own.name, &inner.roster.borrow())
}

async fn begin_log(founder: &Founder, founding: &Configuration) -> Result<(), String> {
    if !founder.proposals.standing().blank {
        return Ok(());
    }
    match founder.proposals.admin(AdminOp::Bootstrap(founding.clone())).await {
        Ok(()) => Ok(()),
        // The leader's log was quicker.
        Err(AdminError::Refused(_)) if !founder.proposals.standing().blank => Ok(()),
        Err(why) => Err(why.to_string()),
    }
}

fn refusal(why: AdoptError) -> String {
    match why {
        AdoptError::Belongs(cluster) => format!("it belongs to cluster {cluster}"),
        AdoptError::Disk(error) => error.to_string(),
    }
}
