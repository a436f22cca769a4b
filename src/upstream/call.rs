//! One request on its way: to a server, and to another if that one fails it.

use std::borrow::Cow;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use muster_protocol::http::{Body, Method, ResponseHead, head_end};
use muster_protocol::rpc::mux::ResetReason;

use super::dialler::Shared;
use super::error::UpstreamError;
use super::limits::{ATTEMPTS_MAX, HEAD, LONG_CALL, QUIET, SILENCE_LIMITS, WAIT_DEFAULT, WAIT_MAX};
use super::line::{Broke, Line, LineStream};
use super::{Ask, Payload};
use crate::config::duration;
use crate::runtime::mesh::Sender;
use crate::runtime::{cores, time};

/// A body up to this length goes with the head.
const JOINED_MAX: usize = 16 << 10;

/// A request, and the way back.
pub(super) struct Call {
    pub ask: Ask,
    pub parts: Sender<Part>,
}

/// What comes back, in this order.
pub(super) enum Part {
    /// First.
    Head {
        head: ResponseHead,
        /// The body as far as it came with it.
        first: Bytes,
        /// Whether that is all.
        ended: bool,
    },
    /// Any number.
    Data(Bytes),
    /// Last.
    End,
    /// Instead of any of these; nothing follows.
    Failed(UpstreamError),
}

impl Call {
    pub fn refuse(self, error: UpstreamError) {
        // Who has left does not want to know.
        let _ = self.parts.try_send(Part::Failed(error));
    }

    /// Whether it may be asked any number of times.
    fn is_repeatable(&self) -> bool {
        matches!(self.ask.method, Method::Get | Method::Head) && matches!(self.ask.body, Payload::Whole(_))
    }
}

/// Carries a call until it is answered, or nobody waits for it any more.
pub(super) async fn serve(shared: Rc<Shared>, mut call: Call) {
    let parts = call.parts.clone();
    let work = async {
        if let Err(error) = work(&shared, &mut call).await {
            let _ = call.parts.send(Part::Failed(error)).await;
        }
    };
    let _ = cores::either(work, parts.closed()).await;
}

async fn work(shared: &Rc<Shared>, call: &mut Call) -> Result<(), UpstreamError> {
    let asked = time::now();
    let mut attempts = 0;
    loop {
        let line = shared.line().await?;
        let begun = time::now();
        let head = head_of(&call.ask, begun.saturating_duration_since(asked));
        let broke = match attempt(shared, &line, &head, call).await {
            Ok(()) => return Ok(()),
            Err(Failure::Told(error)) => return Err(error),
            Err(Failure::Broke(broke)) => broke,
        };
        match broke {
            Broke::Reset(ResetReason::TooBusy) => return Err(UpstreamError::TooBusy),
            // Nothing was done there, and it is left for another.
            Broke::Reset(ResetReason::Leaving) if matches!(call.ask.body, Payload::Whole(_)) => {
                line.retire();
                shared.resent(line.server.id);
            }
            Broke::Retired => {}
            Broke::Lost | Broke::Reset(_) if !call.is_repeatable() => return Err(UpstreamError::Lost),
            Broke::Lost | Broke::Reset(_) => {}
        }
        if time::now().saturating_duration_since(begun) > LONG_CALL {
            attempts = 0;
        }
        attempts += 1;
        if attempts == ATTEMPTS_MAX {
            return Err(UpstreamError::Lost);
        }
    }
}

enum Failure {
    /// It may be tried again.
    Broke(Broke),
    /// It may not, and this is why.
    Told(UpstreamError),
}

impl From<Broke> for Failure {
    fn from(broke: Broke) -> Failure {
        Failure::Broke(broke)
    }
}

async fn attempt(shared: &Shared, line: &Rc<Line>, head: &[u8], call: &mut Call) -> Result<(), Failure> {
    let patience = shared.patience(line);
    let repeatable = call.is_repeatable();
    if !repeatable && patience == SILENCE_LIMITS[0] && !line.confirm(patience).await {
        // Nothing was sent.
        return Err(Broke::Retired.into());
    }
    let mut stream = begin(line, head, &call.ask.body)?;
    line.expect(patience);
    let Call { ask, parts } = call;
    send_body(&mut stream, &mut ask.body).await?;

    let mut input = Vec::new();
    let mut searched = 0;
    let end = loop {
        if let Some(end) = head_end(&input, searched) {
            break end;
        }
        searched = input.len();
        if input.len() > HEAD.bytes {
            return Err(Failure::Told(UpstreamError::Nonsense));
        }
        if !stream.read(&mut input, repeatable).await? {
            return Err(Broke::Lost.into());
        }
    };
    let rest = input.split_off(end);
    let head = ResponseHead::parse(input.into(), HEAD);
    let head = head.map_err(|_| Failure::Told(UpstreamError::Nonsense))?;
    // From here on somebody has had a part of the answer: it cannot be another one any more.
    let told = |_: Broke| Failure::Told(UpstreamError::Lost);
    let mut body = match head.length {
        Some(length) if ask.method != Method::Head => Body::Length(length),
        Some(_) => Body::Length(0),
        None => Body::chunked(),
    };
    let (first, mut ended) = feed(&mut body, &rest)?;
    if parts.send(Part::Head { head, first, ended }).await.is_err() {
        return Ok(());
    }
    let begun_ended = ended;
    let mut piece = Vec::new();
    while !ended {
        piece.clear();
        if !stream.read(&mut piece, false).await.map_err(told)? {
            return Err(Failure::Told(UpstreamError::Lost));
        }
        let (data, done) = feed(&mut body, &piece)?;
        ended = done;
        if !data.is_empty() && parts.send(Part::Data(data)).await.is_err() {
            return Ok(());
        }
    }
    if !begun_ended {
        // Who has left does not want to know.
        let _ = parts.send(Part::End).await;
    }
    Ok(())
}

/// Opens a stream with the head, and the body if it is short.
fn begin(line: &Rc<Line>, head: &[u8], body: &Payload) -> Result<Stream, Failure> {
    let joined;
    let (bytes, end) = match body {
        Payload::Whole(body) if body.is_empty() => (head, true),
        Payload::Whole(body) if body.len() <= JOINED_MAX => {
            joined = [head, body].concat();
            (&joined[..], true)
        }
        _ => (head, false),
    };
    let Some((stream, taken)) = line.open(bytes, end) else {
        if line.is_used_up() {
            // Nothing was sent, and a new connection has new numbers.
            line.retire();
            return Err(Broke::Retired.into());
        }
        return Err(Failure::Told(UpstreamError::TooBusy));
    };
    Ok(Stream { stream, unsent: bytes[taken..].to_vec(), end })
}

/// A stream, and what of its beginning has found no room yet.
struct Stream {
    stream: LineStream,
    unsent: Vec<u8>,
    /// Whether nothing follows that.
    end: bool,
}

impl Stream {
    async fn read(&mut self, out: &mut Vec<u8>, leave: bool) -> Result<bool, Broke> {
        self.stream.read(out, leave).await
    }
}

async fn send_body(stream: &mut Stream, body: &mut Payload) -> Result<(), Failure> {
    let unsent = std::mem::take(&mut stream.unsent);
    if !unsent.is_empty() && !stream.stream.write(&unsent, stream.end).await? {
        return Ok(());
    }
    if stream.end {
        return Ok(());
    }
    match body {
        Payload::Whole(body) => {
            stream.stream.write(body, true).await?;
        }
        Payload::Pieces { pieces, .. } => {
            while let Some(piece) = pieces.recv().await {
                if !stream.stream.write(&piece, false).await? {
                    return Ok(());
                }
            }
            stream.stream.write(&[], true).await?;
        }
    }
    Ok(())
}

/// The data in what has come, and whether the body is complete.
fn feed(body: &mut Body, input: &[u8]) -> Result<(Bytes, bool), Failure> {
    let mut data = Vec::with_capacity(input.len());
    let fed = body.feed(input, &mut data).map_err(|_| Failure::Told(UpstreamError::Nonsense))?;
    Ok((data.into(), fed.done))
}

/// The head of a request, which has waited elsewhere for so long. Agents that ask the same send the same bytes, so that servers
/// know the answer by them.
fn head_of(ask: &Ask, waited: Duration) -> Vec<u8> {
    let mut head = Vec::with_capacity(64 + ask.target.len());
    head.extend_from_slice(ask.method.as_str().as_bytes());
    head.push(b' ');
    head.extend_from_slice(remaining(&ask.target, waited).as_bytes());
    head.extend_from_slice(b" HTTP/1.1\r\nHost: muster\r\n");
    for (name, value) in &ask.headers {
        head.extend_from_slice(name.as_bytes());
        head.extend_from_slice(b": ");
        // A line end in a value never makes a line.
        head.extend(value.bytes().map(|byte| if matches!(byte, b'\r' | b'\n') { b' ' } else { byte }));
        head.extend_from_slice(b"\r\n");
    }
    let length = match &ask.body {
        Payload::Whole(body) => body.len() as u64,
        Payload::Pieces { length, .. } => *length,
    };
    if length > 0 || !ask.body.is_empty() {
        head.extend_from_slice(format!("Content-Length: {length}\r\n").as_bytes());
    }
    head.extend_from_slice(b"\r\n");
    head
}

/// The target of a blocking query that waits no longer than was asked for, wherever it waits. Others stay as they are.
fn remaining(target: &str, waited: Duration) -> Cow<'_, str> {
    let Some((path, query)) = target.split_once('?').filter(|_| waited >= QUIET) else {
        return target.into();
    };
    let parts = || query.split('&').map(|part| part.split_once('=').unwrap_or((part, "")));
    if !parts().any(|(name, value)| name == "index" && value != "0") {
        return target.into();
    }
    let asked = parts().find(|(name, _)| *name == "wait").and_then(|(_, text)| duration::parse(text).ok());
    let asked = asked.and_then(|ns| u64::try_from(ns).ok()).filter(|ns| *ns > 0);
    let asked = asked.map_or(WAIT_DEFAULT, Duration::from_nanos).min(WAIT_MAX);
    let left = asked.saturating_sub(waited).max(Duration::from_millis(1));
    let mut out = format!("{path}?wait={}ms", left.as_millis());
    for (name, value) in parts().filter(|(name, _)| *name != "wait") {
        out.push('&');
        out.push_str(name);
        if !value.is_empty() {
            out.push('=');
            out.push_str(value);
        }
    }
    out.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_blocking_query_that_moves_waits_for_the_rest_of_its_time() {
        let after = |target: &'static str, seconds| remaining(target, Duration::from_secs(seconds));
        assert_eq!(after("/v1/kv/a?index=7&wait=60s&raw", 0), "/v1/kv/a?index=7&wait=60s&raw");
        assert_eq!(after("/v1/kv/a?index=7&wait=60s&raw", 20), "/v1/kv/a?wait=40000ms&index=7&raw");
        assert_eq!(after("/v1/kv/a?index=7", 60), "/v1/kv/a?wait=240000ms&index=7");
        assert_eq!(after("/v1/kv/a?index=7&wait=2h", 60), "/v1/kv/a?wait=540000ms&index=7");
        assert_eq!(after("/v1/kv/a?index=7&wait=1s", 60), "/v1/kv/a?wait=1ms&index=7");
        for same in ["/v1/kv/a", "/v1/kv/a?raw", "/v1/kv/a?index=0&wait=1s"] {
            assert_eq!(after(same, 60), same);
        }
    }
}
