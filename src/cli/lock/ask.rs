//! Requests with a limit, which another thread can break off.

use std::io::BufReader;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde::Deserialize;

use crate::cli::client::{Client, failed};
use crate::cli::transport::{self, Outgoing, Socket, error_text};

/// How long an agent may take for anything that does not wait by itself.
pub const PATIENCE: Duration = Duration::from_secs(10);

/// The agent that is asked.
pub struct Agent {
    client: Client,
    halt: Halt,
}

/// A finished answer.
pub struct Answer {
    /// Status code.
    pub status: u16,
    /// `X-Consul-Index`.
    pub index: u64,
    /// The server knows how to wait with a write.
    pub waits: bool,
    /// Body.
    pub body: Vec<u8>,
}

/// Why a request failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trouble {
    /// In Go's words.
    pub why: String,
    /// The same request may succeed later: nobody was there, or a server was in trouble.
    pub passes: bool,
}

impl Trouble {
    /// Trouble with something, in Consul's words.
    pub fn of(what: &str) -> impl Fn(Trouble) -> Trouble + '_ {
        move |trouble| Trouble { why: format!("{what}: {}", trouble.why), ..trouble }
    }

    /// Trouble that stays.
    pub fn lasting(why: impl Into<String>) -> Trouble {
        Trouble { why: why.into(), passes: false }
    }
}

/// Ends what an [`Agent`] is asked, from another thread.
#[derive(Default)]
struct Halt {
    state: Mutex<HaltState>,
    bell: Condvar,
}

#[derive(Default)]
struct HaltState {
    halted: bool,
    socket: Option<Socket>,
}

/// A row of the KV store.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Row {
    /// Its key.
    pub key: String,
    /// Its flags.
    pub flags: u64,
    /// Its value in base64.
    pub value: Option<String>,
    /// The session that holds it.
    #[serde(default)]
    pub session: String,
    /// The index of its last write.
    pub modify_index: u64,
}

impl Agent {
    /// The agent of a client.
    pub fn new(client: Client) -> Agent {
        Agent { client, halt: Halt::default() }
    }

    /// The same agent, for requests that are broken off apart from the others.
    pub fn apart(&self) -> Agent {
        Agent::new(self.client.clone())
    }

    /// Breaks off what is being asked; nothing more is asked from now on.
    pub fn halt(&self) {
        let mut state = self.halt.lock();
        state.halted = true;
        if let Some(socket) = state.socket.take() {
            socket.cut();
        }
        self.halt.bell.notify_all();
    }

    /// Whether it was halted.
    pub fn is_halted(&self) -> bool {
        self.halt.lock().halted
    }

    /// Rests so long; true at once when halted.
    pub fn rests(&self, rest: Duration) -> bool {
        let waited = self.halt.bell.wait_timeout_while(self.halt.lock(), rest, |state| !state.halted);
        waited.unwrap_or_else(PoisonError::into_inner).0.halted
    }

    /// Any request; its answer has come within about `limit`, or it has failed.
    pub fn ask(
        &self,
        method: &str,
        path: &str,
        query: &[(&str, &str)],
        body: &[u8],
        limit: Duration,
    ) -> Result<Answer, Trouble> {
        let (target, url) = self.client.address(path, query);
        let request = Outgoing { method, path: &target, headers: self.client.headers(), body };
        self.exchange(&request, limit)
            .map_err(|why| Trouble { why: failed(method, &url, &why), passes: true })
    }

    fn exchange(&self, request: &Outgoing<'_>, limit: Duration) -> Result<Answer, String> {
        let client = &self.client;
        let (stream, socket) = transport::connect(client.target(), client.tls(), Some(limit.min(PATIENCE)))?;
        let named = |error: std::io::Error| match error.kind() {
            std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut => "i/o timeout".to_owned(),
            std::io::ErrorKind::UnexpectedEof => "EOF".to_owned(),
            _ => error_text(&error),
        };
        socket.limit(limit, PATIENCE).map_err(named)?;
        let mut state = self.halt.lock();
        if state.halted {
            return Err("stopped".to_owned());
        }
        state.socket = Some(socket);
        drop(state);
        let mut reader = BufReader::new(stream);
        let head = transport::head(client.target(), request, true)?;
        let done = transport::write(reader.get_mut(), &head, request.body)
            .and_then(|()| transport::read_head(&mut reader))
            .and_then(|mut head| Ok((transport::read_body(&mut reader, &mut head.framing)?, head)));
        self.halt.lock().socket = None;
        let (body, head) = done.map_err(named)?;
        Ok(Answer { status: head.status, index: head.index.unwrap_or(0), waits: head.waits, body })
    }

    /// A write that answers whether it was done.
    pub fn is_done(
        &self,
        method: &str,
        path: &str,
        query: &[(&str, &str)],
        body: &[u8],
    ) -> Result<bool, Trouble> {
        Ok(self.ask(method, path, query, body, PATIENCE)?.ok()?.body.trim_ascii() == b"true")
    }

    /// The rows of a key, or with `recurse` under a prefix, and their index. With `index` the server waits for another one.
    pub fn rows(
        &self,
        key: &str,
        query: &[(&str, &str)],
        wait: Option<(u64, Duration)>,
    ) -> Result<(Vec<Row>, u64), Trouble> {
        let mut query = query.to_vec();
        let (index, length);
        let mut limit = PATIENCE;
        if let Some((since, wait)) = wait {
            index = since.to_string();
            length = format!("{}ms", wait.as_millis());
            query.extend([("index", index.as_str()), ("wait", length.as_str())]);
            // Servers wait up to a sixteenth longer.
            limit += wait + wait / 16;
        }
        let answer = self.ask("GET", &format!("/v1/kv/{key}"), &query, &[], limit)?;
        if answer.status == 404 {
            return Ok((Vec::new(), answer.index));
        }
        let answer = answer.ok()?;
        let rows = serde_json::from_slice(&answer.body).map_err(|why| Trouble::lasting(why.to_string()))?;
        Ok((rows, answer.index))
    }
}

impl Answer {
    /// An answer of 200; else Consul's text for other codes.
    pub fn ok(self) -> Result<Answer, Trouble> {
        if self.status == 200 {
            return Ok(self);
        }
        let text = String::from_utf8_lossy(&self.body);
        let why = format!("Unexpected response code: {} ({})", self.status, text.trim_end());
        Err(Trouble { why, passes: self.status >= 500 || self.status == 429 })
    }
}

impl Halt {
    fn lock(&self) -> MutexGuard<'_, HaltState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
