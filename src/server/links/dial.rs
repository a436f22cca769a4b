//! The way out: dialling one server, again and again, and writing what waits for it.

use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

use futures_lite::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use muster_protocol::rpc::{LINK_VERSION, LINK_VERSION_MIN, LinkHello, LinkWelcome, PREAMBLE};
use muster_protocol::wire::{Decoder, HELLO_LENGTH_MAX};

use super::outbox::Outbox;
use super::{Links, SILENCE_MAX};
use crate::consensus::PeerEvent;
use crate::runtime::net::{Endpoint, Stream};
use crate::runtime::random::Rng;
use crate::runtime::{cores, time};

/// Patience with a connection that is being made.
const CONNECT_LIMIT: Duration = Duration::from_secs(1);
/// Pause before the first new attempt: a server that was restarted is back soon.
const PAUSE_MIN: Duration = Duration::from_millis(50);
/// Pause after many failed attempts.
const PAUSE_MAX: Duration = Duration::from_secs(1);
/// How often a server that stays away is mentioned in the log.
const MENTION_EVERY: Duration = Duration::from_secs(60);

/// Keeps the link to one server, until it is dropped.
pub(super) async fn run(links: Links, outbox: Rc<Outbox>) {
    let mut rng = Rng::seeded();
    let mut pause = PAUSE_MIN;
    let mut mentions = Mentions::default();
    loop {
        match connect(&links, &outbox).await {
            Ok((mut stream, name)) => {
                tracing::info!(target: "agent.server", "linked with server {name} ({}) at {}", outbox.to, outbox.address());
                mentions = Mentions::default();
                pause = PAUSE_MIN;
                outbox.open();
                let why = write(&mut stream, &outbox).await;
                outbox.close();
                tracing::warn!(target: "agent.server", "the link to server {name} ({}) broke: {why}", outbox.to);
            }
            Err(why) => mentions.failed(&outbox, &why),
        }
        if outbox.take_lost() && links.0.events.send(PeerEvent::Lost(outbox.to)).await.is_err() {
            return;
        }
        // Servers that were parted by the same event do not come back in step.
        let jitter = pause.mul_f64(0.75 + rng.fraction() / 2.0);
        let _ = cores::either(time::sleep(jitter), outbox.hurried()).await;
        pause = (pause * 2).min(PAUSE_MAX);
    }
}

/// Failed attempts, for the log: the first of a kind and then one now and then.
#[derive(Default)]
struct Mentions {
    last: Option<(String, std::time::Instant)>,
}

impl Mentions {
    fn failed(&mut self, outbox: &Outbox, why: &str) {
        let now = time::now();
        if let Some((said, at)) = &self.last
            && said == why
            && now.duration_since(*at) < MENTION_EVERY
        {
            return;
        }
        tracing::warn!(
            target: "agent.server", "no link to server {} at {}: {why}; trying again",
            outbox.to,
            outbox.address()
        );
        self.last = Some((why.to_owned(), now));
    }
}

/// A connection whose other end is the server that it should be, and that server's name.
async fn connect(links: &Links, outbox: &Outbox) -> Result<(Stream, String), String> {
    let own = &links.0.own;
    let cluster = links.0.cluster.id().ok_or("this server belongs to no cluster yet")?;
    let address = outbox.address();
    let endpoint = address.parse().map(Endpoint::Tcp);
    let endpoint = endpoint.map_err(|_| format!("{address:?} is no address; it should be ip:port"))?;
    let mut stream = Stream::connect(&endpoint, CONNECT_LIMIT).await.map_err(|error| error.to_string())?;
    // Both are precautions against peers that vanish; a kernel that refuses them leaves the kernel's own.
    let _ = stream.socket().set_user_timeout(SILENCE_MAX);
    let _ = stream.socket().set_keepalive(SILENCE_MAX);
    let hello = LinkHello {
        version: LINK_VERSION,
        version_min: LINK_VERSION_MIN,
        cluster,
        datacenter: own.datacenter.clone(),
        id: own.id,
        to: outbox.to,
        name: own.name.clone(),
        address: own.address.clone(),
    };
    let greeted = time::timeout(own.handshake_timeout, greet(&mut stream, &hello)).await;
    let welcome = greeted.unwrap_or_else(|| Err("it does not answer".to_owned()))?;
    if !welcome.refusal.is_empty() {
        return Err(format!("it refuses: {}", welcome.refusal));
    }
    if welcome.id != outbox.to {
        return Err(format!("server {} ({}) is there instead", welcome.id, welcome.name));
    }
    Ok((stream, welcome.name))
}

async fn greet(stream: &mut Stream, hello: &LinkHello) -> Result<LinkWelcome, String> {
    let mut out = PREAMBLE.to_vec();
    hello.encode(&mut out);
    stream.write_all(&out).await.map_err(|error| error.to_string())?;
    let mut decoder = Decoder::new(HELLO_LENGTH_MAX);
    loop {
        match decoder.next_frame() {
            Ok(Some(frame)) => return LinkWelcome::decode(&frame).map_err(|why| why.to_string()),
            Ok(None) => {}
            Err(why) => return Err(why.to_string()),
        }
        match stream.read(decoder.room()).await {
            Ok(0) => return Err("it closed the connection without a word".to_owned()),
            Ok(length) => decoder.filled(length),
            Err(error) => return Err(error.to_string()),
        }
    }
}

/// Writes what waits until the link breaks; says why it did.
async fn write(stream: &mut Stream, outbox: &Outbox) -> io::Error {
    let mut frames = Vec::new();
    let mut written = 0;
    let mut nothing = [0; 16];
    std::future::poll_fn(|cx| {
        // The other side says nothing on this way, so there is nothing to read but the end.
        match Pin::new(&mut *stream).poll_read(cx, &mut nothing) {
            Poll::Ready(Ok(0)) => return Poll::Ready(io::ErrorKind::UnexpectedEof.into()),
            Poll::Ready(Ok(_)) => return Poll::Ready(io::Error::other("it talks where it should listen")),
            Poll::Ready(Err(error)) => return Poll::Ready(error),
            Poll::Pending => {}
        }
        loop {
            if written == frames.len() {
                frames.clear();
                written = 0;
                if outbox.poll_take(&mut frames, cx).is_pending() {
                    return Poll::Pending;
                }
            }
            match Pin::new(&mut *stream).poll_write(cx, &frames[written..]) {
                Poll::Ready(Ok(length)) => written += length,
                Poll::Ready(Err(error)) => return Poll::Ready(error),
                Poll::Pending => return Poll::Pending,
            }
        }
    })
    .await
}
